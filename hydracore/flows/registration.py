"""A new account."""

from contextlib import nullcontext

from hydracore.addresses import parse_address
from hydracore.errors import EmailTaken
from hydracore.events import Registered
from hydracore.flows.passwords import hash_new_password
from hydracore.flows.services import Services
from hydracore.flows.session import start_session
from hydracore.limits import Spend
from hydracore.models import Address, Grant, User


async def register(services: Services, email: str, password: str, network: str) -> Grant | None:
    """Create the account, have a code mailed, and sign in.

    With ``registration.reveal_existing`` off it returns None for new and existing addresses
    alike, with the same work, and the owner of an existing one gets a mail instead.
    Raises :class:`EmailTaken`, :class:`ValidationFailed` for a refused password,
    :class:`RegistrationRefused` by a plugin, and :class:`TooManyRequests`.
    """
    address = parse_address(email)
    await services.limiter.spend(network, Spend("register_network", (network,)))
    await services.registry.before_register(address.email, network)
    user = await _new_user(services, address, password)
    if not services.settings.registration.reveal_existing:
        async with services.mail_with("registration", address.key):
            if await services.store.users.add(user):
                services.announce(Registered(user_id=user.id, network=network))
        return None
    await _add(services, user)
    services.announce(Registered(user_id=user.id, network=network))
    return await start_session(services, user, network)


async def _add(services: Services, user: User) -> None:
    mail = nullcontext() if user.email_verified else services.mail_with("verify_email", user.address_key)
    async with mail:
        if not await services.store.users.add(user):
            raise EmailTaken


async def _new_user(services: Services, address: Address, password: str, *, verified: bool = False) -> User:
    return User(
        id=services.token(16),
        email=address.email,
        address_key=address.key,
        password_hash=await hash_new_password(services, password, address.email, "password"),
        created_at=services.now(),
        email_verified=verified,
    )


async def create_user(services: Services, email: str, password: str, *, verified: bool) -> User:
    """What an operator does: no limits, no session; a code is mailed unless ``verified``.

    Raises ``ValueError`` for what is no address, :class:`EmailTaken`, :class:`ValidationFailed`.
    """
    address = parse_address(email)
    user = await _new_user(services, address, password, verified=verified)
    await _add(services, user)
    services.announce(Registered(user_id=user.id))
    return user
