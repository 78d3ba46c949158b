"""Signing keys: made once, kept sealed in the store, rotated in stages that every node sees.

A key is published before it signs (``next``), signs until the following one does (``active``),
and is published until the last token under it has expired (``retired``). The stages follow from
times in the document, so nodes agree without talking to each other. A key that was made in an emergency leaves those
of before no such time: they end when it begins to sign.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any, Protocol

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from hydracore.chance import Now
from hydracore.errors import KeysUnavailable, StartupError
from hydracore.jwk import generate, public_jwk, thumbprint
from hydracore.models import KeyState, SigningKey
from hydracore.secret import CannotOpen, ServerSecret
from hydracore.threads import Threads

_CLOCK_SKEW = timedelta(minutes=2)
_RELOAD_PAUSE = timedelta(seconds=1)
# Each node looks once a second. A key that signs later than that is known everywhere by then, so what one node signs
# another takes.
_EMERGENCY_LEAD = timedelta(seconds=3)


class KeyStore(Protocol):
    async def all(self) -> Sequence[SigningKey]:
        """Every key, oldest first."""

    async def add(self, key: SigningKey) -> bool:
        """False when another node added that sequence number first."""

    async def retire(self, before: int, expires_at: datetime) -> None:
        """Set the end of every key with a smaller sequence number that has none yet."""

    async def cut_short(self, before: int, expires_at: datetime) -> None:
        """Set the end of every key with a smaller sequence number that has none yet, or a later one."""

    async def purge(self, now: datetime) -> None:
        """Delete the keys whose end has come."""


class Keys:
    """The key ring of one node."""

    def __init__(
        self,
        store: KeyStore,
        secret: ServerSecret,
        threads: Threads,
        *,
        algorithm: str,
        access_ttl: int,
        lead: int,
        rotation: int = 0,
        now: Now,
    ) -> None:
        self._algorithm = algorithm
        self._store = store
        self._secret = secret
        self._threads = threads
        self._access_ttl = timedelta(seconds=access_ttl)
        self._lead = timedelta(seconds=lead)
        self._rotation = timedelta(seconds=rotation)
        self._now = now
        self._ring: tuple[SigningKey, ...] = ()
        self._of_kid: dict[str, SigningKey] = {}
        self._private: dict[str, Any] = {}
        self._public: dict[str, tuple[str, Any]] = {}
        self._looking = asyncio.Lock()
        self._loading = asyncio.Lock()
        self._loaded_at: datetime | None = None

    # -- what tokens ask ---------------------------------------------------------------------

    def signing(self) -> tuple[str, str, Any]:
        active = self._active()
        if active is None or (active.expires_at and active.expires_at <= self._now()):
            raise KeysUnavailable  # Nobody would take what an ended key signs.
        return active.kid, active.algorithm, self._private[active.kid]

    async def verifying(self, kid: str) -> tuple[str, Any] | None:
        if kid not in self._public:
            await self._reload_soon()
        found, key = self._public.get(kid), self._of_kid.get(kid)
        if found is None or key is None or (key.expires_at and key.expires_at <= self._now()):
            return None
        return found

    # -- what operators and other services ask -----------------------------------------------

    def jwks(self) -> dict[str, Any]:
        """The published keys (RFC 7517, section 5)."""
        live = [key for key in self._ring if not key.expires_at or key.expires_at > self._now()]
        return {"keys": [{**key.public_jwk, "kid": key.kid, "alg": key.algorithm, "use": "sig"} for key in live]}

    def states(self) -> list[tuple[SigningKey, KeyState]]:
        """Every published key with its stage, oldest first."""
        active = self._active()
        return [(key, _state(key, active)) for key in self._ring]

    async def rotate(self, *, emergency: bool = False) -> SigningKey:
        """Publish a new key; it signs ``lead`` seconds from now. Of two nodes that rotate at once, one makes the key
        and both return it.

        In an ``emergency`` it signs three seconds from now, and every key of before ends in that moment, the one that
        was to sign next included: no token under them is taken any more. The one write of the new key decides that,
        and any node does the rest.
        """
        await self.load()
        while not (added := await self._publish_next(emergency=emergency)) and emergency:
            pass  # Someone else's key took the number, and may be no emergency's: this one must come after it.
        return added or self._ring[-1]

    async def rotate_if_due(self) -> SigningKey | None:
        """The next key, where the newest has signed for as long as it is to, and this node was the one to add it. It
        signs when the other's time is over."""
        if not (self._rotation and self._ring):
            return None
        due = self._ring[-1].active_from + self._rotation - self._lead
        return await self._publish_next() if due <= self._now() else None

    async def _publish_next(self, *, emergency: bool = False) -> SigningKey | None:
        # The number that follows what this node has seen: of all that saw the same, one adds it.
        sequence = self._ring[-1].sequence + 1 if self._ring else 1
        key = await self._threads.run(partial(self._make, sequence, emergency))
        added = await self._store.add(key)
        await self.load()
        return key if added else None

    # -- life ----------------------------------------------------------------------------------

    async def ensure(self) -> SigningKey | None:
        """Have a key of the configured algorithm: the one that was made for that, if any. Where there was another
        before, that signs until the lead of the new one is over. Raises :class:`StartupError` if the secret does not
        open the keys in the store."""
        await self.load()
        if self._ring and self._ring[-1].algorithm == self._algorithm:
            return None
        return await self._publish_next()

    async def load(self) -> None:
        """Read the ring anew and give older keys their end. Raises as :meth:`ensure`; what could be opened before is
        known all the same, with its end: a key that is ended in an emergency is, though the next one is a stranger."""
        async with self._loading:  # What was read first must not replace what was read later.
            ring, now = await self._tidied(), self._now()
            try:
                for key in ring:
                    if key.kid not in self._private:
                        self._private[key.kid] = await self._threads.run(partial(self._open, key))
                        self._public[key.kid] = (key.algorithm, self._private[key.kid].public_key())
            finally:
                self._ring = tuple(key for key in ring if key.kid in self._private)
                self._of_kid = {key.kid: key for key in self._ring}
                self._loaded_at = now

    async def _tidied(self) -> Sequence[SigningKey]:
        ring, now = await self._store.all(), self._now()
        unretired = [newer for older, newer in pairwise(ring) if older.expires_at is None]
        for newer in unretired:
            end = max(newer.active_from, now) + self._access_ttl + _CLOCK_SKEW
            await self._store.retire(newer.sequence, end)
        urgent = [key for key in ring if key.emergency and any(_outlives(older, key) for older in ring)]
        for key in urgent:
            await self._store.cut_short(key.sequence, key.active_from)
        ended = any(key.expires_at and key.expires_at <= now for key in ring)
        if ended:
            await self._store.purge(now)
        return await self._store.all() if unretired or urgent or ended else ring

    async def _reload_soon(self) -> None:
        # A token under a key that another node has just made; a flood of invented kids costs
        # one query a second.
        async with self._looking:
            if self._loaded_at is None or self._now() - self._loaded_at >= _RELOAD_PAUSE:
                with suppress(StartupError):  # The operator is told of it elsewhere, and whoever asks is not.
                    await self.load()

    def _active(self) -> SigningKey | None:
        now = self._now()
        begun = [key for key in self._ring if key.active_from <= now]
        return begun[-1] if begun else (self._ring[0] if self._ring else None)

    def _make(self, sequence: int, emergency: bool) -> SigningKey:
        private = generate(self._algorithm)
        jwk = public_jwk(private)
        kid = thumbprint(jwk)
        der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        sealed = self._secret.seal("signing-key", der, kid)
        now, lead = self._now(), _EMERGENCY_LEAD if emergency else self._lead
        begins = now + lead if sequence > 1 else now
        return SigningKey(kid, sequence, self._algorithm, jwk, sealed, now, begins, emergency=emergency)

    def _open(self, key: SigningKey) -> Any:
        try:
            return load_der_private_key(self._secret.open("signing-key", key.sealed_private, key.kid), None)
        except CannotOpen as error:
            raise StartupError(
                f"The server secret ({self._secret.source}) does not open the signing key {key.kid} in the database: "
                "it was made under another secret. Give this server that one, as its secret or, while the secret is "
                "being replaced, in other_secrets (HYDRACORE_OTHER_SECRETS)."
            ) from error


def _state(key: SigningKey, active: SigningKey | None) -> KeyState:
    if active is None or key.sequence > active.sequence:
        return "next"
    return "active" if key == active else "retired"


def _outlives(older: SigningKey, key: SigningKey) -> bool:
    return older.sequence < key.sequence and (older.expires_at is None or older.expires_at > key.active_from)
