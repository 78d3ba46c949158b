"""Sessions: each is one refresh token family."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

from bson import ObjectId

from hydracore.models import Session, User
from hydracore.recent import RecentSessions
from hydracore.store.documents import Documents, Source
from hydracore.store.loader import Keys, Loader

# What a session is kept marked with: who moves it must find the mark, also where others have moved it on meanwhile.
_MOST_MARKS = 4
_ALL_MOVED = b""


class Advanced(NamedTuple):
    """A live session after someone asked to move it on, with its user. ``moved`` says that it was this one who did."""

    session: Session | None
    user: User | None
    moved: bool


class _Asked(NamedTuple):
    session_id: str
    now: datetime
    user_id: str = ""


@dataclass(frozen=True, eq=False)
class _Step:
    """From a generation to the next; each is itself alone, also beside one that asks for the same."""

    session_id: str
    generation: int
    now: datetime
    update: Mapping[str, Any]


class Sessions:
    def __init__(self, source: Source, users: Source, recent: RecentSessions) -> None:
        self._sessions: Documents[Session] = Documents(source, Session)
        self._users: Documents[User] = Documents(users, User)
        self._recent = recent
        self._pairs: Loader[_Asked, tuple[Session | None, User | None]] = Loader(self._find_pairs)
        self._with_users: Loader[_Asked, tuple[Session, User | None]] = Loader(self._find_with_users)
        self._steps: Loader[_Step, bytes] = Loader(self._take_steps)

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
        session, user = await self._pairs.get(_Asked(session_id, now, user_id)) or (None, None)
        if session is not None and user is not None:
            self._recent.keep(session, user, now, changes)
        return session, user

    async def _find_pairs(self, asked: Keys[_Asked]) -> Mapping[_Asked, tuple[Session | None, User | None]]:
        wanted: list[_Asked] = []

        def look_up() -> tuple[list[str], dict[str, Any], list[str]]:
            wanted.extend(asked())
            return *_of_all(wanted), [each.user_id for each in wanted]

        sessions, users = await self._sessions.beside(look_up, self._users)
        return {each: (sessions.get(each.session_id), users.get(each.user_id)) for each in wanted}

    async def with_user(self, session_id: str, now: datetime) -> tuple[Session | None, User | None]:
        """A live session and its account, for who knows the session alone."""
        return await self._with_users.get(_Asked(session_id, now)) or (None, None)

    async def _find_with_users(self, asked: Keys[_Asked]) -> Mapping[_Asked, tuple[Session, User | None]]:
        wanted: list[_Asked] = []

        def look_up() -> tuple[list[str], dict[str, Any]]:
            wanted.extend(asked())
            return _of_all(wanted)

        found = await self._sessions.joined(look_up, self._users, "user_id")
        return {each: found[each.session_id] for each in wanted if each.session_id in found}

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
    ) -> Advanced:
        """From ``generation`` to the next: of any number of callers at once, one has ``moved`` the session. ``network``
        and ``device`` are those that it was last used from and with; what is "" stays as it was."""
        seen = {name: value for name, value in (("network", network), ("device", device)) if value}
        update = {"generation": generation + 1, "rotated_at": now, "expires_at": expires_at, **seen}
        mark = await self._steps.get(_Step(session_id, generation, now, update))
        # Looked at afterwards: an account that is closed by now gets nothing.
        session, user = await self.with_user(session_id, now)
        moved = session is not None and (mark == _ALL_MOVED or mark in session.marks)
        if session is not None and moved:  # As this one left it, whoever came next.
            session = replace(session, generation=generation + 1)
        return Advanced(session, user, moved)

    async def _take_steps(self, steps: Keys[_Step]) -> Mapping[_Step, bytes]:
        """What each step has marked the session with; _ALL_MOVED where all are known to have found theirs."""
        marks: dict[_Step, bytes] = {}

        def changes() -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
            marks.update((step, ObjectId().binary) for step in steps())
            return [
                (
                    {"_id": step.session_id, "generation": step.generation, **_live(step.now)},
                    {"$set": step.update, "$push": {"marks": {"$each": [mark], "$slice": -_MOST_MARKS}}},
                )
                for step, mark in marks.items()
            ]

        return dict.fromkeys(marks, _ALL_MOVED) if await self._sessions.change_each(changes) else marks

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


def _of_all(asked: Sequence[_Asked]) -> tuple[list[str], dict[str, Any]]:
    """Which sessions, and live at the time of who asked last: what has ended by then is no answer to anybody."""
    return [each.session_id for each in asked], _live(max(each.now for each in asked))
