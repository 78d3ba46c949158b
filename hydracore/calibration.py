"""What a password's hash costs on this machine, and whether the argon2 that is installed is the best for it."""

import platform
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from hydracore.passwords import HashCost, hasher
from hydracore.threads import be_nice

Build = Literal["generic", "AVX2", "unknown"]

# Equally strong by OWASP's Password Storage Cheat Sheet, the one with the most memory first.
EQUIVALENTS = tuple(HashCost(*each, 1) for each in ((47104, 1), (19456, 2), (12288, 3), (9216, 4), (7168, 5)))
LEAST_MEMORY_KIB = 19456

# vpmuludq on 256-bit registers, which is what argon2's inner loop becomes where the compiler may use AVX2 (or, in its
# longer form, AVX-512); a library built for every machine has none.
_AVX2 = re.compile(
    rb"\xc5[\x05\x0d\x15\x1d\x25\x2d\x35\x3d\x45\x4d\x55\x5d\x65\x6d\x75\x7d"
    rb"\x85\x8d\x95\x9d\xa5\xad\xb5\xbd\xc5\xcd\xd5\xdd\xe5\xed\xf5\xfd]\xf4"
)
_AVX512 = re.compile(rb"\x62[\x00-\xff][\x00-\xff][\x28-\x2f\x48-\x4f]\xf4")
_FEW = 10
_FOR_HASHES = 0.8
_MOST_MEMORY_KIB = 1024 * 1024
_PASSWORD = "correct horse battery staple"  # noqa: S105  # nobody's


@dataclass(frozen=True)
class Measured:
    """``alone`` is what one hash takes with nothing beside it, in milliseconds; ``rate`` how many a second all
    ``threads`` do together; ``memory_mib`` what they need for it."""

    cost: HashCost
    alone: float
    rate: float
    memory_mib: float


def measure(cost: HashCost, threads: int, seconds: float) -> Measured:
    """Verify for ``seconds`` alone, and as long in low-priority ``threads``, as the server does."""
    of = hasher(cost)
    encoded = of.hash(_PASSWORD)

    def verify(until: float) -> int:
        done = 0
        while time.perf_counter() < until:
            of.verify(encoded, _PASSWORD)
            done += 1
        return done

    started = time.perf_counter()
    alone = verify(started + seconds)
    taken = time.perf_counter() - started
    with ThreadPoolExecutor(threads, initializer=be_nice) as pool:
        begun = time.perf_counter()
        together = sum(pool.map(verify, [begun + seconds] * threads))
        rate = together / (time.perf_counter() - begun)
    return Measured(cost, taken / max(alone, 1) * 1000, rate, threads * cost.memory_kib / 1024)


def sustaining(measured: Measured, rate: float) -> int:
    """The KiB of memory with which ``rate`` hashes a second can be kept up, with a fifth of the cores left for all
    else, for the cost grows as the memory does: a multiple of 1,024, a GiB at most. What is below
    :data:`LEAST_MEMORY_KIB` (two passes) is too weak."""
    return min(int(measured.cost.memory_kib * measured.rate * _FOR_HASHES / rate) // 1024 * 1024, _MOST_MEMORY_KIB)


def build() -> Build:
    """What the installed argon2 was built for: every machine of its kind, or one that has AVX2."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return "unknown"
    libraries = _libraries()
    if not libraries:
        return "unknown"
    return "AVX2" if any(_is_wide(file.read_bytes()) for file in libraries) else "generic"


def _libraries() -> Sequence[Path]:
    try:
        files = metadata.distribution("argon2-cffi-bindings").files or []
    except metadata.PackageNotFoundError:
        return []
    return [Path(str(file.locate())) for file in files if file.suffix in (".so", ".pyd", ".dylib")]


def _is_wide(library: bytes) -> bool:
    return len(_AVX2.findall(library)) > _FEW or len(_AVX512.findall(library)) > _FEW
