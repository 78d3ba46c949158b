"""What others write for a hash, read. A ``ValueError`` says what is wrong, and holds nothing of the hash."""

import re
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from argon2.low_level import Type

from hydracore.foreign.crypts import phpass_rounds
from hydracore.foreign.schemes import KEPT, Foreign

_ARGON2_TYPES = {"argon2d": Type.D, "argon2i": Type.I, "argon2id": Type.ID}

_BCRYPT = re.compile(r"\$2[aby]\$(?P<cost>[0-9]{2})\$(?P<salt>[./A-Za-z0-9]{22})(?P<digest>[./A-Za-z0-9]{31})")
_DJANGO_PBKDF2 = re.compile(
    r"pbkdf2_(?P<hash>sha1|sha256)\$(?P<iterations>[0-9]{1,9})\$(?P<salt>[^$]{1,128})\$(?P<digest>.+)"
)
_DJANGO_SCRYPT = re.compile(
    r"scrypt\$(?P<n>[0-9]{1,9})\$(?P<salt>[^$]{1,128})\$(?P<r>[0-9]{1,4})\$(?P<p>[0-9]{1,4})\$(?P<digest>.+)"
)
_PBKDF2 = re.compile(
    r"\$pbkdf2-(?P<hash>sha1|sha256|sha512)\$i=(?P<iterations>[0-9]{1,9})\$(?P<salt>[^$]+)\$(?P<digest>[^$]+)"
)
_SCRYPT = re.compile(
    r"\$(?P<scheme>scrypt|firebase-scrypt)\$ln=(?P<ln>[0-9]{1,2}),r=(?P<r>[0-9]{1,4}),p=(?P<p>[0-9]{1,4})"
    r"\$(?P<salt>[^$]+)\$(?P<digest>[^$]+)"
)
_ARGON2 = re.compile(
    r"\$(?P<type>argon2id|argon2i|argon2d)(\$v=(?P<version>[0-9]{2}))?\$m=(?P<m>[0-9]{1,9}),t=(?P<t>[0-9]{1,4}),p=(?P<p>[0-9]{1,4})"
    r"\$(?P<salt>[^$]+)\$(?P<digest>[^$]+)"
)
_SHA512_CRYPT = re.compile(
    r"\$6\$(rounds=(?P<rounds>[0-9]{1,9})\$)?(?P<salt>[^$:\n]{1,16})\$(?P<digest>[./A-Za-z0-9]{86})"
)
_FIREBASE = re.compile(
    r"\$fbscrypt\$v=1,n=(?P<n>[0-9]{1,2}),r=(?P<r>[0-9]{1,4}),p=1(?:,ss=(?P<separator>[^,$]*))?,sk=(?P<key>[^,$]+)"
    r"\$(?P<salt>[^$]+)\$(?P<digest>[^$]+)"
)
_PHPASS = re.compile(r"\$[PH]\$(?P<rounds>[./A-Za-z0-9])(?P<salt>[./A-Za-z0-9]{8})(?P<digest>[./A-Za-z0-9]{22})")


@dataclass(frozen=True)
class ForeignHash:
    """A hash from elsewhere: how it was made, and what came of it. ``argon2id`` is the whole of it, where it is one of
    the kind that is made here, and ``strong`` says that it may stay as it is."""

    foreign: Foreign
    digest: bytes = field(repr=False)
    argon2id: str = field(default="", repr=False)
    strong: bool = False


def read_hash(text: str) -> ForeignHash:
    """Raises ``ValueError`` for what is no hash that is known, or too dear."""
    plain = _DJANGO_OWN.sub("", text, count=1)
    for pattern, made in _NOTATIONS:
        if match := pattern.fullmatch(plain):
            if text.startswith("bcrypt_sha256$"):
                return _bcrypt(match, "bcrypt-sha256")
            return made(match)
    raise ValueError("This is no hash of a kind that is known.")


# Django puts the name of its hasher before others' notations.
_DJANGO_OWN = re.compile(r"\A(?:bcrypt(?:_sha256)?\$(?=\$2)|argon2(?=\$argon2))")


def firebase(password_hash: str, salt: str, *, signer_key: str, salt_separator: str, rounds: int, mem_cost: int) -> str:
    """The notation of a hash of Firebase's own scrypt, without the project's key (all but ``rounds`` and ``mem_cost``
    in base 64, as Firebase gives them). Raises ``ValueError``."""
    encrypted, key = _decoded(password_hash, urlsafe=True), _decoded(signer_key, urlsafe=True)
    if len(encrypted) != len(key) or len(key) < KEPT:
        raise ValueError("The hash is not as long as the signer key: it was not made with that.")
    # The key was encrypted by adding (XOR) what AES-CTR makes of the password: that is what is left here.
    stream = bytes(one ^ other for one, other in zip(encrypted, key, strict=True))[:KEPT]
    salted = _decoded(salt, urlsafe=True) + (_decoded(salt_separator, urlsafe=True) if salt_separator else b"")
    return f"$firebase-scrypt$ln={mem_cost},r={rounds},p=1${_encoded(salted)}${_encoded(stream)}"


def keycloak(secret: Mapping[str, Any], how: Mapping[str, Any]) -> str:
    """The notation of a credential's ``secretData`` and ``credentialData``. Raises ``ValueError``."""
    algorithm, more = str(how.get("algorithm")), how.get("additionalParameters") or {}
    digest, salt = str(secret.get("value")), str(secret.get("salt"))
    if algorithm == "argon2":
        try:
            version = {"1.0": 16, "1.3": 19}[more["version"][0]]
            costs = f"m={more['memory'][0]},t={how['hashIterations']},p={more['parallelism'][0]}"
            return f"$argon2{more['type'][0]}$v={version}${costs}${salt.rstrip('=')}${digest.rstrip('=')}"
        except (LookupError, TypeError) as error:
            raise ValueError("The credential does not say how its argon2 hash was made.") from error
    name = {"pbkdf2": "sha1", "pbkdf2-sha256": "sha256", "pbkdf2-sha512": "sha512"}.get(algorithm)
    if name is None:
        raise ValueError(f"The credential's algorithm, {algorithm[:40]}, is not known.")
    return f"$pbkdf2-{name}$i={how.get('hashIterations')}${salt.rstrip('=')}${digest.rstrip('=')}"


def _bcrypt(match: re.Match[str], scheme: str = "bcrypt") -> ForeignHash:
    return _made(scheme, (int(match["cost"]),), match["salt"].encode(), match["digest"].encode())


def _django_pbkdf2(match: re.Match[str]) -> ForeignHash:
    return _pbkdf2(match, match["salt"].encode())


def _phc_pbkdf2(match: re.Match[str]) -> ForeignHash:
    return _pbkdf2(match, _decoded(match["salt"]))


def _pbkdf2(match: re.Match[str], salt: bytes) -> ForeignHash:
    digest = _sized(match["digest"])
    return _made(f"pbkdf2-{match['hash']}", (int(match["iterations"]),), salt, digest)


def _django_scrypt(match: re.Match[str]) -> ForeignHash:
    n = int(match["n"])
    if n < 2 or n & (n - 1):
        raise ValueError("Its N is no power of two.")
    numbers = n.bit_length() - 1, int(match["r"]), int(match["p"])
    return _made("scrypt", numbers, match["salt"].encode(), _sized(match["digest"]))


def _scrypt(match: re.Match[str]) -> ForeignHash:
    numbers = int(match["ln"]), int(match["r"]), int(match["p"])
    return _made(match["scheme"], numbers, _decoded(match["salt"]), _sized(match["digest"]))


def _gotrue_firebase(match: re.Match[str]) -> ForeignHash:
    """Supabase's notation for those that it has from Firebase."""
    written = firebase(
        match["digest"],
        match["salt"],
        signer_key=match["key"],
        salt_separator=match["separator"] or "",
        rounds=int(match["r"]),
        mem_cost=int(match["n"]),
    )
    return read_hash(written)


def _argon2(match: re.Match[str]) -> ForeignHash:
    salt, digest = _decoded(match["salt"]), _decoded(match["digest"])
    kind, version = _ARGON2_TYPES[match["type"]], int(match["version"] or 16)
    memory, passes, lanes = int(match["m"]), int(match["t"]), int(match["p"])
    made = _made("argon2", (kind.value, version, memory, passes, lanes, len(digest)), salt, digest)
    if kind is not Type.ID or version != 19:
        return made
    return ForeignHash(made.foreign, digest, match[0], _is_strong(memory, passes))


def _is_strong(memory: int, passes: int) -> bool:
    """As strong as the weakest that OWASP's Password Storage Cheat Sheet recommends (7 MiB, five times)."""
    return memory >= 7168 and memory * passes >= 7168 * 5


def _sha512_crypt(match: re.Match[str]) -> ForeignHash:
    rounds = int(match["rounds"] or 5000)
    return _made("sha512-crypt", (rounds,), match["salt"].encode(), match["digest"].encode())


def _phpass(match: re.Match[str]) -> ForeignHash:
    return _made("phpass", (phpass_rounds(match["rounds"]),), match["salt"].encode(), match["digest"].encode())


_NOTATIONS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], ForeignHash]], ...] = (
    (_BCRYPT, _bcrypt),
    (_DJANGO_PBKDF2, _django_pbkdf2),
    (_DJANGO_SCRYPT, _django_scrypt),
    (_PBKDF2, _phc_pbkdf2),
    (_SCRYPT, _scrypt),
    (_FIREBASE, _gotrue_firebase),
    (_ARGON2, _argon2),
    (_SHA512_CRYPT, _sha512_crypt),
    (_PHPASS, _phpass),
)


def _made(scheme: str, numbers: tuple[int, ...], salt: bytes, digest: bytes) -> ForeignHash:
    try:
        return ForeignHash(Foreign(scheme, numbers, salt).checked(), digest)
    except ValueError as error:
        raise ValueError(f"This {scheme} hash is not taken: {error}.") from error


def _sized(text: str) -> bytes:
    """As much of the digest as is compared."""
    digest = _decoded(text)
    if len(digest) < KEPT:
        raise ValueError("This hash is too short.")
    return digest[:KEPT]


def _decoded(text: str, *, urlsafe: bool = False) -> bytes:
    bare = (text.replace("-", "+").replace("_", "/") if urlsafe else text).rstrip("=")
    try:
        return b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (NotBase64, ValueError) as error:
        raise ValueError("This hash has a part that is not in base 64.") from error


def _encoded(raw: bytes) -> str:
    return b64encode(raw).decode().rstrip("=")
