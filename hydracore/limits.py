"""Rate limits: who may try how often, counted where all workers and nodes count.

A limit counts before the work and is given back when the attempt was not a failure, so that
parallel attempts cannot pass together. What was refused is given back too: a counter stands for failures and for
attempts under way, and for nothing else. Keys are keyed digests: the counters name no address.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import SystemRandom
from typing import Any, Protocol

from hydracore.chance import Now
from hydracore.config import Limits
from hydracore.errors import Overloaded, TooManyRequests, Unavailable
from hydracore.events import Event, Limited
from hydracore.logs import logger
from hydracore.meters import UNMEASURED, Meters
from hydracore.records import Count, LimitBackend
from hydracore.secret import ServerSecret

log = logger("hydracore.limits")

_BACKEND_DEADLINE = 1.0
_OUTAGE_PAUSE = 5.0
_MOST_WAITING = 64
# Attempts of one network that are judged at once, right ones included: the hashing pool is for everyone.
_SIDE_BY_SIDE = 16
# Where attempts under way elsewhere take up a limit, one waits so long for them, and looks so often. Those who wait
# keep places that others could use, so they are few.
_PATIENCE = 1.5
_PAUSES = (0.02, 0.1)
_MOST_PATIENT = 8
# What a backend counts in whole seconds, and what is still on its way to it, must not reach the window after.
_MARGIN = 2.0
_MOST_KNOWN = 10_000
# Hits that a backend neither answers nor lets go of. With so many it is not asked again before some of them end.
_MOST_STUCK = 100


@dataclass(frozen=True)
class Rule:
    """At most ``most`` in ``window`` seconds."""

    most: int
    window: int


@dataclass(frozen=True)
class Spend:
    """One hit to count: on the named rule, for whoever ``who`` is. One that is not ``binding`` is counted, and never
    refused. ``share`` is the part of the rule that is for them."""

    rule: str
    who: tuple[str, ...]
    binding: bool = True
    share: float = 1.0

    def most(self, rule: "Rule") -> int:
        return max(1, int(rule.most * self.share))


class Tried:
    """One attempt, whose hits stay counted if it has ``failed``, whatever is answered then."""

    def __init__(self, spend: Callable[..., Awaitable[None]]) -> None:
        self._spend = spend
        self.failed = False

    async def spend(self, *hits: Spend) -> None:
        """Count ``hits`` too: raises :class:`TooManyRequests` when one is over its rule."""
        await self._spend(*hits)


class Limiter(Protocol):
    def counted(self, network: str, *hits: Spend) -> AbstractAsyncContextManager[None]:
        """A scope whose hits stay counted, and are given back if it ends in 503: repeating that is no second try.
        Raises :class:`TooManyRequests` when one is over its rule, and then none is counted."""

    def failures(self, network: str, failure: type[Exception], *hits: Spend) -> AbstractAsyncContextManager[Tried]:
        """A scope whose hits stay counted if it ends in ``failure`` or is told that it ``failed``, and are given back
        otherwise. Raises as :meth:`counted`, after a moment if only attempts under way stand in the way."""

    def turn(self, network: str, hit: Spend) -> AbstractAsyncContextManager[None]:
        """A scope that no more attempts are in at once than ``hit`` allows failures, nor more of one network than is
        fair. Raises :class:`TooManyRequests` where too many wait for it, and :class:`Overloaded` where too many
        wait in all."""


class NullLimiter:
    """Limits switched off."""

    @asynccontextmanager
    async def counted(self, network: str, *hits: Spend) -> AsyncIterator[None]:
        yield

    @asynccontextmanager
    async def failures(self, network: str, failure: type[Exception], *hits: Spend) -> AsyncIterator[Tried]:
        yield Tried(self._spend)

    @asynccontextmanager
    async def turn(self, network: str, hit: Spend) -> AsyncIterator[None]:
        yield

    async def _spend(self, *hits: Spend) -> None:
        pass


@dataclass(frozen=True)
class _Spent:
    """A hit, where it was counted, and until when it may be given back: by the clock that may be set, and by the one
    that may not."""

    key: str
    rule: Rule
    backend: LimitBackend
    until: datetime
    until_running: float


class CountingLimiter:
    """Counts in ``backend``, which ``plugin`` brings; where that fails, in ``fallback``, which holds for this process
    alone. Of all attempts together ``most_waiting`` wait for their turn: each is a request that is being answered."""

    def __init__(
        self,
        rules: Limits,
        backend: LimitBackend,
        fallback: LimitBackend,
        secret: ServerSecret,
        announce: Callable[[Event], None],
        *,
        now: Now,
        plugin: str,
        most_waiting: int,
        meters: Meters = UNMEASURED,
    ) -> None:
        self._rules = parse_rules(rules)
        self._meters = meters
        self._decided = {name: self._meters.rule(name) for name in self._rules}
        self._backend = backend
        self._fallback = fallback
        self._secret = secret
        self._announce = announce
        self._now = now
        self._plugin = plugin
        self._jitter = SystemRandom().uniform
        self._out_until = 0.0
        self._stuck: set[asyncio.Task[Any]] = set()
        self._gates: dict[str, _Gate] = {}
        self._most_waiting = most_waiting
        self._waiting = 0
        self._patient = 0
        self._failed: dict[str, int] = {}
        """What this process knows of counters: how much of them nobody will give back."""

    @asynccontextmanager
    async def counted(self, network: str, *hits: Spend) -> AsyncIterator[None]:
        spent: list[_Spent] = []
        try:
            await self._spend(network, hits, spent, patience=0)
            yield
        except (Unavailable, asyncio.CancelledError):  # Cancelled it is, when the request has no time left.
            await self._give_back(*spent)
            raise

    @asynccontextmanager
    async def failures(self, network: str, failure: type[Exception], *hits: Spend) -> AsyncIterator[Tried]:
        spent: list[_Spent] = []
        tried = Tried(lambda *more: self._spend(network, more, spent, patience=_PATIENCE))
        try:
            await tried.spend(*hits)
            yield tried
        except failure:
            tried.failed = True
            raise
        finally:
            if tried.failed:
                self._remember(spent)
            else:
                await self._give_back(*spent)

    @asynccontextmanager
    async def turn(self, network: str, hit: Spend) -> AsyncIterator[None]:
        # Many right passwords at once wait a moment for one another instead of being counted as wrong ones.
        rule = self._rules.get(hit.rule)
        one = nullcontext() if rule is None else self._queue(hit.rule, self._key(hit), rule.most)
        async with one, self._queue(hit.rule, f"network:{network}", _SIDE_BY_SIDE):
            yield

    # -- spending ------------------------------------------------------------------------------------

    async def _spend(self, network: str, hits: Sequence[Spend], spent: list[_Spent], *, patience: float) -> None:
        for hit in hits:
            if rule := self._rules.get(hit.rule):
                one, count = await self._admitted(hit, rule, patience)
                if one is None:
                    self._decided[hit.rule]("refused")
                    # What was refused must not use up the other limits of the same person.
                    # Taken out before: whatever ends this, none is given back twice.
                    back, spent[:] = list(spent), []
                    await self._give_back(*back)
                    raise self._refusal(network, hit, rule, count)
                self._decided[hit.rule]("allowed")
                spent.append(one)

    async def _admitted(self, hit: Spend, rule: Rule, patience: float) -> tuple[_Spent | None, Count]:
        """The hit, or None where it is over its rule.

        Counted, looked at, and given back if it was one too many: of all that are let in, each has seen a number
        of its own that is not over the rule.
        """
        key, most, loop = self._key(hit), hit.most(rule), asyncio.get_running_loop()
        deadline = loop.time() + patience
        while True:
            one, count = await self._hit(key, rule)
            if count.hits <= most or not hit.binding:
                if count.hits <= self._failed.get(key, 0):
                    self._failed.pop(key, None)  # Of a window that is over.
                return one, count
            await self._give_back(one)
            if patience and loop.time() >= deadline:
                self._know(key, most)  # Whatever it is, the next one need not wait for it.
            if not patience or self._failed.get(key, 0) >= most or self._patient >= _MOST_PATIENT:
                return None, count
            self._patient += 1
            try:
                await asyncio.sleep(self._jitter(*_PAUSES))
            finally:
                self._patient -= 1

    def _refusal(self, network: str, hit: Spend, rule: Rule, count: Count) -> TooManyRequests:
        # No window is longer than its rule says, however a backend rounds.
        error = TooManyRequests(min(count.resets_in, rule.window))
        self._announce(Limited(network=network, rule=hit.rule, retry_after=error.retry_after))
        facts = {"rule": f"limits.{hit.rule} = {rule.most}/{rule.window}", "count": count.hits}
        error.because(**facts, resets_in=error.retry_after)
        return error

    async def _give_back(self, *spent: _Spent) -> None:
        """Where each hit was counted, and only in its own window: the one after would let somebody try once more."""
        now, running = self._now(), asyncio.get_running_loop().time()
        live = [one for one in spent if now < one.until and running < one.until_running]
        await asyncio.gather(*(self._return(one) for one in live))

    async def _return(self, one: _Spent) -> None:
        if one.backend is self._fallback:
            await self._fallback.hit(one.key, one.rule.window, -1)
        else:
            await self._ask(one.backend, one.key, one.rule, -1)

    def _remember(self, failed: Sequence[_Spent]) -> None:
        for one in failed:
            self._know(one.key, self._failed.get(one.key, 0) + 1)

    def _know(self, key: str, failed: int) -> None:
        if len(self._failed) >= _MOST_KNOWN:
            self._failed.clear()  # It saves a moment's wait, and is no more than that.
        self._failed[key] = failed

    # -- counting ------------------------------------------------------------------------------------

    async def _hit(self, key: str, rule: Rule) -> tuple[_Spent, Count]:
        # Looked at before: what the backend says of the time left is later than this.
        now, running = self._now(), asyncio.get_running_loop().time()
        backend = self._backend
        count = await self._ask(backend, key, rule, 1) if self._answers(running) else None
        if count is None:
            self._meters.fell_back()
            backend = self._fallback
            count = await backend.hit(key, rule.window, 1)
        left = count.resets_in - min(_MARGIN, rule.window / 10)
        return _Spent(key, rule, backend, now + timedelta(seconds=left), running + left), count

    def _answers(self, running: float) -> bool:
        return running >= self._out_until and len(self._stuck) < _MOST_STUCK

    async def _ask(self, backend: LimitBackend, key: str, rule: Rule, cost: int) -> Count | None:
        """What the backend counts; None where it fails, and then it is not asked for a while."""
        try:
            return await self._in_time(backend.hit(key, rule.window, cost))
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

    async def _in_time(self, hit: Awaitable[Count]) -> Count:
        """As a task of its own: a backend that will not be cancelled must not hold up a sign-in. By hand, for there are
        six hits in a sign-in: this costs 10 microseconds each, ``asyncio.wait`` 17."""
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

    def _key(self, hit: Spend) -> str:
        return f"{hit.rule}:{self._secret.mac('limits', hit.rule, *hit.who)[:32]}"

    @asynccontextmanager
    async def _queue(self, rule: str, key: str, slots: int) -> AsyncIterator[None]:
        gate = self._gates.setdefault(key, _Gate(slots))
        if gate.users >= slots + _MOST_WAITING:
            self._meters.rule(rule)("crowded")
            what = key.partition(":")[0]
            raise TooManyRequests(1).because(f"too many wait for their turn, by {what}", waiting=gate.users)
        gate.users += 1
        try:
            await self._wait_at(rule, gate)
            try:
                yield
            finally:
                gate.slots.release()
        finally:
            gate.users -= 1
            if not gate.users:
                self._gates.pop(key, None)

    async def _wait_at(self, rule: str, gate: "_Gate") -> None:
        if gate.slots.locked() and self._waiting >= self._most_waiting:
            self._meters.rule(rule)("crowded")
            raise Overloaded().because("too many wait for their turn, in all", waiting=self._waiting)
        self._waiting += 1
        try:
            await gate.slots.acquire()
        finally:
            self._waiting -= 1


def _end(waiting: "asyncio.Future[None]") -> None:
    if not waiting.done():
        waiting.set_result(None)


class _Gate:
    def __init__(self, slots: int) -> None:
        self.slots = asyncio.Semaphore(slots)
        self.users = 0


def parse_rules(limits: Limits) -> Mapping[str, Rule]:
    """The rules that are not ``off``, by name; ``"5/300"`` is five in 300 seconds."""
    texts = {name: text for name, text in vars(limits).items() if name not in ("enabled", "backend")}
    rules = {}
    for name, text in texts.items():
        if text != "off":
            most, _, window = text.partition("/")
            rules[name] = Rule(int(most), int(window))
    return rules
