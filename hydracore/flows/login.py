"""Signing in with an address and a password."""

from hydracore.addresses import parse_address
from hydracore.discovery import OWN_AUTHENTICATOR
from hydracore.errors import HashingOverloaded, InvalidCredentials, Unavailable
from hydracore.events import LoginFailed
from hydracore.flows.provision import provide_account
from hydracore.flows.services import Services
from hydracore.flows.session import start_session
from hydracore.limits import Spend
from hydracore.models import Address, Grant, User
from hydracore.passwords import normalise


async def log_in(services: Services, email: str, password: str, network: str) -> Grant:
    """A session for the owner of the address, whom one of ``login.authenticators`` vouches for.

    The same work for every address: one look-up, one hash, and the same authenticators asked. Raises
    :class:`InvalidCredentials`, whatever the reason, :class:`TooManyRequests`, and what a plugin refuses
    with once the credentials are right.
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
        user, authenticator = await _proven(services, address, password, network)
    await services.admit(user, network, authenticator)
    if authenticator == OWN_AUTHENTICATOR:
        await _rehash(services, user, password)
    return await start_session(services, user, network)


async def _proven(services: Services, address: Address, password: str, network: str) -> tuple[User, str]:
    known = await services.store.users.by_address(address.key)
    absent: Unavailable | None = None
    for name in services.settings.login.authenticators:
        try:
            user = await _vouched(services, name, known, address, password, network)
        except HashingOverloaded:
            raise
        except Unavailable as error:
            absent = error
        else:
            if user is not None and _may_sign_in(services, user):
                return user, name
    if absent is not None:
        raise absent  # It might have known better: this is no wrong password.
    services.announce(LoginFailed(address_digest=services.address_digest(address.key), network=network))
    raise InvalidCredentials


async def _vouched(
    services: Services, name: str, known: User | None, address: Address, password: str, network: str
) -> User | None:
    if name == OWN_AUTHENTICATOR:
        right = await services.passwords.verify(known.password_hash if known else "", password)
        return known if right else None
    identity = await services.registry.authenticate(name, address.email, normalise(password))
    return None if identity is None else await provide_account(services, name, identity, address, network)


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
