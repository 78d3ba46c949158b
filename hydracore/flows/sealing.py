"""The server secret being replaced: where the ones of before are still needed, and new seals for what rests."""

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from hydracore.flows import recovery
from hydracore.flows.services import Services
from hydracore.models import MailIntent
from hydracore.neighbours import FORGOTTEN_AFTER
from hydracore.secret import CannotOpen

_PAGE = 100


@dataclass(frozen=True)
class Need:
    """What a server secret other than the node's own is needed for: ``count`` things that can be sealed anew, or what
    has gone by ``until`` at the latest. ``secret`` is its fingerprint, "" for one that is not known here."""

    secret: str
    what: str
    count: int = 0
    until: datetime | None = None


async def needs(services: Services) -> list[Need]:
    """What stands in the way of forgetting the other secrets."""
    return [*await _seals(services), *await _proofs(services)]


async def _seals(services: Services) -> list[Need]:
    keys = await services.store.keys.all()
    found = Counter(
        ("signing keys", _sealed_under(services, "signing-key", key.sealed_private, key.kid)) for key in keys
    )
    async for intent in _letters(services):
        found["mails", _sealed_under(services, "outbox", intent.sealed or b"", intent.id)] += 1
    own = services.secret.fingerprints[0]
    return [Need(under, what, count) for (what, under), count in found.items() if under != own]


async def _proofs(services: Services) -> list[Need]:
    """Proofs that are in people's hands: nobody can make them anew, but each has its end."""
    settings, now, used = services.settings, services.now(), await last_used(services)
    lives = {
        "codes and reset tokens": recovery.LIFE,
        "links that bring an address or an account back": timedelta(
            seconds=max(settings.account.undo_ttl, settings.account.deletion_grace)
        ),
        "refresh tokens": timedelta(seconds=settings.tokens.idle_ttl),
    }
    others = [secret for secret in services.secret.fingerprints[1:] if secret in used]
    # A node may make something after it was last seen.
    ends = [(each, what, used[each] + FORGOTTEN_AFTER + life) for each in others for what, life in lives.items()]
    return [Need(secret, what, until=end) for secret, what, end in ends if end > now]


async def last_used(services: Services) -> dict[str, datetime]:
    """When a node was last seen that worked under it, by a secret's fingerprint; those of which that is known."""
    used: dict[str, datetime] = {}
    for seen in await services.store.secrets.all():
        used[seen.own] = max(used.get(seen.own, seen.seen_at), seen.seen_at)
    return used


async def reseal(services: Services) -> int:
    """Seal anew, under the node's own secret, what another one of those that it knows has sealed; how many they were.
    On any number of nodes at once, and while mail is sent."""
    done, own = 0, services.secret.fingerprints[0]
    for key in await services.store.keys.all():
        if sealed := _anew(services, "signing-key", key.sealed_private, key.kid, own):
            done += await services.store.keys.reseal(key, sealed)
    async for intent in _letters(services):
        if sealed := _anew(services, "outbox", intent.sealed or b"", intent.id, own):
            done += await services.store.outbox.reseal(intent, sealed)
    return done


async def _letters(services: Services) -> AsyncIterator[MailIntent]:
    last = ""
    while page := await services.store.outbox.sealed(last, _PAGE):
        for intent in page:
            yield intent
        last = page[-1].id


def _sealed_under(services: Services, purpose: str, sealed: bytes, bound_to: str) -> str:
    try:
        return services.secret.look_into(purpose, sealed, bound_to)[1]
    except CannotOpen:
        return ""


def _anew(services: Services, purpose: str, sealed: bytes, bound_to: str, own: str) -> bytes | None:
    """Under the own secret; None where it is that already, or cannot be opened."""
    try:
        plain, under = services.secret.look_into(purpose, sealed, bound_to)
    except CannotOpen:
        return None
    return None if under == own else services.secret.seal(purpose, plain, bound_to)
