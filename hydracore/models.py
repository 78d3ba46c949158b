"""What the domain is made of. Frozen values; ``.public()`` is the JSON view."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, NoReturn, TypeVar, get_args

CodeKind = Literal["verification", "reset", "email_change"]
MailKind = Literal[
    "verify_email",
    "reset_password",
    "password_changed",
    "registration",
    "change_email",
    "email_changed",
    "account_closed",
]
DeliveryState = Literal["waiting", "dead", "delivered"]
KeyState = Literal["next", "active", "retired"]
MailState = Literal["waiting", "dead"]
Scope = Literal[
    "users:read",
    "users:write",
    "roles:write",
    "sessions:read",
    "sessions:write",
    "mail:read",
    "mail:write",
    "webhooks:read",
    "webhooks:write",
    "keys:read",
    "keys:write",
    "tokens:read",
    "tokens:write",
    "audit:read",
]
SCOPES: tuple[Scope, ...] = get_args(Scope)


Item = TypeVar("Item")


def _told(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _refuse(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
    raise TypeError("this is HydraCore's, to be read: change a copy.deepcopy() of it")


class _Members(dict[str, Any]):
    # Still a dict, so that JSON and BSON take it. A copy of it is a plain one.
    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type, tuple[dict[str, Any]]]:
        return dict, (dict(self),)


class _Items(list[Any]):
    __setitem__ = __delitem__ = __iadd__ = __imul__ = append = clear = extend = insert = pop = remove = _refuse
    reverse = sort = _refuse

    def __reduce__(self) -> tuple[type, tuple[list[Any]]]:
        return list, (list(self),)


def read_only(value: Any) -> Any:
    """What JSON gave, for others' eyes: whoever writes to it, at any depth, gets a ``TypeError``, and ``value`` is
    as it was."""
    if isinstance(value, Mapping):
        return _Members({name: read_only(each) for name, each in value.items()})
    return _Items(map(read_only, value)) if isinstance(value, list) else value


@dataclass(frozen=True)
class Address:
    """An e-mail address: as written, and the key under which it is unique."""

    email: str
    key: str


@dataclass(frozen=True)
class Refusal:
    """An answer that refused something, and ``why``: facts for the operator, no secrets."""

    id: str
    request_id: str
    at: datetime
    call: str
    status: int
    code: str
    network: str
    why: Mapping[str, Any]
    expires_at: datetime | None = None


@dataclass(frozen=True)
class Account:
    """An account, as plugins see it. It is to be read: writing to its ``profile`` is a ``TypeError``. ``roles`` are
    those of its that ``roles.known`` has, in the order of their names."""

    id: str
    email: str
    email_verified: bool
    created_at: datetime
    profile: Mapping[str, Any] = field(default_factory=dict)
    roles: tuple[str, ...] = ()


@dataclass(frozen=True)
class Former:
    """An address that an account had, and that is kept for it until ``expires_at``: until then the token that was
    mailed there, of which this has the digest, brings it back. The token is made of ``nonce``."""

    email: str
    key: str
    nonce: str
    digest: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True)
class Closing:
    """An account that its owner has closed: deleted for good at ``ends_at``, and until then opened again by the token
    that was mailed, of which this has the digest. The token is made of ``nonce``."""

    nonce: str
    digest: str = field(repr=False)
    ends_at: datetime


@dataclass(frozen=True)
class Notice:
    """What happened, as webhooks tell of it."""

    id: str
    at: datetime
    type: str
    data: Mapping[str, Any]


@dataclass(frozen=True)
class User:
    """An account. ``epoch`` counts the moments that end all sessions and codes of before:
    whatever carries an older epoch is void, whether or not it was deleted already. ``profile`` is what plugins'
    members of register left. ``authority`` is the authenticator that the account belongs to, "" for one that
    has a password of its own; the other kind has none, and is mailed no reset. ``networks`` are digests of the
    last ones that it was signed in from, the latest last. ``language`` is what whoever registered it, or proved its
    address first, would like to read, as :class:`MailIntent` has it; "" where that is not known. ``addresses`` has the
    key of each address that nobody else may have: the account's own, and the :class:`Former` ones, the oldest first.
    ``closing`` is that of an account which its owner has closed; it is ``disabled`` too, which versions of before this
    one know. ``imported`` has the ``work`` of a hash that was made elsewhere, as long as that is the account's; a
    version of before this one leaves it there with a newer hash, until the next sign-in. ``untold`` are the
    :class:`Notice` of what happened to it that are not in the webhooks' outbox yet: each was written in the same atomic
    step as what it tells of. ``roles`` are all that operators gave it, in the order of their names; what counts of
    them is the configuration's word."""

    id: str
    email: str
    address_key: str
    password_hash: str = field(repr=False)
    created_at: datetime
    email_verified: bool = False
    disabled: bool = False
    epoch: int = 0
    profile: Mapping[str, Any] = field(default_factory=dict)
    authority: str = ""
    networks: Sequence[str] = field(default_factory=list)
    language: str = ""
    addresses: Sequence[Mapping[str, Any]] = field(default_factory=list, repr=False, compare=False)
    closing: Mapping[str, Any] | None = field(default=None, repr=False)
    imported: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)
    untold: Sequence[Mapping[str, Any]] = field(default_factory=list, repr=False, compare=False)
    roles: Sequence[str] = field(default_factory=list)

    def reads(self, asked: str) -> str:
        """What to write to its owner in, where a client asked for ``asked``. The client may be anyone's, so what the
        owner is known to read comes first, once the address is proven: before, a stranger may have registered it."""
        return (self.language if self.email_verified else "") or asked or self.language

    @property
    def closed(self) -> Closing | None:
        return Closing(**self.closing) if self.closing else None

    def formers(self, now: datetime) -> list[Former]:
        """The addresses of before that are still kept."""
        kept = [entry for entry in self.addresses if "expires_at" in entry]
        return [former for entry in kept if (former := Former(**entry)).expires_at > now]

    @property
    def notices(self) -> list[Notice]:
        return [Notice(each["id"], each["at"], each["type"], each["data"]) for each in self.untold]

    def administered(self) -> dict[str, Any]:
        """The JSON view of whoever administers: no hash, code or token, and nothing that proves one."""
        return {
            "id": self.id,
            "email": self.email,
            "email_verified": self.email_verified,
            "disabled": self.disabled,
            "deleted_at": _told(self.closed.ends_at if self.closed else None),
            "created_at": self.created_at.isoformat(),
            "authenticator": self.authority or "password",
            "has_password": bool(self.password_hash),
            "language": self.language,
            "roles": list(self.roles),
            "profile": dict(self.profile),
        }

    def account(self, roles: tuple[str, ...]) -> Account:
        """What plugins see of it; ``roles`` are those that count."""
        return Account(self.id, self.email, self.email_verified, self.created_at, read_only(self.profile), roles)


@dataclass(frozen=True)
class Session:
    """One sign-in: the refresh token family. ``generation`` is that of the one live refresh token. ``device`` and
    ``network`` say in a few words what it was last used with and from, "" where nobody knows. ``marks`` are those of
    the last steps from one generation to the next."""

    id: str
    user_id: str
    epoch: int
    generation: int
    created_at: datetime
    rotated_at: datetime
    ends_at: datetime
    expires_at: datetime
    device: str = ""
    network: str = ""
    marks: Sequence[bytes] = field(default_factory=list)

    def public(self, current_id: str) -> dict[str, Any]:
        """``current_id`` is the session that asks."""
        return {
            "id": self.id,
            "device": self.device,
            "network": self.network,
            "created_at": self.created_at.isoformat(),
            "last_used_at": self.rotated_at.isoformat(),
            "current": self.id == current_id,
        }

    def administered(self) -> dict[str, Any]:
        """The JSON view of whoever administers: nobody's session is the one that asks."""
        ends = min(self.expires_at, self.ends_at).isoformat()
        return {**{name: value for name, value in self.public("").items() if name != "current"}, "ends_at": ends}


@dataclass(frozen=True)
class Code:
    """A mailed secret, as the store knows it: a keyed digest with an end. ``email`` is the address that it proves,
    where that is not the account's."""

    id: str
    kind: CodeKind
    user_id: str
    epoch: int
    digest: str = field(repr=False)
    expires_at: datetime
    tries: int = 0
    email: str = ""


@dataclass(frozen=True)
class MailIntent:
    """A message that must go out. What it says is decided when it is sent; once it holds a
    secret it is kept sealed, so that a second try sends the same bytes until ``sealed_until``.
    ``after_epoch`` is the account's epoch before the write that the message tells of. ``language`` is what the
    client that asked would like to read (the tags of its Accept-Language, the best first). ``kind`` is a
    :data:`MailKind`, or ``<plugin>.<template>`` for a plugin's own, which is sealed from the start. ``held`` says that
    the write that it belongs to may not be done yet. ``user_id`` is the account's, where the mail goes to another
    address than the account has: to ``email``, or to the one of ``nonce``."""

    id: str
    kind: str
    address_key: str
    created_at: datetime
    attempts: int = 0
    sealed: bytes | None = field(default=None, repr=False)
    sealed_until: datetime | None = None
    lease: str = ""
    dead: bool = False
    error: str = ""
    due_at: datetime | None = None
    after_epoch: int = -1
    language: str = ""
    held: bool = False
    user_id: str = ""
    email: str = ""
    nonce: str = ""

    @property
    def state(self) -> str:
        return "dead" if self.dead else "sending" if self.lease else "waiting"

    def administered(self) -> dict[str, Any]:
        """The JSON view of whoever administers: nothing of what it says."""
        return {
            "id": self.id,
            "state": self.state,
            "kind": self.kind,
            "address": self.address_key,
            "created_at": self.created_at.isoformat(),
            "due_at": _told(self.due_at),
            "attempts": self.attempts,
            "error": self.error,
        }


@dataclass(frozen=True)
class Delivery:
    """A notice on its way to one webhook. ``id`` is made of the notice's and the webhook's name, so that one which is
    put in twice is there once. ``body`` is the JSON that each try sends. ``user_id`` is whom it tells of, ""
    for nobody. It is kept until ``expires_at``, to be listed and sent again."""

    id: str
    endpoint: str
    notice_id: str
    type: str
    body: str
    user_id: str
    created_at: datetime
    due_at: datetime
    expires_at: datetime
    state: DeliveryState = "waiting"
    attempts: int = 0
    lease: str = ""
    error: str = ""

    def administered(self, configured: bool) -> dict[str, Any]:
        """The JSON view of whoever administers: nothing of what it says, nor of whom. One whose webhook is not
        ``configured`` any more is sent by nobody."""
        return {
            "id": self.id,
            "state": "sending" if self.lease else self.state,
            "webhook": self.endpoint,
            "configured": configured,
            "type": self.type,
            "created_at": self.created_at.isoformat(),
            "due_at": self.due_at.isoformat() if self.state == "waiting" else None,
            "attempts": self.attempts,
            "error": self.error,
        }


@dataclass(frozen=True)
class Backlog:
    """What an outbox holds: messages that are ``waiting`` to be sent, ``dead`` ones, and how many seconds ago
    the one was due that is due longest, 0 where none is."""

    waiting: int
    dead: int
    late: float


@dataclass(frozen=True)
class SigningKey:
    """A key pair for access tokens. It signs from ``active_from`` until the next one does,
    and is published until ``expires_at``. One that was made in an ``emergency`` ends all keys of before when it begins
    to sign."""

    kid: str
    sequence: int
    algorithm: str
    public_jwk: Mapping[str, Any]
    sealed_private: bytes = field(repr=False)
    created_at: datetime
    active_from: datetime
    expires_at: datetime | None = None
    emergency: bool = False

    def administered(self, state: KeyState) -> dict[str, Any]:
        """The JSON view of whoever administers: its public half is among the published keys."""
        return {
            "kid": self.kid,
            "algorithm": self.algorithm,
            "state": state,
            "created_at": self.created_at.isoformat(),
            "signs_from": self.active_from.isoformat(),
            "expires_at": _told(self.expires_at),
            "emergency": self.emergency,
        }


@dataclass(frozen=True)
class SecretsInUse:
    """What nodes with one configuration know of server secrets, by fingerprint: they make things under ``own`` and take
    what was made under ``known``, which has that too. ``seen_at`` is when one of them was last seen."""

    id: str
    own: str
    known: Sequence[str]
    seen_at: datetime


@dataclass(frozen=True)
class AdminToken:
    """What opens the Admin API, as the store knows it: the token's SHA-256, for it is 256 random bits. It does what its
    ``scopes`` say until ``expires_at``, or until it is revoked. ``last_used_at`` is right to the minute."""

    id: str
    name: str
    digest: str = field(repr=False)
    scopes: Sequence[str]
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None

    def public(self, now: datetime) -> dict[str, Any]:
        state = "revoked" if self.revoked_at else "expired" if self.expires_at <= now else "active"
        return {
            "id": self.id,
            "name": self.name,
            "state": state,
            "scopes": list(self.scopes),
            "created_at": self.created_at.isoformat(),
            "expires_at": self.expires_at.isoformat(),
            "revoked_at": _told(self.revoked_at),
            "last_used_at": _told(self.last_used_at),
        }


@dataclass(frozen=True)
class Actor:
    """Who administers: ``kind`` is ``token``, and ``id`` and ``name`` are that token's, or ``cli``, and they are the
    user's of the system that runs the command. ``network`` and ``request_id`` are the request's."""

    kind: Literal["token", "cli"]
    id: str
    name: str
    network: str = ""
    request_id: str = ""


@dataclass(frozen=True)
class AuditEntry:
    """What an actor did, on which account if on one. It is there before it is done, with the ``outcome`` ``begun``,
    which is replaced once: by ``done``, or by the code of the error that ended it."""

    id: str
    at: datetime
    action: str
    actor: Mapping[str, Any]
    user_id: str
    details: Mapping[str, Any]
    outcome: str
    expires_at: datetime

    def public(self) -> dict[str, Any]:
        actor = {name: self.actor[name] for name in ("kind", "id", "name")}
        return {
            "id": self.id,
            "at": self.at.isoformat(),
            "action": self.action,
            "actor": actor,
            "user_id": self.user_id,
            "details": dict(self.details),
            "outcome": self.outcome,
            "network": self.actor["network"],
            "request_id": self.actor["request_id"],
        }


@dataclass(frozen=True)
class Page(Generic[Item]):
    """Some of a list; ``next`` is the cursor of what follows, "" at the end."""

    items: Sequence[Item]
    next: str = ""


@dataclass(frozen=True)
class Grant:
    """What a sign-in yields (RFC 6749, section 5.1, and ``email_verified``)."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_in: int
    email_verified: bool
    refresh_expires_in: int

    def public(self) -> dict[str, Any]:
        return {
            "access_token": self.access_token,
            "email_verified": self.email_verified,
            "expires_in": self.expires_in,
            "refresh_token": self.refresh_token,
            "token_type": "bearer",
        }


@dataclass(frozen=True)
class CurrentUser:
    """Who makes a request: what ``authenticate()`` gives to handlers. ``claims`` are those that plugins put into the
    access token. It is to be read: writing to ``profile`` or ``claims`` is a ``TypeError``. ``roles`` are those
    that the account has now, whatever the token says of them: of ``roles.known``, in the order of their names."""

    id: str
    email: str
    email_verified: bool
    created_at: datetime
    session_id: str
    profile: Mapping[str, Any] = field(default_factory=dict)
    claims: Mapping[str, Any] = field(default_factory=dict)
    roles: tuple[str, ...] = ()

    def public(self) -> dict[str, Any]:
        public = {
            "id": self.id,
            "email": self.email,
            "email_verified": self.email_verified,
            "created_at": self.created_at.isoformat(),
        }
        public |= {"profile": dict(self.profile)} if self.profile else {}
        return public | {"roles": list(self.roles)} if self.roles else public
