"""Signing in with an address and a password."""

from contextlib import AsyncExitStack
from dataclasses import dataclass

from hydracore.addresses import parse_address
from hydracore.discovery import OWN_AUTHENTICATOR
from hydracore.errors import HashingOverloaded, InvalidCredentials, Unavailable
from hydracore.events import LoginFailed
from hydracore.flows.networks import is_known, remember_network
from hydracore.flows.provision import provide_account
from hydracore.flows.services import Services
from hydracore.flows.session import start_session
from hydracore.limits import Spend, Tried
from hydracore.models import Address, Grant, User
from hydracore.passwords import Room, normalise
from hydracore.records import Identity

_HERE = "login_address_network"


@dataclass(frozen=True)
class Attempt:
    """What someone claims, and who that would be."""

    address: Address
    password: str
    network: str
    language: str
    known: User | None
    room: Room
    tried: Tried


def check_room(services: Services, network: str) -> None:
    """Raises :class:`HashingOverloaded` and :class:`Overloaded` where :func:`log_in` would: in a storm of sign-ins it
    is the refusals that take the time of everybody else, so each is made before its body is looked at."""
    services.limiter.check_turn(network, _HERE)
    passwords = services.passwords
    if passwords.pending >= passwords.capacity:
        with services.meters.login(), passwords.room():
            pass


async def log_in(
    services: Services, email: str, password: str, network: str, *, language: str = "", device: str = ""
) -> Grant:
    """A session for the owner of the address, whom one of ``login.authenticators`` vouches for. ``language`` is that of
    an account which this makes; one that is there keeps its own, for a guessed password proves no owner.

    The same work for every address: one look-up, one hash, and the same authenticators asked. Raises
    :class:`InvalidCredentials`, whatever the reason, :class:`TooManyRequests`, and what a plugin refuses
    with once the credentials are right.
    """
    with services.meters.login():
        return await _log_in(services, email, password, network, language, device)


async def _log_in(services: Services, email: str, password: str, network: str, language: str, device: str) -> Grant:
    try:
        address = parse_address(email)
    except ValueError as error:
        raise InvalidCredentials().because("that is no address") from error
    here = Spend(_HERE, (address.key, network))
    async with services.limiter.turn(network, here), AsyncExitStack() as scopes:
        # Where there is no room for the hash, nothing is asked or counted in vain.
        room = scopes.enter_context(services.passwords.room())
        await room.near()
        from_here = here, Spend("login_network", (network,))
        tried = await scopes.enter_async_context(services.limiter.failures(network, InvalidCredentials, *from_here))
        known = await services.store.users.by_address(address.key)
        # What strangers try does not keep the owner out, where the owner has been before.
        await tried.spend(Spend("login_address", (address.key,), binding=not is_known(services, known, network)))
        attempt = Attempt(address, password, network, language, known, room, tried)
        user, authenticator = await _proven(services, attempt)
    await services.admit(user, network, authenticator)
    if authenticator == OWN_AUTHENTICATOR:
        await _rehash(services, user, password)
    grant = await start_session(services, user, network, device)
    await remember_network(services, user, network)
    return grant


async def _proven(services: Services, attempt: Attempt) -> tuple[User, str]:
    absent: Unavailable | None = None
    for name in services.settings.login.authenticators:
        try:
            vouched = await _vouched(services, name, attempt)
        except Unavailable as error:
            absent = error
            if isinstance(error, HashingOverloaded):
                break
        else:
            attempt.tried.failed = False
            user = await _account(services, name, vouched, attempt)
            if user is not None and _may_sign_in(services, user):
                return user, name
            # Counted from here on, whatever becomes of the others: where one of them is away, guessing at this one
            # would have no limit.
            attempt.tried.failed = True
    if attempt.tried.failed:
        digest = services.address_digest(attempt.address.key)
        services.announce(LoginFailed(address_digest=digest, network=attempt.network))
    if absent is not None:
        raise absent  # It might have known better: nobody is told that this is a wrong password.
    user_id = attempt.known.id if attempt.known else ""
    raise InvalidCredentials().because(_why_not(services, attempt.known), user=user_id)


async def _vouched(services: Services, name: str, attempt: Attempt) -> User | Identity | None:
    known = attempt.known
    if name == OWN_AUTHENTICATOR:
        encoded = known.password_hash if known else ""
        return known if await services.passwords.verify(encoded, attempt.password, attempt.room) else None
    attempt.room.leave()  # Others may be slow, and hash elsewhere.
    return await services.registry.authenticate(name, attempt.address.email, normalise(attempt.password))


async def _account(services: Services, name: str, vouched: User | Identity | None, attempt: Attempt) -> User | None:
    if isinstance(vouched, Identity):
        return await provide_account(services, name, vouched, attempt.address, attempt.network, attempt.language)
    return vouched


def _why_not(services: Services, known: User | None) -> str:
    if known is None:
        return "the address has no account"
    if known.disabled:
        return "its owner has closed the account" if known.closed else "the account is disabled"
    if not _may_sign_in(services, known):
        return "the address is not proven, and registration.reveal_existing is off"
    return f"the account belongs to {known.authority}" if known.authority else "that is not the password"


def _may_sign_in(services: Services, user: User) -> bool:
    # Where registration must not tell who has an account, neither may signing in right after it: the
    # mailed code comes first.
    return not user.disabled and (user.email_verified or services.settings.registration.reveal_existing)


async def _rehash(services: Services, user: User, password: str) -> None:
    if services.passwords.outdated(user.password_hash) or user.imported:
        try:
            await services.store.users.rehash(user, await services.passwords.hash(password))
        except HashingOverloaded:
            return  # The next sign-in will do.
