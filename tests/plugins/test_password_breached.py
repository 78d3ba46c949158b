"""Passwords known from breaches, asked of a small server that plays the service, and searched in lists."""

import asyncio
import hashlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydracore_password_breached.listed import Listed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import PASSWORD, Clock, OpenSite, refused
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from hydracore.config import load
from hydracore.plugin import NewPassword, PasswordRefused, StartupError, Unavailable

SAID = "This is known from a data breach. Choose another."
CANNOT = "breached passwords cannot be told"


def sha1(password: str) -> str:
    return hashlib.sha1(password.encode(), usedforsecurity=False).hexdigest().upper()


class Service:
    """What was asked, and what is answered: the passwords it knows, or something else."""

    def __init__(self) -> None:
        self.url = ""
        self.known: dict[str, int] = {}
        self.code = 200
        self.headers: dict[str, str] = {}
        self.body: bytes | None = None
        self.newline = "\r\n"
        self.held: asyncio.Event | None = None
        self.asked: list[Any] = []
        self.at_once = self.most_at_once = 0
        self.sixteen = asyncio.Event()

    def lines(self, prefix: str) -> bytes:
        """The range, padded: other hashes, and some that were never seen."""
        others = {sha1(f"other {number}")[5:]: number % 3 for number in range(100)}
        mine = {sha1(one)[5:]: count for one, count in self.known.items() if sha1(one).startswith(prefix)}
        return self.newline.join(f"{rest}:{count}" for rest, count in sorted((others | mine).items())).encode()


class Range(RequestHandler):
    service: Service

    def initialize(self, service: Service) -> None:
        self.service = service

    async def get(self, prefix: str) -> None:
        service = self.service
        service.asked.append(self.request)
        service.at_once += 1
        service.most_at_once = max(service.most_at_once, service.at_once)
        if service.at_once == 16:
            service.sixteen.set()
        try:
            if service.held:
                await service.held.wait()
        finally:
            service.at_once -= 1
        self.set_status(service.code)
        for name, value in service.headers.items():
            self.set_header(name, value)
        self.finish(service.lines(prefix) if service.body is None else service.body)


Open = Callable[[], Awaitable[Service]]


@pytest.fixture
def open_service(io_loop: IOLoop) -> Iterator[Open]:
    closing: list[tuple[HTTPServer, Service]] = []

    async def opened() -> Service:
        service = Service()
        sockets = bind_sockets(0, "127.0.0.1")
        handlers = [("/range/(.*)", Range, {"service": service})]
        server = HTTPServer(Application(handlers, log_function=lambda handler: None))
        server.add_sockets(sockets)
        service.url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}/range/"
        closing.append((server, service))
        return service

    yield opened

    async def close() -> None:
        for server, service in closing:
            if service.held:
                service.held.set()
            server.stop()
            await server.close_all_connections()

    io_loop.run_sync(close)


async def judge(plugin: Any, password: str) -> bool:
    """Whether the password passes."""
    [policy] = plugin.hydracore_register_password_policies()
    assert (policy.name, policy.check) == ("breached", None)
    try:
        await policy.judge(NewPassword(password, "ada@example.com"))
    except PasswordRefused as refusal:
        assert str(refusal) == SAID
        return False
    return True


# -- online ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("newline", ["\r\n", "\n"])
@pytest.mark.parametrize("password", ["hunter2", "пароль", "nul \0", "🐍" * 128, ""])
async def test_known_ones_are_refused(open_service: Open, make: Any, newline: str, password: str) -> None:
    """A password of the range is refused, any other passes, whichever newlines the service writes."""
    service = await open_service()
    service.known, service.newline = {password: 1}, newline
    plugin = make("password_breached", url=service.url)
    assert not await judge(plugin, password)
    assert await judge(plugin, f"{password}x")


async def test_what_leaves_the_process(open_service: Open, make: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Five characters of the hash go out, padding is asked for, and nothing of either is logged."""
    caplog.set_level(logging.DEBUG)
    service = await open_service()
    service.known = {PASSWORD: 7}
    assert not await judge(make("password_breached", url=service.url), PASSWORD)
    [request] = service.asked
    assert request.uri == f"/range/{sha1(PASSWORD)[:5]}"
    assert (request.method, request.body) == ("GET", b"")
    assert request.headers["Add-Padding"] == "true"
    assert request.headers["User-Agent"] == "hydracore"
    everything = f"{request.uri} {dict(request.headers)}"
    assert sha1(PASSWORD)[:6] not in everything
    assert sha1(PASSWORD)[5:11] not in everything
    assert sha1(PASSWORD)[:5] not in caplog.text
    assert PASSWORD not in caplog.text


async def test_how_often(open_service: Open, make: Any) -> None:
    """min_count is how often it must have been seen; padding, seen never, refuses nothing."""
    service = await open_service()
    service.known = {"never": 0, "once": 1, "often": 1000}
    for least, passing in ((1, ["never"]), (2, ["never", "once"]), (1001, ["never", "once", "often"])):
        plugin = make("password_breached", url=service.url, min_count=least)
        assert [one for one in service.known if await judge(plugin, one)] == passing


async def test_lower_case_and_no_slash(open_service: Open, make: Any) -> None:
    """A service of one's own may write its hashes in lower case, and be named without the last slash."""
    service = await open_service()
    service.body = f"{sha1(PASSWORD)[5:].lower()}:3".encode()
    assert not await judge(make("password_breached", url=service.url.rstrip("/")), PASSWORD)


LINE = b"0" * 35 + b":1\r\n"


@pytest.mark.parametrize(
    ("code", "body"),
    [
        (500, None),
        (503, b""),
        (429, b"slow down"),
        (404, None),
        (203, None),
        (302, None),
        (200, b""),
        (200, b"<html>a captive portal"),
        (200, LINE + b"\xff\xfe\r\n"),
        (200, LINE + b"\r\n" + LINE),
        (200, LINE + b"0" * 34 + b":1"),
        (200, LINE + b"0" * 35 + b":-1"),
        (200, LINE + b"0" * 35 + b":" + b"9" * 5000),
        (200, LINE + b"0" * 35),
        (200, LINE * 20_000),
    ],
)
async def test_other_answers(
    open_service: Open, make: Any, expected_logs: list[str], code: int, body: bytes | None
) -> None:
    """Whatever is no range is a failure: with open the password passes and a warning is logged, with closed it is 503
    and when to come back. A redirect is not followed, and a body that is too large not read."""
    expected_logs += [CANNOT, "maximum read buffer"]
    service, other = await open_service(), await open_service()
    service.known = other.known = {PASSWORD: 9}
    service.code, service.body = code, body
    if code == 302:
        service.headers = {"Location": f"{other.url}{sha1(PASSWORD)[:5]}"}
    assert await judge(make("password_breached", url=service.url), PASSWORD)
    with pytest.raises(Unavailable) as raised:
        await judge(make("password_breached", url=service.url, on_failure="closed"), PASSWORD)
    assert raised.value.retry_after >= 1
    assert len(service.asked) == 2
    assert not other.asked


async def test_a_body_without_an_end(make: Any, expected_logs: list[str]) -> None:
    """A service that says no length and goes on for ever is left at the limit, long before the deadline."""
    expected_logs += [CANNOT, "maximum read buffer"]
    written = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        try:
            while True:
                writer.write(LINE * 1000)
                await writer.drain()
                written += len(LINE) * 1000
        except OSError:
            writer.close()

    server = await asyncio.start_server(pour, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    with pytest.raises(Unavailable):
        await judge(make("password_breached", url=url, on_failure="closed", timeout=4), PASSWORD)
    server.close()
    assert written < 64 << 20


@pytest.mark.parametrize("on_failure", ["open", "closed"])
async def test_a_deadline(open_service: Open, make: Any, expected_logs: list[str], on_failure: str) -> None:
    """A service that does not answer within ``timeout`` is a failure."""
    expected_logs.append(CANNOT)
    service = await open_service()
    service.held = asyncio.Event()
    plugin = make("password_breached", url=service.url, timeout=0.2, on_failure=on_failure)
    if on_failure == "open":
        assert await judge(plugin, PASSWORD)
    else:
        with pytest.raises(Unavailable):
            await judge(plugin, PASSWORD)


async def test_nobody_listens(make: Any, expected_logs: list[str]) -> None:
    """No connection is a failure."""
    expected_logs.append(CANNOT)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/"
        assert await judge(make("password_breached", url=url), PASSWORD)


async def test_sixteen_at_once(open_service: Open, make: Any) -> None:
    """Of a crowd sixteen are asked at once, the rest afterwards, and each gets its own answer."""
    service = await open_service()
    service.known = {f"bad {number}": 1 for number in range(50)}
    service.held = asyncio.Event()
    plugin = make("password_breached", url=service.url, timeout=4)
    names = [*service.known, *(f"good {number}" for number in range(50))]
    crowd = asyncio.gather(*(judge(plugin, name) for name in names))
    await service.sixteen.wait()
    await asyncio.sleep(0.05)
    service.held.set()
    assert await crowd == [name.startswith("good") for name in names]
    assert service.most_at_once == 16


async def test_waiting_has_the_same_deadline(open_service: Open, make: Any, expected_logs: list[str]) -> None:
    """Those that wait for their turn fail in time too, without being asked, and turns come back."""
    expected_logs.append(CANNOT)
    service = await open_service()
    service.held = asyncio.Event()
    clock = Clock()
    plugin = make("password_breached", url=service.url, timeout=0.3, now=clock)
    assert all(await asyncio.gather(*(judge(plugin, f"{number}") for number in range(60))))
    assert len(service.asked) <= 16
    service.held.set()
    service.known = {PASSWORD: 1}
    clock.forward(seconds=11)
    assert not await judge(plugin, PASSWORD)


async def test_a_caller_that_goes(open_service: Open, make: Any) -> None:
    """Callers that are cancelled cost no turn for ever, and no line in the log."""
    service = await open_service()
    service.held = asyncio.Event()
    plugin = make("password_breached", url=service.url, timeout=3)
    asking = [asyncio.ensure_future(judge(plugin, f"{number}")) for number in range(40)]
    await service.sixteen.wait()
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    service.held.set()
    service.known = {PASSWORD: 1}
    assert await asyncio.gather(*(judge(plugin, PASSWORD) for _ in range(40))) == [False] * 40


async def test_a_rest(open_service: Open, make: Any, expected_logs: list[str]) -> None:
    """After three failures in a row nobody is asked for ten seconds; then one asks for all, and a good answer ends
    it. The 503 says when."""
    expected_logs.append(CANNOT)
    service, clock = await open_service(), Clock()
    service.code = 500
    plugin = make("password_breached", url=service.url, now=clock, on_failure="closed")

    async def crowd() -> None:
        for answer in await asyncio.gather(*(judge(plugin, "x") for _ in range(50)), return_exceptions=True):
            assert isinstance(answer, Unavailable)

    for _ in range(3):
        with pytest.raises(Unavailable):
            await judge(plugin, PASSWORD)
    with pytest.raises(Unavailable) as raised:
        await judge(plugin, PASSWORD)
    assert raised.value.retry_after == 10
    await crowd()
    assert len(service.asked) == 3
    clock.forward(seconds=10.1)
    await crowd()
    assert len(service.asked) == 4
    clock.forward(seconds=10.1)
    service.code, service.known = 200, {PASSWORD: 1}
    assert not await judge(plugin, PASSWORD)
    assert all(await asyncio.gather(*(judge(plugin, f"{number}") for number in range(50))))
    assert len(service.asked) == 55


async def test_a_good_answer_between(open_service: Open, make: Any, expected_logs: list[str]) -> None:
    """Failures count in a row alone; a clock that is put back makes no rest longer."""
    expected_logs.append(CANNOT)
    service, clock = await open_service(), Clock()
    plugin = make("password_breached", url=service.url, now=clock)
    for code in (500, 500, 200, 500, 500, 200, 500, 500, 500):
        service.code = code
        assert await judge(plugin, PASSWORD)
    clock.forward(hours=-1)
    assert await judge(plugin, PASSWORD)
    assert len(service.asked) == 10


# -- a list of one's own ---------------------------------------------------------------------------

Lines = list[tuple[str, int]]


def written(file: Path, lines: Lines, newline: str = "\r\n", last: bool = True) -> Path:
    text = newline.join(f"{digest}:{count}" for digest, count in lines)
    file.write_bytes((text + (newline if lines and last else "")).encode())
    return file


def listed(*passwords: str) -> Lines:
    return sorted((sha1(password), 10**number) for number, password in enumerate(passwords))


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("newline", ["\r\n", "\n"])
async def test_a_list(make: Any, tmp_path: Path, newline: str, last: bool) -> None:
    """Every line is found, the first and the last too, whatever the newlines and the counts' lengths."""
    known = [f"known {number}" for number in range(9)]
    file = written(tmp_path / "list.txt", listed(*known), newline, last)
    plugin = make("password_breached", source="file", file=str(file))
    assert not any([await judge(plugin, password) for password in known])
    assert all([await judge(plugin, f"other {number}") for number in range(50)])


digests = st.integers(0, 16**40 - 1).map(lambda number: f"{number:040X}")
near = st.integers(0, 99).map(lambda number: f"{16**39 + number:040X}")


@settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    entries=st.dictionaries(st.one_of(digests, near), st.integers(1, 10**11), max_size=200),
    others=st.lists(st.one_of(digests, near), max_size=20),
    newline=st.sampled_from(["\r\n", "\n"]),
    last=st.booleans(),
    case=st.sampled_from([str.upper, str.lower]),
)
def test_exactly_the_members(
    tmp_path_factory: pytest.TempPathFactory,
    entries: dict[str, int],
    others: list[str],
    newline: str,
    last: bool,
    case: Callable[[str], str],
) -> None:
    """The search finds the members of any sorted list, each with its count, and nothing else."""
    lines = [(case(digest), count) for digest, count in sorted(entries.items())]
    file = written(tmp_path_factory.getbasetemp() / "generated.txt", lines, newline, last)
    if not entries:
        file.write_bytes(b"0" * 40 + b":0")  # That an empty one is warned of has a test of its own.
    searched = Listed(str(file), asyncio.to_thread)
    for digest in [*entries, *others, "0" * 40, "F" * 40]:
        assert searched._search(digest.encode()) == entries.get(digest, 0)


async def test_an_empty_list(make: Any, tmp_path: Path, expected_logs: list[str]) -> None:
    """An empty list refuses none, and the operator is warned."""
    expected_logs.append("list of breached passwords is empty")
    file = written(tmp_path / "list.txt", [])
    assert await judge(make("password_breached", source="file", file=str(file)), PASSWORD)


async def test_how_often_in_a_list(make: Any, tmp_path: Path) -> None:
    """min_count counts for a list too."""
    file = written(tmp_path / "list.txt", [(sha1(PASSWORD), 5)])
    for least, passes in ((5, False), (6, True)):
        plugin = make("password_breached", source="file", file=str(file), min_count=least)
        assert await judge(plugin, PASSWORD) is passes


async def test_a_replaced_list(make: Any, tmp_path: Path, expected_logs: list[str]) -> None:
    """Another list renamed over it counts at once. One that vanishes is a failure, until it is back."""
    expected_logs.append(CANNOT)
    file = written(tmp_path / "list.txt", listed("old"))
    plugin = make("password_breached", source="file", file=str(file), on_failure="closed")
    written(tmp_path / "new.txt", listed("new")).replace(file)
    assert (await judge(plugin, "old"), await judge(plugin, "new")) == (True, False)
    file.unlink()
    with pytest.raises(Unavailable):
        await judge(plugin, "new")
    written(file, listed("old"))
    assert not await judge(plugin, "old")


@pytest.mark.parametrize("content", [b"\0" * 100_000, b"x\n" * 1000, b"F" * 40 + b":1 \n", None])
@pytest.mark.parametrize("on_failure", ["open", "closed"])
async def test_a_list_that_is_spoilt(
    make: Any, tmp_path: Path, expected_logs: list[str], content: bytes | None, on_failure: str
) -> None:
    """What is no list any more, or a pipe that nobody fills, is a failure: on_failure decides."""
    expected_logs.append(CANNOT)
    file = written(tmp_path / "list.txt", listed("old"))
    plugin = make("password_breached", source="file", file=str(file), on_failure=on_failure)
    file.unlink()
    if content is None:
        os.mkfifo(file)
    else:
        file.write_bytes(content)
    if on_failure == "open":
        assert await judge(plugin, "old")
    else:
        with pytest.raises(Unavailable):
            await judge(plugin, "old")


async def test_a_crowd_over_a_list(make: Any, tmp_path: Path) -> None:
    """A hundred at once are each judged right."""
    file = written(tmp_path / "list.txt", listed(*(f"bad {number}" for number in range(11))))
    plugin = make("password_breached", source="file", file=str(file), timeout=4)
    names = [f"{kind} {number % 11}" for number in range(50) for kind in ("bad", "good")]
    assert await asyncio.gather(*(judge(plugin, name) for name in names)) == [name[0] == "g" for name in names]


# -- the start -------------------------------------------------------------------------------------


@pytest.mark.parametrize("spoil", ["", "missing", "folder", "pipe", "unsorted", "last", "garbage", "long"])
def test_a_list_that_stops_the_start(make: Any, tmp_path: Path, spoil: str) -> None:
    """A list that is not there, cannot be read or is not sorted stops the start, and the key is named."""
    file, lines = tmp_path / "list.txt", sorted((sha1(f"{number}"), number) for number in range(1000))
    match spoil:
        case "folder":
            file.mkdir()
        case "pipe":
            os.mkfifo(file)
        case "unsorted":
            written(file, lines[::-1])
        case "last":
            written(file, [*lines, ("0" * 40, 1)])
        case "garbage":
            file.write_text("password\nhunter2\n")
        case "long":
            file.write_bytes(b"\0" * 1_000_000)
    with pytest.raises(StartupError, match=r"plugins\.password_breached\.file"):
        make("password_breached", source="file", file=str(file) if spoil else "")


@pytest.mark.parametrize("timeout", [2, 2.5])
def test_timeouts_that_do_not_fit(make: Any, timeout: float) -> None:
    """A timeout that is not below plugins.timeout stops the start, and both keys are named."""
    settings = load(environment={}, overrides={"plugins": {"timeout": 2}})
    with pytest.raises(StartupError, match=r"plugins\.password_breached\.timeout.*plugins\.timeout"):
        make("password_breached", settings=settings, timeout=timeout)
    make("password_breached", settings=settings, timeout=1.9)


@pytest.mark.parametrize("url", ["", "ftp://example.com/", "https://", "https:///range/", "http://a:x/", "http://[/"])
def test_addresses_that_are_none(make: Any, url: str) -> None:
    """A URL that leads nowhere stops the start, and the key is named."""
    with pytest.raises(StartupError, match=r"plugins\.password_breached\.url"):
        make("password_breached", url=url)


# -- over the whole server -------------------------------------------------------------------------


async def test_register_and_reset(open_service: Open, open_site: OpenSite) -> None:
    """A known password is refused at register and at a reset, under its member; the reset's token stays good."""
    service = await open_service()
    service.known = {"hunter2 hunter2": 3}
    site = await open_site(plugins={"enabled": ["password_breached"], "password_breached": {"url": service.url}})
    answer = await site.post("register", {"email": "ada@example.com", "password": "hunter2 hunter2"})
    [problem] = refused(answer, 422, "validation_failed")
    assert (problem["loc"], problem["msg"]) == (["body", "password"], SAID)
    await site.register()
    await site.post("forgot-password", {"email": "ada@example.com"})
    reset = {"token": await site.box.reset_token("ada@example.com"), "new_password": "hunter2 hunter2"}
    [problem] = refused(await site.post("reset-password", reset), 422, "validation_failed")
    assert (problem["loc"], problem["msg"]) == (["body", "new_password"], SAID)
    assert (await site.post("reset-password", reset | {"new_password": "hunter3 hunter3"})).code == 200


async def test_closed(open_service: Open, open_site: OpenSite, expected_logs: list[str]) -> None:
    """With on_failure closed an outage of the service is 503 with Retry-After, and nobody is registered."""
    expected_logs += [CANNOT, "hydracore.web: unavailable"]
    service = await open_service()
    service.code = 500
    section = {"url": service.url, "on_failure": "closed"}
    site = await open_site(plugins={"enabled": ["password_breached"], "password_breached": section})
    body = {"email": "ada@example.com", "password": PASSWORD}
    refused(await site.post("register", body), 503, "unavailable")
    service.code = 200
    await site.register()


async def test_open(open_service: Open, open_site: OpenSite, expected_logs: list[str]) -> None:
    """With on_failure open, registration goes on through an outage."""
    expected_logs.append(CANNOT)
    service = await open_service()
    service.code = 500
    site = await open_site(plugins={"enabled": ["password_breached"], "password_breached": {"url": service.url}})
    await site.register()
