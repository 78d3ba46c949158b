"""The private mongod: on a Unix socket under the data folder, for this server alone, and never left behind."""

import ctypes
import fcntl
import hashlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, unquote

from hydracore.errors import StartupError

_PR_SET_PDEATHSIG = 1
# A Unix socket's path has 108 bytes, 104 on macOS; mongod's own name for one is 3 longer than ours.
_LONGEST_SOCKET_PATH = 100
_LOCKED = "Unable to lock the lock file"
_SCHEME = "mongodb://"
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
        self._dir = data_dir.absolute()  # A restart after a chdir finds it again.
        self._log = self._dir / "mongod.log"
        self._cache_mb = cache_mb
        self._lock: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._socket = _socket_path(self._dir)
        self._binary = ""
        self._started_at = 0.0
        self.uri = _SCHEME + quote(str(self._socket), safe="")

    def start(self) -> None:
        """Spawn. Raises :class:`EmbeddedError`."""
        try:
            self._dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self._dir / "db").mkdir(mode=0o700, exist_ok=True)
            self._lock = _lock(self._dir, self.uri)
            run = self._socket.parent
            for folder in (run,) if run.parent == self._dir.resolve() else (run.parent, run):
                _private_folder(folder)
            self._rotate()
            self._spawn()
        except BaseException as error:
            self._unlock()
            if not isinstance(error, OSError):
                raise
            raise EmbeddedError(
                f"The data folder {self._dir} cannot be used: {error.strerror or error} ({error.filename}). "
                "Choose another with data_dir."
            ) from error

    def restart(self) -> None:
        """Spawn again, after it has died; the lock was never given up. Raises :class:`EmbeddedError`."""
        with suppress(OSError):
            self._rotate()
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
                raise EmbeddedError(f"The embedded mongod ended with {_ending(code, reason)}. See {self._log}.")
            if time.monotonic() > deadline:
                reason = reason or self._last_words()
                raise EmbeddedError(f"The embedded mongod did not answer in {timeout:g} s: {reason}. See {self._log}.")
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

    def _rotate(self) -> None:
        if self._log.exists():
            self._log.replace(self._log.with_suffix(".log.1"))

    def _spawn(self) -> None:
        self._binary = self._binary or _mongod()
        try:
            self._socket.unlink(missing_ok=True)  # Left by a mongod that was killed; the lock is ours.
            # Emptied, so that its last words are those of this mongod and not of the one before.
            log = os.open(self._log, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_TRUNC, 0o600)
            try:
                self._process = subprocess.Popen(  # noqa: S603  # our own arguments
                    [self._binary, *self._arguments()],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is for the server, which stops it when it has drained.
                    preexec_fn=_become_child(os.getpid()),
                )
            finally:
                os.close(log)
        except OSError as error:
            raise EmbeddedError(
                f"The embedded mongod cannot be started: {error.strerror or error} ({error.filename})."
            ) from error
        self._started_at = time.monotonic()

    def _arguments(self) -> list[str]:
        return [
            *("--dbpath", str(self._dir / "db")),
            *("--bind_ip", str(self._socket)),
            *("--port", "0"),
            # It opens mongodb-<port>.sock besides, in /tmp unless told: two users' would meet there, and one dies.
            *("--unixSocketPrefix", str(self._socket.parent)),
            *("--filePermissions", "0700"),
            *("--logpath", str(self._log), "--logappend"),
            *("--wiredTigerCacheSizeGB", f"{max(self._cache_mb, 256) / 1024:.2f}"),
            # 290 MB less on disk; and 35 MB less memory than for the 33,000 sessions that are the default.
            *("--wiredTigerEngineConfigString", "log=(file_max=10MB,prealloc=false),session_max=4096"),
            *("--networkMessageCompressors", "disabled"),
            # A slow operation is logged with its documents: addresses and hashes are not for a log.
            *("--slowms", "3600000"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
        ]

    def _last_words(self) -> str:
        """What mongod said before it ended, for an operator."""
        with suppress(OSError):
            if shutil.disk_usage(self._dir).free < 1 << 20:
                return "no space is left on its disk"  # Nor for its log.
            return _reason(self._log)
        return ""

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def running(data_dir: Path) -> str | None:
    """Where the mongod of a server that runs on this folder answers; None when there is none."""
    try:
        descriptor = os.open(data_dir / "lock", os.O_RDONLY)
    except OSError:
        return None
    try:
        # Read, not worked out again: with another TMPDIR or XDG_RUNTIME_DIR the path may be another.
        _, _, uri = os.read(descriptor, 4096).decode("ascii", "replace").strip().partition("\n")
        if not uri or not _answers(Path(unquote(uri.removeprefix(_SCHEME)))):
            return None
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return uri
    finally:
        os.close(descriptor)
    return None


_REMEDY = (
    'Install one (pip install "hydracore[embedded]", or MongoDB\'s own package), '
    "or set store.uri to a MongoDB server that runs already."
)


def _mongod() -> str:
    """The first that runs here: the wheel's may miss a library (libcurl, OpenSSL 3) or fit another processor."""
    problems = []
    for path in _candidates():
        try:
            tried = subprocess.run(  # noqa: S603  # our own arguments
                [path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            problems.append(f"{path} cannot be run: {getattr(error, 'strerror', None) or error}.")
            continue
        if tried.returncode == 0:
            return path
        hint = " On Debian and Ubuntu: apt install libcurl4." if "libcurl" in tried.stderr else ""
        problems.append(f"{path} ended with {_ending(tried.returncode, tried.stderr.strip()[:500])}.{hint}")
    problem = " ".join(problems) or "There is no mongod on this machine for the embedded database."
    raise EmbeddedError(f"{problem} {_REMEDY}")


def _candidates() -> list[str]:
    spec = find_spec("fiftyone")
    folders = (spec.submodule_search_locations or []) if spec else []
    bundled = [str(Path(folder) / "db" / "bin" / "mongod") for folder in folders]
    on_path = shutil.which("mongod")
    return [path for path in bundled if Path(path).exists()] + ([on_path] if on_path else [])


def _ending(code: int, reason: str) -> str:
    if code == -signal.SIGILL:
        reason = "it was built for another kind of processor"
    return f"{code}: {reason or 'it gave no reason'}"


def _reason(log: Path) -> str:
    """The first complaint in mongod's log: those that follow from it say less. Else its last message."""
    message = ""
    for line in log.read_text("utf-8", "replace").splitlines():
        if not line.startswith("{"):
            if line.strip():
                return line.strip()[:500]  # The loader's, say, of a library that is not there.
            continue
        with suppress(ValueError):
            entry = json.loads(line)
            message = str(entry.get("msg", ""))
            if entry.get("s") in ("E", "F"):
                return f"{message}: {_detail(entry.get('attr', {}))}".strip(": ")[:500]
    return message


def _detail(attributes: dict[str, object]) -> str:
    said = attributes.get("message") or attributes.get("error") or ""
    return f"{said.get('msg', '')}: {said.get('error_str', '')}" if isinstance(said, dict) else str(said)


def _socket_path(data_dir: Path) -> Path:
    folder = Path(os.path.realpath(data_dir))
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    shared = f"hydracore-{os.getuid()}"
    bases = [Path(tempfile.gettempdir()) / shared, Path("/tmp") / shared]  # noqa: S108  # _private_folder looks at it
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and _is_ours(Path(runtime)):
        bases.insert(0, Path(runtime) / "hydracore")
    folders = [folder / "run", *(base / name for base in bases)]
    paths = [run / "mongod.sock" for run in folders]
    return next(path for path in paths if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH)


def _is_ours(folder: Path) -> bool:
    try:
        state = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid()


def _private_folder(folder: Path) -> None:
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if not _is_ours(folder):
        raise EmbeddedError(
            f"{folder} must be a folder that belongs to this user alone. If a server of another user has its data "
            "there, do this as that user, or while that server runs; else remove it, or choose another data_dir."
        )
    folder.chmod(0o700)


def _lock(data_dir: Path, uri: str) -> int:
    descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _take(descriptor, data_dir)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n{uri}\n".encode(), 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _take(descriptor: int, data_dir: Path) -> None:
    # For half a second, because running() holds it for a moment, and so does a server that is being killed.
    for wait in (0.1, 0.2, 0.2, 0):
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(wait)
    holder = os.read(descriptor, 20).decode("ascii", "replace").partition("\n")[0] or "unknown"
    raise EmbeddedError(
        f"The data folder {data_dir} is in use by process {holder}. Stop that server, choose another data_dir, "
        "or set store.uri to a MongoDB server that several can share."
    )


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
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
        # acknowledged is in its journal. Nor can it unlink the socket that its successor has just bound.
        end_with_parent(parent, signal.SIGKILL)

    return prepare
