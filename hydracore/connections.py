"""The connections of one worker: no more than it can have, and none that keeps its place by doing nothing."""

import asyncio
import resource
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, cast

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
# A connection is closed without an answer where a head is longer than it may be: this much longer it is still read, and
# endpoints answer 431.
READ_HEADERS = 4


class Kept(Protocol):
    """A connection, as :class:`Connections` knows it."""

    def close(self) -> None:
        """Close it now, whatever has not been sent."""

    def writing(self) -> bool:
        """Whether there is something that the kernel has not taken yet."""


K = TypeVar("K", bound=Kept)


class Listening(Protocol):
    """A server, as the process model knows it."""

    connections: "Connections[Any]"

    async def listen(self, sockets: Iterable[Any]) -> None:
        """Take connections from ``sockets``."""

    def stop(self) -> None:
        """Take no more connections; the answers that are still to be given are their connections' last."""

    async def close_all_connections(self) -> None:
        """Close them all now."""


@dataclass(slots=True)
class _Since:
    """When the connection was free for a request, when that one's first byte came, and when the kernel would take no
    more of an answer; 0: they have not."""

    free: float
    begun: float = 0.0
    stuck: float = 0.0


class Connections(Generic[K]):
    """Those of one server, held to ``settings``. ``busy`` are those that have a request whose head is there and whose
    answer has not been given; ``receiving`` those of them whose body is on its way, with the seconds since the head."""

    def __init__(
        self,
        settings: Server,
        busy: Callable[[], Container[K]],
        receiving: Callable[[], Iterable[tuple[K, float]]],
    ) -> None:
        self._settings = settings
        self._busy = busy
        self._receiving = receiving
        # In the order in which they were last heard of.
        self._all: dict[K, _Since] = {}
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _OTHER_FILES
        self._most = min(files, settings.max_connections or files)

    @property
    def open(self) -> int:
        """How many there are."""
        return len(self._all)

    def __iter__(self) -> Iterator[K]:
        return iter(list(self._all))

    # -- what comes ------------------------------------------------------------------------------

    def have_room(self) -> bool:
        """Whether one more may be :meth:`added <add>`: out of descriptors accept() would fail at once, again and again,
        and the loop do nothing else."""
        return len(self._all) < self._most or self._make_room()

    def add(self, connection: K) -> None:
        """It waits for its first request from now on."""
        self._all[connection] = _Since(asyncio.get_running_loop().time())

    def heard(self, connection: K) -> None:
        """Something came; where nothing had come before, a request has begun."""
        since = self._all.get(connection)
        if since is not None and not since.begun:
            since.begun = asyncio.get_running_loop().time()
            self._to_the_end(connection)  # It has waited for long enough.

    def free(self, connection: K, *, begun: bool) -> None:
        """Its request has been answered; the next one may have ``begun`` to come meanwhile."""
        since = self._all.get(connection)
        if since is not None:
            since.free = asyncio.get_running_loop().time()
            since.begun = since.free if begun else 0.0
            self._to_the_end(connection)

    def remove(self, connection: K) -> None:
        """It is closed."""
        self._all.pop(connection, None)

    def _to_the_end(self, connection: K) -> None:
        self._all[connection] = self._all.pop(connection)

    # -- what goes -------------------------------------------------------------------------------

    async def close_late(self) -> None:
        """Close, until cancelled, each connection that has waited for a request for too long, whose request's head or
        body is not there in time, or whose client does not take its answer."""
        while True:
            # For all of them at once: a timer for each head and each body costs a tenth of what a request does.
            await asyncio.sleep(_LOOK_EVERY)
            now, busy = asyncio.get_running_loop().time(), self._busy()
            for connection, since in list(self._all.items()):
                since.stuck = (since.stuck or now) if connection.writing() else 0.0
                if self._is_late(since, now, busy=connection in busy):
                    connection.close()
            for connection, seconds in list(self._receiving()):
                if seconds > self._settings.body_timeout:
                    connection.close()

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
        for connection in list(self._idle()):
            connection.close()

    def _make_room(self) -> bool:
        """The one that has waited longest for a request makes room for a new one, and where none waits, the one whose
        request has been on its way longest; one at work does not."""
        connection = next(self._idle(), None) or next(self._incoming(), None)
        if connection is None:
            return False
        del self._all[connection]
        connection.close()
        return True

    def _idle(self) -> Iterator[K]:
        busy = self._busy()
        return (connection for connection in self._all if connection not in busy and not connection.writing())

    def _incoming(self) -> Iterator[K]:
        incoming = {connection for connection, _ in self._receiving()}
        return (connection for connection in self._all if connection in incoming)


Requests = Callable[[], list[HTTPServerRequest]]


class TornadoServer(HTTPServer):
    """Tornado's own server over ``application``. ``in_flight`` are the requests whose heads are there, until they are
    answered; ``receiving`` those of them whose bodies are not."""

    def initialize(  # type: ignore[override]  # what the constructor takes is ours to say
        self, application: Any, *, settings: Server, in_flight: Requests, receiving: Requests
    ) -> None:
        self.connections: Connections[IOStream] = Connections(
            settings,
            lambda: {_stream(request) for request in in_flight()},
            lambda: ((_stream(request), request.request_time()) for request in receiving()),
        )
        super().initialize(
            application,
            max_header_size=settings.max_header * READ_HEADERS,
            max_buffer_size=_BUFFER,
            max_body_size=_ANY_BODY,  # Endpoints bound their bodies themselves, with an answer.
        )
        self.conn_params.header_timeout = None  # Time is taken in close_late.

    async def listen(self, sockets: Iterable[Any]) -> None:  # type: ignore[override]  # sockets there are already
        self.add_sockets(sockets)

    def stop(self) -> None:
        super().stop()
        self.conn_params.no_keep_alive = True  # Answers say Connection: close.

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        if not self.connections.have_room():
            stream.close()
            return
        self.connections.add(stream)
        self._watch(stream)
        super().handle_stream(stream, address)

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        stream = cast(HTTP1Connection, request_conn).stream
        # The next request may have begun to come during the last one; no public name tells.
        self.connections.free(stream, begun=bool(getattr(stream, "_read_buffer_size", 0)))
        return super().start_request(server_conn, request_conn)

    def _watch(self, stream: IOStream) -> None:
        """Note when a request begins to come: Tornado knows one limit for that and for waiting."""
        read, heard = stream.read_from_fd, self.connections.heard

        def noted(buffer: bytearray | memoryview) -> int | None:
            count = read(buffer)
            if count:
                heard(stream)
            return count

        setattr(stream, "read_from_fd", noted)  # noqa: B010  # mypy takes no assignment to a method

    def on_close(self, server_conn: object) -> None:
        self.connections.remove(cast(HTTP1ServerConnection, server_conn).stream)
        super().on_close(server_conn)


def _stream(request: HTTPServerRequest) -> IOStream:
    return cast(HTTP1Connection, request.connection).stream
