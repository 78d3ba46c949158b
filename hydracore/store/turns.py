"""How many operations a process has under way on the database at once."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from hydracore.errors import StoreUnavailable

Result = TypeVar("Result")


class Turns:
    """At most ``most`` operations at once; each of the others waits ``patience`` seconds for its turn at most.

    Not left to the driver, whose own queue is no place to wait: the wait counts as the operation's time there, so that
    after an outage under load those that come out of it are late already, break their connections, and nobody is
    served any more, however long the database has been back.

    An operation is never cancelled: it has its own deadline, and a cancellation that meets it in PyMongo's waiting
    (on Python 3.11) leaves locks broken that all others need. Who gives up leaves it to itself, in its place.
    """

    def __init__(self, most: int, patience: float) -> None:
        self._slots = asyncio.Semaphore(most)
        self._running: set[asyncio.Future[Any]] = set()
        self._patience = patience

    async def take(self, operation: Callable[[], Awaitable[Result]]) -> Result:
        """What ``operation`` returns, when its turn has come. Raises :class:`StoreUnavailable` where it does not
        come."""
        if self._slots.locked():
            try:
                async with asyncio.timeout(self._patience):
                    await self._slots.acquire()
            except TimeoutError as error:
                raise StoreUnavailable().because("no turn within store.timeout") from error
        else:
            await self._slots.acquire()
        running = asyncio.ensure_future(self._run(operation))
        self._running.add(running)
        running.add_done_callback(self._let_go)
        return await asyncio.shield(running)

    async def finish(self, within: float) -> None:
        """Wait so many seconds at most for what is under way, whether or not anybody else does."""
        if self._running:
            await asyncio.wait(self._running, timeout=within)

    async def _run(self, operation: Callable[[], Awaitable[Result]]) -> Result:
        try:
            return await operation()
        finally:
            self._slots.release()

    def _let_go(self, running: "asyncio.Future[Any]") -> None:
        self._running.discard(running)
        if not running.cancelled():
            running.exception()  # Seen: asyncio would complain otherwise, for nobody may be left to see it.
