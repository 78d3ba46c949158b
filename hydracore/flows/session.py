"""Sessions: start, refresh, end; and who makes a request."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from hydracore.errors import (
    EmailNotVerified,
    InvalidRefreshToken,
    NotAuthenticated,
    RoleRequired,
    StoreUnavailable,
)
from hydracore.events import LoggedIn, LoggedOut, Refreshed, RefreshReused
from hydracore.flows.services import Services
from hydracore.models import CurrentUser, Grant, Session, User, read_only


@dataclass(frozen=True)
class Plan:
    """A session that is about to begin."""

    session_id: str
    claims: Mapping[str, Any]


async def start_session(services: Services, user: User, network: str, device: str = "") -> Grant:
    """A new session, never an adopted one. It carries the user's epoch as it was read: if that has
    moved on meanwhile (a reset, a disabled account), the session is void from the start.
    Raises what a plugin refuses with, and then there is none."""
    return await open_session(services, user, await plan_session(services, user, network), network, device)


async def plan_session(services: Services, user: User, network: str) -> Plan:
    """What a session will be, once the plugins agree; nothing is kept yet."""
    session_id = services.token(18)
    return Plan(session_id, await _added(services, user, session_id, network))


async def open_session(services: Services, user: User, plan: Plan, network: str, device: str = "") -> Grant:
    now = services.now()
    tokens = services.settings.tokens
    session = Session(
        id=plan.session_id,
        user_id=user.id,
        epoch=user.epoch,
        generation=1,
        created_at=now,
        rotated_at=now,
        ends_at=now + timedelta(seconds=tokens.session_ttl),
        expires_at=now + timedelta(seconds=tokens.idle_ttl),
        device=device,
        network=network,
    )
    if not await services.store.sessions.add(session):
        raise StoreUnavailable
    services.announce(LoggedIn(user_id=user.id, session_id=session.id, network=network))
    return _grant(services, user, session, plan.claims)


async def refresh(services: Services, token: str, network: str, device: str = "") -> Grant:
    """Exchange a refresh token for its successor.

    The first to present generation n moves the session to n+1. Whoever presents n again within the
    grace gets the same n+1. Anything older is theft and ends the session (RFC 9700, section 4.14.2).
    Raises :class:`InvalidRefreshToken`, and what a plugin refuses with, and :class:`KeysUnavailable`: the token is not
    used up then.
    """
    session_id, generation = services.refresh.read(token)
    services.keys.signing()  # What cannot be answered must not be asked for again when the grace is over.
    claims = await _claims(services, session_id, network) if services.registry.adds_claims else None
    now = services.now()
    idle_end = now + timedelta(seconds=services.settings.tokens.idle_ttl)
    found = await services.store.sessions.advance(session_id, generation, now, idle_end, network, device)
    session, user = found.session, found.user
    if session is None:
        raise InvalidRefreshToken().because("the session has ended or expired", session=session_id)
    if not found.moved:
        await _repeated(services, session, generation, network)
    if user is None or user.disabled or user.epoch != session.epoch:
        raise InvalidRefreshToken().because(_void(user, session.epoch), user=session.user_id, session=session.id)
    services.announce(Refreshed(user_id=user.id, session_id=session.id, network=network))
    return _grant(services, user, session, services.settings.roles.claims(user) if claims is None else claims)


async def _claims(services: Services, session_id: str, network: str) -> Mapping[str, Any]:
    """What the plugins add, asked before the refresh token is used up: one that fails costs nobody the session."""
    session, user = await services.store.sessions.with_user(session_id, services.now())
    if session is None or user is None or user.disabled or user.epoch != session.epoch:
        return {}  # It is refused below, or taken for theft.
    return await _added(services, user, session_id, network)


async def _added(services: Services, user: User, session_id: str, network: str) -> Mapping[str, Any]:
    """The claims beside our own: of the account's roles, and the plugins'."""
    roles = services.settings.roles.claims(user)
    return await services.registry.before_issue_token(services.account(user), session_id, network, roles)


async def _repeated(services: Services, session: Session, generation: int, network: str) -> None:
    """Whether somebody else has just exchanged the token. Raises :class:`InvalidRefreshToken` where it is worth nothing
    any more."""
    # Looking first is safe here: generations only grow, so theft stays theft, and a session that
    # is ended stays ended.
    if generation > session.generation:
        raise InvalidRefreshToken().because("the session has ended or expired", session=session.id)
    grace = timedelta(seconds=services.settings.tokens.refresh_grace)
    if session.generation == generation + 1 and services.now() - session.rotated_at < grace:
        return
    if session.generation == generation:
        raise StoreUnavailable().because("the database has not seen the refresh yet", session=session.id)
    if await services.store.sessions.end(session.id):
        services.announce(RefreshReused(user_id=session.user_id, session_id=session.id, network=network))
    facts = {"user": session.user_id, "session": session.id, "generation": generation, "newest": session.generation}
    raise InvalidRefreshToken().because("the refresh token was used before: the session is ended", **facts)


async def log_out(services: Services, refresh_tokens: list[str], access_token: str, network: str) -> None:
    """End the sessions that the tokens belong to; whatever is no token of ours is passed over."""
    ids = set()
    for token in refresh_tokens:
        with suppress(InvalidRefreshToken):
            ids.add(services.refresh.read(token)[0])
    if access_token:
        with suppress(NotAuthenticated):
            ids.add((await services.access.verify(access_token)).session_id)
    for session_id in ids:
        if session := await services.store.sessions.end(session_id):
            services.announce(LoggedOut(user_id=session.user_id, session_id=session_id, network=network))


async def authenticate(
    services: Services,
    access_token: str,
    *,
    allow_unverified: bool = False,
    fresh: bool = False,
    roles: Sequence[str] = (),
) -> CurrentUser:
    """Who the token stands for, its session looked up: an ended one is refused at once, or, where ``tokens.cache_ttl``
    is set and unless ``fresh``, so many seconds later. Where it takes one of ``roles`` it is always fresh: who has lost
    that is refused from then on.

    Raises :class:`NotAuthenticated`; :class:`EmailNotVerified` while the token's ``evf`` is
    false, unless ``allow_unverified``; :class:`RoleRequired`.
    """
    claims = await services.access.verify(access_token)
    session, user = await _signed_in(services, claims.session_id, claims.user_id, fresh=fresh or bool(roles))
    facts = {"user": claims.user_id, "session": claims.session_id}
    if not claims.email_verified and not allow_unverified:
        raise EmailNotVerified().because("the access token is of before the proof of the address", **facts)
    held = services.settings.roles.held(user)
    if roles and not set(roles) & set(held):
        raise _without_role(services, roles).because(has=", ".join(held) or "none", **facts)
    return CurrentUser(
        user.id,
        user.email,
        user.email_verified,
        user.created_at,
        session.id,
        read_only(user.profile),
        # What the account has now counts, not what a token says that it had.
        read_only({name: value for name, value in claims.added.items() if name != services.settings.roles.claim}),
        held,
    )


def _without_role(services: Services, roles: Sequence[str]) -> RoleRequired:
    known = set(roles) & set(services.settings.roles.known)
    why = "the account has no role that this is for" if known else "roles.known has no role that this is for"
    return RoleRequired().because(why, takes=" or ".join(roles))


async def own_account(services: Services, caller: CurrentUser) -> User:
    """The caller's account as it is now, however long ago the session was looked up: for what is not to happen once
    that has ended. Raises :class:`NotAuthenticated`."""
    _, user = await _signed_in(services, caller.session_id, caller.id, fresh=True)
    return user


async def _signed_in(services: Services, session_id: str, user_id: str, *, fresh: bool) -> tuple[Session, User]:
    sessions, now = services.store.sessions, services.now()
    session, user = await sessions.live_with_user(session_id, user_id, now, fresh=fresh)
    facts = {"user": user_id, "session": session_id}
    if session is None or session.user_id != user_id:
        raise NotAuthenticated().because("the session has ended or expired", **facts)
    if user is None or user.disabled or session.epoch != user.epoch:
        raise NotAuthenticated().because(_void(user, session.epoch), **facts)
    return session, user


async def holder(services: Services, access_token: str) -> CurrentUser | None:
    """Whose live session the token belongs to; None for no token, and for one of no session."""
    if not access_token:
        return None
    try:
        return await authenticate(services, access_token, allow_unverified=True, fresh=True)
    except NotAuthenticated:
        return None


def _void(user: User | None, epoch: int) -> str:
    """Why a session of ``epoch`` counts for nothing."""
    if user is None:
        return "the account was deleted"
    if user.disabled:
        return "its owner has closed the account" if user.closed else "the account is disabled"
    return "all sessions were ended since" if user.epoch != epoch else ""


def _grant(services: Services, user: User, session: Session, claims: Mapping[str, Any]) -> Grant:
    ends = min(session.expires_at, session.ends_at)
    return Grant(
        access_token=services.access.issue(user, session, claims),
        refresh_token=services.refresh.issue(session.id, session.generation),
        expires_in=services.access.ttl,
        email_verified=user.email_verified,
        refresh_expires_in=int((ends - services.now()).total_seconds()),
    )
