"""From what happened into the webhooks' outbox.

What has to be told of an account stands in its document from the same atomic step on as what it tells of, and is taken
from there: at once by the process that wrote it, and, if that has died, by any other. What is not written down
waits in memory.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Protocol

from hydracore.chance import Now
from hydracore.config import Endpoint
from hydracore.errors import StoreUnavailable
from hydracore.events import Event, UserEvent
from hydracore.logs import logger
from hydracore.models import Delivery, Notice, User
from hydracore.webhooks.notices import KINDS, body_of, notice_of

log = logger("hydracore.webhooks")

# Longer than any webhook is tried.
KEPT_UNDELIVERED = timedelta(days=30)

_LOOK_EVERY = 2.0
# What is younger is still in the hands of whoever wrote it.
_LEFT_BEHIND = timedelta(seconds=5)
_BATCH = 100
_MOST_WAITING = 10_000
# Strangers can have such events made as often as they like, so what waits in the outbox for one webhook has an end too.
_MOST_UNDELIVERED = 100_000


class UserStore(Protocol):
    async def by_ids(self, user_ids: Sequence[str]) -> list[User]: ...

    async def untold(self, before: datetime, limit: int) -> list[User]: ...

    async def told(self, user_ids: Sequence[str], notice_ids: Sequence[str]) -> None: ...


class DeliveryStore(Protocol):
    async def add_all(self, deliveries: Sequence[Delivery]) -> None: ...

    async def waiting(self, endpoint: str, most: int) -> int: ...


class Relay:
    """Hears events as a plugin's listener does. ``wake`` is called when something came into the outbox."""

    def __init__(
        self,
        endpoints: Mapping[str, Endpoint],
        users: UserStore,
        deliveries: DeliveryStore,
        wake: Callable[[], None],
        *,
        now: Now,
    ) -> None:
        self._takers = {
            kind.name: [name for name, endpoint in endpoints.items() if kind.name in endpoint.events]
            for kind in KINDS.values()
        }
        fleeting = {kind.name for kind in KINDS.values() if not kind.durable}
        self._fleeting = [name for name, endpoint in endpoints.items() if fleeting.intersection(endpoint.events)]
        self._full: frozenset[str] = frozenset()
        self._users = users
        self._deliveries = deliveries
        self._wake = wake
        self._now = now
        self._touched: dict[str, None] = {}  # Accounts, in order.
        self._waiting: deque[Notice] = deque()
        self._dropped = 0
        self._task: asyncio.Task[None] | None = None
        self._at_once = asyncio.Event()
        self._moving = asyncio.Lock()

    @property
    def on(self) -> bool:
        """Whether there is any webhook."""
        return any(self._takers.values())

    def wants(self, event: Event) -> bool:
        """Whether any webhook is to be told of it."""
        kind = KINDS.get(type(event))
        return kind is not None and bool(self._takers[kind.name])

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    def offer(self, event: Event) -> None:
        """It happened; returns at once."""
        if not self.wants(event):
            return
        if isinstance(event, UserEvent) and KINDS[type(event)].durable:
            if len(self._touched) < _MOST_WAITING:  # Others are found where they are written.
                self._touched[event.user_id] = None
        elif len(self._waiting) < _MOST_WAITING:
            self._waiting.append(notice_of(event))
        else:
            if not self._dropped:
                log.warning("too much waits for the database, events for webhooks are dropped")
            self._dropped += 1
        self._at_once.set()

    async def tell(self, users: Iterable[User]) -> None:
        """Take what is untold of these accounts into the outbox. Raises :class:`StoreUnavailable`."""
        notices = {user.id: user.notices for user in users if user.untold}
        if not notices:
            return
        everything = [notice for each in notices.values() for notice in each]
        await self._put(everything)
        # Second: what dies in between is put in once more, which the outbox sees by its id.
        await self._users.told(list(notices), [notice.id for notice in everything])

    async def settle(self) -> None:
        """Until all is in the outbox that was offered, or the database is away."""
        with suppress(StoreUnavailable):
            await self._move()

    async def close(self) -> None:
        """The last try; what is left then and written nowhere is lost, and the log says how much."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self.settle()
        if lost := len(self._waiting) + self._dropped:
            log.error("events for webhooks are lost", events=lost)

    async def _run(self) -> None:
        loop, look_at = asyncio.get_running_loop(), 0.0
        while True:
            self._at_once.clear()
            try:
                await self._move()
                if loop.time() >= look_at:
                    look_at = loop.time() + _LOOK_EVERY
                    await self._weigh()
                    await self._look()
            except StoreUnavailable:
                await asyncio.sleep(_LOOK_EVERY)  # That is told elsewhere.
            except Exception:
                log.exception("events cannot be put into the webhooks' outbox, trying again")
                await asyncio.sleep(_LOOK_EVERY)
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY):
                    await self._at_once.wait()

    async def _move(self) -> None:
        async with self._moving:
            while batch := list(self._touched)[:_BATCH]:
                # Forgotten first: what happens to them meanwhile is another matter.
                for user_id in batch:
                    del self._touched[user_id]
                try:
                    await self.tell(await self._users.by_ids(batch))
                except BaseException:
                    self._touched.update(dict.fromkeys(batch))
                    raise
            while notices := [self._waiting[place] for place in range(min(_BATCH, len(self._waiting)))]:
                await self._put(notices, self._full)
                for _ in notices:
                    self._waiting.popleft()

    async def _weigh(self) -> None:
        """Find the webhooks for which too much waits already."""
        waiting = {name: await self._deliveries.waiting(name, _MOST_UNDELIVERED) for name in self._fleeting}
        full = frozenset(name for name, number in waiting.items() if number >= _MOST_UNDELIVERED)
        for name in full - self._full:
            log.warning("too much waits for a webhook, events that a crash may lose are dropped", endpoint=name)
        for name in self._full - full:
            log.info("a webhook is told of all again", endpoint=name)
        self._full = full

    async def _look(self) -> None:
        """Find what others have left behind."""
        while left := await self._users.untold(self._now() - _LEFT_BEHIND, _BATCH):
            await self.tell(left)

    async def _put(self, notices: Sequence[Notice], full: Set[str] = frozenset()) -> None:
        now = self._now()
        deliveries = [
            _delivery(notice, endpoint, now)
            for notice in notices
            for endpoint in self._takers.get(notice.type, ())
            if endpoint not in full
        ]
        if deliveries:
            await self._deliveries.add_all(deliveries)
            self._wake()


def _delivery(notice: Notice, endpoint: str, now: datetime) -> Delivery:
    return Delivery(
        id=f"{notice.id}.{endpoint}",
        endpoint=endpoint,
        notice_id=notice.id,
        type=notice.type,
        body=body_of(notice),
        user_id=str(notice.data.get("user_id", "")),
        created_at=now,
        due_at=now,
        expires_at=now + KEPT_UNDELIVERED,
    )
