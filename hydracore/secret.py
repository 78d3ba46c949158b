"""The server secret and what is derived from it: one key a purpose, so that no value made
for one purpose is ever valid for another."""

import hmac
import os
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hydracore.chance import Token
from hydracore.errors import StartupError

_NONCE_BYTES = 12
_SHORTEST = 32


class CannotOpen(Exception):
    """Sealed bytes were made under another secret or for another purpose, or were altered."""


class ServerSecret:
    """Keys derived by HKDF-SHA256 (RFC 5869) from the one secret of a deployment.

    All nodes over one database hold the same secret; whoever has the database alone can
    neither make a refresh token nor guess a code nor sign an access token. While it is being replaced there are
    ``others``, the one to come or those of before: nothing new is made under them, but what was is good.
    """

    def __init__(self, secret: str, source: str = "secret", others: Sequence[str] = ()) -> None:
        # One that is named twice is one.
        self._every = tuple(_Derived(each) for each in dict.fromkeys((secret, *others)))
        self._own = self._every[0]
        self.fingerprints = tuple(each.mac("fingerprint")[:16] for each in self._every)
        """What names each secret that is known, this one first, and tells nothing of it."""
        self.source = source
        """Where it comes from, for an operator."""

    def mac(self, purpose: str, *parts: str) -> str:
        """A keyed digest of ``parts``: 256 bits as URL-safe text without padding (43 characters)."""
        return self._own.mac(purpose, *parts)

    def macs(self, purpose: str, *parts: str) -> tuple[str, ...]:
        """The digests to look for what was kept by: :meth:`mac` under each secret, this one first."""
        return tuple(each.mac(purpose, *parts) for each in self._every)

    def proves(self, digest: str, purpose: str, *parts: str) -> bool:
        """Whether it is the :meth:`mac` of that, under any of the secrets; in constant time."""
        proven = [same(digest, mac) for mac in self.macs(purpose, *parts)]
        return any(proven)

    def seal(self, purpose: str, plain: bytes, bound_to: str) -> bytes:
        """Encrypt (AES-256-GCM), bound to the document that will hold it."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._own.cipher(purpose).encrypt(nonce, plain, bound_to.encode())

    def open(self, purpose: str, sealed: bytes, bound_to: str) -> bytes:
        """Undo :meth:`seal`; raises :class:`CannotOpen`."""
        return self.look_into(purpose, sealed, bound_to)[0]

    def look_into(self, purpose: str, sealed: bytes, bound_to: str) -> tuple[bytes, str]:
        """What :meth:`open` gives, and the fingerprint of the secret that it is sealed under."""
        nonce, text = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        for each, fingerprint in zip(self._every, self.fingerprints, strict=True):
            with suppress(InvalidTag, ValueError):
                return each.cipher(purpose).decrypt(nonce, text, bound_to.encode()), fingerprint
        raise CannotOpen(purpose)


class _Derived:
    """The keys of one secret, by purpose."""

    def __init__(self, secret: str) -> None:
        self._root = secret.encode()
        self._keys: dict[str, bytes] = {}

    def _key(self, purpose: str) -> bytes:
        if purpose not in self._keys:
            hkdf = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"hydracore/1/" + purpose.encode())
            self._keys[purpose] = hkdf.derive(self._root)
        return self._keys[purpose]

    def mac(self, purpose: str, *parts: str) -> str:
        # Lengths go in first: ("ab", "c") and ("a", "bc") must differ.
        message = "".join(f"{len(part)}:{part}" for part in parts).encode()
        digest = hmac.digest(self._key(purpose), message, sha256)
        return urlsafe_b64encode(digest).rstrip(b"=").decode()

    def cipher(self, purpose: str) -> AESGCM:
        return AESGCM(self._key(purpose))


def same(left: str, right: str) -> bool:
    """Compare in constant time; any text, not only ASCII."""
    return hmac.compare_digest(left.encode("utf-8", "replace"), right.encode("utf-8", "replace"))


def kept_secret(file: Path, token: Token, *, data: Path) -> str:
    """The secret in ``file``, made there at the first start: before there is anything in ``data``. Raises
    :class:`StartupError`."""
    if not file.exists() and data.is_dir() and any(data.iterdir()):
        raise StartupError(
            f"The server secret in {file} is missing, and without it the database in {data} cannot be used. Restore "
            f"it from a backup, or start anew: move {data} away."
        )
    try:
        _write_once(file, token(32))
        secret = file.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(f"The server secret in {file} cannot be read or written: {error}.") from error
    if len(secret) < _SHORTEST:
        raise StartupError(
            f"The server secret in {file} is not whole. Restore it from a backup: without it nobody stays signed in, "
            "and the signing keys in the database cannot be opened."
        )
    return secret


def _write_once(file: Path, text: str) -> None:
    """Create ``file`` whole or not at all, unless it is there; of two at once, one wins."""
    if file.exists():
        return
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    try:
        with suppress(FileExistsError):
            os.link(draft, file)
    finally:
        draft.unlink()
