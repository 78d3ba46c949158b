"""What happens, as values that ``hydracore_on_event`` receives. No event holds a secret."""

from dataclasses import dataclass
from datetime import UTC, datetime

_NEVER = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened. ``network`` is the client's, "" where none was involved. ``id`` (its own) and ``at``
    (when, in UTC) are set when it is announced."""

    network: str = ""
    id: str = ""
    at: datetime = _NEVER


@dataclass(frozen=True, kw_only=True)
class UserEvent(Event):
    """Something that happened to one account."""

    user_id: str


@dataclass(frozen=True, kw_only=True)
class SessionEvent(UserEvent):
    """Something that happened to one session."""

    session_id: str


class Registered(UserEvent):
    """An account was created."""


class UserProvisioned(UserEvent):
    """An account was made, or taken over, for someone whom an authenticator vouched for."""


class EmailVerified(UserEvent):
    """The owner proved the address by its code, or an operator knows that it is theirs."""


class LoggedIn(SessionEvent):
    """A session began."""


class Refreshed(SessionEvent):
    """A refresh token was exchanged for its successor."""


class RefreshReused(SessionEvent):
    """An older refresh token was presented: taken for theft, the session has ended (RFC 9700, 4.14.2)."""


class LoggedOut(SessionEvent):
    """The owner, or an operator, ended a session."""


@dataclass(frozen=True, kw_only=True)
class OtherSessionsRevoked(SessionEvent):
    """The owner ended all sessions but ``session_id``: ``ended`` of them."""

    ended: int


class LoginRefused(UserEvent):
    """Someone who has proven who they are was refused by a plugin."""


class PasswordChanged(UserEvent):
    """The owner set another password, and gave the one of before; all other sessions have ended."""


class EmailChangeRequested(UserEvent):
    """The owner asked for another address; a code is mailed there, if it can be had."""


class EmailChanged(UserEvent):
    """The owner proved another address, which the account has now; all other sessions have ended."""


class EmailChangeUndone(UserEvent):
    """Someone with the token that was mailed to the address of before brought it back: whoever changed it was not the
    owner, perhaps. All sessions have ended, and the password is void."""


class DeletionRequested(UserEvent):
    """The owner closed the account: nobody signs in, all sessions have ended, and it is deleted when its grace is
    over."""


class DeletionUndone(UserEvent):
    """Someone with the token that was mailed opened the account again that its owner had closed."""


class PasswordReset(UserEvent):
    """A password was set through a mailed token; all sessions have ended."""


class PasswordVoided(UserEvent):
    """An operator had the owner set another password: the one of before is void, all sessions have ended, and a mail
    says how to set a new one."""


class UserDisabled(UserEvent):
    """An operator closed an account; all sessions have ended."""


class UserEnabled(UserEvent):
    """An operator opened an account again."""


class UserDeleted(UserEvent):
    """An account and what belonged to it were deleted: by an operator, or as its owner asked, the grace being over."""


class SessionsRevoked(UserEvent):
    """An operator ended all sessions of an account."""


@dataclass(frozen=True, kw_only=True)
class RolesChanged(UserEvent):
    """An operator gave an account roles, or took some."""

    added: tuple[str, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LoginFailed(Event):
    """Wrong credentials. ``address_digest`` tells attempts on one address apart without naming it."""

    address_digest: str


@dataclass(frozen=True, kw_only=True)
class VerificationFailed(Event):
    """A wrong or expired code was presented."""

    address_digest: str


@dataclass(frozen=True, kw_only=True)
class MailRequested(Event):
    """Someone asked for a code or a reset, for an address that may have an account or none."""

    kind: str
    address_digest: str


@dataclass(frozen=True, kw_only=True)
class Limited(Event):
    """A rate limit refused a request."""

    rule: str
    retry_after: int


@dataclass(frozen=True, kw_only=True)
class MailSent(Event):
    """A transport took a message over."""

    kind: str
    intent_id: str
    attempts: int


@dataclass(frozen=True, kw_only=True)
class MailDelayed(Event):
    """A transport did not take a message over; it is tried again."""

    kind: str
    intent_id: str
    attempts: int
    error: str


@dataclass(frozen=True, kw_only=True)
class MailDead(Event):
    """A message was given up; ``hydracore mail list`` shows it."""

    kind: str
    intent_id: str
    error: str


@dataclass(frozen=True, kw_only=True)
class KeyRotated(Event):
    """A new signing key was published: on command, on schedule, or for another algorithm. In an ``emergency`` all keys
    of before end when it begins to sign, seconds later."""

    kid: str
    emergency: bool = False
