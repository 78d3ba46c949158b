"""Nodes tell one another, through the store, which server secrets they know.

While the secret is replaced a node may make what another refuses, and people would be signed out. So a node does not
start, or says that it cannot serve, where it and the nodes beside it do not know each other's.
"""

from collections.abc import Sequence
from datetime import timedelta
from hashlib import sha256
from typing import Protocol

from hydracore.chance import Now
from hydracore.errors import StartupError
from hydracore.models import SecretsInUse
from hydracore.secret import ServerSecret

TOLD_EVERY = 10.0
FORGOTTEN_AFTER = timedelta(seconds=30)


class SecretsStore(Protocol):
    async def put(self, seen: SecretsInUse) -> None:
        """Say it, in place of what was said before of the same set."""

    async def all(self) -> Sequence[SecretsInUse]: ...


class Neighbours:
    """What the nodes beside this one know. Nodes with the same secrets say the same."""

    def __init__(self, store: SecretsStore, secret: ServerSecret, *, now: Now) -> None:
        self._store = store
        self._secret = secret
        self._now = now

    async def tell(self) -> None:
        """Say what this node knows."""
        own, *others = self._secret.fingerprints
        known = [own, *sorted(others)]
        id_ = sha256(" ".join(known).encode()).hexdigest()[:16]
        await self._store.put(SecretsInUse(id_, own, known, self._now()))

    async def check(self, *, starting: bool = False) -> None:
        """Raises :class:`StartupError`, with what to do, where this node does not know what one beside it works under;
        or, while it is ``starting``, where one beside it does not know what this one does. Of two that run already
        one gives way."""
        mine, now = self._secret.fingerprints, self._now()
        # Either way: a clock may be ahead.
        for seen in await self._store.all():
            if abs(now - seen.seen_at) >= FORGOTTEN_AFTER:
                continue
            when = "(seen in the last 30 seconds; wait so long if it is gone)"
            if seen.own not in mine:
                raise StartupError(
                    f"A node beside this one {when} works under a server secret that this one does not know "
                    f"(fingerprint {seen.own}), and people that it signs in would be signed out here. Give this one "
                    "that secret too, in other_secrets (HYDRACORE_OTHER_SECRETS), and start it anew."
                )
            if starting and mine[0] not in seen.known:
                raise StartupError(
                    f"A node beside this one {when} does not know this one's server secret ({self._secret.source}; "
                    f"fingerprint {mine[0]}), and people signed in here would be signed out there. Give all nodes that "
                    "secret in other_secrets (HYDRACORE_OTHER_SECRETS) first, restart them, and start this one then."
                )
