"""Sessions that are trusted for a moment: ``tokens.cache_ttl``."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support import PASSWORD, OpenSite, Site, refused, tokens

from hydracore import events
from hydracore.flows.account import disable_user, find_user
from hydracore.models import Session, User
from hydracore.recent import RecentSessions

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EMAIL = "ada@example.com"


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Iterator[Clock]:
    return Clock()


def seen(number: int = 1, user: str = "u", ends: float = 60) -> tuple[Session, User]:
    end = NOW + timedelta(seconds=ends)
    session = Session(f"s{number}", user, 0, 1, NOW, NOW, end, end)
    return session, User(user, EMAIL, EMAIL, "", NOW)


def kept(clock: Clock, *pairs: tuple[Session, User], ttl: int = 5) -> RecentSessions:
    recent = RecentSessions(ttl, clock)
    for pair in pairs:
        recent.keep(*pair, recent.changes)
    return recent


def test_for_a_moment(clock: Clock) -> None:
    """What was looked up is known for ``ttl`` seconds and not longer, and to its own user alone."""
    recent = kept(clock, seen())
    clock.now += timedelta(seconds=4.9)
    assert recent.find("s1", "u") == seen()
    assert recent.find("s1", "another") is None
    clock.now += timedelta(seconds=0.1)
    assert recent.find("s1", "u") is None


def test_never_past_the_end(clock: Clock) -> None:
    """A session that ends sooner is not known after its end."""
    recent = kept(clock, seen(ends=2))
    clock.now += timedelta(seconds=2)
    assert recent.find("s1", "u") is None


def test_none(clock: Clock) -> None:
    """0 keeps nothing."""
    assert kept(clock, seen(), ttl=0).find("s1", "u") is None


@pytest.mark.parametrize("kind", [events.LoggedOut, events.RefreshReused])
def test_one_ends(clock: Clock, kind: type[events.SessionEvent]) -> None:
    """A session that is ended is forgotten, and no other."""
    recent = kept(clock, seen(1), seen(2))
    recent.hear(kind(user_id="u", session_id="s1"))
    assert (recent.find("s1", "u"), recent.find("s2", "u")) == (None, seen(2))


@pytest.mark.parametrize(
    "kind",
    [
        events.EmailVerified,
        events.PasswordReset,
        events.SessionsRevoked,
        events.UserDeleted,
        events.UserDisabled,
        events.UserProvisioned,
    ],
)
def test_an_account_changes(clock: Clock, kind: type[events.UserEvent]) -> None:
    """All sessions of an account that changes are forgotten, and no others."""
    recent = kept(clock, seen(1), seen(2), seen(3, user="v"))
    recent.hear(kind(user_id="u"))
    assert [recent.find(f"s{number}", "u") for number in (1, 2)] == [None, None]
    assert recent.find("s3", "v") == seen(3, user="v")


def test_a_change_during_the_look_up(clock: Clock) -> None:
    """What was read before a change was heard of, and comes after it, is not kept."""
    recent = RecentSessions(5, clock)
    before = recent.changes
    recent.hear(events.LoggedOut(user_id="u", session_id="s1"))
    recent.keep(*seen(), before)
    assert recent.find("s1", "u") is None


def test_every_event_is_judged() -> None:
    """An event about an account or a session either changes nothing that is kept, or is heard."""
    harmless = {events.Registered, events.LoggedIn, events.Refreshed, events.LoginRefused, events.UserEnabled}
    every = {each for each in vars(events).values() if isinstance(each, type) and issubclass(each, events.UserEvent)}
    for kind in every - harmless - {events.UserEvent, events.SessionEvent}:
        recent = RecentSessions(5, Clock())
        more = {"session_id": "s"} if issubclass(kind, events.SessionEvent) else {}
        recent.hear(kind(user_id="u", **more))
        assert recent.changes == 1, kind


def test_bounded(clock: Clock) -> None:
    """However many sessions there are, some thousands are kept: the latest."""
    recent = kept(clock, *(seen(number) for number in range(5000)))
    assert recent.find("s0", "u") is None
    assert recent.find("s4999", "u") is not None


async def login(site: Site) -> dict[str, Any]:
    return tokens(await site.post("login", {"email": EMAIL, "password": PASSWORD}))


@pytest.mark.parametrize(("ttl", "asked"), [(5, 1), (0, 3)])
async def test_the_database_is_not_asked(
    open_site: OpenSite, monkeypatch: pytest.MonkeyPatch, ttl: int, asked: int
) -> None:
    """With the cache one look-up answers three requests; without it each has its own."""
    site = await open_site(tokens={"cache_ttl": ttl})
    grant = await site.verified(EMAIL)
    sessions = site.hydra.services.store.sessions
    look_up, times = sessions.live_with_user, []

    async def counted(*arguments: Any) -> Any:
        times.append(arguments)
        return await look_up(*arguments)

    monkeypatch.setattr(sessions, "live_with_user", counted)
    assert {(await site.me(grant["access_token"])).code for _ in range(3)} == {200}
    assert len(times) == asked


async def test_at_once_here(open_site: OpenSite) -> None:
    """In the process that ends a session, or closes an account, the cache forgets it at once."""
    site = await open_site(tokens={"cache_ttl": 5})
    first = await site.verified(EMAIL)
    assert (await site.me(first["access_token"])).code == 200
    await site.post("logout", {"refresh_token": first["refresh_token"]})
    refused(await site.me(first["access_token"]), 401, "not_authenticated")
    second = await login(site)
    assert (await site.me(second["access_token"])).code == 200
    user = await find_user(site.hydra.services, EMAIL)
    assert user
    await disable_user(site.hydra.services, user)
    refused(await site.me(second["access_token"]), 401, "not_authenticated")


async def test_a_moment_later_elsewhere(open_site: OpenSite) -> None:
    """What another process ends is noticed when the moment is over."""
    site = await open_site(tokens={"cache_ttl": 5})
    grant = await site.verified(EMAIL)
    assert (await site.me(grant["access_token"])).code == 200
    user = await find_user(site.hydra.services, EMAIL)
    assert user
    await site.hydra.services.store.users.disable(user.id)
    assert (await site.me(grant["access_token"])).code == 200
    site.clock.forward(seconds=6)
    refused(await site.me(grant["access_token"]), 401, "not_authenticated")
