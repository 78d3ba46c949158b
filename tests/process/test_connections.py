"""What a client may hold on to: connections, requests, time. Real sockets against a real server."""

import json
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from processes import LOGIN, Server, StartServer, until


@pytest.fixture(params=["tornado", "httptools"])
def start(start: StartServer, request: pytest.FixtureRequest) -> StartServer:
    """Either server holds clients to the same bounds."""

    def started(**environment: str) -> Server:
        return start(HYDRACORE_SERVER__HTTP=request.param, **environment)

    return started


LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


def connect(server: Server) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.settimeout(30)
    return connection


def closed_after(connection: socket.socket) -> float:
    """Seconds until the other side closes, whatever it says before."""
    started = time.monotonic()
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    return time.monotonic() - started


def test_a_head_that_never_ends(start: StartServer) -> None:
    """A request whose head is not there in time loses its connection, however steadily it trickles in; one that
    waits for its next request keeps it."""
    server = start(HYDRACORE_SERVER__HEADER_TIMEOUT="1")
    with connect(server) as trickling, connect(server) as begun, connect(server) as idle:
        idle.sendall(LIVE)
        assert idle.recv(65536)
        begun.sendall(LIVE)
        assert begun.recv(65536)
        begun.sendall(LIVE[:10])

        def trickle() -> None:
            try:
                for number in range(600):
                    trickling.sendall(b"G" if number == 0 else b"x")
                    time.sleep(0.1)
            except OSError:
                pass  # It is closed, as it should be.

        threading.Thread(target=trickle, daemon=True).start()
        assert closed_after(begun) < 15
        assert closed_after(trickling) < 15
        idle.sendall(LIVE)
        assert b"200 OK" in idle.recv(65536)


def test_a_body_that_never_ends(start: StartServer) -> None:
    """A request whose body does not come in time loses its connection."""
    server = start(HYDRACORE_SERVER__BODY_TIMEOUT="1")
    with connect(server) as connection:
        connection.sendall(
            b"POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
        )
        assert closed_after(connection) < 15


def test_idle(start: StartServer) -> None:
    """A connection on which nothing comes is closed."""
    server = start(HYDRACORE_SERVER__IDLE_TIMEOUT="1")
    with connect(server) as silent, connect(server) as served:
        served.sendall(LIVE)
        assert closed_after(served) < 15
        assert closed_after(silent) < 15


def test_answers_that_nobody_takes(start: StartServer) -> None:
    """A client that asks and asks and never reads loses its connection; others are served meanwhile."""
    server = start(HYDRACORE_SERVER__SEND_TIMEOUT="1")
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", server.port))
        deaf.settimeout(0.2)
        started, lost = time.monotonic(), False
        while not lost and time.monotonic() - started < 60:
            try:
                deaf.sendall(LIVE * 1000)
            except TimeoutError:  # Its answers are stuck.
                assert server.ask("GET", "/health/live")[0] == 200
            except OSError:
                lost = True
        assert lost


def test_those_at_work_keep_their_connection(start: StartServer) -> None:
    """When all connections are taken, the one that has waited longest makes room for a new one."""
    server = start(HYDRACORE_SERVER__MAX_CONNECTIONS="10")
    with ExitStack() as stack:
        waiting = [stack.enter_context(connect(server)) for _ in range(10)]
        for connection in waiting:
            connection.sendall(LIVE)
            assert connection.recv(65536)
        waiting[0].sendall(LIVE)
        assert waiting[0].recv(65536)  # It is not the one that has waited longest any more.
        for _ in range(3):
            new = stack.enter_context(connect(server))
            new.sendall(LIVE)
            assert b"200 OK" in new.recv(65536)
        waiting[0].sendall(LIVE)
        assert b"200 OK" in waiting[0].recv(65536)
        for connection in waiting[1:4]:
            assert closed_after(connection) < 5
        assert until(lambda: server.ask("GET", "/health/live")[0] == 200)


def test_a_large_head(start: StartServer) -> None:
    """A head that is too large is answered 431, one that is far too large closes the connection."""
    server = start(HYDRACORE_SERVER__MAX_HEADER="2048")
    status, body, _ = server.ask("GET", "/health/live", Filler="x" * 3000)
    assert (status, body["code"]) == (431, "headers_too_large")
    assert "2048" in body["detail"]
    assert server.ask("GET", "/health/live", Filler="x" * 1500)[0] == 200
    with connect(server) as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nFiller: " + b"x" * 9000)
        assert closed_after(connection) < 15
    assert server.ask("GET", "/health/live")[0] == 200


def test_a_large_body(start: StartServer) -> None:
    """The size that a body may have is configured, and named in the answer."""
    server = start(HYDRACORE_SERVER__MAX_BODY="2048")
    status, body, _ = server.post("login", {**LOGIN, "more": "x" * 3000})
    assert (status, body["detail"]) == (413, "The body is larger than 2048 bytes.")
    assert server.post("login", {**LOGIN, "more": "x" * 1000})[0] == 401


BODY = json.dumps(LOGIN).encode()
HEAD = (
    b"POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY)
)


def begun(server: Server, stack: ExitStack) -> socket.socket:
    """A connection whose request's head is there, and whose body is not."""
    connection = stack.enter_context(connect(server))
    connection.sendall(HEAD)
    assert b"100" in connection.recv(65536)
    return connection


def test_those_that_never_end_make_room(start: StartServer) -> None:
    """When all connections wait for the rest of a body, the one that has waited longest makes room for a new one, and
    the others are served once their bodies are there."""
    server = start(HYDRACORE_SERVER__MAX_CONNECTIONS="10")
    with ExitStack() as stack:
        slow = [begun(server, stack) for _ in range(10)]
        for _ in range(3):
            new = stack.enter_context(connect(server))
            new.sendall(LIVE)
            assert b"200 OK" in new.recv(65536)
            new.sendall(HEAD)  # It does not make room next, either.
            assert b"100" in new.recv(65536)
        for connection in slow[:3]:
            assert closed_after(connection) < 5
        for connection in slow[3:]:
            connection.sendall(BODY)
            assert b"401" in connection.recv(65536)


def test_more_requests_than_it_takes(start: StartServer) -> None:
    """Beyond what a worker takes on, requests are answered 503 at once; its health is still told."""
    server = start(HYDRACORE_SERVER__MAX_REQUESTS="5", HYDRACORE_STORE__TIMEOUT="20", HYDRACORE_LOG__LOAD_EVERY="1")
    [mongod] = server.children()["mongod"]
    os.kill(mongod, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(5) as pool:
            asked = [pool.submit(server.post, "login", LOGIN) for _ in range(5)]
            assert until(lambda: server.lines("load")[-1:] != [] and server.lines("load")[-1]["requests"] == 5)
            before = time.monotonic()
            status, answer, headers = server.post("login", LOGIN)
            assert (status, answer["code"], headers["Retry-After"]) == (503, "overloaded", "1")
            assert time.monotonic() - before < 5
            assert server.ask("GET", "/health/live")[0] == 200
            os.kill(mongod, signal.SIGCONT)
            assert {answered.result()[0] for answered in asked} == {401}
    finally:
        os.kill(mongod, signal.SIGCONT)
    assert until(lambda: server.post("login", LOGIN)[0] == 401)


def test_bodies_on_their_way_do_not_count(start: StartServer) -> None:
    """However many requests wait for their bodies, others are served, and so are they in the end."""
    server = start(HYDRACORE_SERVER__MAX_REQUESTS="5")
    with ExitStack() as stack:
        slow = [begun(server, stack) for _ in range(20)]
        for _ in range(3):
            assert server.post("login", LOGIN)[0] == 401
        for connection in slow:
            connection.sendall(BODY)
            assert b"401" in connection.recv(65536)
