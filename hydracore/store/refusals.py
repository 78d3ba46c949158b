"""Refusals, for a while."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from hydracore.models import Refusal
from hydracore.store.documents import Documents, Source

_MOST = 100


class Refusals:
    def __init__(self, source: Source) -> None:
        self._refusals: Documents[Refusal] = Documents(source, Refusal)

    async def add(self, refusals: Sequence[Refusal], expires_at: datetime) -> None:
        await self._refusals.add_all([replace(refusal, expires_at=expires_at) for refusal in refusals])

    async def of_request(self, request_id: str, now: datetime) -> list[Refusal]:
        """The latest first: a proxy in front may have used a request id twice."""
        return await self._refusals.many({"request_id": request_id, "expires_at": {"$gt": now}}, [("at", -1)], _MOST)
