"""Files into records: JSON lines, CSV, or one JSON document with a list in it. Lines and CSV are read piece by piece; a
document is read whole."""

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

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
        for line in file:
            text = (line if upto else line.removeprefix(_BOM)).decode("utf-8")
            upto += len(line)
            yield text

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
    """One JSON document that is a list, or has it under ``member``."""

    def read(file: io.BufferedReader) -> Iterator[Record]:
        raw = file.read()
        try:
            found = strict_json(raw.removeprefix(_BOM))
        except NotJson as error:
            raise NotReadable(f"it is not valid JSON. {error}") from error
        if member and isinstance(found, dict):
            found = found.get(member)
        if not isinstance(found, list):
            raise NotReadable(f"it has no list {member or 'of accounts'}.")
        for number, value in enumerate(found, 1):
            yield Record(f"entry {number}", value, upto=len(raw) * number // len(found))

    return read


def any_of_them(file: io.BufferedReader) -> Iterator[Record]:
    """A list, JSON lines or CSV, told by the first character."""
    start = file.peek(4096)[:4096].removeprefix(_BOM).lstrip()[:1]
    read: Format = {b"[": document(), b"{": json_lines}.get(start, csv_rows)
    return read(file)
