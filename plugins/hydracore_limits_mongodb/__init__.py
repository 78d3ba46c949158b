"""Counts attempts in the database, so that limits hold across workers and nodes. No configuration.

One atomic operation a hit, two for the first of a window. A window's end is part of every query, so a
counter that the TTL index has not deleted yet is never taken for a live one. Windows are the nodes' own time: each hit
draws in an end that is more than a window ahead, as it is where the clock was set back, or is behind another node's.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from hydracore.plugin import Collection, Context, Count, Index, LimitBackend, hookimpl

Document = dict[str, Any]

_MOST_AT_ONCE = 16


class LimitsMongodb:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._now: Callable[[], datetime] = context.now
        # The driver's own queue is no place to wait: what comes out of it after an outage is late already.
        self._turns = asyncio.Semaphore(_MOST_AT_ONCE)

    @hookimpl
    def hydracore_register_collections(self) -> list[Collection]:
        # A minute later than it could: nodes' clocks differ, and a live counter must not be deleted.
        return [Collection("counters", [Index([("ends", 1)], expire_after=60)], durable=False)]

    @hookimpl
    def hydracore_register_limit_backends(self) -> list[LimitBackend]:
        return [LimitBackend("mongodb", self.hit)]

    async def hit(self, key: str, window: int, cost: int) -> Count:
        now = self._now()
        if cost < 0:
            # Nothing is made where the window has passed, and nothing goes below zero.
            found = await self._change({**_live(key, now), "hits": {"$gte": -cost}}, _hit(now, window, cost))
            return _count(found, now) if found else Count(0, 0)
        while True:
            if found := await self._change(_live(key, now), _hit(now, window, cost)):
                return _count(found, now)
            starts = {"$set": {"hits": cost, "ends": now + timedelta(seconds=window)}}
            try:
                # The one whose window is over, or a new one.
                found = await self._change({"_id": key, "ends": {"$lte": now}}, starts, upsert=True)
            except DuplicateKeyError:
                continue  # Another hit started the window a moment ago: count on that.
            return _count(found, now)

    async def _change(self, query: Document, update: Document, *, upsert: bool = False) -> Document:
        # Who waits for it may give up; it does not, for PyMongo on Python 3.11 does not bear to be cancelled.
        counting = asyncio.ensure_future(self._counted(query, update, upsert))
        counting.add_done_callback(_seen)
        return await asyncio.shield(counting)

    async def _counted(self, query: Document, update: Document, upsert: bool) -> Document:
        async with self._turns:
            found = await self._context.collection("counters").find_one_and_update(
                query, update, upsert=upsert, return_document=ReturnDocument.AFTER
            )
        return dict(found or {})


def _live(key: str, now: datetime) -> Document:
    return {"_id": key, "ends": {"$gt": now}}


def _hit(now: datetime, window: int, cost: int) -> Document:
    return {"$inc": {"hits": cost}, "$min": {"ends": now + timedelta(seconds=window)}}


def _count(found: Document, now: datetime) -> Count:
    return Count(found["hits"], (found["ends"] - now).total_seconds())


def _seen(counting: "asyncio.Future[Document]") -> None:
    """Nobody may be left to see how it failed: asyncio would complain."""
    if not counting.cancelled():
        counting.exception()
