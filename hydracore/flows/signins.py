"""Where someone is signed in: their sessions, seen and ended by themselves."""

from hydracore.errors import NotFound
from hydracore.events import LoggedOut, OtherSessionsRevoked
from hydracore.flows.services import Services
from hydracore.flows.session import own_account
from hydracore.models import CurrentUser, Session

MOST_LISTED = 100


async def list_sessions(services: Services, caller: CurrentUser) -> list[Session]:
    """The caller's live sessions, the latest used first; so many at most."""
    user = await own_account(services, caller)
    return await services.store.sessions.of_user(user.id, user.epoch, services.now(), MOST_LISTED)


async def end_session(services: Services, caller: CurrentUser, session_id: str, network: str) -> None:
    """End one of the caller's sessions. Raises :class:`NotFound` for an id that is none of theirs, somebody else's or
    nobody's: the same work tells the same."""
    user = await own_account(services, caller)
    ended = await services.store.sessions.end_own(session_id, user.id, user.epoch, services.now())
    if ended is None:
        raise NotFound
    services.announce(LoggedOut(user_id=user.id, session_id=ended.id, network=network))


async def end_others(services: Services, caller: CurrentUser, network: str) -> int:
    """End every session of the caller but the one that asks; how many there were. One that begins meanwhile is of
    someone who signs in after it."""
    user = await own_account(services, caller)
    ended = await services.store.sessions.end_others(caller.session_id, user.id, user.epoch, services.now())
    services.announce(OtherSessionsRevoked(user_id=user.id, session_id=caller.session_id, network=network, ended=ended))
    return ended
