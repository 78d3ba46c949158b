"""The time, to be moved."""

import threading
from datetime import datetime, timedelta

from hydracore.chance import now


class Clock:
    """Goes like the real one (UTC, to the millisecond), and ahead when told to, from any thread."""

    def __init__(self) -> None:
        self._ahead = timedelta()
        self._moving = threading.Lock()

    def __call__(self) -> datetime:
        moment = now() + self._ahead
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)

    def forward(self, **how: float) -> None:
        """Move by what ``timedelta`` takes: ``forward(minutes=10)``."""
        with self._moving:
            self._ahead += timedelta(**how)
