"""The server that reads by httptools, beside Tornado's own: the same bytes, the same answers."""

import asyncio
import gc
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from lacking import lacking
from tornado.httputil import HTTPInputError, HTTPServerRequest
from tornado.netutil import bind_sockets, bind_unix_socket
from tornado.web import Application, RequestHandler, stream_request_body

from hydracore.config import Server, load
from hydracore.connections import Listening, TornadoServer
from hydracore.httptools_server import HttptoolsServer, _Connection, _Exchange

SETTINGS: Server = load(environment={}).server
TORNADO, HTTPTOOLS = "tornado", "httptools"
HOST = b"Host: id.example\r\n"
LAST = b"GET /echo/last HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"


class Echo(RequestHandler):
    """Tells what it was asked."""

    def answer(self) -> None:
        asked = self.request
        self.clear_header("Date")
        self.set_header("Content-Type", "text/plain")
        told = [(name, value) for name, value in sorted(asked.headers.get_all()) if name != "Upgrade"]
        self.write(repr((asked.method, asked.uri, asked.version, asked.remote_ip, asked.protocol, told, asked.body)))

    get = head = post = put = answer  # type: ignore[assignment]  # Tornado takes what awaits nothing


class Chunked(RequestHandler):
    """Answers in pieces, without saying how much it will be."""

    async def get(self) -> None:
        self.clear_header("Date")
        for piece in ("one ", "two ", "three"):
            self.write(piece)
            await self.flush()


class Empty(RequestHandler):
    def get(self) -> None:
        self.clear_header("Date")
        self.set_status(int(self.get_query_argument("status", "204")))


@stream_request_body
class Slow(RequestHandler):
    """Takes its time over each piece of a body."""

    async def prepare(self) -> None:
        self.pieces: list[bytes] = []
        await asyncio.sleep(0.01)

    async def data_received(self, chunk: bytes) -> None:
        await asyncio.sleep(0.001)
        self.pieces.append(chunk)

    def post(self) -> None:
        self.clear_header("Date")
        self.write(str(len(b"".join(self.pieces))))
        if self.get_query_argument("pieces", ""):
            self.set_header("X-Pieces", len(self.pieces))


@stream_request_body
class Hasty(RequestHandler):
    """Answers before it has read anything."""

    def prepare(self) -> None:
        self.clear_header("Date")
        self.set_status(413)
        self.finish("no")

    def data_received(self, chunk: bytes) -> None:
        raise AssertionError


class Deceiver(RequestHandler):
    """Says that it answers with more, or with less, than it does."""

    def get(self) -> None:
        self.set_header("Content-Length", self.get_query_argument("length"))
        self.write("four")


class Injector(RequestHandler):
    """Writes a header that Tornado would not have let it set."""

    def head(self) -> None:
        self.get()

    def get(self) -> None:
        self._headers._as_list["X-Evil"] = ["a\r\nSet-Cookie: b"]
        self.write("no")


@stream_request_body
class Left(RequestHandler):
    """Notes whom it lost."""

    lost: list[str] = []  # noqa: RUF012  # emptied by each test

    def data_received(self, chunk: bytes) -> None:
        pass

    async def post(self) -> None:
        await asyncio.sleep(60)

    def on_connection_close(self) -> None:
        self.lost.append(self.request.uri or "")
        super().on_connection_close()


class Endless(RequestHandler):
    """Answers as fast as it is read."""

    written = 0

    async def get(self) -> None:
        for _ in range(100):
            self.write(b"x" * 1024 * 1024)
            await self.flush()
            type(self).written += 1


class Large(RequestHandler):
    """Answers with more than was asked."""

    answered = 0

    def get(self) -> None:
        type(self).answered += 1
        self.write(b"x" * 100_000)


@stream_request_body
class Failing(RequestHandler):
    """Fails at a body, and again when it hears what becomes of that."""

    async def data_received(self, chunk: bytes) -> None:
        await asyncio.sleep(0)
        raise HTTPInputError if self.get_query_argument("malformed", "") else RuntimeError

    def post(self) -> None:
        pass

    def on_connection_close(self) -> None:
        super().on_connection_close()
        raise RuntimeError


class Impatient(RequestHandler):
    """Waits for no client for long."""

    ended: list[str] = []  # noqa: RUF012  # emptied by each test

    async def get(self) -> None:
        for _ in range(2):
            self.write(b"x" * 20_000_000)
            try:
                await asyncio.wait_for(self.flush(), 0.05)
            except (TimeoutError, asyncio.CancelledError) as error:
                self.ended.append(type(error).__name__)


RULES: list[Any] = [
    ("/echo.*", Echo),
    ("/chunked", Chunked),
    ("/empty", Empty),
    ("/slow", Slow),
    ("/hasty", Hasty),
    ("/deceiver", Deceiver),
    ("/injector", Injector),
    ("/left.*", Left),
    ("/endless", Endless),
    ("/impatient", Impatient),
    ("/failing", Failing),
    ("/large", Large),
]


def server_of(kind: str, settings: Server = SETTINGS) -> Listening:
    application = Application(RULES, log_function=lambda handler: None)
    if kind == HTTPTOOLS:
        return HttptoolsServer(application, settings=settings)
    nobody: Callable[[], list[HTTPServerRequest]] = list
    return TornadoServer(application, settings=settings, in_flight=nobody, receiving=nobody)


class Opened:
    """A server of each kind, by a port."""

    def __init__(self) -> None:
        self.servers: dict[str, Listening] = {}
        self.ports: dict[str, int] = {}

    async def open(self, settings: Server = SETTINGS) -> None:
        for kind in (TORNADO, HTTPTOOLS):
            self.servers[kind] = server_of(kind, settings)
            sockets = bind_sockets(0, "127.0.0.1")
            await self.servers[kind].listen(sockets)
            self.ports[kind] = sockets[0].getsockname()[1]

    async def close(self) -> None:
        for server in self.servers.values():
            server.stop()
            await server.close_all_connections()

    async def send(self, kind: str, *pieces: bytes, last: bool = False) -> bytes:
        """All that is answered until the connection is closed: by the ``last`` request, or for what was sent."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ports[kind])
        came = b""
        try:
            for piece in (*pieces, LAST) if last else pieces:
                if writer.transport.is_closing() or reader.at_eof():
                    break
                writer.write(piece)
                await asyncio.sleep(0.002 if len(pieces) > 1 else 0)
            async with asyncio.timeout(20):
                while more := await reader.read(1 << 20):
                    came += more
        except ConnectionError:
            pass  # It was closed while something was still sent.
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        return came

    async def both(self, *pieces: bytes, last: bool = False) -> bytes:
        """What both answer."""
        by_tornado, by_httptools = await asyncio.gather(
            *(self.send(kind, *pieces, last=last) for kind in (TORNADO, HTTPTOOLS))
        )
        assert comparable(by_httptools) == comparable(by_tornado), pieces
        return by_httptools


async def soon(done: Callable[[], bool]) -> None:
    """Wait until it is so, however busy this machine is."""
    async with asyncio.timeout(20):
        while not done():  # noqa: ASYNC110  # simpler than an event
            await asyncio.sleep(0.01)


def comparable(answers: bytes) -> list[bytes]:
    """Answers, line by line; headers in any order."""
    return sorted(_undated(answers.replace(b"HTTP/1.1 100 (Continue)", b"HTTP/1.1 100 Continue")))


@pytest.fixture
def opened(io_loop: Any) -> Iterator[Opened]:
    each = Opened()
    io_loop.run_sync(each.open)
    yield each
    io_loop.run_sync(each.close)


SAME = {
    "get": b"GET /echo?a=b HTTP/1.1\r\n" + HOST + b"\r\n",
    "close": b"GET /echo HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n",
    "old": b"GET /echo HTTP/1.0\r\n\r\n",
    "old and kept": b"GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "head": b"HEAD /echo HTTP/1.1\r\n" + HOST + b"\r\n",
    "body": b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello",
    "chunks": b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
    "expects": b"POST /echo HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\nok",
    "two": b"GET /echo/1 HTTP/1.1\r\n" + HOST + b"\r\nGET /echo/2 HTTP/1.1\r\n" + HOST + b"\r\n",
    "two, the first with a body": (
        b"POST /echo/1 HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\nhiGET /echo/2 HTTP/1.1\r\n" + HOST + b"\r\n"
    ),
    "two, the first slow": (
        b"POST /slow HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\nhiGET /echo/2 HTTP/1.1\r\n" + HOST + b"\r\n"
    ),
    "another after close": (
        b"GET /echo/1 HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\nGET /echo/2 HTTP/1.1\r\n" + HOST + b"\r\n"
    ),
    "headers of all kinds": (
        b"GET /echo HTTP/1.1\r\n"
        + HOST
        + b"A: 1\r\na: 2\r\nx-b:\r\nC:   spaces  \t\r\nD: \xe9\xff\r\nCookie: a=b; c=d\r\n\r\n"
    ),
    "absolute": b"GET http://id.example/echo HTTP/1.1\r\n" + HOST + b"\r\n",
    "upgrade": b"GET /echo HTTP/1.1\r\n" + HOST + b"Upgrade: h2c\r\n\r\n",
    "chunked answer": b"GET /chunked HTTP/1.1\r\n" + HOST + b"\r\n",
    "chunked answer to an old client": b"GET /chunked HTTP/1.0\r\n\r\n",
    "204": b"GET /empty HTTP/1.1\r\n" + HOST + b"\r\n",
    "304": b"GET /empty?status=304 HTTP/1.1\r\n" + HOST + b"\r\n",
    "a body of zero": b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n",
    "nowhere": b"GET /nowhere HTTP/1.1\r\n" + HOST + b"\r\n",
    "a method that it has not": b"DELETE /echo HTTP/1.1\r\n" + HOST + b"\r\n",
    "options for all": b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
}


CLOSED = ("close", "old", "another after close", "chunked answer to an old client")


@pytest.mark.parametrize("case", SAME)
async def test_the_same(opened: Opened, case: str) -> None:
    """What is well formed is answered as Tornado answers it, in one piece or in many."""
    request, last = SAME[case], case not in CLOSED
    at_once = await opened.both(request, last=last)
    assert _status_lines(at_once)
    if case == "another after close":
        return  # Whoever goes on sending then may find the connection reset.
    sizes = (1, 7)
    in_pieces = (opened.send(HTTPTOOLS, *pieces_of(request, size), last=last) for size in sizes)
    assert [_undated(each) for each in await asyncio.gather(*in_pieces)] == [_undated(at_once)] * len(sizes)


def pieces_of(request: bytes, size: int) -> list[bytes]:
    return [request[start : start + size] for start in range(0, len(request), size)]


def _status_lines(answers: bytes) -> list[bytes]:
    return re.findall(rb"HTTP/1\.1 [0-9]{3} [^\r]*", answers)


def _undated(answers: bytes) -> list[bytes]:
    return [line for line in answers.split(b"\r\n") if not line.startswith(b"Date")]


BOTH = (
    HOST
    + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /echo/smuggled HTTP/1.1\r\n"
    + HOST
    + b"\r\n"
)
MALFORMED = {
    "length and chunks": b"POST /echo HTTP/1.1\r\n" + BOTH,
    "two lengths": b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
    "the same length twice": b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
    "a length with a sign": b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: +4\r\n\r\nabcd",
    "a length that is none": b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 4a\r\n\r\nabcd",
    "a length beyond all numbers": b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 99999999999999999999\r\n\r\nx",
    "another coding": b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked in two lines": (
        b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "a coding that looks like one": b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a chunk's size that is none": (
        b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n"
    ),
    "a chunk that is longer than it says": (
        b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n"
    ),
    "a space before the colon": b"GET /echo HTTP/1.1\r\n" + HOST + b"Content-Length : 0\r\n\r\n",
    "a folded line": b"GET /echo HTTP/1.1\r\n" + HOST + b"A: 1\r\n 2\r\n\r\n",
    "a folded line first": b"GET /echo HTTP/1.1\r\n A: 1\r\n" + HOST + b"\r\n",
    "no colon": b"GET /echo HTTP/1.1\r\n" + HOST + b"abc\r\n\r\n",
    "a zero byte": b"GET /echo HTTP/1.1\r\n" + HOST + b"A: b\x00c\r\n\r\n",
    "a lone return": b"GET /echo HTTP/1.1\r\n" + HOST + b"A: b\rc\r\n\r\n",
    "two hosts": b"GET /echo HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    "no host": b"GET /echo HTTP/1.1\r\nA: b\r\n\r\n",
    "a host that is none": b"GET /echo HTTP/1.1\r\nHost: a b\r\n\r\n",
    "another version": b"GET /echo HTTP/2.0\r\n" + HOST + b"\r\n",
    "no version": b"GET /echo\r\n\r\n",
    "a version before versions": b"GET /echo HTTP/0.9\r\n" + HOST + b"\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": bytes.fromhex("16030100f1010000ed0303") + b"\x00" * 60 + b"\r\n\r\n",
    "a space in the target": b"GET /echo /x HTTP/1.1\r\n" + HOST + b"\r\n",
    "no target": b"GET HTTP/1.1\r\n" + HOST + b"\r\n",
}


@pytest.mark.parametrize("case", MALFORMED)
async def test_malformed(opened: Opened, case: str) -> None:
    """What is no HTTP/1.1, or could be read in two ways, is answered 400 and its connection closed: none of it is taken
    for a request. Those before it are answered."""
    request, before = MALFORMED[case], b"GET /echo/before HTTP/1.1\r\n" + HOST + b"\r\n"
    ways: list[tuple[bytes, ...]] = [(request,), tuple(pieces_of(request, 3)), (before + request,)]
    whole, in_pieces, after_another = await asyncio.gather(*(opened.send(HTTPTOOLS, *way) for way in ways))
    assert _status_lines(whole) == [b"HTTP/1.1 400 Bad Request"]
    # Whoever goes on sending may find the connection reset, and the answer gone with it.
    assert _status_lines(in_pieces) in ([b"HTTP/1.1 400 Bad Request"], [])
    assert _status_lines(after_another) == [b"HTTP/1.1 200 OK", b"HTTP/1.1 400 Bad Request"]
    assert b"smuggled" not in whole + in_pieces + after_another


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /echo HTTP/1.1\n" + HOST + b"\r\n",
        b"GET /echo HTTP/1.1\r\nHost: x\n\r\n",
        b"BREW /echo HTTP/1.1\r\n" + HOST + b"\r\n",
        b"get /echo HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /echo\xe9 HTTP/1.1\r\n" + HOST + b"\r\n",
    ],
)
async def test_stricter_than_tornado(opened: Opened, request_bytes: bytes) -> None:
    """Bare line feeds, methods that nobody knows, and targets that are not ASCII: Tornado takes them, llhttp does
    not."""
    assert _status_lines(await opened.send(HTTPTOOLS, request_bytes)) == [b"HTTP/1.1 400 Bad Request"]
    by_tornado = await opened.send(TORNADO, request_bytes, last=True)
    assert _status_lines(by_tornado)[0] != b"HTTP/1.1 400 Bad Request"


async def test_empty_lines_before_a_request(opened: Opened) -> None:
    """They are passed over (RFC 9112, section 2.2); Tornado takes two of them for a head."""
    assert _status_lines(await opened.send(HTTPTOOLS, b"\r\n\r\n" + LAST)) == [b"HTTP/1.1 200 OK"]


async def test_upgrades_are_ignored(opened: Opened) -> None:
    """A client that asks for HTTP/2 beside its request, as some do with the first on a connection, gets its answer by
    HTTP/1.1, body and all, and so do the requests after it."""
    ask = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    for body in (b"Content-Length: 2\r\n\r\nhi", b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", b"\r\n"):
        request = b"POST /echo/first HTTP/1.1\r\n" + HOST + ask + body
        for pieces in ([request + LAST], pieces_of(request + LAST, 5)):
            answer = await opened.send(HTTPTOOLS, *pieces)
            assert _status_lines(answer) == [b"HTTP/1.1 200 OK"] * 2, answer
            assert (b"b'hi'" in answer) == (body != b"\r\n")
            assert b"/echo/last" in answer


async def test_connect(opened: Opened) -> None:
    """There is no tunnel: what comes after CONNECT is not looked at."""
    smuggled = b"GET /echo/smuggled HTTP/1.1\r\n" + HOST + b"\r\n"
    answer = await opened.send(HTTPTOOLS, b"CONNECT id.example:443 HTTP/1.1\r\n" + HOST + b"\r\n" + smuggled)
    assert len(_status_lines(answer)) == 1
    assert answer.startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize("size", [100, 100_000, 3_000_000])
@pytest.mark.parametrize("path", [b"/slow", b"/echo"])
async def test_bodies(opened: Opened, path: bytes, size: int) -> None:
    """Bodies of any size, whoever takes his time over them."""
    head = b"POST %s HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n" % (path, HOST, size)
    answer = await opened.send(HTTPTOOLS, head, b"x" * size, last=True)
    assert _status_lines(answer) == [b"HTTP/1.1 200 OK"] * 2
    assert str(size).encode() in answer
    chunk = b"%x\r\n%s\r\n" % (size, b"x" * size)
    head = b"POST %s HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\n" % (path, HOST)
    answer = await opened.send(HTTPTOOLS, head, chunk, b"0\r\nTrailer: x\r\n\r\n", last=True)
    assert _status_lines(answer) == [b"HTTP/1.1 200 OK"] * 2


async def test_an_early_answer(opened: Opened) -> None:
    """Who is answered before the body was there is not read on: the connection is closed."""
    request = b"POST /hasty HTTP/1.1\r\n" + HOST + b"Content-Length: 100000\r\n\r\n" + b"x" * 10
    answer = await opened.both(request)
    assert answer.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("length", [b"3", b"5"])
async def test_a_length_that_is_wrong(opened: Opened, length: bytes, expected_logs: list[str]) -> None:
    """An answer of another length than it says closes the connection: what follows would be taken for its rest."""
    expected_logs += ["Uncaught exception GET /deceiver", "tornado.general"]
    request = b"GET /deceiver?length=%s HTTP/1.1\r\n%s\r\n" % (length, HOST)
    after = b"GET /echo/after HTTP/1.1\r\n" + HOST + b"\r\n"
    answer = await opened.send(HTTPTOOLS, request + after)
    assert b"/echo/after" not in answer


async def test_headers_with_line_breaks(opened: Opened, expected_logs: list[str]) -> None:
    """No header of an answer begins another one."""
    expected_logs += ["Uncaught exception GET /injector", "Uncaught exception HEAD /injector", "tornado.general"]
    for method in (b"GET", b"HEAD"):
        request = method + b" /injector HTTP/1.1\r\n" + HOST + b"\r\n"
        answer = await opened.send(HTTPTOOLS, request + LAST)
        assert b"Set-Cookie" not in answer
        assert b"/echo/last" not in answer  # It would be taken for the answer that could not be sent.


async def test_who_leaves(opened: Opened) -> None:
    """A handler hears of it, whether the body was there or not."""
    for path, body in ((b"/left/reading", b"x"), (b"/left/answering", b"xx")):
        Left.lost.clear()
        _, writer = await asyncio.open_connection("127.0.0.1", opened.ports[HTTPTOOLS])
        writer.write(b"POST %s HTTP/1.1\r\n%sContent-Length: 2\r\n\r\n%s" % (path, HOST, body))
        await asyncio.sleep(0.05)
        assert not Left.lost
        writer.close()
        await soon(lambda: bool(Left.lost))
        assert Left.lost == [path.decode()]
        assert opened.servers[HTTPTOOLS].connections.open == 0


async def test_who_does_not_read(opened: Opened, expected_logs: list[str]) -> None:
    """Answers wait for those who read them: they are not all in memory, and each :meth:`flush` is done when there is
    room again."""
    Endless.written = 0
    reader, writer = await asyncio.open_connection("127.0.0.1", opened.ports[HTTPTOOLS])
    writer.write(b"GET /endless HTTP/1.1\r\n" + HOST + b"\r\n")
    await asyncio.sleep(0.3)
    assert Endless.written < 50
    await reader.readuntil(b"\r\n\r\n")
    came = 0
    while came < 100 * 1024 * 1024:
        came += len(await reader.read(1 << 20))
    writer.close()
    assert Endless.written == 100
    # And one who leaves in the middle.
    expected_logs += ["Uncaught exception GET /endless", "tornado.general"]
    reader, writer = await asyncio.open_connection("127.0.0.1", opened.ports[HTTPTOOLS])
    writer.write(b"GET /endless HTTP/1.1\r\n" + HOST + b"\r\n")
    await reader.readexactly(1 << 20)
    writer.transport.abort()
    writer.close()
    await asyncio.sleep(0.1)
    assert Endless.written < 200
    assert opened.servers[HTTPTOOLS].connections.open <= 1


@pytest.mark.parametrize(
    "endless",
    [
        b"GET /echo HTTP/1.1\r\nA: " + b"x" * 200_000,
        b"GET /" + b"x" * 200_000,
        b"\r\n" * 100_000,
        b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nA: " + b"x" * 200_000,
        b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n3;" + b"x" * 200_000,
        b"POST /echo HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: a\r\nA: " + b"x" * 200_000,
    ],
)
async def test_what_never_ends(opened: Opened, endless: bytes) -> None:
    """Heads, trailers and chunk extensions without an end are hung up on, not kept."""
    assert not _status_lines(await opened.send(HTTPTOOLS, endless))


async def test_many_at_once(opened: Opened) -> None:
    """Requests that are sent without waiting are answered one after the other, in their order."""
    requests = b"".join(b"GET /echo/%d HTTP/1.1\r\n%s\r\n" % (number, HOST) for number in range(3000))
    answer = await opened.send(HTTPTOOLS, requests, last=True)
    numbers = [int(part.split(b"'", 1)[0]) for part in answer.split(b"/echo/")[1:-1]]
    assert numbers == list(range(3000))


async def test_no_more_connections() -> None:
    """More than it may have: the one that has waited longest is closed for a new one."""
    each = Opened()
    await each.open(replace(SETTINGS, max_connections=2))
    try:
        streams = [await asyncio.open_connection("127.0.0.1", each.ports[HTTPTOOLS]) for _ in range(3)]
        assert await asyncio.wait_for(streams[0][0].read(), 2) == b""
        for reader, writer in streams[1:]:
            writer.write(SAME["get"])
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
        for _, writer in streams:
            writer.close()
    finally:
        await each.close()


async def test_who_asks_and_does_not_read(opened: Opened) -> None:
    """Requests that were sent without waiting are not begun while nobody takes the answers of those before."""
    Large.answered = 0
    reader, writer = await asyncio.open_connection("127.0.0.1", opened.ports[HTTPTOOLS])
    writer.write((b"GET /large HTTP/1.1\r\n" + HOST + b"\r\n") * 500)
    await asyncio.sleep(0.5)
    assert Large.answered < 200
    writer.write(LAST)
    came = b""
    while more := await asyncio.wait_for(reader.read(1 << 20), 5):
        came += more
    assert len(_status_lines(came)) == 501
    writer.close()


async def test_what_is_sent_without_waiting(opened: Opened) -> None:
    """Little of it is taken while something is being answered: the rest waits with whoever sends it."""
    _, writer = await asyncio.open_connection("127.0.0.1", opened.ports[HTTPTOOLS])
    writer.write(b"POST /left HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n" + SAME["get"] * 10_000)
    server = cast(HttptoolsServer, opened.servers[HTTPTOOLS])
    await soon(lambda: server.connections.open == 1)
    [connection] = server.connections
    await soon(lambda: bool(connection._came))
    await asyncio.sleep(0.1)
    assert len(connection._came) < 1000
    writer.transport.abort()


async def test_who_fails_twice(opened: Opened, expected_logs: list[str]) -> None:
    """A handler that fails at a body, and at hearing of the end as well, leaves no connection open, and the next
    request on it no answer in its place."""
    expected_logs += ["request failed", "Exception in callback", "tornado.application"]
    request = b"POST /failing HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\nhi"
    answer = await asyncio.wait_for(opened.both(request + LAST), 5)
    assert answer == b""
    assert opened.servers[HTTPTOOLS].connections.open == 0


async def test_a_body_that_a_handler_calls_malformed(opened: Opened, expected_logs: list[str]) -> None:
    """It is answered 400, also by who had to wait to find out."""
    expected_logs += ["Exception in callback", "tornado.application"]
    request = b"POST /failing?malformed=1 HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\nhi"
    for kind in (TORNADO, HTTPTOOLS):
        assert _status_lines(await opened.send(kind, request)) == [b"HTTP/1.1 400 Bad Request"]


async def test_who_does_not_wait_for_a_client(opened: Opened) -> None:
    """One flush that is given up cancels none after it."""
    Impatient.ended.clear()
    _, writer = await asyncio.open_connection("127.0.0.1", opened.ports[HTTPTOOLS])
    writer.write(b"GET /impatient HTTP/1.1\r\n" + HOST + b"\r\n")
    await soon(lambda: len(Impatient.ended) == 2)
    writer.transport.abort()
    assert Impatient.ended == ["TimeoutError", "TimeoutError"]


async def test_tiny_chunks(opened: Opened) -> None:
    """A handler is not called for each of them, and does not keep each by itself."""
    head = b"POST /slow?pieces=1 HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    answer = await opened.send(HTTPTOOLS, head + b"2\r\nxx\r\n" * 50_000 + b"0\r\n\r\n", last=True)
    assert _status_lines(answer) == [b"HTTP/1.1 200 OK"] * 2
    assert b"\r\n100000" in answer
    pieces = re.search(rb"X-Pieces: ([0-9]+)", answer)
    assert pieces is not None
    assert int(pieces[1]) < 200


async def test_who_is_not_known(opened: Opened) -> None:
    """Whoever is gone before he is known, as with uvloop who resets the connection at once, is not heard."""

    class Reset(asyncio.Transport):
        is_aborted = False

        def get_extra_info(self, name: str, default: Any = None) -> Any:
            return default

        def abort(self) -> None:
            self.is_aborted = True

    server, transport = opened.servers[HTTPTOOLS], Reset()
    connection = _Connection(cast(HttptoolsServer, server))
    connection.connection_made(transport)
    connection.get_buffer(-1)[: len(SAME["get"])] = SAME["get"]
    connection.buffer_updated(len(SAME["get"]))
    assert transport.is_aborted
    assert connection.exchange is None
    assert server.connections.open == 0


async def test_what_is_over_is_freed(opened: Opened) -> None:
    """Without the collector: requests leave no cycles."""
    gc.collect()
    gc.disable()
    try:
        await opened.send(HTTPTOOLS, SAME["get"] * 20, last=True)
        assert sum(isinstance(each, _Exchange) for each in gc.get_objects()) < 5
    finally:
        gc.enable()


async def test_a_flood_of_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are too many do not take the descriptors of others before they are closed."""
    each, clients = Opened(), []
    await each.open(replace(SETTINGS, max_connections=10))
    most, connections = 0, each.servers[HTTPTOOLS].connections
    have_room = connections.have_room

    def counted() -> bool:
        nonlocal most
        most = max(most, sum(1 for _ in Path("/proc/self/fd").iterdir()))
        return have_room()

    monkeypatch.setattr(connections, "have_room", counted)
    try:
        for _ in range(300):
            client = socket.socket()
            clients.append(client)
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", each.ports[HTTPTOOLS]))
        before = sum(1 for _ in Path("/proc/self/fd").iterdir())
        await soon(lambda: most > before)
        await asyncio.sleep(0.3)
        assert most < before + 100
    finally:
        for client in clients:
            client.close()
        await each.close()


async def test_the_end(opened: Opened) -> None:
    """Once it is stopped nobody gets in, and answers are their connection's last."""
    server = opened.servers[HTTPTOOLS]
    reader, writer = await asyncio.open_connection("127.0.0.1", opened.ports[HTTPTOOLS])
    writer.write(SAME["get"])
    assert b"Connection: close" not in await reader.readuntil(b"\r\n\r\n")
    server.stop()
    await asyncio.sleep(0.05)
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", opened.ports[HTTPTOOLS])
    writer.write(SAME["get"])
    assert b"Connection: close" in await reader.read()
    writer.close()


async def test_a_unix_socket(tmp_path: Any) -> None:
    """Whoever connects by a Unix socket is called as Tornado calls him."""
    server, path = server_of(HTTPTOOLS), str(tmp_path / "socket")
    await server.listen([bind_unix_socket(path)])
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(SAME["close"])
    assert b"'0.0.0.0'" in await reader.read()
    writer.close()
    server.stop()
    await server.close_all_connections()
    assert Path(path).exists()  # It is whoever's who bound it.


async def test_ipv6() -> None:
    server = server_of(HTTPTOOLS)
    try:
        sockets = bind_sockets(0, "::1", family=socket.AF_INET6)
    except OSError:
        lacking("this machine has no IPv6")
    await server.listen(sockets)
    reader, writer = await asyncio.open_connection("::1", sockets[0].getsockname()[1])
    writer.write(SAME["close"])
    assert b"'::1'" in await reader.read()
    writer.close()
    server.stop()
    await server.close_all_connections()
