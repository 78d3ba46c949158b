"""Everything that is held about an account, for its owner. No secret, no hash of one, and nothing that proves one."""

from datetime import datetime
from typing import Any

from hydracore.flows.services import Services
from hydracore.flows.session import own_account
from hydracore.models import Code, CurrentUser, Former, MailIntent

_MOST = 1000
_GIVEN_UP = "given up"


async def export_account(services: Services, caller: CurrentUser) -> dict[str, Any]:
    """As JSON. Of each kind so many at most, which nobody comes to."""
    user, now = await own_account(services, caller), services.now()
    sessions = await services.store.sessions.of_user(user.id, user.epoch, now, _MOST)
    mails = await services.store.outbox.of_address(user.address_key, _MOST)
    deliveries = await services.store.deliveries.of_user(user.id, _MOST)
    codes = await services.store.codes.of_user(user.id, _MOST)
    return {
        "exported_at": now.isoformat(),
        "account": {
            "id": user.id,
            "email": user.email,
            "email_verified": user.email_verified,
            "created_at": user.created_at.isoformat(),
            "authenticator": user.authority or "password",
            "language": user.language,
            "roles": list(user.roles),
        },
        "profile": dict(user.profile),
        "former_addresses": [_former(former) for former in user.formers(now)],
        "sessions": [session.public(caller.session_id) for session in sessions],
        "networks": list(user.networks),
        "mails": [_mail(intent) for intent in mails],
        "told": [_told(notice.type, "waiting", notice.at) for notice in user.notices]
        + [_told(delivery.type, delivery.state, delivery.created_at) for delivery in deliveries],
        "codes": [_code(code) for code in codes],
    }


def _former(former: Former) -> dict[str, Any]:
    return {"email": former.email, "kept_until": former.expires_at.isoformat()}


def _mail(intent: MailIntent) -> dict[str, Any]:
    state = _GIVEN_UP if intent.dead else "waiting"
    due = intent.due_at.isoformat() if intent.due_at else None
    return {"kind": intent.kind, "state": state, "created_at": intent.created_at.isoformat(), "due_at": due}


def _told(kind: str, state: str, at: datetime) -> dict[str, Any]:
    return {"type": kind, "state": _GIVEN_UP if state == "dead" else state, "created_at": at.isoformat()}


def _code(code: Code) -> dict[str, Any]:
    held = {"kind": code.kind, "ends_at": code.expires_at.isoformat(), "tries": code.tries}
    return {**held, "email": code.email} if code.email else held
