"""The database of one HydraCore."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from pymongo import ReadPreference, WriteConcern

from hydracore.errors import StartupError, StoreUnavailable
from hydracore.meters import UNMEASURED, Meters
from hydracore.recent import RecentSessions
from hydracore.records import Collection
from hydracore.store import indexes
from hydracore.store.admin import AdminTokens, Audit
from hydracore.store.codes import Codes
from hydracore.store.deliveries import Deliveries
from hydracore.store.documents import Source, answer, reason
from hydracore.store.drivers import SIMPLE, connect
from hydracore.store.keys import SigningKeys
from hydracore.store.outbox import Outbox
from hydracore.store.refusals import Refusals
from hydracore.store.secrets_in_use import SecretsSeen
from hydracore.store.sessions import Sessions
from hydracore.store.turns import Turns
from hydracore.store.users import Users

# What a client is told is on disk, on most members.
_DURABLE = WriteConcern("majority", j=True)
_FAST = WriteConcern(1)
_EVER = datetime.fromtimestamp(0, UTC)
_NO_SUCH_STAGE = 40324


class Store:
    """Opened inside an event loop, after any fork, and closed in the same one."""

    users: Users
    sessions: Sessions
    codes: Codes
    outbox: Outbox
    deliveries: Deliveries
    keys: SigningKeys
    refusals: Refusals
    secrets: SecretsSeen
    admin_tokens: AdminTokens
    audit: Audit

    def __init__(
        self,
        *,
        driver: str,
        database: str,
        timeout: int,
        operations: int = 16,
        cache_ttl: int = 0,
        collections: Sequence[Collection] = (),
        meters: Meters = UNMEASURED,
    ) -> None:
        for collection in collections:
            if collection.name in {own.name for own in indexes.OWN}:
                raise StartupError(
                    f"A plugin registers a collection named {collection.name}, which is HydraCore's own."
                )
        self._driver = driver
        self._name = database
        self._timeout = timeout
        self._operations = operations
        self._recent = RecentSessions(cache_ttl)
        self._meters = meters
        self._collections = {collection.name: collection for collection in (*indexes.OWN, *collections)}
        self._database: Any = None
        self._close: Callable[[], Awaitable[None]] | None = None

    def open(self, uri: str) -> None:
        """Make the client; nothing is asked of the server yet."""
        client, self._close = connect(self._driver, uri, self._timeout)
        self._database = client[self._name]
        self._turns = reads, writes = Turns(self._operations, self._timeout), Turns(self._operations, self._timeout)

        def source(name: str) -> Source:
            return Source(self.collection(name), reads, writes, self._meters, simple=self._driver in SIMPLE)

        self.users = Users(source("users"), self._recent)
        self.sessions = Sessions(source("sessions"), source("users"), self._recent)
        self.codes = Codes(source("codes"))
        self.outbox = Outbox(source("outbox"))
        self.deliveries = Deliveries(source("deliveries"))
        self.keys = SigningKeys(source("keys"))
        self.refusals = Refusals(source("refusals"))
        self.secrets = SecretsSeen(source("secrets"))
        self.admin_tokens = AdminTokens(source("admin_tokens"))
        self.audit = Audit(source("audit"))

    def collection(self, name: str) -> Any:
        """The driver's collection that was declared under that name. Raises ``LookupError``."""
        if self._database is None:
            raise StoreUnavailable
        if name not in self._collections:
            raise LookupError(f"nobody registered a collection named {name}")
        concern = _DURABLE if self._collections[name].durable else _FAST
        # Whatever store.uri says: what was just written is looked up, and what has ended has ended.
        return self._database.get_collection(name, write_concern=concern, read_preference=ReadPreference.PRIMARY)

    async def ensure(self) -> None:
        """Have every index, and a server that knows what is asked of it. Raises :class:`StoreUnavailable`, and
        :class:`StartupError` for what an operator has to put right."""
        await indexes.ensure(self._database, list(self._collections.values()))
        try:
            await self.sessions.live_with_user("", "", _EVER)
        except StoreUnavailable as error:
            if getattr(error.__cause__, "code", None) != _NO_SUCH_STAGE:
                raise
            raise StartupError("The database knows no $unionWith: HydraCore needs MongoDB 4.4 or newer.") from error

    async def not_ready(self) -> str:
        """Why the store cannot serve, in words for an operator; "" when it can."""
        if self._database is None:
            return "the database is not open"
        try:
            async with asyncio.timeout(self._timeout):
                await answer(self._database.command("ping"))
                absent = await indexes.missing(self._database, list(self._collections.values()))
        except StoreUnavailable as error:
            return reason(error)
        except TimeoutError:
            return "the database does not answer"
        return f"indexes are missing: {', '.join(absent)}" if absent else ""

    async def drop(self) -> None:
        """Delete the whole database: what tests made."""
        await answer(self._database.client.drop_database(self._name))

    async def close(self) -> None:
        """What is under way ends first: whom the driver's end meets waits for ever."""
        if self._close is not None:
            await asyncio.gather(*(turns.finish(self._timeout) for turns in self._turns))
            await self._close()
            self._close, self._database = None, None
