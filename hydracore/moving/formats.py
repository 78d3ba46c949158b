"""Files into records: JSON lines, CSV, or one JSON document with a list in it. All are read piece by piece."""

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from hydracore.moving.documents import Document, NoList
from hydracore.validation import NotJson, strict_json

LONGEST_LINE = 1 << 20
_BOM = b"\xef\xbb\xbf"


class NotReadable(ValueError):
    """The file is not what it should be: nothing more is read of it."""


@dataclass(frozen=True)
class Record:
    """What stands at a ``place`` of the file, or the ``problem`` with it; ``upto`` is how many bytes were read by then,
    where that can be told."""

    place: str
    value: Any = None
    problem: str = ""
    upto: int = 0


Format = Callable[[io.BufferedReader], Iterator[Record]]


def json_lines(file: io.BufferedReader) -> Iterator[Record]:
    """One JSON value a line; empty lines are passed over. Raises :class:`NotReadable` for a line without an end."""
    upto = number = 0
    while line := file.readline(LONGEST_LINE + 1):
        upto, number = upto + len(line), number + 1
        if len(line) > LONGEST_LINE:
            raise NotReadable(f"line {number} is longer than {LONGEST_LINE} bytes: this is no file of JSON lines.")
        if not (bare := line.removeprefix(_BOM).strip()):
            continue
        try:
            yield Record(f"line {number}", strict_json(bare), upto=upto)
        except NotJson as error:
            yield Record(f"line {number}", problem=f"This is not valid JSON. {error}", upto=upto)


def csv_rows(file: io.BufferedReader) -> Iterator[Record]:
    """A row is a mapping by the names in the first line. Raises :class:`NotReadable`."""
    upto = 0

    def lines() -> Iterator[str]:
        nonlocal upto
        while line := file.readline(LONGEST_LINE + 1):
            if len(line) > LONGEST_LINE:
                raise csv.Error
            text = (line if upto else line.removeprefix(_BOM)).decode("utf-8")
            upto += len(line)
            yield text

    csv.field_size_limit(LONGEST_LINE)  # Whoever keeps pictures in a user's metadata has more than its 128 KiB.
    reader = csv.DictReader(lines(), strict=True)
    try:
        for row in reader:
            place = f"line {reader.line_num}"
            if None in row or None in row.values():
                yield Record(place, problem="It has not as many columns as the first line.", upto=upto)
            else:
                yield Record(place, row, upto=upto)
    except (csv.Error, UnicodeDecodeError) as error:
        raise NotReadable(f"line {reader.line_num + 1} is no CSV in UTF-8.") from error


def document(member: str = "") -> Format:
    """One JSON document that is a list, or has it under ``member``. Raises :class:`NotReadable`."""

    def read(file: io.BufferedReader) -> Iterator[Record]:
        number, whole = 0, Document(file)
        try:
            for number, value in enumerate(whole.entries(member), 1):
                yield Record(f"entry {number}", value, upto=whole.upto)
        except NoList:
            raise NotReadable(f"it has no list {member or 'of accounts'}.") from None
        except NotJson as error:
            where = f" behind entry {number}" if number else ""
            raise NotReadable(f"it is not valid JSON{where}. {error}") from error

    return read


def any_of_them(file: io.BufferedReader) -> Iterator[Record]:
    """A list, JSON lines or CSV, told by the first character."""
    start = file.peek(4096)[:4096].removeprefix(_BOM).lstrip()[:1]
    read: Format = {b"[": document(), b"{": json_lines}.get(start, csv_rows)
    return read(file)
