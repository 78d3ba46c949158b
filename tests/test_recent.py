"""Sessions that are trusted for a moment: ``tokens.cache_ttl``."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support import PASSWORD, OpenSite, Site, refused, tokens

from hydracore.errors import StoreUnavailable
from hydracore.flows.account import find_user
from hydracore.models import Address, Closing, Former, Session, User
from hydracore.recent import RecentSessions
from hydracore.store import Store
from hydracore.store.documents import Documents

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EMAIL = "ada@example.com"


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def seen(number: int = 1, user: str = "u", ends: float = 60) -> tuple[Session, User]:
    session = Session(f"s{number}", user, 0, 1, NOW, NOW, after(ends), after(ends))
    return session, User(user, EMAIL, EMAIL, "", NOW, networks=())


def kept(*pairs: tuple[Session, User], ttl: int = 5) -> RecentSessions:
    recent = RecentSessions(ttl)
    for pair in pairs:
        recent.keep(*pair, NOW, recent.changes)
    return recent


def test_for_a_moment() -> None:
    """What was looked up is known for ``ttl`` seconds and not longer, and to its own user alone."""
    recent = kept(seen())
    assert recent.find("s1", "u", after(4.9)) == seen()
    assert recent.find("s1", "another", NOW) is None
    assert recent.find("s1", "u", after(5)) is None


def test_a_clock_that_is_set_back() -> None:
    """Nothing lasts longer for it."""
    assert kept(seen()).find("s1", "u", after(-1)) is None


def test_never_past_the_end() -> None:
    """A session that ends sooner is not known after its end."""
    assert kept(seen(ends=2)).find("s1", "u", after(2)) is None


def test_none() -> None:
    """0 keeps nothing."""
    assert kept(seen(), ttl=0).find("s1", "u", NOW) is None


def test_no_secret() -> None:
    """What is kept of an account has no hash of its password."""
    session, user = seen()
    recent = RecentSessions(5)
    recent.keep(session, User(user.id, EMAIL, EMAIL, "the hash", NOW), NOW, 0)
    found = recent.find("s1", "u", NOW)
    assert found
    assert found[1].password_hash == ""


def test_one_ends() -> None:
    """A session that is ended is forgotten, and no other."""
    recent = kept(seen(1), seen(2))
    recent.forget_session("s1")
    assert (recent.find("s1", "u", NOW), recent.find("s2", "u", NOW)) == (None, seen(2))


def test_an_account_changes() -> None:
    """All sessions of an account that changes are forgotten, and no others."""
    recent = kept(seen(1), seen(2), seen(3, user="v"))
    recent.forget_user("u")
    assert [recent.find(f"s{number}", "u", NOW) for number in (1, 2)] == [None, None]
    assert recent.find("s3", "v", NOW) == seen(3, user="v")


def test_a_change_during_the_look_up() -> None:
    """What was read before a change was heard of, and comes after it, is not kept."""
    recent = RecentSessions(5)
    before = recent.changes
    recent.forget_session("s1")
    recent.keep(*seen(), NOW, before)
    assert recent.find("s1", "u", NOW) is None


def test_bounded() -> None:
    """However many sessions there are, some thousands are kept, the latest; and none that is of no more use."""
    recent = kept(*(seen(number) for number in range(5000)))
    assert recent.find("s0", "u", NOW) is None
    assert recent.find("s4999", "u", NOW) is not None
    recent.keep(*seen(5000), after(10), recent.changes)
    assert len(recent._seen) == 1


CHANGES: dict[str, Callable[[Store], Awaitable[object]]] = {
    "end": lambda store: store.sessions.end("s1"),
    "end own": lambda store: store.sessions.end_own("s1", "u", 0, NOW),
    "end others": lambda store: store.sessions.end_others("s2", "u", 0, NOW),
    "verified": lambda store: store.users.mark_verified("u", 0, end_sessions=False),
    "reset": lambda store: store.users.reset_password("u", 0, "hash", "network"),
    "password": lambda store: store.users.change_password("u", 0, "hash", "network"),
    "address": lambda store: store.users.change_address(seen()[1], Address("e@x", "e@x"), ()),
    "closed": lambda store: store.users.close(seen()[1], Closing("", "", NOW)),
    "reopened": lambda store: store.users.reopen("u", "", NOW),
    "gone": lambda store: store.users.delete_closed("u", NOW),
    "brought back": lambda store: store.users.bring_back(seen()[1], Former("e@x", "e@x", "", "", NOW), ()),
    "taken over": lambda store: store.users.take_over("u", 0, "directory"),
    "epoch": lambda store: store.users.start_epoch("u"),
    "disabled": lambda store: store.users.disable("u"),
    "enabled": lambda store: store.users.enable("u"),
    "condemned": lambda store: store.users.condemn("u", NOW),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_whatever_comes_of_a_change(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends a session or changes an account is heard of at once, also where the database does not say whether it
    was done."""

    async def away(*arguments: object) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(Documents, "_write", away)
    store = Store(driver="memory", database="x", timeout=1, cache_ttl=5)
    store.open("")
    store._recent.keep(*seen(), NOW, 0)
    with pytest.raises(StoreUnavailable):
        await CHANGES[change](store)
    assert store._recent.find("s1", "u", NOW) is None
    await store.close()


async def login(site: Site) -> dict[str, Any]:
    return tokens(await site.post("login", {"email": EMAIL, "password": PASSWORD}))


@pytest.mark.parametrize(("ttl", "asked"), [(5, 1), (0, 3)])
async def test_the_database_is_not_asked(
    open_site: OpenSite, monkeypatch: pytest.MonkeyPatch, ttl: int, asked: int
) -> None:
    """With the cache one look-up answers three requests; without it each has its own."""
    site = await open_site(tokens={"cache_ttl": ttl})
    grant = await site.verified(EMAIL)
    pairs = site.hydra.services.store.sessions._pairs
    look_up, times = pairs.get, []

    async def counted(*arguments: Any) -> Any:
        times.append(arguments)
        return await look_up(*arguments)

    monkeypatch.setattr(pairs, "get", counted)
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
    await site.hydra.services.store.users.disable(user.id)
    refused(await site.me(second["access_token"]), 401, "not_authenticated")


async def test_a_moment_later_elsewhere(open_site: OpenSite) -> None:
    """What another process ends is noticed when the moment is over."""
    site = await open_site(tokens={"cache_ttl": 5})
    grant = await site.verified(EMAIL)
    assert (await site.me(grant["access_token"])).code == 200
    await site.hydra._store.collection("users").update_one({"email": EMAIL}, {"$set": {"disabled": True}})
    assert (await site.me(grant["access_token"])).code == 200
    site.clock.forward(seconds=6)
    refused(await site.me(grant["access_token"]), 401, "not_authenticated")
