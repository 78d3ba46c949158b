"""Accounts."""

from collections.abc import Mapping
from typing import Any

from hydracore.models import User
from hydracore.recent import RecentSessions
from hydracore.store.documents import Documents, Source

# Networks that an account remembers: home, work, the phone's, and some more.
_MOST_NETWORKS = 8


class Users:
    def __init__(self, source: Source, recent: RecentSessions) -> None:
        self._users: Documents[User] = Documents(source, User)
        self._recent = recent

    async def add(self, user: User) -> bool:
        """False when the address has an account: the unique index decides."""
        return await self._users.add(user)

    async def by_id(self, user_id: str) -> User | None:
        return await self._users.one({"_id": user_id})

    async def by_address(self, address_key: str) -> User | None:
        return await self._users.one({"address_key": address_key})

    async def page(self, after: User | None, limit: int) -> list[User]:
        """Oldest first; ``after`` is the last one of the page before."""
        query: Mapping[str, Any] = {}
        if after is not None:
            later = {"created_at": {"$gt": after.created_at}}
            query = {"$or": [later, {"created_at": after.created_at, "_id": {"$gt": after.id}}]}
        return await self._users.many(query, [("created_at", 1), ("_id", 1)], limit)

    async def mark_verified(
        self, user_id: str, epoch: int, *, end_sessions: bool, language: str | None = None
    ) -> User | None:
        """Once, while unverified and of that epoch. ``end_sessions`` starts a new epoch in the same step, and forgets
        the networks of before. ``language`` is what its owner reads; None leaves what is known of that."""
        proven = {"email_verified": True, **_read(language)}
        update: dict[str, Any] = {"$set": proven}
        if end_sessions:
            update = {"$set": {**proven, "networks": []}, "$inc": {"epoch": 1}}
        unverified = {"epoch": epoch, "email_verified": False, "disabled": False}
        return await self._change(user_id, unverified, update)

    async def reset_password(
        self, user_id: str, epoch: int, password_hash: str, network: str, language: str | None = None
    ) -> User | None:
        """Once an epoch: sets the password, proves the address, and starts a new epoch, which ends
        every session and every other code and token. ``network`` is the one that is known from now on, ``language``
        as in :meth:`mark_verified`. The loser of a race gets None."""
        proven = {"password_hash": password_hash, "email_verified": True, "networks": [network], **_read(language)}
        update = {"$set": proven, "$inc": {"epoch": 1}}
        return await self._change(user_id, {"epoch": epoch, "disabled": False}, update)

    async def take_over(self, user_id: str, epoch: int, authority: str, language: str = "") -> User | None:
        """Once, while unverified and of that epoch: the account becomes an authenticator's, its password goes, and a
        new epoch ends what there was. ``language`` is what its owner reads. The loser of a race gets None."""
        theirs = {"password_hash": "", "email_verified": True, "authority": authority, "language": language}
        update = {"$set": {**theirs, "networks": []}, "$inc": {"epoch": 1}}
        unverified = {"epoch": epoch, "email_verified": False, "disabled": False}
        return await self._change(user_id, unverified, update)

    async def remember_network(self, user_id: str, epoch: int, network: str) -> None:
        """Add it to the last few that the account was signed in from, unless it is among them."""
        unknown = {"_id": user_id, "epoch": epoch, "networks": {"$ne": network}}
        await self._users.change(unknown, {"$push": {"networks": {"$each": [network], "$slice": -_MOST_NETWORKS}}})

    async def rehash(self, user: User, password_hash: str) -> None:
        """Replace the hash unless the password was changed meanwhile."""
        same_hash = {"_id": user.id, "password_hash": user.password_hash}
        await self._users.change(same_hash, {"$set": {"password_hash": password_hash}})

    async def set_language(self, user_id: str, language: str) -> User | None:
        return await self._change(user_id, {}, {"$set": {"language": language}})

    async def start_epoch(self, user_id: str) -> User | None:
        """End every session, code and token of the account."""
        return await self._change(user_id, {}, {"$inc": {"epoch": 1}})

    async def disable(self, user_id: str) -> User | None:
        return await self._change(user_id, {}, {"$set": {"disabled": True}, "$inc": {"epoch": 1}})

    async def enable(self, user_id: str) -> User | None:
        return await self._change(user_id, {}, {"$set": {"disabled": False}})

    async def delete(self, user_id: str) -> User | None:
        try:
            return await self._users.take({"_id": user_id})
        finally:
            self._recent.forget_user(user_id)

    async def _change(self, user_id: str, query: Mapping[str, Any], update: Mapping[str, Any]) -> User | None:
        """Whatever comes of it, what was known of the account is not to be trusted any more."""
        try:
            return await self._users.change({"_id": user_id, **query}, update)
        finally:
            self._recent.forget_user(user_id)


def _read(language: str | None) -> dict[str, Any]:
    return {} if language is None else {"language": language}
