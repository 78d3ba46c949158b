"""Counts attempts in the database, so that limits hold across workers and nodes. No configuration.

One atomic operation a hit, three for one that finds a window over. A window's end is part of every query, so a
counter that the TTL index has not deleted yet is never taken for a live one. Windows are the nodes' own time: each hit
draws in an end that is more than a window ahead, as it is where the clock was set back, or is behind another node's.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from hydracore.plugin import Collection, Context, Count, Index, LimitBackend, hookimpl

Document = dict[str, Any]
T = TypeVar("T")

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
        return [LimitBackend("mongodb", self.hit, give_back=self.give_back)]

    async def hit(self, key: str, window: int, cost: int) -> Count:
        now = self._now()
        if cost < 0:
            # Nothing is made where the window has passed, and nothing goes below zero.
            found = await self._change({**_live(key, now), "hits": {"$gte": -cost}}, _hit(now, window, cost))
            return _count(found, now) if found else Count(0, 0)
        starts = {"$set": {"hits": cost, "ends": now + timedelta(seconds=window)}}
        while True:
            try:
                # The window that runs, or the key's first.
                return _count(await self._change(_live(key, now), _hit(now, window, cost), upsert=True), now)
            except DuplicateKeyError:
                # One is there that is over, unless another hit started it anew a moment ago: count on that.
                if found := await self._change({"_id": key, "ends": {"$lte": now}}, starts):
                    return _count(found, now)

    async def give_back(self, keys: Sequence[str]) -> None:
        query = {"_id": {"$in": list(keys)}, "ends": {"$gt": self._now()}, "hits": {"$gte": 1}}
        await self._settled(self._counters.update_many, query, {"$inc": {"hits": -1}})

    async def _change(self, query: Document, update: Document, *, upsert: bool = False) -> Document:
        change = partial(self._counters.find_one_and_update, upsert=upsert, return_document=ReturnDocument.AFTER)
        return dict(await self._settled(change, query, update) or {})

    async def _settled(self, ask: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        # Who waits for it may give up; it does not, for PyMongo on Python 3.11 does not bear to be cancelled.
        settling = asyncio.ensure_future(self._in_turn(ask, *arguments))
        settling.add_done_callback(_seen)
        return await asyncio.shield(settling)

    async def _in_turn(self, ask: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        async with self._turns:
            return await ask(*arguments)

    @property
    def _counters(self) -> Any:
        return self._context.collection("counters")


def _live(key: str, now: datetime) -> Document:
    return {"_id": key, "ends": {"$gt": now}}


def _hit(now: datetime, window: int, cost: int) -> Document:
    return {"$inc": {"hits": cost}, "$min": {"ends": now + timedelta(seconds=window)}}


def _count(found: Document, now: datetime) -> Count:
    return Count(found["hits"], (found["ends"] - now).total_seconds())


def _seen(settling: "asyncio.Future[Any]") -> None:
    """Nobody may be left to see how it failed: asyncio would complain."""
    if not settling.cancelled():
        settling.exception()
