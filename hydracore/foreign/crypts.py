"""sha512-crypt (Drepper, "Unix crypt using SHA-256 and SHA-512") and phpass's portable hashes, in their own alphabets.

Ours, since Python 3.13 has no crypt, the C library's is not everywhere, and passlib and libpass share one import name:
whoever embeds HydraCore may have the other one. Neither format will change any more.
"""

import hashlib
import time
from collections.abc import Iterator

_ALPHABET = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# Short digests are made with the interpreter's lock held: so often the event loop may have it.
_ROUNDS_IN_A_ROW = 256


def sha512_crypt(password: bytes, salt: bytes, rounds: int) -> bytes:
    """The last part of ``$6$rounds=…$salt$…``."""
    length = len(password)
    inner = hashlib.sha512(password + salt + password).digest()
    start = hashlib.sha512(password + salt + _repeated(inner, length))
    bits = length
    while bits:
        start.update(inner if bits & 1 else password)
        bits >>= 1
    state = start.digest()
    by_password = _repeated(hashlib.sha512(password * length).digest(), length)
    by_salt = _repeated(hashlib.sha512(salt * (16 + state[0])).digest(), len(salt))
    for number in _giving_way(rounds):
        odd = number % 2
        parts = (
            by_password if odd else state,
            by_salt if number % 3 else b"",
            by_password if number % 7 else b"",
            state if odd else by_password,
        )
        state = hashlib.sha512(b"".join(parts)).digest()
    return _encoded(bytes(state[place] for place in _SHA512_ORDER))


def phpass(password: bytes, salt: bytes, rounds: int) -> bytes:
    """The last part of ``$P$…``: MD5 again and again, of the salt first."""
    state = hashlib.md5(salt + password, usedforsecurity=False).digest()
    for _ in _giving_way(rounds):
        state = hashlib.md5(state + password, usedforsecurity=False).digest()
    return _encoded(state)


def phpass_rounds(letter: str) -> int:
    """What the letter behind ``$P$`` stands for. Raises ``ValueError``."""
    return 1 << _ALPHABET.index(letter.encode())


def _repeated(digest: bytes, length: int) -> bytes:
    return (digest * (length // len(digest) + 1))[:length]


def _giving_way(rounds: int) -> Iterator[int]:
    for number in range(rounds):
        if not number % _ROUNDS_IN_A_ROW:
            time.sleep(0)
        yield number


def _order() -> Iterator[int]:
    first, second, third = 0, 21, 42
    for _ in range(21):
        # Each group is written from its last byte on.
        yield from (third, second, first)
        first, second, third = second + 1, third + 1, first + 1
    yield 63


_SHA512_ORDER = tuple(_order())


def _encoded(raw: bytes) -> bytes:
    """Base 64 of another kind: three bytes are a number, the lowest first, whose lowest six bits come first."""
    encoded = bytearray()
    for start in range(0, len(raw), 3):
        group = raw[start : start + 3]
        number = int.from_bytes(group, "little")
        encoded += bytes(_ALPHABET[number >> 6 * place & 63] for place in range(len(group) + 1))
    return bytes(encoded)
