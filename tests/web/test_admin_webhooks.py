"""What administrators do about webhooks, by the Admin API."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from administering import OWN, Desk, both, read
from receivers import SECRET, Receiver, receiving, says, until
from support import OpenSite, refused

from hydracore.models import Delivery
from hydracore.webhooks.courier import Courier
from hydracore.webhooks.posting import NoAnswer, post

SECRET_PATH = "/hooks/a-secret-path"
NOWHERE = {"url": f"http://127.0.0.1:1{SECRET_PATH}", "secret": SECRET}


def told(receiver: Receiver) -> dict[str, Any]:
    return {"url": receiver.url, "secret": SECRET}


async def opened(open_site: OpenSite, **endpoints: dict[str, Any]) -> Desk:
    return Desk(await open_site(both, store=OWN, webhooks={"endpoints": endpoints}))


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody sends anything."""
    monkeypatch.setattr(Courier, "start", lambda self: None)


async def put(desk: Desk, *names: str, **how: Any) -> list[Delivery]:
    """Deliveries for the webhook that each name ends with."""
    now, ends = desk.clock(), desk.clock() + timedelta(days=30)
    made = [
        Delivery(name, name.partition(".")[2], name, "user.registered", '{"data": "said"}', "whose", now, now, ends)
        for name in names
    ]
    made = [replace(delivery, **how) for delivery in made]
    await desk.site.hydra.services.store.deliveries.add_all(made)
    return made


async def ids(desk: Desk, query: str = "") -> list[str]:
    return [each["id"] for each in (await desk.get(f"/webhooks{query}"))["deliveries"]]


# -- looking -----------------------------------------------------------------------------------------


async def test_a_delivery(open_site: OpenSite, still: None) -> None:
    """An event is shown with what became of it, and nothing of what it says, whom it tells of, or where it goes."""
    desk = await opened(open_site, crm=NOWHERE)
    [waiting] = await put(desk, "a.crm", attempts=2, error="answered 503")
    await put(desk, "b.gone", state="dead")
    await put(desk, "c.crm", lease="mine")
    answer = await desk.ask("GET", "/webhooks")
    first, second, third = json.loads(answer.body)["deliveries"]
    assert first == {
        "id": "a.crm",
        "state": "waiting",
        "webhook": "crm",
        "configured": True,
        "type": "user.registered",
        "created_at": waiting.created_at.isoformat(),
        "due_at": waiting.due_at.isoformat(),
        "attempts": 2,
        "error": "answered 503",
    }
    assert (second["state"], second["configured"], second["due_at"]) == ("dead", False, None)
    assert third["state"] == "sending"
    for hidden in (b"said", b"whose", b"mine", b"a-secret-path", b"127.0.0.1", SECRET.encode()):
        assert hidden not in answer.body


async def test_why_it_failed(open_site: OpenSite, still: None) -> None:
    """What a try came to says nothing of the URL, here neither."""
    desk = await opened(open_site, crm=NOWHERE)
    with pytest.raises(NoAnswer) as failed:
        await post(desk.site.hydra.config.webhooks.endpoints["crm"], "x", "{}", desk.clock())
    await put(desk, "a.crm", error=str(failed.value))
    answer = await desk.ask("GET", "/webhooks")
    [shown] = json.loads(answer.body)["deliveries"]
    assert shown["error"] == str(failed.value) != ""
    assert b"a-secret-path" not in answer.body


async def test_filters_and_pages(open_site: OpenSite, still: None) -> None:
    """Events are listed by their state and by their webhook, page after page without gap or overlap, whatever becomes
    of them meanwhile; a cursor is good for its filter alone."""
    desk = await opened(open_site, crm=NOWHERE, erp=NOWHERE)
    dead = [f"{letter}.crm" for letter in "bdfhj"]
    await put(desk, *dead, state="dead")
    await put(desk, "a.crm", "c.erp")
    await put(desk, "e.erp", state="delivered")
    assert await ids(desk) == ["a.crm", "b.crm", "c.erp", "d.crm", "e.erp", "f.crm", "h.crm", "j.crm"]
    assert await ids(desk, "?state=waiting") == ["a.crm", "c.erp"]
    assert await ids(desk, "?webhook=erp") == ["c.erp", "e.erp"]
    assert await ids(desk, "?webhook=erp&state=delivered") == ["e.erp"]
    assert await ids(desk, "?webhook=erp&state=dead") == []
    first = await desk.get("/webhooks?state=dead&webhook=crm&limit=2")
    assert [each["id"] for each in first["deliveries"]] == dead[:2]
    await put(desk, "i.crm", "a0.crm", state="dead")
    for each in (dead[0], dead[3]):
        assert (await desk.ask("POST", f"/webhooks/{each}/retry")).code == 204
    second = await desk.get(f"/webhooks?state=dead&webhook=crm&limit=2&cursor={first['next']}")
    assert [each["id"] for each in second["deliveries"]] == ["f.crm", "i.crm"]
    last = await desk.get(f"/webhooks?state=dead&webhook=crm&limit=2&cursor={second['next']}")
    assert ([each["id"] for each in last["deliveries"]], last["next"]) == (["j.crm"], None)
    for query in ("", "state=dead&", "webhook=crm&", "state=waiting&webhook=crm&", "state=dead&webhook=erp&"):
        refused(await desk.ask("GET", f"/webhooks?{query}cursor={first['next']}"), 400, "invalid_cursor")
    refused(await desk.ask("GET", f"/mail?state=dead&cursor={first['next']}"), 400, "invalid_cursor")
    head = await desk.ask("HEAD", "/webhooks")
    assert (head.code, head.body) == (200, b"")


# -- sending again -----------------------------------------------------------------------------------


async def test_sent_again(open_site: OpenSite, expected_logs: list[str]) -> None:
    """What was given up is sent again by itself, or with all others of its webhook or of all; what was delivered is
    replayed. Each time it is the same id and body."""
    expected_logs.append("webhook given up")
    async with receiving() as crm, receiving() as erp:
        crm.then = erp.then = says(410)
        desk = await opened(open_site, crm=told(crm), erp=told(erp))
        for name in ("ada", "bob"):
            await desk.site.register(f"{name}@example.com")

        async def are(state: str, number: int) -> bool:
            return len(await ids(desk, f"?state={state}")) == number

        await until(lambda: are("dead", 4))
        [one, other] = await ids(desk, "?state=dead&webhook=crm")
        crm.then = erp.then = says(204)
        assert (await desk.ask("POST", f"/webhooks/{one}/retry")).code == 204
        await until(lambda: are("delivered", 1))
        assert await desk.post("/webhooks/retry", {"webhook": "crm"}) == {"retried": 1}
        await until(lambda: are("delivered", 2))
        assert sorted(await ids(desk, "?state=delivered")) == sorted([one, other])
        assert len(erp.posts) == 2
        assert await desk.post("/webhooks/retry", {}) == {"retried": 2}
        await until(lambda: are("delivered", 4))
        assert await desk.post("/webhooks/retry", {}) == {"retried": 0}
        assert await desk.post("/webhooks/replay", {"webhook": "erp"}) == {"retried": 2}
        await erp.had(6)
        await until(lambda: are("delivered", 4))
        assert len(crm.posts) == 4
        assert {(post.id, post.body) for post in crm.posts} == {(post.id, post.body) for post in erp.posts}
        assert len({post.id for post in crm.posts}) == 2
        assert {each.proven()["type"] for each in (*crm.posts, *erp.posts)} == {"user.registered"}


async def test_dead_letters_alone(open_site: OpenSite, still: None) -> None:
    """All dead letters are no others: what waits keeps its time, and what is being sent its lease. By itself an event
    that waits is due at once."""
    desk = await opened(open_site, crm=NOWHERE)
    later = desk.clock() + timedelta(hours=6)
    await put(desk, "a.crm", due_at=later, attempts=7)
    await put(desk, "b.crm", due_at=later, lease="mine", attempts=1)
    await put(desk, "c.crm", state="dead", attempts=13)
    await put(desk, "d.crm", state="delivered", attempts=1)
    assert await desk.post("/webhooks/retry", {}) == {"retried": 1}
    shown = (await desk.get("/webhooks"))["deliveries"]
    states = [(each["state"], each["attempts"]) for each in shown]
    assert states == [("waiting", 7), ("sending", 1), ("waiting", 0), ("delivered", 1)]
    assert shown[0]["due_at"] == shown[1]["due_at"] == later.isoformat()
    assert (await desk.ask("POST", "/webhooks/a.crm/retry")).code == 204
    first, *_ = (await desk.get("/webhooks"))["deliveries"]
    assert first["due_at"] < later.isoformat()


async def test_since(open_site: OpenSite, still: None) -> None:
    """A replay can begin at a moment, which has any offset and any fraction of a second."""
    desk = await opened(open_site, crm=NOWHERE)
    now = desk.clock()
    for hours in (1, 2, 3):
        await put(desk, f"{hours}.crm", state="delivered", created_at=now - timedelta(hours=hours))

    async def replayed(since: str) -> int:
        return int((await desk.post("/webhooks/replay", {"webhook": "crm", "since": since}))["retried"])

    assert await replayed("2100-01-01T00:00:00Z") == 0
    assert await replayed(f"{now - timedelta(minutes=90):%Y-%m-%dT%H:%M:%SZ}") == 1
    assert await replayed(f"{now + timedelta(minutes=120 - 150):%Y-%m-%dT%H:%M:%S.1234567}+02:00") == 1
    assert await replayed("0001-01-02T00:00:00Z") == 1
    assert await replayed("0001-01-02T00:00:00Z") == 0


@pytest.mark.parametrize("delivery_id", ["nothing.crm", "%2e%2e%2fx", "%00", "a%0Ab", "{$gt:1}", "x" * 129, "é"])
async def test_unknown_ids(open_site: OpenSite, still: None, delivery_id: str) -> None:
    """An id that no event has, whatever it is made of, is 404, and changes nothing."""
    desk = await opened(open_site, crm=NOWHERE)
    await put(desk, "a.crm", state="dead")
    refused(await desk.ask("POST", f"/webhooks/{quote(delivery_id, safe='%')}/retry"), 404, "not_found")
    assert await ids(desk, "?state=dead") == ["a.crm"]


async def test_what_is_being_sent(open_site: OpenSite, still: None) -> None:
    """What a worker has leased is left alone."""
    desk = await opened(open_site, crm=NOWHERE)
    await put(desk, "a.crm", lease="mine", attempts=3)
    refused(await desk.ask("POST", "/webhooks/a.crm/retry"), 404, "not_found")
    [sending] = (await desk.get("/webhooks"))["deliveries"]
    assert (sending["state"], sending["attempts"]) == ("sending", 3)


# -- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["query", "retry", "replay"])
@pytest.mark.parametrize("name", ["nobody", "Crm", "a b", "x" * 33, "crm\n", "$gt", ""])
async def test_unknown_webhooks(open_site: OpenSite, still: None, where: str, name: str) -> None:
    """A name that no webhook has is refused by the member and the rule, and changes nothing: it does not stand for all
    of them."""
    desk = await opened(open_site, crm=NOWHERE)
    await put(desk, "a.crm", state="dead")
    await put(desk, "b.crm", state="delivered")
    if where == "query":
        answer = await desk.ask("GET", f"/webhooks?webhook={quote(name)}")
    else:
        answer = await desk.ask("POST", f"/webhooks/{where}", {"webhook": name})
    [problem] = read(answer, 422)["detail"]
    assert problem["loc"] == ["query" if where == "query" else "body", "webhook"]
    known = ("value_error", "No webhook has the name nobody (known: crm).")
    form = ("string_pattern_mismatch", "This has characters or a form that are not accepted.")
    assert (problem["type"], problem["msg"]) == (known if name == "nobody" else form)
    assert (await ids(desk, "?state=dead"), await ids(desk, "?state=delivered")) == (["a.crm"], ["b.crm"])


@pytest.mark.parametrize(
    ("call", "body", "member", "kind"),
    [
        ("retry", {"webhok": "crm"}, "webhok", "extra_forbidden"),
        ("retry", {"webhook": None}, "webhook", "string_type"),
        ("replay", {}, "webhook", "missing"),
        ("replay", {"webhook": "crm", "until": "2026-11-27T22:20:00Z"}, "until", "extra_forbidden"),
        ("replay", {"webhook": "crm", "since": 1_700_000_000}, "since", "string_type"),
        ("replay", {"webhook": "crm", "since": "yesterday"}, "since", "string_pattern_mismatch"),
        ("replay", {"webhook": "crm", "since": "2026-11-27"}, "since", "string_pattern_mismatch"),
        ("replay", {"webhook": "crm", "since": "2026-11-27T22:20:00"}, "since", "string_pattern_mismatch"),
        ("replay", {"webhook": "crm", "since": "2026-11-31T22:20:00Z"}, "since", "value_error"),
        ("replay", {"webhook": "crm", "since": "0000-01-01T00:00:00Z"}, "since", "value_error"),
        ("replay", {"webhook": "crm", "since": "0001-01-01T00:00:00+01:00"}, "since", "value_error"),
        ("replay", {"webhook": "crm", "since": "2026-11-27T22:20:00+24:00"}, "since", "value_error"),
    ],
)
async def test_bad_bodies(open_site: OpenSite, still: None, call: str, body: Any, member: str, kind: str) -> None:
    """What a body may not have is refused by its name and the rule: a misspelt one does not send all again."""
    desk = await opened(open_site, crm=NOWHERE)
    await put(desk, "a.crm", state="dead")
    await put(desk, "b.crm", state="delivered")
    [problem] = refused(await desk.ask("POST", f"/webhooks/{call}", body), 422, "validation_failed")
    assert (problem["loc"], problem["type"]) == (["body", member], kind)
    assert (await ids(desk, "?state=dead"), await ids(desk, "?state=delivered")) == (["a.crm"], ["b.crm"])


@pytest.mark.parametrize("query", ["state=lost", "state=sending", "email=a", "webhook=crm&webhook=crm"])
async def test_bad_queries(open_site: OpenSite, still: None, query: str) -> None:
    """A misspelt filter does not list everything."""
    desk = await opened(open_site, crm=NOWHERE)
    [problem] = read(await desk.ask("GET", f"/webhooks?{query}"), 422)["detail"]
    assert problem["loc"] == ["query", query.partition("=")[0]]


# -- the record --------------------------------------------------------------------------------------


async def test_on_record(open_site: OpenSite, still: None) -> None:
    """What was sent again, of which webhook and how many, is on record; nothing of what it says is."""
    desk = await opened(open_site, crm=NOWHERE)
    await put(desk, "a.crm", "b.crm", state="dead")
    await put(desk, "c.crm", state="delivered")
    await desk.get("/webhooks?webhook=crm")
    await desk.ask("POST", "/webhooks/a.crm/retry")
    await desk.ask("POST", "/webhooks/nothing.crm/retry")
    await desk.post("/webhooks/retry", {})
    await desk.post("/webhooks/replay", {"webhook": "crm", "since": "2026-01-01T01:00:00+01:00"})
    entries = [entry for entry in await desk.entries() if entry.action.startswith("webhooks.")]
    assert [(entry.action, entry.outcome, entry.details) for entry in reversed(entries)] == [
        ("webhooks.list", "done", {"webhook": "crm"}),
        ("webhooks.retry", "done", {"delivery": "a.crm"}),
        ("webhooks.retry", "not_found", {"delivery": "nothing.crm"}),
        ("webhooks.retry_all", "done", {"webhook": "", "states": ["dead"], "since": "", "retried": 1}),
        (
            *("webhooks.replay", "done"),
            {"webhook": "crm", "states": ["delivered"], "since": "2026-01-01T00:00:00+00:00", "retried": 1},
        ),
    ]
    assert {entry.actor["name"] for entry in entries} == {"desk"}
    assert {entry.user_id for entry in entries} == {""}
