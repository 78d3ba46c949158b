"""Signing keys: made once, kept sealed in the store, rotated in stages that every node sees.

A key is published before it signs (``next``), signs until the following one does (``active``),
and is published until the last token under it has expired (``retired``). The stages follow from
times in the document, so nodes agree without talking to each other.
"""

import asyncio
import base64
import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from itertools import pairwise
from typing import Any, Protocol

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from hydracore.chance import Now
from hydracore.errors import KeysUnavailable, StartupError
from hydracore.models import KeyState, SigningKey
from hydracore.secret import CannotOpen, ServerSecret
from hydracore.threads import Threads

_CLOCK_SKEW = timedelta(minutes=2)
_RELOAD_PAUSE = timedelta(seconds=1)


class KeyStore(Protocol):
    async def all(self) -> Sequence[SigningKey]:
        """Every key, oldest first."""

    async def add(self, key: SigningKey) -> bool:
        """False when another node added that sequence number first."""

    async def retire(self, before: int, expires_at: datetime) -> None:
        """Set the end of every key with a smaller sequence number that has none yet."""

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
        now: Now,
    ) -> None:
        self._algorithm = algorithm
        self._store = store
        self._secret = secret
        self._threads = threads
        self._access_ttl = timedelta(seconds=access_ttl)
        self._lead = timedelta(seconds=lead)
        self._now = now
        self._ring: tuple[SigningKey, ...] = ()
        self._of_kid: dict[str, SigningKey] = {}
        self._private: dict[str, Any] = {}
        self._public: dict[str, tuple[str, Any]] = {}
        self._loading = asyncio.Lock()
        self._loaded_at: datetime | None = None

    # -- what tokens ask ---------------------------------------------------------------------

    def signing(self) -> tuple[str, str, Any]:
        active = self._active()
        if active is None:
            raise KeysUnavailable
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

    async def rotate(self) -> SigningKey:
        """Publish a new key; it signs ``lead`` seconds from now. Of two nodes that rotate at
        once, one makes the key and both return it."""
        await self.load()
        return await self._publish_next()

    async def _publish_next(self) -> SigningKey:
        # The number that follows what this node has seen: of all that saw the same, one adds it.
        sequence = self._ring[-1].sequence + 1 if self._ring else 1
        lead = self._lead if self._ring else timedelta()
        await self._store.add(await self._threads.run(partial(self._make, sequence, lead)))
        await self.load()
        return next(key for key in self._ring if key.sequence == sequence)

    # -- life ----------------------------------------------------------------------------------

    async def ensure(self) -> None:
        """Have a key of the configured algorithm that signs. Raises :class:`StartupError` if the
        secret does not open the keys in the store."""
        await self.load()
        if not self._ring or self._ring[-1].algorithm != self._algorithm:
            await self._publish_next()

    async def load(self) -> None:
        """Read the ring anew and give older keys their end."""
        ring = await self._store.all()
        now = self._now()
        unretired = [newer for older, newer in pairwise(ring) if older.expires_at is None]
        for newer in unretired:
            end = max(newer.active_from, now) + self._access_ttl + _CLOCK_SKEW
            await self._store.retire(newer.sequence, end)
        ended = any(key.expires_at and key.expires_at <= now for key in ring)
        if ended:
            await self._store.purge(now)
        if unretired or ended:
            ring = await self._store.all()
        for key in ring:
            if key.kid not in self._private:
                self._private[key.kid] = await self._threads.run(partial(self._open, key))
                self._public[key.kid] = (key.algorithm, self._private[key.kid].public_key())
        self._ring = tuple(ring)
        self._of_kid = {key.kid: key for key in ring}
        self._loaded_at = now

    async def _reload_soon(self) -> None:
        # A token under a key that another node has just made; a flood of invented kids costs
        # one query a second.
        async with self._loading:
            if self._loaded_at is None or self._now() - self._loaded_at >= _RELOAD_PAUSE:
                await self.load()

    def _active(self) -> SigningKey | None:
        now = self._now()
        begun = [key for key in self._ring if key.active_from <= now]
        return begun[-1] if begun else (self._ring[0] if self._ring else None)

    def _make(self, sequence: int, lead: timedelta) -> SigningKey:
        private = _generate(self._algorithm)
        jwk = _public_jwk(private)
        kid = _thumbprint(jwk)
        der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        sealed = self._secret.seal("signing-key", der, kid)
        now = self._now()
        return SigningKey(kid, sequence, self._algorithm, jwk, sealed, now, now + lead)

    def _open(self, key: SigningKey) -> Any:
        try:
            return load_der_private_key(self._secret.open("signing-key", key.sealed_private, key.kid), None)
        except CannotOpen as error:
            raise StartupError(
                f"The server secret ({self._secret.source}) does not open the signing key {key.kid} in the database: "
                "it was made under another secret. Give this server the secret that the database was first used with."
            ) from error


def _state(key: SigningKey, active: SigningKey | None) -> KeyState:
    if active is None or key.sequence > active.sequence:
        return "next"
    return "active" if key == active else "retired"


def _generate(algorithm: str) -> Any:
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _public_jwk(private: Any) -> dict[str, Any]:
    public = private.public_key()
    if isinstance(public, ec.EllipticCurvePublicKey):
        jwk = ECAlgorithm.to_jwk(public, as_dict=True)
    elif isinstance(public, ed25519.Ed25519PublicKey):
        jwk = OKPAlgorithm.to_jwk(public, as_dict=True)
    else:
        jwk = RSAAlgorithm.to_jwk(public, as_dict=True)
    return {name: jwk[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in jwk}


def _thumbprint(jwk: Mapping[str, Any]) -> str:
    """RFC 7638: the digest of the required members in order."""
    canonical = json.dumps(jwk, sort_keys=True, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(sha256(canonical).digest()).rstrip(b"=").decode()
