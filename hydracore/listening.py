"""Telling plugins what happened: at once beside the request, or in order and in batches behind it."""

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeVar

from hydracore.calls import Calls
from hydracore.chance import Now, Token
from hydracore.errors import HydraError
from hydracore.events import Event
from hydracore.logs import logger
from hydracore.records import EventListener

log = logger("hydracore.plugins")

Told = TypeVar("Told", bound=Event)

# Of each plugin: another's listeners hear what there is all the same.
_MOST_TOLD = 10_000
_MOST_WAITING = 10_000
_BATCH = 100
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0


class Listener(Protocol):
    """Takes events in, for whom they are, and returns at once."""

    def offer(self, event: Event) -> None: ...

    async def settle(self) -> None: ...

    async def close(self) -> None: ...


class Listening:
    """The listeners of one HydraCore."""

    def __init__(self, calls: Calls, pumps: Sequence["Pump"], *, now: Now, token: Token) -> None:
        self._calls = calls
        self._registered = pumps
        self._pumps: Sequence[Listener] = pumps
        self._now = now
        self._token = token
        self._background: defaultdict[str, set[asyncio.Task[None]]] = defaultdict(set)
        self._dropped: Counter[str] = Counter()

    def add(self, own: Listener) -> None:
        """Tell one of our own too, in place of the one of before."""
        self._pumps = [*self._registered, own]

    def stamped(self, event: Told) -> Told:
        """The event with its id and its moment, if it has none."""
        return event if event.id else replace(event, id=self._token(12), at=self._now())

    def announce(self, event: Event, listening: Sequence[Any]) -> None:
        """Tell the implementations of ``hydracore_on_event``, and the registered listeners; returns at once."""
        if not listening and not self._pumps:
            return
        event = self.stamped(event)
        for pump in self._pumps:
            pump.offer(event)
        for implementation in listening:
            plugin = implementation.plugin_name
            told = self._background[plugin]
            if len(told) >= _MOST_TOLD:
                self._drop(plugin)
                continue
            work = partial(implementation.function, *([event] if implementation.argnames else []))
            task = self._calls.begin(plugin, "hydracore_on_event", work)
            told.add(task)
            task.add_done_callback(told.discard)

    def _drop(self, plugin: str) -> None:
        if self._dropped[plugin] % _MOST_TOLD == 0:  # Not a line for each: there may be many.
            log.warning("plugin is too slow, events are dropped", plugin=plugin, dropped=self._dropped[plugin] + 1)
        self._dropped[plugin] += 1

    async def settle(self) -> None:
        told: set[asyncio.Task[None]] = set().union(*self._background.values())
        if told:  # Each has its deadline; one that will not be cancelled is not waited for.
            await asyncio.wait(told, timeout=self._calls.timeout + 1)
        for pump in self._pumps:
            await pump.settle()

    async def close(self) -> None:
        await self.settle()
        for pump in self._pumps:
            await pump.close()


class Pump:
    """Feeds one event listener: in order, in batches, again where it failed."""

    def __init__(self, calls: Calls, plugin: str, listener: EventListener) -> None:
        self._calls = calls
        self._plugin = plugin
        self._listener = listener
        self._waiting: deque[Event] = deque()
        self._dropped = 0
        self._task: asyncio.Task[None] | None = None
        self._at_once = asyncio.Event()
        self._refused = 0
        self._taking = False
        self._named = {"plugin": plugin, "listener": listener.name}

    def offer(self, event: Event) -> None:
        """Take an event in; returns at once."""
        if not isinstance(event, self._listener.of):
            return
        if len(self._waiting) >= _MOST_WAITING:
            if not self._dropped:
                log.warning("a listener is too slow, events are dropped", **self._named)
            self._dropped += 1
            return
        self._waiting.append(event)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def settle(self) -> None:
        """Until nothing waits, or what waits has been refused once more, or it takes too long."""
        refused, loop = self._refused + self._taking, asyncio.get_running_loop()
        ends = loop.time() + self._calls.timeout + 1
        while self._waiting and self._refused <= refused and self._task is not None and not self._task.done():
            if loop.time() >= ends:
                return
            self._at_once.set()
            await asyncio.sleep(0.01)

    async def close(self) -> None:
        """The last try; what is left then is lost, and the log says how much."""
        await self.settle()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        if lost := len(self._waiting) + self._dropped:
            log.error("events are lost", events=lost, **self._named)

    async def _run(self) -> None:
        pause = _FIRST_PAUSE
        while self._waiting:
            batch = [self._waiting[number] for number in range(min(_BATCH, len(self._waiting)))]
            if await self._take(batch):
                for _ in batch:
                    self._waiting.popleft()
                pause = _FIRST_PAUSE
                self._tell_dropped()
            else:
                self._at_once.clear()
                try:
                    async with asyncio.timeout(pause):
                        await self._at_once.wait()
                except TimeoutError:
                    pause = min(pause * 2, _LONGEST_PAUSE)

    async def _take(self, batch: list[Event]) -> bool:
        self._taking = True
        try:
            await self._calls.call(self._plugin, "event_listener", lambda: self._listener.listen(batch))
        except HydraError:
            self._refused += 1
            return False
        else:
            return True
        finally:
            self._taking = False

    def _tell_dropped(self) -> None:
        if self._dropped:
            log.warning("a listener was too slow, events were dropped", events=self._dropped, **self._named)
            self._dropped = 0
