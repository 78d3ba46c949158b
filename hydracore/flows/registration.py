"""A new account."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from hydracore.addresses import parse_address
from hydracore.errors import EmailTaken
from hydracore.events import Registered
from hydracore.flows.networks import network_digest
from hydracore.flows.passwords import judge_new_password
from hydracore.flows.services import Services
from hydracore.flows.session import open_session, plan_session
from hydracore.limits import Spend
from hydracore.models import Address, Grant, MailKind, User


async def register(
    services: Services,
    email: str,
    password: str,
    network: str,
    *,
    profile: Mapping[str, Any],
    language: str = "",
    device: str = "",
) -> Grant | None:
    """Create the account, have a code mailed, and sign in.

    With ``registration.reveal_existing`` off it returns None for new and existing addresses
    alike, with the same work, and the owner of an existing one gets a mail instead.
    ``profile`` is what the plugins' members were sent. Raises :class:`EmailTaken`, :class:`ValidationFailed` for a
    refused password, what a plugin refuses with, and :class:`TooManyRequests`.
    """
    address = parse_address(email)
    with services.passwords.room():
        pass  # Where there is no room for the hash, nothing is asked in vain. None is kept: plugins may be slow.
    async with services.limiter.counted(network, Spend("register_network", (network,))):
        await judge_new_password(services, password, address.email, "password")
        kept = {name: value for name, value in profile.items() if services.registry.members[name].keep}
        user = await _new_user(services, address, password, profile=kept, language=language)
        # Asked last: what a plugin does here, using up an invitation say, is not for nothing.
        await services.registry.before_register(address.email, network, profile)
        return await _begun(services, user, network, device)


async def _begun(services: Services, user: User, network: str, device: str) -> Grant | None:
    event = services.stamped(Registered(user_id=user.id, network=network))
    here = network_digest(services, user.id, network)
    user = replace(user, networks=[here], untold=services.untold(event))
    if not services.settings.registration.reveal_existing:
        async with services.mail_with("registration", user.address_key, language=user.language):
            if await services.store.users.add(user):
                services.announce(event)
        return None
    plan = await plan_session(services, user, network)
    await _add(services, user)
    services.announce(event)
    return await open_session(services, user, plan, network, device)


async def _add(services: Services, user: User) -> None:
    kind: MailKind = "verify_email" if user.password_hash else "reset_password"
    needed = services.mail_with(kind, user.address_key, language=user.language)
    mail = nullcontext() if user.email_verified and user.password_hash else needed
    async with mail:
        if not await services.store.users.add(user):
            raise EmailTaken().because("the address has an account")


async def _new_user(
    services: Services,
    address: Address,
    password: str | None,
    *,
    user_id: str = "",
    verified: bool = False,
    profile: Mapping[str, Any] = MappingProxyType({}),
    language: str = "",
) -> User:
    return User(
        id=user_id or services.token(16),
        email=address.email,
        address_key=address.key,
        password_hash="" if password is None else await services.passwords.hash(password),
        created_at=services.now(),
        email_verified=verified,
        profile=dict(profile),
        language=language,
    )


async def create_user(
    services: Services, email: str, password: str | None, *, verified: bool, language: str = "", user_id: str = ""
) -> User:
    """What an operator does: no limits, no session. Without a password the owner is mailed how to set one; with one a
    code is mailed unless ``verified``. Without ``user_id`` the account has a new id.

    Raises ``ValueError`` for what is no address, :class:`EmailTaken`, :class:`ValidationFailed`.
    """
    address = parse_address(email)
    if password is not None:
        await judge_new_password(services, password, address.email, "password")
    user = await _new_user(services, address, password, user_id=user_id, verified=verified, language=language)
    event = services.stamped(Registered(user_id=user.id))
    await _add(services, replace(user, untold=services.untold(event)))
    services.announce(event)
    return user
