"""Sessions that were looked up a moment ago, for those who choose to trust that moment (``tokens.cache_ttl``)."""

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta

from hydracore.chance import Now
from hydracore.events import (
    EmailVerified,
    Event,
    LoggedOut,
    PasswordReset,
    RefreshReused,
    SessionsRevoked,
    UserDeleted,
    UserDisabled,
    UserProvisioned,
)
from hydracore.models import Session, User

_MOST = 4096
_END_ONE = (LoggedOut, RefreshReused)
_CHANGE_ALL = (EmailVerified, PasswordReset, SessionsRevoked, UserDeleted, UserDisabled, UserProvisioned)


@dataclass(frozen=True)
class _Seen:
    session: Session
    user: User
    until: datetime


class RecentSessions:
    """The live sessions that this process looked up in the last ``ttl`` seconds, with their users; 0 keeps none.

    What ends or changes one in this process is heard at once, elsewhere ``ttl`` seconds later at most.
    """

    def __init__(self, ttl: int, now: Now) -> None:
        self._ttl = timedelta(seconds=ttl)
        self._now = now
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self.changes = 0
        """How many changes were heard of: for :meth:`keep`."""

    def find(self, session_id: str, user_id: str) -> tuple[Session, User] | None:
        seen = self._seen.get(session_id)
        if seen is None or seen.user.id != user_id:
            return None
        if seen.until <= self._now():
            del self._seen[session_id]
            return None
        return seen.session, seen.user

    def keep(self, session: Session, user: User, changes: int) -> None:
        """``changes`` is what it was before the look-up: what was heard since may have come too late for it."""
        if not self._ttl or changes != self.changes:
            return
        until = min(self._now() + self._ttl, session.expires_at, session.ends_at)
        self._seen[session.id] = _Seen(session, user, until)
        if len(self._seen) > _MOST:
            self._seen.popitem(last=False)

    def hear(self, event: Event) -> None:
        if isinstance(event, _END_ONE):
            self.changes += 1
            self._seen.pop(event.session_id, None)
        elif isinstance(event, _CHANGE_ALL):
            self.changes += 1
            for session_id in [key for key, seen in self._seen.items() if seen.user.id == event.user_id]:
                del self._seen[session_id]
