"""What plugins register: records with a unique name and the plain callables behind it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.message import EmailMessage
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from hydracore.events import Event
from hydracore.models import Account
from hydracore.threads import Threads

T = TypeVar("T")

_THREADS = 4
_MOST_WAITING = 64


async def _nothing_to_close() -> None:
    pass


@dataclass(frozen=True)
class MailTransport:
    """Hands messages over.

    ``send(message, key)`` returns, and returns nothing, once the message is taken over. It raises ``MailDeferred``
    where a later try may work and ``MailRefused`` where none will; anything else that it raises, or returns, counts
    as deferred. ``key`` is the same for each try of one message, for transports that can refuse
    duplicates by it. It is called from one event loop, several at a time, and has ``mail.timeout``
    seconds. ``close()`` is called once, at the end. ``delivers`` is False for a transport
    that reaches nobody, as the folder does. ``over`` names the transports that this one hands over to
    (``Context.mail_transport`` gives them): they must be there, and it delivers if they all do.
    """

    name: str
    send: Callable[[EmailMessage, str], Awaitable[None]]
    close: Callable[[], Awaitable[None]] = _nothing_to_close
    delivers: bool = True
    over: Sequence[str] = ()


@dataclass(frozen=True)
class NewPassword:
    """A password that is about to be set. ``user_id`` and ``current_hash`` are "" where the account is new."""

    password: str = field(repr=False)
    email: str
    user_id: str = ""
    current_hash: str = field(default="", repr=False)


@dataclass(frozen=True)
class PasswordPolicy:
    """Judges a password that is about to be set, by one of two callables.

    ``check(password, email)`` runs in a thread, so it may compute. ``judge(new_password)`` is a
    coroutine function and may ask a service; it gets a :class:`NewPassword`. Either raises
    ``PasswordRefused`` with a public sentence. The password is NFC-normalised. It has
    ``plugins.timeout`` seconds; one that is late or fails refuses with 503.
    """

    name: str
    check: Callable[[str, str], None] | None = None
    judge: Callable[[NewPassword], Awaitable[None]] | None = None

    def __post_init__(self) -> None:
        if (self.check is None) == (self.judge is None):
            raise TypeError(f"the password policy {self.name} has either a check or a judge")


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
    starts no window where there is none. It has one second; when it fails or is late, each process counts
    for itself for a while. ``close()`` is called once, at the end. ``give_back(keys)`` may be there for the sake of
    speed: it gives one hit back to each of up to 100 keys, none of which comes twice, in one operation.
    """

    name: str
    hit: Callable[[str, int, int], Awaitable[Count]]
    close: Callable[[], Awaitable[None]] = _nothing_to_close
    give_back: Callable[[Sequence[str]], Awaitable[None]] | None = None


@dataclass(frozen=True)
class Identity:
    """What an authenticator vouches for: the owner of the address signed in.

    ``email_verified`` says that the address is proven; it is True or False, and nothing that passes for them.
    ``profile`` is kept when the account is made; it has 65,536 bytes of JSON at most.
    """

    email_verified: bool = True
    profile: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Authenticator:
    """Proves an address and a password against something else than HydraCore's own accounts.

    ``authenticate(email, password)`` returns an :class:`Identity`, or None for a wrong password and
    for an unknown address alike, after the same work and time. It raises ``LoginRefused`` to refuse
    someone who has proven who they are. ``email`` is the address as it was typed, checked;
    ``password`` is NFC-normalised. It has ``plugins.timeout`` seconds; while one that is late or fails might have
    known better, a sign-in that nobody else proves is answered 503.
    """

    name: str
    authenticate: Callable[[str, str], Awaitable[Identity | None]]


@dataclass(frozen=True)
class Index:
    """An index of a plugin's collection. ``keys`` are names with 1 (ascending) or -1. ``expire_after`` is in seconds,
    0 or more, after the (single) key's time. One that is ``sparse`` passes over documents without the keys."""

    keys: Sequence[tuple[str, int]]
    unique: bool = False
    expire_after: int | None = None
    sparse: bool = False


@dataclass(frozen=True)
class Collection:
    """A collection that a plugin owns; its indexes are ensured at every start.

    In the database it is called ``<plugin>.<name>``, so no two plugins meet. ``durable`` collections are
    written with ``w: majority, j: true``; others are acknowledged by one member.
    """

    name: str
    indexes: Sequence[Index] = ()
    durable: bool = True


@dataclass(frozen=True)
class ProfileMember:
    """A member that register accepts beside ``email`` and ``password``.

    ``name`` is of lower-case letters, digits and ``_``; ``schema`` is its JSON Schema (draft 2020-12),
    and what breaks it is answered 422. Its value reaches ``hydracore_before_register`` in ``profile``, and is
    kept in the account's ``profile`` unless ``keep`` is False.
    """

    name: str
    schema: Mapping[str, Any]
    required: bool = False
    keep: bool = True


@dataclass(frozen=True)
class Route:
    """A call under the prefix.

    ``path`` begins with ``/<plugin's name>`` (its ``_`` may be written ``-``), so that no other plugin can want the
    same. ``{name}`` stands for one segment, handed to the method by that name. Of two paths that match, the one that
    was registered first is taken. ``endpoint`` is a subclass of ``hydracore.plugin.Endpoint`` that says whom it
    answers.
    """

    path: str
    endpoint: type[Any]


@dataclass(frozen=True)
class Command:
    """A command of ``hydracore``: a click command or group, named ``name``.

    A callback that is a coroutine function runs with the database open, as the server has it; a plain one runs
    without. What it raises as a ``HydraError`` or ``StartupError`` is printed as a sentence.
    """

    name: str
    command: Any


@dataclass(frozen=True)
class EventListener:
    """Hears events in order, in batches, behind the requests.

    ``listen(events)`` gets the events that are of one of the types ``of``, in the order in which this process announced
    them, up to a hundred at once, never two batches at a time. It has ``plugins.timeout`` seconds. If it raises or is
    late, the same batch comes again, after a pause that grows; while 10,000 wait, newer ones are dropped
    and counted in the log. At the end it is asked once more for what is left. An event's ``id`` tells repeats apart.
    """

    name: str
    listen: Callable[[Sequence[Any]], Awaitable[None]]
    of: tuple[type[Event], ...] = (Event,)


@dataclass(frozen=True)
class HealthCheck:
    """Says whether what a plugin depends on is there; ``hydracore plugins list`` asks.

    ``check()`` returns "" when all is well, else a sentence for the operator, without secrets. It has
    ``plugins.timeout`` seconds; raising, or returning what is no text, counts as a sentence too.
    """

    name: str
    check: Callable[[], Awaitable[str]]


class Surroundings(Protocol):
    """What a HydraCore lends to its plugins, once it is open."""

    def collection(self, name: str) -> Any: ...

    def mac(self, purpose: str, *parts: str) -> str: ...

    def macs(self, purpose: str, *parts: str) -> tuple[str, ...]: ...

    def mail_transport(self, name: str) -> MailTransport: ...

    def address_key(self, email: str) -> str: ...

    async def verify_password(self, encoded: str, password: str) -> bool: ...

    async def hash_password(self, password: str) -> str: ...

    async def find_account(self, email: str) -> Account | None: ...

    async def send_mail(
        self, template: str, to: str, values: Mapping[str, Any], *, life: timedelta, language: str
    ) -> None: ...


def own_threads(plugin: str) -> Threads:
    """The threads of one plugin."""
    return Threads(plugin, _THREADS, _MOST_WAITING, nice=True)


class Context:
    """What a plugin is given when it is made: its own section, and the world around it.

    ``config`` is the section ``[plugins.<name>]``, checked against the plugin's
    ``schemas/config.json`` and completed with its defaults. ``settings`` is the whole configuration, ``now()``
    the time, ``token(n)`` n random bytes as text: use these two, so that tests can move the one and know the other.

    The methods work once HydraCore is open, unless they say otherwise: not while the plugin is made, nor in
    ``hydracore_register_…``.
    """

    def __init__(
        self,
        name: str,
        config: Mapping[str, Any],
        *,
        settings: Any,
        now: Callable[[], datetime],
        token: Callable[[int], str],
        surroundings: Surroundings,
        threads: Callable[[str], Threads] = own_threads,
    ) -> None:
        self.name = name
        self.config = config
        self.data_dir: Path = settings.data_dir
        self.settings = settings
        self.now = now
        self.token = token
        self._surroundings = surroundings
        self._threads = threads(name)

    def collection(self, name: str) -> Any:
        """The driver's collection that this plugin registered as ``name``: PyMongo's asynchronous one, or
        Motor's, whose verbs are the same."""
        return self._surroundings.collection(f"{self.name}.{name}")

    def mac(self, *parts: str) -> str:
        """A keyed digest of ``parts``, 43 characters, this plugin's own: what to keep in place of a secret that
        comes back."""
        return self._surroundings.mac(f"plugin/{self.name}", *parts)

    def macs(self, *parts: str) -> tuple[str, ...]:
        """What :meth:`mac` gives, and has given, of ``parts``: look for what is kept by any of these, for the server
        secret may have been replaced since. The first is :meth:`mac`'s."""
        return self._surroundings.macs(f"plugin/{self.name}", *parts)

    def mail_transport(self, name: str) -> MailTransport:
        """The transport of that name, which this plugin's own is ``over``."""
        return self._surroundings.mail_transport(name)

    async def in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        """What ``function(*arguments)`` returns or raises, in one of four threads that are this plugin's own: for what
        would block the event loop. ``asyncio.to_thread`` shares its threads with all plugins. Cancelling gives it up.
        Raises ``Unavailable`` when 64 wait, or 100 that were given up still run. Works at any time."""
        return await self._threads.run(partial(function, *arguments))

    async def verify_password(self, encoded: str, password: str) -> bool:
        """Whether ``password`` is the one behind an encoded argon2 hash, in the same bounded threads as
        sign-ins. For "" it spends the time of one and says False. Raises ``HashingOverloaded``."""
        return await self._surroundings.verify_password(encoded, password)

    async def hash_password(self, password: str) -> str:
        """The encoded argon2id hash, with the configured cost. Raises ``HashingOverloaded``."""
        return await self._surroundings.hash_password(password)

    def address_key(self, email: str) -> str:
        """What all spellings of one address share, and no two addresses: what accounts are found by. Raises
        ``ValueError`` for what is no address."""
        return self._surroundings.address_key(email)

    async def find_account(self, email: str) -> Account | None:
        """The account of an address, however its letters' case was typed. Raises ``StoreUnavailable``."""
        return await self._surroundings.find_account(email)

    async def send_mail(
        self,
        template: str,
        to: str,
        values: Mapping[str, Any],
        *,
        life: timedelta = timedelta(days=1),
        language: str = "",
    ) -> None:
        """Put a mail into the durable outbox: ``templates/mail/<plugin>.<template>/``, filled with ``values``,
        ``email`` and ``product``. It is on disk, sealed, when this returns, and tried again for ``life``.
        ``language`` is what ``Endpoint.language`` says; what the owner of an account is known to read comes before it.
        Raises ``ValueError`` for an address that is none,
        ``LookupError`` for a template that is not there, and ``StoreUnavailable``."""
        await self._surroundings.send_mail(f"{self.name}.{template}", to, values, life=life, language=language)
