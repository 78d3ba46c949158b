"""What administrators come with, and what they did."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from hydracore.models import AdminToken, AuditEntry
from hydracore.store.documents import Documents, Source

BEGUN = "begun"

Place = tuple[datetime, str]
"""Where a document stands among those in the order of a moment: that moment, and its id."""


class AdminTokens:
    def __init__(self, source: Source) -> None:
        self._tokens: Documents[AdminToken] = Documents(source, AdminToken)

    async def add(self, token: AdminToken) -> bool:
        return await self._tokens.add(token)

    async def live(self, digest: str, now: datetime) -> AdminToken | None:
        """The token of that digest, if it is good."""
        return await self._tokens.one({"digest": digest, "expires_at": {"$gt": now}, "revoked_at": None})

    async def by_digest(self, digest: str) -> AdminToken | None:
        """Good or not."""
        return await self._tokens.one({"digest": digest})

    async def used(self, token_id: str, now: datetime) -> None:
        earlier = {"$or": [{"last_used_at": None}, {"last_used_at": {"$lt": now}}]}
        await self._tokens.change({"_id": token_id, **earlier}, {"$set": {"last_used_at": now}})

    async def page(self, after: Place | None, limit: int) -> list[AdminToken]:
        """The latest first, those that are no good any more too; ``after`` is where the page before ended."""
        return await self._tokens.many(_beyond("created_at", after), [("created_at", -1), ("_id", -1)], limit)

    async def revoke(self, token_id: str, now: datetime) -> AdminToken | None:
        """From now on it opens nothing; None where there is none, or it was revoked before."""
        return await self._tokens.change({"_id": token_id, "revoked_at": None}, {"$set": {"revoked_at": now}})


class Audit:
    """Entries are added, each is concluded once, and nothing else changes or deletes one but its time."""

    def __init__(self, source: Source) -> None:
        self._entries: Documents[AuditEntry] = Documents(source, AuditEntry)

    async def add(self, entry: AuditEntry) -> bool:
        return await self._entries.add(entry)

    async def conclude(self, entry_id: str, outcome: str, details: Mapping[str, Any]) -> None:
        """How it ended, and what is known of it by then."""
        told = {f"details.{name}": value for name, value in details.items()}
        await self._entries.change({"_id": entry_id, "outcome": BEGUN}, {"$set": {"outcome": outcome, **told}})

    async def page(self, user_id: str, after: Place | None, now: datetime, limit: int) -> list[AuditEntry]:
        """The latest first, those of one account where there is an id; ``after`` is where the page before ended."""
        live = {"expires_at": {"$gt": now}, **({"user_id": user_id} if user_id else {})}
        return await self._entries.many({**live, **_beyond("at", after)}, [("at", -1), ("_id", -1)], limit)


def _beyond(member: str, after: Place | None) -> Mapping[str, Any]:
    """What comes after that place where the latest is first."""
    if after is None:
        return {}
    moment, last = after
    # The bound beside the alternatives: one range of the index, not a sort of two.
    return {member: {"$lte": moment}, "$or": [{member: {"$lt": moment}}, {"_id": {"$lt": last}}]}
