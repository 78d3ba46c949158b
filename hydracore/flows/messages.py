"""What a mail says, decided when it is sent: for whom, with which code or token, or nothing at all."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from hydracore.addresses import deliverable
from hydracore.errors import MailRefused
from hydracore.flows import recovery, verification
from hydracore.flows.services import Services
from hydracore.mail import Prepared
from hydracore.models import Address, MailIntent, User

_NOTICE_LIFE = timedelta(days=1)


async def prepare(services: Services, intent: MailIntent) -> Prepared | None:
    """The message, or None where nobody is to get it: no account, or one that does not need it.

    It always goes to the address that the account has, never to what was typed.
    """
    if "." in intent.kind:
        raise MailRefused("it is too old: have the plugin send it anew")  # It was sealed from the start.
    user = await services.store.users.by_address(intent.address_key)
    if user is None or user.disabled:
        return None
    match intent.kind:
        case "verify_email":
            return None if user.email_verified else await _verify_email(services, intent, user)
        case "registration" if not user.email_verified:
            return await _verify_email(services, intent, user)
        case "registration":
            return _prepared(services, intent, user, "account_exists", {}, _NOTICE_LIFE)
        case "reset_password":
            # Who belongs to an authenticator has no password here, and must not come to one by mail.
            return None if user.authority else await _reset_password(services, intent, user)
        case "password_changed":
            # What was put in before a change that did not happen tells of nothing.
            happened = user.epoch > intent.after_epoch
            return _prepared(services, intent, user, "password_changed", {}, _NOTICE_LIFE) if happened else None
        case _:
            raise MailRefused(f"this version knows no {intent.kind}: another one put it in")


async def _verify_email(services: Services, intent: MailIntent, user: User) -> Prepared:
    digits, code = verification.new_code(services, user)
    await services.store.codes.put(code)
    minutes = int(verification.LIFE.total_seconds() // 60)
    return _prepared(
        services, intent, user, "verify_email", {"code": digits, "minutes": minutes}, verification.LIFE / 2
    )


async def _reset_password(services: Services, intent: MailIntent, user: User) -> Prepared:
    token, code = recovery.new_token(services, user)
    await services.store.codes.put(code)
    page = services.settings.mail.reset_url or f"{services.settings.base_url}/reset-password"
    # In the fragment, which browsers keep to themselves: no server's log and no Referer shows it.
    values = {
        "token": token,
        "link": f"{page}#token={token}",
        "minutes": int(recovery.LIFE.total_seconds() // 60),
    }
    return _prepared(services, intent, user, "reset_password", values, recovery.LIFE / 2)


def _prepared(
    services: Services, intent: MailIntent, user: User, template: str, values: Mapping[str, Any], life: timedelta
) -> Prepared:
    now = services.now()
    message_id = f"{intent.id}.{int(now.timestamp())}"
    to = deliverable(Address(user.email, user.address_key))
    values = {"email": user.email, **values}
    try:
        language = user.reads(intent.language)
        message = services.templates.compose(template, to, values, message_id, now, language)
    except ValueError as error:
        raise MailRefused("the message cannot be written: a header would not be valid") from error
    return Prepared(message, now + life)
