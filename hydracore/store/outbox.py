"""The outbox: mail that must go out, leased by one worker at a time.

Every change after the lease names the lease, so a worker that was slower than its lease changes nothing.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from hydracore.models import Backlog, MailIntent
from hydracore.store.documents import Documents, Source

_FREE: Mapping[str, Any] = {"lease": ""}
_MOST_COUNTED = 100_000


class Outbox:
    def __init__(self, source: Source) -> None:
        self._intents: Documents[MailIntent] = Documents(source, MailIntent)

    async def add(self, intent: MailIntent) -> bool:
        return await self._intents.add(intent)

    async def lease(self, lease: str, now: datetime, until: datetime) -> MailIntent | None:
        """The intent that is due longest, counted as one more attempt; due again when its lease ends."""
        return await self._intents.change(
            {"dead": False, "due_at": {"$lte": now}},
            {"$set": {"lease": lease, "due_at": until}, "$inc": {"attempts": 1}},
            sort=[("due_at", 1)],
        )

    async def seal(self, intent: MailIntent, sealed: bytes, until: datetime) -> bool:
        """Keep what is about to be sent, so that another try sends the same; False when the lease is lost."""
        update = {"$set": {"sealed": sealed, "sealed_until": until}}
        return await self._intents.change(_held(intent), update) is not None

    async def done(self, intent: MailIntent) -> None:
        """Sent, or not needed: the intent goes, with all that it held."""
        await self._intents.drop(_held(intent))

    async def defer(self, intent: MailIntent, due_at: datetime, error: str) -> None:
        await self._intents.change(_held(intent), {"$set": {**_FREE, "due_at": due_at, "error": error}})

    async def bury(self, intent: MailIntent, error: str, *, whole: bool = False) -> None:
        """A dead letter: it keeps what it was for, and not the secret that it held, unless ``whole``."""
        sealed = {} if whole else {"sealed": None, "sealed_until": None}
        await self._intents.change(_held(intent), {"$set": {**_FREE, "dead": True, "error": error, **sealed}})

    async def release(self, intent: MailIntent, now: datetime) -> None:
        """Give a lease back unused: the attempt does not count."""
        await self._intents.change(_held(intent), {"$set": {**_FREE, "due_at": now}, "$inc": {"attempts": -1}})

    async def hasten(self, intent: MailIntent, now: datetime) -> None:
        """Make due now what was put in for later."""
        await self._intents.change({"_id": intent.id, **_FREE}, {"$set": {"due_at": now, "held": False}})

    async def withdraw(self, intent: MailIntent) -> None:
        """Take back what nobody has leased yet."""
        await self._intents.drop({"_id": intent.id, **_FREE})

    async def of_address(self, address_key: str, limit: int) -> list[MailIntent]:
        """What waits, or was given up, for the account of that address; the oldest first."""
        return await self._intents.many({"address_key": address_key}, [("created_at", 1)], limit)

    async def sealed(self, after: str, limit: int) -> list[MailIntent]:
        """What holds a sealed message, by id, those after the one given."""
        return await self._intents.many({"_id": {"$gt": after}, "sealed": {"$ne": None}}, [("_id", 1)], limit)

    async def page(self, dead: bool | None, after: str, limit: int) -> "list[MailIntent]":
        """Those with an id beyond the one that is ``after``, by id; ``dead`` ones, or those that wait, alone."""
        query: dict[str, Any] = {} if dead is None else {"dead": dead}
        return await self._intents.many({**query, "_id": {"$gt": after}}, [("_id", 1)], limit)

    async def drop(self, intent_id: str) -> bool:
        """Give one up for good that nobody is sending; False where there is none."""
        return await self._intents.take({"_id": intent_id, **_FREE}) is not None

    async def list(self, limit: int) -> list[MailIntent]:
        """Dead letters first, then what waits, the most pressing first."""
        return await self._intents.many({}, [("dead", -1), ("due_at", 1)], limit)

    async def reseal(self, intent: MailIntent, sealed: bytes) -> bool:
        """Replace the seal, unless it has gone or changed meanwhile."""
        mine = {"_id": intent.id, "sealed": intent.sealed}
        return await self._intents.change(mine, {"$set": {"sealed": sealed}}) is not None

    async def backlog(self, now: datetime) -> Backlog:
        """How much there is, up to a hundred thousand of a kind."""
        waiting, dead = [await self._intents.count({"dead": dead}, _MOST_COUNTED) for dead in (False, True)]
        due = await self._intents.many({"dead": False, "due_at": {"$lte": now}}, [("due_at", 1)], 1)
        late = (now - due[0].due_at).total_seconds() if due and due[0].due_at else 0.0
        return Backlog(waiting, dead, late)

    async def revive(self, intent_id: str | None, now: datetime) -> int:
        """Make a dead letter, or all of them, due now with a fresh count of attempts; how many they were."""
        query: dict[str, Any] = {"dead": True}
        if intent_id is not None:
            query["_id"] = intent_id
        return await self._intents.change_all(
            query, {"$set": {"dead": False, "due_at": now, "attempts": 0, "error": ""}}
        )


def _held(intent: MailIntent) -> Mapping[str, Any]:
    return {"_id": intent.id, "lease": intent.lease}
