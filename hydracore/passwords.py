"""Passwords: argon2id in a bounded pool beside the event loop, at low scheduling priority."""

import asyncio
import os
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from hydracore.errors import HashingOverloaded
from hydracore.threads import be_nice

T = TypeVar("T")


@dataclass(frozen=True)
class HashCost:
    """argon2id's parameters (RFC 9106): KiB of memory, passes, lanes."""

    memory_kib: int
    time_cost: int
    parallelism: int


TESTING = HashCost(memory_kib=8, time_cost=1, parallelism=1)


def normalise(password: str) -> str:
    """NFC and nothing else: not trimmed, not cut, no case changed (NIST SP 800-63B-4, 3.1.1.2)."""
    return unicodedata.normalize("NFC", password)


class HashingPool:
    """A few low-priority threads with a bounded queue in front.

    Memory is bounded by ``threads`` times the cost of a hash. argon2 releases the GIL, so the
    threads use the cores and the lower priority lets the event loop win when both want one.
    """

    def __init__(self, threads: int, queue: int) -> None:
        self._bound = threads + queue
        self._pending = 0
        self._executor = ThreadPoolExecutor(threads, "hydracore-hash", initializer=be_nice)

    async def run(self, work: Callable[[], T]) -> T:
        """Run ``work`` in the pool; raises :class:`HashingOverloaded` at once if the queue is full."""
        if self._pending >= self._bound:
            raise HashingOverloaded
        self._pending += 1
        future = asyncio.get_running_loop().run_in_executor(self._executor, work)
        # Counted until the thread is done, not until the caller stops waiting.
        future.add_done_callback(self._release)
        return await asyncio.shield(future)

    def _release(self, future: "asyncio.Future[T]") -> None:
        self._pending -= 1

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)


class Passwords:
    """Hash, verify, rehash, and spend the same time where there is nothing to verify."""

    def __init__(self, cost: HashCost, pool: HashingPool) -> None:
        self._hasher = PasswordHasher(
            time_cost=cost.time_cost, memory_cost=cost.memory_kib, parallelism=cost.parallelism
        )
        self._pool = pool
        self._nobodys_hash = self._hasher.hash(os.urandom(16))

    async def hash(self, password: str) -> str:
        """The encoded argon2id hash. Raises :class:`HashingOverloaded`."""
        return await self._pool.run(lambda: self._hasher.hash(normalise(password)))

    async def verify(self, encoded: str, password: str) -> bool:
        """Whether ``password`` is the one that was hashed. For "", an account without a password or no account
        at all, it spends as much and says no. Raises :class:`HashingOverloaded`."""
        right = await self._pool.run(lambda: self._verify(encoded or self._nobodys_hash, password))
        return right and bool(encoded)

    def outdated(self, encoded: str) -> bool:
        """Whether the hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(encoded)

    def _verify(self, encoded: str, password: str) -> bool:
        try:
            return self._hasher.verify(encoded, normalise(password))
        except (VerificationError, InvalidHashError):
            return False

    def close(self) -> None:
        self._pool.close()
