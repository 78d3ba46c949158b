"""Look-ups that are asked for at once, as one operation."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

from hydracore.errors import StoreUnavailable

Key = TypeVar("Key")
Found = TypeVar("Found")
Keys = Callable[[], Sequence[Key]]

# Half of what a first batch of MongoDB holds, for those who look up two documents a key: no second round trip.
_MOST = 50


class Loader(Generic[Key, Found]):
    """``ask`` is given what tells the keys, to be called when its turn has come, and gives what is found by key.

    An operation costs the event loop several times what a document does. Those who ask in the same pass of the loop, or
    while the ones before them wait for their turn, share one; nobody waits in order to be together. None shares one
    that is under way: what is found is never older than the question.
    """

    def __init__(self, ask: Callable[[Keys[Key]], Awaitable[Mapping[Key, Found]]]) -> None:
        self._ask = ask
        self._open: dict[Key, list[asyncio.Future[Found | None]]] | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def get(self, key: Key) -> Found | None:
        """What is found, or None. Raises :class:`StoreUnavailable`."""
        waiting = self._open
        if waiting is None or len(waiting) >= _MOST:
            waiting = self._open = {}
            running = asyncio.create_task(self._run(waiting))
            self._running.add(running)
            running.add_done_callback(self._running.discard)
        future: asyncio.Future[Found | None] = asyncio.get_running_loop().create_future()
        waiting.setdefault(key, []).append(future)
        return await future

    async def _run(self, waiting: dict[Key, list["asyncio.Future[Found | None]"]]) -> None:
        def keys() -> Sequence[Key]:
            if self._open is waiting:
                self._open = None
            return list(waiting)

        found: Mapping[Key, Found] = {}
        failed: BaseException | None = None
        try:
            found = await self._ask(keys)
        except BaseException as error:
            failed = error
            if not isinstance(error, Exception):
                raise
        finally:
            keys()
            for key, futures in waiting.items():
                for future in futures:
                    _tell(future, found.get(key), failed)


def _tell(future: "asyncio.Future[Found | None]", found: Found | None, failed: BaseException | None) -> None:
    if future.done():  # Who asked is gone.
        return
    if failed is None:
        future.set_result(found)
    elif isinstance(failed, StoreUnavailable):
        # One each: whoever catches it may add to it what is theirs.
        own = StoreUnavailable().because(**failed.why)
        own.__cause__ = failed.__cause__
        future.set_exception(own)
    elif isinstance(failed, Exception):
        future.set_exception(failed)
    else:
        future.cancel()
