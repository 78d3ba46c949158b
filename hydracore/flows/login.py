"""Signing in with an address and a password."""

from hydracore.addresses import parse_address
from hydracore.errors import HashingOverloaded, InvalidCredentials
from hydracore.events import LoginFailed
from hydracore.flows.services import Services
from hydracore.flows.session import start_session
from hydracore.limits import Spend
from hydracore.models import Address, Grant, User


async def log_in(services: Services, email: str, password: str, network: str) -> Grant:
    """A session for the owner of the address.

    The same work for every address: one look-up, one hash. Raises :class:`InvalidCredentials`,
    whatever the reason, and :class:`TooManyRequests`.
    """
    try:
        address = parse_address(email)
    except ValueError as error:
        raise InvalidCredentials from error
    async with services.limiter.failures(
        network,
        InvalidCredentials,
        Spend("login_address_network", (address.key, network)),
        Spend("login_address", (address.key,)),
        Spend("login_network", (network,)),
    ):
        user = await _verified(services, address, password, network)
    await _rehash(services, user, password)
    return await start_session(services, user, network)


async def _verified(services: Services, address: Address, password: str, network: str) -> User:
    user = await services.store.users.by_address(address.key)
    if user is None:
        await services.passwords.verify_nobody(password)
    elif await services.passwords.verify(user.password_hash, password) and _may_sign_in(services, user):
        return user
    services.announce(LoginFailed(address_digest=services.address_digest(address.key), network=network))
    raise InvalidCredentials


def _may_sign_in(services: Services, user: User) -> bool:
    # Where registration must not tell who has an account, neither may signing in right after it: the
    # mailed code comes first.
    return not user.disabled and (user.email_verified or services.settings.registration.reveal_existing)


async def _rehash(services: Services, user: User, password: str) -> None:
    if services.passwords.outdated(user.password_hash):
        try:
            await services.store.users.rehash(user, await services.passwords.hash(password))
        except HashingOverloaded:
            return  # The next sign-in will do.
