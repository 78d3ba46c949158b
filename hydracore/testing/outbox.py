"""The mail that was sent."""

import re
import time
from collections.abc import Callable, Collection, Sequence
from email.message import EmailMessage
from typing import Any, TypeVar

from hydracore.addresses import parse_address
from hydracore.plugin import Context, MailTransport, events, hookimpl

T = TypeVar("T")

NAME = "testing_outbox"

_POLL = 0.01
_PATIENCE = 10
# A registration's mail holds a code, or says that there is an account already.
_VERIFICATIONS = ("registration", "verify_email")
_RESETS = ("reset_password",)
# The shipped templates' first; a plugin's may have it anywhere in the text.
_DIGITS = (r"^([0-9]{6})\s*$", r"(?<![\w@.-])([0-9]{6})(?![\w@-])")
_TOKEN = (r"#token=([\w-]{43})(?![\w-])", r"(?<![\w-])([\w-]{43})(?![\w-])")


class Outbox:
    """A mail transport, named ``testing_outbox``, that keeps what it is given.

    ``letters`` are the messages, ``keys`` the idempotency keys of all tries. While ``failure`` is an exception it is
    raised instead. The server's thread fills it while a test's looks on.
    """

    def __init__(self) -> None:
        self.letters: list[EmailMessage] = []
        self.keys: list[str] = []
        self.failure: Exception | None = None
        self._sent: list[tuple[str, EmailMessage]] = []
        self._kinds: dict[str, str] = {}

    def plugin(self, context: Context) -> Any:
        """The plugin's class, for ``HydraCore(plugins={"testing_outbox": outbox.plugin})``."""
        return _OutboxPlugin(self)

    async def send(self, message: EmailMessage, key: str) -> None:
        self.keys.append(key)
        if self.failure is not None:
            raise self.failure
        self.letters.append(message)
        self._sent.append((key.rpartition("-")[0], message))

    def sent_as(self, intent_id: str, kind: str) -> None:
        """Note what a letter is about: its subject may be of another language, or of a plugin's template."""
        self._kinds[intent_id] = kind

    def found(self, to: str, about: str = "") -> list[EmailMessage]:
        """The letters to an address whose subject has ``about``."""
        return [each for each in list(self.letters) if _is_to(each, to) and about in str(each["Subject"])]

    def wait(self, to: str, about: str = "", nth: int = 1, timeout: float = _PATIENCE) -> EmailMessage:
        """The nth letter to an address whose subject has ``about``, once it is there. Raises ``AssertionError``, with
        what is there instead, after ``timeout`` seconds."""
        return self._nth(lambda: self.found(to, about), nth, f"letter {nth} to {to} about {about!r}", timeout)

    def code(self, to: str, nth: int = 1, timeout: float = _PATIENCE) -> str:
        """The six digits of the nth verification mail, whatever its language and template."""
        return self._nth(
            lambda: self._held(to, _VERIFICATIONS, _DIGITS), nth, f"verification mail {nth} to {to}", timeout
        )

    def reset_token(self, to: str, nth: int = 1, timeout: float = _PATIENCE) -> str:
        """The token of the nth mail about a forgotten password."""
        return self._nth(lambda: self._held(to, _RESETS, _TOKEN), nth, f"mail {nth} to {to} with a token", timeout)

    def _held(self, to: str, kinds: Collection[str], patterns: Sequence[str]) -> list[str]:
        ours = [letter for id_, letter in list(self._sent) if self._kinds.get(id_) in kinds and _is_to(letter, to)]
        return [held for letter in ours if (held := _first(patterns, text_of(letter)))]

    def _nth(self, look: Callable[[], list[T]], nth: int, what: str, timeout: float) -> T:
        deadline = time.monotonic() + timeout
        while len(found := look()) < nth:
            if time.monotonic() >= deadline:
                there = [f"{letter['To']}: {letter['Subject']}" for letter in list(self.letters)]
                raise AssertionError(f"no {what}; there are {there or 'none'}")
            time.sleep(_POLL)
        return found[nth - 1]


class _OutboxPlugin:
    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    @hookimpl
    def hydracore_register_mail_transports(self) -> list[MailTransport]:
        return [MailTransport(NAME, self._outbox.send)]

    @hookimpl
    async def hydracore_on_event(self, event: events.Event) -> None:
        if isinstance(event, events.MailSent):
            self._outbox.sent_as(event.intent_id, event.kind)


def text_of(letter: EmailMessage) -> str:
    """The plain text of a letter."""
    part = letter.get_body(("plain",))
    return "" if part is None else str(part.get_content())


def _first(patterns: Sequence[str], text: str) -> str:
    found = (re.search(pattern, text, re.MULTILINE) for pattern in patterns)
    return next((match[1] for match in found if match), "")


def _is_to(letter: EmailMessage, address: str) -> bool:
    return _key(str(letter["To"])) == _key(address)


def _key(address: str) -> str:
    # A letter's address has its domain in ASCII, whatever was typed.
    try:
        return parse_address(address).key
    except ValueError:
        return address.lower()
