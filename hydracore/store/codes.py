"""Mailed secrets, as keyed digests. One kind can never stand in for another: the kind is in every query."""

from collections.abc import Sequence
from datetime import datetime

from hydracore.models import Code, CodeKind
from hydracore.store.documents import Documents, Source


class Codes:
    def __init__(self, source: Source) -> None:
        self._codes: Documents[Code] = Documents(source, Code)

    async def put(self, code: Code) -> None:
        """Keep a code in place of the one with the same id."""
        await self._codes.put(code)

    async def count_try(self, code_id: str, expires_at: datetime, kind: CodeKind = "verification") -> Code:
        """Count a try and give the code with its new count, for the caller to judge.

        Where there is none, an empty one is kept that matches nothing until ``expires_at``, so that
        this is the same write for every address. The count, the end and the digest come from one
        atomic step.
        """
        nothing = {"kind": kind, "user_id": "", "epoch": -1, "digest": "", "expires_at": expires_at}
        return await self._codes.change_or_add({"_id": code_id}, {"$inc": {"tries": 1}, "$setOnInsert": nothing})

    async def reset(self, digests: Sequence[str], now: datetime) -> Code | None:
        """The reset token that one of ``digests`` is of: it was kept under one of the server secrets."""
        return await self._codes.one({"digest": {"$in": list(digests)}, "kind": "reset", "expires_at": {"$gt": now}})

    async def of_user(self, user_id: str, limit: int) -> list[Code]:
        """Those that there are, void ones too, the one that ends last first."""
        return await self._codes.many({"user_id": user_id}, [("expires_at", -1)], limit)

    async def drop_all(self, user_id: str) -> int:
        return await self._codes.drop({"user_id": user_id})

    async def drop_kind(self, user_id: str, kind: CodeKind) -> int:
        return await self._codes.drop({"user_id": user_id, "kind": kind})

    async def drop_epochs_before(self, user_id: str, epoch: int) -> int:
        """Tidy up what a new epoch has ended already."""
        return await self._codes.drop({"user_id": user_id, "epoch": {"$lt": epoch}})
