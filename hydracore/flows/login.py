"""Signing in with an address and a password."""

from dataclasses import dataclass

from hydracore.addresses import parse_address
from hydracore.discovery import OWN_AUTHENTICATOR
from hydracore.errors import HashingOverloaded, InvalidCredentials, Unavailable
from hydracore.events import LoginFailed
from hydracore.flows.networks import is_known, remember_network
from hydracore.flows.provision import provide_account
from hydracore.flows.services import Services
from hydracore.flows.session import start_session
from hydracore.limits import Spend
from hydracore.models import Address, Grant, User
from hydracore.passwords import Room, normalise


@dataclass(frozen=True)
class Attempt:
    """What someone claims, and who that would be."""

    address: Address
    password: str
    network: str
    known: User | None
    room: Room


async def log_in(services: Services, email: str, password: str, network: str) -> Grant:
    """A session for the owner of the address, whom one of ``login.authenticators`` vouches for.

    The same work for every address: one look-up, one hash, and the same authenticators asked. Raises
    :class:`InvalidCredentials`, whatever the reason, :class:`TooManyRequests`, and what a plugin refuses
    with once the credentials are right.
    """
    try:
        address = parse_address(email)
    except ValueError as error:
        raise InvalidCredentials().because("that is no address") from error
    here = Spend("login_address_network", (address.key, network))
    async with services.limiter.turn(network, here):
        # Where there is no room for the hash, nothing is asked or counted in vain.
        with services.passwords.room() as room:
            async with services.limiter.failures(network, InvalidCredentials, here, Spend("login_network", (network,))):
                known = await services.store.users.by_address(address.key)
                # What strangers try does not keep the owner out, where the owner has been before.
                anywhere = Spend("login_address", (address.key,), binding=not is_known(services, known, network))
                async with services.limiter.failures(network, InvalidCredentials, anywhere):
                    user, authenticator = await _proven(services, Attempt(address, password, network, known, room))
    await services.admit(user, network, authenticator)
    if authenticator == OWN_AUTHENTICATOR:
        await _rehash(services, user, password)
    grant = await start_session(services, user, network)
    await remember_network(services, user, network)
    return grant


async def _proven(services: Services, attempt: Attempt) -> tuple[User, str]:
    absent: Unavailable | None = None
    for name in services.settings.login.authenticators:
        try:
            user = await _vouched(services, name, attempt)
        except HashingOverloaded:
            raise
        except Unavailable as error:
            absent = error
        else:
            if user is not None and _may_sign_in(services, user):
                return user, name
    if absent is not None:
        raise absent  # It might have known better: this is no wrong password.
    digest = services.address_digest(attempt.address.key)
    services.announce(LoginFailed(address_digest=digest, network=attempt.network))
    user_id = attempt.known.id if attempt.known else ""
    raise InvalidCredentials().because(_why_not(services, attempt.known), user=user_id)


async def _vouched(services: Services, name: str, attempt: Attempt) -> User | None:
    known = attempt.known
    if name == OWN_AUTHENTICATOR:
        encoded = known.password_hash if known else ""
        return known if await services.passwords.verify(encoded, attempt.password, attempt.room) else None
    attempt.room.leave()  # Others may be slow, and hash elsewhere.
    identity = await services.registry.authenticate(name, attempt.address.email, normalise(attempt.password))
    if identity is None:
        return None
    return await provide_account(services, name, identity, attempt.address, attempt.network)


def _why_not(services: Services, known: User | None) -> str:
    if known is None:
        return "the address has no account"
    if known.disabled:
        return "the account is disabled"
    if not _may_sign_in(services, known):
        return "the address is not proven, and registration.reveal_existing is off"
    return f"the account belongs to {known.authority}" if known.authority else "that is not the password"


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
