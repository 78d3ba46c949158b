"""Mail through the first of several transports that takes it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP
from support import Clock
from tornado.ioloop import IOLoop

from hydracore.config import load
from hydracore.plugin import MailDeferred, MailFailed, MailRefused, MailTransport, StartupError, hookimpl

HOST = "127.0.0.1"
FAILED, WORKS = "mail transport failed", "mail transport works again"


@dataclass
class Carrier:
    """A transport that keeps what it is given, and answers as it is told."""

    name: str
    failure: BaseException | None = None
    held: asyncio.Event | None = None
    """While it is there and not set, no answer."""
    keys: list[str] = field(default_factory=list)
    letters: list[EmailMessage] = field(default_factory=list)
    cancelled: int = 0

    async def send(self, message: EmailMessage, key: str) -> None:
        self.keys.append(key)
        try:
            if self.held:
                await self.held.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failure:
            raise self.failure
        self.letters.append(message)

    def hang(self) -> None:
        self.held = asyncio.Event()


class Lent:
    """Surroundings that hold transports alone."""

    def __init__(self, *transports: Any) -> None:
        self._transports = {one.name: one for one in transports}

    def mail_transport(self, name: str) -> MailTransport:
        one = self._transports[name]
        return one if isinstance(one, MailTransport) else MailTransport(name, one.send)


Over = Callable[..., Any]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def over(make: Any, clock: Clock) -> Over:
    """Makes the plugin over those transports, in that order."""

    def made(*transports: Any, **section: Any) -> Any:
        names = [one.name for one in transports]
        return make("mail_failover", now=clock, surroundings=Lent(*transports), transports=names, **section)

    return made


@pytest.fixture
def one() -> Carrier:
    return Carrier("one")


@pytest.fixture
def two() -> Carrier:
    return Carrier("two")


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[str], list[logging.LogRecord]]:
    """The records of one event."""
    caplog.set_level(logging.INFO)
    return lambda event: [record for record in caplog.records if record.getMessage() == event]


# -- in order --------------------------------------------------------------------------------------


async def test_the_first_takes_it(over: Over, write: Any, one: Carrier, two: Carrier) -> None:
    """While the first takes the messages nobody else is asked, and nothing is logged."""
    plugin = over(one, two)
    for number in range(5):
        await plugin.send(write(), f"key {number}")
    assert one.keys == [f"key {number}" for number in range(5)]
    assert not two.keys
    assert await plugin.check() == ""


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (MailDeferred("the mail server answered 451"), "the mail server answered 451"),
        (MailFailed("the queue is full"), "the queue is full"),
        (OSError(111, "refused by ada@example.com"), "ConnectionRefusedError"),
        (KeyError("ada@example.com"), "KeyError"),
        (TimeoutError("ada@example.com"), "TimeoutError"),
    ],
)
async def test_the_next_takes_over(
    over: Over,
    write: Any,
    one: Carrier,
    two: Carrier,
    told: Any,
    expected_logs: list[str],
    failure: Exception,
    reason: str,
) -> None:
    """Where one defers or fails the next gets the same message under the same key; the log names both and why,
    and quotes nothing but what a transport said to the operator."""
    expected_logs.append(FAILED)
    one.failure = failure
    letter = write()
    await over(one, two).send(letter, "key")
    assert (one.keys, two.keys) == (["key"], ["key"])
    assert two.letters[0].as_bytes() == letter.as_bytes()
    [record] = told(FAILED)
    assert (record.transport, record.next, record.reason) == ("one", "two", reason)


async def test_a_late_one(over: Over, write: Any, one: Carrier, two: Carrier, told: Any, expected_logs: Any) -> None:
    """One that never answers is cancelled after its timeout, and the next takes over."""
    expected_logs.append(FAILED)
    one.hang()
    await over(one, two, timeout=1).send(write(), "key")
    assert (one.cancelled, two.keys) == (1, ["key"])
    assert told(FAILED)[0].reason == "no answer within 1 s"


async def test_a_refusal_ends_it(over: Over, write: Any, one: Carrier, two: Carrier) -> None:
    """A transport that refuses the message itself ends the matter: nobody else is asked, and it does not rest."""
    one.failure = MailRefused("the mail server answered 550")
    plugin = over(one, two)
    with pytest.raises(MailRefused) as raised:
        await plugin.send(write(), "key")
    assert raised.value is one.failure
    assert not two.keys
    assert await plugin.check() == ""


async def test_the_second_refuses(over: Over, write: Any, one: Carrier, two: Carrier, expected_logs: list[str]) -> None:
    """A refusal by the one that took over ends the matter as well."""
    expected_logs.append(FAILED)
    one.failure, two.failure = MailDeferred("later"), MailRefused("never")
    with pytest.raises(MailRefused, match="never"):
        await over(one, two, Carrier("three")).send(write(), "key")


async def test_all_fail(over: Over, write: Any, one: Carrier, two: Carrier, expected_logs: list[str]) -> None:
    """When all have failed the message is deferred, with what each said, and no word of other errors."""
    expected_logs.append(FAILED)
    three = Carrier("three", failure=RuntimeError("for ada@example.com"))
    one.failure = MailDeferred("the mail server answered 451")
    two.hang()
    with pytest.raises(MailDeferred) as raised:
        await over(one, two, three, timeout=1).send(write(), "key")
    assert str(raised.value) == (
        "no transport took it over: one: the mail server answered 451; two: no answer within 1 s; three: RuntimeError"
    )


async def test_endless_words(over: Over, write: Any, one: Carrier, expected_logs: list[str]) -> None:
    """Of a transport that says too much the beginning is kept."""
    expected_logs.append(FAILED)
    one.failure = MailDeferred("x" * 100_000)
    with pytest.raises(MailDeferred) as raised:
        await over(one).send(write(), "key")
    assert len(str(raised.value)) < 400


async def test_each_gets_the_message_as_it_was(over: Over, write: Any, two: Carrier, expected_logs: list[str]) -> None:
    """What one does to the message before it fails does not reach the next, nor the caller."""
    expected_logs.append(FAILED)

    async def spoil(message: EmailMessage, key: str) -> None:
        del message["To"]
        message["To"] = "eve@example.com"
        message.set_content("spoilt")
        raise MailDeferred("later")

    letter = write()
    before = letter.as_bytes()
    await over(MailTransport("one", spoil), two).send(letter, "key")
    assert letter.as_bytes() == two.letters[0].as_bytes() == before


# -- rest ------------------------------------------------------------------------------------------


async def test_one_that_failed_rests(
    over: Over, write: Any, clock: Clock, one: Carrier, two: Carrier, told: Any, expected_logs: list[str]
) -> None:
    """One that failed is left alone until its rest is over, then tried first; the log says once that it failed and
    once that it works again."""
    expected_logs.append(FAILED)
    one.failure = MailDeferred("later")
    plugin = over(one, two, rest=60)
    for _ in range(5):
        await plugin.send(write(), "key")
    assert (len(one.keys), len(two.keys)) == (1, 5)
    assert "one until" in await plugin.check()
    clock.forward(seconds=61)
    assert await plugin.check() == ""
    await plugin.send(write(), "key")
    await plugin.send(write(), "key")
    assert (len(one.keys), len(two.keys)) == (2, 7)
    one.failure = None
    clock.forward(seconds=61)
    for _ in range(3):
        await plugin.send(write(), "key")
    assert (len(one.keys), len(two.keys)) == (5, 7)
    assert len(told(FAILED)) == 1
    assert [record.transport for record in told(WORKS)] == ["one"]


async def test_a_resting_one_is_asked_last(
    over: Over, write: Any, clock: Clock, one: Carrier, two: Carrier, told: Any, expected_logs: list[str]
) -> None:
    """Where the others fail, one that rests is asked all the same, and wakes when it takes the message."""
    expected_logs.append(FAILED)
    plugin = over(one, two)
    one.failure = MailDeferred("later")
    await plugin.send(write(), "key")
    one.failure, two.failure = None, MailDeferred("later")
    await plugin.send(write(), "key")
    await plugin.send(write(), "key")
    assert (len(one.keys), len(two.keys)) == (3, 2)
    assert [(record.transport, record.next) for record in told(FAILED)] == [("one", "two"), ("two", "one")]
    assert await plugin.check() == f"asked last, for they failed: two until {plugin._resting['two']:%H:%M:%S} UTC"


async def test_all_rest(
    over: Over, write: Any, clock: Clock, one: Carrier, two: Carrier, expected_logs: list[str]
) -> None:
    """While all rest each message is still tried by all, in their order; the first that is back takes it."""
    expected_logs.append(FAILED)
    one.failure = two.failure = MailDeferred("later")
    plugin = over(one, two)
    for _ in range(3):
        with pytest.raises(MailDeferred, match=r"one: later; two: later"):
            await plugin.send(write(), "key")
    assert (len(one.keys), len(two.keys)) == (3, 3)
    said = await plugin.check()
    assert "one until" in said
    assert "two until" in said
    two.failure = None
    await plugin.send(write(), "key")
    assert len(two.letters) == 1


async def test_one_message_tries(
    over: Over, write: Any, clock: Clock, one: Carrier, two: Carrier, expected_logs: list[str]
) -> None:
    """When the rest of a dead one is over one message pays for the trial, while a hundred others go round it."""
    expected_logs.append(FAILED)
    plugin = over(one, two, timeout=1)
    one.hang()
    await plugin.send(write(), "key")
    clock.forward(seconds=61)
    await asyncio.gather(*(plugin.send(write(), f"key {number}") for number in range(100)))
    assert (len(one.keys), len(two.letters)) == (2, 101)


async def test_a_cancelled_trial(
    over: Over, write: Any, clock: Clock, one: Carrier, two: Carrier, expected_logs: list[str]
) -> None:
    """A trial that was cancelled is made again soon."""
    expected_logs.append(FAILED)
    one.failure = MailDeferred("later")
    plugin = over(one, two, timeout=10)
    await plugin.send(write(), "key")
    clock.forward(seconds=61)
    one.hang()
    sending = asyncio.ensure_future(plugin.send(write(), "key"))
    await asyncio.sleep(0)
    sending.cancel()
    await asyncio.wait({sending})
    one.failure = one.held = None
    clock.forward(seconds=11)
    await plugin.send(write(), "key")
    assert len(one.letters) == 1


# -- many, and none --------------------------------------------------------------------------------


async def test_many_at_once(over: Over, write: Any, one: Carrier, two: Carrier, expected_logs: list[str]) -> None:
    """Of 200 messages at once, some of which the first defers, each arrives exactly once, under its own key."""
    expected_logs.append(FAILED)

    async def moody(message: EmailMessage, key: str) -> None:
        await asyncio.sleep(0)
        if int(key) % 3:
            raise MailDeferred("later")
        await one.send(message, key)

    plugin = over(MailTransport("moody", moody), two)
    await asyncio.gather(*(plugin.send(write(code=f"{number:06}"), str(number)) for number in range(200)))
    assert sorted([*one.keys, *two.keys], key=int) == [str(number) for number in range(200)]
    for carrier in (one, two):
        for key, letter in zip(carrier.keys, carrier.letters, strict=True):
            assert f"{int(key):06}" in letter.as_string()


async def test_cancelled(over: Over, write: Any, one: Carrier, two: Carrier) -> None:
    """A send that is cancelled in the middle ends so, cancels the transport, and asks no other; nobody rests."""
    one.hang()
    plugin = over(one, two)
    sending = asyncio.ensure_future(plugin.send(write(), "key"))
    await asyncio.sleep(0)
    assert one.keys
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert (one.cancelled, two.keys) == (1, [])
    assert await plugin.check() == ""


# -- configuration ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({}, ["plugins.mail_failover.transports", "empty", '["smtp", "resend"]']),
        ({"transports": []}, ["plugins.mail_failover.transports", "empty"]),
        ({"transports": ["smtp", "resend", "smtp"]}, ["transports", "smtp more than once"]),
        ({"transports": ["smtp", "failover"]}, ["transports", "failover", "take it out"]),
        (
            {"transports": ["a", "b", "c", "d"]},
            ["mail.timeout", "30 s", "plugins.mail_failover.timeout", "10 s", "to 40 or more"],
        ),
        ({"transports": ["a", "b"], "timeout": 16}, ["mail.timeout", "plugins.mail_failover.timeout", "32 or more"]),
        ({"transports": ["a"], "rest": 0}, ["mail_failover.rest"]),
        ({"transports": ["a"], "timeout": 0}, ["mail_failover.timeout"]),
        ({"transports": "smtp"}, ["mail_failover.transports"]),
        ({"transports": [""]}, ["mail_failover.transports"]),
    ],
)
def test_wrong_configuration(make: Any, section: dict[str, Any], said: list[str]) -> None:
    """What cannot work stops the start: the keys and the remedy are named."""
    with pytest.raises(StartupError) as raised:
        make("mail_failover", **section)
    for part in said:
        assert part in str(raised.value)


def test_just_enough_time(make: Any, tmp_path: Path) -> None:
    """All of mail.timeout may be given away, and what the transport is over is told to the core."""
    settings = load(environment={}, overrides={"data_dir": str(tmp_path), "mail": {"timeout": 8}})
    plugin = make("mail_failover", settings=settings, transports=["smtp", "resend"], timeout=4)
    [transport] = plugin.hydracore_register_mail_transports()
    assert (transport.name, tuple(transport.over), transport.delivers) == ("failover", ("smtp", "resend"), True)


# -- real servers ----------------------------------------------------------------------------------


class PostOffice:
    """An aiosmtpd server that keeps envelopes; ``answer`` is for RCPT, instead of the usual one."""

    def __init__(self) -> None:
        self.port = 0
        self.answer = ""
        self.envelopes: list[Any] = []
        self.connections: list[SMTP] = []
        self.server: Any = None

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if self.answer:
            return self.answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.envelopes.append(envelope)
        return "250 OK"

    def _protocol(self) -> SMTP:
        self.connections.append(SMTP(self, hostname="mail.example.org"))
        return self.connections[-1]

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(self._protocol, HOST, self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self.server.close()
        for connection in self.connections:
            if connection.transport is not None:
                connection.transport.close()
        await asyncio.sleep(0.01)


Post = Callable[[str], Awaitable[tuple[PostOffice, MailTransport]]]


@pytest.fixture
def post(io_loop: IOLoop, make: Any) -> Iterator[Post]:
    """Opens a post office and a real SMTP transport to it, under a name of its own."""
    closing: list[Any] = []

    async def opened(name: str) -> tuple[PostOffice, MailTransport]:
        office = PostOffice()
        await office.open()
        plugin = make("mail_smtp", host=HOST, port=office.port, security="none")
        closing.extend([plugin.close, office.close])
        return office, MailTransport(name, plugin.send)

    yield opened
    for close in closing:
        io_loop.run_sync(close)


async def test_two_post_offices(over: Over, post: Post, write: Any, clock: Clock, expected_logs: list[str]) -> None:
    """Over two real mail servers: the second takes the mail while the first is down or defers, the first again when it
    is back, and what the first refuses goes nowhere."""
    expected_logs.append(FAILED)
    (near, first), (far, second) = await post("near"), await post("far")
    plugin = over(first, second)
    await plugin.send(write(), "key")
    assert (len(near.envelopes), len(far.envelopes)) == (1, 0)

    await near.close()
    await asyncio.gather(*(plugin.send(write(), f"key {number}") for number in range(10)))
    assert (len(near.envelopes), len(far.envelopes)) == (1, 10)

    await near.open()
    clock.forward(seconds=61)
    await plugin.send(write(), "key")
    assert (len(near.envelopes), len(far.envelopes)) == (2, 10)

    near.answer = "451 4.3.0 Local trouble"
    await plugin.send(write(), "key")
    assert (len(near.envelopes), len(far.envelopes)) == (2, 11)

    near.answer = "550 5.1.1 No such user"
    clock.forward(seconds=61)
    with pytest.raises(MailRefused, match="550"):
        await plugin.send(write(), "key")
    assert (len(near.envelopes), len(far.envelopes)) == (2, 11)


async def test_a_silent_post_office(over: Over, post: Post, write: Any, expected_logs: list[str]) -> None:
    """A mail server that accepts the connection and never says a word costs its timeout, and the second takes over."""
    expected_logs.append(FAILED)
    (near, first), (far, second) = await post("near"), await post("far")
    await near.close()
    writers: list[asyncio.StreamWriter] = []

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await reader.read()

    server = await asyncio.start_server(silent, HOST, near.port)
    await over(first, second, timeout=1).send(write(), "key")
    assert len(far.envelopes) == 1
    server.close()
    for writer in writers:
        writer.close()
    await asyncio.sleep(0.01)


# -- the whole server ------------------------------------------------------------------------------


class Broken:
    """A plugin whose transport is down."""

    def __init__(self, context: Any) -> None:
        self.asked = 0

    @hookimpl
    def hydracore_register_mail_transports(self) -> list[MailTransport]:
        return [MailTransport("broken", self.send)]

    async def send(self, message: EmailMessage, key: str) -> None:
        self.asked += 1
        raise OSError("down")


async def test_mail_arrives_through_the_second(open_site: Any, expected_logs: list[str]) -> None:
    """With mail.transport = "failover" and the first transport down, a new account's code arrives by the second."""
    expected_logs.append(FAILED)
    site = await open_site(
        extra={"broken": Broken},
        mail={"transport": "failover"},
        plugins={"mail_failover": {"transports": ["broken", "box"]}},
    )
    await site.verified("ada@example.com")
    await site.register("eve@example.com")
    assert await site.box.code("eve@example.com")
    assert site.hydra.registry.loaded["broken"].plugin.asked == 1


async def test_mail_arrives_from_smtp(open_site: Any, post: Post, expected_logs: list[str]) -> None:
    """The shelf's own smtp, whose server is down, hands over to what comes next, and takes the mail when it is back."""
    expected_logs.append(FAILED)
    office, _ = await post("office")
    await office.close()
    site = await open_site(
        mail={"transport": "failover"},
        plugins={
            "enabled": ["mail_smtp"],
            "mail_smtp": {"host": HOST, "port": office.port, "security": "none"},
            "mail_failover": {"transports": ["smtp", "box"]},
        },
    )
    await site.verified("ada@example.com")
    await office.open()
    site.clock.forward(seconds=61)
    await site.register("eve@example.com")
    for _ in range(1000):
        if office.envelopes:
            break
        await asyncio.sleep(0.01)
    assert [envelope.rcpt_tos for envelope in office.envelopes] == [["eve@example.com"]]


async def test_a_transport_that_is_not_loaded(open_site: Any) -> None:
    """A transport that no plugin brings stops the start, and both parties are named."""
    with pytest.raises(StartupError) as raised:
        await open_site(mail={"transport": "failover"}, plugins={"mail_failover": {"transports": ["smtp", "box"]}})
    for part in ("mail_failover", "smtp", "plugins.enabled"):
        assert part in str(raised.value)


async def test_a_transport_that_will_not_be_cancelled(open_site: Any, expected_logs: list[str]) -> None:
    """In a HydraCore even a transport that swallows its cancellation does not hold up the next."""
    expected_logs.append(FAILED)
    released = asyncio.Event()

    class Stubborn(Broken):
        async def send(self, message: EmailMessage, key: str) -> None:
            while not released.is_set():
                with suppress(asyncio.CancelledError):
                    await released.wait()

    site = await open_site(
        extra={"broken": Stubborn},
        mail={"transport": "failover"},
        plugins={"mail_failover": {"transports": ["broken", "box"], "timeout": 1}},
    )
    await site.register("ada@example.com")
    assert await site.box.code("ada@example.com")
    released.set()
    await asyncio.sleep(0)
