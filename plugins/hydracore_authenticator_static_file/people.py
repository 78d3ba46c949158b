"""The file of people: read whole, or not at all."""

import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from argon2 import Parameters, extract_parameters
from argon2.exceptions import InvalidHashError

State = tuple[int, ...]
Key = Callable[[str], str]

_MOST_BYTES = 16 * 1024 * 1024
_ENCODED = re.compile(r"\$argon2(id|i|d)\$v=\d+\$m=\d+,t=\d+,p=\d+\$[A-Za-z0-9+/]{11,}\$[A-Za-z0-9+/]{16,}")
_GONE: State = ()


class Flaw(Exception):
    """What keeps the file from being taken, and the remedy. It names lines, never what they say."""


def state_of(file: Path) -> State:
    """Tells whether the file is another than before."""
    try:
        return _state(file.stat())
    except OSError:
        return _GONE


def read(file: Path, key: Key) -> tuple[State, dict[str, str]]:
    """The encoded hashes by the addresses' keys, which ``key`` makes. Raises :class:`Flaw`."""
    try:
        with open(file, "rb", opener=_without_waiting) as stream:  # Path.open() takes no opener
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise Flaw(f"{file} is no file. Name a file.")
            raw = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        raise Flaw(f"{file} cannot be read ({error.strerror}). Put it there, readable for this user.") from error
    if len(raw) > _MOST_BYTES:
        raise Flaw(f"{file} has more than {_MOST_BYTES // 1024**2} MiB. Keep so many people elsewhere.")
    # The state from before the reading: what is written meanwhile is seen the next time.
    return _state(status), _parse(file, raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"), key)


def with_other_cost(people: Mapping[str, str], memory_kib: int, time_cost: int, parallelism: int) -> int:
    """How many hashes take another time than those of the parameters."""

    def cost(one: Parameters) -> tuple[int, int, int]:
        return one.memory_cost, one.time_cost, one.parallelism

    wanted = (memory_kib, time_cost, parallelism)
    return sum(cost(extract_parameters(encoded)) != wanted for encoded in people.values())


def _without_waiting(path: str, flags: int) -> int:
    # A pipe would wait for its writer.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _state(status: os.stat_result) -> State:
    # The time of change too: it moves with the rights, without which the file could not be read.
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _parse(file: Path, lines: Iterable[bytes], key: Key) -> dict[str, str]:
    people: dict[str, str] = {}
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        where = f"{file}, line {number}"
        try:
            text = line.decode().strip()
        except UnicodeDecodeError:
            raise Flaw(f"{where} is not UTF-8: save the file as UTF-8.") from None
        if not text or text.startswith("#"):
            continue
        address, encoded = _person(where, text, key)
        if address in seen:
            raise Flaw(f"{where} has the same address as line {seen[address]}: keep one of them.")
        seen[address], people[address] = number, encoded
    return people


def _person(where: str, text: str, key: Key) -> tuple[str, str]:
    # The last colon: an address may have one in quotes, a hash never has.
    email, colon, encoded = (part.strip() for part in text.rpartition(":"))
    if not colon:
        raise Flaw(f"{where} has no colon: write address:hash, as static-file hash prints it, or take it out.")
    try:
        address = key(email)
    except ValueError:
        raise Flaw(f"{where} has no valid e-mail address before its last colon: correct it.") from None
    if not _is_hash(encoded):
        raise Flaw(
            f"{where} has no argon2 hash after its last colon: take it out, and make it anew with "
            "hydracore static-file hash."
        )
    return address, encoded


def _is_hash(encoded: str) -> bool:
    match = _ENCODED.fullmatch(encoded)
    try:
        cost = extract_parameters(encoded)
    except (InvalidHashError, ValueError):
        return False
    # What argon2 itself takes (RFC 9106, section 3.1), in base64 that can be decoded.
    possible = cost.time_cost >= 1 <= cost.parallelism and cost.memory_cost >= 8 * cost.parallelism
    return match is not None and possible and not any(len(part) % 4 == 1 for part in encoded.split("$")[-2:])
