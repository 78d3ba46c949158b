"""Sessions: each is one refresh token family."""

from datetime import datetime
from typing import Any

from hydracore.models import Session, User
from hydracore.recent import RecentSessions
from hydracore.store.documents import Documents, Source


class Sessions:
    """``unions`` says whether the server can look into two collections at once."""

    def __init__(self, source: Source, users: Source, recent: RecentSessions, *, unions: bool) -> None:
        self._sessions: Documents[Session] = Documents(source, Session)
        self._users: Documents[User] = Documents(users, User)
        self._recent = recent
        self._unions = unions

    async def add(self, session: Session) -> bool:
        return await self._sessions.add(session)

    async def live(self, session_id: str, now: datetime) -> Session | None:
        return await self._sessions.one({"_id": session_id, **_live(now)})

    async def live_with_user(
        self, session_id: str, user_id: str, now: datetime, *, fresh: bool = False
    ) -> tuple[Session | None, User | None]:
        """A live session and an account in one look-up: every request of who is signed in asks for both. ``fresh`` says
        that those of a moment ago will not do."""
        if not fresh and (seen := self._recent.find(session_id, user_id, now)):
            return seen
        changes = self._recent.changes
        session, user = await self._both(session_id, user_id, now)
        if session is not None and user is not None:
            self._recent.keep(session, user, now, changes)
        return session, user

    async def _both(self, session_id: str, user_id: str, now: datetime) -> tuple[Session | None, User | None]:
        if not self._unions:
            return await self.live(session_id, now), await self._users.one({"_id": user_id})
        return await self._sessions.beside(session_id, _live(now), self._users, user_id)

    async def of_user(self, user_id: str, epoch: int, now: datetime, limit: int) -> list[Session]:
        """The live ones of that epoch, the latest used first."""
        return await self._sessions.many(
            {"user_id": user_id, "epoch": epoch, **_live(now)}, [("rotated_at", -1)], limit
        )

    async def advance(
        self,
        session_id: str,
        generation: int,
        now: datetime,
        expires_at: datetime,
        network: str = "",
        device: str = "",
    ) -> Session | None:
        """From ``generation`` to the next: of any number of callers at once, one gets the session. ``network`` and
        ``device`` are those that it was last used from and with; what is "" stays as it was."""
        seen = {name: value for name, value in (("network", network), ("device", device)) if value}
        return await self._sessions.change(
            {"_id": session_id, "generation": generation, **_live(now)},
            {"$set": {"generation": generation + 1, "rotated_at": now, "expires_at": expires_at, **seen}},
        )

    async def end(self, session_id: str) -> Session | None:
        """The session, to the one caller that ended it."""
        try:
            return await self._sessions.take({"_id": session_id})
        finally:
            self._recent.forget_session(session_id)

    async def end_own(self, session_id: str, user_id: str, epoch: int, now: datetime) -> Session | None:
        """A live session of that account and epoch, to the one caller that ended it; None for any other id."""
        try:
            return await self._sessions.take({"_id": session_id, "user_id": user_id, "epoch": epoch, **_live(now)})
        finally:
            self._recent.forget_session(session_id)

    async def end_others(self, session_id: str, user_id: str, epoch: int, now: datetime) -> int:
        """Every live session of that account and epoch but this one; how many they were."""
        others = {"user_id": user_id, "epoch": epoch, "_id": {"$ne": session_id}, **_live(now)}
        try:
            return await self._sessions.drop(others)
        finally:
            self._recent.forget_user(user_id)

    async def end_all(self, user_id: str) -> int:
        return await self._sessions.drop({"user_id": user_id})

    async def end_epochs_before(self, user_id: str, epoch: int) -> int:
        """Tidy up what a new epoch has ended already."""
        return await self._sessions.drop({"user_id": user_id, "epoch": {"$lt": epoch}})


def _live(now: datetime) -> dict[str, Any]:
    return {"expires_at": {"$gt": now}, "ends_at": {"$gt": now}}
