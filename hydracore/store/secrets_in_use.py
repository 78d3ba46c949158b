"""Which server secrets the nodes know: a document for each set of them, so a few in all."""

from hydracore.models import SecretsInUse
from hydracore.store.documents import Documents, Source

_MOST = 1000


class SecretsSeen:
    def __init__(self, source: Source) -> None:
        self._seen: Documents[SecretsInUse] = Documents(source, SecretsInUse)

    async def put(self, seen: SecretsInUse) -> None:
        """Say it, in place of what was said before of the same set."""
        await self._seen.put(seen)

    async def all(self) -> list[SecretsInUse]:
        """The latest first."""
        return await self._seen.many({}, [("seen_at", -1)], _MOST)
