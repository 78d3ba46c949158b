"""HTTP/1.1 for a Tornado application without Tornado's parser: asyncio's transports, and llhttp by httptools.

What comes is read by llhttp in its strict mode, and what Tornado's own server takes for malformed is refused here too.
The application notices no difference: it is driven through Tornado's public interfaces,
:class:`~tornado.httputil.HTTPServerConnectionDelegate` and :class:`~tornado.httputil.HTTPConnection`. There is no
``detach``, and so there are no web sockets.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from tornado.http1connection import is_transfer_encoding_chunked
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPInputError,
    HTTPMessageDelegate,
    HTTPOutputError,
    HTTPServerConnectionDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import StreamClosedError

from hydracore.config import Server
from hydracore.connections import READ_HEADERS, Connections
from hydracore.logs import logger

log = logger("hydracore.server")

# So much is read and parsed at once, while none of it waits: a request of twenty bytes becomes objects of a thousand,
# and what a client has sent without waiting is better left in the kernel, which lets it send no more.
_READ = 16 * 1024
_BACKLOG = 1024
# asyncio accepts so many before it tells of the first: each is a descriptor that nobody has counted.
_AT_ONCE = 16
_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_VERSIONS = ("1.0", "1.1")
_FRAMING = (b"content-length", b"transfer-encoding")
_WITHOUT_BODY = (204, 304)
_NOBODY = HTTPMessageDelegate()


@dataclass(slots=True)
class _Head:
    """What begins a request."""

    target: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    method: str = ""
    version: str = ""
    keep_alive: bool = False


class _Mark(Enum):
    END = auto()
    """A request is whole."""
    MALFORMED = auto()
    """What comes is no HTTP/1.1, from here on."""


@dataclass(frozen=True, slots=True)
class _Peer:
    """Whom a connection is with, as Tornado's requests ask for it."""

    remote_ip: str
    protocol: str = "http"

    def __str__(self) -> str:
        return self.remote_ip


class HttptoolsServer:
    """A server of HTTP/1.1 for ``application``, held to ``settings``."""

    def __init__(self, application: HTTPServerConnectionDelegate, *, settings: Server) -> None:
        self.application = application
        self.most_unread = settings.max_header * READ_HEADERS
        self.keeps_alive = True
        self.buffer = memoryview(bytearray(_READ))
        """What has just come, whichever connection it is of: it is parsed before anything else is read."""
        self.connections: Connections[_Connection] = Connections(settings, self._busy, self._receiving)
        self._servers: list[asyncio.Server] = []

    async def listen(self, sockets: Iterable[socket.socket]) -> None:
        """Take connections from ``sockets``, from now on."""
        loop = asyncio.get_running_loop()
        for each in sockets:
            # Unix sockets as well: create_unix_server would remove a file that is not ours, from Python 3.13 on.
            self._servers.append(await loop.create_server(lambda: _Connection(self), sock=each, backlog=_AT_ONCE))
            each.listen(_BACKLOG)

    def stop(self) -> None:
        """Take no more connections; the answers that are still to be given are their connections' last."""
        self.keeps_alive = False
        for server in self._servers:
            server.close()

    async def close_all_connections(self) -> None:
        """Close them all now."""
        for connection in self.connections:
            connection.close()
        await asyncio.sleep(0)

    def _busy(self) -> set["_Connection"]:
        return {connection for connection in self.connections if connection.exchange is not None}

    def _receiving(self) -> Iterable[tuple["_Connection", float]]:
        now = asyncio.get_running_loop().time()
        for connection in self.connections:
            exchange = connection.exchange
            if exchange is not None and not exchange.is_read:
                yield connection, now - exchange.began


class _Connection(asyncio.BufferedProtocol):
    """One connection: what comes is taken apart, and its requests are answered one after the other."""

    exchange: "_Exchange | None" = None
    """The request that is being received or answered."""

    def __init__(self, server: HttptoolsServer) -> None:
        self.server = server
        self._parser = HttpRequestParser(self)
        self._head: _Head | None = None
        self._upgraded = False
        self._is_resumed = False
        self._came: deque[_Head | bytearray | _Mark] = deque()
        # Bytes since something was understood: heads, trailers and the like have no other bound.
        self._unread = 0
        self._is_deaf = False
        self._is_paused = False
        self._is_working = False
        self._is_closed = False
        self._waiting: asyncio.Future[Any] | None = None
        # Who waits for room to write; None while there is some.
        self._drained: list[asyncio.Future[None]] | None = None

    # -- the transport -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._loop = asyncio.get_running_loop()
        self._at_once: asyncio.Future[None] = self._loop.create_future()
        self._at_once.set_result(None)
        peer = transport.get_extra_info("peername")
        if peer is None:
            # uvloop asks the kernel, which no longer knows who reset the connection; what it sent can still be read.
            self.close()
            return
        self.peer = _Peer(peer[0] if isinstance(peer, tuple) else "0.0.0.0")  # noqa: S104  # as Tornado calls the peer of a Unix socket
        if self.server.connections.have_room():
            self.server.connections.add(self)
        else:
            self.close()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.server.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.server.connections.heard(self)
        if not self._is_deaf:
            self._parse(bytes(self.server.buffer[:nbytes]))
            self._work()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._is_closed = self._is_deaf = True
        self.server.connections.remove(self)
        self._came.clear()
        for drained in self._drained or ():
            if not drained.done():
                _fail(drained)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.lost()

    def pause_writing(self) -> None:
        self._drained = []

    def resume_writing(self) -> None:
        waiting, self._drained = self._drained, None
        for drained in waiting or ():
            if not drained.done():
                drained.set_result(None)
        # Not at once: the transport is in the middle of its own work, and must not be closed there.
        self._loop.call_soon(self._work)

    # -- what Connections asks -----------------------------------------------------------------

    def close(self) -> None:
        self._is_closed = self._is_deaf = True
        self._transport.abort()

    def writing(self) -> bool:
        return self._transport.get_write_buffer_size() > 0

    # -- the parser's callbacks: what comes is put in a row ------------------------------------

    def on_url(self, url: bytes) -> None:
        if self._head is None:
            self._head = _Head()
        self._head.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head is not None:  # Trailers are nobody's.
            self._head.headers.append((name, value))

    def on_headers_complete(self) -> None:
        head, self._head = self._head, None
        if self._is_resumed or head is None:
            self._is_resumed = False
            return
        parser = self._parser
        head.method, head.version = parser.get_method().decode("ascii"), parser.get_http_version()
        self._upgraded = parser.should_upgrade()
        head.keep_alive = parser.should_keep_alive() and head.method != "CONNECT"
        self._add(head)
        if self._upgraded:
            self._asked = head

    def on_body(self, body: bytes) -> None:
        if self._came and isinstance(self._came[-1], bytearray):
            self._came[-1] += body  # What chunks a client makes is nobody's concern, and each would be a call.
        else:
            self._add(bytearray(body))

    def on_message_complete(self) -> None:
        if not self._upgraded:
            self._add(_Mark.END)

    def _add(self, what: "_Head | bytearray | _Mark") -> None:
        self._unread = 0
        self._came.append(what)

    def _parse(self, data: bytes) -> None:
        self._unread += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            self._go_on_without_upgrade(data[upgrade.args[0] :])
        except HttpParserError as error:
            log.info("malformed request", client=str(self.peer), reason=str(error))
            self._add(_Mark.MALFORMED)
            self._is_deaf = True
        if self._unread > self.server.most_unread:
            self.close()

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        """Nothing is upgraded to (RFC 9110, section 7.8: a server may ignore it), and llhttp reads no body after a
        request that asks for that: a new parser is told what is to come."""
        self._upgraded = False
        head = self._asked
        if head.method == "CONNECT":
            self._add(_Mark.END)
            self._is_deaf = True
            return
        self._parser, self._is_resumed = HttpRequestParser(self), True
        framing = b"".join(b"%s: %s\r\n" % each for each in head.headers if each[0].lower() in _FRAMING)
        self._parse(b"POST / HTTP/1.1\r\n%s\r\n%s" % (framing, rest))

    # -- the requests, one after the other ----------------------------------------------------

    def _work(self) -> None:
        """Do what can be done with what came: until nothing is left, or something has to be waited for."""
        if self._is_working:
            return
        self._is_working = True
        try:
            while self._came and not self._is_closed and self._waiting is None:
                if self._drained is not None if self.exchange is None else self.exchange.is_read:
                    break  # What is being answered comes before the next, and so does what nobody takes yet.
                self._take(self._came.popleft())
        finally:
            self._is_working = False
        self._read_on(not self._came)

    def _read_on(self, wanted: bool) -> None:
        if self._is_closed or self._transport.is_closing() or wanted is not self._is_paused:
            return
        self._is_paused = not wanted
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _take(self, what: "_Head | bytearray | _Mark") -> None:
        try:
            if isinstance(what, _Head):
                self._begin(what)
            elif what is _Mark.MALFORMED:
                self._refuse()
            elif self.exchange is not None:
                if isinstance(what, bytearray):
                    self.exchange.data_received(bytes(what))
                else:
                    self.exchange.end()
        except HTTPInputError:
            log.info("malformed request", client=str(self.peer))  # Its words quote what came.
            self._refuse()
        except Exception:
            log.exception("request failed")
            self._end()

    def _begin(self, head: _Head) -> None:
        if head.version not in _VERSIONS:
            raise HTTPInputError("neither HTTP/1.0 nor HTTP/1.1")
        headers = HTTPHeaders()
        for name, value in head.headers:
            headers.add(name.decode("latin-1"), value.decode("latin-1").strip(" \t"))
        if "Transfer-Encoding" in headers:
            is_transfer_encoding_chunked(headers)  # Or it is malformed.
        start_line = RequestStartLine(head.method, head.target.decode("latin-1"), f"HTTP/{head.version}")
        exchange = self.exchange = _Exchange(self, start_line, headers, keep_alive=head.keep_alive)
        exchange.begin(self.server.application.start_request(self, exchange))

    def wait_for(self, answer: Awaitable[None] | None, then: Callable[[], None]) -> None:
        """Take nothing of what comes until the application has what it was given."""
        waiting = None if answer is None else asyncio.ensure_future(answer)
        if waiting is None or (waiting.done() and not waiting.cancelled() and waiting.exception() is None):
            then()
            return
        self._waiting = waiting

        def go_on(done: "asyncio.Future[Any]") -> None:
            self._waiting = None
            if done.cancelled() or (error := done.exception()) is not None:
                if not done.cancelled() and isinstance(error, HTTPInputError):
                    self._refuse()
                    return
                log.error("request failed", exc_info=None if done.cancelled() else error)
                self._end()
                return
            then()
            self._work()

        waiting.add_done_callback(go_on)

    def answered(self, *, keep_alive: bool) -> None:
        """The exchange is over: what it wrote is on its way."""
        self.exchange = None
        if self._is_closed:
            return
        if not keep_alive:
            self._hang_up()
            return
        self.server.connections.free(self, begun=bool(self._came or self._head))
        if self._waiting is None:
            self._work()

    def _refuse(self) -> None:
        """Answer 400, unless an answer has begun, and hang up."""
        if self.exchange is None or not self.exchange.has_begun:
            self._transport.write(_BAD_REQUEST)
        self._end()

    def _end(self) -> None:
        exchange, self.exchange = self.exchange, None
        self._hang_up()  # First: whoever hears of it may raise.
        if exchange is not None:
            exchange.lost()

    def _hang_up(self) -> None:
        """Close the connection when all that was written is on its way."""
        self._is_deaf = True
        self._came.clear()
        self._transport.close()

    # -- what is answered ----------------------------------------------------------------------

    def write(self, data: bytes) -> "asyncio.Future[None]":
        """Done once the transport has room for more; :class:`StreamClosedError` where nobody is there any more."""
        if self._is_closed:
            return _fail(self._loop.create_future())
        self._transport.write(data)
        if self._drained is None:
            return self._at_once
        # Each its own: who gives up waiting cancels it.
        drained = self._loop.create_future()
        self._drained.append(drained)
        return drained


class _Exchange(HTTPConnection):
    """A request and its answer, as a Tornado application sees them."""

    def __init__(
        self, connection: _Connection, start_line: RequestStartLine, headers: HTTPHeaders, *, keep_alive: bool
    ) -> None:
        self.context = connection.peer
        self.began = asyncio.get_running_loop().time()
        self.is_read = False
        """Whether all of it has come."""
        self.has_begun = False
        """Whether something was answered."""
        self._delegate = _NOBODY  # Until there is one that has heard of it.
        self._connection = connection
        self._start_line = start_line
        self._headers = headers
        self._keep_alive = keep_alive
        self._is_finished = False
        self._is_chunked = False
        self._left: int | None = None
        """How much is to be written, where that was said."""
        self._when_lost: Callable[[], None] | None = None

    # -- what comes --------------------------------------------------------------------------

    def begin(self, delegate: HTTPMessageDelegate) -> None:
        waiting = delegate.headers_received(self._start_line, self._headers)
        if not self._is_finished:
            self._delegate = delegate
        self._connection.wait_for(waiting, self._go_ahead)

    def _go_ahead(self) -> None:
        expected = self._headers.get("Expect", "").lower() == "100-continue"
        if expected and self._start_line.version == "HTTP/1.1" and not self.has_begun and not self._is_finished:
            self._connection.write(_CONTINUE)

    def data_received(self, chunk: bytes) -> None:
        if not self._is_finished:
            self._connection.wait_for(self._delegate.data_received(chunk), _nothing)

    def end(self) -> None:
        self.is_read = True
        if not self._is_finished:
            self._delegate.finish()

    def lost(self) -> None:
        """Nobody is there any more."""
        was_read, self.is_read = self.is_read, True
        if self._is_finished:
            return
        delegate, self._delegate = self._delegate, _NOBODY
        when_lost, self._when_lost = self._when_lost, None
        if not was_read:
            delegate.on_connection_close()
        elif when_lost is not None:
            when_lost()

    # -- what is answered: tornado.httputil.HTTPConnection -------------------------------------

    def set_close_callback(self, callback: Callable[[], None] | None) -> None:
        self._when_lost = callback

    def write_headers(
        self,
        start_line: RequestStartLine | ResponseStartLine,
        headers: HTTPHeaders,
        chunk: bytes | None = None,
    ) -> "asyncio.Future[None]":
        code, method, is_1_1 = start_line[1], self._start_line.method, self._start_line.version == "HTTP/1.1"
        has_body = method != "HEAD" and code not in _WITHOUT_BODY
        is_sized = "Content-Length" in headers
        self._is_chunked = has_body and is_1_1 and not is_sized
        self._keep_alive = (
            self._keep_alive
            and self._connection.server.keeps_alive
            and (is_1_1 or is_sized or not has_body)
            and headers.get("Connection", "").lower() != "close"
        )
        if is_1_1 != self._keep_alive:  # What goes without saying is not said.
            headers["Connection"] = "close" if is_1_1 else "Keep-Alive"
        if self._is_chunked:
            headers["Transfer-Encoding"] = "chunked"
        if not has_body:
            self._left = 0
        elif is_sized:
            self._left = int(headers["Content-Length"])
        lines = [f"HTTP/1.1 {code} {start_line[2]}", *(f"{name}: {value}" for name, value in headers.get_all())]
        text = "\r\n".join([*lines, "", ""])
        if not text.isascii() and max(text) > "\xff":
            self._connection.close()  # Tornado's handlers end their answers nevertheless: the next is not to be this.
            raise ValueError("a header is not Latin-1")
        if text.count("\r") != len(lines) + 1 or text.count("\n") != len(lines) + 1:
            self._connection.close()
            raise ValueError("a header has a line break")
        self.has_begun = True
        return self._connection.write(text.encode("latin-1") + (self._framed(chunk) if chunk else b""))

    def write(self, chunk: bytes) -> "asyncio.Future[None]":
        return self._connection.write(self._framed(chunk))

    def finish(self) -> None:
        if self._left:
            self._connection.close()
            raise HTTPOutputError(f"{self._left} bytes fewer than Content-Length")
        if self._is_chunked:
            self._connection.write(b"0\r\n\r\n")
        self._is_finished = True
        self._delegate = _NOBODY  # It refers to this: the collector would have to find out.
        # Who is not done sending is not read to the end.
        self._connection.answered(keep_alive=self._keep_alive and self.is_read)

    def _framed(self, chunk: bytes) -> bytes:
        if self._left is not None:
            self._left -= len(chunk)
            if self._left < 0:
                self._connection.close()
                raise HTTPOutputError("more bytes than Content-Length")
        return b"%x\r\n%s\r\n" % (len(chunk), chunk) if self._is_chunked and chunk else chunk


def _nothing() -> None:
    """Go on."""


def _fail(future: "asyncio.Future[None]") -> "asyncio.Future[None]":
    future.set_exception(StreamClosedError())
    future.exception()  # Nobody has to ask for it.
    return future
