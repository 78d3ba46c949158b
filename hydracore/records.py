"""What plugins register: records with a unique name and the plain callables behind it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any


async def _nothing_to_close() -> None:
    pass


@dataclass(frozen=True)
class MailTransport:
    """Hands messages over.

    ``send(message, key)`` returns once the message is taken over. It raises ``MailDeferred``
    where a later try may work and ``MailRefused`` where none will; anything else it raises counts
    as deferred. ``key`` is the same for each try of one message, for transports that can refuse
    duplicates by it. It is called from one event loop, several at a time, and has ``mail.timeout``
    seconds. ``close()`` is called once, at the end. ``delivers`` is False for a transport
    that reaches nobody, as the folder does.
    """

    name: str
    send: Callable[[EmailMessage, str], Awaitable[None]]
    close: Callable[[], Awaitable[None]] = _nothing_to_close
    delivers: bool = True


@dataclass(frozen=True)
class PasswordPolicy:
    """Judges a password that is about to be set.

    ``check(password, email)`` raises ``PasswordRefused`` with a public sentence. The password is
    NFC-normalised. It runs in a thread, so it may compute; it has ``plugins.timeout`` seconds.
    """

    name: str
    check: Callable[[str, str], None]


@dataclass(frozen=True)
class Count:
    """Where a counter stands after a hit, and in how many seconds it starts again from zero."""

    hits: int
    resets_in: float


@dataclass(frozen=True)
class LimitBackend:
    """Counts hits in windows.

    ``hit(key, window, cost)`` adds ``cost`` (-1 gives one back) to the counter of ``key``, which
    starts from zero ``window`` seconds after its first hit, and returns a :class:`Count`. It must be
    atomic: of a hundred hits at once, each sees another number. Giving back never goes below zero, and
    starts no window where there is none.
    """

    name: str
    hit: Callable[[str, int, int], Awaitable[Count]]


@dataclass(frozen=True)
class Index:
    """An index of a plugin's collection. ``expire_after`` is in seconds after the (single) key's time."""

    keys: Sequence[tuple[str, int]]
    unique: bool = False
    expire_after: int | None = None


@dataclass(frozen=True)
class Collection:
    """A collection that a plugin owns; its indexes are ensured at every start.

    ``durable`` collections are written with ``w: majority, j: true``; others are acknowledged by one member.
    """

    name: str
    indexes: Sequence[Index] = ()
    durable: bool = True


class Context:
    """What a plugin is given when it is made: its own section, and the world around it.

    ``config`` is the section ``[plugins.<name>]``, checked against the plugin's
    ``schemas/config.json`` and completed with its defaults.
    """

    def __init__(
        self,
        name: str,
        config: Mapping[str, Any],
        *,
        settings: Any,
        now: Callable[[], Any],
        database: Callable[[str], Any],
    ) -> None:
        self.name = name
        self.config = config
        self.data_dir = settings.data_dir
        self.settings = settings
        self.now = now
        self._database = database

    def collection(self, name: str) -> Any:
        """The driver's collection that was registered as ``name`` (PyMongo's asynchronous one, or
        Motor's). It is there once the server runs, not yet while the plugin is made."""
        return self._database(name)
