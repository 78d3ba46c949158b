"""Webhooks: what happens reaches each URL, signed, at least once, and again where that failed."""

import asyncio
import json
import logging
import re
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from importing import imported
from prometheus_client import CollectorRegistry
from pymongo import MongoClient
from receivers import SECRET, Receiver, closes, drips, hangs, receiving, says, until
from standardwebhooks import WebhookVerificationError
from support import PASSWORD, OpenSite, Site, refused, tokens
from support import SECRET as SITES

from hydracore.config import load_schema
from hydracore.errors import NotFound, StoreUnavailable
from hydracore.flows import account, webhooks
from hydracore.flows.roles import change_roles
from hydracore.flows.sweep import sweep
from hydracore.models import Delivery, User
from hydracore.plugin import events, hookimpl
from hydracore.signing import keys_of, signature
from hydracore.webhooks import relay
from hydracore.webhooks.notices import KINDS
from hydracore.webhooks.posting import Answer, NoAnswer

EMAIL, OTHER, NEW = "ada@example.com", "countess@example.com", "an entirely new password"
NEW_SECRET = "another-secret-of-the-tests-that-is-long-enough"
NEXT = "whsec_" + "bmV4dC1zZWNyZXQtb2YtdGhlLXRlc3RzLWxvbmc="
DOCS = (Path(__file__).parent.parent / "docs/webhooks.md").read_text("utf-8")
EVERY = [kind.name for kind in KINDS.values()]
DURABLE = [kind.name for kind in KINDS.values() if kind.durable]


def hooks(receiver: Receiver, name: str = "crm", **how: Any) -> dict[str, Any]:
    """A section of the configuration."""
    return {"endpoints": {name: {"url": receiver.url, "secret": SECRET, **how}}}


async def outbox(site: Site) -> list[Delivery]:
    return await webhooks.list_deliveries(site.hydra.services, 1000, states=webhooks.EVERY)


async def is_so(site: Site, **wanted: Any) -> bool:
    """Whether there is a delivery like that, which nobody is sending."""
    found = [each for each in await outbox(site) if not each.lease]
    return any(all(getattr(each, name) == value for name, value in wanted.items()) for each in found)


async def all_delivered(site: Site) -> bool:
    return all(each.state == "delivered" for each in await outbox(site))


def wake(site: Site) -> None:
    for courier in site.hydra._couriers:
        courier.wake()


def held(grant: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {grant['access_token']}"}


async def user_of(site: Site, email: str = EMAIL) -> User:
    user = await site.hydra.services.store.users.by_address(email)
    assert user
    return user


ROLES = {"known": ["admin"]}


async def everything(site: Site) -> list[str]:
    """What may happen to an account, all of it; the types that are to be told, in order."""
    grant = await site.verified()
    change = {"current_password": PASSWORD, "new_password": NEW}
    grant = tokens(await site.post("change-password", change, **held(grant)))
    assert (await site.post("change-email", {"password": NEW, "email": OTHER}, **held(grant))).code == 200
    tokens(await site.post("confirm-email", {"code": await site.box.change_code(OTHER)}, **held(grant)))
    undo = {"token": await site.box.undo_token(EMAIL)}
    assert (await site.post("undo-email-change", undo)).code == 200
    reset = {"token": await site.box.reset_token(EMAIL), "new_password": PASSWORD}
    assert (await site.post("reset-password", reset)).code == 200
    services = site.hydra.services
    user = await user_of(site)
    await account.disable_user(services, user)
    await account.enable_user(services, user)
    await account.revoke_sessions(services, user)
    await change_roles(services, user.id, add=["admin"])
    grant = tokens(await site.post("login", {"email": EMAIL, "password": PASSWORD}))
    assert (await site.ask("DELETE", "/auth/me", body={"password": PASSWORD}, **held(grant))).code == 200
    reopen = {"token": await site.box.undo_token(EMAIL, about="account is closed")}
    assert (await site.post("undo-deletion", reopen)).code == 200
    await account.force_reset(services, user)
    names = "registered email_verified password_changed email_changed email_change_undone password_reset"
    names += " disabled enabled sessions_revoked roles_changed deletion_requested deletion_undone password_voided"
    return [f"user.{name}" for name in names.split()]


@pytest.fixture
def warned(expected_logs: list[str]) -> None:
    """What the events themselves log at WARNING."""
    expected_logs += ["EmailChangeUndone", "UserDisabled", "RefreshReused"]


@pytest.fixture(autouse=True)
def empty(mongod_uri: str) -> None:
    """What other tests left would be told as soon as a site is open."""
    with MongoClient[dict[str, Any]](mongod_uri) as client:
        for name in ("users", "deliveries"):
            client["hydracore"][name].delete_many({})


# -- what is told --------------------------------------------------------------------------------------


async def test_everything_is_told(open_site: OpenSite, warned: None) -> None:
    """Whatever happens to an account reaches the webhook, signed by the standard, as ids and nothing more: no address,
    no network, no password."""
    heard: dict[str, str] = {}

    class Ear:
        @hookimpl
        async def hydracore_on_event(self, event: events.Event) -> None:
            heard[event.id] = type(event).__name__

    async with receiving() as receiver:
        site = await open_site(webhooks=hooks(receiver), extra={"ear": lambda context: Ear()}, roles=ROLES)
        wanted = await everything(site)
        user = await user_of(site)
        await account.delete_user(site.hydra.services, user)
        wanted.append("user.deleted")
        posts = await receiver.had(len(wanted))
        assert sorted(post.type for post in posts) == sorted(wanted)
        await site.hydra.registry.settle()
        for post in posts:
            payload = post.proven()
            assert set(payload) == {"type", "timestamp", "data"}
            more = {"added": ["admin"], "removed": []} if post.type == "user.roles_changed" else {}
            assert payload["data"] == {"user_id": user.id, **more}
            assert payload["timestamp"].endswith("Z")
            assert (post.line, post.headers["content-type"]) == (
                "POST /hooks/a-secret-path HTTP/1.1",
                "application/json",
            )
            # Under the id that plugins and the audit log know it by.
            kind = next(kind for kind, told in KINDS.items() if told.name == post.type)
            assert heard[post.id] == kind.__name__
            for secret in (EMAIL, OTHER, "127.0.0.1", PASSWORD, NEW):
                assert secret.encode() not in post.body


async def test_each_gets_what_it_asks_for(open_site: OpenSite) -> None:
    """A webhook is told of the types that it names, each under its own secret; what is not written down with the
    account is told too."""
    async with receiving() as one, receiving() as two:
        sections = hooks(one, "one", events=["session.started", "login.failed"])
        sections["endpoints"] |= hooks(two, "two", events=["user.registered"], secret=NEXT)["endpoints"]
        site = await open_site(webhooks=sections)
        grant = await site.register()
        assert (await site.post("login", {"email": EMAIL, "password": "a wrong one"})).code == 401
        await one.had(2)
        [registered] = await two.had(1)
        assert registered.proven(NEXT)["type"] == "user.registered"
        with pytest.raises(WebhookVerificationError):
            registered.proven(SECRET)
        assert sorted(one.types) == ["login.failed", "session.started"]
        failed = next(post for post in one.posts if post.type == "login.failed").proven()
        assert set(failed["data"]) == {"address_digest", "network"}
        assert grant


async def test_a_rotation(open_site: OpenSite) -> None:
    """While two secrets are configured, either proves each post."""
    async with receiving() as receiver:
        site = await open_site(webhooks=hooks(receiver, secret=f"{NEXT}\n{SECRET}\n"))
        await site.register()
        [post] = await receiver.had(1)
        assert post.proven(SECRET) == post.proven(NEXT)
        assert len(post.headers["webhook-signature"].split()) == 2


def test_the_standards_own_example() -> None:
    """The signature of the standard's example is the one that it gives; what is no secret is refused, and not
    repeated."""
    body = b'{"test": 2432232314}'
    signed = signature(keys_of(SECRET), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    for wrong in ("", "whsec_", "whsec_c2hvcnQ=", "whsec_no base64!", SECRET.removeprefix("whsec_"), SECRET + "*"):
        with pytest.raises(ValueError, match=r"whsec_|none") as raised:
            keys_of(wrong)
        assert wrong in ("", "whsec_") or wrong not in str(raised.value)


def test_the_schema_knows_the_types() -> None:
    """The configuration takes every type that there is, and by default those that no crash can lose."""
    rule = load_schema()["properties"]["webhooks"]["properties"]["endpoints"]["additionalProperties"]
    assert rule["properties"]["events"]["items"]["enum"] == EVERY
    assert rule["properties"]["events"]["default"] == DURABLE
    kinds = {kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, events.Event)}
    assert set(KINDS) == kinds - {events.Event, events.UserEvent, events.SessionEvent}


def test_the_documents_say_what_is_told() -> None:
    """docs/webhooks.md has each type, what its data are, and whether a crash can lose it."""
    rows = re.findall(r"^\| `([a-z_.]+)` \| .* \| ([^|]+) \| (never|possible) \|$", DOCS, re.MULTILINE)
    told = {name: (tuple(re.findall(r"`(\w+)`", data)), lost == "never") for name, data, lost in rows}
    assert told == {kind.name: (kind.fields, kind.durable) for kind in KINDS.values()}


async def test_nobody_is_told(site: Site) -> None:
    """Without a webhook nothing is written for one."""
    await site.verified()
    assert (await user_of(site)).untold == []
    assert await outbox(site) == []


# -- nothing is lost -----------------------------------------------------------------------------------


def dies(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on the site's process does what it is asked, and never comes to tell anybody of it."""
    relay = site.hydra._relay
    assert relay._task
    relay._task.cancel()

    async def nothing(*args: Any) -> None:
        pass

    monkeypatch.setattr(relay, "_move", nothing)


async def test_what_was_acknowledged_is_told(
    open_site: OpenSite, monkeypatch: pytest.MonkeyPatch, warned: None
) -> None:
    """A process that dies before it tells of what it has acknowledged has it written down, in the same step as what
    happened: another one tells of all of it, in the order in which it happened."""
    async with receiving() as receiver:
        site = await open_site(webhooks=hooks(receiver), roles=ROLES)
        dies(site, monkeypatch)
        wanted = await everything(site)
        user = await user_of(site)
        assert [notice.type for notice in user.notices] == wanted
        assert receiver.posts == []
        assert await outbox(site) == []
        survivor = await open_site(keep=True, webhooks=hooks(receiver))
        survivor.clock.forward(seconds=6)
        posts = await receiver.had(len(wanted))
        assert sorted(receiver.types) == sorted(wanted)
        assert {post.id for post in posts} == {notice.id for notice in user.notices}
        await until(lambda: _nothing_untold(site))


async def _nothing_untold(site: Site) -> bool:
    return not (await user_of(site)).untold


async def test_unknown_outcomes_are_told(
    open_site: OpenSite, monkeypatch: pytest.MonkeyPatch, expected_logs: list[str]
) -> None:
    """A change that was answered 503, because nobody knew whether it was done, is told if it was."""
    expected_logs.append("unavailable")
    async with receiving() as receiver:
        site = await open_site(webhooks=hooks(receiver))
        users = site.hydra.services.store.users
        add = users.add

        async def lost(user: User) -> bool:
            monkeypatch.setattr(users, "add", add)
            await add(user)
            raise StoreUnavailable

        monkeypatch.setattr(users, "add", lost)
        body = {"email": EMAIL, "password": PASSWORD}
        refused(await site.post("register", body), 503, "store_unavailable")
        site.clock.forward(seconds=6)
        [post] = await receiver.had(1)
        assert post.proven() == {**post.json, "data": {"user_id": (await user_of(site)).id}}


async def test_what_did_not_happen_is_not_told(open_site: OpenSite) -> None:
    """What was refused is told to nobody."""
    async with receiving() as receiver:
        site = await open_site(webhooks=hooks(receiver))
        await site.register()
        await receiver.had(1)
        refused(await site.post("register", {"email": EMAIL, "password": PASSWORD}), 409, "email_taken")
        refused(await site.post("verify-email", {"email": EMAIL, "code": "000000"}), 400, "invalid_code")
        refused(await site.post("reset-password", {"token": "x", "new_password": NEW}), 400, "invalid_token")
        await site.hydra.registry.settle()
        assert len(await outbox(site)) == 1
        assert (await user_of(site)).untold == []


async def test_between_the_outbox_and_the_account(open_site: OpenSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that dies after it put an event into the outbox, and before it could note that, has it told once."""
    async with receiving() as receiver:
        site = await open_site(webhooks=hooks(receiver))
        users = site.hydra.services.store.users

        async def dead(*args: Any) -> None:
            raise StoreUnavailable

        with monkeypatch.context() as patch:
            patch.setattr(users, "told", dead)
            await site.register()
            await receiver.had(1)
            await until(lambda: is_so(site, state="delivered"))
            assert (await user_of(site)).untold
        site.clock.forward(seconds=6)
        await site.hydra._relay._look()
        assert (await user_of(site)).untold == []
        assert [each.state for each in await outbox(site)] == ["delivered"]
        assert len(receiver.posts) == 1


@pytest.mark.parametrize("part", ["users.say_over", "deliveries.add_all", "users.told", "users.delete_closed"])
async def test_the_end_of_an_account_is_told(
    open_site: OpenSite, monkeypatch: pytest.MonkeyPatch, warned: None, part: str
) -> None:
    """Wherever the deletion of an account ends half-way, the next sweep does the rest: it is gone, and what it held has
    come into the outbox, once."""
    async with receiving() as receiver:
        site = await open_site(webhooks=hooks(receiver))
        with monkeypatch.context() as patch:
            patch.setattr(site.hydra._relay, "offer", lambda event: None)
            await site.register()
        user = await user_of(site)
        assert [notice.type for notice in user.notices] == ["user.registered"]

        async def away(*args: Any, **named: Any) -> None:
            raise StoreUnavailable

        collection, verb = part.split(".")
        with monkeypatch.context() as patch:
            patch.setattr(getattr(site.hydra.services.store, collection), verb, away)
            with pytest.raises(StoreUnavailable):
                await account.delete_user(site.hydra.services, user)
        assert (await user_of(site)).disabled
        await sweep(site.hydra.services)
        assert await site.hydra.services.store.users.by_id(user.id) is None
        await until(lambda: len(receiver.posts) == 2)
        assert sorted(receiver.types) == ["user.deleted", "user.registered"]
        assert len(await outbox(site)) == 2


async def test_each_end_has_its_name(open_site: OpenSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of an account is told under one id, by whichever node: one that has another server secret does the rest
    of what one left half-way. An account that is imported under the id of one that is gone has an end of its own."""

    async def away(*args: Any, **named: Any) -> None:
        raise StoreUnavailable

    async with receiving() as receiver:
        # Of their own: nodes of other tests know the one secret alone.
        how = {"webhooks": hooks(receiver, events=["user.deleted"]), "store": {"database": "webhooks_secrets"}}
        old = await open_site(**how, other_secrets=[NEW_SECRET])
        new = await open_site(**how, secret=NEW_SECRET, other_secrets=[SITES], keep=True)
        users = old.hydra.services.store.users
        for told in (1, 2):
            await imported(old, {"id": "u1", "email": EMAIL})
            with monkeypatch.context() as patch:
                patch.setattr(users, "delete_closed", away)
                for _ in range(2):
                    with pytest.raises(StoreUnavailable):
                        await account.delete_user(old.hydra.services, await user_of(old))
            await sweep(new.hydra.services)
            assert await users.by_id("u1") is None
            assert len({delivery.notice_id for delivery in await outbox(old)}) == told
            assert len(await outbox(old)) == told


async def test_the_database_is_away(
    open_site: OpenSite, monkeypatch: pytest.MonkeyPatch, expected_logs: list[str]
) -> None:
    """What stands nowhere but in memory waits for the database; what waits in vain at the end is counted in the log."""
    expected_logs.append("events for webhooks are lost")
    async with receiving() as receiver:
        site = await open_site(webhooks=hooks(receiver, events=["session.started"]))
        deliveries = site.hydra.services.store.deliveries
        relay = site.hydra._relay

        async def away(*args: Any) -> None:
            raise StoreUnavailable

        with monkeypatch.context() as patch:
            patch.setattr(deliveries, "add_all", away)
            await site.register()
            await site.hydra.registry.settle()
            assert len(relay._waiting) == 1
        await relay.settle()
        await receiver.had(1)
        monkeypatch.setattr(deliveries, "add_all", away)
        await site.post("login", {"email": EMAIL, "password": PASSWORD})
        await relay.close()
        assert len(relay._waiting) == 1


# -- again where it failed -----------------------------------------------------------------------------


async def test_again(open_site: OpenSite, expected_logs: list[str]) -> None:
    """A post that failed is tried again later, with the same id and body, signed anew."""
    expected_logs.append("webhook deferred")
    async with receiving() as receiver:
        receiver.answers = [says(503), says(500)]
        site = await open_site(webhooks=hooks(receiver))
        await site.register()
        for attempts, least, most in ((1, 3.75, 6.25), (2, 15, 25)):
            await until(lambda attempts=attempts: is_so(site, attempts=attempts, state="waiting"))
            [waiting] = await outbox(site)
            assert least - 1 < (waiting.due_at - site.clock()).total_seconds() <= most
            site.clock.forward(seconds=most)
            wake(site)
        first, second, third = await receiver.had(3)
        assert first.id == second.id == third.id
        assert first.body == second.body == third.body
        assert int(third.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"]) >= 30
        await until(lambda: is_so(site, state="delivered", error=""))


@pytest.mark.parametrize("dated", [False, True], ids=["seconds", "a date"])
async def test_retry_after(open_site: OpenSite, expected_logs: list[str], dated: bool) -> None:
    """A receiver that says how long to wait is not asked earlier."""
    expected_logs.append("webhook deferred")
    until_then = formatdate(time.time() + 600, usegmt=True) if dated else "600"
    async with receiving() as receiver:
        receiver.answers = [says(429, f"Retry-After: {until_then}")]
        site = await open_site(webhooks=hooks(receiver))
        await site.register()
        await until(lambda: is_so(site, attempts=1, error="answered 429"))
        [waiting] = await outbox(site)
        assert 580 < (waiting.due_at - site.clock()).total_seconds() <= 600


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("7", 7), ("9" * 400, 999_999_999), ("-1", 0), ("soon", 0), ("", 0)),
        *(("Fri, 01 Jan 2027 00:01:00 GMT", 60), ("Fri, 01 Jan 2027 00:01:00 -0000", 60)),
        *(("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("1 Jan 99999 0:0:0", 0)),
    ],
)
def test_how_long_to_wait(text: str, seconds: int) -> None:
    """What a receiver may say of that, and what it should not."""
    answer = Answer(datetime(2027, 1, 1, tzinfo=UTC))
    answer.read("HTTP/1.1 503 Busy")
    answer.read(f"Retry-After: {text}")
    assert answer.retry_after == seconds


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (closes, "HTTPStreamClosedError"),
        (hangs, "HTTPTimeoutError"),
        (says(302, "Location: http://127.0.0.1:1/elsewhere"), "answered 302: no redirect is followed"),
        (says(404), "answered 404"),
        (says(418, body=b"x" * 1_000_000), "answered 418"),
    ],
    ids=["closes", "hangs", "redirects", "404", "says too much"],
)
async def test_failures(open_site: OpenSite, expected_logs: list[str], answer: Any, error: str) -> None:
    """Whatever is no 2xx is a failure, told in words without the URL; a redirect is not followed."""
    expected_logs.append("webhook deferred")
    async with receiving() as receiver:
        receiver.then = answer
        site = await open_site(webhooks=hooks(receiver, timeout=1))
        await site.register()
        await until(lambda: is_so(site, attempts=1, state="waiting"))
        [waiting] = await outbox(site)
        assert waiting.error.startswith(error)
        assert "secret" not in waiting.error
        assert len(receiver.posts) == 1


@pytest.mark.parametrize("answer", [says(200, body=b"x" * 1_000_000), drips], ids=["a megabyte", "no end"])
async def test_what_is_answered_beside_the_status(open_site: OpenSite, answer: Any) -> None:
    """A yes is a yes, however much the receiver says beside it."""
    async with receiving() as receiver:
        receiver.then = answer
        site = await open_site(webhooks=hooks(receiver, timeout=1))
        await site.register()
        await until(lambda: is_so(site, state="delivered", attempts=1))


async def test_nobody_there(open_site: OpenSite, expected_logs: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """A receiver that cannot be reached is a failure, and no line of the log holds its URL, a secret or a signature."""
    expected_logs.append("webhook deferred")
    caplog.set_level(logging.DEBUG)
    async with receiving() as gone:
        pass
    site = await open_site(webhooks=hooks(gone))
    await site.register()
    await until(lambda: is_so(site, attempts=1, state="waiting"))
    logged = "\n".join(str(record.__dict__) for record in caplog.records)
    assert "webhook deferred" in logged
    for secret in ("a-secret-path", SECRET, "v1,"):
        assert secret not in logged


async def test_a_webhook_that_takes_nothing(
    open_site: OpenSite, expected_logs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what a crash may lose no more waits for a webhook than there is room for, and the log says so; of what
    happened to accounts all does. Once it takes what it is told, it is told of all again."""
    expected_logs += ["webhook deferred", "too much waits for a webhook"]
    monkeypatch.setattr(relay, "_MOST_UNDELIVERED", 2)
    async with receiving() as receiver:
        receiver.then = says(500)
        site = await open_site(webhooks=hooks(receiver, events=["session.started", "user.registered"]))

        async def told() -> Counter[str]:
            await site.hydra._relay.settle()
            return Counter(delivery.type for delivery in await outbox(site))

        await site.register("u1@example.com")
        assert await told() == {"user.registered": 1, "session.started": 1}
        await site.hydra._relay._weigh()
        await site.register("u2@example.com")
        assert await told() == {"user.registered": 2, "session.started": 1}
        receiver.then = says(204)
        site.clock.forward(minutes=1)
        wake(site)
        await until(lambda: all_delivered(site))
        await site.hydra._relay._weigh()
        await site.register("u3@example.com")
        assert await told() == {"user.registered": 3, "session.started": 2}


async def test_a_slow_one_holds_up_no_other(open_site: OpenSite, expected_logs: list[str]) -> None:
    """While one webhook does not answer, others are told."""
    expected_logs.append("webhook deferred")
    async with receiving() as slow, receiving() as quick:
        slow.then = hangs
        sections = hooks(slow, "slow", timeout=20)
        sections["endpoints"] |= hooks(quick, "quick")["endpoints"]
        site = await open_site(webhooks=sections)
        for number in range(10):
            await site.register(f"u{number}@example.com")
        await quick.had(10)
        assert len(slow.posts) <= 4


async def test_given_up_and_sent_again(open_site: OpenSite, expected_logs: list[str]) -> None:
    """After max_attempts an event is a dead letter, which can be sent again; so can what was delivered, under the same
    id."""
    expected_logs += ["webhook deferred", "webhook given up"]
    async with receiving() as receiver:
        receiver.then = says(500)
        site = await open_site(webhooks={**hooks(receiver), "max_attempts": 2})
        await site.register()
        await until(lambda: is_so(site, attempts=1))
        site.clock.forward(seconds=7)
        wake(site)
        await until(lambda: is_so(site, state="dead", attempts=2, error="answered 500"))
        receiver.then = says(204)
        services = site.hydra.services
        [dead] = await webhooks.list_deliveries(services, 10)
        assert dead.id == f"{receiver.posts[0].id}.crm"
        assert await webhooks.send_all_again(services, endpoint="crm") == 1
        wake(site)
        await until(lambda: is_so(site, state="delivered", attempts=1))
        assert await webhooks.list_deliveries(services, 10) == []
        assert await webhooks.send_all_again(services) == 0
        assert await webhooks.send_again(services, dead.id)
        wake(site)
        await receiver.had(4)
        await until(lambda: is_so(site, state="delivered"))
        tomorrow = site.clock() + timedelta(days=1)
        assert await webhooks.send_all_again(services, since=tomorrow, states=("delivered",)) == 0
        assert await webhooks.send_all_again(services, endpoint="crm", states=("delivered",)) == 1
        wake(site)
        await receiver.had(5)
        assert len({(post.id, post.body) for post in receiver.posts}) == 1
        assert not await webhooks.send_again(services, "nothing.crm")
        with pytest.raises(NotFound):
            await webhooks.list_deliveries(services, 10, endpoint="nobody")


async def test_gone(open_site: OpenSite, expected_logs: list[str]) -> None:
    """A receiver that answers 410 is not asked again for that event; others are tried once each, and none is lost."""
    expected_logs.append("webhook given up")
    async with receiving() as receiver:
        receiver.then = says(410)
        site = await open_site(webhooks=hooks(receiver))
        await site.register()
        await until(lambda: is_so(site, state="dead", attempts=1, error="answered 410: the receiver wants no more"))
        await site.register("eve@example.com")
        await receiver.had(2)
        await until(lambda: _dead(site, 2))


async def _dead(site: Site, number: int) -> bool:
    return [each.state for each in await outbox(site)] == ["dead"] * number


async def test_two_nodes_tell_once(open_site: OpenSite) -> None:
    """Two nodes empty one outbox without telling anything twice."""
    async with receiving() as receiver:
        one = await open_site(webhooks=hooks(receiver))
        two = await open_site(keep=True, webhooks=hooks(receiver))
        sites = [one, two] * 10
        await asyncio.gather(*(site.register(f"user{number}@example.com") for number, site in enumerate(sites)))
        await receiver.had(20)
        await until(lambda: _all_delivered(one, 20))
        assert len(receiver.posts) == len({post.id for post in receiver.posts}) == 20


async def _all_delivered(site: Site, number: int) -> bool:
    return [each.state for each in await outbox(site)] == ["delivered"] * number


async def test_leases_are_given_back_at_the_end(open_site: OpenSite) -> None:
    """A worker that stops in the middle of a try gives the lease back, and the try does not count; what happens after
    that waits in the outbox."""
    async with receiving() as receiver:
        receiver.then = hangs
        site = await open_site(webhooks=hooks(receiver))
        await site.register()
        await receiver.had(1)
        [courier] = site.hydra._couriers
        await courier.stop(0.05)
        [waiting] = await outbox(site)
        assert (waiting.lease, waiting.attempts, waiting.state) == ("", 0, "waiting")
        await site.register("eve@example.com")
        await until(lambda: _waiting(site, 2))


async def _waiting(site: Site, number: int) -> bool:
    return [each.state for each in await outbox(site)] == ["waiting"] * number


async def test_the_outbox_is_away_for_a_moment(open_site: OpenSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was delivered is not posted again for want of a database."""
    async with receiving() as receiver:
        site = await open_site(webhooks=hooks(receiver))
        deliveries = site.hydra.services.store.deliveries
        done, calls = deliveries.done, 0

        async def failing(*args: Any) -> None:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise StoreUnavailable
            await done(*args)

        monkeypatch.setattr(deliveries, "done", failing)
        await site.register()
        await until(lambda: is_so(site, state="delivered"))
        assert (calls, len(receiver.posts)) == (2, 1)


# -- operators -----------------------------------------------------------------------------------------


async def test_a_test_event(open_site: OpenSite) -> None:
    """A webhook can be tried: a signed webhook.test is posted at once, and what is answered, or not, is told."""
    async with receiving() as receiver:
        site = await open_site(webhooks=hooks(receiver, timeout=1))
        services = site.hydra.services
        assert (await webhooks.send_test(services, "crm")).status == 204
        assert receiver.posts[0].proven()["type"] == "webhook.test"
        receiver.answers = [says(500), closes]
        assert (await webhooks.send_test(services, "crm")).status == 500
        with pytest.raises(NoAnswer):
            await webhooks.send_test(services, "crm")
        with pytest.raises(NotFound):
            await webhooks.send_test(services, "nobody")
        assert await outbox(site) == []


async def test_an_export_has_what_is_told(open_site: OpenSite) -> None:
    """An owner gets to know what of their account is kept for webhooks."""
    async with receiving() as receiver:
        site = await open_site(webhooks=hooks(receiver))
        grant = await site.verified()
        await until(lambda: _all_delivered(site, 2))
        answer = await site.ask("GET", "/auth/me/export", **held(grant))
        told = [(each["type"], each["state"]) for each in json.loads(answer.body)["told"]]
        assert sorted(told) == [("user.email_verified", "delivered"), ("user.registered", "delivered")]


async def test_metrics(open_site: OpenSite, expected_logs: list[str]) -> None:
    """How much waits for each webhook, what was given up, and how late it is, is told."""
    expected_logs.append("webhook given up")
    async with receiving() as receiver:
        receiver.then = says(410)
        registry = CollectorRegistry()
        site = await open_site(webhooks=hooks(receiver), metrics=registry)
        await site.register()
        await until(lambda: is_so(site, state="dead"))
        reporter = site.hydra._reporter
        telling = asyncio.ensure_future(reporter.tell_outbox())
        labels = {"webhook": "crm", "state": "dead"}
        await until(lambda: registry.get_sample_value("hydracore_webhook_deliveries", labels) == 1)
        assert registry.get_sample_value("hydracore_webhook_deliveries", {**labels, "state": "waiting"}) == 0
        await until(lambda: registry.get_sample_value("hydracore_webhook_oldest_due_seconds", {"webhook": "crm"}) == 0)
        telling.cancel()
