"""What every suite has: checks, each a sentence; run one by one by pytest, or all of them by a command."""

import asyncio
import inspect
import unittest
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Record = TypeVar("Record")
T = TypeVar("T")

_DEADLINE = 60


class NotConforming(AssertionError):
    """A record does not keep its contract; the message says how."""


class Inapplicable(unittest.SkipTest):
    """A check cannot be made here, with the reason. Pytest skips for it."""


@dataclass(frozen=True)
class Outcome:
    """What became of a check: ``sentence`` is what it says; ``error`` and ``skipped`` are "" where it holds."""

    name: str
    sentence: str
    error: str = ""
    skipped: str = ""


def expect(holds: bool, otherwise: str) -> None:
    """Raises :class:`NotConforming`: an assertion that ``python -O`` leaves in."""
    if not holds:
        raise NotConforming(otherwise)


def in_a_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` in an event loop of its own."""
    # By a factory, so that the thread's current loop, which is another's, stays what it is.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(work)


class Suite(Generic[Record]):
    """Each coroutine method ``check_x`` is a check and becomes a test, ``test_x``."""

    def make(self) -> Record:
        """The record under test, made anew for each check. It is made inside the event loop that it is used in."""
        raise NotImplementedError

    def another(self) -> Record:
        """A record that a check may close. Raises :class:`Inapplicable` where the only one is somebody's."""
        if type(self).make is Suite.make:
            raise Inapplicable("it is in use")
        return self.make()

    def __init_subclass__(cls) -> None:
        for name, check in list(vars(cls).items()):
            if _is_check(name, check):
                setattr(cls, f"test_{name.removeprefix('check_')}", _test(name, check))

    @classmethod
    def checks(cls) -> Sequence[str]:
        """The names of the checks, in the order in which they are written."""
        every = (name for base in reversed(cls.__mro__) for name, what in vars(base).items() if _is_check(name, what))
        return list(dict.fromkeys(every))

    async def run(self, name: str) -> None:
        """Run one check, and close the record. Raises :class:`NotConforming` or :class:`Inapplicable`."""
        record = self.make()
        try:
            await self._hold(name, record)
        finally:
            await closed(record)

    async def outcomes(self, record: Record) -> list[Outcome]:
        """Run all checks over a record that is somebody's, and stays open."""
        return [await self.outcome(name, self._hold(name, record)) for name in self.checks()]

    async def outcome(self, name: str, work: Coroutine[Any, Any, None]) -> Outcome:
        """What becomes of a check."""
        short, sentence = name.removeprefix("check_"), " ".join((inspect.getdoc(getattr(self, name)) or "").split())
        try:
            await work
        except Inapplicable as reason:
            return Outcome(short, sentence, skipped=str(reason))
        except Exception as error:
            return Outcome(short, sentence, error=f"{type(error).__name__}: {error}")
        return Outcome(short, sentence)

    async def _hold(self, name: str, record: Record) -> None:
        try:
            async with asyncio.timeout(_DEADLINE) as deadline:
                await getattr(self, name)(record)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise NotConforming(f"it took more than {_DEADLINE} s") from error


def run(suite: Suite[Any]) -> list[Outcome]:
    """Run all checks over records that the suite makes, each in an event loop of its own, as pytest does."""
    return [in_a_loop(suite.outcome(name, suite.run(name))) for name in suite.checks()]


async def closed(record: Any) -> None:
    """Close what has something to close. Raises :class:`NotConforming` for one that cannot be in time."""
    close = getattr(record, "close", None)
    if close is None:
        return
    try:
        async with asyncio.timeout(_DEADLINE) as deadline:
            await close()
    except TimeoutError as error:
        if not deadline.expired():
            raise
        raise NotConforming(f"closing it took more than {_DEADLINE} s") from error


def _is_check(name: str, what: object) -> bool:
    return name.startswith("check_") and inspect.isfunction(what)


def _test(name: str, check: Callable[..., Any]) -> Callable[[Any], None]:
    def test(self: Any) -> None:
        in_a_loop(self.run(name))

    test.__name__ = f"test_{name.removeprefix('check_')}"
    test.__qualname__ = f"{check.__qualname__.rpartition('.')[0]}.{test.__name__}"
    test.__doc__ = check.__doc__
    return test
