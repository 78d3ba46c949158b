"""Which events webhooks tell of, under which names, and what they say of each: ids, and no more than that needs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from hydracore import events
from hydracore.events import Event
from hydracore.models import Notice

TEST = "webhook.test"


@dataclass(frozen=True)
class Kind:
    """``fields`` of the event are told. What is ``durable`` is written in the same atomic step as what it tells of; the
    others are lost with the process that has not put them into the outbox yet."""

    name: str
    fields: tuple[str, ...] = ("user_id",)
    durable: bool = False


_SESSION = ("user_id", "session_id")
_ADDRESS = ("address_digest", "network")

KINDS: Mapping[type[Event], Kind] = MappingProxyType(
    {
        events.Registered: Kind("user.registered", durable=True),
        events.UserProvisioned: Kind("user.provisioned", durable=True),
        events.EmailVerified: Kind("user.email_verified", durable=True),
        events.PasswordChanged: Kind("user.password_changed", durable=True),
        events.PasswordReset: Kind("user.password_reset", durable=True),
        events.PasswordVoided: Kind("user.password_voided", durable=True),
        events.EmailChanged: Kind("user.email_changed", durable=True),
        events.EmailChangeUndone: Kind("user.email_change_undone", durable=True),
        events.DeletionRequested: Kind("user.deletion_requested", durable=True),
        events.DeletionUndone: Kind("user.deletion_undone", durable=True),
        events.UserDisabled: Kind("user.disabled", durable=True),
        events.UserEnabled: Kind("user.enabled", durable=True),
        events.UserDeleted: Kind("user.deleted", durable=True),
        events.SessionsRevoked: Kind("user.sessions_revoked", durable=True),
        events.RolesChanged: Kind("user.roles_changed", ("user_id", "added", "removed"), durable=True),
        events.EmailChangeRequested: Kind("user.email_change_requested"),
        events.LoginRefused: Kind("user.login_refused", ("user_id", "network")),
        events.LoggedIn: Kind("session.started", _SESSION),
        events.Refreshed: Kind("session.refreshed", _SESSION),
        events.RefreshReused: Kind("session.refresh_reused", (*_SESSION, "network")),
        events.LoggedOut: Kind("session.logged_out", _SESSION),
        events.OtherSessionsRevoked: Kind("session.others_revoked", (*_SESSION, "ended")),
        events.LoginFailed: Kind("login.failed", _ADDRESS),
        events.VerificationFailed: Kind("verification.failed", _ADDRESS),
        events.MailRequested: Kind("mail.requested", ("kind", *_ADDRESS)),
        events.MailSent: Kind("mail.sent", ("kind", "intent_id", "attempts")),
        # Without the transport's words, which may quote an address.
        events.MailDelayed: Kind("mail.delayed", ("kind", "intent_id", "attempts")),
        events.MailDead: Kind("mail.dead", ("kind", "intent_id")),
        events.Limited: Kind("limit.refused", ("rule", "retry_after", "network")),
        events.KeyRotated: Kind("key.rotated", ("kid",)),
    }
)


def notice_of(event: Event) -> Notice:
    """What is told of an event of one of :data:`KINDS`."""
    kind = KINDS[type(event)]
    return Notice(event.id, event.at, kind.name, {name: getattr(event, name) for name in kind.fields})


def body_of(notice: Notice) -> str:
    """The JSON that is sent."""
    members = {"type": notice.type, "timestamp": _written(notice.at), "data": dict(notice.data)}
    return json.dumps(members, separators=(",", ":"))


def _written(moment: datetime) -> str:
    # To the millisecond, as the database keeps it: whoever writes it, it says the same.
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
