"""A password that its owner knows: proven again for what a session alone may not do, and replaced."""

from contextlib import suppress

from hydracore.errors import InvalidPassword, NotAuthenticated, PasswordElsewhere, StoreUnavailable
from hydracore.events import LoginFailed, PasswordChanged
from hydracore.flows.networks import is_known, network_digest
from hydracore.flows.passwords import judge_new_password
from hydracore.flows.services import Services
from hydracore.flows.session import open_session, own_account, plan_session
from hydracore.limits import Spend
from hydracore.models import CurrentUser, Grant, User
from hydracore.passwords import Room, normalise


async def change_password(
    services: Services,
    caller: CurrentUser,
    current_password: str,
    new_password: str,
    network: str,
    *,
    language: str = "",
    device: str = "",
) -> Grant:
    """Set another password, and begin the caller's session anew.

    The account's epoch moves in the same atomic step, so every other session, and every code and token of before, is
    void. Raises what :func:`prove_password` does, :class:`ValidationFailed` for a refused password, what a plugin
    refuses with, and :class:`NotAuthenticated` where another request ended the session first.
    """
    user = await prove_password(services, caller, current_password, network)
    await services.registry.before_reset_password(services.account(user), network)
    await judge_new_password(services, new_password, user.email, "new_password", of=user)
    plan = await plan_session(services, user, network)
    password_hash = await services.passwords.hash(new_password)
    here = network_digest(services, user.id, network)
    event = services.stamped(PasswordChanged(user_id=user.id, network=network))
    untold = services.untold(event)
    async with services.mail_with("password_changed", user.address_key, language=language, after_epoch=user.epoch):
        changed = await services.store.users.change_password(user.id, user.epoch, password_hash, here, untold)
        if changed is None:
            raise NotAuthenticated().because("all sessions were ended meanwhile", user=user.id)
    await tidy_up(services, changed)
    services.announce(event)
    return await open_session(services, changed, plan, network, device)


async def prove_password(
    services: Services, caller: CurrentUser, password: str, network: str, *, elsewhere: bool = False
) -> User:
    """The caller's account, the password being its own; with ``elsewhere``, or the one that its authenticator takes.

    A wrong one counts as a failed sign-in does, on the same counters: whoever has a stolen session has no more tries
    for it. Raises :class:`InvalidPassword`, :class:`PasswordElsewhere`, :class:`TooManyRequests`,
    :class:`NotAuthenticated`.
    """
    user = await own_account(services, caller)
    if user.authority and not (elsewhere and user.authority in services.settings.login.authenticators):
        raise PasswordElsewhere().because(f"the account belongs to {user.authority}", user=user.id)
    here = Spend("login_address_network", (user.address_key, network))
    anywhere = Spend("login_address", (user.address_key,), binding=not is_known(services, user, network))
    tried = here, Spend("login_network", (network,)), anywhere
    async with services.limiter.turn(network, here):
        # Where there is no room for the hash, nothing is counted in vain.
        with services.passwords.room() as room:
            async with services.limiter.failures(network, InvalidPassword, *tried):
                if not await _is_right(services, user, password, room):
                    digest = services.address_digest(user.address_key)
                    services.announce(LoginFailed(address_digest=digest, network=network))
                    raise InvalidPassword().because("that is not the password", user=user.id)
    return user


async def _is_right(services: Services, user: User, password: str, room: Room) -> bool:
    if not user.authority:
        return await services.passwords.verify(user.password_hash, password, room)
    room.leave()  # Others may be slow, and hash elsewhere.
    return await services.registry.authenticate(user.authority, user.email, normalise(password)) is not None


async def tidy_up(services: Services, user: User) -> None:
    """Delete what the account's new epoch has ended already: no reason to tell the client that anything failed."""
    with suppress(StoreUnavailable):
        await services.store.sessions.end_epochs_before(user.id, user.epoch)
        await services.store.codes.drop_epochs_before(user.id, user.epoch)
