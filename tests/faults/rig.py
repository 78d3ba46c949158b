"""What can fail: a mongod, a network; and nodes that depend on them. All real, on loopback."""

import asyncio
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loops import Loop
from post import PostOffice
from processes import SECRET, Server, until
from pymongo import MongoClient
from pymongo.errors import PyMongoError
from replicas import free_port

from hydracore.store.embedded import _mongod

HOST = "127.0.0.1"


class Mongo:
    """One mongod with a journal."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder, self._options = folder, options
        folder.mkdir(parents=True, exist_ok=True)
        self._binary = _mongod()
        self.port = free_port()
        self.start()

    @property
    def uri(self) -> str:
        return f"mongodb://{HOST}:{self.port}/"

    def start(self) -> None:
        command = [self._binary, "--port", str(self.port), "--bind_ip", HOST, "--dbpath", str(self._folder)]
        quiet = ["--logpath", f"{self._folder}.log", "--logappend", "--unixSocketPrefix", str(self._folder)]
        small = ["--wiredTigerCacheSizeGB", "0.25", "--setParameter", "diagnosticDataCollectionEnabled=false"]
        self.process = subprocess.Popen([*command, *quiet, *small, *self._options], stdout=subprocess.DEVNULL)
        with self.client() as client:
            client.admin.command("ping")

    def client(self) -> MongoClient[Any]:
        return MongoClient(port=self.port, serverSelectionTimeoutMS=20_000, directConnection=True)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@dataclass(eq=False)
class _Wire:
    """One connection through a proxy: who made it, and its two ends."""

    ends: list[asyncio.StreamWriter]
    owner: int = 0
    flows: asyncio.Event = field(default_factory=asyncio.Event)


class Proxy:
    """A network in front of a port.

    ``delay`` is how much later each request gets there, ``delay_back`` each answer here; ``cut`` hangs up on everybody;
    ``silent`` takes what is sent, hands nothing on until it is over, and tells nobody. ``apart`` says which processes
    it is silent to.
    """

    def __init__(self, target: int, loop: Loop | None = None) -> None:
        self._target = target
        self._delay, self._delay_back, self._cut, self._silent = 0.0, 0.0, False, False
        self._apart: Callable[[int], bool] = lambda owner: False
        self._wires: set[_Wire] = set()
        self._loop, self._own = loop or Loop(), loop is None
        self._server = self._loop.run(asyncio.start_server(self._client, HOST, 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    @property
    def uri(self) -> str:
        return f"mongodb://{HOST}:{self.port}/"

    def set(
        self,
        *,
        delay: float = 0.0,
        delay_back: float = 0.0,
        cut: bool = False,
        silent: bool = False,
        apart: Callable[[int], bool] = lambda owner: False,
    ) -> None:
        async def change() -> None:
            self._delay, self._delay_back = delay, delay_back
            self._cut, self._silent, self._apart = cut, silent, apart
            for wire in list(self._wires):
                self._let(wire)
                if cut:
                    for end in wire.ends:
                        end.transport.abort()

        self._loop.run(change())

    def _let(self, wire: _Wire) -> None:
        if self._silent or self._apart(wire.owner):
            wire.flows.clear()
        else:
            wire.flows.set()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Looked up for each connection, in a thread: the answer is in files of the kernel.
        name = writer.get_extra_info("peername")
        wire = _Wire([writer])
        self._wires.add(wire)
        try:
            wire.owner = await asyncio.to_thread(owner_of, name[1]) if name else 0
            self._let(wire)
            await self._connect(wire, reader)
        except (OSError, asyncio.CancelledError):
            pass  # Nobody is there, or the network is taken down: the client is hung up on, as it would be.
        finally:
            self._wires.discard(wire)
            for end in wire.ends:
                end.transport.abort()

    async def _connect(self, wire: _Wire, reader: asyncio.StreamReader) -> None:
        if self._cut:
            return
        await wire.flows.wait()
        there, back = await asyncio.open_connection(HOST, self._target)
        wire.ends.append(back)
        to = self._pump(wire, reader, back, lambda: self._delay)
        fro = self._pump(wire, there, wire.ends[0], lambda: self._delay_back)
        await asyncio.gather(to, fro)

    async def _pump(
        self, wire: _Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, late: Callable[[], float]
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if delay := late():
                    await asyncio.sleep(delay)
                await wire.flows.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()

    def close(self) -> None:
        async def end() -> None:
            self._server.close()
            await asyncio.sleep(0.05)  # Who was just let in is hung up on like the others.
            for wire in list(self._wires):
                for each in wire.ends:
                    each.transport.abort()

        self._loop.run(end())
        if self._own:
            self._loop.close()


# Sockets' inodes to the processes that were asked about: see watch().
_WATCHED: set[int] = set()


def watch(*pids: int) -> None:
    """Processes whose connections :func:`owner_of` knows."""
    _WATCHED.update(pids)


def owner_of(port: int) -> int:
    """Which watched process has the loopback connection from ``port``; 0 for none."""
    if not _WATCHED:
        return 0
    wanted = f":{port:04X}"
    lines = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    inodes = {f"socket:[{parts[9]}]" for parts in lines if parts[1].endswith(wanted)}
    for pid in list(_WATCHED):
        with suppress(OSError):
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    if str(descriptor.readlink()) in inodes:
                        return pid
    return 0


class Members:
    """A replica set of three whose every connection, their own and their clients', goes through a proxy."""

    def __init__(self, folder: Path) -> None:
        _WATCHED.clear()
        self._loop = Loop()
        options = ("--replSet", "rs", "--oplogSize", "64")
        self.members = [Mongo(folder / str(number), *options) for number in range(3)]
        watch(*(member.process.pid for member in self.members))
        self.proxies = [Proxy(member.port, self._loop) for member in self.members]
        members = [{"_id": number, "host": f"{HOST}:{proxy.port}"} for number, proxy in enumerate(self.proxies)]
        settings = {"electionTimeoutMillis": 2000, "heartbeatIntervalMillis": 500, "catchUpTimeoutMillis": 2000}
        with self.members[0].client() as client:
            client.admin.command("replSetInitiate", {"_id": "rs", "members": members, "settings": settings})
        self.primary()

    @property
    def uri(self) -> str:
        return f"mongodb://{','.join(f'{HOST}:{proxy.port}' for proxy in self.proxies)}/?replicaSet=rs"

    def primary(self, among: tuple[int, ...] = (0, 1, 2), within: float = 30) -> int:
        """The number of the member that takes writes, once there is one ``among`` these."""
        found: list[int] = []

        def there() -> bool:
            for number in among:
                with suppress(PyMongoError), self.members[number].client() as client:
                    if client.admin.command("hello").get("isWritablePrimary"):
                        found.append(number)
                        return True
            return False

        assert until(there, within), "no primary"
        return found[0]

    def command(self, number: int, name: str, value: Any = 1, **more: Any) -> Any:
        with self.members[number].client() as client:
            return client.admin.command(name, value, **more)

    def split(self, number: int, *with_it: int) -> None:
        """Part one member, and the processes ``with_it``, from the others and theirs."""
        side = {self.members[number].process.pid, *with_it}
        for each, proxy in enumerate(self.proxies):
            # Who is nobody we watch is on no side: tests themselves ask members directly.
            proxy.set(apart=lambda owner, here=each == number: owner != 0 and (owner in side) != here)

    def heal(self) -> None:
        for proxy in self.proxies:
            proxy.set()

    def close(self) -> None:
        for member in self.members:
            member.kill()
        for proxy in self.proxies:
            proxy.close()
        self._loop.close()
        _WATCHED.clear()


def by_smtp(office: PostOffice, **more: str) -> dict[str, str]:
    return {
        "HYDRACORE_MAIL__TRANSPORT": "smtp",
        "HYDRACORE_MAIL__SENDER": "Example <no-reply@example.com>",
        "HYDRACORE_PLUGINS__MAIL_SMTP__HOST": HOST,
        "HYDRACORE_PLUGINS__MAIL_SMTP__PORT": str(office.port),
        "HYDRACORE_PLUGINS__MAIL_SMTP__SECURITY": "none",
        # A message that a killed worker had in hand waits for this and half a minute more.
        "HYDRACORE_MAIL__TIMEOUT": "5",
        **more,
    }


def over(uri: str, **more: str) -> dict[str, str]:
    """A node's settings over a database. The grace is long: nobody here is signed out for a fault that lasts."""
    return {"HYDRACORE_STORE__URI": uri, "HYDRACORE_SECRET": SECRET, **more}


Nodes = Callable[..., Server]
Operator = Callable[..., str]
