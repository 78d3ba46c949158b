"""The outbox worker: nothing lost, nothing said twice without need, secrets sealed."""

import asyncio
import json
from typing import Any

import pytest
from support import OpenSite, Site

from hydracore.errors import StoreUnavailable
from hydracore.mail import SEALED_ELSEWHERE, MailWorker
from hydracore.models import MailIntent
from hydracore.plugin import MailDeferred, MailRefused

EMAIL = "ada@example.com"


async def outbox(site: Site) -> list[MailIntent]:
    return await site.hydra.services.store.outbox.list(100)


async def until(condition: Any) -> None:
    for _ in range(500):
        if await condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not in time")


def told(caplog: pytest.LogCaptureFixture, event: str) -> tuple[str, ...]:
    """Who failed, and how, by the first line of that event."""
    line = next(record.__dict__ for record in caplog.records if record.message == event)
    return tuple(line.get(name, "") for name in ("transport", "plugin", "cause", "error"))


async def test_retried_with_backoff(site: Site, expected_logs: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """A deferred message is tried again later, with the same bytes and the same key."""
    expected_logs.append("mail deferred")
    site.box.failure = MailDeferred("451 later")
    await site.register()

    async def deferred() -> bool:
        return any(intent.error == "451 later" and not intent.lease for intent in await outbox(site))

    await until(deferred)
    assert told(caplog, "mail deferred") == ("box", "box", "MailDeferred", "451 later")
    [waiting] = await outbox(site)
    assert waiting.due_at
    pause = (waiting.due_at - site.clock()).total_seconds()
    assert 1 < pause <= 5
    site.box.failure = None
    site.clock.forward(seconds=6)
    site.hydra._mail.wake()
    await site.box.code(EMAIL)
    assert site.box.keys[0] == site.box.keys[1]
    await until(lambda: _empty(site))


async def _empty(site: Site) -> bool:
    return not await outbox(site)


async def test_an_outdated_code_is_replaced(site: Site, expected_logs: list[str]) -> None:
    """When the mail server comes back after the code has lost half its life, a fresh one is sent, under a new key."""
    expected_logs.append("mail deferred")
    site.box.failure = MailDeferred("down")
    await site.register()
    await until(lambda: _deferred(site, 1))
    site.clock.forward(minutes=30)
    site.box.failure = None
    site.hydra._mail.wake()
    code = await site.box.code(EMAIL)
    assert site.box.keys[0] != site.box.keys[-1]
    assert (await site.post("verify-email", {"email": EMAIL, "code": code})).code == 200


async def _deferred(site: Site, attempts: int) -> bool:
    return any(intent.attempts == attempts and not intent.lease for intent in await outbox(site))


async def test_given_up_and_revived(open_site: OpenSite, expected_logs: list[str]) -> None:
    """After max_attempts a message is a dead letter without a secret; revived, it goes out with a fresh code."""
    expected_logs += ["mail deferred", "mail given up", "MailDead"]
    site = await open_site(mail={"max_attempts": 2})
    site.box.failure = ConnectionError("nobody there")
    await site.register()
    await until(lambda: _deferred(site, 1))
    site.clock.forward(minutes=1)
    site.hydra._mail.wake()

    async def dead() -> bool:
        return any(intent.dead for intent in await outbox(site))

    await until(dead)
    [letter] = await outbox(site)
    assert (letter.sealed, letter.attempts, letter.error) == (None, 2, "nobody there")
    site.box.failure = None
    await site.hydra.services.store.outbox.revive(letter.id, site.clock())
    site.hydra._mail.wake()
    await site.box.code(EMAIL)


async def test_refused_at_once(site: Site, expected_logs: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """What can never be delivered is a dead letter after one try."""
    expected_logs += ["mail given up", "MailDead"]
    site.box.failure = MailRefused("550 no such user")
    await site.register()

    async def dead() -> bool:
        return any(intent.dead and intent.attempts == 1 for intent in await outbox(site))

    await until(dead)
    assert told(caplog, "mail given up") == ("box", "box", "MailRefused", "550 no such user")


async def test_two_workers_send_once(open_site: OpenSite) -> None:
    """Two nodes empty one outbox without sending anything twice."""
    one = await open_site()
    two = await open_site(keep=True)
    await asyncio.gather(*(one.register(f"user{number}@example.com") for number in range(20)))
    await until(lambda: _empty(one))
    assert len(one.box.letters) + len(two.box.letters) == 20
    assert len({letter["To"] for letter in one.box.letters + two.box.letters}) == 20


async def test_nobody_gets_nothing(site: Site) -> None:
    """Intents for addresses without an account vanish without a letter."""
    await site.post("forgot-password", {"email": "nobody@example.com"})
    await site.post("resend-verification", {"email": "nobody@example.com"})
    await until(lambda: _empty(site))
    assert site.box.letters == []


async def test_leases_are_given_back_at_the_end(open_site: OpenSite) -> None:
    """A worker that stops in the middle of a delivery gives the lease back, and the try does not count."""
    site = await open_site()
    started = asyncio.Event()

    async def hang(message: object, key: str) -> None:
        started.set()
        await asyncio.sleep(60)

    worker: MailWorker = site.hydra._mail
    object.__setattr__(worker._transport, "send", hang)
    await site.register()
    await asyncio.wait_for(started.wait(), 5)
    await worker.stop(0.05)
    [intent] = await outbox(site)
    assert (intent.lease, intent.attempts) == ("", 0)
    assert intent.sealed


async def test_slow_transports_have_a_deadline(open_site: OpenSite, expected_logs: list[str]) -> None:
    """A delivery that does not end in mail.timeout is deferred, and others go on meanwhile."""
    expected_logs.append("mail deferred")
    site = await open_site(mail={"timeout": 1})
    send = site.box.send

    async def slow_for_ada(message: Any, key: str) -> None:
        if message["To"] == EMAIL:
            await asyncio.sleep(60)
        await send(message, key)

    object.__setattr__(site.hydra._mail._transport, "send", slow_for_ada)
    await site.register()
    await site.register("eve@example.com")
    await site.box.code("eve@example.com")
    await until(lambda: _deferred(site, 1))


async def test_other_secrets_mail(site: Site, expected_logs: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """A message sealed under another secret is a dead letter, not a crash, and not the transport's doing."""
    expected_logs += ["mail given up", "MailDead", "mail deferred"]
    site.box.failure = MailDeferred("down")
    await site.register()
    await until(lambda: _deferred(site, 1))
    site.box.failure = None
    await site.hydra._store.collection("outbox").update_many({}, {"$set": {"sealed": b"x" * 40}})
    site.clock.forward(seconds=10)
    site.hydra._mail.wake()

    async def dead() -> bool:
        return any(intent.dead and "secret" in intent.error for intent in await outbox(site))

    await until(dead)
    assert told(caplog, "mail given up") == ("", "", "MailRefused", SEALED_ELSEWHERE)


@pytest.mark.parametrize("product", ["<script>alert(1)</script>", 'Quote " & amp', "Ünïcode ✓"])
async def test_values_are_escaped(open_site: OpenSite, product: str) -> None:
    """What goes into a letter is escaped in its HTML and whole in its text."""
    site = await open_site(mail={"product": product})
    await site.register()
    assert product in await site.box.letter(EMAIL)
    html = site.box.letters[0].get_body(("html",))
    assert html
    assert "<script>" not in html.get_content()
    assert json.dumps(str(site.box.letters[0]["Subject"]))


async def test_stopping_never_hangs(site: Site) -> None:
    """A worker that is told to stop just as it is woken stops, each time."""
    worker = site.hydra._mail
    for _ in range(300):
        worker.wake()
        await asyncio.wait_for(worker.stop(1), 5)
        worker.start()
        await asyncio.sleep(0)


async def test_long_international_addresses(site: Site) -> None:
    """A letter to a long international address goes to that very address, its domain in ASCII."""
    await site.register("ada@" + "\u00e4" * 30 + ".com")
    ascii_address = "ada@" + ("\u00e4" * 30).encode("idna").decode() + ".com"
    await site.box.code(ascii_address)
    assert site.box.letters[0]["To"].addresses[0].addr_spec == ascii_address


async def test_international_local_parts(site: Site) -> None:
    """A local part beyond ASCII stands in the header as it is, not as an encoded word; the domain is in ASCII."""
    await site.register("jösé@exämple.org")
    await site.box.code("jösé@xn--exmple-cua.org")
    assert "To: jösé@xn--exmple-cua.org" in site.box.letters[0].as_bytes().decode()
    assert "jösé@exämple.org" in site.box.letters[0].get_body(("plain",)).get_content()


class Wordless(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


@pytest.mark.parametrize("failure", [Exception("a lone \ud800 surrogate"), Wordless(), Exception("x" * 10_000)])
async def test_what_a_transport_says(open_site: OpenSite, expected_logs: list[str], failure: Exception) -> None:
    """Whatever a transport raises is kept in words, and counts as a try."""
    expected_logs += ["mail given up", "MailDead"]
    site = await open_site(mail={"max_attempts": 1})
    site.box.failure = failure
    await site.register()

    async def dead() -> bool:
        return any(intent.dead for intent in await outbox(site))

    await until(dead)
    [intent] = await outbox(site)
    assert intent.error
    assert len(intent.error) <= 500


@pytest.mark.parametrize("away", ["done", "seal"])
async def test_the_store_is_away_for_a_moment(
    site: Site, expected_logs: list[str], monkeypatch: pytest.MonkeyPatch, away: str
) -> None:
    """Without the store for a moment mail is not left until its lease runs out, and what was sent is not sent again."""
    expected_logs.append("the store is away")
    store = site.hydra.services.store.outbox
    real, calls = getattr(store, away), 0

    async def failing(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise StoreUnavailable
        return await real(*arguments)

    monkeypatch.setattr(store, away, failing)
    await site.register()
    await site.box.code(EMAIL)
    await until(lambda: _empty(site))
    assert calls == 2
    assert len(site.box.letters) == 1


async def test_a_clock_that_is_ahead(
    open_site: OpenSite, expected_logs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node whose clock is an hour ahead looks for a write before it is done: the mail is not given up for that, and
    what comes to nothing is, after three looks."""
    site = await open_site()
    ahead = await open_site(keep=True)
    ahead.clock.forward(hours=1)
    outbox_of = site.hydra.services.store.outbox
    add = site.hydra.services.store.users.add

    async def slow(user: Any) -> bool:
        ahead.hydra._mail.wake()

        async def looked_at() -> bool:
            return any(intent.attempts for intent in await outbox_of.list(10))

        await until(looked_at)
        await asyncio.sleep(0.2)
        return await add(user)

    monkeypatch.setattr(site.hydra.services.store.users, "add", slow)
    await site.register()
    ahead.clock.forward(seconds=16)
    ahead.hydra._mail.wake()
    await until(lambda: _code_came(site, ahead))
    await outbox_of.add(
        MailIntent("lost", "verify_email", "nobody@example.com", site.clock(), due_at=site.clock(), held=True)
    )
    for _ in range(3):
        ahead.hydra._mail.wake()
        site.hydra._mail.wake()
        await asyncio.sleep(0.3)
        for each in (ahead, site):
            each.clock.forward(hours=2)
    await until(lambda: _empty(site))


async def _code_came(*sites: Site) -> bool:
    return any(letter["To"] == EMAIL for site in sites for letter in site.box.letters)
