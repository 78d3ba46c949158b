"""What a mail says, decided when it is sent: for whom, with which code or token, or nothing at all."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from hydracore.addresses import deliverable, parse_address
from hydracore.errors import MailRefused
from hydracore.flows import address, closing, recovery, verification
from hydracore.flows.services import Services
from hydracore.mail import Prepared
from hydracore.models import Address, Former, MailIntent, User

_NOTICE_LIFE = timedelta(days=1)


async def prepare(services: Services, intent: MailIntent) -> Prepared | None:
    """The message, or None where nobody is to get it: no account, or one that does not need it.

    It always goes to an address that an account has or had, never to what was typed, but for the code that proves a new
    one.
    """
    if "." in intent.kind:
        raise MailRefused("it is too old: have the plugin send it anew")  # It was sealed from the start.
    if intent.user_id:
        return await _of_account(services, intent, await services.store.users.by_id(intent.user_id))
    user = await services.store.users.by_address(intent.address_key)
    if user is None or user.disabled:
        return await _kept(services, intent) if user is None and intent.kind == "registration" else None
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


async def _of_account(services: Services, intent: MailIntent, user: User | None) -> Prepared | None:
    """What goes to an account, whatever its address is by now, or to another address than an open account has."""
    match intent.kind:
        case "account_closed":
            return _account_closed(services, intent, user)
        case _ if user is None:
            return None
        case "reset_password":
            # An operator's word: to the address that the account has by now.
            return None if user.disabled or user.authority else await _reset_password(services, intent, user)
        case "change_email":
            asked = user.epoch == intent.after_epoch and not user.disabled
            return await _change_email(services, intent, user) if asked else None
        case "email_changed":
            formers = user.formers(services.now())
            former = next((former for former in formers if former.nonce == intent.nonce), None)
            return None if former is None else _email_changed(services, intent, user, former)
        case _:
            raise MailRefused(f"this version knows no {intent.kind}: another one put it in")


async def _change_email(services: Services, intent: MailIntent, user: User) -> Prepared | None:
    wanted = parse_address(intent.email)
    holder = await services.store.users.holding(wanted.key)
    if holder is not None and holder.id != user.id:
        return _taken(services, intent, holder, wanted.key)
    digits, code = address.new_code(services, user, wanted)
    await services.store.codes.put(code)
    values = {"code": digits, "minutes": int(address.LIFE.total_seconds() // 60)}
    return _letter(services, intent, user, wanted, "change_email", values, address.LIFE / 2)


async def _kept(services: Services, intent: MailIntent) -> Prepared | None:
    """For who tried to register with an address that is kept for the account that had it."""
    holder = await services.store.users.holding(intent.address_key)
    return None if holder is None else _taken(services, intent, holder, intent.address_key)


def _taken(services: Services, intent: MailIntent, holder: User, address_key: str) -> Prepared | None:
    if holder.disabled:
        return None
    formers = [Address(former.email, former.key) for former in holder.formers(services.now())]
    theirs = [Address(holder.email, holder.address_key), *formers]
    to = next((each for each in theirs if each.key == address_key), None)
    return None if to is None else _letter(services, intent, holder, to, "address_taken", {}, _NOTICE_LIFE)


def _email_changed(services: Services, intent: MailIntent, user: User, former: Former) -> Prepared:
    page = services.settings.mail.undo_email_url or f"{services.settings.base_url}/undo-email-change"
    token = address.undo_token(services, user, former)
    values = {"token": token, "link": f"{page}#token={token}", "until": _said(former.expires_at)}
    return _letter(services, intent, user, Address(former.email, former.key), "email_changed", values, _NOTICE_LIFE)


def _account_closed(services: Services, intent: MailIntent, user: User | None) -> Prepared | None:
    to = parse_address(intent.email)
    if user is not None and (user.closed is None or user.closed.nonce != intent.nonce):
        return None
    if user is None or user.closed is None or user.closed.ends_at <= services.now():
        # Gone for good, or as good as: there is nothing to undo.
        nothing = {"token": "", "link": "", "until": ""}
        return _letter(services, intent, user, to, "account_closed", nothing, _NOTICE_LIFE)
    page = services.settings.mail.undo_deletion_url or f"{services.settings.base_url}/undo-deletion"
    token = closing.undo_token(services, user, user.closed)
    values = {"token": token, "link": f"{page}#token={token}", "until": _said(user.closed.ends_at)}
    return _letter(services, intent, user, to, "account_closed", values, _NOTICE_LIFE)


def _said(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _prepared(
    services: Services, intent: MailIntent, user: User, template: str, values: Mapping[str, Any], life: timedelta
) -> Prepared:
    return _letter(services, intent, user, Address(user.email, user.address_key), template, values, life)


def _letter(
    services: Services,
    intent: MailIntent,
    reader: User | None,
    to: Address,
    template: str,
    values: Mapping[str, Any],
    life: timedelta,
) -> Prepared:
    """``reader`` is whose account it is about; None where that is gone."""
    now = services.now()
    message_id = f"{intent.id}.{int(now.timestamp())}"
    values = {"email": to.email, **values}
    language = intent.language if reader is None else reader.reads(intent.language)
    try:
        message = services.templates.compose(template, deliverable(to), values, message_id, now, language)
    except ValueError as error:
        raise MailRefused("the message cannot be written: a header would not be valid") from error
    return Prepared(message, now + life)
