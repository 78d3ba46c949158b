"""Mail through Resend, against a small server that plays its API."""

import asyncio
import json
import logging
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
import resend
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from hydracore.config import check_section, load
from hydracore.discovery import installed
from hydracore.plugin import MailDeferred, MailRefused, StartupError

KEY = "re_hunter2"
Answer = tuple[int, Any]


class Api:
    """What was asked, and what is answered."""

    def __init__(self) -> None:
        self.url = ""
        self.answer: Answer = (200, {"id": "49a3999c"})
        self.headers: dict[str, str] = {}
        self.held: asyncio.Event | None = None
        self.asked: list[Any] = []

    def bodies(self) -> list[Any]:
        return [json.loads(request.body) for request in self.asked]


class Emails(RequestHandler):
    api: Api

    def initialize(self, api: Api) -> None:
        self.api = api

    async def post(self) -> None:
        self.api.asked.append(self.request)
        if self.api.held:
            await self.api.held.wait()
        code, body = self.api.answer
        self.set_status(code)
        for name, value in self.api.headers.items():
            self.set_header(name, value)
        if isinstance(body, bytes):
            self.finish(body)
        else:
            self.set_header("Content-Type", "application/json; charset=utf-8")
            self.finish(json.dumps(body))


Open = Callable[[], Awaitable[Api]]


@pytest.fixture
def open_api(io_loop: IOLoop) -> Iterator[Open]:
    closing: list[tuple[HTTPServer, Api]] = []

    async def opened() -> Api:
        api = Api()
        sockets = bind_sockets(0, "127.0.0.1")
        server = HTTPServer(Application([("/emails", Emails, {"api": api})], log_function=lambda handler: None))
        server.add_sockets(sockets)
        api.url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
        closing.append((server, api))
        return api

    yield opened

    async def close() -> None:
        for server, api in closing:
            if api.held:
                api.held.set()
            server.stop()
            await server.close_all_connections()

    io_loop.run_sync(close)


@pytest.fixture
def sender(make: Any) -> Callable[..., Any]:
    return lambda url, **section: make("mail_resend", **{"api_key": KEY, "api_url": url} | section)


async def test_a_letter_is_taken_over(open_api: Open, sender: Any, write: Any) -> None:
    """A letter is one call with the account's key, the idempotency key, both bodies and the addresses."""
    api = await open_api()
    letter = write()
    await sender(api.url).send(letter, "key-1")
    [request] = api.asked
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    assert request.headers["Idempotency-Key"] == "key-1"
    assert request.headers["Content-Type"] == "application/json"
    [body] = api.bodies()
    assert body["from"] == "HydraCore <no-reply@example.org>"
    assert body["to"] == ["ada@example.com"]
    assert body["subject"] == letter["Subject"]
    assert body["headers"] == {"Auto-Submitted": "auto-generated", "Content-Language": "en"}
    for part in ("text", "html"):
        assert "314159" in body[part]


async def test_each_try_has_the_same_key(open_api: Open, sender: Any, write: Any) -> None:
    """Another try of one letter has the same idempotency key and the same body; another letter has another."""
    api = await open_api()
    plugin, letter = sender(api.url), write()
    for key in ("one", "one", "two"):
        await plugin.send(letter, key)
    assert [request.headers["Idempotency-Key"] for request in api.asked] == ["one", "one", "two"]
    assert api.bodies()[0] == api.bodies()[1]


@pytest.mark.parametrize(
    ("answer", "verdict", "said"),
    [
        ((401, {"statusCode": 401, "name": "missing_api_key", "message": "no"}), MailDeferred, "api_key"),
        ((403, {"statusCode": 403, "name": "invalid_api_key", "message": "no"}), MailDeferred, "api_key"),
        ((403, {"statusCode": 403, "name": "validation_error", "message": "domain"}), MailDeferred, "mail.sender"),
        ((400, {"statusCode": 400, "name": "validation_error", "message": "no"}), MailRefused, "validation_error"),
        ((404, {"statusCode": 404, "name": "not_found", "message": "no"}), MailRefused, "404"),
        ((422, {"statusCode": 422, "name": "validation_error", "message": "no"}), MailRefused, "validation_error"),
        ((422, {"statusCode": 422, "name": "missing_required_field", "message": "no"}), MailRefused, "422"),
        ((408, {}), MailDeferred, "408"),
        ((409, {"statusCode": 409, "name": "concurrent_idempotent_requests"}), MailDeferred, "concurrent_idempotent"),
        ((429, {"statusCode": 429, "name": "rate_limit_exceeded", "message": "slow"}), MailDeferred, "rate_limit"),
        ((429, {"statusCode": 429, "name": "daily_quota_exceeded", "message": "slow"}), MailDeferred, "daily_quota"),
        ((500, {"statusCode": 500, "name": "application_error", "message": "no"}), MailDeferred, "500"),
        ((502, b"<html>Bad Gateway</html>"), MailDeferred, "502"),
        ((503, b""), MailDeferred, "503"),
        ((302, b""), MailDeferred, "Resend answered"),
        ((422, b"<html>"), MailRefused, "422"),
        ((200, b"<html>a captive portal"), MailDeferred, "500"),
        ((200, {"statusCode": "odd", "message": "no"}), MailDeferred, "Resend answered"),
        ((200, None), MailDeferred, "without a word"),
        ((200, {}), MailDeferred, "plugins.mail_resend.api_url"),
        ((200, ["id"]), MailDeferred, "plugins.mail_resend.api_url"),
        ((418, {"name": "x" * 999, "message": "no"}), MailRefused, "418"),
        ((418, ["no"]), MailRefused, "418"),
    ],
)
async def test_verdicts(
    open_api: Open, sender: Any, write: Any, answer: Answer, verdict: type[Exception], said: str
) -> None:
    """429, 5xx and a wrong key defer, any other 4xx refuses; the error has the code, its name and the remedy."""
    api = await open_api()
    api.answer = answer
    with pytest.raises(verdict) as raised:
        await sender(api.url).send(write(), "key")
    assert type(raised.value) is verdict
    assert said in str(raised.value)
    assert len(str(raised.value)) < 200
    assert KEY not in str(raised.value)


async def test_redirects_are_not_followed(open_api: Open, sender: Any, write: Any) -> None:
    """A redirect takes neither the letter nor the key elsewhere."""
    api, other = await open_api(), await open_api()
    api.answer, api.headers = (307, {}), {"Location": f"{other.url}/emails"}
    with pytest.raises(MailDeferred):
        await sender(api.url).send(write(), "key")
    assert not other.asked


async def test_nothing_of_the_letter_is_quoted(
    open_api: Open, sender: Any, write: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the API quotes of the letter reaches neither the error nor a log."""
    caplog.set_level(logging.DEBUG)
    api = await open_api()
    quote = "ada@example.com: your code is 314159"
    api.answer = (422, {"statusCode": 422, "name": quote, "message": quote})
    with pytest.raises(MailRefused) as raised:
        await sender(api.url).send(write(), "key")
    assert str(raised.value) == "Resend answered 422"
    assert "314159" not in caplog.text
    assert KEY not in caplog.text


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port that is bound and does not listen: nobody else can come to listen on it."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


async def test_nobody_listens(sender: Any, write: Any, unused_port: int) -> None:
    """No connection defers, and the error says that it was none."""
    with pytest.raises(MailDeferred, match=r"no answer from Resend: .*refused"):
        await sender(f"http://127.0.0.1:{unused_port}").send(write(), "key")


async def test_a_deadline(open_api: Open, sender: Any, write: Any) -> None:
    """An API that does not answer within ``timeout`` defers."""
    api = await open_api()
    api.held = asyncio.Event()
    with pytest.raises(MailDeferred, match=r"no answer from Resend: .*[Tt]imeout"):
        await sender(api.url, timeout=1).send(write(), "key")


async def test_two_in_one_process(open_api: Open, sender: Any, write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two HydraCores, each with its own account and URL, and a host that uses the library itself do not meet: each
    letter goes out with its own key to its own place, and the host finds the library as it left it, at any moment."""
    own_client = object()
    monkeypatch.setattr(resend, "api_key", "re_host")
    monkeypatch.setattr(resend, "api_url", "https://host.example")
    monkeypatch.setattr(resend, "default_async_http_client", own_client)

    def as_left() -> bool:
        now = (resend.api_key, resend.api_url, resend.default_async_http_client)
        return now == ("re_host", "https://host.example", own_client)

    one, other = await open_api(), await open_api()
    one.held, other.held = asyncio.Event(), asyncio.Event()
    first, second = sender(one.url, api_key="re_one"), sender(other.url, api_key="re_other")
    sending = [
        asyncio.ensure_future(plugin.send(write(), f"{name} {number}"))
        for number in range(4)
        for name, plugin in (("one", first), ("other", second))
    ]
    while not (len(one.asked) == len(other.asked) == 4):
        await asyncio.sleep(0.01)
        assert as_left()
    one.held.set()
    other.held.set()
    await asyncio.gather(*sending)
    assert as_left()
    for name, api in (("one", one), ("other", other)):
        assert {request.headers["Authorization"] for request in api.asked} == {f"Bearer re_{name}"}
        assert {request.headers["Idempotency-Key"] for request in api.asked} == {f"{name} {n}" for n in range(4)}


async def test_the_host_finds_it_after_a_failure(sender: Any, write: Any, unused_port: int) -> None:
    """The library is as it was after a failed call too, and the next call works on."""
    before = resend.api_key, resend.api_url, resend.default_async_http_client
    plugin = sender(f"http://127.0.0.1:{unused_port}")
    for _ in range(2):
        with pytest.raises(MailDeferred):
            await plugin.send(write(), "key")
    assert (resend.api_key, resend.api_url, resend.default_async_http_client) == before


@pytest.mark.parametrize(
    "header",
    [
        "=?utf-8?q?ada=0D=0ARCPT_TO=3A=3Ceve=40evil=2Eexample=3E?=@example.com",
        "ada@example.com, eve@evil.example",
        "ada@exa mple.com",
        "ada@example.com; eve@evil.example",
        "ada@=?utf-8?b?w6TDpMOk?=\r\n =?utf-8?b?w6TDpMOk?=.com",
        "undisclosed-recipients:;",
        "",
    ],
)
async def test_one_address(open_api: Open, sender: Any, write: Any, header: str) -> None:
    """What is not exactly one address is refused without a call, and the error does not repeat it."""
    api = await open_api()
    raw = write().as_bytes().replace(b"To: ada@example.com\r\n", b"To: " + header.encode() + b"\r\n")
    with pytest.raises(MailRefused) as raised:
        await sender(api.url).send(message_from_bytes(raw, policy=policy.SMTP), "key")
    assert not api.asked
    assert "ada" not in str(raised.value)


async def test_international_domains(open_api: Open, sender: Any, write: Any) -> None:
    """A domain beyond ASCII travels in its ASCII form, a local part as it is."""
    api = await open_api()
    await sender(api.url).send(write("ädä@exämple.com"), "key")
    assert api.bodies()[0]["to"] == ["ädä@xn--exmple-cua.com"]


def test_a_key_is_needed(make: Any) -> None:
    """Without a key the start stops, naming the variables that set it."""
    with pytest.raises(StartupError) as raised:
        make("mail_resend")
    for name in ("HYDRACORE_PLUGINS__MAIL_RESEND__API_KEY,", "HYDRACORE_PLUGINS__MAIL_RESEND__API_KEY_FILE"):
        assert name in f"{raised.value},".replace(" or ", ", ")


def test_the_key_from_a_file(make: Any, tmp_path: Path) -> None:
    """HYDRACORE_PLUGINS__MAIL_RESEND__API_KEY_FILE names a file that holds the key, and a missing one is told."""
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    schema = installed()["mail_resend"].schema()

    def section(path: Path) -> Any:
        config = load(environment={"HYDRACORE_PLUGINS__MAIL_RESEND__API_KEY_FILE": str(path)})
        return check_section("mail_resend", config.plugins.sections["mail_resend"], schema)

    assert section(file)["api_key"] == KEY
    with pytest.raises(StartupError, match=r"HYDRACORE_PLUGINS__MAIL_RESEND__API_KEY_FILE.*missing"):
        section(tmp_path / "missing")


def test_the_library_is_optional(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library the start stops, and says how to install it."""
    monkeypatch.delitem(sys.modules, "hydracore_mail_resend", raising=False)
    monkeypatch.setitem(sys.modules, "resend", None)
    with pytest.raises(StartupError, match=r'pip install "hydracore\[resend\]"'):
        make("mail_resend", api_key=KEY)
