"""Tells the meters how things stand, which no request does: what is counted anyway is followed, not counted twice."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

from hydracore.errors import StoreUnavailable
from hydracore.meters import Meters, State
from hydracore.models import Backlog
from hydracore.threads import Threads

_STATE_EVERY = 1.0
_OUTBOX_EVERY = 10.0
_MOST_READERS = 8


Asked = Callable[[], Awaitable[Backlog]]


class Reporter:
    """``state`` says how things stand in this process, ``backlog`` what is in the outbox, ``webhooks`` what is in
    theirs for each."""

    def __init__(
        self,
        meters: Meters,
        state: Callable[[], State],
        backlog: Asked,
        webhooks: Mapping[str, Asked] = MappingProxyType({}),
    ) -> None:
        self._meters = meters
        self._state = state
        self._backlog = backlog
        self._webhooks = webhooks
        self._threads = Threads("metrics", 1, _MOST_READERS)

    async def tell_state(self) -> None:
        """Until cancelled, if anyone wants to know."""
        while self._meters.on:
            self._meters.report(self._state())
            await asyncio.sleep(_STATE_EVERY)

    async def tell_outbox(self) -> None:
        """Until cancelled, if anyone wants to know."""
        while self._meters.on:
            self._meters.outbox(await _known(self._backlog))
            for name, backlog in self._webhooks.items():
                self._meters.webhook(name, await _known(backlog))
            await asyncio.sleep(_OUTBOX_EVERY)

    async def exposition(self) -> tuple[bytes, str]:
        """What was measured, this process's part of it up to now, in a text format, and its media type. Raises
        :class:`NotFound` where nothing is, :class:`Unavailable` where too many ask at once."""
        self._meters.report(self._state())
        return await self._threads.run(self._meters.exposition)

    def close(self) -> None:
        """The last word."""
        self._meters.report(self._state())
        self._threads.close()


async def _known(backlog: Asked) -> Backlog | None:
    try:
        return await backlog()
    except StoreUnavailable:
        return None
