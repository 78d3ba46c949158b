"""Load by wrk, what it showed, and how figures are told."""

import os
import platform
import random
import shutil
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from json import loads
from pathlib import Path
from typing import Any, TypeVar

from feeds import Feed

CLIENTS = 16
HERE = Path(__file__).parent
_VERSIONS = ("hydracore", "tornado", "pymongo", "argon2-cffi-bindings", "uvloop")

T = TypeVar("T")


@dataclass(frozen=True)
class Sample:
    """One call of one contender in one round. All but the rate in milliseconds; processor times are a request's."""

    rate: float
    p50: float
    p99: float
    server: float
    database: float
    client: float


def need_wrk() -> None:
    if shutil.which("wrk") is None:
        raise SystemExit("The load comes from wrk. On Debian: apt install wrk")


def wrk_command(port: int, feed: Feed, threads: int, clients: int, seconds: int) -> list[str]:
    return [
        *("wrk", "-t", str(threads), "-c", str(clients), "-d", str(seconds), "--timeout", "30"),
        *("-s", str(HERE / "wrk.lua"), f"http://127.0.0.1:{port}", "--"),
        *(str(feed.file), "chain" if feed.chained else "list", str(threads)),
    ]


def wrk(port: int, feed: Feed, threads: int, clients: int, seconds: int) -> dict[str, Any]:
    """What :file:`wrk.lua` says of ``seconds`` of load."""
    command = wrk_command(port, feed, threads, clients, seconds)
    said = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # wrk
    lines = [line for line in said.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise SystemExit(f"wrk: {said.stdout} {said.stderr}")
    told: dict[str, Any] = loads(lines[-1])
    return told


def shuffled(able: list[T], number: int) -> list[T]:
    """The same in another order each round: nobody always follows the same one."""
    return random.Random(number).sample(able, len(able))  # noqa: S311  # an order is no secret


def median(samples: Sequence[Sample], of: str) -> float:
    return statistics.median(getattr(sample, of) for sample in samples)


def ratio(samples: Sequence[Sample], others: Sequence[Sample]) -> str:
    """How their rates compare, round by round: median, least and most; "" where there is nothing to compare with."""
    if len(samples) != len(others):
        return ""
    ratios = [one.rate / other.rate for one, other in zip(samples, others, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def machine(*more: str) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in (*_VERSIONS, *more))
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {versions}"
