"""The schemes: what each computes of a password, what that costs, and how dear it may be here."""

import hashlib
import re
from abc import ABC, abstractmethod
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import bcrypt
from argon2.low_level import Type, hash_secret_raw
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from hydracore.foreign.crypts import phpass, sha512_crypt

Numbers = tuple[int, ...]
Bounds = Mapping[str, tuple[int, int]]

_BCRYPT_TAKES = 72
# Of what has several parameters they are part of the name, for they do not add up.
_KINDS = re.compile(r"bcrypt|pbkdf2-sha(1|256|512)|sha512-crypt|phpass|(scrypt|argon2)(-[0-9]+){3}")
# So many bytes of a derived key are compared: those of before them do not depend on how many were derived.
KEPT = 16
_ANY_SALT = b"sixteen of bytes"


@dataclass(frozen=True)
class Work:
    """How much a hash is to compute: ``cost`` counts what the ``kind`` is made of, and adds up."""

    kind: str
    cost: int

    def __str__(self) -> str:
        return f"{self.kind}:{self.cost}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ``ValueError``, also for a kind that nobody knows here how to :func:`spend`."""
        kind, _, cost = text.rpartition(":")
        if not _KINDS.fullmatch(kind):
            raise ValueError(f"the kind of work {kind} is not known")
        return cls(kind, int(cost))


class Scheme(ABC):
    """One way to hash. ``numbers`` are its parameters, in the order of ``bounds``."""

    bounds: ClassVar[Bounds]
    salts: ClassVar[re.Pattern[bytes]] = re.compile(rb".{0,1024}", re.DOTALL)

    @abstractmethod
    def digest(self, password: bytes, salt: bytes, *numbers: int) -> bytes: ...

    @abstractmethod
    def work(self, *numbers: int) -> Work: ...

    def check(self, salt: bytes, *numbers: int) -> None:
        """Raises ``ValueError`` for a salt that is none, and for parameters that would keep the hashing threads, or the
        memory, for too long."""
        for (name, (least, most)), number in zip(self.bounds.items(), numbers, strict=True):
            if not least <= number <= most:
                raise ValueError(f"its {name} is {number}: from {least} to {most} is taken")
        if not self.salts.fullmatch(salt):
            raise ValueError("its salt is not as long as it should be, or not of these characters")


class _Bcrypt(Scheme):
    bounds: ClassVar[Bounds] = {"cost": (4, 14)}
    salts: ClassVar[re.Pattern[bytes]] = re.compile(rb"[./A-Za-z0-9]{22}")

    def digest(self, password: bytes, salt: bytes, *numbers: int) -> bytes:
        # What comes after 72 bytes never counted where it was made.
        return bcrypt.hashpw(password[:_BCRYPT_TAKES], b"$2b$%02d$%s" % (numbers[0], salt))[-31:]

    def work(self, *numbers: int) -> Work:
        return Work("bcrypt", 1 << numbers[0])


class _BcryptSha256(_Bcrypt):
    """Django's, which has no limit of 72 bytes."""

    def digest(self, password: bytes, salt: bytes, *numbers: int) -> bytes:
        return super().digest(hashlib.sha256(password).hexdigest().encode(), salt, *numbers)


class _Pbkdf2(Scheme):
    bounds: ClassVar[Bounds] = {"iterations": (1, 3_000_000)}

    def __init__(self, hash_name: str) -> None:
        self._hash = hash_name

    def digest(self, password: bytes, salt: bytes, *numbers: int) -> bytes:
        return hashlib.pbkdf2_hmac(self._hash, password, salt, numbers[0], KEPT)

    def work(self, *numbers: int) -> Work:
        return Work(f"pbkdf2-{self._hash}", numbers[0])


class _Scrypt(Scheme):
    bounds: ClassVar[Bounds] = {"logarithm of N": (1, 20), "r": (1, 32), "p": (1, 16)}

    def digest(self, password: bytes, salt: bytes, *numbers: int) -> bytes:
        return self._derived(password, salt, KEPT, *numbers)

    def _derived(self, password: bytes, salt: bytes, length: int, logarithm: int, r: int, p: int) -> bytes:
        n = 1 << logarithm
        return hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, maxmem=128 * r * (n + p + 2) + 1024, dklen=length)

    def work(self, *numbers: int) -> Work:
        return Work("-".join(map(str, ("scrypt", *numbers))), 1)

    def check(self, salt: bytes, *numbers: int) -> None:
        super().check(salt, *numbers)
        logarithm, r, p = numbers
        memory = 128 * r << logarithm
        if memory > 1 << 27 or memory * p > 1 << 28:
            raise ValueError(f"it takes {memory >> 20} MiB of memory {p} times: 128 MiB, and 256 MiB in all, are taken")
        if logarithm >= 16 * r:
            raise ValueError("its N is larger than its r allows (RFC 7914, section 6)")


class _FirebaseScrypt(_Scrypt):
    """Firebase encrypts the project's signer key under what scrypt makes of the password. That key is as good as
    zeros: it was taken off the hash (:func:`~hydracore.foreign.notation.firebase`), and no account has to keep it."""

    def digest(self, password: bytes, salt: bytes, *numbers: int) -> bytes:
        key = self._derived(password, salt, 32, *numbers)
        return Cipher(AES(key), CTR(bytes(16))).encryptor().update(bytes(KEPT))


class _Sha512Crypt(Scheme):
    bounds: ClassVar[Bounds] = {"rounds": (1000, 500_000)}

    def digest(self, password: bytes, salt: bytes, *numbers: int) -> bytes:
        return sha512_crypt(password, salt, numbers[0])

    def work(self, *numbers: int) -> Work:
        return Work("sha512-crypt", numbers[0])


class _Phpass(Scheme):
    bounds: ClassVar[Bounds] = {"rounds": (1 << 7, 1 << 18)}

    def digest(self, password: bytes, salt: bytes, *numbers: int) -> bytes:
        return phpass(password, salt, numbers[0])

    def work(self, *numbers: int) -> Work:
        return Work("phpass", numbers[0])


class _Argon2(Scheme):
    """Those that are weaker than what is taken as it is, and the other kinds."""

    bounds: ClassVar[Bounds] = {
        "type": (0, 2),
        "version": (16, 19),
        "memory": (8, 1 << 17),
        "time": (1, 64),
        "parallelism": (1, 16),
        "length of the hash": (16, 128),
    }
    salts: ClassVar[re.Pattern[bytes]] = re.compile(rb".{8,256}", re.DOTALL)

    def digest(self, password: bytes, salt: bytes, *numbers: int) -> bytes:
        kind, version, memory, passes, lanes, length = numbers
        return hash_secret_raw(password, salt, passes, memory, lanes, length, Type(kind), version)

    def work(self, *numbers: int) -> Work:
        return argon2_work(*numbers[2:5])

    def check(self, salt: bytes, *numbers: int) -> None:
        super().check(salt, *numbers)
        _, _, memory, passes, lanes, _ = numbers
        if memory * passes > 1 << 19:
            raise ValueError(f"it goes over {memory} KiB of memory {passes} times: 512 MiB in all are taken")
        if memory < 8 * lanes:
            raise ValueError("it has less than 8 KiB of memory a lane (RFC 9106, section 3.1)")


def argon2_work(memory_kib: int, passes: int, lanes: int) -> Work:
    return Work(f"argon2-{memory_kib}-{passes}-{lanes}", 1)


SCHEMES: Mapping[str, Scheme] = {
    "argon2": _Argon2(),
    "bcrypt": _Bcrypt(),
    "bcrypt-sha256": _BcryptSha256(),
    "pbkdf2-sha1": _Pbkdf2("sha1"),
    "pbkdf2-sha256": _Pbkdf2("sha256"),
    "pbkdf2-sha512": _Pbkdf2("sha512"),
    "scrypt": _Scrypt(),
    "firebase-scrypt": _FirebaseScrypt(),
    "sha512-crypt": _Sha512Crypt(),
    "phpass": _Phpass(),
}


@dataclass(frozen=True)
class Foreign:
    """A scheme with one account's parameters and salt: all that it takes to compute its hash of a password."""

    scheme: str
    numbers: Numbers
    salt: bytes

    def __str__(self) -> str:
        return f"{self.scheme}${','.join(map(str, self.numbers))}${urlsafe_b64encode(self.salt).decode()}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """What ``str`` gave. Raises ``ValueError``."""
        scheme, numbers, salt = text.split("$")
        return cls(scheme, tuple(map(int, numbers.split(","))), urlsafe_b64decode(salt)).checked()

    def checked(self) -> Self:
        """Itself. Raises ``ValueError``, with the reason, for what is not computed here."""
        if self.scheme not in SCHEMES:
            raise ValueError(f"the scheme {self.scheme} is not known")
        SCHEMES[self.scheme].check(self.salt, *self.numbers)
        return self

    @property
    def work(self) -> Work:
        return SCHEMES[self.scheme].work(*self.numbers)

    def digest(self, password: str) -> bytes:
        return SCHEMES[self.scheme].digest(password.encode(), self.salt, *self.numbers)


def spend(work: Work, password: str) -> None:
    """Compute as much, for nothing."""
    scheme, _, numbers = work.kind.partition("-")
    given = password.encode()
    match scheme:
        case "bcrypt":
            for logarithm in _powers(work.cost):
                SCHEMES["bcrypt"].digest(given, b"." * 22, logarithm)
        case "pbkdf2":
            SCHEMES[work.kind].digest(given, _ANY_SALT, work.cost)
        case "sha512":
            sha512_crypt(given, _ANY_SALT, work.cost)
        case "phpass":
            phpass(given, _ANY_SALT, work.cost)
        case "scrypt":
            SCHEMES["scrypt"].digest(given, _ANY_SALT, *map(int, numbers.split("-")))
        case "argon2":
            memory, passes, lanes = map(int, numbers.split("-"))
            SCHEMES["argon2"].digest(given, _ANY_SALT, Type.ID.value, 19, memory, passes, lanes, KEPT)
        case _:
            raise ValueError(f"nobody knows how to spend {work}")


def _powers(cost: int) -> Iterator[int]:
    """As logarithms, those of two that add up to it. bcrypt has none below 4."""
    yield from (bit for bit in range(4, cost.bit_length()) if cost >> bit & 1)
