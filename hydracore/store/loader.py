"""Look-ups that are asked for at once, as one operation."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Generic, TypeVar

from hydracore.errors import StoreUnavailable

Key = TypeVar("Key")
Found = TypeVar("Found")
Keys = Callable[[], Sequence[Key]]

_Waiting = dict[Key, list[asyncio.Future[Found | None]]]

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
        self._open: _Waiting[Key, Found] | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def get(self, key: Key) -> Found | None:
        """What is found, or None. Raises :class:`StoreUnavailable`: also where the turn of those it was to share an
        operation with does not come, whoever asked first."""
        waiting = self._open
        begins = waiting is None or len(waiting) >= _MOST
        if waiting is None or begins:
            waiting = self._open = {}
        future: asyncio.Future[Found | None] = asyncio.get_running_loop().create_future()
        waiting.setdefault(key, []).append(future)
        if begins:  # With the key in it: a host's loop may run what is begun at once.
            running = asyncio.create_task(self._run(waiting))
            self._running.add(running)
            running.add_done_callback(partial(self._end, waiting))
        return await future

    async def _run(self, waiting: _Waiting[Key, Found]) -> None:
        def keys() -> Sequence[Key]:
            self._close(waiting)
            wanted = [key for key, futures in waiting.items() if not all(future.done() for future in futures)]
            if not wanted:
                raise asyncio.CancelledError  # Everybody has given up.
            return wanted

        try:
            found = await self._ask(keys)
        except Exception as error:
            self._close(waiting)
            for future in _unanswered(waiting.values()):
                future.set_exception(_own(error))
        else:
            for key, futures in waiting.items():
                for future in _unanswered([futures]):
                    future.set_result(found.get(key))

    def _close(self, waiting: _Waiting[Key, Found]) -> None:
        if self._open is waiting:
            self._open = None

    def _end(self, waiting: _Waiting[Key, Found], running: asyncio.Task[None]) -> None:
        """However it ended; it may have been cancelled before it began."""
        self._running.discard(running)
        self._close(waiting)
        for future in _unanswered(waiting.values()):
            future.cancel()


def _unanswered(
    each: Iterable[Sequence["asyncio.Future[Found | None]"]],
) -> Iterator["asyncio.Future[Found | None]"]:
    return (future for futures in each for future in futures if not future.done())


def _own(error: Exception) -> Exception:
    """One for each: whoever catches it may add to it what is theirs."""
    if not isinstance(error, StoreUnavailable):
        return error
    own = StoreUnavailable().because(**error.why)
    own.__cause__ = error.__cause__
    return own
