"""``hydracore selftest``, against servers that tell and servers that do not."""

import json
import socket
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from processes import StartServer, command

KNOWN = "ada.lovelace@example.com"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return partial(command, tmp_path, "selftest", "enumeration", timeout=200)


@pytest.mark.parametrize("profile", ["testing", "standard"])
def test_ours_tells_nothing(start: StartServer, run: Run, profile: str) -> None:
    """Our own calls answer the same; their times differ by nothing that the noise of this machine does not explain.
    Where that is too much to tell, it says so."""
    server = start(HYDRACORE_PASSWORD__PROFILE=profile)
    server.register(KNOWN)
    url = f"http://127.0.0.1:{server.port}/auth"
    code, out, said = run(url, "--known", KNOWN, "--mail", "--samples", "40", "--tolerance-ms", "30", "--json")
    found = {each["call"]: each for each in json.loads(out)}
    assert set(found) == {"login", "token", "verify-email", "resend-verification", "forgot-password"}
    unclear = [each["reason"] for each in found.values() if each["verdict"] == "unclear"]
    assert all(reason.endswith("by more than 30.0 ms: ask more") for reason in unclear), out
    assert {each["verdict"] for each in found.values()} <= {"same", "unclear"}, out
    assert code == (3 if unclear else 0)
    assert "Asking http://127.0.0.1" in said
    assert f"failed attempts for {KNOWN}" in said
    assert f"will mail {KNOWN}" in said


def test_without_a_url(start: StartServer, run: Run) -> None:
    """The configuration's own address is asked; a URL without a path gets its prefix; the named calls alone are."""
    server = start()
    server.register(KNOWN)
    few = ("--known", KNOWN, "--samples", "20", "--tolerance-ms", "500", "--json", "--calls")
    code, out, said = run(*few, "verify-email,login", HYDRACORE_SERVER__PORT=str(server.port))
    assert [each["call"] for each in json.loads(out)] == ["verify-email", "login"]
    assert code == 0, out
    assert f"Asking http://127.0.0.1:{server.port}/auth 20 times" in said
    assert "will mail" not in said
    assert run(f"http://127.0.0.1:{server.port}/", *few, "token")[0] == 0
    code, _, said = run(*few, "login,logout")
    assert (code, "logout: the calls are login, token" in said) == (2, True)


def test_limits_make_it_unclear(start: StartServer, run: Run) -> None:
    """Where limits stop it, it says that it cannot say, and how many it could judge."""
    server = start(HYDRACORE_LIMITS__ENABLED="true")
    server.register(KNOWN)
    code, out, _ = run(f"http://127.0.0.1:{server.port}/auth", "--known", KNOWN)
    assert code == 3
    assert "were judged: limits" in out


class Telling(BaseHTTPRequestHandler):
    """A server that tells, as its path says."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    timeout = 60
    asked: Counter[str]
    unknown: set[str]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        basic = b64decode(self.headers.get("Authorization", "").partition(" ")[2]).decode()
        is_known = KNOWN in body or KNOWN in basic
        way, call = self.path.split("/")[1:]
        self.asked[way] += 1
        if call == "login" and not is_known:
            self.unknown.add(json.loads(body)["email"])
        if way == "slow" and is_known:
            time.sleep(0.08)
        expected = 400 if call == "verify-email" else 401
        always = {"moved": 301, "broken": 500, "pages": 200, "busy": 429, "instant": 429}
        status = always.get(way, expected)
        if way == "brief" and self.asked[way] == 9:
            status = 429
        self.send_response({"status": 403, "missing": 404}.get(way, status) if is_known else status)
        if way == "header" and is_known:
            self.send_header("X-Known", "yes\x9b31m")
        if way == "cookie":
            self.send_header("Set-Cookie", f"visit={time.time_ns()}; Path={'/a' if is_known else '/'}")
        if way == "proxied":
            self.send_header("X-Trace", str(self.asked[way]))
            self.send_header("Set-Cookie", f"visit={time.time_ns()}; Path=/")
        if status == 429:
            self.send_header("Retry-After", {"busy": "6", "instant": "0"}.get(way, "1"))
        text = b"wrong password\x1b[31m" if way == "body" and is_known else b"wrong"
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
        if way == "closing" and self.asked[way] % 5 == 0:
            self.close_connection = True  # Without saying so, as a server does that has idled long enough.

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def telling() -> Iterator[str]:
    Telling.asked, Telling.unknown = Counter(), set()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Telling)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("status", "status for the known: 403 (25 of 25)"),
        ("missing", "status for the known: 404 (25 of 25)"),
        ("body", "wrong password\\\\x1b[31m"),
        ("header", "header x-known for the known: yes\\x9b31m (25 of 25)"),
        ("cookie", "header set-cookie for the unknown: visit=...; Path=/ (25 of 25)"),
        ("slow", "their times differ"),
    ],
)
def test_what_tells_is_found(telling: str, run: Run, way: str, said: str) -> None:
    """Another status, body, header, cookie or time is a difference, and is named without its control characters."""
    code, out, _ = run(f"{telling}/{way}", "--known", KNOWN, "--samples", "25")
    assert code == 1, out
    assert said in out
    assert not {"\x9b", "\x1b"} & set(out)
    code, out, _ = run(f"{telling}/{way}", "--known", KNOWN, "--samples", "25", "--json")
    assert {each["verdict"] for each in json.loads(out)} == {"different"}
    assert not {"\x9b", "\x1b"} & set(out)


@pytest.mark.parametrize("way", ["proxied", "closing", "brief"])
def test_what_does_not_tell(telling: str, run: Run, way: str) -> None:
    """A proxy's number, a fresh cookie, a connection that ends, a limit of a moment: none is a difference."""
    code, out, _ = run(f"{telling}/{way}", "--known", KNOWN, "--samples", "25", "--tolerance-ms", "500")
    assert code == 0, out


def test_addresses_are_made_up(telling: str, run: Run) -> None:
    """Another unknown address is asked each time, unless one is given."""
    alone = ("--known", KNOWN, "--samples", "20", "--tolerance-ms", "500", "--calls", "login")
    assert run(f"{telling}/none", *alone)[0] == 0
    assert len(Telling.unknown) > 15
    Telling.unknown.clear()
    assert run(f"{telling}/none", *alone, "--unknown", "eve@example.com")[0] == 0
    assert Telling.unknown == {"eve@example.com"}


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("busy", "0 of 25 were judged: limits"),
        ("instant", "0 of 25 were judged: limits"),
        ("broken", "both are answered 500, where this API says 401"),
        ("pages", "both are answered 200, where this API says 401"),
    ],
)
def test_what_says_nothing(telling: str, run: Run, way: str, said: str) -> None:
    """A long limit, one that never ends, an outage, someone else's pages: unclear, with the reason, and soon over."""
    code, out, _ = run(f"{telling}/{way}", "--known", KNOWN, "--samples", "25", "--calls", "login")
    assert code == 3, out
    assert said in out
    assert Telling.asked[way] <= {"busy": 2, "instant": 130}.get(way, 60)


def test_what_is_none(run: Run, telling: str) -> None:
    """A wrong address, a wrong URL, a server that is not there: one sentence, and exit code 2."""
    assert run(telling, "--known", "ada")[0] == 2
    code, _, said = run(telling, "--known", "ada@example.com")
    assert (code, "cannot be made up" in said, "--unknown" in said) == (2, True, True)
    assert not Telling.asked
    assert run(telling, "--known", KNOWN, "--unknown", "ADA.Lovelace@example.com")[2] == (
        "hydracore: --known and --unknown are the same address.\n"
    )
    for wrong in ("ftp://x", "http://", "http://x:port", "http://[", "http://x/é", "http://ada:word@x", "x"):
        code, _, said = run(wrong, "--known", KNOWN)
        assert (code, "is no address of a server" in said) == (2, True), said
    with socket.socket() as bound:  # Nobody listens on what is bound.
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        code, _, said = run(url, "--known", KNOWN)
        assert (code, "does not answer: ConnectionRefusedError." in said) == (2, True)


def test_a_wrong_prefix(start: StartServer, run: Run, telling: str) -> None:
    """Where the calls are not, or only a way to them, it says so."""
    code, _, said = run(f"http://127.0.0.1:{start().port}/other", "--known", KNOWN)
    assert (code, "There is no call login" in said) == (2, True)
    code, _, said = run(f"{telling}/moved", "--known", KNOWN)
    assert (code, "which answers 301: are scheme and prefix right?" in said) == (2, True)
