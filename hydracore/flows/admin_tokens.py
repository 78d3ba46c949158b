"""What opens the Admin API: made once and shown once, kept as a digest, good for its scopes until its end."""

import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from hashlib import sha256

from hydracore.errors import InvalidAdminToken, MissingScope, NotFound, StoreUnavailable
from hydracore.flows.audit import Admin
from hydracore.flows.paging import moment_of, page_of, place_of
from hydracore.flows.services import Services
from hydracore.limits import Spend
from hydracore.models import Actor, AdminToken, Page, Scope

LONGEST_LIFE = timedelta(days=366)
# So that whoever searches repositories and logs for secrets knows it.
_PREFIX = "hca1."
_FORM = re.compile(r"hca1\.[A-Za-z0-9_-]{43}")
_USED_EVERY = timedelta(minutes=1)


async def create_token(admin: Admin, name: str, scopes: Sequence[Scope], life: timedelta) -> tuple[str, AdminToken]:
    """A new token, which is nowhere but here, and what the store keeps of it. Raises ``ValueError`` for a life that is
    none, or longer than :data:`LONGEST_LIFE`."""
    if not timedelta() < life <= LONGEST_LIFE:
        raise ValueError(f"a token lives for {LONGEST_LIFE.days} days at most")
    services, now = admin.services, admin.services.now()
    text = _PREFIX + services.token(32)
    token = AdminToken(services.token(9), name, _digest(text), sorted(set(scopes)), now, now + life)
    async with admin.doing("tokens.create", token=token.id, name=name, scopes=token.scopes):
        if not await services.store.admin_tokens.add(token):
            raise StoreUnavailable
    return text, token


async def list_tokens(admin: Admin, *, cursor: str = "", limit: int) -> Page[AdminToken]:
    """The latest first, with those that ended less than a month ago."""
    services, what = admin.services, "tokens"
    after = moment_of(place_of(services, what, cursor))
    await admin.saw("tokens.list")
    found = await services.store.admin_tokens.page(after, limit + 1)
    return page_of(services, what, found, limit, lambda token: (token.created_at.isoformat(), token.id))


async def revoke_token(admin: Admin, token_id: str) -> AdminToken:
    """Raises :class:`NotFound` where there is none, or it was revoked before."""
    async with admin.doing("tokens.revoke", token=token_id):
        revoked = await admin.services.store.admin_tokens.revoke(token_id, admin.services.now())
        if revoked is None:
            raise NotFound("No token that is not revoked has this id.")
    return revoked


async def admit(services: Services, token: str, scope: Scope, call: str, network: str, request_id: str) -> Admin:
    """Whoever holds the token, to do what the scope is for.

    What is refused counts for its network, and what is not never does: a token cannot be guessed, and nobody's broken
    tool locks another out. Raises :class:`InvalidAdminToken`, :class:`MissingScope`, :class:`TooManyRequests`.
    """
    found = await _found(services, token)
    refused = services.limiter.counted(network, Spend("admin_network", (network,)))
    if found is None:
        async with refused:
            raise InvalidAdminToken().because(await _why_not(services, token))
    admin = Admin(services, Actor("token", found.id, found.name, network, request_id))
    if scope not in found.scopes:
        async with refused:
            await admin.saw("call", outcome=MissingScope.code, call=call, scope=scope)
            raise MissingScope(scope).because("the token has other scopes", token=found.id, scopes=list(found.scopes))
    return admin


async def _found(services: Services, token: str) -> AdminToken | None:
    if not _FORM.fullmatch(token):
        return None
    tokens, now = services.store.admin_tokens, services.now()
    found = await tokens.live(_digest(token), now)
    if found is not None and _seen_before(found.last_used_at, now):
        with suppress(StoreUnavailable):  # Nothing hangs on that.
            await tokens.used(found.id, now)
    return found


def _seen_before(last: datetime | None, now: datetime) -> bool:
    return last is None or now - last >= _USED_EVERY


async def _why_not(services: Services, token: str) -> str:
    if not token:
        return "no token came"
    if not _FORM.fullmatch(token):
        return "that is no admin token"
    found = await services.store.admin_tokens.by_digest(_digest(token))
    if found is None:
        return "there is no such token"
    return "the token is revoked" if found.revoked_at else "the token has expired"


def _digest(token: str) -> str:
    # 256 random bits: a plain hash is enough (ASVS 5.0, 6.5.2), and the same under every server secret.
    return sha256(token.encode()).hexdigest()
