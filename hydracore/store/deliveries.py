"""The webhooks' outbox: what is on its way to each, leased by one worker at a time.

Every change after the lease names the lease, so a worker that was slower than its lease changes nothing.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from hydracore.models import Backlog, Delivery, DeliveryState
from hydracore.store.documents import Documents, Source

_FREE: Mapping[str, Any] = {"lease": ""}
_MOST_COUNTED = 100_000


class Deliveries:
    def __init__(self, source: Source) -> None:
        self._deliveries: Documents[Delivery] = Documents(source, Delivery)

    async def add_all(self, deliveries: Sequence[Delivery]) -> None:
        """Put in what is not there yet."""
        await self._deliveries.add_all(deliveries)

    async def lease(self, endpoint: str, lease: str, now: datetime, until: datetime) -> Delivery | None:
        """The one for ``endpoint`` that is due longest, counted as one more attempt; due again when its lease ends."""
        return await self._deliveries.change(
            {"endpoint": endpoint, "state": "waiting", "due_at": {"$lte": now}},
            {"$set": {"lease": lease, "due_at": until}, "$inc": {"attempts": 1}},
            sort=[("due_at", 1)],
        )

    async def done(self, delivery: Delivery, expires_at: datetime) -> None:
        done = {**_FREE, "state": "delivered", "error": "", "expires_at": expires_at}
        await self._deliveries.change(_held(delivery), {"$set": done})

    async def defer(self, delivery: Delivery, due_at: datetime, error: str) -> None:
        await self._deliveries.change(_held(delivery), {"$set": {**_FREE, "due_at": due_at, "error": error}})

    async def bury(self, delivery: Delivery, error: str) -> None:
        await self._deliveries.change(_held(delivery), {"$set": {**_FREE, "state": "dead", "error": error}})

    async def release(self, delivery: Delivery, now: datetime) -> None:
        """Give a lease back unused: the attempt does not count."""
        await self._deliveries.change(_held(delivery), {"$set": {**_FREE, "due_at": now}, "$inc": {"attempts": -1}})

    async def of_user(self, user_id: str, limit: int) -> list[Delivery]:
        return await self._deliveries.many({"user_id": user_id}, [("created_at", 1)], limit)

    async def page(self, state: DeliveryState | None, endpoint: str, after: str, limit: int) -> "list[Delivery]":
        """Those with an id beyond the one that is ``after``, by id; in that state, or for that ``endpoint``, alone."""
        query = {**({"state": state} if state else {}), **_of(endpoint), "_id": {"$gt": after}}
        return await self._deliveries.many(query, [("_id", 1)], limit)

    async def list(self, states: Sequence[DeliveryState], endpoint: str, limit: int) -> list[Delivery]:
        """Dead ones first, then those delivered, then what waits, the most pressing first; of every webhook for ""."""
        query = {"state": {"$in": list(states)}, **_of(endpoint)}
        return await self._deliveries.many(query, [("state", 1), ("due_at", 1)], limit)

    async def revive(self, delivery_id: str, now: datetime, expires_at: datetime) -> int:
        """Make one due, dead, delivered or waiting, with a fresh count of attempts; 0 where there is none that nobody
        is sending."""
        return await self._revive({"_id": delivery_id}, now, expires_at)

    async def revive_all(
        self,
        states: Sequence[DeliveryState],
        endpoint: str,
        since: datetime | None,
        now: datetime,
        expires_at: datetime,
    ) -> int:
        """The same for all in these states, those of what happened ``since`` then; how many they were."""
        after = {} if since is None else {"created_at": {"$gte": since}}
        return await self._revive({"state": {"$in": list(states)}, **_of(endpoint), **after}, now, expires_at)

    async def waiting(self, endpoint: str, most: int) -> int:
        """How many wait for a webhook; no more are counted than ``most``."""
        return await self._deliveries.count({"endpoint": endpoint, "state": "waiting"}, most)

    async def backlog(self, endpoint: str, now: datetime) -> Backlog:
        """How much there is for one webhook, up to a hundred thousand of a kind."""
        waiting, dead = [
            await self._deliveries.count({"endpoint": endpoint, "state": state}, _MOST_COUNTED)
            for state in ("waiting", "dead")
        ]
        due = {"endpoint": endpoint, "state": "waiting", "due_at": {"$lte": now}}
        oldest = await self._deliveries.many(due, [("due_at", 1)], 1)
        return Backlog(waiting, dead, (now - oldest[0].due_at).total_seconds() if oldest else 0.0)

    async def _revive(self, query: Mapping[str, Any], now: datetime, expires_at: datetime) -> int:
        due = {"state": "waiting", "due_at": now, "attempts": 0, "error": "", "expires_at": expires_at}
        # What is being sent is left alone. A lease that has run out is due anyway.
        return await self._deliveries.change_all({**query, **_FREE}, {"$set": due})


def _held(delivery: Delivery) -> Mapping[str, Any]:
    return {"_id": delivery.id, "lease": delivery.lease}


def _of(endpoint: str) -> Mapping[str, Any]:
    return {"endpoint": endpoint} if endpoint else {}
