"""Counters: a backend counts, and where that fails this process; what is given back is kept for a moment.

In a storm of sign-ins every operation on the database is taken from all others on the event loop. An attempt that was
no failure gives its hits back, and the next one takes them: a hit that is kept is still counted, so nobody gets one
more than the rule allows, and what nobody takes is given back in a moment, many at once where the backend can.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from hydracore.chance import Now
from hydracore.logs import logger
from hydracore.meters import UNMEASURED, Meters
from hydracore.records import Count, LimitBackend

T = TypeVar("T")

log = logger("hydracore.limits")

_BACKEND_DEADLINE = 1.0
_OUTAGE_PAUSE = 5.0
# What a backend counts in whole seconds, and what is still on its way to it, must not reach the window after.
_MARGIN = 2.0
# Hits that a backend neither answers nor lets go of. With so many it is not asked again before some of them end.
_MOST_STUCK = 100
# Seconds that a hit waits for the next attempt: elsewhere, where the rule is nearly used up, attempts wait for it.
_KEPT_FOR = 0.3
_MOST_KEPT = 10_000
_AT_ONCE = 100


@dataclass(frozen=True)
class Rule:
    """At most ``most`` in ``window`` seconds."""

    most: int
    window: int


@dataclass(frozen=True)
class Hit:
    """One that was counted: where, as which, and until when it may be given back: by the clock that may be set, and by
    the one that may not."""

    key: str
    rule: Rule
    backend: LimitBackend
    count: Count
    until: datetime
    until_running: float


class Counters:
    """Counts in ``backend``, which ``plugin`` brings; where that fails, in ``fallback``, which holds for this process
    alone."""

    def __init__(
        self,
        backend: LimitBackend,
        fallback: LimitBackend,
        *,
        now: Now,
        plugin: str,
        meters: Meters = UNMEASURED,
    ) -> None:
        self._backend = backend
        self._fallback = fallback
        self._now = now
        self._plugin = plugin
        self._meters = meters
        self._out_until = 0.0
        self._stuck: set[asyncio.Task[Any]] = set()
        self._kept: defaultdict[str, list[tuple[float, Hit]]] = defaultdict(list)
        self._timer: asyncio.TimerHandle | None = None
        self._returning: asyncio.Task[None] | None = None

    def again(self, key: str, most: float) -> Hit | None:
        """One that was kept, if it is among the first ``most``."""
        kept = self._kept.get(key)
        if kept and kept[-1][1].count.hits <= most and self._live(hit := self._taken(key)):
            return hit
        return None

    async def hit(self, key: str, rule: Rule) -> Hit:
        """The next one, whether or not it is over the rule."""
        # Looked at before: what the backend says of the time left is later than this.
        now, running = self._now(), asyncio.get_running_loop().time()
        backend = self._backend
        count = await self._ask(backend, backend.hit, key, rule.window, 1) if self._answers() else None
        if count is None:
            self._meters.fell_back()
            backend = self._fallback
            count = await backend.hit(key, rule.window, 1)
        left = count.resets_in - min(_MARGIN, rule.window / 10)
        return Hit(key, rule, backend, count, now + timedelta(seconds=left), running + left)

    async def give_back(self, *hits: Hit) -> None:
        """Where each was counted, and only in its own window: the one after would let somebody try once more."""
        await asyncio.gather(*(self._return(hit) for hit in hits))

    async def keep(self, *hits: Hit) -> None:
        """Give back in a moment what nobody takes before.

        Of a rule that is half used up others may wait for it: that is given back at once, as is what this process
        counted alone.
        """
        for hit in hits:
            if hit.backend is self._fallback or hit.count.hits > hit.rule.most // 2 or len(self._kept) >= _MOST_KEPT:
                await self._return(hit)
            else:
                self._keep(hit)

    async def close(self) -> None:
        """Give back what is kept. Where the backend is away, it stays counted until its window ends."""
        if self._returning is not None:
            await self._returning
        if self._timer is not None:
            self._timer.cancel()
        idle = self._idle(float("inf"))
        while idle and self._answers():
            idle = await self._return_some(idle)

    # -- what is kept --------------------------------------------------------------------------------

    def _keep(self, hit: Hit) -> None:
        loop = asyncio.get_running_loop()
        self._kept[hit.key].append((loop.time(), hit))
        if self._timer is None:
            self._timer = loop.call_later(_KEPT_FOR / 2, self._look)

    def _taken(self, key: str) -> Hit:
        kept = self._kept[key]
        _, hit = kept.pop()  # The last: what is in use stays so, and what is not is given back.
        if not kept:
            del self._kept[key]
        return hit

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._returning = loop.create_task(self._return_idle(self._idle(loop.time() - _KEPT_FOR)))

    def _idle(self, before: float) -> list[Hit]:
        """Those that are kept since before then, and are not any more."""
        idle = []
        for key, kept in list(self._kept.items()):
            idle += [hit for since, hit in kept if since <= before]
            kept[:] = [each for each in kept if each[0] > before]
            if not kept:
                del self._kept[key]
        return idle

    async def _return_idle(self, idle: list[Hit]) -> None:
        # One operation after the other: a flock of them would be in everybody's way.
        while idle:
            if not self._answers():
                for hit in idle:
                    self._keep(hit)
                break
            idle = await self._return_some(idle)
        self._timer = None
        if self._kept:
            self._timer = asyncio.get_running_loop().call_later(_KEPT_FOR / 2, self._look)

    async def _return_some(self, idle: list[Hit]) -> list[Hit]:
        """Give back as many as one operation does; those that are left."""
        if self._backend.give_back is None:
            await self._return(idle[0])
            return idle[1:]
        some = {hit.key: hit for hit in idle[:_AT_ONCE]}
        if keys := [key for key, hit in some.items() if self._live(hit)]:
            await self._ask(self._backend, self._backend.give_back, keys)
        return [hit for hit in idle if some.get(hit.key) is not hit]

    async def _return(self, hit: Hit) -> None:
        if not self._live(hit):
            return
        if hit.backend is self._fallback:
            await self._fallback.hit(hit.key, hit.rule.window, -1)
        else:
            await self._ask(hit.backend, hit.backend.hit, hit.key, hit.rule.window, -1)

    def _live(self, hit: Hit) -> bool:
        return self._now() < hit.until and asyncio.get_running_loop().time() < hit.until_running

    # -- asking --------------------------------------------------------------------------------------

    def _answers(self) -> bool:
        return asyncio.get_running_loop().time() >= self._out_until and len(self._stuck) < _MOST_STUCK

    async def _ask(self, backend: LimitBackend, ask: Callable[..., Awaitable[T]], *arguments: Any) -> T | None:
        """What the backend answers; None where it fails, and then it is not asked for a while."""
        try:
            return await self._in_time(ask(*arguments))
        except Exception as error:
            running = asyncio.get_running_loop().time()
            if running >= self._out_until:
                log.warning(
                    "limit backend failed, counting in this process",
                    backend=backend.name,
                    plugin=self._plugin,
                    error=type(error).__name__,
                )
            self._out_until = running + _OUTAGE_PAUSE
            return None

    async def _in_time(self, hit: Awaitable[T]) -> T:
        """As a task of its own: a backend that will not be cancelled must not hold up a sign-in. By hand, for a
        sign-in has up to six: this costs 10 microseconds each, ``asyncio.wait`` 17."""
        loop = asyncio.get_running_loop()
        task, over = asyncio.ensure_future(hit), loop.create_future()
        late = loop.call_later(_BACKEND_DEADLINE, _end, over)
        task.add_done_callback(lambda _: _end(over))
        try:
            await over
        finally:
            late.cancel()
            if not task.done():
                task.cancel()
                self._stuck.add(task)
                task.add_done_callback(self._let_go)
        if not task.done():
            raise TimeoutError
        if task.cancelled() or isinstance(task.exception(), GeneratorExit):
            raise RuntimeError("ended itself")
        return task.result()

    def _let_go(self, task: "asyncio.Task[Any]") -> None:
        self._stuck.discard(task)
        if not task.cancelled():
            task.exception()  # Seen: asyncio would complain otherwise.


def _end(waiting: "asyncio.Future[None]") -> None:
    if not waiting.done():
        waiting.set_result(None)
