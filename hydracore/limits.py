"""Rate limits: who may try how often, counted where all workers and nodes count.

A limit counts before the work and is given back when the attempt was not a failure, so that
parallel attempts cannot pass together. Keys are keyed digests: the counters name no address.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from hydracore.config import Limits
from hydracore.errors import TooManyRequests
from hydracore.events import Event, Limited
from hydracore.logs import logger
from hydracore.records import Count, LimitBackend
from hydracore.secret import ServerSecret

log = logger("hydracore.limits")

_BACKEND_DEADLINE = 1.0
_OUTAGE_PAUSE = 5.0
_MOST_WAITING = 64
# Attempts of one network that are judged at once, right ones included: the hashing pool is for everyone.
_SIDE_BY_SIDE = 16


@dataclass(frozen=True)
class Rule:
    """At most ``most`` in ``window`` seconds."""

    most: int
    window: int


@dataclass(frozen=True)
class Spend:
    """One hit to count: on the named rule, for whoever ``who`` is. One that is not ``binding`` is counted, and never
    refused."""

    rule: str
    who: tuple[str, ...]
    binding: bool = True


class Limiter(Protocol):
    async def spend(self, network: str, *hits: Spend) -> None:
        """Count all of ``hits``, or none: raises :class:`TooManyRequests` when one is over its rule."""

    def turn(self, network: str, hit: Spend) -> AbstractAsyncContextManager[None]:
        """A scope that no more attempts are in at once than ``hit`` allows failures, nor more of one network than is
        fair. Raises :class:`TooManyRequests` where too many wait for it."""

    def failures(self, network: str, failure: type[Exception], *hits: Spend) -> AbstractAsyncContextManager[None]:
        """A scope whose hits stay counted if it ends in ``failure``, and are given back otherwise."""


class NullLimiter:
    """Limits switched off."""

    async def spend(self, network: str, *hits: Spend) -> None:
        pass

    @asynccontextmanager
    async def turn(self, network: str, hit: Spend) -> AsyncIterator[None]:
        yield

    @asynccontextmanager
    async def failures(self, network: str, failure: type[Exception], *hits: Spend) -> AsyncIterator[None]:
        yield


class CountingLimiter:
    """Counts in ``backend``; where that fails, in ``fallback``, which holds for this process alone."""

    def __init__(
        self,
        rules: Limits,
        backend: LimitBackend,
        fallback: LimitBackend,
        secret: ServerSecret,
        announce: Callable[[Event], None],
    ) -> None:
        self._rules = parse_rules(rules)
        self._backend = backend
        self._fallback = fallback
        self._secret = secret
        self._announce = announce
        self._out_until = 0.0
        self._gates: dict[str, _Gate] = {}

    async def spend(self, network: str, *hits: Spend) -> None:
        spent: list[Spend] = []
        for hit in hits:
            rule = self._rules.get(hit.rule)
            if rule is None:
                continue
            count = await self._hit(hit, rule, 1)
            if count.hits > rule.most and hit.binding:
                # What was refused must not use up the other limits of the same person.
                await self._give_back(spent)
                self._announce(Limited(network=network, rule=hit.rule, retry_after=max(1, round(count.resets_in))))
                facts = {"rule": f"limits.{hit.rule} = {rule.most}/{rule.window}", "count": count.hits}
                raise TooManyRequests(count.resets_in).because(**facts, resets_in=round(count.resets_in))
            spent.append(hit)

    @asynccontextmanager
    async def turn(self, network: str, hit: Spend) -> AsyncIterator[None]:
        # Many right passwords at once wait a moment for one another instead of being counted as wrong ones.
        rule = self._rules.get(hit.rule)
        one = nullcontext() if rule is None else self._queue(self._key(hit), rule.most)
        async with one, self._queue(f"network:{network}", _SIDE_BY_SIDE):
            yield

    @asynccontextmanager
    async def failures(self, network: str, failure: type[Exception], *hits: Spend) -> AsyncIterator[None]:
        await self.spend(network, *hits)
        try:
            yield
        except failure:
            raise
        except BaseException:
            await self._give_back(hits)
            raise
        await self._give_back(hits)

    async def _give_back(self, hits: Sequence[Spend]) -> None:
        for hit in hits:
            rule = self._rules.get(hit.rule)
            if rule is not None:
                await self._hit(hit, rule, -1)

    async def _hit(self, hit: Spend, rule: Rule, cost: int) -> Count:
        key = self._key(hit)
        loop = asyncio.get_running_loop()
        if loop.time() >= self._out_until:
            try:
                async with asyncio.timeout(_BACKEND_DEADLINE):
                    count = await self._backend.hit(key, rule.window, cost)
            except (Exception, asyncio.CancelledError) as error:
                if isinstance(error, asyncio.CancelledError) and _cancelled():
                    raise
                self._out_until = loop.time() + _OUTAGE_PAUSE
                log.warning(
                    "limit backend failed, counting in this process",
                    backend=self._backend.name,
                    error=type(error).__name__,
                )
            else:
                return count
        return await self._fallback.hit(key, rule.window, cost)

    def _key(self, hit: Spend) -> str:
        return f"{hit.rule}:{self._secret.mac('limits', hit.rule, *hit.who)[:32]}"

    @asynccontextmanager
    async def _queue(self, key: str, slots: int) -> AsyncIterator[None]:
        gate = self._gates.setdefault(key, _Gate(slots))
        if gate.users >= slots + _MOST_WAITING:
            what = key.partition(":")[0]
            raise TooManyRequests(1).because(f"too many wait for their turn, by {what}", waiting=gate.users)
        gate.users += 1
        try:
            async with gate.slots:
                yield
        finally:
            gate.users -= 1
            if not gate.users:
                self._gates.pop(key, None)


def _cancelled() -> bool:
    """Whether somebody wants the running task to end, and no plugin just says so."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


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
