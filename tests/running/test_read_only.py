"""A container as docs/running describes one, made by hand, as a unit with ProtectSystem=strict is one, too: the root is
read-only, nobody has a capability, and the server is process 1."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
from lacking import lacking
from processes import LOGIN, children, gone, settings, until
from replicas import free_port

# What is mounted here nobody sees but the server.
LOCKED_IN = """
set -e
mount --bind "$DATA" "$DATA"
mount -t tmpfs -o size=64m tmpfs "$TMPDIR"
mount -o remount,bind,ro /
if touch "$OUTSIDE/file" 2>/dev/null; then echo "the root can be written to" >&2; exit 9; fi
exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all --ambient-caps=-all "$@"
"""


@pytest.fixture
def container() -> Iterator[list[str]]:
    """What a command is put behind to be process 1 of one."""
    apart = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
    tried = subprocess.run([*apart, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, text=True)
    if tried.returncode != 0:
        lacking(f"no container can be made here: {tried.stderr.strip()}")
    yield [*apart, "sh", "-c", LOCKED_IN, "sh"]


def asked(port: int, method: str, path: str, body: object = None) -> tuple[int, object]:
    connection = HTTPConnection("127.0.0.1", port, timeout=15)
    try:
        raw = None if body is None else json.dumps(body)
        connection.request(method, path, raw, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def ready(port: int) -> bool:
    try:
        return asked(port, "GET", "/health/ready")[0] == 200
    except OSError:
        return False


def test_a_read_only_root(tmp_path: Path, container: list[str]) -> None:
    """With its data folder and a temporary one to write to, and nothing else, it starts its mongod, measures, takes a
    registration and mails; SIGTERM ends it in order though it is process 1, and all that it has started."""
    for name in ("data", "tmp", "outside"):
        (tmp_path / name).mkdir()
    port = free_port()
    environment = settings(
        DATA=str(tmp_path / "data"),
        TMPDIR=str(tmp_path / "tmp"),
        OUTSIDE=str(tmp_path / "outside"),
        PYTHONDONTWRITEBYTECODE="1",
        HYDRACORE_DATA_DIR=str(tmp_path / "data"),
        HYDRACORE_SERVER__PORT=str(port),
        HYDRACORE_SERVER__WORKERS="2",
        HYDRACORE_MANAGEMENT__PORT=str(free_port()),
    )
    log = tmp_path / "server.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*container, sys.executable, "-m", "hydracore", "serve"],
            cwd=tmp_path,
            env=environment,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        assert until(lambda: ready(port) or process.poll() is not None, 60), log.read_text()
        assert process.poll() is None, log.read_text()
        assert asked(port, "POST", "/auth/register", LOGIN)[0] == 201
        assert until(lambda: any((tmp_path / "data/mail").glob("*.eml")))
        [first] = children(process.pid)["worker"]
        started = children(first)
        assert len(started["mongod"]) == 1
        os.kill(first, signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()
        assert gone(*started["mongod"], *started["worker"])
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in log.read_text()
    assert list((tmp_path / "outside").iterdir()) == []
