"""What is said when nobody can tell, and not asking for a while after that."""

from collections.abc import Callable
from datetime import datetime, timedelta

_FAILURES = 3
_REST = timedelta(seconds=10)


class NotTold(Exception):
    """Nobody can tell. The words are for the log, and hold nothing of what was asked."""


class Rest:
    """After some failures in a row nobody asks for a while; then one does, for all, while the others rest on."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._failures = 0
        self._ends: datetime | None = None

    def begin(self) -> float:
        """Seconds to rest still; 0 for whoever may ask."""
        if left := self._left():
            return left
        if self._failures >= _FAILURES:
            self._ends = self._now() + _REST
        return 0

    def failed(self) -> float:
        """Seconds to rest now."""
        self._failures += 1
        if self._failures >= _FAILURES:
            self._ends = self._now() + _REST
        return self._left()

    def succeeded(self) -> None:
        self._failures, self._ends = 0, None

    def _left(self) -> float:
        left = self._ends - self._now() if self._ends else timedelta()
        # A clock that was put back must not make it longer.
        return left.total_seconds() if timedelta() < left <= _REST else 0
