"""Real processes: ``hydracore serve`` and the other commands, in a folder of their own."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from forks import Forked
from lacking import lacking

SECRET = "a-secret-of-the-tests-that-is-long-enough"
PASSWORD = "correct horse battery staple"
LOGIN = {"email": "ada@example.com", "password": PASSWORD}


class Server:
    """``hydracore serve`` on a free port, with cheap hashing and without limits unless told otherwise. ``handed`` are
    sockets that it is started with, by name, as systemd does it."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        python: Sequence[str] | None = None,
        handed: Sequence[tuple[str, socket.socket]] = (),
        **environment: str,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.log = folder / "server.log"
        self.started = time.monotonic()
        with Path(os.devnull).open() as nothing, self.log.open("ab") as log:
            serve = ["serve", "--port", "0", *arguments]
            self.process = _process(serve, folder, settings(**environment), (nothing, log, log), python, handed)
        self._port = 0

    def lines(self, event: str) -> list[dict[str, Any]]:
        """The log's lines of one event since this process started."""
        found = []
        for line in self.log.read_text().splitlines(keepends=True):
            if line.startswith("{") and line.endswith("}\n"):  # Another may be half written.
                entry = json.loads(line)
                if entry["event"] == event:
                    found.append(entry)
        return found

    def wait(self) -> "Server":
        """Until it is ready."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(self.log.read_text())
            try:
                if self.ask("GET", "/health/ready")[0] == 200:
                    self.took = time.monotonic() - self.started
                    return self
            except (OSError, IndexError):
                pass
            time.sleep(0.02)
        raise AssertionError(self.log.read_text())

    @property
    def port(self) -> int:
        if not self._port:
            mine = [line for line in self.lines("serving") if line["pid"] == self.process.pid]
            self._port = int(mine[-1]["addresses"][0].rpartition(":")[2])
        return self._port

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, Any]:
        """Status, body, headers of one request on a connection of its own."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=15)
        try:
            raw = None if body is None else json.dumps(body)
            connection.request(method, path, raw, {"Content-Type": "application/json", **headers})
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None, answer.headers
        finally:
            connection.close()

    def post(self, call: str, body: Any = None) -> tuple[int, Any, Any]:
        return self.ask("POST", f"/auth/{call}", {} if body is None else body)

    def me(self, tokens: dict[str, Any]) -> int:
        return self.ask("GET", "/auth/me", Authorization=f"Bearer {tokens['access_token']}")[0]

    def register(self, email: str = "ada@example.com") -> dict[str, Any]:
        status, body, _ = self.post("register", {"email": email, "password": PASSWORD})
        assert status == 201, body
        tokens: dict[str, Any] = body
        return tokens

    def letter(self, nth: int = 1) -> str:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            letters = sorted((self.folder / "hydracore-data/mail").glob("*.eml"))
            if len(letters) >= nth:
                return letters[nth - 1].read_text()
            time.sleep(0.02)
        raise AssertionError("no letter")

    def code(self) -> str:
        found = re.search(r"^([0-9]{6})\s*$", self.letter(), re.MULTILINE)
        assert found
        return found[1]

    def children(self) -> dict[str, list[int]]:
        return children(self.process.pid)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


def command(
    folder: Path, *arguments: str, stdin: str = "", timeout: float = 60, anew: bool = False, **environment: str
) -> tuple[int, str, str]:
    """One command in a folder: its exit code, what it prints, and what it says beside that. ``anew`` is for a Python of
    its own, which has imported nothing yet."""
    with TemporaryFile() as given, TemporaryFile() as out, TemporaryFile() as err:
        given.write(stdin.encode(errors="surrogateescape"))
        given.seek(0)
        process = _process(arguments, folder, settings(**environment), (given, out, err), [] if anew else None)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
            process.wait()
        printed, said = (_text(stream) for stream in (out, err))
    assert "Traceback" not in said
    return code, printed, said


def _process(
    arguments: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    streams: Sequence[IO[Any]],
    python: Sequence[str] | None,
    handed: Sequence[tuple[str, socket.socket]] = (),
) -> "Forked | subprocess.Popen[bytes]":
    """A fork, or where ``python`` says so, or a variable that only its start reads, one anew."""
    mine = {name for name in {*os.environ, *environment} if name.startswith("PYTHON")}
    if python is None and not handed and all(environment.get(name) == os.environ.get(name) for name in mine):
        return Forked(arguments, folder, environment, [stream.fileno() for stream in streams])
    given, out, err = streams
    descriptors = [listener.fileno() for _, listener in handed]
    handing = [sys.executable, "-I", "-S", "-c", _HAND_OVER, ",".join(map(str, descriptors))] if handed else []
    names = {"LISTEN_FDNAMES": ":".join(name for name, _ in handed)} if handed else {}
    return subprocess.Popen(
        [*handing, sys.executable, *(python or ()), "-m", "hydracore", *arguments],
        pass_fds=descriptors,
        cwd=folder,
        env={**environment, **names},
        stdin=given,
        stdout=out,
        stderr=err,
        start_new_session=True,
    )


# What systemd does: the descriptors are those from 3 up, and meant for the process that is to be.
_HAND_OVER = """
import fcntl, os, sys
moved = [fcntl.fcntl(int(each), fcntl.F_DUPFD, 100) for each in sys.argv[1].split(",")]
for place, descriptor in enumerate(moved):
    os.dup2(descriptor, 3 + place)
os.closerange(3 + len(moved), 200)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(moved))}
os.execv(sys.argv[2], sys.argv[2:])
"""


def program(name: str) -> str:
    """Where one is that not every machine has."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") or lacking(f"there is no {name} here")


def _text(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode(errors="surrogateescape")


def settings(**environment: str) -> dict[str, str]:
    mine = {key: value for key, value in os.environ.items() if not key.startswith("HYDRACORE_")}
    cheap = {"HYDRACORE_PASSWORD__PROFILE": "testing", "HYDRACORE_LIMITS__ENABLED": "false"}
    return {**mine, **cheap, **environment}


def children(parent: int) -> dict[str, list[int]]:
    """The processes below ``parent``, by what they are."""
    found: dict[str, list[int]] = {"mongod": [], "worker": []}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, rest = status.read_text().partition("(")[2].rsplit(")", 1)
        except OSError:
            continue
        state, above = rest.split()[:2]
        if int(above) == parent and state != "Z":
            found["mongod" if name == "mongod" else "worker"].append(int(status.parent.name))
    return found


def until(condition: Callable[[], bool], within: float = 15) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.03)
    return condition()


def settled(asked: Callable[[], object], wanted: object, times: int, within: float = 60) -> float:
    """Seconds until the last answer that was not ``wanted``, once as many ``times`` in a row it was. How long the
    asking takes does not matter, so a slow machine changes nothing."""
    started = last = time.monotonic()
    row = 0
    while row < times:
        at = time.monotonic()
        if asked() == wanted:
            row += 1
        else:
            row, last = 0, at
        assert at - started < within, "it never settles"
    return last - started


def gone(*pids: int) -> bool:
    return until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def own(uri: str, database: str, **more: str) -> dict[str, str]:
    return {
        "HYDRACORE_STORE__URI": uri,
        "HYDRACORE_STORE__DATABASE": database,
        "HYDRACORE_SECRET": SECRET,
        "HYDRACORE_MAIL__ALLOW_UNDELIVERED": "true",
        **more,
    }


StartServer = Callable[..., Server]
