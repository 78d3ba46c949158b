"""Searching a sorted list of hashes, however long, by halves."""

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

from hydracore.plugin import StartupError, logger
from hydracore_password_breached.rest import NotTold

log = logger("hydracore.password_breached")

_LINE = re.compile(rb"([0-9A-Fa-f]{40}):([0-9]{1,12})(\r?\n)?")
_LONGEST_LINE = 64
_GLANCES = 64


class Listed:
    """The list at ``name``, opened for each search, so that a replaced one counts at once. ``in_thread`` is the
    context's. Raises ``StartupError`` for one that cannot be searched."""

    def __init__(self, name: str, in_thread: Callable[..., Awaitable[int]]) -> None:
        self._in_thread = in_thread
        self._file = Path(name)
        if not name:
            raise StartupError(
                "plugins.password_breached.source is file, and plugins.password_breached.file is empty: "
                "set it to the path of the list."
            )
        try:
            _glance(self._file)
        except (OSError, NotTold) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise StartupError(
                f"plugins.password_breached.file, {name}, cannot be searched ({reason}): "
                "it should be a readable file of lines SHA1:COUNT, sorted by hash."
            ) from error

    async def seen(self, digest: str, timeout: float) -> int:  # whoever waits has the deadline
        """Raises ``OSError``, and ``NotTold`` for lines that are none."""
        return await self._in_thread(self._search, digest.encode())

    def _search(self, digest: bytes) -> int:
        with _opened(self._file) as file:
            low, high = 0, file.seek(0, 2)
            # If it is there, its line begins at low or later, and before high.
            while low < high:
                middle = (low + high) // 2
                begins, ends, found, count = _line_from(file, middle)
                if begins >= high or found > digest:
                    high = middle
                elif found < digest:
                    low = ends
                else:
                    return count
        return 0


def _opened(path: Path) -> BinaryIO:
    # Opening a pipe would wait for its other end.
    if not S_ISREG(path.stat().st_mode):
        raise OSError(0, "no regular file")
    return path.open("rb")


def _line_from(file: BinaryIO, place: int) -> tuple[int, int, bytes, int]:
    """The first line that begins at ``place`` or later: where it begins and ends, its hash and count. Past the last
    one all is empty."""
    file.seek(max(place - 1, 0))
    if place:
        _read_line(file)  # The end of the one before, be it its newline alone.
    begins = file.tell()
    line = _read_line(file)
    if not line:
        return begins, begins, b"", 0
    match = _LINE.fullmatch(line)
    if match is None:
        raise NotTold("plugins.password_breached.file has a line that is not SHA1:COUNT")
    return begins, file.tell(), match[1].upper(), int(match[2])


def _read_line(file: BinaryIO) -> bytes:
    line = file.readline(_LONGEST_LINE)
    if len(line) == _LONGEST_LINE and not line.endswith(b"\n"):
        raise NotTold("plugins.password_breached.file has a line that is not SHA1:COUNT")
    return line


def _glance(path: Path) -> None:
    """Look at lines here and there, the first and the last included: each must come after the one before."""
    with _opened(path) as file:
        size = file.seek(0, 2)
        if not size:
            log.warning("the list of breached passwords is empty: it refuses none", file=str(path))
            return
        before, begun = b"", -1
        for number in range(_GLANCES + 1):
            begins, _, found, _ = _line_from(
                file, size * number // _GLANCES if number < _GLANCES else _last(file, size)
            )
            if begins >= size or begins <= begun:
                continue
            if found <= before:
                raise NotTold("it is not sorted")
            before, begun = found, begins


def _last(file: BinaryIO, size: int) -> int:
    """Where the last line begins."""
    file.seek(max(size - _LONGEST_LINE, 0))
    tail = file.read(_LONGEST_LINE)
    return size - len(tail) + tail.rstrip(b"\r\n").rfind(b"\n") + 1
