"""``hydracore serve``: real processes, real signals."""

import asyncio
import base64
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from processes import LOGIN, PASSWORD, StartServer, gone, own, until
from pymongo import MongoClient
from support import SECRET, OpenSite
from tornado.netutil import bind_sockets

from hydracore.errors import StartupError
from hydracore.plugin import Context, hookimpl
from hydracore.server import _drain, _is_httptools, _listening, _loop_factory


def test_starts_and_keeps(start: StartServer) -> None:
    """With no configuration it is ready within 5 s, works, stops with 0, and has everything again afterwards."""
    server = start(python=[])
    others = os.getloadavg()[0] / (os.cpu_count() or 1)  # Where the machine is shared, it has that part of it.
    assert server.took < 5 * max(1, others)
    tokens = server.register()
    assert server.post("verify-email", {"email": LOGIN["email"], "code": server.code()})[0] == 200
    status, second, _ = server.ask("POST", "/auth/login", LOGIN, Origin=f"http://127.0.0.1:{server.port}")
    assert status == 200
    below = server.children()
    assert len(below["mongod"]) == len(below["worker"]) == 1
    assert server.stop() == 0
    assert gone(*below["mongod"], *below["worker"])
    again = start()
    assert again.me(second) == 200
    assert again.post("refresh", {"refresh_token": second["refresh_token"]})[0] == 200
    assert again.me(tokens) == 401  # It was begun before the proof, which was sent without it.


def test_logs_hold_no_secret(start: StartServer) -> None:
    """Whatever a server and its mongod write at the lowest level, no password, code or token is in it."""
    server = start(HYDRACORE_LOG__LEVEL="debug")
    first = server.register()
    code = server.code()
    second = server.post("verify-email", {"email": LOGIN["email"], "code": code})[1]
    server.post("login", {**LOGIN, "password": "a wrong password"})
    basic = base64.b64encode(f"{LOGIN['email']}:{PASSWORD}".encode()).decode()
    assert server.ask("POST", "/auth/token", Authorization=f"Basic {basic}")[0] == 200
    third = server.post("refresh", {"refresh_token": second["refresh_token"]})[1]
    server.post("forgot-password", {"email": LOGIN["email"]})
    link = re.search(r"#token=([\w-]{43})", server.letter(2))
    assert link
    assert server.post("reset-password", {"token": link[1], "new_password": "an entirely new password"})[0] == 200
    server.ask("GET", f"/auth/me?access_token={third['access_token']}", Cookie=f"hydracore_access={link[1]}")
    assert server.stop() == 0
    data = server.folder / "hydracore-data"
    written = server.log.read_text() + (data / "mongod.log").read_text()
    assert '"path": "/auth/reset-password"' in written
    secrets = [PASSWORD, "a wrong password", "an entirely new password", link[1], basic, "argon2"]
    secrets.append((data / "secret").read_text().strip())
    for grant in (first, second, third):
        secrets += [grant["refresh_token"].split(".")[3], grant["access_token"].split(".")[2]]
    for secret in secrets:
        assert secret not in written
    assert not re.search(rf"(?<![0-9.]){code}(?![0-9])", server.log.read_text())
    assert LOGIN["email"] not in written


def test_kill_9_of_the_server(start: StartServer) -> None:
    """kill -9 leaves no process behind; what was acknowledged is there after the next start."""
    server = start()
    tokens = server.register()
    below = server.children()
    server.process.kill()
    server.process.wait()
    assert gone(*below["mongod"], *below["worker"])
    again = start()
    assert again.me(tokens) == 200
    assert again.post("login", LOGIN)[0] == 200
    assert again.post("refresh", {"refresh_token": tokens["refresh_token"]})[0] == 200


def test_kill_9_of_mongod(start: StartServer) -> None:
    """A killed mongod is started again; meanwhile calls get 503 with Retry-After, and nothing is lost."""
    server = start(HYDRACORE_STORE__TIMEOUT="1")
    tokens = server.register()
    [mongod] = server.children()["mongod"]
    os.kill(mongod, signal.SIGKILL)
    seen: set[int] = set()

    def back() -> bool:
        status, _, headers = server.post("login", LOGIN)
        seen.add(status)
        assert status == 200 or headers["Retry-After"]
        return status == 200

    assert until(back)
    assert seen <= {200, 503}
    assert server.me(tokens) == 200
    assert server.children()["mongod"] != [mongod]


def test_mongod_that_cannot_be_started(start: StartServer) -> None:
    """When the killed mongod cannot be started, it is tried again until it can."""
    server = start(HYDRACORE_STORE__TIMEOUT="1")
    server.register()
    data, [mongod] = server.folder / "hydracore-data", server.children()["mongod"]
    (data / "mongod.log").rename(data / "away")
    (data / "mongod.log").mkdir()
    (data / "mongod.log.1").touch()
    os.kill(mongod, signal.SIGKILL)
    assert until(lambda: len(server.lines("the embedded mongod cannot be started")) > 1)
    assert server.ask("GET", "/health/live")[0] == 200
    (data / "mongod.log").rmdir()
    assert until(lambda: server.post("login", LOGIN)[0] == 200)


def test_mongod_paused(start: StartServer) -> None:
    """While the database hangs, calls get 503 within their deadline, live answers, ready says why; then all is well.
    The deadline is that of the first operation that fails, and a second before and after it where a limit counts."""
    server = start(HYDRACORE_STORE__TIMEOUT="1", HYDRACORE_LIMITS__ENABLED="true")
    tokens = server.register()
    [mongod] = server.children()["mongod"]
    os.kill(mongod, signal.SIGSTOP)
    try:
        before = time.monotonic()
        status, body, headers = server.ask("GET", "/auth/me", Authorization=f"Bearer {tokens['access_token']}")
        assert (status, body["code"]) == (503, "store_unavailable")
        assert int(headers["Retry-After"]) >= 1
        assert time.monotonic() - before < 5
        asked = {"login": LOGIN, "register": {**LOGIN, "email": "bob@example.com"}, "refresh": tokens}
        for call, sent in {**asked, "forgot-password": {"email": LOGIN["email"]}}.items():
            before = time.monotonic()
            status, body, headers = server.post(call, sent)
            assert (status, body["code"]) == (503, "store_unavailable"), call
            assert int(headers["Retry-After"]) >= 1
            assert time.monotonic() - before < 1 + 2 + 3, call  # And three for a busy machine.
        assert server.ask("GET", "/health/live")[0] == 200
        assert until(lambda: server.ask("GET", "/health/ready")[0] == 503)
    finally:
        os.kill(mongod, signal.SIGCONT)
    assert until(lambda: server.me(tokens) == 200)
    assert until(lambda: server.ask("GET", "/health/ready")[0] == 200)


def test_limits_while_mongod_is_paused(start: StartServer) -> None:
    """What was answered 503 while the database hung is no try: repeated, it is done, and then the limit holds."""
    server = start(HYDRACORE_STORE__TIMEOUT="1", HYDRACORE_LIMITS__ENABLED="true")
    [mongod] = server.children()["mongod"]
    body = {"email": LOGIN["email"]}
    os.kill(mongod, signal.SIGSTOP)
    try:
        for _ in range(2):
            assert server.post("forgot-password", body)[0] == 503
    finally:
        os.kill(mongod, signal.SIGCONT)
    assert until(lambda: server.ask("GET", "/health/ready")[0] == 200)
    assert server.post("forgot-password", body)[0] == 200
    assert server.post("forgot-password", body)[0] == 429


def test_kill_9_of_a_worker(start: StartServer) -> None:
    """A killed worker is replaced, and the others keep answering."""
    server = start("--workers", "2")
    tokens = server.register()
    assert until(lambda: len(server.children()["worker"]) == 2)
    answers: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                answers.append(server.me(tokens))
            except OSError:
                answers.append(0)  # The connection was the killed worker's.

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    time.sleep(0.3)
    killed = server.children()["worker"][0]
    os.kill(killed, signal.SIGKILL)
    replaced = until(lambda: len(left := server.children()["worker"]) == 2 and killed not in left)
    served = until(lambda: len(answers) > 8 and 0 not in answers[-8:])
    stop.set()
    for thread in asking:
        thread.join()
    assert replaced
    assert served
    assert set(answers) <= {200, 0}
    assert answers.count(0) <= 4
    assert server.lines("worker ended, it is replaced")[0]["code"] == -signal.SIGKILL


def test_a_replacement_that_cannot_start(start: StartServer) -> None:
    """A worker that cannot be replaced for now is tried again, while the others serve."""
    server = start("--workers", "2")
    tokens = server.register()
    # One of the first two that found the secret spoilt would stop the start.
    assert until(lambda: len(server.lines("ready")) == 2)
    secret = server.folder / "hydracore-data/secret"
    whole = secret.read_text()
    secret.write_text("")
    os.kill(server.children()["worker"][0], signal.SIGKILL)
    assert until(lambda: any(line["code"] == 2 for line in server.lines("worker ended, it is replaced")))
    assert server.me(tokens) == 200
    secret.write_text(whole)
    assert until(lambda: len(server.lines("ready")) == 3, 40)  # The pauses between two tries have become longer.
    assert server.stop() == 0


def test_drains(start: StartServer) -> None:
    """SIGTERM lets a request in flight finish, takes no new one, and ends with 0."""
    server = start()
    server.register()
    port = server.port
    slow, rest = _begin_login(port)
    with slow:
        server.process.send_signal(signal.SIGTERM)
        assert until(lambda: not _accepts(port))
        slow.sendall(rest)
        answer = slow.recv(1000)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"Connection: close" in answer
    assert server.process.wait(15) == 0


def test_drains_under_load(start: StartServer) -> None:
    """Clients that keep their connections busy are told to close them; none loses an answer, and it ends soon."""
    server = start("--workers", "2")
    headers = {"Authorization": f"Bearer {server.register()['access_token']}"}
    port = server.port
    told: list[str] = []

    def ask() -> None:
        with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
            connection.connect()
            while True:
                connection.request("GET", "/auth/me", headers=headers)
                answer = connection.getresponse()
                answer.read()
                if answer.headers["Connection"] == "close":
                    told.append("close")
                    return
                assert answer.status == 200

    asking = [threading.Thread(target=ask) for _ in range(6)]
    for thread in asking:
        thread.start()
    time.sleep(0.5)
    before = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - before < 5
    for thread in asking:
        thread.join()
    assert told == ["close"] * len(asking)


@pytest.mark.parametrize("http", ["tornado", "httptools"])
async def test_a_request_at_the_last_moment(open_site: OpenSite, monkeypatch: pytest.MonkeyPatch, http: str) -> None:
    """A request that comes by an idle connection when the others have been answered, and it was not hung up on yet, is
    answered too."""
    may_end = asyncio.Event()

    class Slow:
        def __init__(self, context: Context) -> None:
            pass

        @hookimpl
        async def hydracore_before_login(self) -> None:
            await may_end.wait()

    site = await open_site(extra={"slow": Slow})
    await site.register(LOGIN["email"], LOGIN["password"])
    hydra = site.hydra
    sockets = bind_sockets(0, "127.0.0.1")
    settings = replace(hydra.config.server, http=http)
    server = await _listening(hydra, hydra.application(), settings, sockets)
    reader, writer = await asyncio.open_connection("127.0.0.1", sockets[0].getsockname()[1])
    writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readuntil(b"}")
    body = json.dumps(LOGIN)
    request = (
        f"POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )

    async def nothing_to_wait_for(timeout: float) -> None:
        writer.write(request.encode() + body.encode())
        while not hydra.in_flight:  # noqa: ASYNC110  # simpler than an event
            await asyncio.sleep(0)

    monkeypatch.setattr(hydra, "drain", nothing_to_wait_for)
    draining = asyncio.ensure_future(_drain([server], hydra, 10))
    await asyncio.sleep(0.3)
    may_end.set()
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"Connection: close" in answer
    await draining
    writer.close()


@pytest.mark.parametrize(("number", "answered"), [(signal.SIGHUP, True), (signal.SIGTERM, False)])
def test_asked_twice(start: StartServer, number: signal.Signals, answered: bool) -> None:
    """A second SIGTERM ends it at once; a second SIGHUP does not, for a closing terminal sends several."""
    server = start()
    server.register()
    slow, rest = _begin_login(server.port)
    with slow:
        for _ in range(2):
            server.process.send_signal(number)
            time.sleep(0.3)
        if answered:
            slow.sendall(rest)
        try:
            answer = slow.recv(100)
        except ConnectionResetError:
            answer = b""
        assert answer.startswith(b"HTTP/1.1 200") == answered
    assert server.process.wait(5) == 0


def _begin_login(port: int) -> tuple[socket.socket, bytes]:
    """A connection on which a login has begun, and the rest of it."""
    body = json.dumps(LOGIN).encode()
    slow = socket.create_connection(("127.0.0.1", port), timeout=10)
    head = f"POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    slow.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body[:10])
    time.sleep(0.3)
    return slow, body[10:]


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_idle_connections_do_not_hold_it(start: StartServer) -> None:
    """An idle keep-alive connection is closed at once when it stops."""
    server = start()
    with socket.create_connection(("127.0.0.1", server.port)) as idle:
        idle.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.recv(1000)
        before = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - before < 5


def test_interrupt_in_a_terminal(start: StartServer) -> None:
    """Ctrl-C, which reaches the whole process group, stops it in order, without a trace."""
    server = start("--workers", "2")
    below = server.children()
    os.killpg(server.process.pid, signal.SIGINT)
    assert server.process.wait(15) == 0
    assert gone(*below["mongod"], *below["worker"])
    assert "Traceback" not in server.log.read_text()


def test_second_server_on_the_folder(start: StartServer) -> None:
    """A second server on the same data folder ends with 2 and says who holds it."""
    server = start()
    second = start(wait=False)
    assert second.process.wait(15) == 2
    assert f"in use by process {server.process.pid}" in server.log.read_text()
    assert server.ask("GET", "/health/ready")[0] == 200


def test_port_in_use(start: StartServer) -> None:
    """A port in use ends with 2, naming it, before anything is made."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        server = start("--port", port, wait=False)
        assert server.process.wait(15) == 2
    assert f"port {port}" in server.log.read_text()
    assert not (server.folder / "hydracore-data").exists()


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"HYDRACORE_SERVER__PROT": "1"}, ["HYDRACORE_SERVER__PROT", "did you mean server.port?"]),
        ({"HYDRACORE_SERVER__WORKERS": "many"}, ["server.workers", "whole number"]),
        ({"HYDRACORE_STORE__URI": "mongodb://127.0.0.1:1/"}, ["HYDRACORE_SECRET"]),
        (
            {"HYDRACORE_STORE__URI": "mongodb://127.0.0.1:1/", "HYDRACORE_SECRET": SECRET},
            ["mail.transport", "smtp", "mail.allow_undelivered"],
        ),
        ({"HYDRACORE_MAIL__TRANSPORT": "pigeon"}, ["mail.transport is pigeon", "folder"]),
        ({"HYDRACORE_PLUGINS__ENABLED": '["event_lg"]'}, ["event_lg", "did you mean event_log?"]),
        ({"HYDRACORE_PLUGINS__MAIL_SMTP__PRT": "1"}, ["plugins.mail_smtp.prt", "plugins.mail_smtp.port?"]),
    ],
)
def test_wrong_configuration(start: StartServer, environment: dict[str, str], said: list[str]) -> None:
    """A wrong configuration ends with 2 and one message, before anything starts."""
    server = start(wait=False, **environment)
    assert server.process.wait(15) == 2
    text = server.log.read_text()
    for part in said:
        assert part in text
    assert "Traceback" not in text
    assert not (server.folder / "hydracore-data").exists()


def test_two_nodes(start: StartServer, mongod_uri: str) -> None:
    """Two servers that start at once on an empty database share users, sessions, keys and new keys."""
    both = [start(folder=name, wait=False, **own(mongod_uri, "two_nodes")) for name in ("one", "two")]
    one, two = (server.wait() for server in both)
    tokens = one.register()
    assert two.me(tokens) == 200
    assert two.post("login", LOGIN)[0] == 200
    keys = [server.ask("GET", "/.well-known/jwks.json")[1] for server in (one, two)]
    assert keys[0] == keys[1]
    assert len(keys[0]["keys"]) == 1
    newer = two.post("refresh", {"refresh_token": tokens["refresh_token"]})[1]
    assert one.me(newer) == 200
    assert one.post("logout", {"refresh_token": newer["refresh_token"]})[0] == 204
    assert two.me(newer) == 401
    assert not (one.folder / "hydracore-data/db").exists()


def test_another_secret(start: StartServer, mongod_uri: str) -> None:
    """A secret that does not open the database's keys ends with 2 and says so."""
    start(folder="one", **own(mongod_uri, "another_secret"))
    wrong = start(folder="two", wait=False, **own(mongod_uri, "another_secret", HYDRACORE_SECRET="x" * 32))
    assert wrong.process.wait(20) == 2
    assert "secret" in wrong.log.read_text()
    assert "Traceback" not in wrong.log.read_text()


def test_database_not_there_yet(start: StartServer, tmp_path: Path) -> None:
    """A server starts without its database, says that it is not ready, and serves once it is there."""
    from hydracore.store.embedded import Mongod

    mongod = Mongod(tmp_path / "late")
    server = start(wait=False, **own(mongod.uri, "late", HYDRACORE_STORE__TIMEOUT="1"))
    assert until(lambda: _status(server) == 503)
    status, body, headers = server.post("login", LOGIN)
    assert (status, body["code"]) == (503, "store_unavailable")
    assert headers["Retry-After"]
    mongod.start()
    mongod.wait_ready()
    try:
        assert until(lambda: _status(server) == 200)
        server.register()
    finally:
        server.stop()
        mongod.stop()


def _status(server: Any) -> int:
    try:
        return int(server.ask("GET", "/health/ready")[0])
    except (OSError, IndexError):
        return 0


@pytest.mark.parametrize(("http", "told"), [("tornado", "Malformed HTTP message"), ("httptools", "malformed request")])
def test_malformed_headers_are_not_quoted(start: StartServer, http: str, told: str) -> None:
    """A header that cannot be read is not written to the log with what it holds."""
    server = start(HYDRACORE_LOG__LEVEL="debug", HYDRACORE_SERVER__HTTP=http)
    for header in (b"Authorization: Bearer SECRETTOKEN\x01", b"Cookie: hydracore_refresh=SECRETTOKEN\x00"):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"GET /auth/me HTTP/1.1\r\nHost: x\r\n" + header + b"\r\n\r\n")
            client.recv(1000)
    assert server.stop() == 0
    assert told in server.log.read_text()
    assert "SECRETTOKEN" not in server.log.read_text()


def test_as_starters_leave_signals(start: StartServer) -> None:
    """Started with SIGCHLD and SIGHUP ignored, as by nohup, it still replaces workers, and outlives its terminal."""
    code = "import os, signal, sys; [signal.signal(n, signal.SIG_IGN) for n in (signal.SIGCHLD, signal.SIGHUP)]; "
    server = start(python=["-c", code + "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"])
    [worker] = server.children()["worker"]
    os.kill(worker, signal.SIGKILL)
    assert until(lambda: server.children()["worker"] not in ([], [worker]))
    server.process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert until(lambda: _status(server) == 200)
    assert server.stop() == 0


def test_more_connections_than_files(start: StartServer) -> None:
    """More connections than there are descriptors: those beyond are closed, the log stays quiet, others are served."""
    code = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256)); "
    server = start(python=["-c", code + "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"])
    port = server.port
    with ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(200)]
        time.sleep(0.5)
        closed = 0
        for connection in idle:
            connection.setblocking(False)
            with suppress(BlockingIOError):
                closed += connection.recv(1) == b""
        assert 60 <= closed <= 100
    assert until(lambda: _status(server) == 200)
    assert "Too many open files" not in server.log.read_text()
    assert server.stop() == 0


def test_an_index_that_cannot_be_made(start: StartServer, mongod_uri: str) -> None:
    """Documents that break a unique index, or an index with other options, end it with 2 and the remedy."""
    for number, said in enumerate(["users.address_key_1", "sessions.user_id_1"]):
        name = f"indexes_{number}"
        with MongoClient(mongod_uri) as client:
            client.drop_database(name)
            if number:
                client[name]["sessions"].create_index([("user_id", 1)], name="user_id_1", unique=True)
            else:
                client[name]["users"].insert_many([{"address_key": "same"}, {"address_key": "same"}])
        server = start(folder=name, wait=False, **own(mongod_uri, name))
        assert server.process.wait(20) == 2
        assert said in server.log.read_text()
        assert "Traceback" not in server.log.read_text()


def test_small(start: StartServer) -> None:
    """A worker at rest takes less than 90 MB."""
    server = start(python=[])
    server.register()
    [worker] = server.children()["worker"]
    for line in Path(f"/proc/{worker}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            assert int(line.split()[1]) < 90_000


@pytest.mark.parametrize(
    ("chosen", "there", "runs"),
    [("auto", True, "uvloop"), ("auto", False, "asyncio"), ("asyncio", True, "asyncio"), ("uvloop", True, "uvloop")],
)
def test_event_loops(start: StartServer, tmp_path: Path, chosen: str, there: bool, runs: str) -> None:
    """It runs on uvloop where that is installed, and on Python's own loop where it is not, or by choice."""
    pytest.importorskip("uvloop")
    server = start(HYDRACORE_SERVER__LOOP=chosen, **({} if there else without_uvloop(tmp_path)))
    assert server.lines("serving")[0]["loop"] == runs
    grant = server.register()
    assert server.me(grant) == 200
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(15) == 0


def test_no_uvloop(start: StartServer, tmp_path: Path) -> None:
    """Where uvloop is asked for and is not there, the start is refused with the remedy."""
    server = start(wait=False, HYDRACORE_SERVER__LOOP="uvloop", **without_uvloop(tmp_path))
    assert server.process.wait(15) == 2
    assert 'pip install "hydracore[fast]"' in server.log.read_text()


def without_uvloop(folder: Path) -> dict[str, str]:
    (folder / "nothing").mkdir(exist_ok=True)
    (folder / "nothing" / "uvloop.py").write_text("raise ImportError('uvloop')")
    return {"PYTHONPATH": str(folder / "nothing")}


def test_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked for by name and is not there is told; ``auto`` does without."""
    monkeypatch.setitem(sys.modules, "uvloop", None)
    monkeypatch.setattr("hydracore.server.find_spec", lambda name: None)
    assert _loop_factory("auto") is None
    assert not _is_httptools("auto")
    for choose, name in ((_loop_factory, "uvloop"), (_is_httptools, "httptools")):
        with pytest.raises(StartupError, match=rf"is {name}, which is not installed: pip install"):
            choose(name)
