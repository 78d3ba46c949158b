"""What was refused, kept a while for an operator who asks why. Nobody waits for it, and a storm keeps it small."""

from collections import Counter, deque
from datetime import timedelta

from hydracore.chance import Now
from hydracore.errors import StoreUnavailable
from hydracore.models import Refusal
from hydracore.store import Store

_MOST_WAITING = 1000
_MOST_AT_ONCE = 100
_MOST_OF_ONE = 10


class Refusals:
    """The refusals of one process. ``ttl`` is how long they are kept, in seconds; 0: not at all."""

    def __init__(self, store: Store, *, ttl: int, now: Now) -> None:
        self._store = store
        self._ttl = timedelta(seconds=ttl)
        self._now = now
        self._waiting: deque[Refusal] = deque(maxlen=_MOST_WAITING)
        self._noted: Counter[str] = Counter()

    def note(self, refusal: Refusal) -> None:
        """Keep it at the next :meth:`flush`; returns at once. Between two, ten of a network and a hundred in all."""
        if not self._ttl or self._noted.total() >= _MOST_AT_ONCE or self._noted[refusal.network] >= _MOST_OF_ONE:
            return
        self._noted[refusal.network] += 1
        self._waiting.append(refusal)

    async def flush(self) -> None:
        """Write what waits; the core calls it once a second. Raises :class:`StoreUnavailable`: it goes on waiting, the
        latest thousand of it."""
        self._noted.clear()
        if not self._waiting:
            return
        batch = list(self._waiting)
        self._waiting.clear()
        try:
            await self._store.refusals.add(batch, self._now() + self._ttl)
        except StoreUnavailable:
            self._waiting.extendleft(reversed(batch[: _MOST_WAITING - len(self._waiting)]))
            raise
