"""A replica set of real mongods on loopback."""

import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from random import SystemRandom

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from hydracore.store.embedded import _mongod

_ANY = SystemRandom()


def free_port() -> int:
    """One that nobody has, and that the system gives nobody who asks for any or connects: it stays free."""
    while True:
        port = _ANY.randrange(20_000, 32_000)
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


class ReplicaSet:
    """Three members, elections within a second or two."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ports = [free_port() for _ in range(3)]
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        for port in self.ports:
            self.start(port)
        for port in self.ports:  # One that does not listen yet would be refused as a member.
            with MongoClient(port=port, directConnection=True, serverSelectionTimeoutMS=30_000) as client:
                client.admin.command("ping")
        members = [{"_id": number, "host": f"127.0.0.1:{port}"} for number, port in enumerate(self.ports)]
        settings = {"electionTimeoutMillis": 2000, "heartbeatIntervalMillis": 500}
        with MongoClient(port=self.ports[0], directConnection=True, serverSelectionTimeoutMS=20_000) as client:
            client.admin.command("replSetInitiate", {"_id": "rs", "members": members, "settings": settings})
        self.primary()

    @property
    def uri(self) -> str:
        return f"mongodb://{','.join(f'127.0.0.1:{port}' for port in self.ports)}/?replicaSet=rs"

    def start(self, port: int) -> None:
        data = self._folder / str(port)
        data.mkdir(exist_ok=True)
        command = [_mongod(), "--replSet", "rs", "--port", str(port), "--bind_ip", "127.0.0.1", "--dbpath", str(data)]
        quiet = ["--logpath", str(data / "log"), "--unixSocketPrefix", str(data), "--wiredTigerCacheSizeGB", "0.25"]
        small = ["--oplogSize", "64", "--setParameter", "diagnosticDataCollectionEnabled=false"]
        self._processes[port] = subprocess.Popen([*command, *quiet, *small], stdout=subprocess.DEVNULL)

    def primary(self, within: float = 30) -> int:
        """The port of the member that takes writes, once there is one."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            for port in self.ports:
                with (
                    suppress(PyMongoError),
                    MongoClient(port=port, directConnection=True, serverSelectionTimeoutMS=500) as client,
                ):
                    if client.admin.command("hello").get("isWritablePrimary"):
                        return port
            time.sleep(0.1)
        raise AssertionError("no primary")

    def step_down(self) -> None:
        with MongoClient(port=self.primary(), directConnection=True) as client, suppress(PyMongoError):
            client.admin.command("replSetStepDown", 10, secondaryCatchUpPeriodSecs=5)

    def kill(self, port: int) -> None:
        self._processes[port].kill()
        self._processes[port].wait()

    def close(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()
