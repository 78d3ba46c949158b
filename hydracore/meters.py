"""What is measured, as the parts that measure tell it; where the numbers go is another's business, or nobody's."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from hydracore.busyness import Load
from hydracore.calls import Spent
from hydracore.errors import HydraError, InvalidCredentials, NotFound, TooManyRequests, Unavailable
from hydracore.events import Event
from hydracore.models import Backlog

T = TypeVar("T")

Answered = Callable[[int, float], None]
"""Told the status of an answer, and the seconds that the request took."""
Decided = Callable[[str], None]
"""Told ``allowed``, ``refused``, or ``crowded``: too many waited for their turn."""

OUTCOMES = ("success", "invalid_credentials", "limited", "refused", "unavailable", "error")


class Operation(Protocol):
    """Awaits an operation on the database, and gives what it returns or raises."""

    def __call__(self, work: Awaitable[T], /) -> Awaitable[T]: ...


@dataclass(frozen=True)
class State:
    """How things stand in this process. ``hashes`` is how many may be pending; ``spent`` is by (plugin, hook)."""

    load: Load
    hashes: int
    spent: Mapping[tuple[str, str], Spent]


class Registry(Protocol):
    """A ``prometheus_client.CollectorRegistry``."""

    def register(self, collector: Any) -> None: ...

    def unregister(self, collector: Any) -> None: ...


class Meters(Protocol):
    """What is called in a request is asked for once, when the part that calls it is made."""

    on: bool
    """Whether anyone wants to know."""

    def open(self) -> None: ...

    def close(self) -> None: ...

    def route(self, name: str) -> Answered:
        """For the answers of one route."""

    def operation(self, collection: str, verb: str) -> Operation:
        """For one kind of operation on one collection."""

    def rule(self, name: str) -> Decided:
        """For what the limiter decides by one rule."""

    def fell_back(self) -> None:
        """A hit was counted in this process, for want of the limit backend."""

    def hashed(self, waited: float, took: float) -> None:
        """A hash has waited for its thread, and taken so many seconds."""

    def login(self) -> AbstractContextManager[object]:
        """The scope of one sign-in."""

    def happened(self, event: Event) -> None:
        """An event was announced."""

    def report(self, state: State) -> None:
        """How things stand now; the core tells it once a second."""

    def outbox(self, backlog: Backlog | None) -> None:
        """What is in the outbox; None where the database does not say."""

    def webhook(self, name: str, backlog: Backlog | None) -> None:
        """What is in the outbox for one webhook; None as above."""

    def exposition(self) -> tuple[bytes, str]:
        """All numbers, of all processes that share them, in a text format, and its media type. It may block. Raises
        :class:`NotFound` where there are none."""


class NullMeters:
    """Nothing is measured."""

    on = False

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def route(self, name: str) -> Answered:
        return _unanswered

    def operation(self, collection: str, verb: str) -> Operation:
        return _untimed

    def rule(self, name: str) -> Decided:
        return _undecided

    def fell_back(self) -> None:
        pass

    def hashed(self, waited: float, took: float) -> None:
        pass

    def login(self) -> AbstractContextManager[object]:
        return nullcontext()

    def happened(self, event: Event) -> None:
        pass

    def report(self, state: State) -> None:
        pass

    def outbox(self, backlog: Backlog | None) -> None:
        pass

    def webhook(self, name: str, backlog: Backlog | None) -> None:
        pass

    def exposition(self) -> tuple[bytes, str]:
        raise NotFound().because("metrics are off")


UNMEASURED = NullMeters()


class Sharing(Protocol):
    """What lets the workers of a server count together. The parent opens and closes it, and forgets what a worker that
    has ended said of itself; a worker begins in its place, and gives what that returns to its HydraCore."""

    def open(self) -> None: ...

    def begin(self, place: int) -> Registry | None: ...

    def forget(self, place: int) -> None: ...

    def close(self) -> None: ...


class NothingShared:
    """Nothing is measured, by no worker."""

    def open(self) -> None:
        pass

    def begin(self, place: int) -> None:
        pass

    def forget(self, place: int) -> None:
        pass

    def close(self) -> None:
        pass


def outcome_of(error: BaseException | None) -> str:
    """Which of :data:`OUTCOMES` a sign-in had that ended with ``error``."""
    match error:
        case None:
            return "success"
        case InvalidCredentials():
            return "invalid_credentials"
        case TooManyRequests():
            return "limited"
        case Unavailable() | asyncio.CancelledError():  # Cancelled it is, when the request has no time left.
            return "unavailable"
        case HydraError() if error.status < 500:
            return "refused"
    return "error"


def _unanswered(status: int, seconds: float) -> None:
    pass


def _untimed(work: Awaitable[T], /) -> Awaitable[T]:
    return work


def _undecided(decision: str) -> None:
    pass
