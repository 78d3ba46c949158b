"""Keeps what happens in the database: who signed in from where, what was refused, which mail went out.

::

    [plugins]
    enabled = ["audit_log"]

    [plugins.audit_log]
    retention_days = 90
    events = ["LoggedIn", "LoginFailed", "RefreshReused"]

One document an event in ``audit_log.events``: its fields, its name, and when it goes. Without ``events`` all are kept;
``UserEvent`` and ``SessionEvent`` stand for everything that happens to an account or a session. A changed
``retention_days`` counts for what happens from then on. No event holds a secret or an address, but networks and
accounts' ids are personal data: keep them no longer than you may.

``hydracore audit list`` shows them. While the database is away up to 10,000 events wait in each process, in order, and
are lost if it ends; one that is written twice is kept once.
"""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from pymongo.errors import BulkWriteError

from hydracore.plugin import Collection, Command, Context, EventListener, Index, events, hookimpl
from hydracore_audit_log.listing import audit
from hydracore_audit_log.names import configured

Document = dict[str, Any]

_DUPLICATE = 11000


class AuditLog:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._kept_for = timedelta(days=context.config["retention_days"])
        self._of = configured(context.config["events"])

    @hookimpl
    def hydracore_register_collections(self) -> list[Collection]:
        # When a document goes is written in it: another retention needs no other index.
        by_end = Index([("expires_at", 1)], expire_after=0)
        return [Collection("events", [by_end, Index([("user_id", 1), ("at", 1)]), Index([("at", 1)])])]

    @hookimpl
    def hydracore_register_event_listeners(self) -> list[EventListener]:
        return [EventListener("audit_log", self.listen, of=self._of)]

    @hookimpl
    def hydracore_register_commands(self) -> list[Command]:
        return [Command("audit", audit(self._context))]

    async def listen(self, batch: Sequence[events.Event]) -> None:
        """Keep the events. Raises whatever the driver does, but for those that are there already."""
        documents = [self._document(event) for event in batch]
        try:
            # Unordered: one that is there from an earlier try does not hold up the rest.
            await self._context.collection("events").insert_many(documents, ordered=False)
        except BulkWriteError as error:
            if not _only_repeated(error.details or {}):
                raise

    def _document(self, event: events.Event) -> Document:
        fields = {name: _storable(value) for name, value in asdict(event).items() if name != "id"}
        kept = {"_id": event.id, "event": type(event).__name__, "expires_at": event.at + self._kept_for}
        return fields | kept


def _only_repeated(details: Any) -> bool:
    # Without the concern's word nobody knows how many members have it.
    refused = details.get("writeErrors", ())
    return not details.get("writeConcernErrors") and all(one.get("code") == _DUPLICATE for one in refused)


def _storable(value: Any) -> Any:
    # A lone surrogate, of a stranger's error text, is no UTF-8: one such event would hold up all after it.
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
