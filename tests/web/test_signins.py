"""Where someone is signed in: seen by its owner, and ended by its owner alone."""

import asyncio
import json
from base64 import b64encode
from collections import Counter
from typing import Any

import pytest
from support import HOSTS, PASSWORD, OpenSite, Site, refused, tokens
from tornado.httpclient import HTTPResponse
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine

from hydracore.errors import StoreUnavailable
from hydracore.flows import signins
from hydracore.plugin import Context, events, hookimpl
from hydracore.store.sessions import Sessions
from hydracore.web.client import device_of

EMAIL = "ada@example.com"
LOGIN = {"email": EMAIL, "password": PASSWORD}
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


def bearer(grant: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {grant['access_token']}"}


async def listed(site: Site, grant: dict[str, Any]) -> list[dict[str, Any]]:
    answer = await site.ask("GET", "/auth/sessions", **bearer(grant))
    assert answer.code == 200, answer.body
    assert answer.headers["Cache-Control"] == "no-store"
    found: list[dict[str, Any]] = json.loads(answer.body)["sessions"]
    return found


async def end(site: Site, grant: dict[str, Any], session_id: str) -> HTTPResponse:
    return await site.ask("DELETE", f"/auth/sessions/{session_id}", **bearer(grant))


async def own_id(site: Site, grant: dict[str, Any]) -> str:
    return str(next(session["id"] for session in await listed(site, grant) if session["current"]))


@pytest.mark.parametrize("host", HOSTS)
async def test_seen_and_ended(open_site: OpenSite, host: str) -> None:
    """An owner sees each session with its device and network, the latest used first, ends another one, and then all
    others, in whatever application it is mounted."""
    site = await open_site(HOSTS[host])
    first = await site.verified()
    second = tokens(await site.post("login", LOGIN, User_Agent=FIREFOX))
    third = tokens(await site.post("login", LOGIN, User_Agent="curl/8.5.0"))
    newest, older, *rest = await listed(site, third)
    assert set(newest) == {"id", "device", "network", "created_at", "last_used_at", "current"}
    assert [session["device"] for session in (newest, older)] == ["curl", "Firefox on Linux"]
    assert {session["network"] for session in (newest, older, *rest)} == {"127.0.0.1"}
    assert [session["current"] for session in (newest, older, *rest)] == [True, *[False] * (1 + len(rest))]
    tokens(await site.post("refresh", {"refresh_token": second["refresh_token"]}, User_Agent=FIREFOX))
    assert [session["id"] for session in await listed(site, third)][:2] == [older["id"], newest["id"]]

    answer = await end(site, third, older["id"])
    assert (answer.code, answer.body) == (204, b"")
    refused(await site.me(second["access_token"]), 401, "not_authenticated")
    refused(await site.post("refresh", {"refresh_token": second["refresh_token"]}), 401, "invalid_refresh_token")
    answer = await site.post("sessions/revoke-others", **bearer(third))
    assert (answer.code, json.loads(answer.body)) == (200, {"ended": len(rest)})
    refused(await site.me(first["access_token"]), 401, "not_authenticated")
    assert [session["id"] for session in await listed(site, third)] == [newest["id"]]


async def test_every_way_in(open_site: OpenSite) -> None:
    """Register, verify-email, login, token and a refresh each leave the device and the network."""
    site = await open_site(server={"trusted_proxies": ["127.0.0.1"]})

    def by(agent: str, network: str) -> dict[str, str]:
        return {"User_Agent": agent, "X_Forwarded_For": network}

    first = tokens(await site.post("register", LOGIN, **by("one", "192.0.2.1")), 201)
    code = {"email": EMAIL, "code": await site.box.code(EMAIL)}
    grant = tokens(await site.post("verify-email", code, **bearer(first), **by("two", "192.0.2.2")))
    tokens(await site.post("login", LOGIN, **by("three", "2001:db8::7")))
    basic = {"Authorization": "Basic " + b64encode(f"{EMAIL}:{PASSWORD}".encode()).decode()}
    tokens(await site.ask("POST", "/auth/token", raw=b"", **basic, **by("four", "192.0.2.4")))
    seen = {session["device"]: session["network"] for session in await listed(site, grant)}
    assert seen == {"one": "192.0.2.1", "two": "192.0.2.2", "three": "2001:db8::/64", "four": "192.0.2.4"}
    grant = tokens(await site.post("refresh", {"refresh_token": grant["refresh_token"]}, **by("five", "192.0.2.5")))
    [current] = [session for session in await listed(site, grant) if session["current"]]
    assert (current["device"], current["network"]) == ("five", "192.0.2.5")


@pytest.mark.parametrize(
    ("agent", "device"),
    [
        (FIREFOX, "Firefox on Linux"),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
            "Version/18.0 Mobile/15E148 Safari/604.1",
            "Safari on iPhone",
        ),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 "
            "Safari/537.36 Edg/140.0.0.0",
            "Edge on Windows",
        ),
        (
            "Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Mobile Safari/537.36",
            "Chrome on Android",
        ),
        ("acme-backup/2.1 (cron)", "acme-backup"),
        ("", ""),
        ("/", ""),
        ("a\tb\x1b[31m\x9b", "ab[31m"),
        ("x" * 5000, "x" * 60),
    ],
)
def test_devices(agent: str, device: str) -> None:
    """A User-Agent becomes a few words, without control characters and however long it is."""
    headers = HTTPHeaders({"Host": "x", "User-Agent": agent})
    request = HTTPServerRequest(start_line=RequestStartLine("GET", "/", "HTTP/1.1"), headers=headers)
    assert device_of(request) == device


async def test_no_other_id(site: Site) -> None:
    """Somebody else's session, one that has ended and an id that is nobody's are 404 alike, and end
    nothing."""
    ada, eve = await site.verified(), await site.verified("eve@example.com")
    gone = await own_id(site, tokens(await site.post("login", LOGIN)))
    await end(site, ada, gone)
    ids = (await own_id(site, eve), gone, "nobody%27s", "%24ne", "%00", "x" * 2000)
    answers = [await end(site, ada, session_id) for session_id in ids]
    assert len({(answer.code, answer.body) for answer in answers}) == 1
    refused(answers[0], 404, "not_found")
    assert (await site.me(eve["access_token"])).code == 200
    refused(await end(site, ada, "%ff"), 400, "bad_request")


async def test_the_same_work(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's id and one that is nobody's reach the database alike."""
    ada, eve = await site.verified(), await site.verified("eve@example.com")
    theirs = await own_id(site, eve)
    work: list[list[str]] = []
    for session_id in (theirs, "nobodys"):
        done: list[str] = []
        for name in ("live_with_user", "end_own", "end", "live"):
            method = getattr(Sessions, name)

            def counted(*args: Any, _method: Any = method, _name: str = name, _done: Any = done, **how: Any) -> Any:
                _done.append(_name)
                return _method(site.hydra.services.store.sessions, *args, **how)

            monkeypatch.setattr(site.hydra.services.store.sessions, name, counted)
        refused(await end(site, ada, session_id), 404, "not_found")
        work.append(done)
    assert work[0] == work[1] == ["live_with_user", "live_with_user", "end_own"]


async def test_the_own_one(site: Site) -> None:
    """Whoever ends the session that asks is signed out: its cookies are cleared, and another's are not."""
    await site.verified()
    other = await own_id(site, tokens(await site.post("login", LOGIN)))
    grant = tokens(await site.post("login", LOGIN))
    kept = await end(site, grant, other)
    assert "Set-Cookie" not in kept.headers
    gone = await end(site, grant, await own_id(site, grant))
    assert (gone.code, gone.body) == (204, b"")
    assert [cookie.partition("=")[0] for cookie in gone.headers.get_list("Set-Cookie")] == [
        "hydracore_access",
        "hydracore_refresh",
    ]
    refused(await site.me(grant["access_token"]), 401, "not_authenticated")


async def test_who_may(site: Site) -> None:
    """Strangers get 401, whoever has not proven the address 403, and a cookie from a foreign page 403."""
    calls = (("GET", "sessions", None), ("DELETE", "sessions/x", None), ("POST", "sessions/revoke-others", {}))
    unproven = await site.register("eve@example.com")
    grant = await site.verified()
    cookie = {"Cookie": f"hydracore_access={grant['access_token']}"}
    for method, path, body in calls:
        refused(await site.ask(method, f"/auth/{path}", body=body), 401, "not_authenticated")
        refused(await site.ask(method, f"/auth/{path}", body=body, **bearer(unproven)), 403, "email_not_verified")
        if method != "GET":
            foreign = {**cookie, "Sec_Fetch_Site": "cross-site"}
            refused(await site.ask(method, f"/auth/{path}", body=body, **foreign), 403, "cross_origin")
    refused(
        await site.ask("POST", "/auth/sessions/revoke-others", raw=b"", **bearer(grant)), 415, "unsupported_media_type"
    )
    assert (await site.me(grant["access_token"])).code == 200


async def test_live_ones_alone(site: Site) -> None:
    """Sessions of before a reset, and those that have run out, are not shown, deleted or not."""
    await site.verified()
    user = await site.hydra.services.store.users.by_address(EMAIL)
    await site.hydra.services.store.users.start_epoch(user.id)
    tokens(await site.post("login", LOGIN))
    site.clock.forward(days=15)
    grant = tokens(await site.post("login", LOGIN))
    assert [session["current"] for session in await listed(site, grant)] == [True]
    assert await site.hydra._store.collection("sessions").count_documents({"user_id": user.id}) > 1


async def test_bounded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, so many of the latest used are shown."""
    monkeypatch.setattr(signins, "MOST_LISTED", 3)
    await site.verified()
    for number in range(4):
        grant = tokens(await site.post("login", LOGIN, User_Agent=f"agent{number}"))
    assert [session["device"] for session in await listed(site, grant)] == ["agent3", "agent2", "agent1"]


async def test_of_an_older_node(site: Site) -> None:
    """A session that a node of before left without device and network is shown without, until its next refresh."""
    grant = await site.verified()
    await site.hydra._store.collection("sessions").update_many({}, {"$unset": {"device": "", "network": ""}})
    assert {(session["device"], session["network"]) for session in await listed(site, grant)} == {("", "")}
    grant = tokens(await site.post("refresh", {"refresh_token": grant["refresh_token"]}, User_Agent=FIREFOX))
    [current] = [session for session in await listed(site, grant) if session["current"]]
    assert (current["device"], current["network"]) == ("Firefox on Linux", "127.0.0.1")


async def test_parallel_ends(site: Site) -> None:
    """Of 20 who end one session at once, one did."""
    grant = await site.verified()
    other = await own_id(site, tokens(await site.post("login", LOGIN)))
    answers = await asyncio.gather(*(end(site, grant, other) for _ in range(20)))
    assert Counter(answer.code for answer in answers) == {204: 1, 404: 19}


async def test_ending_against_refreshing(site: Site) -> None:
    """Whatever the order, once all others have ended no refresh token of theirs works, and the own one does."""
    grant = await site.verified()
    others = [tokens(await site.post("login", LOGIN)) for _ in range(5)]
    answers = await asyncio.gather(
        *(site.post("refresh", {"refresh_token": other["refresh_token"]}) for other in others),
        site.post("sessions/revoke-others", **bearer(grant)),
        *(site.post("refresh", {"refresh_token": other["refresh_token"]}) for other in others),
    )
    for answer in answers:
        if answer.code == 200 and b"refresh_token" in answer.body:
            later = {"refresh_token": tokens(answer)["refresh_token"]}
            refused(await site.post("refresh", later), 401, "invalid_refresh_token")
    tokens(await site.post("refresh", {"refresh_token": grant["refresh_token"]}))


async def test_a_moment_ago(open_site: OpenSite) -> None:
    """With tokens.cache_ttl, too, whoever is ended here is ended at once, and an ended session ends no others."""
    site = await open_site(tokens={"cache_ttl": 5})
    grant = await site.verified()
    other, third = [tokens(await site.post("login", LOGIN)) for _ in range(2)]
    for each in (other, third):
        assert (await site.me(each["access_token"])).code == 200
    assert (await end(site, grant, await own_id(site, other))).code == 204
    refused(await site.me(other["access_token"]), 401, "not_authenticated")
    assert (await site.me(grant["access_token"])).code == 200
    # Ended by another process, which this one has not heard of.
    await site.hydra._store.collection("sessions").delete_one({"_id": await own_id(site, grant)})
    refused(await site.post("sessions/revoke-others", **bearer(grant)), 401, "not_authenticated")
    assert (await site.post("sessions/revoke-others", **bearer(third))).code == 200
    refused(await site.me(grant["access_token"]), 401, "not_authenticated")


@pytest.mark.parametrize("done", [True, False])
async def test_lost(site: Site, monkeypatch: pytest.MonkeyPatch, expected_logs: list[str], done: bool) -> None:
    """When it is unknown whether the others ended the answer is 503, and repeating it ends what is left."""
    expected_logs.append("unavailable")
    grant = await site.verified()
    other = tokens(await site.post("login", LOGIN))
    sessions = site.hydra.services.store.sessions
    method = sessions.end_others

    async def lost(*args: Any) -> int:
        monkeypatch.setattr(sessions, "end_others", method)
        if done:
            await method(*args)
        raise StoreUnavailable

    monkeypatch.setattr(sessions, "end_others", lost)
    refused(await site.post("sessions/revoke-others", **bearer(grant)), 503, "store_unavailable")
    assert (await site.post("sessions/revoke-others", **bearer(grant))).code == 200
    refused(await site.me(other["access_token"]), 401, "not_authenticated")
    assert (await site.me(grant["access_token"])).code == 200


async def test_told(open_site: OpenSite) -> None:
    """Both are events: who, which session, from where, and how many."""
    heard: list[events.Event] = []

    class Ear:
        def __init__(self, context: Context) -> None:
            pass

        @hookimpl
        async def hydracore_on_event(self, event: events.Event) -> None:
            heard.append(event)

    site = await open_site(extra={"ear": Ear})
    await site.verified()
    other = await own_id(site, tokens(await site.post("login", LOGIN)))
    grant = tokens(await site.post("login", LOGIN))
    await end(site, grant, other)
    ended = json.loads((await site.post("sessions/revoke-others", **bearer(grant))).body)["ended"]
    await site.hydra.registry.settle()
    [out] = [event for event in heard if isinstance(event, events.LoggedOut)]
    [revoked] = [event for event in heard if isinstance(event, events.OtherSessionsRevoked)]
    assert (out.session_id, out.network) == (other, "127.0.0.1")
    assert (revoked.session_id, revoked.ended) == (await own_id(site, grant), ended)
    assert revoked.user_id == out.user_id
