"""Counts attempts in this process: for one worker, for tests, and as what the limiter falls back on.

It has no configuration and a fixed size: beyond 100,000 counters the half that ends soonest is forgotten.
"""

from collections.abc import Callable
from datetime import datetime

from hydracore.plugin import Context, Count, LimitBackend, hookimpl

_MOST_KEYS = 100_000


class LimitsMemory:
    def __init__(self, context: Context) -> None:
        self._now: Callable[[], datetime] = context.now
        self._counts: dict[str, tuple[int, float]] = {}

    @hookimpl
    def hydracore_register_limit_backends(self) -> list[LimitBackend]:
        return [LimitBackend("memory", self.hit)]

    async def hit(self, key: str, window: int, cost: int) -> Count:
        now = self._now().timestamp()
        hits, ends = self._counts.get(key, (0, 0.0))
        # Longer than a window is left when the clock was set back since.
        ends = min(ends, now + window)
        if ends <= now:
            if cost < 0:
                return Count(0, 0)  # Nothing to give back to.
            hits, ends = 0, now + window
        hits = max(hits + cost, 0)
        self._counts[key] = (hits, ends)
        if len(self._counts) > _MOST_KEYS:
            self._make_room(now)
        return Count(hits, min(ends - now, window))

    def _make_room(self, now: float) -> None:
        """Forget what has ended; if that is not enough, the half that ends soonest."""
        live = sorted(((ends, key) for key, (_, ends) in self._counts.items() if ends > now), reverse=True)
        self._counts = {key: self._counts[key] for _, key in live[: _MOST_KEYS // 2]}
