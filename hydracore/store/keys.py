"""Signing keys. The unique sequence number makes two nodes that rotate at once make one key."""

from datetime import datetime

from hydracore.models import SigningKey
from hydracore.store.documents import Documents, Source

_MOST_KEYS = 1000


class SigningKeys:
    def __init__(self, source: Source) -> None:
        self._keys: Documents[SigningKey] = Documents(source, SigningKey, key="kid")

    async def all(self) -> list[SigningKey]:
        return await self._keys.many({}, [("sequence", 1)], _MOST_KEYS)

    async def add(self, key: SigningKey) -> bool:
        return await self._keys.add(key)

    async def reseal(self, key: SigningKey, sealed: bytes) -> bool:
        """Replace the seal, unless somebody else was first."""
        mine = {"_id": key.kid, "sealed_private": key.sealed_private}
        return await self._keys.change(mine, {"$set": {"sealed_private": sealed}}) is not None

    async def retire(self, before: int, expires_at: datetime) -> None:
        await self._keys.change_all(
            {"sequence": {"$lt": before}, "expires_at": None}, {"$set": {"expires_at": expires_at}}
        )

    async def cut_short(self, before: int, expires_at: datetime) -> None:
        later = {"$or": [{"expires_at": None}, {"expires_at": {"$gt": expires_at}}]}
        await self._keys.change_all({"sequence": {"$lt": before}, **later}, {"$set": {"expires_at": expires_at}})

    async def purge(self, now: datetime) -> None:
        await self._keys.drop({"expires_at": {"$lte": now}})
