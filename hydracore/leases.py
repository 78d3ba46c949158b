"""Working off what a store leases out: a few at a time, on several nodes at once, each by one worker."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from hydracore.chance import Now, Token
from hydracore.errors import StoreUnavailable

_POLL = 1.0
_SIDE_BY_SIDE = 4
_LEASE_MARGIN = 30

Outcome = Callable[[], Awaitable[None]]
"""Tells the store what has become of an item."""


class Leased(Protocol):
    @property
    def id(self) -> str: ...


Item = TypeVar("Item", bound=Leased)


class LeaseWorker(ABC, Generic[Item]):
    """Leases items, and tries each once; ``timeout`` is what a try may take, in seconds.

    A lease ends by itself when its worker dies. What a try came to is told to the store for as long as the lease
    lasts: what is done is not done again for want of a database. ``what`` is what logs call an item.
    """

    def __init__(self, what: str, log: Any, *, timeout: int, now: Now, token: Token) -> None:
        self._what = what
        self._log = log
        self._timeout = timeout
        self._now = now
        self._token = token
        self._wake = asyncio.Event()
        self._under_way: set[asyncio.Task[None]] = set()
        self._loop: asyncio.Task[None] | None = None

    @abstractmethod
    async def _take(self, lease: str, now: datetime, until: datetime, /) -> Item | None:
        """Lease what is due longest until then; None where nothing is."""

    @abstractmethod
    async def _give_back(self, item: Item, now: datetime, /) -> None:
        """Give a lease back unused: the try does not count."""

    @abstractmethod
    async def _try(self, item: Item, /) -> Outcome:
        """What is to become of the item. Raises :class:`StoreUnavailable` where it could not be tried."""

    def start(self) -> None:
        self._loop = asyncio.get_running_loop().create_task(self._run())

    def wake(self) -> None:
        """There is something: look now, not at the next poll."""
        self._wake.set()

    async def stop(self, timeout: float) -> None:
        """Lease nothing more; give tries under way ``timeout`` seconds, then give their leases back."""
        if self._loop is None:
            return
        self._loop.cancel()
        await asyncio.wait({self._loop})
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=timeout)
        for task in self._under_way:
            task.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way)
        self._loop = None

    async def _run(self) -> None:
        healthy = True
        while True:
            try:
                while len(self._under_way) < _SIDE_BY_SIDE and (item := await self._lease()):
                    task = asyncio.get_running_loop().create_task(self._work(item))
                    self._under_way.add(task)
                    task.add_done_callback(self._finished)
                healthy = True
            except Exception as error:
                if healthy:
                    self._log.warning("the outbox cannot be read", of=self._what, error=type(error).__name__)
                healthy = False
            with suppress(TimeoutError):
                async with asyncio.timeout(_POLL):  # Not wait_for, which may swallow stop()'s cancellation.
                    await self._wake.wait()
            self._wake.clear()

    def _finished(self, task: "asyncio.Task[None]") -> None:
        self._under_way.discard(task)
        self._wake.set()

    async def _lease(self) -> Item | None:
        now = self._now()
        until = now + timedelta(seconds=self._timeout + _LEASE_MARGIN)
        # Shielded: a lease that was taken while stopping must come back to be released.
        taking = asyncio.ensure_future(self._take(self._token(9), now, until))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            with suppress(StoreUnavailable):
                if item := await taking:
                    await self._release(item)
            raise

    async def _work(self, item: Item) -> None:
        try:
            outcome = await self._try(item)
        except asyncio.CancelledError:
            with suppress(StoreUnavailable):
                await self._release(item)
            return
        except StoreUnavailable:
            self._log.warning(f"{self._what} left for later, the store is away", id=item.id)
            outcome = partial(self._release, item)
        await self._insist(outcome)

    async def _insist(self, outcome: Outcome) -> None:
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._timeout + _LEASE_MARGIN
        try:
            while True:
                try:
                    return await outcome()
                except StoreUnavailable:
                    if loop.time() >= ends:
                        return
                await asyncio.sleep(_POLL)
        except asyncio.CancelledError:
            with suppress(StoreUnavailable):
                await outcome()

    async def _release(self, item: Item) -> None:
        await self._give_back(item, self._now())
