"""Mail by SMTP, against a real server on a real socket."""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword
from tornado.ioloop import IOLoop

from hydracore.plugin import MailDeferred, MailRefused, StartupError

HOST = "127.0.0.1"
PASSWORD = "hunter2-of-the-operator"


@dataclass
class PostOffice:
    """An aiosmtpd server, what it has taken, and what it is told to answer."""

    port: int = 0
    answers: dict[str, str] = field(default_factory=dict)
    """An answer for a command, instead of the usual one."""
    held: asyncio.Event | None = None
    """While it is there and not set, no answer to DATA."""
    connections: list[SMTP] = field(default_factory=list)
    envelopes: list[Any] = field(default_factory=list)
    goodbyes: int = 0
    logins: list[str] = field(default_factory=list)

    async def handle_MAIL(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if answer := self.answers.get("MAIL"):
            return answer
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if answer := self.answers.get("RCPT"):
            return answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.held:
            await self.held.wait()
        if answer := self.answers.get("DATA"):
            return answer
        envelope.tls = session.ssl
        self.envelopes.append(envelope)
        return "250 OK"

    async def handle_RSET(self, server: Any, session: Any, envelope: Any) -> str:
        return self.answers.get("RSET", "250 OK")

    async def handle_QUIT(self, server: Any, session: Any, envelope: Any) -> str:
        self.goodbyes += 1
        return "221 Bye"

    def authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        if answer := self.answers.get("AUTH"):
            return AuthResult(success=False, handled=False, message=answer)
        assert isinstance(data, LoginPassword)
        self.logins.append(data.login.decode())
        right = data.password.decode() == PASSWORD
        # aiosmtpd answers 535 by itself where nothing was handled.
        return AuthResult(success=right, handled=right)

    @property
    def open(self) -> int:
        """How many connections are open now."""
        return sum(1 for one in self.connections if one.transport is not None and not one.transport.is_closing())

    def hang_up(self) -> None:
        for connection in self.connections:
            if connection.transport is not None:
                connection.transport.close()


Listen = Callable[..., Awaitable[PostOffice]]
Serve = Callable[[Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]], Awaitable[int]]


@pytest.fixture
def listen(io_loop: IOLoop) -> Iterator[Listen]:
    """Opens post offices; ``tls`` speaks TLS from the first byte, other options are aiosmtpd's."""
    servers: list[tuple[asyncio.Server, PostOffice]] = []

    async def listening(tls: ssl.SSLContext | None = None, **options: Any) -> PostOffice:
        office = PostOffice()

        def protocol() -> SMTP:
            smtp = SMTP(office, hostname="mail.example.org", authenticator=office.authenticate, **options)
            office.connections.append(smtp)
            return smtp

        server = await asyncio.get_running_loop().create_server(protocol, HOST, 0, ssl=tls)
        office.port = server.sockets[0].getsockname()[1]
        servers.append((server, office))
        return office

    yield listening

    async def stop() -> None:
        for server, office in servers:
            server.close()
            if office.held:
                office.held.set()
            office.hang_up()
            await until(lambda office=office: office.open == 0)

    io_loop.run_sync(stop)


@pytest.fixture
def scripted(io_loop: IOLoop) -> Iterator[Serve]:
    """Opens a socket behind which a function plays a server that no real one would be."""
    servers: list[asyncio.Server] = []
    writers: list[asyncio.StreamWriter] = []

    async def serving(play: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> int:
        async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            await play(reader, writer)

        servers.append(await asyncio.start_server(client, HOST, 0))
        port: int = servers[-1].sockets[0].getsockname()[1]
        return port

    yield serving

    async def stop() -> None:
        for server in servers:
            server.close()
        for writer in writers:
            writer.close()
        await asyncio.sleep(0)

    io_loop.run_sync(stop)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def certificate(authority: trustme.CA) -> ssl.SSLContext:
    """The post office's certificate, for its true address."""
    return _certificate(authority, HOST)


def _certificate(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    return str(file)


@pytest.fixture
def sender(make: Any, io_loop: IOLoop) -> Iterator[Callable[..., Any]]:
    """Makes the plugin for a port, in clear unless told otherwise; closes it at the end."""
    made = []

    def make_one(port: int, **section: Any) -> Any:
        plugin = make("mail_smtp", **{"host": HOST, "port": port, "security": "none", "timeout": 20} | section)
        made.append(plugin)
        return plugin

    yield make_one
    for plugin in made:
        io_loop.run_sync(plugin.close)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not in time")


async def test_a_letter_arrives(listen: Listen, sender: Any, write: Any) -> None:
    """A letter arrives once, from the sender, to the recipient, with its headers and both bodies."""
    office = await listen()
    await sender(office.port).send(write(), "key")
    [envelope] = office.envelopes
    assert (envelope.mail_from, envelope.rcpt_tos) == ("no-reply@example.org", ["ada@example.com"])
    letter = message_from_bytes(envelope.content, policy=policy.SMTP)
    assert (letter["To"], letter["From"]) == ("ada@example.com", "HydraCore <no-reply@example.org>")
    assert letter["Message-ID"] == "<intent.1@example.org>"
    for kind in ("plain", "html"):
        assert "314159" in letter.get_body((kind,)).get_content()


# -- connections -----------------------------------------------------------------------------------


async def test_connections_are_kept(listen: Listen, sender: Any, write: Any) -> None:
    """Ten letters one after the other travel on one connection."""
    office = await listen()
    plugin = sender(office.port)
    for _ in range(10):
        await plugin.send(write(), "key")
    assert (len(office.envelopes), len(office.connections)) == (10, 1)


async def test_connections_are_bounded(listen: Listen, sender: Any, write: Any) -> None:
    """Twenty letters at once all arrive, on no more connections than are configured."""
    office = await listen()
    plugin = sender(office.port, connections=3)
    await asyncio.gather(*(plugin.send(write(code=f"{number:06}"), "key") for number in range(20)))
    assert len(office.envelopes) == 20
    assert len({envelope.content for envelope in office.envelopes}) == 20
    assert len(office.connections) == 3


async def test_close_says_goodbye(listen: Listen, sender: Any, write: Any) -> None:
    """close() ends every kept connection with QUIT, and may be called twice."""
    office = await listen()
    plugin = sender(office.port, connections=3)
    await asyncio.gather(*(plugin.send(write(), "key") for _ in range(3)))
    await plugin.close()
    await plugin.close()
    assert office.goodbyes == len(office.connections) == 3
    await until(lambda: office.open == 0)


@pytest.mark.parametrize("noticed", [True, False])
async def test_a_stale_connection(listen: Listen, sender: Any, write: Any, noticed: bool) -> None:
    """When the server hung up while the connection was idle, the next letter takes a new one at once, and arrives
    once, whether the plugin had noticed or not."""
    office = await listen()
    plugin = sender(office.port)
    await plugin.send(write(), "key")
    office.hang_up()
    if noticed:
        await until(lambda: not plugin._idle[0][0].is_connected)
    await plugin.send(write(), "key")
    assert (len(office.envelopes), len(office.connections)) == (2, 2)


async def test_a_connection_that_was_given_notice(listen: Listen, sender: Any, write: Any) -> None:
    """A kept connection that answers 421 is left for a new one, and nothing is sent twice."""
    office = await listen()
    plugin = sender(office.port)
    await plugin.send(write(), "key")
    office.answers["RSET"] = "421 4.4.2 idle for too long"
    await plugin.send(write(), "key")
    assert (len(office.envelopes), len(office.connections)) == (2, 2)


async def test_an_old_connection_is_retired(
    listen: Listen, sender: Any, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that was idle for too long is ended with QUIT, not used."""
    monkeypatch.setattr("hydracore_mail_smtp._KEPT_FOR", 0)
    office = await listen()
    plugin = sender(office.port)
    for _ in range(2):
        await plugin.send(write(), "key")
    assert (len(office.connections), office.goodbyes) == (2, 1)


async def test_a_refusal_does_not_cost_the_connection(listen: Listen, sender: Any, write: Any) -> None:
    """After a refused letter the next one travels on the same connection, with nothing left of the refused one."""
    office = await listen()
    plugin = sender(office.port)
    for command in ("RCPT", "DATA"):
        office.answers[command] = "550 5.1.1 no"
        with pytest.raises(MailRefused):
            await plugin.send(write("eve@example.com"), "key")
        office.answers.clear()
        await plugin.send(write(), "key")
    assert [envelope.rcpt_tos for envelope in office.envelopes] == [["ada@example.com"]] * 2
    assert len(office.connections) == 1


async def test_a_cancelled_letter_frees_its_connection(listen: Listen, sender: Any, write: Any) -> None:
    """When the worker gives up waiting, the half-used connection is closed, and its place is free again."""
    office = await listen()
    office.held = asyncio.Event()
    plugin = sender(office.port, connections=1)
    sending = asyncio.ensure_future(plugin.send(write(), "key"))
    await until(lambda: any(one.envelope and one.envelope.content for one in office.connections))
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    office.held.set()
    office.held = None
    await until(lambda: office.open == 0)
    office.envelopes.clear()
    await plugin.send(write(), "key")
    assert (len(office.envelopes), len(office.connections)) == (1, 2)


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "answer", "verdict"),
    [
        ("RCPT", "450 4.2.1 Try later", MailDeferred),
        ("RCPT", "452 4.5.3 Too many", MailDeferred),
        ("RCPT", "421 4.3.2 Shutting down", MailDeferred),
        ("RCPT", "550 5.1.1 No such user", MailRefused),
        ("RCPT", "552 5.2.2 Mailbox full", MailRefused),
        ("RCPT", "530 5.7.0 Authenticate first", MailDeferred),
        ("DATA", "451 4.3.0 Local trouble", MailDeferred),
        ("DATA", "554 5.7.1 Looks like spam", MailRefused),
        ("MAIL", "451 4.1.8 Later", MailDeferred),
        ("MAIL", "550 5.7.1 Not your sender", MailDeferred),
        ("MAIL", "530 5.7.0 Must issue a STARTTLS command first", MailDeferred),
    ],
)
async def test_verdicts(listen: Listen, sender: Any, write: Any, command: str, answer: str, verdict: type) -> None:
    """4xx defers, 5xx about the recipient or the message refuses, what is about us defers; the error has the code
    and the server's own words."""
    office = await listen()
    office.answers[command] = answer
    with pytest.raises(verdict) as raised:
        await sender(office.port).send(write(), "key")
    assert type(raised.value) is verdict
    code, _, words = answer.partition(" ")
    assert str(raised.value) == f"the mail server answered {code}: {words}"
    assert not office.envelopes


async def test_a_greeting_that_refuses(scripted: Serve, sender: Any, write: Any) -> None:
    """A server that takes no mail at all today (554 instead of a greeting) defers: it says nothing of the recipient."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"554 5.3.2 mail.example.org\r\n")

    with pytest.raises(MailDeferred, match=r"answered 554: 5\.3\.2 mail\.example\.org"):
        await sender(await scripted(refuse)).send(write(), "key")


async def test_nonsense_defers(scripted: Serve, sender: Any, write: Any) -> None:
    """What speaks no SMTP defers."""

    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with pytest.raises(MailDeferred):
        await sender(await scripted(nonsense)).send(write(), "key")


@pytest.mark.parametrize("quote", ["{code}", "code={code}.", "x{code}y", "#token={token}", "{token:.30}", "<{to}>"])
async def test_nothing_of_the_letter_is_quoted(
    listen: Listen, sender: Any, write: Any, caplog: pytest.LogCaptureFixture, quote: str
) -> None:
    """Whatever a server quotes of the letter, its code, its token and its address reach neither the error nor a log."""
    caplog.set_level(logging.DEBUG, "hydracore")
    to, code, token = "ada@example.com", "314159", "kq3Zr-_Xb7dTn0PmWc5sVy8uLhGfEaJtQiRo2N4wB9k"
    office = await listen()
    office.answers["DATA"] = f"550 5.7.1 Refused: {quote.format(to=to, code=code, token=token)} is spam"
    with pytest.raises(MailRefused) as raised:
        await sender(office.port).send(write(to, code), "key")
    said = str(raised.value) + caplog.text
    assert "550: 5.7.1 Refused:" in said
    assert said.rstrip().endswith("is spam")
    for secret in (code, token[:16], to, "ada"):
        assert secret not in said


async def test_only_the_first_line_is_told(scripted: Serve, sender: Any, write: Any) -> None:
    """Of an answer of many lines or with control characters, one clean line of bounded length is told."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"554-first \x1b[31m\xff" + b" word" * 100 + b"\r\n554 second\r\n")

    with pytest.raises(MailDeferred) as raised:
        await sender(await scripted(play)).send(write(), "key")
    said = str(raised.value)
    assert said.startswith("the mail server answered 554: first  [31m  word")
    assert said.isprintable()
    assert "second" not in said
    assert len(said) < 250


async def test_nobody_listens(make: Any, write: Any, unused_port: int) -> None:
    """A refused connection defers, and the error says where."""
    plugin = make("mail_smtp", host=HOST, port=unused_port, security="none")
    with pytest.raises(MailDeferred, match=f"127.0.0.1 on port {unused_port}"):
        await plugin.send(write(), "key")


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port that is bound and does not listen: nobody else can come to listen on it."""
    import socket

    with socket.socket() as bound:
        bound.bind((HOST, 0))
        yield bound.getsockname()[1]


GREETING = b"220 mail.example.org\r\n"


@pytest.mark.parametrize("answered", [0, 1, 2, 3, 4])
async def test_every_step_has_a_deadline(scripted: Serve, sender: Any, write: Any, answered: int) -> None:
    """A server that falls silent at any step, greeting, EHLO, MAIL, RCPT or DATA, defers after ``timeout``."""
    lines = [GREETING, *[b"250 OK\r\n"] * 3, b"354 go on\r\n"]
    silent = asyncio.Event()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(lines[0] if answered else b"")
        for line in lines[1:answered]:
            await reader.readline()
            writer.write(line)
        await silent.wait()

    plugin = sender(await scripted(play), timeout=1)
    try:
        with pytest.raises(MailDeferred, match="Timed out"):
            await plugin.send(write(), "key")
    finally:
        silent.set()


async def test_hanging_up_in_the_middle_defers(scripted: Serve, sender: Any, write: Any) -> None:
    """A server that goes away after DATA defers: it is unknown whether it has the letter, and none is lost."""
    connections = []

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        writer.write(GREETING)
        for line in [*[b"250 OK\r\n"] * 3, b"354 go on\r\n"]:
            await reader.readline()
            writer.write(line)
        await reader.readuntil(b"\r\n.\r\n")
        writer.close()

    with pytest.raises(MailDeferred):
        await sender(await scripted(play)).send(write(), "key")
    assert len(connections) == 1  # Not tried again at once: that might deliver twice.


# -- security --------------------------------------------------------------------------------------


async def test_starttls(listen: Listen, sender: Any, write: Any, certificate: ssl.SSLContext, ca_file: str) -> None:
    """With security = "starttls" the letter and its envelope travel under TLS, with a verified certificate."""
    office = await listen(tls_context=certificate, require_starttls=True)
    plugin = sender(office.port, security="starttls", ca_file=ca_file)
    for _ in range(2):
        await plugin.send(write(), "key")
    assert all(envelope.tls for envelope in office.envelopes)
    assert (len(office.envelopes), len(office.connections)) == (2, 1)


async def test_tls(listen: Listen, sender: Any, write: Any, certificate: ssl.SSLContext, ca_file: str) -> None:
    """With security = "tls" the connection is TLS from its first byte."""
    office = await listen(tls=certificate)
    plugin = sender(office.port, security="tls", ca_file=ca_file)
    for _ in range(2):
        await plugin.send(write(), "key")
    assert (len(office.envelopes), len(office.connections)) == (2, 1)


async def test_starttls_not_offered(listen: Listen, sender: Any, write: Any) -> None:
    """Where the server offers no STARTTLS nothing is sent, no password either; the error names the setting."""
    office = await listen(auth_require_tls=False)
    plugin = sender(office.port, security="starttls", username="hydra", password=PASSWORD)
    with pytest.raises(MailDeferred, match=r"STARTTLS.*plugins\.mail_smtp\.security"):
        await plugin.send(write(), "key")
    assert not office.envelopes
    assert not office.logins
    await until(lambda: office.open == 0)


@pytest.mark.parametrize("answer", [b"454 4.7.0 TLS not available\r\n", b"501 5.5.4 no\r\n", b"250 OK\r\n"])
async def test_starttls_refused(scripted: Serve, sender: Any, write: Any, answer: bytes) -> None:
    """A server that offers STARTTLS and then refuses it gets no letter: this defers."""
    heard = []

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING)
        heard.append(await reader.readline())
        writer.write(b"250-mail.example.org\r\n250 STARTTLS\r\n")
        heard.append(await reader.readline())
        writer.write(answer)
        heard.append(await reader.read())

    with pytest.raises(MailDeferred, match=answer[:3].decode()):
        await sender(await scripted(play), security="starttls").send(write(), "key")
    await until(lambda: len(heard) == 3)
    assert heard[1:] == [b"STARTTLS\r\n", b""]


async def test_injected_answers_are_not_believed(
    scripted: Serve, sender: Any, write: Any, ca_file: str, certificate: ssl.SSLContext
) -> None:
    """Clear text that someone slips in behind the answer to STARTTLS is not read as the server's word under TLS."""
    heard = []

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING)
        await reader.readline()
        writer.write(b"250-mail.example.org\r\n250 STARTTLS\r\n")
        await reader.readline()
        writer.write(b"220 go on\r\n250-evil\r\n250 AUTH PLAIN\r\n")
        await writer.drain()
        await writer.start_tls(certificate)
        heard.append(await reader.readline())
        writer.write(b"250 mail.example.org\r\n")
        heard.append(await reader.read())

    plugin = sender(await scripted(play), security="starttls", ca_file=ca_file, username="hydra", password=PASSWORD)
    with pytest.raises(MailDeferred, match="takes no credentials"):
        await plugin.send(write(), "key")
    await until(lambda: len(heard) == 2)
    assert heard[0].startswith(b"EHLO ")
    assert b"AUTH" not in heard[1]


@pytest.mark.parametrize("security", ["starttls", "tls"])
@pytest.mark.parametrize("flaw", ["unknown authority", "other name"])
async def test_bad_certificates(
    listen: Listen,
    sender: Any,
    write: Any,
    authority: trustme.CA,
    ca_file: str,
    security: str,
    flaw: str,
    expected_logs: list[str],
) -> None:
    """A certificate of an unknown authority, or for another name, gets nothing: this defers and says why."""
    expected_logs.append("mail.log")  # aiosmtpd's, of the handshake that failed.
    context = _certificate(trustme.CA(), HOST) if flaw == "unknown authority" else _certificate(authority, "127.0.0.2")
    office = await listen(tls=context) if security == "tls" else await listen(tls_context=context)
    plugin = sender(office.port, security=security, ca_file=ca_file)
    with pytest.raises(MailDeferred, match="certificate verify failed"):
        await plugin.send(write(), "key")
    assert not office.envelopes


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_a_bad_ca_file_stops_the_start(make: Any, tmp_path: Path, content: str | None) -> None:
    """A ca_file that is not there, or holds no certificate, is told to the operator before anything runs."""
    file = tmp_path / "my-ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(StartupError, match=r"plugins\.mail_smtp\.ca_file.*my-ca\.pem"):
        make("mail_smtp", ca_file=str(file))


# -- authentication --------------------------------------------------------------------------------


async def test_authentication(
    listen: Listen, sender: Any, write: Any, certificate: ssl.SSLContext, ca_file: str, expected_logs: list[str]
) -> None:
    """With a username the plugin authenticates, once a connection."""
    expected_logs.append("Session.login_data is deprecated")  # aiosmtpd's, of itself.
    office = await listen(tls_context=certificate, auth_required=True, require_starttls=True)
    plugin = sender(office.port, security="starttls", ca_file=ca_file, username="hydra", password=PASSWORD)
    for _ in range(3):
        await plugin.send(write(), "key")
    assert (len(office.envelopes), office.logins) == (3, ["hydra"])


@pytest.mark.parametrize("answer", ["", "454 4.7.0 Temporary authentication failure", "535 5.7.8 hunter2 is wrong"])
async def test_bad_credentials(
    listen: Listen, sender: Any, write: Any, certificate: ssl.SSLContext, ca_file: str, answer: str
) -> None:
    """Refused credentials defer, since the operator can mend them; the error names the keys and shows no password."""
    office = await listen(tls_context=certificate, auth_required=True, require_starttls=True)
    if answer:
        office.answers["AUTH"] = answer
    plugin = sender(office.port, security="starttls", ca_file=ca_file, username="hydra", password="hunter2-mistyped")
    with pytest.raises(MailDeferred, match=r"plugins\.mail_smtp\.username and password") as raised:
        await plugin.send(write(), "key")
    assert (answer or "535")[:3] in str(raised.value)
    assert "hunter2" not in str(raised.value)
    assert not office.envelopes


async def test_no_authentication_offered(listen: Listen, sender: Any, write: Any) -> None:
    """Credentials that the server does not ask for here are not sent, and the error names the remedy."""
    office = await listen()  # aiosmtpd offers AUTH under TLS alone.
    with pytest.raises(MailDeferred, match=r"plugins\.mail_smtp\.username") as raised:
        await sender(office.port, username="hydra", password=PASSWORD).send(write(), "key")
    assert PASSWORD not in str(raised.value)
    assert not office.envelopes


# -- addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        "=?utf-8?q?ada=0D=0ARCPT_TO=3A=3Ceve=40evil=2Eexample=3E?=@example.com",
        "=?utf-8?q?ada=3E_SIZE=3D1?=@example.com",
        "=?utf-8?q?ada=00?=@example.com",
        '"ada> SIZE=1"@example.com',
        '"ada eve"@example.com',
        "ada@example.com, eve@evil.example",
        "=?utf-8?q?ada=40example=2Ecom=2C_eve?=@evil.example, ada@example.com",
        "friends: ada@example.com, eve@evil.example;",
        "ada@exa mple.com",
        "ada@example.com; eve@evil.example",
        "ada@=?utf-8?b?w6TDpMOk?=\r\n =?utf-8?b?w6TDpMOk?=.com",
        "undisclosed-recipients:;",
        "ada",
        "@example.com",
        "",
    ],
)
async def test_injection(listen: Listen, sender: Any, write: Any, header: str) -> None:
    """An address that would be a second command, a parameter or a second recipient is refused before a connection is
    made, and the error does not repeat it."""
    office = await listen()
    raw = write().as_bytes().replace(b"To: ada@example.com\r\n", b"To: " + header.encode() + b"\r\n")
    letter = message_from_bytes(raw, policy=policy.SMTP)
    with pytest.raises(MailRefused) as raised:
        await sender(office.port).send(letter, "key")
    assert not office.connections
    assert "ada" not in str(raised.value)
    assert "example" not in str(raised.value)


async def test_dots(listen: Listen, sender: Any, write: Any) -> None:
    """Lines that begin with a dot arrive as they are, and end nothing early."""
    office = await listen()
    letter = write()
    letter.get_body(("plain",)).set_content("one\n.\n..\nRCPT TO:<eve@evil.example>\n.two\n")
    await sender(office.port).send(letter, "key")
    [envelope] = office.envelopes
    assert envelope.rcpt_tos == ["ada@example.com"]
    text = message_from_bytes(envelope.content, policy=policy.SMTP).get_body(("plain",)).get_content()
    assert text.split() == ["one", ".", "..", "RCPT", "TO:<eve@evil.example>", ".two"]


async def test_international_domains(listen: Listen, sender: Any, write: Any) -> None:
    """A domain beyond ASCII travels in its ASCII form, in envelope and header, and asks for no SMTPUTF8."""
    office = await listen()
    await sender(office.port).send(write("ada@exämple.com"), "key")
    [envelope] = office.envelopes
    assert envelope.rcpt_tos == ["ada@xn--exmple-cua.com"]
    assert b"\r\nTo: ada@xn--exmple-cua.com\r\n" in envelope.content
    assert "SMTPUTF8" not in envelope.mail_options


async def test_international_local_parts(listen: Listen, sender: Any, write: Any) -> None:
    """A local part beyond ASCII travels by SMTPUTF8 (RFC 6531), its header in UTF-8 (RFC 6532)."""
    office = await listen(enable_SMTPUTF8=True)
    await sender(office.port).send(write("ädä@example.com"), "key")
    [envelope] = office.envelopes
    assert envelope.rcpt_tos == ["ädä@example.com"]
    assert "SMTPUTF8" in envelope.mail_options
    assert "\r\nTo: ädä@example.com\r\n".encode() in envelope.content


async def test_no_smtputf8(listen: Listen, sender: Any, write: Any) -> None:
    """Where the server lacks SMTPUTF8 such an address is refused: trying again changes nothing."""
    office = await listen()
    plugin = sender(office.port)
    with pytest.raises(MailRefused, match="beyond ASCII") as raised:
        await plugin.send(write("ädä@example.com"), "key")
    assert "ädä" not in str(raised.value)
    assert not office.envelopes
    await plugin.send(write(), "key")
    assert len(office.envelopes) == 1


async def test_a_letter_is_not_changed(listen: Listen, sender: Any, write: Any) -> None:
    """Sending leaves the message as it was."""
    office = await listen()
    letter = write("ada@exämple.com")
    before = letter.as_bytes()
    await sender(office.port).send(letter, "key")
    assert letter.as_bytes() == before
