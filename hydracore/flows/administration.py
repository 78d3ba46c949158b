"""What administrators do, by the Admin API or the command line: each on record, and by the flows that there are."""

import unicodedata
from collections.abc import Collection, Sequence
from datetime import datetime

from hydracore.addresses import parse_address
from hydracore.errors import NotFound
from hydracore.flows import account, registration, roles, signing_keys, webhooks
from hydracore.flows.audit import Admin
from hydracore.flows.paging import page_of, place_of
from hydracore.models import (
    Delivery,
    DeliveryState,
    KeyState,
    MailIntent,
    MailState,
    Page,
    Session,
    SigningKey,
    User,
)
from hydracore.webhooks.posting import Answer

_MOST_SESSIONS = 1000


# -- accounts ----------------------------------------------------------------------------------------


async def search_users(admin: Admin, *, email: str = "", cursor: str = "", limit: int) -> Page[User]:
    """Accounts whose address begins with ``email``, in the order of their addresses."""
    services, prefix = admin.services, _prefix(email)
    what = f"users:{prefix}"
    [after] = place_of(services, what, cursor) or [""]
    await admin.saw("users.search", email=email)
    found = await services.store.users.search(prefix, after, limit + 1)
    return page_of(services, what, found, limit, lambda user: (user.address_key,))


async def list_users(admin: Admin, after: User | None, limit: int, role: str = "") -> list[User]:
    """Oldest first; ``after`` is the last one of the page before. With a ``role`` those that were given it."""
    await admin.saw("users.list", role=role)
    return await admin.services.store.users.page(after, limit, role)


async def show_user(admin: Admin, user_id: str) -> User:
    """Raises :class:`NotFound`, as all that follow."""
    return await _seen(admin, "users.show", user_id)


async def create_user(
    admin: Admin, email: str, password: str | None, *, verified: bool = False, language: str = ""
) -> User:
    """Raises what :func:`hydracore.flows.registration.create_user` does."""
    user_id = admin.services.token(16)
    async with admin.doing("users.create", user_id, verified=verified):
        return await registration.create_user(
            admin.services, email, password, verified=verified, language=language, user_id=user_id
        )


async def disable_user(admin: Admin, user_id: str) -> User:
    """Close the account: no sign-in, and all sessions end."""
    async with admin.doing("users.disable", user_id):
        await account.disable_user(admin.services, await _user(admin, user_id))
        return await _user(admin, user_id)


async def enable_user(admin: Admin, user_id: str) -> User:
    """Open it again; sessions that ended stay ended."""
    async with admin.doing("users.enable", user_id):
        await account.enable_user(admin.services, await _user(admin, user_id))
        return await _user(admin, user_id)


async def delete_user(admin: Admin, user_id: str) -> None:
    """Delete the account with its sessions and codes."""
    async with admin.doing("users.delete", user_id):
        await account.delete_user(admin.services, await _user(admin, user_id))


async def force_reset(admin: Admin, user_id: str) -> User:
    """Void the password and end all sessions; a mail says how to set a new one."""
    async with admin.doing("users.force_reset", user_id):
        await account.force_reset(admin.services, await _user(admin, user_id))
        return await _user(admin, user_id)


async def mark_verified(admin: Admin, user_id: str) -> User:
    """Take the address for the owner's."""
    async with admin.doing("users.mark_verified", user_id):
        await account.vouch_for(admin.services, await _user(admin, user_id))
        return await _user(admin, user_id)


async def set_language(admin: Admin, user_id: str, language: str) -> None:
    async with admin.doing("users.language", user_id, language=language):
        await account.set_language(admin.services, await _user(admin, user_id), language)


async def change_roles(admin: Admin, user_id: str, *, add: Collection[str] = (), remove: Collection[str] = ()) -> User:
    """Give roles and take some, in one step. Raises what :func:`hydracore.flows.roles.change_roles` does."""
    async with admin.doing("users.roles", user_id, add=list(add), remove=list(remove)):
        return await roles.change_roles(admin.services, user_id, add=add, remove=remove)


# -- sessions ----------------------------------------------------------------------------------------


async def list_sessions(admin: Admin, user_id: str) -> list[Session]:
    """The live ones of an account, the latest used first; so many at most, which nobody comes to."""
    user, now = await _seen(admin, "sessions.list", user_id), admin.services.now()
    return await admin.services.store.sessions.of_user(user.id, user.epoch, now, _MOST_SESSIONS)


async def end_sessions(admin: Admin, user_id: str) -> None:
    """End every session, and every code and token that was mailed."""
    async with admin.doing("sessions.end_all", user_id):
        await account.revoke_sessions(admin.services, await _user(admin, user_id))


async def end_session(admin: Admin, user_id: str, session_id: str) -> None:
    async with admin.doing("sessions.end", user_id, session=session_id):
        await account.end_session_of(admin.services, await _user(admin, user_id), session_id)


# -- mail --------------------------------------------------------------------------------------------


async def list_mail(admin: Admin, *, state: MailState | None = None, cursor: str = "", limit: int) -> Page[MailIntent]:
    """What waits or was given up, in no order that tells anything."""
    services, what = admin.services, f"mail:{state or ''}"
    [after] = place_of(services, what, cursor) or [""]
    await admin.saw("mail.list")
    dead = None if state is None else state == "dead"
    found = await services.store.outbox.page(dead, after, limit + 1)
    return page_of(services, what, found, limit, lambda intent: (intent.id,))


async def mail_at_hand(admin: Admin, limit: int) -> list[MailIntent]:
    """Dead letters first, then what waits, the most pressing first."""
    await admin.saw("mail.list")
    return await admin.services.store.outbox.list(limit)


async def retry_mail(admin: Admin, intent_id: str) -> None:
    """Make a dead letter due now. Raises :class:`NotFound`."""
    async with admin.doing("mail.retry", mail=intent_id):
        if not await admin.services.store.outbox.revive(intent_id, admin.services.now()):
            raise NotFound("No dead letter has this id.")
    admin.services.wake_mail()


async def retry_dead_mail(admin: Admin) -> int:
    """Make all dead letters due now; how many they were."""
    async with admin.doing("mail.retry_dead") as told:
        told["retried"] = revived = await admin.services.store.outbox.revive(None, admin.services.now())
    admin.services.wake_mail()
    return revived


async def drop_mail(admin: Admin, intent_id: str) -> None:
    """Raises :class:`NotFound` where there is none, or it is being sent."""
    async with admin.doing("mail.drop", mail=intent_id):
        if not await admin.services.store.outbox.drop(intent_id):
            raise NotFound("No mail has this id, or it is being sent.")


# -- webhooks ----------------------------------------------------------------------------------------


async def list_deliveries(
    admin: Admin, *, webhook: str = "", state: DeliveryState | None = None, cursor: str = "", limit: int
) -> Page[Delivery]:
    """Events for webhooks, or for one, in no order that tells anything."""
    services, what = admin.services, f"webhooks:{webhook}:{state or ''}"
    [after] = place_of(services, what, cursor) or [""]
    await admin.saw("webhooks.list", webhook=webhook)
    found = await services.store.deliveries.page(state, webhook, after, limit + 1)
    return page_of(services, what, found, limit, lambda delivery: (delivery.id,))


async def deliveries_at_hand(
    admin: Admin, limit: int, *, webhook: str = "", states: Sequence[DeliveryState] = webhooks.UNDELIVERED
) -> list[Delivery]:
    """Dead ones first. Raises :class:`NotFound` for a name that no webhook has, as all that follow."""
    await admin.saw("webhooks.list", webhook=webhook)
    return await webhooks.list_deliveries(admin.services, limit, endpoint=webhook, states=states)


async def retry_delivery(admin: Admin, delivery_id: str) -> None:
    """Make an event due now: a dead one, one that waits, or one that was delivered. Raises :class:`NotFound`."""
    async with admin.doing("webhooks.retry", delivery=delivery_id):
        if not await webhooks.send_again(admin.services, delivery_id):
            raise NotFound("No event that nobody is sending has this id.")
    admin.services.wake_webhooks()


async def retry_deliveries(
    admin: Admin, *, webhook: str = "", since: datetime | None = None, states: Sequence[DeliveryState]
) -> int:
    """Make all in these states due now, of every webhook for "", put in ``since`` then; how many they were."""
    return await _again(admin, "webhooks.retry_all", webhook, since, states)


async def replay_webhook(admin: Admin, webhook: str, *, since: datetime | None = None) -> int:
    """Make all due now that was delivered to a webhook, and is still kept; how many they were."""
    return await _again(admin, "webhooks.replay", webhook, since, ("delivered",))


async def try_webhook(admin: Admin, webhook: str) -> Answer:
    """Raises what :func:`hydracore.flows.webhooks.send_test` does."""
    await admin.saw("webhooks.send_test", webhook=webhook)
    return await webhooks.send_test(admin.services, webhook)


async def _again(
    admin: Admin, action: str, webhook: str, since: datetime | None, states: Sequence[DeliveryState]
) -> int:
    begins = since.isoformat() if since else ""
    async with admin.doing(action, webhook=webhook, states=list(states), since=begins) as told:
        told["retried"] = retried = await webhooks.send_all_again(
            admin.services, endpoint=webhook, since=since, states=states
        )
    admin.services.wake_webhooks()
    return retried


# -- signing keys ------------------------------------------------------------------------------------


async def list_keys(admin: Admin) -> list[tuple[SigningKey, KeyState]]:
    """Published keys with their stages, oldest first."""
    await admin.saw("keys.list")
    return admin.services.keys.states()


async def rotate_keys(admin: Admin, *, emergency: bool) -> SigningKey:
    async with admin.doing("keys.rotate", emergency=emergency) as told:
        key = await signing_keys.rotate_keys(admin.services, emergency=emergency)
        told["kid"] = key.kid
    return key


async def _user(admin: Admin, user_id: str) -> User:
    return _there(await admin.services.store.users.by_id(user_id))


async def _seen(admin: Admin, action: str, user_id: str) -> User:
    user = await admin.services.store.users.by_id(user_id)
    await admin.saw(action, user_id, outcome="done" if user else NotFound.code)
    return _there(user)


def _there(user: User | None) -> User:
    if user is None:
        raise NotFound("No account has this id.")
    return user


def _prefix(email: str) -> str:
    """What the keys of such addresses begin with: a whole address has its domain in ASCII there."""
    try:
        return parse_address(email).key
    except ValueError:
        return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", email).casefold())
