"""Passwords: argon2id in a bounded pool beside the event loop, at low scheduling priority.

A hash that was made elsewhere is kept under argon2id: what is hashed is what the other scheme makes of the password,
and the scheme's parameters stand in front.
"""

import asyncio
import os
import unicodedata
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import cached_property, partial
from time import perf_counter
from typing import Generic, Self, TypeVar

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError

from hydracore.errors import HashingOverloaded
from hydracore.foreign import Foreign, ForeignHash, Work, argon2_work, spend
from hydracore.meters import UNMEASURED, Meters
from hydracore.threads import GiveWay

T = TypeVar("T")

# So many for each thread are made ready at once: it has always the next one, while a storm that fills the queue does
# not fill the event loop too.
_NEAR = 2

_OUTER = "$argon2id$"
_WRAPPED = "$wrapped$"


@dataclass(frozen=True)
class HashCost:
    """argon2id's parameters (RFC 9106): KiB of memory, passes, lanes."""

    memory_kib: int
    time_cost: int
    parallelism: int


TESTING = HashCost(memory_kib=8, time_cost=1, parallelism=1)


def hasher(cost: HashCost) -> PasswordHasher:
    """argon2id at that cost."""
    return PasswordHasher(time_cost=cost.time_cost, memory_cost=cost.memory_kib, parallelism=cost.parallelism)


def normalise(password: str) -> str:
    """NFC and nothing else: not trimmed, not cut, no case changed (NIST SP 800-63B-4, 3.1.1.2)."""
    return unicodedata.normalize("NFC", password)


@dataclass(frozen=True)
class Stored:
    """A hash as it is kept: argon2id's, of the password itself or of what ``foreign`` makes of it."""

    argon2: str
    foreign: Foreign | None = None

    @staticmethod
    def is_wrapped(encoded: str) -> bool:
        return encoded.startswith(_WRAPPED)

    @classmethod
    def parse(cls, encoded: str) -> Self:
        """Raises ``ValueError``."""
        if not cls.is_wrapped(encoded):
            return cls(encoded)
        foreign, _, rest = encoded.removeprefix(_WRAPPED).partition(_OUTER)
        return cls(_OUTER + rest, Foreign.parse(foreign))

    def __str__(self) -> str:
        return f"{_WRAPPED}{self.foreign}{self.argon2}" if self.foreign else self.argon2

    def hashed(self, password: str) -> str:
        """What argon2id hashes."""
        return inner(self.foreign.digest(password)) if self.foreign else password


def inner(digest: bytes) -> str:
    return urlsafe_b64encode(digest).decode()


def forms(password: str) -> list[str]:
    """NFC, as hashes are made here; and as it came, which others have hashed, where that is something else."""
    normal = normalise(password)
    return [normal] if normal == password else [normal, password]


class Room:
    """A place in the queue that is kept for a hash to come, until :meth:`leave` or the end of the hash."""

    def __init__(self, pool: "HashingPool") -> None:
        self._pool: HashingPool | None = pool
        self._near = False

    async def near(self) -> None:
        """Wait until it is so far in front that what the hash needs had better be ready. Raises
        :class:`HashingOverloaded` where that is not in time."""
        if self._pool is not None and not self._near:
            await self._pool.come_near()
            self._near = True

    def take(self) -> Callable[[], None] | None:
        """What gives the place back, for whoever has it now; None where it was not there any more."""
        pool, self._pool = self._pool, None
        return None if pool is None else partial(pool.leave, near=self._near)

    def leave(self) -> None:
        """Let another have it."""
        if leave := self.take():
            leave()


class HashingPool:
    """A few low-priority threads with a bounded queue in front, in which nobody waits longer than ``patience`` seconds.

    Memory is bounded by ``threads`` times the cost of a hash. argon2 releases the GIL, so the
    threads use the cores and the lower priority lets the event loop win when both want one.
    """

    def __init__(self, threads: int, queue: int, patience: float = 5, meters: Meters = UNMEASURED) -> None:
        self._bound = threads + queue
        self._near = asyncio.Semaphore(_NEAR * threads)
        self._patience = patience
        self._meters = meters
        self._executor = ThreadPoolExecutor(threads, "hydracore-hash", initializer=GiveWay())
        self.pending = 0
        """How many run, wait, or have a place kept."""
        self.refused = 0
        """How many there was no room for, or that waited too long."""

    @property
    def capacity(self) -> int:
        """How many may be :attr:`pending`."""
        return self._bound

    @contextmanager
    def room(self) -> Iterator[Room]:
        """Keep a place for one hash, before the work that comes ahead of it is done for nothing. Raises
        :class:`HashingOverloaded` at once if there is none."""
        self._enter()
        room = Room(self)
        try:
            yield room
        finally:
            room.leave()

    async def come_near(self) -> None:
        """:meth:`Room.near`."""
        try:
            async with asyncio.timeout(self._patience):
                await self._near.acquire()
        except TimeoutError as error:
            self.refused += 1
            raise HashingOverloaded().because("no turn within password.hash_timeout") from error

    async def run(self, work: Callable[[], T], room: Room | None = None) -> T:
        """Run ``work`` in the pool, in the place that ``room`` keeps. Raises :class:`HashingOverloaded` at once if
        there is none, and for work that did not end in time."""
        leave = room.take() if room else None
        if leave is None:
            self._enter()
            leave = self.leave
        loop, asking = asyncio.get_running_loop(), copy_context()
        timed = _Timed(work)
        job = self._executor.submit(timed)
        # Counted until the thread is done, not until the caller stops waiting.
        job.add_done_callback(lambda job: _tell(loop, asking, lambda: self._end(timed, leave)))
        try:
            async with asyncio.timeout(self._patience):
                return await asyncio.shield(asyncio.wrap_future(job))
        except TimeoutError as error:
            self.refused += 1
            raise HashingOverloaded().because("no hash within password.hash_timeout") from error
        except asyncio.CancelledError as error:
            if job.cancelled():  # By close(), not by whoever waits: that one needs an answer.
                raise HashingOverloaded().because("the process ends") from error
            raise
        finally:
            job.cancel()  # Unless it runs: nobody waits for it any more.

    def _enter(self) -> None:
        if self.pending >= self._bound:
            self.refused += 1
            raise HashingOverloaded().because("password.hash_queue is full", pending=self.pending)
        self.pending += 1

    def leave(self, *, near: bool = False) -> None:
        """Give a place back, and one in front if that was :meth:`come_near`."""
        self.pending -= 1
        if near:
            self._near.release()

    def _end(self, timed: "_Timed[T]", leave: Callable[[], None]) -> None:
        leave()
        if timed.ended:
            self._meters.hashed(timed.began - timed.asked, timed.ended - timed.began)

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)


class _Timed(Generic[T]):
    """Work, and when it was asked for, began, and ended; 0 where it did not. Told in the event loop, not in a thread
    that gives way to all others while it holds what they wait for."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self.asked = perf_counter()
        self.began = self.ended = 0.0

    def __call__(self) -> T:
        self.began = perf_counter()
        try:
            return self._work()
        finally:
            self.ended = perf_counter()


def _tell(loop: asyncio.AbstractEventLoop, asking: Context, what: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # The loop is closed: nobody counts any more.
        loop.call_soon_threadsafe(what, context=asking)


def _dearest(works: Iterable[str]) -> Mapping[str, int]:
    dearest: dict[str, int] = {}
    for text in works:
        with suppress(ValueError):  # A newer version may know kinds that this one cannot verify either.
            work = Work.parse(text)
            dearest[work.kind] = max(work.cost, dearest.get(work.kind, 0))
    return dearest


def price(works: Iterable[str], enough: float) -> float:
    """How many seconds :meth:`Passwords.equalise` adds to each verification for them, by computing it; no more is
    computed once it is ``enough``."""
    began = perf_counter()
    for kind, cost in _dearest(works).items():
        if perf_counter() - began < enough:
            spend(Work(kind, cost), "a password")
    return perf_counter() - began


class Passwords:
    """Hash, verify, rehash, and spend the same time where there is nothing to verify."""

    def __init__(self, cost: HashCost, pool: HashingPool) -> None:
        self._hasher = hasher(cost)
        self._own = argon2_work(cost.memory_kib, cost.time_cost, cost.parallelism)
        self._pool = pool
        self._everybodys: Mapping[str, int] = {}

    @cached_property
    def _nobodys_hash(self) -> str:
        return self._hasher.hash(os.urandom(16))

    def prepare(self) -> None:
        """Make what time is spent on where there is nothing to verify, which takes as long as a hash: in a thread, and
        before anyone is served."""
        _ = self._nobodys_hash

    def equalise(self, works: Iterable[str]) -> None:
        """From now on each :meth:`verify` costs what the dearest hash of each kind among ``works`` costs, whether or
        not the account's hash is one of them."""
        self._everybodys = _dearest(works)

    async def hash(self, password: str) -> str:
        """The encoded argon2id hash. Raises :class:`HashingOverloaded`."""
        return await self._pool.run(lambda: self._hasher.hash(normalise(password)))

    async def wrap(self, foreign: ForeignHash) -> str:
        """A hash from elsewhere as it is kept: itself where it is strong enough, or under argon2id. Raises
        :class:`HashingOverloaded`."""
        if self.keeps(foreign):
            return foreign.argon2id
        argon2 = await self._pool.run(lambda: self._hasher.hash(inner(foreign.digest)))
        return str(Stored(argon2, foreign.foreign))

    def keeps(self, foreign: ForeignHash) -> bool:
        """Whether it is argon2id's, and strong enough or what is made here today."""
        return foreign.strong or (bool(foreign.argon2id) and foreign.foreign.work == self._own)

    def work(self, foreign: ForeignHash) -> str:
        """What verifying it costs beside the argon2id of everybody, as :meth:`equalise` takes it; "" for nothing."""
        work = foreign.foreign.work
        return "" if self.keeps(foreign) and work == self._own else str(work)

    @property
    def pending(self) -> int:
        """How many hashes run, wait, or have a place kept."""
        return self._pool.pending

    @property
    def capacity(self) -> int:
        """How many may be :attr:`pending`."""
        return self._pool.capacity

    @property
    def refused(self) -> int:
        """How many there was no room for, or no time, since the start."""
        return self._pool.refused

    def room(self) -> AbstractContextManager[Room]:
        """A scope that keeps a place for one :meth:`hash` or :meth:`verify`. Raises :class:`HashingOverloaded` if there
        is none."""
        return self._pool.room()

    async def verify(self, encoded: str, password: str, room: Room | None = None, *, equal: bool = True) -> bool:
        """Whether ``password`` is the one that was hashed. For "", an account without a password or no account
        at all, it spends as much and says no. With ``equal`` it costs what :meth:`equalise` said; without, what this
        hash takes. Raises :class:`HashingOverloaded`."""
        everybodys = self._everybodys if equal else {}
        work = partial(self._verify, encoded, password, everybodys)
        return await self._pool.run(work, room) and bool(encoded)

    def outdated(self, encoded: str) -> bool:
        """Whether the hash was made elsewhere, or with other parameters than today's."""
        return Stored.is_wrapped(encoded) or self._hasher.check_needs_rehash(encoded)

    def _verify(self, encoded: str, password: str, everybodys: Mapping[str, int]) -> bool:
        try:
            stored = Stored.parse(encoded or self._nobodys_hash)
        except ValueError:
            return False
        # Each of them, whatever comes of the first.
        found = [self._is_right(stored, form, everybodys) for form in forms(password)]
        return any(found)

    def _is_right(self, stored: Stored, password: str, everybodys: Mapping[str, int]) -> bool:
        done = self._work_of(stored)
        # What everybody's argon2id is made of may be due once more, for one from elsewhere that lies below it.
        counts = bool(stored.foreign) or done != self._own
        for kind, cost in everybodys.items():
            if (rest := cost - (done.cost if counts and done.kind == kind else 0)) > 0:
                spend(Work(kind, rest), password)
        if counts and not stored.foreign and done.kind in everybodys:
            spend(self._own, password)
        try:
            self._hasher.verify(stored.argon2, stored.hashed(password))
        except (VerificationError, InvalidHashError):
            return False
        # Elsewhere a password with NUL may be one without: HMAC pads its key with them, C's strings end there, and
        # bcrypt repeats what it is given with one between.
        return not (stored.foreign and "\0" in password)

    def _work_of(self, stored: Stored) -> Work:
        if stored.foreign:
            return stored.foreign.work
        try:
            found = extract_parameters(stored.argon2)
        except InvalidHashError:
            return self._own
        return argon2_work(found.memory_cost, found.time_cost, found.parallelism)

    def close(self) -> None:
        self._pool.close()
