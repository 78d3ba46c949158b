"""Accounts of people whom an authenticator vouches for."""

from contextlib import nullcontext
from dataclasses import replace

from hydracore.errors import StoreUnavailable
from hydracore.events import UserProvisioned
from hydracore.flows.services import Services
from hydracore.models import Address, User
from hydracore.records import Identity

_TRIES = 3


async def provide_account(
    services: Services, name: str, identity: Identity, address: Address, network: str, language: str = ""
) -> User | None:
    """The account that someone may sign in to whom the authenticator ``name`` vouches for; None for no one.

    The first time it is made. One that has a password of its own is signed in to if the address is proven; if its
    own proof never came, whoever registered it may be a stranger: it is taken over, which ends all of before. One that
    belongs to another authenticator is not touched.
    """
    for _ in range(_TRIES):
        # Looked at anew each time round: of two sign-ins at once one makes the account, and both have it.
        user = await services.store.users.by_address(address.key)
        if user is None:
            provided = await _make(services, name, identity, address, network, language)
            if provided is None and await _is_kept(services, address):
                return None
        elif user.authority == name:
            provided = await _prove(services, user) if identity.email_verified else user
        elif user.authority or not identity.email_verified:
            return None
        elif user.email_verified:
            provided = user
        else:
            provided = await _take_over(services, name, user, network, language)
        if provided is not None:
            return None if provided.disabled else provided
    raise StoreUnavailable


async def _make(
    services: Services, name: str, identity: Identity, address: Address, network: str, language: str
) -> User | None:
    user = User(
        id=services.token(16),
        email=address.email,
        address_key=address.key,
        password_hash="",
        created_at=services.now(),
        email_verified=identity.email_verified,
        profile=dict(identity.profile),
        authority=name,
        language=language,
    )
    unproven = services.mail_with("verify_email", address.key, language=language)
    mail = nullcontext() if identity.email_verified else unproven
    async with mail:
        event = services.stamped(UserProvisioned(user_id=user.id, network=network))
        if not await services.store.users.add(replace(user, untold=services.untold(event))):
            return None
    services.announce(event)
    return user


async def _is_kept(services: Services, address: Address) -> bool:
    """Whether an account that has another address now keeps this one for a while: whoever else has it waits."""
    holder = await services.store.users.holding(address.key)
    return holder is not None and holder.address_key != address.key


async def _prove(services: Services, user: User) -> User | None:
    if user.email_verified or user.disabled:
        return user
    return await services.store.users.mark_verified(user.id, user.epoch, end_sessions=False)


async def _take_over(services: Services, name: str, user: User, network: str, language: str) -> User | None:
    if user.disabled:
        return user
    event = services.stamped(UserProvisioned(user_id=user.id, network=network))
    taken = await services.store.users.take_over(user.id, user.epoch, name, language, services.untold(event))
    if taken is not None:
        services.announce(event)
    return taken
