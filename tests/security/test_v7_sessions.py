"""ASVS 5.0, V7: sessions."""

import asyncio
import json
import re
from typing import Any

import jwt
import pytest
from asking import EMAIL, LOGIN, NEW, OTHER, basic, bearer, claims, forgotten, jar, log_in, page, refresh, reset, sent
from support import PASSWORD, OpenSite, Site, refused, tokens

from hydracore.config import load
from hydracore.flows.account import delete_user, disable_user, enable_user, find_user, revoke_sessions
from hydracore.plugin import Authenticator, Context, Identity, hookimpl

DAY = 24 * 60 * 60


async def ended(site: Site, grant: dict[str, str]) -> None:
    """Neither of a session's tokens works."""
    refused(await site.me(grant["access_token"]), 401, "not_authenticated")
    refused(await refresh(site, grant["refresh_token"]), 401, "invalid_refresh_token")


def test_v7_1_1_documented_lifetimes() -> None:
    """The idle and the absolute end that docs/security.md tells are the defaults, and 30 days is NIST's bound."""
    said = re.search(r"Sessions end after (\d+) idle days, and after (\d+) days", page("docs/security.md"))
    assert said
    config = load(environment={})
    assert (int(said[1]) * DAY, int(said[2]) * DAY) == (config.tokens.idle_ttl, config.tokens.session_ttl)
    assert config.tokens.session_ttl <= 30 * DAY


async def test_v7_1_2_sessions_side_by_side(site: Site) -> None:
    """An account has as many sessions as it signs in to: the thirtieth ends none of the others."""
    await site.register()
    grants = [tokens(await log_in(site)) for _ in range(30)]
    assert len({claims(grant["access_token"])["sid"] for grant in grants}) == 30
    for grant in grants:
        assert (await site.me(grant["access_token"])).code == 200
        tokens(await refresh(site, grant["refresh_token"]))


async def test_v7_1_3_other_services(site: Site) -> None:
    """As docs/security.md says: once a session has ended this server refuses its access token at once, and a service
    that proves the signature alone takes it for the rest of the documented half hour."""
    said = re.search(r"\*\*Access tokens\*\* are JWTs of (\d+) minutes", page("docs/security.md"))
    assert said
    assert "other services that only prove the" in page("docs/security.md")
    first = await site.register()
    token = first["access_token"]
    assert (await site.post("logout", {"refresh_token": first["refresh_token"]})).code == 204
    await ended(site, first)
    published = json.loads((await site.ask("GET", "/.well-known/jwks.json")).body)
    key = jwt.PyJWKSet.from_dict(published)[jwt.get_unverified_header(token)["kid"]]
    proven = jwt.decode(token, key, algorithms=["ES256"], audience="hydracore", issuer=site.hydra.config.issuer)
    assert proven["exp"] - proven["iat"] == int(said[1]) * 60


async def test_v7_2_1_looked_up_here(site: Site) -> None:
    """Whether a session lives is asked of the server's database at each call: an unexpired, well-signed token of a
    session that the database no longer has is refused."""
    first = await site.register()
    assert (await site.me(first["access_token"])).code == 200
    await site.hydra._store.collection("sessions").delete_many({})
    await ended(site, first)


async def test_v7_2_2_made_for_each_session(site: Site) -> None:
    """Tokens are made for each session: two sign-ins share none, and a refresh brings new ones."""
    first = await site.register()
    second = tokens(await log_in(site))
    third = tokens(await refresh(site, second["refresh_token"]))
    made = [grant[kind] for grant in (first, second, third) for kind in ("access_token", "refresh_token")]
    assert len(set(made)) == 6
    assert len({claims(grant["access_token"])["jti"] for grant in (first, second, third)}) == 3


async def test_v7_2_3_entropy(site: Site) -> None:
    """The session's name in a refresh token is 144 random bits, different each time, under a MAC of 256 bits."""
    await site.register()
    grants = [tokens(await log_in(site)) for _ in range(50)]
    names = set()
    for grant in grants:
        prefix, name, generation, mac = grant["refresh_token"].split(".")
        assert (prefix, generation) == ("hcr1", "1")
        assert re.fullmatch(r"[\w-]{24}", name)  # 6 bits each.
        assert re.fullmatch(r"[\w-]{43}", mac)
        names.add(name)
    assert len(names) == 50
    # No place of the name is the same in all of them, as a counter's or a clock's would be.
    assert all(len(set(column)) > 5 for column in zip(*names, strict=True))


async def test_v7_2_4_a_new_session_each_time(site: Site) -> None:
    """Every sign-in begins a session of its own, whatever tokens and cookies came along: none is adopted."""
    await site.register()
    before = await log_in(site)
    cookies = sent(jar(before))
    planted = f"hydracore_refresh={'x' * 60}; hydracore_access={'y' * 60}"
    old = claims(tokens(before)["access_token"])["sid"]
    for headers in ({"Cookie": cookies}, {"Cookie": planted}, bearer(tokens(before)["access_token"])):
        again = await log_in(site, **headers)
        assert claims(tokens(again)["access_token"])["sid"] != old
        values = {morsel.value for morsel in jar(again).values()}
        assert not values & {morsel.value for morsel in jar(before).values()}
        assert "x" * 60 not in values


async def test_v7_3_1_idle_sessions(site: Site) -> None:
    """A session that is not used for 14 days has ended; one that is used goes on."""
    idle = await site.register()
    busy = tokens(await log_in(site))
    site.clock.forward(days=13)
    busy = tokens(await refresh(site, busy["refresh_token"]))
    site.clock.forward(days=1, seconds=1)
    await ended(site, idle)
    tokens(await refresh(site, busy["refresh_token"]))
    tokens(await log_in(site))


async def test_v7_3_1_is_configured(open_site: OpenSite) -> None:
    """How long that is, the deployer says."""
    site = await open_site(tokens={"idle_ttl": 900, "access_ttl": 300})
    cookies = jar(await site.post("register", LOGIN))
    assert cookies["hydracore_access"]["max-age"] == "300"
    site.clock.forward(seconds=901)
    refused(await site.post("refresh", {}, Cookie=sent(cookies)), 401, "invalid_refresh_token")


async def test_v7_3_2_busy_sessions(site: Site) -> None:
    """However busy, a session ends after 30 days, and its tokens say no longer than that."""
    busy = await site.register()
    for _ in range(29):
        site.clock.forward(days=1)
        busy = tokens(await refresh(site, busy["refresh_token"]))
    answer = await site.post("refresh", {}, Cookie=f"hydracore_refresh={busy['refresh_token']}")
    busy = tokens(answer)
    assert int(jar(answer)["hydracore_refresh"]["max-age"]) <= DAY
    site.clock.forward(days=1, seconds=1)
    await ended(site, busy)
    tokens(await log_in(site))


async def test_v7_4_1_logged_out(site: Site) -> None:
    """After logout neither token works, though the access token has not expired, and the cookies are cleared."""
    await site.register()
    answer = await log_in(site)
    cookies = sent(jar(answer))
    gone = await site.post("logout", {}, Cookie=cookies)
    assert gone.code == 204
    assert {(morsel.value, morsel["path"]) for morsel in jar(gone).values()} == {("", "/")}
    assert set(jar(gone)) == {"hydracore_access", "hydracore_refresh"}
    await ended(site, tokens(answer))
    refused(await site.ask("GET", "/auth/me", Cookie=cookies), 401, "not_authenticated")
    refused(await site.post("refresh", {}, Cookie=cookies), 401, "invalid_refresh_token")


async def test_v7_4_1_stolen_refresh_tokens(site: Site, expected_logs: list[str]) -> None:
    """A used refresh token that comes again ends its session with every token of it."""
    expected_logs.append("RefreshReused")
    first = await site.register()
    second = tokens(await refresh(site, first["refresh_token"]))
    site.clock.forward(seconds=31)
    refused(await refresh(site, first["refresh_token"]), 401, "invalid_refresh_token")
    await ended(site, second)
    await ended(site, first)


def left_untidied(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was ended stays in the database, as when that fails right after: it must count for nothing all the same."""

    async def untidied(*args: object) -> None:
        pass

    for part, names in {
        "sessions": ("end_all", "end_epochs_before"),
        "codes": ("drop_all", "drop_epochs_before"),
    }.items():
        for name in names:
            monkeypatch.setattr(getattr(site.hydra.services.store, part), name, untidied)


@pytest.mark.parametrize("tidied", [True, False])
@pytest.mark.parametrize("what", ["disabled", "deleted"])
async def test_v7_4_2_closed_accounts(site: Site, what: str, tidied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once an account is disabled or deleted all of its sessions have ended, and stay so when it is opened again."""
    if not tidied:
        left_untidied(site, monkeypatch)
    first, services = await site.register(), site.hydra.services
    second = tokens(await log_in(site))
    others = await site.register(OTHER)
    user = await find_user(services, EMAIL)
    assert user
    await (disable_user if what == "disabled" else delete_user)(services, user)
    await ended(site, first)
    await ended(site, second)
    refused(await log_in(site), 401, "invalid_credentials")
    if what == "disabled":
        await enable_user(services, user)
    else:
        await site.register()
    await ended(site, first)
    tokens(await log_in(site))
    assert (await site.me(others["access_token"])).code == 200


@pytest.mark.parametrize("tidied", [True, False])
async def test_v7_4_3_a_new_password_ends_sessions(site: Site, tidied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reset ends every session of the account, without being asked to, and nobody else's; every older token too."""
    if not tidied:
        left_untidied(site, monkeypatch)
    first = await site.register()
    second = tokens(await log_in(site))
    tool = tokens(await site.ask("POST", "/auth/token", raw=b"", **basic()))
    others = await site.register(OTHER)
    older, newer = await forgotten(site), await forgotten(site, 2)
    assert (await reset(site, newer)).code == 200
    for grant in (first, second, tool):
        await ended(site, grant)
    for token in (older, newer):
        refused(await reset(site, token, "another long password"), 400, "invalid_token")
    assert (await site.me(others["access_token"])).code == 200
    tokens(await log_in(site, NEW))


async def test_v7_4_5_ended_by_an_operator(site: Site) -> None:
    """An operator ends all sessions of one account (hydracore sessions revoke); the account and others go on."""
    first, services = await site.register(), site.hydra.services
    second = tokens(await log_in(site))
    others = await site.register(OTHER)
    user = await find_user(services, EMAIL)
    assert user
    await revoke_sessions(services, user)
    await ended(site, first)
    await ended(site, second)
    assert (await site.me(others["access_token"])).code == 200
    tokens(await log_in(site))


async def test_v7_5_1_a_session_changes_no_credential(site: Site) -> None:
    """Whoever holds a session, and nothing else, changes neither address nor password."""
    first = await site.verified()
    change = {"email": OTHER, "password": NEW, "current_password": NEW, "new_password": NEW, "token": "x"}
    held = bearer(first["access_token"])
    for method in ("POST", "PUT", "PATCH"):
        assert (await site.ask(method, "/auth/me", body=change, **held)).code == 405
    refused(await site.post("reset-password", change, **held), 400, "invalid_token")
    for path in ("change-password", "change-email"):
        refused(await site.post(path, change, **held), 403, "invalid_password")
        for member in ("password", "current_password"):
            body = {name: value for name, value in change.items() if name != member}
            assert (await site.post(path, body, **held)).code in (403, 422)
    for path in ("password", "email", "me/password", "me/email", "users"):
        refused(await site.post(path, change, **held), 404, "not_found")
    refused(await log_in(site, NEW), 401, "invalid_credentials")
    refused(await log_in(site, NEW, OTHER), 401, "invalid_credentials")
    tokens(await log_in(site))


async def test_v7_4_2_closed_by_their_owners(site: Site) -> None:
    """Whoever closes the account is signed out everywhere, at once, and so are those who know the password."""
    first = await site.verified()
    second = tokens(await log_in(site))
    answer = await site.ask("DELETE", "/auth/me", body={"password": PASSWORD}, **bearer(second["access_token"]))
    assert answer.code == 200
    for grant in (first, second):
        await ended(site, grant)
    refused(await log_in(site), 401, "invalid_credentials")


async def test_v7_5_2_sessions_seen_and_ended(site: Site) -> None:
    """An owner sees where the account is signed in, and ends what is not wanted."""
    first = await site.verified()
    second = tokens(await log_in(site))
    held = bearer(second["access_token"])
    sessions = json.loads((await site.ask("GET", "/auth/sessions", **held)).body)["sessions"]
    assert {"device", "network", "created_at", "last_used_at"} < set(sessions[0])
    other = next(session["id"] for session in sessions if not session["current"])
    assert (await site.ask("DELETE", f"/auth/sessions/{other}", **held)).code == 204
    assert json.loads((await site.post("sessions/revoke-others", **held)).body) == {"ended": len(sessions) - 2}
    refused(await site.me(first["access_token"]), 401, "not_authenticated")
    assert (await site.me(second["access_token"])).code == 200


async def test_v7_5_3_the_password_again(site: Site) -> None:
    """Each call that touches what an owner signs in with asks for the password, and takes none but the right one."""
    held = bearer((await site.verified())["access_token"])
    calls = {
        "change-password": {"current_password": "not the password", "new_password": NEW},
        "change-email": {"password": "not the password", "email": OTHER},
    }
    for call, body in calls.items():
        refused(await site.post(call, body, **held), 403, "invalid_password")
    answer = await site.ask("DELETE", "/auth/me", body={"password": "not the password"}, **held)
    refused(answer, 403, "invalid_password")
    tokens(await log_in(site))


class Directory:
    """Vouches for one person, until told otherwise."""

    knows = True

    def __init__(self, context: Context) -> None:
        pass

    @hookimpl
    def hydracore_register_authenticators(self) -> list[Authenticator]:
        return [Authenticator("directory", self.authenticate)]

    async def authenticate(self, email: str, password: str) -> Identity | None:
        return Identity() if self.knows and (email, password) == (EMAIL, "known there") else None


async def test_v7_6_1_who_is_shut_out_elsewhere(open_site: OpenSite) -> None:
    """As docs/security.md says: whom an authenticator no longer vouches for keeps a session until it ends, as any does,
    or an operator ends it, and then stays out."""
    words = " ".join(page("docs/security.md").split())
    assert "so who is shut out there stays out, once their sessions have ended" in words
    site = await open_site(extra={"directory": Directory}, login={"authenticators": ["password", "directory"]})
    first = tokens(await log_in(site, "known there"))
    plugin: Any = site.hydra.registry.loaded["directory"].plugin
    plugin.knows = False
    first = tokens(await refresh(site, first["refresh_token"]))
    refused(await log_in(site, "known there"), 401, "invalid_credentials")
    user = await find_user(site.hydra.services, EMAIL)
    assert user
    await revoke_sessions(site.hydra.services, user)
    await ended(site, first)
    plugin.knows = True
    again = tokens(await log_in(site, "known there"))
    site.clock.forward(days=14, seconds=1)
    await ended(site, again)


async def test_v7_6_2_nobody_is_signed_in_unasked(site: Site) -> None:
    """A session begins by a request with credentials that our own page, or no browser, sent: not by another site's
    page, not by a link, and not by the mail's reset."""
    await site.register()
    before = await site.hydra._store.collection("sessions").count_documents({})
    for headers in ({"Sec_Fetch_Site": "cross-site"}, {"Origin": "https://evil.example"}, {"Origin": "null"}):
        refused(await log_in(site, **headers), 403, "cross_origin")
        answer = await site.ask("POST", "/auth/token", raw=b"", **basic(), **headers)
        refused(answer, 403, "cross_origin")
        assert "Set-Cookie" not in answer.headers
    for path in ("login", "register", "token", "refresh", "verify-email"):
        answer = await site.ask("GET", f"/auth/{path}?email={EMAIL}&password=x", **basic())
        refused(answer, 405, "method_not_allowed")
        assert "Set-Cookie" not in answer.headers
    assert await site.hydra._store.collection("sessions").count_documents({}) == before
    answer = await reset(site, await forgotten(site))
    assert answer.code == 200
    assert "Set-Cookie" not in answer.headers
    assert await site.hydra._store.collection("sessions").count_documents({}) == 0


async def test_v7_4_1_ended_everywhere(open_site: OpenSite) -> None:
    """A session that ended at one node has ended at the other, at once."""
    one = await open_site()
    two = await open_site(keep=True)
    first = await one.register()
    assert (await two.me(first["access_token"])).code == 200
    assert (await one.post("logout", {"refresh_token": first["refresh_token"]})).code == 204
    await ended(two, first)
    await asyncio.gather(*(ended(one, first) for _ in range(5)))
    assert (await one.post("login", {"email": EMAIL, "password": PASSWORD})).code == 200


@pytest.mark.parametrize("held", ["cookie", "bearer"])
async def test_v7_2_4_the_one_that_was_ends(site: Site, held: str) -> None:
    """Whoever signs in again from where a session is held ends that session; a wrong password ends none."""
    await site.register()
    before = await log_in(site)
    grant = tokens(before)
    headers = {"Cookie": sent(jar(before))} if held == "cookie" else bearer(grant["access_token"])
    refused(await log_in(site, "wrong", **headers), 401, "invalid_credentials")
    assert (await site.me(grant["access_token"])).code == 200
    tokens(await log_in(site, **headers))
    refused(await site.me(grant["access_token"]), 401, "not_authenticated")
    refused(await refresh(site, grant["refresh_token"]), 401, "invalid_refresh_token")
