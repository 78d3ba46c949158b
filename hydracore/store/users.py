"""Accounts."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from hydracore.errors import EmailTaken
from hydracore.models import Address, Closing, Former, User
from hydracore.recent import RecentSessions
from hydracore.store.documents import Documents, Duplicate, Source

# Networks that an account remembers: home, work, the phone's, and some more.
_MOST_NETWORKS = 8
# What an operator has deleted is on its way out: another one's word of that moment must not keep it.
_NOT_CONDEMNED = {"closing.digest": {"$ne": ""}}

Untold = Sequence[Mapping[str, Any]]
"""What is to be told of a change, written in the same atomic step: see :class:`User`."""


class Users:
    def __init__(self, source: Source, recent: RecentSessions) -> None:
        self._users: Documents[User] = Documents(source, User)
        self._recent = recent

    async def add(self, user: User) -> bool:
        """False when the address has an account, or is kept for one: the unique indexes decide."""
        return await self._users.add(replace(user, addresses=_addresses(user.address_key)))

    async def add_all(self, users: Sequence[User]) -> list[User]:
        """Those that were not added: the id is another's, or the address has an account or is kept for one. Their own
        ``addresses`` are those of before that are kept for them."""
        kept = [replace(user, addresses=[*_addresses(user.address_key), *user.addresses]) for user in users]
        refused = {user.id: user for user in await self._users.add_all(kept)}
        return [user for user in users if user.id in refused]

    async def taking(self, keys: Sequence[str], ids: Sequence[str]) -> list[User]:
        """The accounts that have one of the addresses, or for which one is kept, or that have one of the ids; in no
        order, for which the database might go through all of them."""
        those = {"$in": list(keys)}
        taken = [{"address_key": those}, {"addresses.key": those}, {"_id": {"$in": list(ids)}}]
        return await self._users.many({"$or": taken}, [], 2 * len(keys) + len(ids))

    async def works(self) -> list[str]:
        """What the hashes cost that were made elsewhere."""
        return await self._users.distinct("imported.work", {"imported.work": {"$gt": ""}})

    async def by_id(self, user_id: str) -> User | None:
        return await self._users.get(user_id)

    async def by_address(self, address_key: str) -> User | None:
        return await self._users.one({"address_key": address_key})

    async def holding(self, address_key: str) -> User | None:
        """The account that has the address, or for which it is kept."""
        return await self._users.one({"$or": [{"address_key": address_key}, {"addresses.key": address_key}]})

    async def by_former(self, digests: Sequence[str], now: datetime) -> User | None:
        """The account that the token of ``digests`` brings an address back to; it is kept by one of them."""
        kept = {"digest": {"$in": list(digests)}, "expires_at": {"$gt": now}}
        return await self._users.one({"addresses": {"$elemMatch": kept}})

    async def search(self, prefix: str, after: str, limit: int) -> list[User]:
        """Those whose address key begins with ``prefix``, in the order of the keys, beyond the one that is ``after``: a
        range of the index that makes addresses unique, however many accounts there are."""
        query: dict[str, Any] = {"$gt": after} if after else {"$gte": prefix}
        if prefix:
            query["$lt"] = prefix + chr(sys.maxunicode)
        return await self._users.many({"address_key": query}, [("address_key", 1)], limit)

    async def page(self, after: User | None, limit: int, role: str = "") -> list[User]:
        """Oldest first; ``after`` is the last one of the page before. With a ``role`` those that were given it."""
        query: dict[str, Any] = {"roles": role} if role else {}
        if after is not None:
            # The one bound is what an index begins at.
            later = {"created_at": {"$gt": after.created_at}}
            query["created_at"] = {"$gte": after.created_at}
            query["$or"] = [later, {"_id": {"$gt": after.id}}]
        return await self._users.many(query, [("created_at", 1), ("_id", 1)], limit)

    async def mark_verified(
        self, user_id: str, epoch: int, *, end_sessions: bool, language: str | None = None, untold: Untold = ()
    ) -> User | None:
        """Once, while unverified and of that epoch. ``end_sessions`` starts a new epoch in the same step, and forgets
        the networks of before. ``language`` is what its owner reads; None leaves what is known of that."""
        proven = {"email_verified": True, **_read(language)}
        update: dict[str, Any] = {"$set": proven}
        if end_sessions:
            update = {"$set": {**proven, "networks": []}, "$inc": {"epoch": 1}}
        unverified = {"epoch": epoch, "email_verified": False, "disabled": False}
        return await self._change(user_id, unverified, update, untold)

    async def vouch(self, user_id: str, untold: Untold = ()) -> User | None:
        """An operator's word: the address is proven. None where it is already, or there is no such account."""
        return await self._change(user_id, {"email_verified": False}, {"$set": {"email_verified": True}}, untold)

    async def void_password(self, user_id: str, untold: Untold = ()) -> User | None:
        """An operator's word: the password is none any more, and a new epoch ends the rest. None for an account
        of an authenticator, which has none here, and where there is no such account."""
        update = {"$set": {**_hash(""), "networks": []}, "$inc": {"epoch": 1}}
        return await self._change(user_id, {"authority": {"$in": ["", None]}}, update, untold)

    async def reset_password(
        self,
        user_id: str,
        epoch: int,
        password_hash: str,
        network: str,
        language: str | None = None,
        untold: Untold = (),
    ) -> User | None:
        """Once an epoch: sets the password, proves the address, and starts a new epoch, which ends
        every session and every other code and token. ``network`` is the one that is known from now on, ``language``
        as in :meth:`mark_verified`. The loser of a race gets None."""
        proven = {**_hash(password_hash), "email_verified": True, "networks": [network], **_read(language)}
        update = {"$set": proven, "$inc": {"epoch": 1}}
        return await self._change(user_id, {"epoch": epoch, "disabled": False}, update, untold)

    async def change_password(
        self, user_id: str, epoch: int, password_hash: str, network: str, untold: Untold = ()
    ) -> User | None:
        """Once an epoch, as :meth:`reset_password`, of which it differs in proving nothing."""
        update = {"$set": {**_hash(password_hash), "networks": [network]}, "$inc": {"epoch": 1}}
        return await self._change(user_id, {"epoch": epoch, "disabled": False}, update, untold)

    async def change_address(
        self, user: User, address: Address, formers: Sequence[Former], untold: Untold = ()
    ) -> User | None:
        """Once an epoch: another address, with the ``formers`` that are kept for the account, and a new epoch. The
        loser of a race gets None. Raises :class:`EmailTaken` where the address is another account's, or kept for
        one."""
        there = {"email": address.email, "address_key": address.key, "addresses": _addresses(address.key, formers)}
        return await self._readdress(user, {"disabled": False}, there, untold)

    async def bring_back(self, user: User, former: Former, older: Sequence[Former], untold: Untold = ()) -> User | None:
        """Once an epoch: the address of before, as it was then. What came after it is void: that the account was
        closed, and the password, which whoever changed the address knew; a new epoch ends the rest. Raises as
        :meth:`change_address`."""
        back = {"email": former.email, "address_key": former.key, "addresses": _addresses(former.key, older)}
        opened: Mapping[str, Any] = {"disabled": False, "closing": None, **_hash(""), "networks": []}
        return await self._readdress(user, {}, {**back, **opened}, untold)

    async def release(self, now: datetime) -> int:
        """Let go of the addresses that were kept until now; of how many accounts."""
        over = {"expires_at": {"$lte": now}}
        return await self._users.change_all({"addresses.expires_at": {"$lte": now}}, {"$pull": {"addresses": over}})

    async def take_over(
        self, user_id: str, epoch: int, authority: str, language: str = "", untold: Untold = ()
    ) -> User | None:
        """Once, while unverified and of that epoch: the account becomes an authenticator's, its password goes, and a
        new epoch ends what there was. ``language`` is what its owner reads. The loser of a race gets None."""
        theirs = {**_hash(""), "email_verified": True, "authority": authority, "language": language}
        update = {"$set": {**theirs, "networks": []}, "$inc": {"epoch": 1}}
        unverified = {"epoch": epoch, "email_verified": False, "disabled": False}
        return await self._change(user_id, unverified, update, untold)

    async def remember_network(self, user_id: str, epoch: int, network: str) -> None:
        """Add it to the last few that the account was signed in from, unless it is among them."""
        unknown = {"_id": user_id, "epoch": epoch, "networks": {"$ne": network}}
        await self._users.change(unknown, {"$push": {"networks": {"$each": [network], "$slice": -_MOST_NETWORKS}}})

    async def rehash(self, user: User, password_hash: str) -> None:
        """Replace the hash unless the password was changed meanwhile."""
        same_hash = {"_id": user.id, "password_hash": user.password_hash}
        await self._users.change(same_hash, {"$set": _hash(password_hash)})

    async def set_language(self, user_id: str, language: str) -> User | None:
        return await self._change(user_id, {}, {"$set": {"language": language}})

    async def set_roles(
        self, user_id: str, before: Sequence[str], roles: Sequence[str], untold: Untold = ()
    ) -> User | None:
        """While they are still those of ``before``: of changes at once, each builds upon the other. The loser of a race
        gets None."""
        # An account of before there were roles has no such member.
        same: Mapping[str, Any] = {"roles": list(before)} if before else {"roles.0": {"$exists": False}}
        return await self._change(user_id, same, {"$set": {"roles": list(roles)}}, untold)

    async def start_epoch(self, user_id: str, untold: Untold = ()) -> User | None:
        """End every session, code and token of the account."""
        return await self._change(user_id, {}, {"$inc": {"epoch": 1}}, untold)

    async def disable(self, user_id: str, untold: Untold = ()) -> User | None:
        """An operator's word, which ends an owner's: an account that is to be deleted is not, nor opened by a token.
        None where an operator has deleted it."""
        update = {"$set": {"disabled": True, "closing": None}, "$inc": {"epoch": 1}}
        return await self._change(user_id, _NOT_CONDEMNED, update, untold)

    async def enable(self, user_id: str, untold: Untold = ()) -> User | None:
        """None as for :meth:`disable`."""
        return await self._change(user_id, _NOT_CONDEMNED, {"$set": {"disabled": False, "closing": None}}, untold)

    async def close(self, user: User, closing: Closing, untold: Untold = ()) -> User | None:
        """Once an epoch: nobody signs in any more, and a new epoch ends what there was. The loser of a race gets
        None."""
        update = {"$set": {"disabled": True, "closing": asdict(closing)}, "$inc": {"epoch": 1}}
        return await self._change(user.id, {"epoch": user.epoch, "disabled": False}, update, untold)

    async def by_closing(self, digests: Sequence[str], now: datetime) -> User | None:
        """The closed account that the token of ``digests`` opens; it is kept by one of them."""
        kept = {"closing.digest": {"$in": list(digests)}, "closing.ends_at": {"$gt": now}}
        return await self._users.one({**kept, "disabled": True})

    async def reopen(self, user_id: str, digest: str, now: datetime, untold: Untold = ()) -> User | None:
        """Once, while it is closed and not over."""
        closed = {"closing.digest": digest, "closing.ends_at": {"$gt": now}, "disabled": True}
        return await self._change(user_id, closed, {"$set": {"disabled": False, "closing": None}}, untold)

    async def over(self, now: datetime, limit: int) -> list[User]:
        """Closed accounts that are to go for good by now, the earliest first."""
        return await self._users.many(_over(now), [("closing.ends_at", 1)], limit)

    async def condemn(self, user_id: str, now: datetime) -> User | None:
        """An operator's word: closed, and over at once. No token opens it again, and it is deleted, if not by whoever
        asked then by the next sweep. What is over by an operator's word already stays over since then."""
        over = {"disabled": True, "closing": asdict(Closing("", "", now))}
        formers = {"addresses": {"expires_at": {"$exists": True}}}  # Their tokens would open it.
        update = {"$set": over, "$pull": formers, "$inc": {"epoch": 1}}
        already = {"closing.digest": "", **_over(now)}
        first = await self._change(user_id, {"$nor": [already]}, update)
        return first or await self._users.one({"_id": user_id, **_over(now)})

    async def say_over(self, user_id: str, now: datetime, untold: Untold) -> User | None:
        """Write down what is to be told of the end of a closed account that is over; None where it is not."""
        if not untold:
            return await self._users.one({"_id": user_id, **_over(now)})
        return await self._change(user_id, _over(now), {}, untold)

    async def delete_closed(self, user_id: str, now: datetime, *, told: bool = False) -> User | None:
        """The account, to the one caller that deleted it; None where it was opened meanwhile, or, where all has to be
        ``told`` first, something is not."""
        nothing_untold = {"untold.0": {"$exists": False}} if told else {}
        try:
            return await self._users.take({"_id": user_id, **_over(now), **nothing_untold})
        finally:
            self._recent.forget_user(user_id)

    # -- what is to be told ------------------------------------------------------------------------

    async def untold(self, before: datetime, limit: int) -> list[User]:
        """Accounts to which something happened before then that is not in the webhooks' outbox, the oldest first."""
        return await self._users.many({"untold.at": {"$lte": before}}, [("untold.at", 1)], limit)

    async def by_ids(self, user_ids: Sequence[str]) -> list[User]:
        return await self._users.many({"_id": {"$in": list(user_ids)}}, [("_id", 1)], len(user_ids))

    async def told(self, user_ids: Sequence[str], notice_ids: Sequence[str]) -> None:
        """These are in the outbox now."""
        gone = {"$pull": {"untold": {"id": {"$in": list(notice_ids)}}}}
        await self._users.change_all({"_id": {"$in": list(user_ids)}}, gone)

    async def _readdress(
        self, user: User, query: Mapping[str, Any], there: Mapping[str, Any], untold: Untold
    ) -> User | None:
        # What is kept is told by the document as it was read, and changes with the epoch alone, or where it is over.
        update = {"$set": there, "$inc": {"epoch": 1}}
        try:
            return await self._change(user.id, {"epoch": user.epoch, **query}, update, untold)
        except Duplicate as error:
            raise EmailTaken().because("the address has an account, or is kept for one", user=user.id) from error

    async def _change(
        self, user_id: str, query: Mapping[str, Any], update: Mapping[str, Any], untold: Untold = ()
    ) -> User | None:
        """Whatever comes of it, what was known of the account is not to be trusted any more."""
        if untold:
            update = {**update, "$push": {"untold": {"$each": list(untold)}}}
        try:
            return await self._users.change({"_id": user_id, **query}, update)
        finally:
            self._recent.forget_user(user_id)


def _hash(password_hash: str) -> dict[str, Any]:
    return {"password_hash": password_hash, "imported": None}


def _read(language: str | None) -> dict[str, Any]:
    return {} if language is None else {"language": language}


def _over(now: datetime) -> Mapping[str, Any]:
    # A node of an older version that enables an account knows nothing of its closing.
    return {"closing.ends_at": {"$lte": now}, "disabled": True}


def _addresses(address_key: str, formers: Sequence[Former] = ()) -> list[dict[str, Any]]:
    return [{"key": address_key}, *map(asdict, formers)]
