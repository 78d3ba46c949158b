"""The servers that are compared: how each is started, and what its processes use."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

SECRET = "a-secret-of-the-benchmark-that-is-long-enough"  # noqa: S105  # of a benchmark
CONTENDERS = Path(__file__).parent / "contenders"
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Contender:
    """``command`` and ``environment`` may hold {port}, {workers}, {uri} and {folder}; ``ready`` is a path that answers
    200. ``calls`` maps a call to the path that it has there."""

    name: str
    command: tuple[str, ...]
    ready: str
    calls: Mapping[str, str]
    environment: Mapping[str, str] = field(default_factory=dict)


_CALLS = ("login", "wrong", "token", "refresh", "me", "logout", "register")
_AUTH = {call: f"/auth/{call}" for call in _CALLS} | {"me-new": "/auth/me"}
_HYDRACORE = {
    "HYDRACORE_STORE__URI": "{uri}",
    "HYDRACORE_STORE__DATABASE": "bench",
    "HYDRACORE_SECRET": SECRET,
    "HYDRACORE_DATA_DIR": "{folder}",
    "HYDRACORE_MAIL__ALLOW_UNDELIVERED": "true",
    "HYDRACORE_LIMITS__ENABLED": "false",
    "HYDRACORE_LOG__LEVEL": "warning",
}
_SERVE = (sys.executable, "-m", "hydracore", "serve", "--port", "{port}", "--workers", "{workers}")
# Every rule counts, and none refuses.
_COUNTING = {
    f"HYDRACORE_LIMITS__{name}": "999999/300"
    for name in ("LOGIN_ADDRESS_NETWORK", "LOGIN_ADDRESS", "LOGIN_NETWORK", "REGISTER_NETWORK")
}


def hydracore(name: str, *calls: str, **environment: str) -> Contender:
    """``hydracore serve``; without ``calls`` it is asked for all of them."""
    asked = {call: _AUTH[call] for call in calls or _AUTH}
    return Contender(name, _SERVE, "/health/ready", asked, {**_HYDRACORE, **environment})


FIELD = (
    hydracore("hydracore"),
    hydracore("hydracore, limits on", "login", "register", **_COUNTING, HYDRACORE_LIMITS__ENABLED="true"),
    hydracore("hydracore, me cached", "me", HYDRACORE_TOKENS__CACHE_TTL="5"),
    Contender(
        "hydracore, embedded",
        (sys.executable, str(CONTENDERS / "host.py"), "{port}", "{workers}"),
        "/health/ready",
        _AUTH,
        _HYDRACORE,
    ),
    Contender(
        "fastapi-users",
        (
            *(sys.executable, "-m", "uvicorn", "--app-dir", str(CONTENDERS), "fastapi_users_app:app"),
            *("--port", "{port}", "--workers", "{workers}", "--loop", "uvloop", "--http", "httptools"),
            *("--log-level", "warning", "--no-access-log"),
        ),
        "/openapi.json",
        {
            "login": "/auth/jwt/login",
            "wrong": "/auth/jwt/login",
            "me": "/users/me",
            "register": "/auth/register",
        },
        {"BENCH_URI": "{uri}"},
    ),
    Contender(
        "bare tornado",
        (sys.executable, str(CONTENDERS / "bare.py"), "{port}", "{workers}", "{uri}", "tornado"),
        "/nothing",
        {"nothing": "/nothing", "find": "/find", "update": "/update"},
    ),
    Contender(
        "bare httptools",
        (sys.executable, str(CONTENDERS / "bare.py"), "{port}", "{workers}", "{uri}", "httptools"),
        "/nothing",
        {"nothing": "/nothing"},
    ),
)

# What single settings give: each beside the server as it is shipped.
LEVERS = (
    hydracore("hydracore"),
    hydracore("on asyncio", HYDRACORE_SERVER__LOOP="asyncio"),
    hydracore("on Tornado's server", HYDRACORE_SERVER__HTTP="tornado"),
    hydracore("2 hashing threads a worker", **{"HYDRACORE_PASSWORD__HASH_THREADS": "2"}),
    hydracore("4 operations", HYDRACORE_STORE__OPERATIONS="4"),
    hydracore("a log line a request", HYDRACORE_LOG__LEVEL="info"),
    hydracore("me cached", HYDRACORE_TOKENS__CACHE_TTL="5"),
)


class Running:
    """One contender at work, and its processes' figures."""

    def __init__(self, contender: Contender, workers: int, port: int, uri: str, folder: Path) -> None:
        self.contender, self.workers, self.port = contender, workers, port
        self.took = 0.0
        """Seconds until it was ready."""
        filled = {"port": str(port), "workers": str(workers), "uri": uri, "folder": str(folder)}
        environment = {name: value.format(**filled) for name, value in contender.environment.items()}
        command = [part.format(**filled) for part in contender.command]
        self._log = folder / f"{contender.name}-{workers}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  # our own commands
                command, env={**os.environ, **environment}, stdout=log, stderr=log, cwd=folder, start_new_session=True
            )

    def wait(self) -> None:
        """Raises ``SystemExit`` where it does not get ready."""
        url = f"http://127.0.0.1:{self.port}{self.contender.ready}"
        started = time.perf_counter()
        for _ in range(1000):
            try:
                with urlopen(url, timeout=5):  # our own server
                    self.took = time.perf_counter() - started
                    return
            except (URLError, OSError):
                time.sleep(0.02)
            if self._process.poll() is not None:
                break
        raise SystemExit(f"{self.contender.name} does not start:\n{self._log.read_text()[-2000:]}")

    def cpu(self) -> float:
        """Seconds of processor time that its processes have used."""
        return sum(cpu_of(pid) for pid in tree(self._process.pid))

    def memory(self) -> float:
        """MiB of proportional set size, a worker."""
        return sum(pss_of(pid) for pid in tree(self._process.pid)) / self.workers

    def stop(self) -> None:
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(20)
        with suppress(ProcessLookupError):  # Some leave their workers behind.
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def tree(pid: int) -> Iterator[int]:
    yield pid
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text().split():
            yield from tree(int(child))


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def pss_of(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
