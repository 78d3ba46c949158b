"""``hydracore selftest``, against servers that tell and servers that do not."""

import json
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from processes import StartServer, settings

KNOWN = "ada@example.com"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def done(*arguments: str, **environment: str) -> tuple[int, str, str]:
        result = subprocess.run(
            [sys.executable, "-m", "hydracore", "selftest", "enumeration", *arguments],
            cwd=tmp_path,
            env=settings(**environment),
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert "Traceback" not in result.stderr
        return result.returncode, result.stdout, result.stderr

    return done


@pytest.mark.parametrize("profile", ["testing", "standard"])
def test_ours_tells_nothing(start: StartServer, run: Run, profile: str) -> None:
    """Our own calls answer the same; their times differ by nothing that the noise of this machine does not explain."""
    server = start(HYDRACORE_PASSWORD__PROFILE=profile)
    server.register(KNOWN)
    url = f"http://127.0.0.1:{server.port}/auth"
    code, out, said = run(url, "--known", KNOWN, "--mail", "--samples", "40", "--tolerance-ms", "30", "--json")
    found = {each["call"]: each for each in json.loads(out)}
    assert set(found) == {"login", "token", "verify-email", "resend-verification", "forgot-password"}
    assert {each["verdict"] for each in found.values()} == {"same"}, out
    assert code == 0
    assert "Asking http://127.0.0.1" in said


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

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        basic = self.headers.get("Authorization", "").partition(" ")[2]
        is_known = KNOWN in body or KNOWN in b64decode(basic).decode()
        way = self.path.split("/")[1]
        if way == "slow" and is_known:
            time.sleep(0.03)
        self.send_response(403 if way == "status" and is_known else 401)
        if way == "header" and is_known:
            self.send_header("X-Known", "yes\x9b31m")
        if way == "cookie":
            self.send_header("Set-Cookie", f"visit={time.time_ns()}; Path={'/a' if is_known else '/'}")
        text = b"wrong password" if way == "body" and is_known else b"wrong"
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def telling() -> Iterator[str]:
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
        ("status", "403"),
        ("body", "wrong password"),
        ("header", "x-known"),
        ("cookie", "Path=/"),
        ("slow", "their times differ"),
    ],
)
def test_what_tells_is_found(telling: str, run: Run, way: str, said: str) -> None:
    """Another status, body, header, cookie or time is a difference, and is named without its control characters."""
    code, out, _ = run(f"{telling}/{way}", "--known", KNOWN, "--samples", "25")
    assert code == 1, out
    assert said in out
    assert "\x9b" not in out


def test_what_is_none(run: Run, telling: str) -> None:
    """A wrong address, a wrong URL, a server that is not there: one sentence, and exit code 2."""
    assert run(telling, "--known", "ada")[0] == 2
    assert run("ftp://x", "--known", KNOWN)[2].startswith("hydracore: ftp://x is no address of a server")
    code, _, said = run("http://127.0.0.1:9", "--known", KNOWN)
    assert (code, "does not answer" in said) == (2, True)


def test_a_wrong_prefix(start: StartServer, run: Run) -> None:
    """Where the calls are not, it says so."""
    code, _, said = run(f"http://127.0.0.1:{start().port}/other", "--known", KNOWN)
    assert (code, "There is no call login" in said) == (2, True)
