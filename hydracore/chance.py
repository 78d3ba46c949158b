"""Time and chance: what is injected at construction, so that nothing else reads a clock or a random source."""

import secrets
from collections.abc import Callable
from datetime import UTC, datetime

Now = Callable[[], datetime]
Token = Callable[[int], str]


def now() -> datetime:
    """The time in UTC, to the millisecond: what MongoDB keeps, so that a value read back equals the one written."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def token(size: int) -> str:
    """``size`` random bytes as URL-safe text that begins with no hyphen: a command line would take it for an option."""
    while (text := secrets.token_urlsafe(size)).startswith("-"):
        pass
    return text
