"""The private mongod: started, capped, stopped, never left behind."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from lacking import lacking
from pymongo import MongoClient, WriteConcern

from hydracore.store.embedded import EmbeddedError, Mongod, _mongod, running

pytestmark = pytest.mark.usefixtures("mongod_uri")  # Says why there is none, if there is none.

OWNER = """
import os, signal, sys, time
from pathlib import Path
from hydracore.store.embedded import Mongod
# A handler, not SIG_IGN, which mongod would inherit.
signal.signal(signal.SIGINT, lambda number, frame: os.write(1, b"drains\\n"))
mongod = Mongod(Path(sys.argv[1]))
mongod.start()
mongod.wait_ready()
print(mongod.pid, flush=True)
while True:
    time.sleep(600)
"""


FULL = """
import shutil, sys
from pathlib import Path
from hydracore.store.embedded import EmbeddedError, Mongod
folder = Path(sys.argv[1])
(folder / "fill").write_bytes(bytes(shutil.disk_usage(folder).free - 64 * 1024))
mongod = Mongod(folder)
try:
    mongod.start()
    mongod.wait_ready()
except EmbeddedError as error:
    print(error)
finally:
    mongod.stop()
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


def test_nothing_outside_its_folder(mongod: Mongod, tmp_path: Path) -> None:
    """No socket in /tmp, where those of two users would meet; and the lock is not handed on to mongod."""
    open_files = {str(link.readlink()) for link in Path(f"/proc/{mongod.pid}/fd").iterdir() if link.is_symlink()}
    assert str(tmp_path / "data/lock") not in open_files
    table = [line.split() for line in Path(f"/proc/{mongod.pid}/net/unix").read_text().splitlines()[1:]]
    bound = {Path(line[7]).parent for line in table if len(line) > 7 and f"socket:[{line[6]}]" in open_files}
    assert bound == {tmp_path / "data/run"}


def test_small(mongod: Mongod, tmp_path: Path) -> None:
    """An empty data folder takes less than 30 MB."""
    assert sum(file.lstat().st_blocks * 512 for file in (tmp_path / "data").rglob("*")) < 30_000_000


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


def test_not_found_without_a_server(mongod: Mongod, tmp_path: Path) -> None:
    """A mongod that no server holds the lock for is not taken for a running server's."""
    mongod.leave()
    assert running(tmp_path / "data") is None


def test_looking_does_not_disturb(tmp_path: Path) -> None:
    """A server starts while others look whether one is running."""
    looking = threading.Event()

    def look() -> None:
        while not looking.is_set():
            running(tmp_path / "data")

    others = [threading.Thread(target=look) for _ in range(4)]
    for other in others:
        other.start()
    try:
        for _ in range(3):
            mongod = Mongod(tmp_path / "data")
            mongod.start()
            mongod.wait_ready()
            mongod.stop()
    finally:
        looking.set()
        for other in others:
            other.join()


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


def test_interrupt_is_for_the_owner(owner: Callable[[], tuple[subprocess.Popen[str], int]], tmp_path: Path) -> None:
    """Ctrl-C in the terminal does not reach mongod before its owner has drained."""
    process, pid = owner()
    os.killpg(process.pid, signal.SIGINT)
    assert process.stdout
    assert process.stdout.readline() == "drains\n"
    time.sleep(0.3)
    assert alive(pid)
    uri = running(tmp_path / "data")
    assert uri
    write(uri, "still there")


def test_a_predecessor_that_is_dying(mongod: Mongod, tmp_path: Path) -> None:
    """While the mongod of a killed server is on its way out, the next start waits for it."""
    mongod.leave()  # As if its server were gone.
    successor = Mongod(tmp_path / "data")
    successor.start()
    late = threading.Timer(1, os.kill, (mongod.pid, signal.SIGKILL))
    late.start()
    successor.wait_ready()
    late.join()
    write(successor.uri, "mine")
    successor.stop()


def test_a_mongod_that_hangs(mongod: Mongod) -> None:
    """One that does not end in order is killed at the deadline; stopping twice does no harm."""
    pid = mongod.pid
    os.kill(pid, signal.SIGSTOP)
    mongod.stop(timeout=0.3)
    assert gone(pid)
    mongod.stop()


def test_long_paths(tmp_path: Path) -> None:
    """A data folder too deep for a socket's path works, by a private folder elsewhere."""
    deep = tmp_path / ("d" * 80) / ("e" * 80)
    mongod = Mongod(deep)
    mongod.start()
    mongod.wait_ready()
    write(mongod.uri, "deep")
    assert running(deep) == mongod.uri
    mongod.stop()


@pytest.mark.parametrize("length", [99, 100, 101, 107, 108])
def test_paths_at_the_limit(length: int) -> None:
    """Wherever the line between the two places is drawn, mongod can bind."""
    with tempfile.TemporaryDirectory(prefix="hc-", dir="/tmp") as base:
        folder = Path(base) / ("d" * (length - len(f"{base}//run/mongod.sock")))
        mongod = Mongod(folder)
        mongod.start()
        mongod.wait_ready()
        mongod.stop()
        assert (folder / "run").exists() == (length <= 100)


def test_long_paths_in_another_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The short path is found by a process whose temporary or runtime folder is another."""
    mongod = Mongod(tmp_path / ("d" * 100))
    mongod.start()
    mongod.wait_ready()
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "other"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "other"))
    assert running(tmp_path / ("d" * 100)) == mongod.uri
    mongod.stop()


def test_another_users_trap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that somebody has put where the short path's folder belongs is refused, not followed."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    with tempfile.TemporaryDirectory(prefix="hc-", dir="/tmp") as base:
        monkeypatch.setattr(tempfile, "tempdir", base)
        (Path(base) / "elsewhere").mkdir()
        (Path(base) / f"hydracore-{os.getuid()}").symlink_to(Path(base) / "elsewhere")
        with pytest.raises(EmbeddedError, match=r"hydracore-\d+ must be a folder that belongs to this user alone"):
            Mongod(Path(base) / ("d" * 100)).start()
        assert not list((Path(base) / "elsewhere").iterdir())


def test_another_users_data(tmp_path: Path) -> None:
    """Root starts no mongod on the data of a server that runs as another user, who could not read what it writes; the
    remedy is named."""
    if os.getuid() != 0:
        lacking("root alone gives folders away")
    data = tmp_path / "data"
    (data / "run").mkdir(parents=True)
    for folder in (data, data / "run"):
        os.chown(folder, 65534, 65534)
    with pytest.raises(EmbeddedError, match="do this as that user, or while that server runs"):
        Mongod(data).start()
    assert not list((data / "db").iterdir())


def test_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restart finds the data folder after the process went elsewhere; one old log is kept."""
    monkeypatch.chdir(tmp_path)
    mongod = Mongod(Path("data"))
    mongod.start()
    mongod.wait_ready()
    monkeypatch.chdir("/")
    for _ in range(3):
        os.kill(mongod.pid, signal.SIGKILL)
        while mongod.poll() is None:
            time.sleep(0.01)
        mongod.restart()
        mongod.wait_ready()
    mongod.stop()
    assert sorted(file.name for file in (tmp_path / "data").glob("mongod.log*")) == ["mongod.log", "mongod.log.1"]


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


def fake_mongod(folder: Path) -> Path:
    """One that misses a library, as the wheel's does on a system that it was not built for."""
    folder.mkdir(parents=True)
    fake = folder / "mongod"
    fake.write_text("#!/bin/sh\necho 'error while loading shared libraries: libfoo.so' >&2\nexit 127\n")
    fake.chmod(0o700)
    return fake


def test_one_that_cannot_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the one on PATH is used, and one that cannot run is told with its own words."""
    fake = fake_mongod(tmp_path / "bin")
    monkeypatch.setattr("hydracore.store.embedded.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    with pytest.raises(EmbeddedError, match=r"127.*libfoo\.so.*store\.uri"):
        Mongod(tmp_path / "data").start()


def test_mongod_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the extra's own cannot run, the one on PATH does."""
    fake_mongod(tmp_path / "fiftyone/db/bin")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/mongod").symlink_to(_mongod())
    spec = ModuleSpec("fiftyone", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path / "fiftyone")]
    monkeypatch.setattr("hydracore.store.embedded.find_spec", lambda name: spec)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    mongod = Mongod(tmp_path / "data")
    mongod.start()
    mongod.wait_ready()
    assert Path(f"/proc/{mongod.pid}/cmdline").read_bytes().startswith(os.fsencode(tmp_path / "bin/mongod"))
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
    with pytest.raises(EmbeddedError, match=r"mongod ended.*(corrupt|turtle|WiredTiger).*mongod\.log"):
        broken.wait_ready()
    broken.stop()


def test_disk_full(tmp_path: Path) -> None:
    """On a full disk the operator is told so, not what follows from it."""
    # In a mount namespace of its own, so that the small disk is gone with the process, whatever happens.
    user = [] if os.getuid() == 0 else ["--user", "--map-root-user"]
    alone = ["unshare", *user, "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=3m tmpfs {tmp_path}"
    if not shutil.which("unshare") or subprocess.run([*alone, mount], capture_output=True).returncode:
        # In CI too: no part is missing, containers and chroots just do not let anyone mount.
        pytest.skip("no small disk: this system lets tests mount none")
    command = [*alone, f'{mount} && exec "$@"', "sh", sys.executable, "-c", FULL, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert "no space is left on its disk" in said.stdout, said
