"""A storm of sign-ins, ten times what the machine can hash: what the accepted ones lose, and what others notice.

One worker with real hashing, and two processes beside it: the storm, which comes however slow the answers are, and the
probe, which asks ``/auth/me`` and ``/health/live`` 25 times a second each. Quiet and storm take turns. All of that
without limits, with those that are shipped, and with limits so wide that they refuse nobody. ``make bench`` runs it; it
ends with 1 where a bar is missed.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client import BODY, Server, ask, read, written

from hydracore.store.embedded import Mongod

_TIMES = 10
_PROBES = 25
_SETTLE = 1.0
# The bars: accepted sign-ins against those of a quiet pool, and milliseconds of what has to stay quick. Memory is flat
# that grows by less than a tenth, or by the MiB that an allocator keeps.
_LEAST_ACCEPTED = 0.9
_MOST_P99 = 50.0
_MOST_GROWTH = 0.1
_ALLOCATOR = 10
_RULES = ("LOGIN_ADDRESS_NETWORK", "LOGIN_ADDRESS", "LOGIN_NETWORK")
_SHIPPED = {"HYDRACORE_LIMITS__ENABLED": "true"}
_WIDE = {**_SHIPPED, **{f"HYDRACORE_LIMITS__{rule}": "9999999/3600" for rule in _RULES}}
_ACCOUNTS = 32
# As many as an account remembers, as a proxy in front would name them.
_NETWORKS = [f"198.18.0.{number}" for number in range(1, 9)]


@dataclass
class Seen:
    """What clients saw: answers by status, and seconds."""

    codes: Counter[int] = field(default_factory=Counter)
    times: dict[int, list[float]] = field(default_factory=dict)

    def add(self, code: int, seconds: float) -> None:
        self.codes[code] += 1
        self.times.setdefault(code, []).append(seconds)


def somebody(request: bytes, account: int | None = None) -> bytes:
    """The request, for any account, from any network: of one alone only so many sign-ins are judged at once."""
    if account is None:
        account = random.randrange(_ACCOUNTS)  # noqa: S311  # any will do
    network = random.choice(_NETWORKS)  # noqa: S311  # any will do
    request = request.replace(b"ada@", f"a{account:02}@".encode())
    return request.replace(b"\r\n", f"\r\nX-Forwarded-For: {network}\r\n".encode(), 1)


class Connections:
    """Kept open and used again, however many requests are in flight."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, request: bytes, seen: Seen) -> None:
        before = time.perf_counter()
        try:
            pair = self._free.pop() if self._free else await asyncio.open_connection("127.0.0.1", self._port)
            pair[1].write(somebody(request))
            code, _ = await read(pair[0])
        except (OSError, EOFError):
            seen.add(0, time.perf_counter() - before)
            return
        self._free.append(pair)
        seen.add(code, time.perf_counter() - before)


async def steadily(port: int, requests: list[bytes], rate: float, seconds: float) -> list[Seen]:
    """``rate`` times a second each of ``requests``, whatever becomes of the ones before."""
    connections, seen = Connections(port), [Seen() for _ in requests]
    loop = asyncio.get_running_loop()
    started, asked = loop.time(), 0
    waiting: set[asyncio.Task[None]] = set()
    while (now := loop.time() - started) < seconds:
        while asked < now * rate:
            for request, each in zip(requests, seen, strict=True):
                task = loop.create_task(connections.ask(request, each))
                waiting.add(task)
                task.add_done_callback(waiting.discard)
            asked += 1
        await asyncio.sleep(0.002)
    await asyncio.gather(*waiting)
    return seen


async def closed(port: int, request: bytes, clients: int, seconds: float) -> list[Seen]:
    """As many at once as the pool takes, one after the other: what it can do."""
    connections, seen = Connections(port), Seen()
    ends = time.perf_counter() + seconds

    async def client() -> None:
        while time.perf_counter() < ends:
            await connections.ask(request, seen)

    await asyncio.gather(*(client() for _ in range(clients)))
    return [seen]


def elsewhere(pipe: Any, work: str, arguments: tuple[Any, ...]) -> None:
    """In a process of its own: the storm must not hold up the probe, nor its own start anybody else."""
    pipe.send("ready")
    pipe.recv()
    pipe.send(asyncio.run({"steadily": steadily, "closed": closed}[work](*arguments)))


def begin(work: str, *arguments: Any) -> Any:
    mine, theirs = multiprocessing.Pipe()
    multiprocessing.get_context("spawn").Process(target=elsewhere, args=(theirs, work, arguments), daemon=True).start()
    mine.recv()
    return mine


def p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[98] * 1000 if len(times) > 1 else 0.0


def memory(pid: int) -> float:
    """MiB of the workers under ``pid``."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    status = "".join(Path(f"/proc/{child}/status").read_text() for child in listed)
    return sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024


async def measure(server: Server, chosen: argparse.Namespace) -> list[str]:
    """The bars that were missed."""
    await server.ready()
    _, body = await ask(server.port, "POST", "/auth/register", BODY)
    for account in range(_ACCOUNTS):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(somebody(written("POST", "/auth/register", BODY), account))
        if (await read(reader))[0] != 201:
            raise SystemExit("an account cannot be registered")
        writer.close()
    me = written("GET", "/auth/me", token=json.loads(body)["access_token"])
    probe, login = [me, written("GET", "/health/live")], written("POST", "/auth/login", BODY)
    seconds = chosen.seconds
    can = 0.0
    quiet, stormy, probed = [], [], {"quiet": [Seen(), Seen()], "storm": [Seen(), Seen()]}
    sizes: list[float] = []
    for turn in range(chosen.rounds + 1):
        for kind in ("quiet", "storm"):
            if kind == "quiet":
                work = begin("closed", server.port, login, chosen.threads, seconds)
            else:
                work = begin("steadily", server.port, [login], _TIMES * can, seconds)
            beside = begin("steadily", server.port, probe, _PROBES, seconds)
            for one in (work, beside):
                one.send("go")
            [logins] = await asyncio.to_thread(work.recv)
            others = await asyncio.to_thread(beside.recv)
            if kind == "quiet":
                can = logins.codes[200] / seconds
            if turn:  # The first round warms up.
                (quiet if kind == "quiet" else stormy).append(logins)
                for kept, other in zip(probed[kind], others, strict=True):
                    for code, times in other.times.items():
                        for each in times:
                            kept.add(code, each)
            sizes.append(memory(server.process.pid))
            await asyncio.sleep(_SETTLE)
    return tell(chosen, quiet, stormy, probed, sizes)


def tell(
    chosen: argparse.Namespace, quiet: list[Seen], stormy: list[Seen], probed: dict[str, list[Seen]], sizes: list[float]
) -> list[str]:
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; one worker, ", end="")
    print(f"{chosen.threads} hashing threads, {chosen.rounds} rounds of {chosen.seconds} s, taking turns")
    ratios = [storm.codes[200] / calm.codes[200] for calm, storm in zip(quiet, stormy, strict=True)]
    refused = Seen()
    for storm in stormy:
        for each in storm.times.get(503, []):
            refused.add(503, each)
    ratio, growth = statistics.median(ratios), sizes[-1] - sizes[1]
    codes = sum((storm.codes for storm in stormy), Counter[int]())
    print(f"quiet     {sum(calm.codes[200] for calm in quiet) / chosen.rounds / chosen.seconds:6.1f} sign-ins/s")
    print(
        f"storm     {sum(codes.values()) / chosen.rounds / chosen.seconds:6.1f} asked/s, "
        f"{codes[200] / chosen.rounds / chosen.seconds:.1f} accepted/s; answers {dict(codes)}; "
        f"refusals p99 {p99(refused.times.get(503, [])):.0f} ms"
    )
    print(f"accepted  ratio {ratio:.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    for kind, (me, live) in probed.items():
        print(
            f"{kind:9} /auth/me p99 {p99(me.times[200]):5.1f} ms  /health/live p99 {p99(live.times[200]):5.1f} ms  "
            f"answers {dict(me.codes + live.codes)}"
        )
    print(f"memory    {sizes[1]:.0f} MiB after the first storm, {sizes[-1]:.0f} MiB after the last")
    missed = []
    if ratio < _LEAST_ACCEPTED:
        missed.append(f"accepted {ratio:.3f} of what a quiet pool takes, not {_LEAST_ACCEPTED}")
    for name, seen in zip(("/auth/me", "/health/live"), probed["storm"], strict=True):
        if (took := p99(seen.times.get(200, []))) >= _MOST_P99 or set(seen.codes) != {200}:
            missed.append(f"{name} p99 {took:.1f} ms, answers {dict(seen.codes)}; not 200 within {_MOST_P99:.0f} ms")
    if growth > max(_MOST_GROWTH * sizes[1], _ALLOCATOR):
        missed.append(f"memory grew by {growth:.0f} MiB from {sizes[1]:.0f}")
    if strange := set(codes) - {200, 429, 503}:
        missed.append(f"sign-ins were answered {strange}")
    return missed


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="hashing threads")
    parser.add_argument("--only", default="", help="of limits off, limits as shipped and wide limits, those with this")
    chosen = parser.parse_args()
    missed: list[str] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as made:
        folder = Path(made)
        mongod = Mongod(folder / "mongod")
        mongod.start()
        mongod.wait_ready()
        try:
            servers = {"limits off": {}, "limits as shipped": _SHIPPED, "wide limits": _WIDE}
            for name, settings in ((name, settings) for name, settings in servers.items() if chosen.only in name):
                missed += [f"{name}: {what}" for what in await one(folder, mongod.uri, name, chosen, settings)]
        finally:
            mongod.stop()
    for what in missed:
        print(f"missed    {what}")
    return 1 if missed else 0


async def one(folder: Path, uri: str, name: str, chosen: argparse.Namespace, settings: dict[str, str]) -> list[str]:
    """The bars that one server has missed."""
    more = {
        "HYDRACORE_PASSWORD__HASH_THREADS": str(chosen.threads),
        "HYDRACORE_SERVER__TRUSTED_PROXIES": '["127.0.0.1"]',
        **settings,
    }
    print(f"\n{name}", flush=True)
    server = Server(folder, uri, f"bench_{name.replace(' ', '_')}", 18720, **more)
    try:
        return await measure(server, chosen)
    finally:
        server.stop()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
