"""Who is let in to the Admin API, what each token may do, and the record of all that is done."""

import asyncio
import json
from collections.abc import Sequence
from datetime import timedelta
from hashlib import sha256
from typing import Any

import pytest
from administering import EMAIL, OWN, TESTER, Desk, both
from receivers import SECRET
from support import OpenSite, Site, refused
from tornado.ioloop import IOLoop

from hydracore.errors import StoreUnavailable
from hydracore.flows.admin_tokens import create_token, list_tokens, revoke_token
from hydracore.models import SCOPES, AdminToken, Delivery, MailIntent, Scope
from hydracore.web.access import scope_of
from hydracore.web.routes import ADMIN

BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/users"): {"email": "new@example.com"},
    ("POST", "/users/{user_id}/roles"): {"add": ["support"]},
    ("POST", "/webhooks/retry"): {},
    ("POST", "/webhooks/replay"): {"webhook": "crm"},
    ("POST", "/keys/rotate"): {},
}
# Of each call the scope that it takes, as docs/admin.md has it.
CALLS: list[tuple[str, str, Scope]] = [
    (method, path, scope)
    for path, endpoint in ADMIN.items()
    for method in endpoint.allowed()
    if (scope := scope_of(endpoint, method)) is not None
]
# Is told of nothing that happens here.
CRM = {"url": "http://127.0.0.1:1/", "secret": SECRET, "events": ["user.deletion_undone"]}
READS, WRITES = ([call for call in CALLS if (call[0] in ("GET", "HEAD")) is reads] for reads in (True, False))


@pytest.fixture
def desk(io_loop: IOLoop, open_site: OpenSite) -> Desk:
    settings: dict[str, Any] = {"roles": {"known": ["support"]}, "webhooks": {"endpoints": {"crm": CRM}}}
    site: Site = io_loop.run_sync(lambda: open_site(both, store=OWN, **settings))
    return Desk(site)


async def filled(desk: Desk, email: str = EMAIL) -> dict[str, str]:
    """Ids of what there is to be administered, as paths name them."""
    await desk.site.register(email)
    user, services, now = await desk.user(email), desk.site.hydra.services, desk.clock()
    [session] = await services.store.sessions.of_user(user.id, user.epoch, now, 1)
    _, token = await create_token(desk.admin, "other", ["users:read"], timedelta(days=1))
    mail = f"to {email}".replace(" ", "-")
    await services.store.outbox.add(MailIntent(mail, "reset_password", "x@x.x", created_at=now, due_at=now, dead=True))
    # Its webhook is configured no longer, so it goes nowhere.
    delivery = Delivery(f"{user.id}.gone", "gone", user.id, "user.registered", "{}", "", now, now, now, "dead")
    await services.store.deliveries.add_all([delivery])
    ids = {"user_id": user.id, "session_id": session.id, "token_id": token.id}
    return {**ids, "mail_id": mail, "delivery_id": delivery.id}


async def everything(desk: Desk) -> dict[str, list[Any]]:
    """What the database holds of what administrators may change."""
    found: dict[str, list[Any]] = {}
    for name in ("users", "sessions", "codes", "keys", "deliveries"):
        documents = desk.site.hydra.services.store.collection(name).find({}, sort=[("_id", 1)])
        found[name] = await documents.to_list(100)
    # Mail of before may be sent meanwhile.
    outbox = desk.site.hydra.services.store.collection("outbox")
    return {**found, "dead": await outbox.find({"dead": True}).to_list(100)}


async def listed(desk: Desk) -> Sequence[AdminToken]:
    return (await list_tokens(desk.admin, limit=100)).items


# -- tokens ------------------------------------------------------------------------------------------


def test_every_call_takes_a_scope() -> None:
    """Each method of each call takes the scope of its kind: one that reads for what changes nothing, one that writes
    for the rest; no scope is for nothing."""
    assert {scope for _, _, scope in CALLS} == set(SCOPES)
    assert len(CALLS) == sum(len(set(endpoint.allowed()) - {"OPTIONS"}) for endpoint in ADMIN.values())
    for method, path, scope in CALLS:
        assert scope.endswith(":read" if method in ("GET", "HEAD") else ":write"), (method, path)


@pytest.mark.gen_test(timeout=120)
async def test_without_its_scope(desk: Desk) -> None:
    """A token with all scopes but the one that a call takes is refused, which names that one; nothing is changed, and
    it is on record. Without a token nobody learns even that."""
    ids = await filled(desk)
    before = await everything(desk)
    tokens = {scope: await desk.make_token(*(each for each in SCOPES if each != scope)) for scope in SCOPES}
    for method, template, scope in CALLS:
        path, body = template.format(**ids), BODIES.get((method, template))
        answer = await desk.ask(method, path, body, token=tokens[scope])
        assert answer.code == 403, (method, path)
        if method != "HEAD":
            assert scope in refused(answer, 403, "missing_scope")
        asked = f'Bearer realm="hydracore-admin", error="insufficient_scope", scope="{scope}"'
        assert answer.headers["WWW-Authenticate"] == asked
        [entry, *_] = await desk.entries()
        assert (entry.action, entry.outcome) == ("call", "missing_scope")
        assert entry.details == {"call": f"{method} /admin{path}", "scope": scope}
        assert (await desk.ask(method, path, body, token="")).code == 401
        assert (await desk.entries())[0] == entry
    assert await everything(desk) == before


@pytest.mark.gen_test(timeout=120)
async def test_with_its_scope(desk: Desk) -> None:
    """The one scope that a call takes is enough for it, and it is on record, with who did it and on whom."""
    tokens = {scope: await desk.make_token(scope, name=f"for {scope}") for scope in SCOPES}
    for number, (method, template, scope) in enumerate(WRITES):
        ids = await filled(desk, f"u{number}@example.com")
        answer = await desk.ask(method, template.format(**ids), BODIES.get((method, template)), token=tokens[scope])
        assert answer.code in (200, 201, 204), (method, template, answer.body)
        [entry, *_] = await desk.entries()
        assert (entry.outcome, entry.actor["kind"], entry.actor["name"]) == ("done", "token", f"for {scope}")
        assert entry.actor["request_id"] == answer.headers["X-Request-Id"]
        if template != "/users":  # Whose new account has a new id.
            assert entry.user_id == (ids["user_id"] if "{user_id}" in template else ""), template


@pytest.mark.gen_test(timeout=120)
async def test_looking_is_on_record(desk: Desk) -> None:
    """Who looks is on record, and what at."""
    ids = await filled(desk)
    for method, template, scope in READS:
        token = await desk.make_token(scope, name="the eye")
        assert (await desk.ask(method, template.format(**ids), token=token)).code == 200
        [entry, *_] = await desk.entries()
        assert (entry.outcome, entry.actor["name"]) == ("done", "the eye")
        assert entry.user_id == (ids["user_id"] if "{user_id}" in template else ""), template


async def test_at_rest(desk: Desk) -> None:
    """A token has a form that scanners know and 256 bits, and the database holds nothing but its SHA-256: not in the
    audit either."""
    token = await desk.make_token()
    assert token.startswith("hca1.")
    assert len(token) == 5 + 43
    store = desk.site.hydra.services.store
    [kept] = await store.collection("admin_tokens").find({}).to_list(10)
    assert kept["digest"] == sha256(token.encode()).hexdigest()
    everything = str(kept) + str(await store.collection("audit").find({}).to_list(10))
    assert token not in everything
    assert token[5:] not in everything
    assert kept["digest"] not in str(await listed(desk))
    assert token != await desk.make_token()


async def wrong_tokens(desk: Desk) -> dict[str, str]:
    """Tokens that are no good, by what the operator is told of them."""
    expired, good = await desk.make_token(minutes=5), await desk.make_token()
    text, token = await create_token(desk.admin, "gone", ["users:read"], timedelta(days=1))
    await revoke_token(desk.admin, token.id)
    desk.clock.forward(minutes=6)
    grant = await desk.site.register()
    return {
        "the token has expired": expired,
        "the token is revoked": text,
        "there is no such token": f"hca1.{'A' * 43}",
        "that is no admin token": grant["access_token"],
        "that is no admin token ": f"{good}x",
        "that is no admin token  ": good.removeprefix("hca1."),
        "that is no admin token   ": "hca1.",
        "no token came": "",
    }


async def test_wrong_tokens(desk: Desk) -> None:
    """Wrong, expired, revoked and malformed tokens, a session's included, are one answer, 401 with a challenge, and the
    operator is told which it was."""
    for why, token in (await wrong_tokens(desk)).items():
        answer = await desk.ask("GET", "/users", token=token)
        detail = refused(answer, 401, "invalid_admin_token")
        assert detail == "This takes an admin token that is good: hydracore admin tokens create makes one."
        challenge = 'Bearer realm="hydracore-admin"'
        assert answer.headers["WWW-Authenticate"] == f'{challenge}, error="invalid_token"' if token else challenge
        await desk.site.hydra._refusals.flush()
        store, now = desk.site.hydra.services.store, desk.clock()
        [kept] = await store.refusals.of_request(answer.headers["X-Request-Id"], now)
        assert kept.why["reason"] == why.rstrip()
        assert kept.call == "GET /admin/users"


@pytest.mark.parametrize("header", ["Basic aGNhMTo=", "Bearer", "bearer  ", "Bearer é", "Bearer\thca1.x", "hca1.x"])
async def test_other_headers(desk: Desk, header: str) -> None:
    """What is no bearer token of ours, in whatever form, is 401."""
    answer = await desk.ask("GET", "/users", token="", Authorization=header)
    refused(answer, 401, "invalid_admin_token")


async def test_expiry_is_in_the_query(desk: Desk) -> None:
    """A token is good to its last moment and not beyond, though its document is still there; a revoked one is not good
    from the next request on, wherever it was good before."""
    token = await desk.make_token("keys:read", minutes=5)
    assert (await desk.ask("GET", "/keys", token=token)).code == 200
    desk.clock.forward(minutes=4, seconds=50)
    assert (await desk.ask("GET", "/keys", token=token)).code == 200
    desk.clock.forward(seconds=11)
    assert (await desk.ask("GET", "/keys", token=token)).code == 401
    *_, first = (await desk.get("/tokens"))["tokens"]
    assert (first["state"], first["scopes"]) == ("expired", ["keys:read"])
    other, kept = await create_token(desk.admin, "x", ["keys:read"], timedelta(days=1))
    assert (await desk.ask("GET", "/keys", token=other)).code == 200
    await desk.delete(f"/tokens/{kept.id}")
    assert (await desk.ask("GET", "/keys", token=other)).code == 401
    refused(await desk.ask("DELETE", f"/tokens/{kept.id}"), 404, "not_found")
    states = {each["id"]: each["state"] for each in (await desk.get("/tokens"))["tokens"]}
    assert states[kept.id] == "revoked"


async def test_last_used(desk: Desk) -> None:
    """When a token was last used is known to the minute, and a failed try is no use."""
    token = await desk.make_token("tokens:read")
    [kept] = await listed(desk)
    assert kept.last_used_at is None
    await desk.ask("GET", "/tokens", token=token)
    [first] = await listed(desk)
    assert first.last_used_at
    await desk.ask("GET", "/tokens", token=token)
    assert (await listed(desk))[0].last_used_at == first.last_used_at
    desk.clock.forward(minutes=2)
    await desk.ask("GET", "/tokens", token=token)
    assert (await listed(desk))[0].last_used_at > first.last_used_at


async def test_pages_of_tokens(desk: Desk) -> None:
    """However many tokens there are, each is on one page, the latest first, also where one is made meanwhile."""
    await desk.get("/keys")
    for number in range(4):
        await desk.make_token("keys:read", name=f"t{number}")
    first = await desk.get("/tokens?limit=3")
    await desk.make_token("keys:read", name="late")
    second = await desk.get(f"/tokens?limit=3&cursor={first['next']}")
    names = [token["name"] for page in (first, second) for token in page["tokens"]]
    assert names == ["t3", "t2", "t1", "t0", "desk"]
    assert second["next"] is None
    assert (await desk.get("/tokens?limit=1"))["tokens"][0]["name"] == "late"
    refused(await desk.ask("GET", f"/audit?cursor={first['next']}"), 400, "invalid_cursor")


@pytest.mark.parametrize("life", [timedelta(), timedelta(days=-1), timedelta(days=367)])
async def test_lives(desk: Desk, life: timedelta) -> None:
    """No token lives for ever."""
    with pytest.raises(ValueError, match="366 days"):
        await create_token(desk.admin, "x", ["users:read"], life)


async def test_failures_are_limited(open_site: OpenSite) -> None:
    """Wrong tokens and missing scopes of one network are counted together, and more of them is 429; a good token is
    never held up by others' failures, and parallel tries do not pass the limit."""
    desk = Desk(await open_site(both, limits={"enabled": True, "admin_network": "5/300"}))
    good, poor = await desk.make_token(), await desk.make_token("mail:read")
    wrong = [desk.ask("GET", "/users", token=f"hca1.{'A' * 42}{number}") for number in range(9)]
    assert sorted(answer.code for answer in await asyncio.gather(*wrong)) == [401] * 5 + [429] * 4
    for token in ("", "nonsense", poor):
        refused(await desk.ask("GET", "/users", token=token), 429, "too_many_requests")
    assert (await desk.ask("GET", "/users", token=good)).code == 200
    assert (await desk.ask("GET", "/mail", token=poor)).code == 200
    desk.clock.forward(seconds=301)
    refused(await desk.ask("GET", "/users", token=poor), 403, "missing_scope")


async def test_no_cookie_and_no_other_origin(open_site: OpenSite) -> None:
    """A session's cookie opens nothing; pages of other origins, the ones that the public API allows included, neither
    read an answer nor change anything, in possession of a token too."""
    origin = "https://app.example.com"
    desk = Desk(await open_site(both, server={"allowed_origins": [origin]}))
    grant = await desk.site.register()
    jar = f"hydracore_access={grant['access_token']}"
    refused(await desk.ask("GET", "/users", token="", Cookie=jar), 401, "invalid_admin_token")
    user = await desk.user()
    for asked in (origin, "https://evil.example", "null"):
        refused(await desk.ask("POST", f"/users/{user.id}/disable", Origin=asked), 403, "cross_origin")
        await desk.ask("GET", "/users", Origin=asked)
        await desk.ask("GET", "/nothing", Origin=asked)
        answer = await desk.site.ask("OPTIONS", "/admin/users", Origin=asked, Access_Control_Request_Method="GET")
        assert not [name for name in answer.headers if name.startswith("Access-Control")]
    assert (await desk.user()).disabled is False


async def test_in_a_storm(open_site: OpenSite, expected_logs: list[str]) -> None:
    """Administrators are answered when the server takes on no more requests."""
    expected_logs.append("unavailable")
    desk = Desk(await open_site(both, server={"max_requests": 1}))
    web = desk.site.hydra._web
    busy: Any = object()
    web.in_flight.add(busy)
    refused(await desk.site.ask("GET", "/auth/me"), 503, "overloaded")
    assert (await desk.ask("GET", "/users")).code == 200
    web.in_flight.discard(busy)


# -- the record --------------------------------------------------------------------------------------


@pytest.mark.gen_test(timeout=120)
async def test_nothing_off_the_record(desk: Desk, expected_logs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it cannot be written down nothing is done, and nothing is shown: 503."""
    expected_logs.append("unavailable")
    ids, token = await filled(desk), await desk.make_token()
    before = await everything(desk)

    async def away(*_: Any) -> bool:
        raise StoreUnavailable

    monkeypatch.setattr(desk.site.hydra.services.store.audit, "add", away)
    for method, template, _ in CALLS:
        answer = await desk.ask(method, template.format(**ids), BODIES.get((method, template)), token=token)
        assert answer.code == 503, (method, template)
    assert await everything(desk) == before


async def test_begun_and_done(desk: Desk, expected_logs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is on record before it is done; where nobody knows how far it came it stays begun, and the client gets 503,
    as where its end could not be written down; then saying it again does no harm."""
    expected_logs.append("unavailable")
    await desk.site.register()
    user, store = await desk.user(), desk.site.hydra.services.store
    disable, conclude, seen = store.users.disable, store.audit.conclude, []

    async def watched(*given: Any) -> Any:
        seen.append(await desk.last())
        raise StoreUnavailable

    monkeypatch.setattr(store.users, "disable", watched)
    refused(await desk.ask("POST", f"/users/{user.id}/disable"), 503, "store_unavailable")
    assert seen == [("users.disable", user.id, "begun")]
    assert await desk.last() == seen[0]
    monkeypatch.setattr(store.users, "disable", disable)

    async def lost(*given: Any) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(store.audit, "conclude", lost)
    refused(await desk.ask("POST", f"/users/{user.id}/disable"), 503, "store_unavailable")
    assert await desk.last() == ("users.disable", user.id, "begun")
    assert (await desk.user()).disabled is True
    monkeypatch.setattr(store.audit, "conclude", conclude)
    assert (await desk.post(f"/users/{user.id}/disable"))["disabled"] is True
    assert await desk.last() == ("users.disable", user.id, "done")


async def test_concluded_once(desk: Desk) -> None:
    """How it ended is written once, and stays."""
    await desk.get("/keys")
    [entry, *_] = await desk.entries()
    await desk.site.hydra.services.store.audit.conclude(entry.id, "rewritten", {"more": 1})
    assert (await desk.entries())[0] == entry


async def test_the_audit(desk: Desk) -> None:
    """The audit is read in pages from the latest on, whatever is added meanwhile, of all or of one account; looking at
    it is on record too. Nobody changes or deletes an entry by a call."""
    for number in range(5):
        await desk.post("/users", {"email": f"u{number}@example.com"}, 201)
    user = await desk.user("u2@example.com")
    await desk.post(f"/users/{user.id}/disable")
    first = await desk.get("/audit?limit=3")
    assert [entry["action"] for entry in first["entries"]] == ["users.disable", "users.create", "users.create"]
    assert first["entries"][0]["actor"] == {**first["entries"][0]["actor"], "kind": "token", "name": "desk"}
    await desk.get("/keys")
    second = await desk.get(f"/audit?limit=3&cursor={first['next']}")
    assert [entry["action"] for entry in second["entries"]] == ["users.create"] * 3
    last = await desk.get(f"/audit?limit=3&cursor={second['next']}")
    assert [(entry["action"], entry["actor"]["name"]) for entry in last["entries"]] == [("tokens.create", TESTER.name)]
    assert last["next"] is None
    theirs = await desk.get(f"/audit?user_id={user.id}&limit=1")
    more = await desk.get(f"/audit?user_id={user.id}&cursor={theirs['next']}")
    assert [entry["action"] for page in (theirs, more) for entry in page["entries"]] == [
        *("users.disable", "users.create")
    ]
    assert await desk.last() == ("audit.list", user.id, "done")
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert (await desk.ask(method, "/audit", {})).code == 405


async def test_entries_of_one_moment(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries of the same moment are in one order, too: none is twice on two pages, or on none."""
    services, moment = desk.site.hydra.services, desk.clock()
    token = await desk.make_token("audit:read")
    await services.store.collection("audit").delete_many({})
    for _ in range(7):
        await desk.admin.saw("x")
    await services.store.collection("audit").update_many({}, {"$set": {"at": moment}})
    seen: list[str] = []
    cursor = ""
    while True:
        page = json.loads((await desk.ask("GET", f"/audit?limit=3&cursor={cursor}", token=token)).body)
        seen += [entry["id"] for entry in page["entries"] if entry["action"] == "x"]
        if not (cursor := page["next"] or ""):
            break
    assert len(seen) == len(set(seen)) == 7


async def test_retention(open_site: OpenSite) -> None:
    """An entry is kept for admin.retention_days, and is not shown when they are over, deleted or not yet."""
    desk = Desk(await open_site(both, admin={"retention_days": 7}))
    await desk.get("/keys")
    [entry] = [entry for entry in await desk.entries() if entry.action == "keys.list"]
    assert entry.expires_at - entry.at == timedelta(days=7)
    desk.clock.forward(days=6, hours=23)
    assert entry in await desk.entries()
    desk.clock.forward(hours=2)
    assert entry not in await desk.entries()
    indexes = await desk.site.hydra.services.store.collection("audit").index_information()
    assert indexes["expires_at_1"]["expireAfterSeconds"] == 0
