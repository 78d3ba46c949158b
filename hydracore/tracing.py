"""Where the time of one request goes, as the parts that take it tell; where spans go is another's business, or
nobody's."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from hydracore.meters import Meters

Trace = Callable[[], Mapping[str, str]]


class Answering(Protocol):
    """A request that is being answered."""

    def end(self, status: int, code: str = "") -> None:
        """With that status, and ``code`` where it is a refusal; 0 where its client did not wait for it. The first word
        counts."""


class Tracer(Protocol):
    def request(self, method: str, route: str, trace: Trace, request_id: str) -> Answering:
        """From now on, in this task and in those that it begins, a request is being answered. ``route`` is a row of
        the table of calls, ``trace`` has the headers of W3C Trace Context, where they are believed."""

    def work(self, name: str, about: Mapping[str, str]) -> AbstractContextManager[object]:
        """The scope of something that no request waits for."""

    def meters(self, meters: Meters) -> Meters:
        """``meters``, and what they are told of the database and of hashes is told here too."""


class NullTracer:
    """Nobody traces."""

    def request(self, method: str, route: str, trace: Trace, request_id: str) -> Answering:
        return UNANSWERED

    def work(self, name: str, about: Mapping[str, str]) -> AbstractContextManager[object]:
        return nullcontext()

    def meters(self, meters: Meters) -> Meters:
        return meters


class _Unanswered:
    def end(self, status: int, code: str = "") -> None:
        pass


UNANSWERED = _Unanswered()
UNTRACED = NullTracer()
