"""A server that systemd starts: sockets that are handed over, and what systemd is told."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest
from processes import Server, StartServer, own, program, settings, until

from hydracore.config import load
from hydracore.errors import StartupError
from hydracore.notify import ServiceManager
from hydracore.sockets import handed_over, listen, urls

Handed = list[tuple[str, socket.socket]]


class OverUnix(HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=15)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def asked(listener: socket.socket, path: str = "/health/live") -> int:
    """The status of one request on a connection of its own to whoever listens there."""
    address = listener.getsockname()
    unix = listener.family == socket.AF_UNIX
    connection = OverUnix(address) if unix else HTTPConnection(*address[:2], timeout=15)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.fixture
def handed(tmp_path: Path) -> Iterator[Handed]:
    """What a systemd keeps: IPv4, IPv6, a Unix socket, and one each for the management and the admin listener."""
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(tmp_path / "hydracore.sock"))
    unix.listen(100)
    found = [
        ("hydracore.socket", socket.create_server(("127.0.0.1", 0))),
        ("hydracore.socket", socket.create_server(("::1", 0), family=socket.AF_INET6)),
        ("hydracore.socket", unix),
        ("management", socket.create_server(("127.0.0.1", 0))),
        ("admin", socket.create_server(("127.0.0.1", 0))),
    ]
    yield found
    for _, listener in found:
        listener.close()


def serves(start: StartServer, uri: str, handed: Handed, **more: str) -> Server:
    """A server that got these and nothing else to listen on."""
    settings = {"HYDRACORE_MANAGEMENT__PORT": "9464", "HYDRACORE_ADMIN__PORT": "8001", **more}
    return start("--workers", "2", handed=handed, **own(uri, "handed_over", **settings))


def test_sockets_that_are_handed_over(start: StartServer, mongod_uri: str, handed: Handed) -> None:
    """Every socket that is handed over is served, by its name, and no other is opened."""
    server = serves(start, mongod_uri, handed)
    assert {asked(listener) for _, listener in handed[:4]} == {200}
    assert [asked(listener, "/metrics") for _, listener in handed] == [404, 404, 404, 200, 404]
    assert [asked(listener, "/admin/users") for _, listener in handed] == [404, 404, 404, 404, 401]
    [public], [managing], [administering] = (server.lines(name) for name in ("serving", "managing", "administering"))
    port, six, unix, management, admin = (listener.getsockname() for _, listener in handed)
    assert public["addresses"] == [f"http://127.0.0.1:{port[1]}", f"http://[::1]:{six[1]}", f"unix:{unix}"]
    assert managing["addresses"] == [f"http://127.0.0.1:{management[1]}"]
    assert administering["addresses"] == [f"http://127.0.0.1:{admin[1]}"]
    assert server.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_restart_refuses_nobody(start: StartServer, mongod_uri: str, handed: Handed, number: int) -> None:
    """While systemd keeps the sockets, a server that is stopped and started again refuses no connection: whoever comes
    in between waits, and is answered."""
    first = serves(start, mongod_uri, handed)
    refused, hung_up, answered, end = [], [], [], threading.Event()

    def come(listener: socket.socket) -> None:
        while not end.is_set():
            try:
                answered.append(asked(listener))
            except (ConnectionRefusedError, TimeoutError) as error:
                refused.append(error)
            except (OSError, HTTPException) as error:
                hung_up.append(error)  # It was idle when the server that stopped hung up: a client asks again.

    crowd = [threading.Thread(target=come, args=[listener]) for _, listener in handed[:3]]
    for each in crowd:
        each.start()
    try:
        assert first.stop(number) == 0
        before = len(answered)
        serves(start, mongod_uri, handed)
        assert until(lambda: len(answered) > before + 30)
    finally:
        end.set()
        for each in crowd:
            each.join()
    assert not refused
    assert len(hung_up) <= len(crowd)  # Each has one connection at a time, and one server stopped.
    assert set(answered) == {200}


def test_systemd_socket_activate(tmp_path: Path, mongod_uri: str) -> None:
    """systemd's own tool hands over what it listens on, and the connection that it was started for is answered."""
    activate = program("systemd-socket-activate")
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("::1", 0), family=socket.AF_INET6) as six:
        ports = [one.getsockname()[1], six.getsockname()[1]]
    unix = tmp_path / "hydracore.sock"
    environment = settings(**own(mongod_uri, "socket_activate"))
    # It gives nothing of its own environment on unless told.
    given = [f"--setenv={name}={value}" for name, value in environment.items() if name.startswith(("HYDRA", "PATH"))]
    listening = [f"--listen={address}" for address in (f"127.0.0.1:{ports[0]}", f"[::1]:{ports[1]}", unix)]
    hydracore = [sys.executable, "-m", "hydracore", "serve"]
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen([activate, *listening, *given, *hydracore], cwd=tmp_path, stdout=log, stderr=log)
    try:
        assert until(unix.exists)
        for connection in (HTTPConnection("::1", ports[1]), HTTPConnection("127.0.0.1", ports[0]), OverUnix(str(unix))):
            connection.timeout = 30
            connection.request("GET", "/health/ready")
            assert connection.getresponse().status == 200
            connection.close()
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def listening_stream(folder: Path) -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def bound_only(folder: Path) -> socket.socket:
    made = socket.socket()
    made.bind(("127.0.0.1", 0))
    return made


def datagrams(folder: Path) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("127.0.0.1", 0))
    return made


def packets(folder: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.bind(str(folder / "packets"))
    made.listen()
    return made


def connected(folder: Path) -> socket.socket:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return socket.create_connection(listener.getsockname())


def no_socket(folder: Path) -> object:
    return (folder / "file").open("wb")


@pytest.mark.parametrize("made", [bound_only, datagrams, packets, connected, no_socket])
def test_what_nobody_can_connect_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made) -> None:
    """What is handed over and is no stream socket that listens is refused, by its number, name and remedy."""
    with made(tmp_path) as given:
        monkeypatch.setattr("hydracore.sockets._FIRST", given.fileno())
        environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"}
        with pytest.raises(StartupError, match=rf"^Descriptor {given.fileno()} \(web\), .* ListenStream="):
            handed_over(environment)


def test_what_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Descriptors that are not open, and counts that are none, are refused in a sentence; nothing is a trace."""
    environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
    monkeypatch.setattr("hydracore.sockets._FIRST", 1 << 19)
    with pytest.raises(StartupError, match=r"^Descriptor 524288, which"):
        handed_over(dict(environment))
    for count in ("many", "-1", "9" * 100):
        with pytest.raises(StartupError, match=rf"^LISTEN_FDS is '{count}'"):
            handed_over({**environment, "LISTEN_FDS": count})


def test_refused_before_anything_starts(start: StartServer, handed: Handed) -> None:
    """What cannot be listened on ends the start with 2 and one message."""
    with datagrams(Path()) as logs:
        server = start(handed=[*handed[:1], ("logs", logs)], wait=False)
        assert server.process.wait(15) == 2
    assert server.log.read_text().startswith("hydracore: Descriptor 4 (logs), which this server is handed")
    assert not (server.folder / "hydracore-data").exists()


def test_variables_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another process was handed is not taken, and no process that this one starts hears of it."""
    environment = {"LISTEN_PID": "1", "LISTEN_FDS": "3", "LISTEN_FDNAMES": "a:b:c", "PATH": "/bin"}
    assert handed_over(environment) == []
    assert environment == {"PATH": "/bin"}
    with listening_stream(Path()) as given:
        monkeypatch.setattr("hydracore.sockets._FIRST", given.fileno())
        environment |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
        [(name, taken)] = handed_over(environment)
        assert (name, taken.getsockname(), taken.get_inheritable()) == ("", given.getsockname(), False)
        assert environment == {"PATH": "/bin"}
        taken.detach()


@pytest.mark.parametrize("name", ["management", "admin"])
def test_a_socket_without_its_listener(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A socket for a listener that there is not is refused: what it is for must not come to be public."""
    with listening_stream(Path()) as given:
        monkeypatch.setattr("hydracore.sockets._FIRST", given.fileno())
        environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": name}
        with pytest.raises(StartupError, match=rf"set {name}\.port"):
            listen(load(environment={}), environment)
        given.detach()  # It was taken, and is closed with what has taken it.


def test_where_it_listens() -> None:
    """People read addresses as they would write them, that of a socket of no file too."""
    with socket.socket(socket.AF_UNIX) as abstract, listening_stream(Path()) as port:
        abstract.bind(f"\0hydracore-{os.getpid()}")
        assert urls([abstract, port]) == [
            f"unix:@hydracore-{os.getpid()}",
            f"http://127.0.0.1:{port.getsockname()[1]}",
        ]


@pytest.mark.parametrize("allowed", [False, True])
def test_an_admin_socket_for_others(monkeypatch: pytest.MonkeyPatch, allowed: bool) -> None:
    """A socket for the admin listener that other machines reach is refused, as such an address is in the configuration,
    unless that says that it is meant."""
    settings = {"HYDRACORE_ADMIN__PORT": "8001", "HYDRACORE_SERVER__PORT": "0"}
    config = load(environment={**settings, "HYDRACORE_ADMIN__ALLOW_REMOTE": str(allowed).lower()})
    with socket.create_server(("0.0.0.0", 0)) as given:  # noqa: S104  # it is what is refused
        monkeypatch.setattr("hydracore.sockets._FIRST", given.fileno())
        environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "admin"}
        if allowed:
            listeners = listen(config, environment)
            assert urls(listeners.admin) == [f"http://0.0.0.0:{given.getsockname()[1]}"]
            for each in listeners.public:
                each.close()
        else:
            with pytest.raises(StartupError, match=r"admin\.allow_remote"):
                listen(config, environment)
        given.detach()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    """Where a server tells its state."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(tmp_path / "notify"))
        told.settimeout(20)
        yield told


def test_what_systemd_is_told(start: StartServer, systemd: socket.socket) -> None:
    """READY=1 once all workers serve, WATCHDOG=1 at least twice in the time that it gives, STOPPING=1 first of all at
    the end. The embedded mongod hears of none of it."""
    server = start("--workers", "2", wait=False, NOTIFY_SOCKET=systemd.getsockname(), WATCHDOG_USEC="2000000", TZ="UTC")
    told = [systemd.recv(4096).decode()]
    while not told[-1].startswith("READY=1"):
        told.append(systemd.recv(4096).decode())
    assert set(told[:-1]) <= {"WATCHDOG=1"}
    assert told[-1] == f"READY=1\nSTATUS=Serving on http://127.0.0.1:{server.port}"
    assert len(server.lines("ready")) == 2
    assert server.ask("GET", "/health/ready")[0] == 200
    [mongod] = server.children()["mongod"]
    given = Path(f"/proc/{mongod}/environ").read_bytes()
    assert b"TZ=UTC" in given
    assert b"NOTIFY_SOCKET" not in given
    assert b"WATCHDOG" not in given
    systemd.settimeout(2)
    assert [systemd.recv(4096) for _ in range(2)] == [b"WATCHDOG=1"] * 2
    server.process.send_signal(signal.SIGTERM)
    while (last := systemd.recv(4096)) == b"WATCHDOG=1":
        pass
    assert last.startswith(b"STOPPING=1\n")
    assert server.process.wait(30) == 0


def test_an_abstract_socket() -> None:
    """@ names a socket of no file."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(f"\0hydracore-{os.getpid()}")
        environment = {"NOTIFY_SOCKET": f"@hydracore-{os.getpid()}", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}
        manager = ServiceManager(environment)
        assert environment == {}
        manager.alive(1.0)  # It is another that is watched.
        manager.ready("well")
        assert told.recv(4096) == b"READY=1\nSTATUS=well"


def test_nobody_to_tell(tmp_path: Path, expected_logs: list[str]) -> None:
    """Without a service manager nobody is told; one that cannot be reached stops nothing, and the log says so."""
    ServiceManager({}).ready("well")
    expected_logs.append("the service manager could not be told")
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")}).stopping()
