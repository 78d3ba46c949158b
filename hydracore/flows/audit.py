"""Administering, on record: what is done is written down before it is done, and how it ended before that is told.

Where it cannot be written down it is not done. One that ends half-way stays ``begun``: nobody knows how far it came.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from hydracore.errors import HydraError, StoreUnavailable, Unavailable
from hydracore.flows.paging import moment_of, page_of, place_of
from hydracore.flows.services import Services
from hydracore.models import Actor, AuditEntry, Page
from hydracore.store.admin import BEGUN


@dataclass(frozen=True)
class Admin:
    """Whoever administers."""

    services: Services
    actor: Actor

    @asynccontextmanager
    async def doing(self, action: str, user_id: str = "", **details: Any) -> AsyncIterator[dict[str, Any]]:
        """A scope in which something is changed. What is put into its dictionary is added to the details."""
        entry_id = await self._write(action, user_id, details, BEGUN)
        told: dict[str, Any] = {}
        try:
            yield told
        except Unavailable:
            raise  # It may have been done, and may not.
        except HydraError as error:
            await self.services.store.audit.conclude(entry_id, error.code, told)
            raise
        await self.services.store.audit.conclude(entry_id, "done", told)

    async def saw(self, action: str, user_id: str = "", *, outcome: str = "done", **details: Any) -> None:
        """Something is shown, or was refused before it began."""
        await self._write(action, user_id, details, outcome)

    async def _write(self, action: str, user_id: str, details: dict[str, Any], outcome: str) -> str:
        services, now = self.services, self.services.now()
        kept_for = timedelta(days=services.settings.admin.retention_days)
        actor = asdict(self.actor)
        entry = AuditEntry(services.token(12), now, action, actor, user_id, details, outcome, now + kept_for)
        if not await services.store.audit.add(entry):
            raise StoreUnavailable
        return entry.id


async def list_audit(admin: Admin, *, user_id: str = "", cursor: str = "", limit: int) -> Page[AuditEntry]:
    """What administrators did, on one account where there is an id; the latest first. Looking is one more entry."""
    services, what = admin.services, f"audit:{user_id}"
    after = moment_of(place_of(services, what, cursor))
    found = await services.store.audit.page(user_id, after, services.now(), limit + 1)
    await admin.saw("audit.list", user_id)
    return page_of(services, what, found, limit, lambda entry: (entry.at.isoformat(), entry.id))
