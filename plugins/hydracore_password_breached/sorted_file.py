"""A list of ``HASH:COUNT`` lines in the order of the hashes, searched without being read."""

import re
from pathlib import Path
from typing import BinaryIO

_LINE = re.compile(rb"([0-9A-Fa-f]{40}):([0-9]{1,15})\r?\n?")
_DIGITS = 40
# Where so little is left, reading on is quicker than seeking.
_SMALL = 4096


def count_in(file: Path, digest: str) -> int:
    """How often the password of that SHA-1 (upper case) was seen; 0 for one that is not there. Opened anew for each
    search, so that a list that was replaced is the one that counts. Raises ``OSError``, and ``ValueError`` for a line
    that is none."""
    wanted = digest.encode()
    with file.open("rb") as stream:
        low, high = 0, stream.seek(0, 2)
        while high - low > _SMALL:
            middle = (low + high) // 2
            start = _next_line(stream, middle, low)
            line = stream.readline()
            if start >= high or not line or _hash(line) > wanted:
                high = middle
            else:
                low = start
        stream.seek(low)
        return _scan(stream, wanted)


def looks_right(file: Path) -> bool:
    """Whether it begins like such a list. An empty one is one, too."""
    with file.open("rb") as stream:
        head = stream.read(_SMALL)
        lines = head.splitlines()
        whole = lines if len(head) < _SMALL else lines[:-1]
    matches = [_LINE.fullmatch(line) for line in whole]
    hashes = [match[1].upper() for match in matches if match]
    return len(hashes) == len(whole) and hashes == sorted(hashes) and (bool(whole) or not head)


def _next_line(stream: BinaryIO, middle: int, low: int) -> int:
    """Move to the first line that begins at ``middle`` or after it, and say where that is."""
    if middle <= low:
        stream.seek(low)
        return low
    stream.seek(middle - 1)
    stream.readline()  # The rest of the line before; nothing but its end, where a line begins at middle.
    return stream.tell()


def _scan(stream: BinaryIO, wanted: bytes) -> int:
    for line in stream:
        found = _hash(line)
        if found == wanted:
            return int(line[_DIGITS + 1 :])
        if found > wanted:
            break
    return 0


def _hash(line: bytes) -> bytes:
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError("the list has a line that is none")
    return match[1].upper()
