"""Signatures of webhooks, by Standard Webhooks 1.0: HMAC-SHA256 under a secret that both sides hold."""

import binascii
import hmac
from base64 import b64decode, b64encode
from collections.abc import Sequence
from hashlib import sha256

_PREFIX = "whsec_"
_SHORTEST, _LONGEST = 24, 64


def keys_of(secret: str) -> list[bytes]:
    """The keys of one or several secrets, parted by white space: ``whsec_`` and 24 to 64 bytes in Base64. Raises
    ``ValueError``, which does not repeat them."""
    keys = [_key(each) for each in secret.split()]
    if not keys:
        raise ValueError("there is none")
    return keys


def _key(secret: str) -> bytes:
    try:
        key = b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not secret.startswith(_PREFIX) or not _SHORTEST <= len(key) <= _LONGEST:
        raise ValueError(f"a secret is {_PREFIX} and {_SHORTEST} to {_LONGEST} random bytes in Base64")
    return key


def signature(keys: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """The header ``webhook-signature``: one for each key, so that either secret is good during a rotation."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return " ".join(f"v1,{b64encode(hmac.digest(key, signed, sha256)).decode()}" for key in keys)
