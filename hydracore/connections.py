"""The connections of one worker: no more than it can have, and none that keeps its place by doing nothing."""

import asyncio
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from tornado.http1connection import HTTP1Connection, HTTP1ServerConnection
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPConnection, HTTPMessageDelegate, HTTPServerRequest
from tornado.iostream import IOStream

from hydracore.config import Server

_BUFFER = 1024 * 1024
_ANY_BODY = 1 << 50
_OTHER_FILES = 128  # The database's connections, mail's, logs.
_LOOK_EVERY = 1.0
_CLOSE_EVERY = 0.1
# Tornado closes a connection without an answer where a header is longer than it may be: this much longer it is still
# read, and endpoints answer 431.
_READ_HEADERS = 4


Requests = Callable[[], list[HTTPServerRequest]]


@dataclass(slots=True)
class _Since:
    """When the connection was free for a request, when that one's first byte came, and when the kernel would take no
    more of an answer; 0: they have not."""

    free: float
    begun: float = 0.0
    stuck: float = 0.0


class Connections(HTTPServer):
    """Tornado's server over ``application``, held to ``settings``. ``in_flight`` are the requests whose heads are
    there, until they are answered; ``receiving`` those of them whose bodies are not."""

    def initialize(  # type: ignore[override]  # what the constructor takes is ours to say
        self, application: Any, *, settings: Server, in_flight: Requests, receiving: Requests, **kwargs: Any
    ) -> None:
        self._settings = settings
        self._in_flight = in_flight
        self._receiving = receiving
        # In the order in which they were last heard of.
        self._streams: dict[IOStream, _Since] = {}
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _OTHER_FILES
        self._most = min(files, settings.max_connections or files)
        super().initialize(
            application,
            max_header_size=settings.max_header * _READ_HEADERS,
            max_buffer_size=_BUFFER,
            max_body_size=_ANY_BODY,  # Endpoints bound their bodies themselves, with an answer.
            **kwargs,
        )
        # Time is taken in close_late, for all of them at once: a timer for each head and each body costs a tenth of
        # what a request does.
        self.conn_params.header_timeout = None

    @property
    def open(self) -> int:
        """How many there are."""
        return len(self._streams)

    # -- what comes ------------------------------------------------------------------------------

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        # Out of descriptors accept() would fail at once, again and again, and the loop do nothing else.
        if len(self._streams) >= self._most and not self._make_room():
            stream.close()
            return
        self._watch(stream)
        super().handle_stream(stream, address)

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        stream = cast(HTTP1Connection, request_conn).stream
        since = self._streams.pop(stream, None)
        if since is not None:
            # The next request may have begun to come during the last one; no public name tells.
            begun = bool(getattr(stream, "_read_buffer_size", 0))
            since.free = asyncio.get_running_loop().time()
            since.begun = since.free if begun else 0.0
            self._streams[stream] = since
        return super().start_request(server_conn, request_conn)

    def _watch(self, stream: IOStream) -> None:
        """Note when a request begins to come: Tornado knows one limit for that and for waiting."""
        read, time = stream.read_from_fd, asyncio.get_running_loop().time
        since = self._streams[stream] = _Since(time())

        def noted(buffer: bytearray | memoryview) -> int | None:
            count = read(buffer)
            if count and not since.begun:
                since.begun = time()
                if self._streams.pop(stream, None):  # It has waited for long enough.
                    self._streams[stream] = since
            return count

        setattr(stream, "read_from_fd", noted)  # noqa: B010  # mypy takes no assignment to a method

    def on_close(self, server_conn: object) -> None:
        self._streams.pop(cast(HTTP1ServerConnection, server_conn).stream, None)
        super().on_close(server_conn)

    # -- what goes -------------------------------------------------------------------------------

    async def close_late(self) -> None:
        """Close, until cancelled, each connection that has waited for a request for too long, whose request's head or
        body is not there in time, or whose client does not take its answer."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            now, busy = asyncio.get_running_loop().time(), _streams(self._in_flight())
            for stream, since in list(self._streams.items()):
                since.stuck = (since.stuck or now) if stream.writing() else 0.0
                if self._is_late(since, now, busy=stream in busy):
                    stream.close()
            late = [request for request in self._receiving() if request.request_time() > self._settings.body_timeout]
            for stream in _streams(late):
                stream.close()

    def _is_late(self, since: _Since, now: float, *, busy: bool) -> bool:
        if since.stuck:
            return now - since.stuck > self._settings.send_timeout
        if busy:
            return False
        if since.begun:
            return now - since.begun > self._settings.header_timeout
        return now - since.free > self._settings.idle_timeout

    async def close_idle(self) -> None:
        """Close, until cancelled, every connection that no request of is being answered."""
        while True:
            await asyncio.sleep(_CLOSE_EVERY)
            self.close_idle_now()

    def close_idle_now(self) -> None:
        """After this, no request begins that was not on its way."""
        for stream in list(self._idle()):
            stream.close()

    def _make_room(self) -> bool:
        """The one that has waited longest for a request makes room for a new one, and where none waits, the one whose
        request has been on its way longest; one at work does not."""
        stream = next(self._idle(), None) or next(self._incoming(), None)
        if stream is None:
            return False
        del self._streams[stream]
        stream.close()
        return True

    def _idle(self) -> Iterator[IOStream]:
        busy = _streams(self._in_flight())
        return (stream for stream in self._streams if stream not in busy and not stream.writing())

    def _incoming(self) -> Iterator[IOStream]:
        incoming = _streams(self._receiving())
        return (stream for stream in self._streams if stream in incoming)


def _streams(requests: list[HTTPServerRequest]) -> set[IOStream]:
    return {cast(HTTP1Connection, request.connection).stream for request in requests}
