"""Rate limits: who may try how often, counted where all workers and nodes count.

A limit counts before the work and is given back when the attempt was not a failure, so that
parallel attempts cannot pass together. What was refused is given back too: a counter stands for failures and for
attempts under way, and for nothing else. Keys are keyed digests: the counters name no address.
"""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from random import SystemRandom
from typing import Protocol

from hydracore.config import Limits
from hydracore.counting import Counters, Hit, Rule
from hydracore.errors import Overloaded, TooManyRequests, Unavailable
from hydracore.events import Event, Limited
from hydracore.meters import UNMEASURED, Meters
from hydracore.records import Count
from hydracore.secret import ServerSecret

_MOST_WAITING = 64
# Attempts of one network that are judged at once, right ones included: the hashing pool is for everyone.
_SIDE_BY_SIDE = 16
# As many attempts of one network are under way before it may be refused for those of all.
_SEVERAL = 4
# Where attempts under way elsewhere take up a limit, one waits so long for them, and looks so often. Those who wait
# keep places that others could use, so they are few.
_PATIENCE = 1.5
_PAUSES = (0.02, 0.1)
_MOST_PATIENT = 8
_MOST_KNOWN = 10_000


@dataclass(frozen=True)
class Spend:
    """One hit to count: on the named rule, for whoever ``who`` is. One that is not ``binding`` is counted, and never
    refused. ``share`` is the part of the rule that is for them."""

    rule: str
    who: tuple[str, ...]
    binding: bool = True
    share: float = 1.0

    def most(self, rule: Rule) -> int:
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

    def check_turn(self, network: str, rule: str) -> None:
        """Raises :class:`Overloaded` where too many wait in all, and of this network several. It costs next to nothing:
        in a storm it is the refusals that take the time of everybody else."""

    async def close(self) -> None:
        """Give back what nobody needs any more. Called once, before the backend is closed."""


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

    def check_turn(self, network: str, rule: str) -> None:
        pass

    async def _spend(self, *hits: Spend) -> None:
        pass

    async def close(self) -> None:
        pass


class CountingLimiter:
    """Counts in ``counters``. Of all attempts together ``most_waiting`` wait for their turn: each is a request that is
    being answered."""

    def __init__(
        self,
        rules: Limits,
        counters: Counters,
        secret: ServerSecret,
        announce: Callable[[Event], None],
        *,
        most_waiting: int,
        meters: Meters = UNMEASURED,
    ) -> None:
        self._rules = parse_rules(rules)
        self._meters = meters
        self._decided = {name: self._meters.rule(name) for name in self._rules}
        self._counters = counters
        self._secret = secret
        self._announce = announce
        self._jitter = SystemRandom().uniform
        self._gates: dict[str, _Gate] = {}
        self._under_way: Counter[str] = Counter()
        self._most_waiting = most_waiting
        self._waiting = 0
        self._patient = 0
        self._failed: dict[str, int] = {}
        """What this process knows of counters: how much of them nobody will give back."""

    @asynccontextmanager
    async def counted(self, network: str, *hits: Spend) -> AsyncIterator[None]:
        spent: list[Hit] = []
        try:
            await self._spend(network, hits, spent, self._counters.give_back)
            yield
        except (Unavailable, asyncio.CancelledError):  # Cancelled it is, when the request has no time left.
            # At once: it may be repeated at once, elsewhere.
            await self._counters.give_back(*spent)
            raise

    @asynccontextmanager
    async def failures(self, network: str, failure: type[Exception], *hits: Spend) -> AsyncIterator[Tried]:
        spent: list[Hit] = []
        keep = self._counters.keep
        tried = Tried(lambda *more: self._spend(network, more, spent, keep, patience=_PATIENCE))
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
                await keep(*spent)

    @asynccontextmanager
    async def turn(self, network: str, hit: Spend) -> AsyncIterator[None]:
        # Many right passwords at once wait a moment for one another instead of being counted as wrong ones.
        rule = self._rules.get(hit.rule)
        one = nullcontext() if rule is None else self._queue(hit.rule, self._key(hit), rule.most)
        self._under_way[network] += 1
        try:
            async with one, self._queue(hit.rule, f"network:{network}", _SIDE_BY_SIDE):
                yield
        finally:
            self._under_way[network] -= 1
            if not self._under_way[network]:
                del self._under_way[network]

    def check_turn(self, network: str, rule: str) -> None:
        if self._waiting >= self._most_waiting and self._under_way[network] >= _SEVERAL:
            raise self._crowded(rule)

    async def close(self) -> None:
        await self._counters.close()

    # -- spending ------------------------------------------------------------------------------------

    async def _spend(
        self,
        network: str,
        hits: Sequence[Spend],
        spent: list[Hit],
        give_back: Callable[..., Awaitable[None]],
        *,
        patience: float = 0,
    ) -> None:
        for hit in hits:
            if rule := self._rules.get(hit.rule):
                one, count = await self._admitted(hit, rule, patience)
                if one is None:
                    self._decided[hit.rule]("refused")
                    # What was refused must not use up the other limits of the same person.
                    # Taken out before: whatever ends this, none is given back twice.
                    back, spent[:] = list(spent), []
                    await give_back(*back)
                    raise self._refusal(network, hit, rule, count)
                self._decided[hit.rule]("allowed")
                spent.append(one)

    async def _admitted(self, hit: Spend, rule: Rule, patience: float) -> tuple[Hit | None, Count]:
        """The hit, or None where it is over its rule.

        Counted, looked at, and given back if it was one too many: of all that are let in, each has seen a number
        of its own that is not over the rule.
        """
        key, loop = self._key(hit), asyncio.get_running_loop()
        most = hit.most(rule) if hit.binding else math.inf
        if kept := self._counters.again(key, most):
            return kept, kept.count
        deadline = loop.time() + patience
        while True:
            one = await self._counters.hit(key, rule)
            count = one.count
            if count.hits <= most:
                if count.hits <= self._failed.get(key, 0):
                    self._failed.pop(key, None)  # Of a window that is over.
                return one, count
            await self._counters.give_back(one)
            if patience and loop.time() >= deadline:
                self._know(key, int(most))  # Whatever it is, the next one need not wait for it.
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

    def _remember(self, failed: Sequence[Hit]) -> None:
        for one in failed:
            self._know(one.key, self._failed.get(one.key, 0) + 1)

    def _know(self, key: str, failed: int) -> None:
        if len(self._failed) >= _MOST_KNOWN:
            self._failed.clear()  # It saves a moment's wait, and is no more than that.
        self._failed[key] = failed

    # -- turns ---------------------------------------------------------------------------------------

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
            raise self._crowded(rule)
        self._waiting += 1
        try:
            await gate.slots.acquire()
        finally:
            self._waiting -= 1

    def _crowded(self, rule: str) -> Overloaded:
        self._meters.rule(rule)("crowded")
        return Overloaded().because("too many wait for their turn, in all", waiting=self._waiting)


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
