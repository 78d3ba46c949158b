"""What operators do to accounts. Ending an account's epoch is what ends its sessions, at once and on every node."""

import asyncio
from collections.abc import AsyncIterator

from hydracore.addresses import parse_address
from hydracore.errors import NotFound, PasswordElsewhere
from hydracore.events import EmailVerified, LoggedOut, PasswordVoided, SessionsRevoked, UserDisabled, UserEnabled
from hydracore.flows.closing import delete_over
from hydracore.flows.credentials import tidy_up
from hydracore.flows.services import Services
from hydracore.models import User

_PAGE = 32


async def find_user(services: Services, email: str) -> User | None:
    """The account of an address, however its letters' case was typed."""
    try:
        address = parse_address(email)
    except ValueError:
        return None
    return await services.store.users.by_address(address.key)


async def set_language(services: Services, user: User, language: str) -> None:
    """Have its owner written to in that language: tags, the best first, parted by commas."""
    await services.store.users.set_language(user.id, language)


async def disable_user(services: Services, user: User) -> None:
    """Close the account: no sign-in, and all sessions end."""
    event = services.stamped(UserDisabled(user_id=user.id))
    _there(await services.store.users.disable(user.id, services.untold(event)))
    await _forget(services, user)
    services.announce(event)


async def enable_user(services: Services, user: User) -> None:
    """Open it again; sessions that ended stay ended."""
    event = services.stamped(UserEnabled(user_id=user.id))
    _there(await services.store.users.enable(user.id, services.untold(event)))
    services.announce(event)


async def delete_user(services: Services, user: User) -> None:
    """Delete the account with its sessions and codes."""
    if condemned := await services.store.users.condemn(user.id, services.now()):
        await delete_over(services, condemned)


async def revoke_sessions(services: Services, user: User) -> None:
    """End every session, and every code and token that was mailed."""
    event = services.stamped(SessionsRevoked(user_id=user.id))
    _there(await services.store.users.start_epoch(user.id, services.untold(event)))
    await _forget(services, user)
    services.announce(event)


async def revoke_all_sessions(services: Services, after: User | None = None) -> AsyncIterator[User]:
    """The same for every account, the oldest first, beginning behind ``after``. Yields each when its sessions have
    ended, so that whoever is interrupted can go on; to begin anew does no harm."""
    while found := await services.store.users.page(after, _PAGE):
        done = await asyncio.gather(*(revoke_sessions(services, user) for user in found), return_exceptions=True)
        for user, outcome in zip(found, done, strict=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, NotFound):  # Deleted meanwhile.
                raise outcome
            yield user
        after = found[-1]


async def end_session_of(services: Services, user: User, session_id: str) -> None:
    """End one session of the account. Raises :class:`NotFound` for an id that is none of its live ones."""
    if await services.store.sessions.end_own(session_id, user.id, user.epoch, services.now()) is None:
        raise NotFound("The account has no session with this id.")
    services.announce(LoggedOut(user_id=user.id, session_id=session_id))


async def vouch_for(services: Services, user: User) -> None:
    """Take the address for proven; sessions stay, for the operator knows whose they are."""
    event = services.stamped(EmailVerified(user_id=user.id))
    if await services.store.users.vouch(user.id, services.untold(event)):
        await services.store.codes.drop_kind(user.id, "verification")
        services.announce(event)


async def force_reset(services: Services, user: User) -> None:
    """Void the password and end all sessions; a mail says how to set a new one. Raises :class:`PasswordElsewhere` for
    an authenticator's account, which has none, and :class:`NotFound` where it was deleted meanwhile."""
    event = services.stamped(PasswordVoided(user_id=user.id))
    # By its id: the address may be another by the time that the password is void.
    async with services.mail_with("reset_password", user.address_key, language=user.language, user_id=user.id):
        voided = await services.store.users.void_password(user.id, services.untold(event))
        if voided is None:
            _there(await services.store.users.by_id(user.id))
            raise PasswordElsewhere("This account has no password here: its authenticator has.")
    await tidy_up(services, voided)  # Of before alone: the mail's token may be there already.
    services.announce(event)


def _there(user: User | None) -> None:
    if user is None:
        raise NotFound("No account has this id any more.")


async def _forget(services: Services, user: User) -> None:
    await services.store.sessions.end_all(user.id)
    await services.store.codes.drop_all(user.id)
