"""One JSON document with a list in it, entry by entry: of a large one no more is held than a piece, or what is passed
over on the way to the list."""

import codecs
import io
import json
import re
from collections.abc import Iterator
from typing import Any

from hydracore.validation import STRICT, NotJson, check_whole

_PIECE = 1 << 16
_LONGEST_ENTRY = 1 << 20
# Beside the list, such as all the clients of a realm.
_LONGEST_MEMBER = 1 << 26
_BLANK = re.compile(r"[ \t\n\r]*")
# Behind a number that is not whole yet; the empty text, too.
_MAY_GO_ON = ("", *".eE+-0123456789")


class NoList(ValueError):
    """The document has no such list."""


class Document:
    """``upto`` is how many bytes were read. Whatever reads raises :class:`NotJson`, with the reason."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text = ""
        self._at = 0
        self._ended = False
        self.upto = 0

    def entries(self, member: str = "") -> Iterator[Any]:
        """Those of the list that the document is, or that it has under ``member``. Raises :class:`NoList` where there
        is none."""
        if self._next() == "[":
            yield from self._list()
        elif member and self._next() == "{":
            yield from self._member(member)
        else:
            self._value(_LONGEST_ENTRY)
            raise NoList
        if self._next():
            raise NotJson("It goes on behind its end.")

    def _list(self) -> Iterator[Any]:
        self._take("[")
        while self._next() != "]":
            yield self._value(_LONGEST_ENTRY)
            self._part("]")
        self._take("]")

    def _member(self, wanted: str) -> Iterator[Any]:
        names: set[str] = set()
        there = False
        self._take("{")
        while self._next() != "}":
            name = self._name()
            if name in names:
                raise NotJson("A member is there twice.")
            names.add(name)
            if name == wanted and self._next() == "[":
                there = True
                yield from self._list()
            else:
                self._value(_LONGEST_MEMBER)
            self._part("}")
        self._take("}")
        if not there:
            raise NoList

    def _name(self) -> str:
        if self._next() != '"':
            raise NotJson("A member has no name.")
        name = str(self._value(_LONGEST_ENTRY))
        self._take(":")
        return name

    def _part(self, end: str) -> None:
        """Pass over the comma between two, behind which there has to be one more."""
        if self._next() != end:
            self._take(",")
            if self._next() == end:
                raise NotJson("A comma has nothing behind it.")

    def _take(self, wanted: str) -> None:
        if (found := self._next()) != wanted:
            raise NotJson(f"It ends too early: {wanted} is missing." if not found else f"{wanted} is missing.")
        self._at += 1

    def _next(self) -> str:
        """What comes next that is no blank; "" at the end."""
        while True:
            blank = _BLANK.match(self._text, self._at)
            self._at = blank.end() if blank else self._at
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def _value(self, longest: int) -> Any:
        self._next()
        while True:
            value, end = self._decoded()
            if end < 0 or self._text[end : end + 1] in _MAY_GO_ON:
                if not self._ended and len(self._text) - self._at <= longest:
                    self._more()
                    continue
                if end < 0:
                    raise NotJson(f"{value}.")
            if end - self._at > longest:
                raise NotJson(f"Something in it is longer than {longest} characters.")
            self._at = end
            check_whole(value)
            return value

    def _decoded(self) -> tuple[Any, int]:
        """The value that comes next, and where it ends in the text; or what is wrong, or not there yet, and -1."""
        try:
            return STRICT.raw_decode(self._text, self._at)
        except json.JSONDecodeError as error:
            return error.msg, -1
        except RecursionError:
            raise NotJson("It is nested too deeply.") from None
        except NotJson:
            raise
        except ValueError:
            raise NotJson("It holds a number that is too long or too large.") from None

    def _more(self) -> bool:
        # Twice as much each time: what is long is not begun anew for every piece.
        piece = self._file.read(max(_PIECE, len(self._text) - self._at))
        self.upto += len(piece)
        try:
            text = self._decoder.decode(piece, final=not piece)
        except UnicodeDecodeError:
            raise NotJson("The text is not valid UTF-8.") from None
        self._text, self._at, self._ended = self._text[self._at :] + text, 0, not piece
        return not self._ended
