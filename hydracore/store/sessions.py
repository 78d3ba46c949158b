"""Sessions: each is one refresh token family."""

from datetime import datetime
from typing import Any

from hydracore.models import Session
from hydracore.store.documents import Documents


class Sessions:
    def __init__(self, collection: Any) -> None:
        self._sessions: Documents[Session] = Documents(collection, Session)

    async def add(self, session: Session) -> bool:
        return await self._sessions.add(session)

    async def live(self, session_id: str, now: datetime) -> Session | None:
        return await self._sessions.one({"_id": session_id, **_live(now)})

    async def advance(self, session_id: str, generation: int, now: datetime, expires_at: datetime) -> Session | None:
        """From ``generation`` to the next: of any number of callers at once, one gets the session."""
        return await self._sessions.change(
            {"_id": session_id, "generation": generation, **_live(now)},
            {"$set": {"generation": generation + 1, "rotated_at": now, "expires_at": expires_at}},
        )

    async def end(self, session_id: str) -> Session | None:
        """The session, to the one caller that ended it."""
        return await self._sessions.take({"_id": session_id})

    async def end_all(self, user_id: str) -> int:
        return await self._sessions.drop({"user_id": user_id})

    async def end_epochs_before(self, user_id: str, epoch: int) -> int:
        """Tidy up what a new epoch has ended already."""
        return await self._sessions.drop({"user_id": user_id, "epoch": {"$lt": epoch}})


def _live(now: datetime) -> dict[str, Any]:
    return {"expires_at": {"$gt": now}, "ends_at": {"$gt": now}}
