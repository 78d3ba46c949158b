"""Lets nobody take one of their last passwords again: ``plugins.enabled = [..., "password_history"]``.

``[plugins.password_history] remembered`` (1 to 24, by default 5) says how many are remembered, the current one
included; a changed number counts from the next password on, with what is remembered by then. A password is
remembered, as its argon2 hash alone, when the next one is judged: of passwords before the plugin was enabled only the
current one is known. New accounts, and those that have no password here, have no history.

Each remembered password costs as much as a sign-in: if ``plugins.timeout`` is too short for so many, or the sign-ins
leave no room, the answer is 503, as it is while the database is away. The history goes with its account.
"""

from collections.abc import Sequence
from typing import Any

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from hydracore.plugin import (
    Collection,
    Context,
    EventListener,
    NewPassword,
    PasswordPolicy,
    PasswordRefused,
    events,
    hookimpl,
)


class PasswordHistory:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._remembered: int = context.config["remembered"]

    @hookimpl
    def hydracore_register_collections(self) -> list[Collection]:
        return [Collection("passwords")]

    @hookimpl
    def hydracore_register_password_policies(self) -> list[PasswordPolicy]:
        return [PasswordPolicy("history", judge=self.judge)]

    @hookimpl
    def hydracore_register_event_listeners(self) -> list[EventListener]:
        return [EventListener("password_history", self.listen, of=(events.UserDeleted,))]

    async def judge(self, new_password: NewPassword) -> None:
        """Raises ``PasswordRefused`` for one of the last passwords, and ``HashingOverloaded``."""
        user_id, current = new_password.user_id, new_password.current_hash
        if not (user_id and current):
            return
        hashes = await self._with(user_id, current)
        account = await self._context.find_account(new_password.email)
        if account is None or account.id != user_id:
            # Deleted meanwhile, and perhaps forgotten already: it must not be remembered again.
            await self._passwords.delete_one({"_id": user_id})
            return
        older = [encoded for encoded in reversed(hashes) if encoded != current]
        # One after the other: a single reset must not fill the pool that sign-ins share.
        for encoded in [current, *older][: self._remembered]:
            if await self._context.verify_password(encoded, new_password.password):
                raise PasswordRefused("You have used this password before. Choose another.")

    async def listen(self, batch: Sequence[events.UserDeleted]) -> None:
        """Forget whose accounts are gone. Raises whatever the driver does."""
        await self._passwords.delete_many({"_id": {"$in": [event.user_id for event in batch]}})

    @property
    def _passwords(self) -> Any:
        return self._context.collection("passwords")

    async def _with(self, user_id: str, current: str) -> list[str]:
        """The history, oldest first, with the current hash in it once, whoever else asks at once."""
        push = {"$push": {"hashes": {"$each": [current], "$slice": -self._remembered}}}
        absent = {"_id": user_id, "hashes": {"$ne": current}}
        for _ in range(2):
            try:
                kept = await self._passwords.find_one_and_update(
                    absent, push, upsert=True, return_document=ReturnDocument.AFTER
                )
                return list(kept["hashes"])
            except DuplicateKeyError:
                # It is in there already, so the document does not match; or another hash made the document a
                # moment ago, and the second time it is found.
                continue
        kept = await self._passwords.find_one({"_id": user_id})
        return list(kept["hashes"]) if kept else []
