"""Access tokens (RFC 9068 over RFC 7519) and refresh tokens (ours: an address in the store and a MAC)."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any, Protocol

import jwt
from jwt.types import Options

from hydracore.chance import Now, Token
from hydracore.errors import InvalidRefreshToken, NotAuthenticated
from hydracore.models import Session, User
from hydracore.secret import ServerSecret

TOKEN_TYPE = "at+jwt"  # noqa: S105  # RFC 9068's media type, no secret
MAX_LENGTH = 4096
_MOST_PROVEN = 4096
_REQUIRED = ["iss", "aud", "sub", "sid", "jti", "iat", "exp", "evf"]
_PREFIX = "hcr1"


class KeyRing(Protocol):
    """Where the keys come from: see :class:`hydracore.keys.Keys`."""

    def signing(self) -> tuple[str, str, Any]:
        """The ``kid``, algorithm and private key that sign now."""

    async def verifying(self, kid: str) -> tuple[str, Any] | None:
        """The algorithm and public key of ``kid``, if it is one of ours."""


@dataclass(frozen=True)
class Claims:
    """What an access token says, once it is proven."""

    user_id: str
    session_id: str
    email_verified: bool
    expires_at: datetime
    added: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Proof:
    """What does not change about a token: the key that signed it, its claims, and when it begins to be good."""

    kid: str
    claims: Claims
    not_before: int


class AccessTokens:
    """Issues and proves access tokens: ``typ`` at+jwt, ``kid``, the key's own algorithm and no other (RFC 8725)."""

    def __init__(self, keys: KeyRing, *, issuer: str, audience: str, ttl: int, now: Now, token: Token) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self.ttl = ttl
        self._now = now
        self._token = token
        # A signature is proven once. What may change is looked at every time: the clock, and whether the key is ours.
        self._proofs: OrderedDict[bytes, _Proof] = OrderedDict()

    def issue(self, user: User, session: Session, added: Mapping[str, Any]) -> str:
        """A token that lives ``ttl`` seconds, with the claims that plugins add. Raises
        :class:`~hydracore.errors.KeysUnavailable`."""
        kid, algorithm, key = self._keys.signing()
        now = self._now()
        claims = {
            **added,
            "iss": self._issuer,
            "aud": self._audience,
            "sub": user.id,
            "client_id": self._audience,
            "sid": session.id,
            "jti": self._token(16),
            "iat": int(now.timestamp()),
            "exp": int(now.timestamp()) + self.ttl,
            "evf": user.email_verified,
        }
        return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": kid, "typ": TOKEN_TYPE})

    async def verify(self, token: str) -> Claims:
        """What the token says; raises :class:`NotAuthenticated` for any flaw, with no hint which."""
        if len(token) > MAX_LENGTH:
            raise NotAuthenticated().because("the access token is too long")
        digest = sha256(token.encode("utf-8", "replace")).digest()
        proof = self._proofs.get(digest)
        if proof is None:
            proof = await self._prove(token, digest)
        else:
            self._proofs.move_to_end(digest)
            await self._key(proof.kid)
        claims, now = proof.claims, self._now()
        if proof.not_before > now.timestamp():
            raise NotAuthenticated().because("the access token is not good yet", user=claims.user_id)
        if claims.expires_at <= now:
            del self._proofs[digest]
            facts = {"user": claims.user_id, "session": claims.session_id}
            raise NotAuthenticated().because("the access token has expired", **facts)
        return claims

    async def _key(self, kid: str) -> tuple[str, Any]:
        found = await self._keys.verifying(kid)
        if found is None:
            raise NotAuthenticated().because("the access token's key is not, or no longer, one of ours")
        return found

    async def _prove(self, token: str, digest: bytes) -> _Proof:
        try:
            proof = await self._read(token)
        except (jwt.PyJWTError, UnicodeError, ValueError, TypeError, RecursionError, OverflowError) as error:
            raise NotAuthenticated().because("the access token proves nothing", cause=type(error).__name__) from error
        self._proofs[digest] = proof
        if len(self._proofs) > _MOST_PROVEN:
            self._proofs.popitem(last=False)
        return proof

    async def _read(self, token: str) -> _Proof:
        header = jwt.get_unverified_header(token)
        kid = header.get("kid")
        if header.get("typ") != TOKEN_TYPE or "crit" in header or not isinstance(kid, str):
            raise NotAuthenticated().because("the access token is none of ours: its header")
        algorithm, key = await self._key(kid)
        # The algorithm is the key's, never the token's word (RFC 8725, section 3.1). Times are
        # compared to the injected clock, each time.
        options: Options = {
            "require": _REQUIRED,
            "verify_exp": False,
            "verify_iat": False,
            "verify_nbf": False,
        }
        claims: Mapping[str, Any] = jwt.decode(
            token, key, algorithms=[algorithm], audience=self._audience, issuer=self._issuer, options=options
        )
        if not _well_formed(claims):
            raise NotAuthenticated().because("the access token is none of ours: its claims")
        said = Claims(
            claims["sub"],
            claims["sid"],
            claims["evf"],
            datetime.fromtimestamp(claims["exp"], self._now().tzinfo),
            # Names of our own have no colon, and added ones do.
            {name: value for name, value in claims.items() if ":" in name},
        )
        return _Proof(kid, said, claims.get("nbf", 0))


def _well_formed(claims: Mapping[str, Any]) -> bool:
    return (
        isinstance(claims["sub"], str)
        and isinstance(claims["sid"], str)
        and isinstance(claims["evf"], bool)
        and type(claims["exp"]) is int
        and type(claims.get("nbf", 0)) is int
    )


class RefreshTokens:
    """``hcr1.<session id>.<generation>.<MAC>``: forged ones die here, before the store is asked,
    and the store holds nothing that could be replayed."""

    def __init__(self, secret: ServerSecret) -> None:
        self._secret = secret

    def issue(self, session_id: str, generation: int) -> str:
        """The one token of that generation: the same arguments give the same text, under one server secret."""
        mac = self._secret.mac("refresh-token", session_id, str(generation))
        return f"{_PREFIX}.{session_id}.{generation}.{mac}"

    def read(self, token: str) -> tuple[str, int]:
        """The session id and generation; raises :class:`InvalidRefreshToken`."""
        parts = token.split(".") if len(token) <= 256 else []
        if len(parts) != 4 or parts[0] != _PREFIX or not self._is_ours(parts[3], *parts[1:3]):
            raise InvalidRefreshToken().because("the refresh token is none of ours")
        return parts[1], int(parts[2])

    def _is_ours(self, mac: str, session_id: str, generation: str) -> bool:
        return self._secret.proves(mac, "refresh-token", session_id, generation)
