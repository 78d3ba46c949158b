"""Sessions that were looked up a moment ago, for those who choose to trust that moment (``tokens.cache_ttl``)."""

from collections import OrderedDict
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from hydracore.models import Session, User

_MOST = 4096


@dataclass(frozen=True)
class _Seen:
    session: Session
    user: User
    since: datetime
    until: datetime


class RecentSessions:
    """The live sessions that this process looked up in the last ``ttl`` seconds, with their users; 0 keeps none.

    The store tells it of every change that it makes, whatever comes of it. What another process changes, a worker
    beside this one too, is noticed ``ttl`` seconds later at most.
    """

    def __init__(self, ttl: int = 0) -> None:
        self._ttl = timedelta(seconds=ttl)
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self.changes = 0
        """How many changes there were: for :meth:`keep`."""

    def find(self, session_id: str, user_id: str, now: datetime) -> tuple[Session, User] | None:
        seen = self._seen.get(session_id)
        # A clock that was set back makes nothing last longer.
        if seen is None or seen.user.id != user_id or not seen.since <= now < seen.until:
            return None
        return seen.session, seen.user

    def keep(self, session: Session, user: User, since: datetime, changes: int) -> None:
        """``since`` and ``changes`` are of before the look-up: it may be older than what happened meanwhile."""
        if not self._ttl or changes != self.changes:
            return
        until = min(since + self._ttl, session.expires_at, session.ends_at)
        # No more than is needed to say who somebody is.
        self._seen[session.id] = _Seen(
            session, replace(user, password_hash="", networks=(), addresses=()), since, until
        )
        self._seen.move_to_end(session.id)
        while len(self._seen) > _MOST or next(iter(self._seen.values())).until <= since:
            self._seen.popitem(last=False)

    def forget_session(self, session_id: str) -> None:
        self.changes += 1
        self._seen.pop(session_id, None)

    def forget_user(self, user_id: str) -> None:
        self.changes += 1
        for session_id in [key for key, seen in self._seen.items() if seen.user.id == user_id]:
            del self._seen[session_id]
