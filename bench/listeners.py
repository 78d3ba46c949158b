"""What listeners cost: ``/auth/me``, which announces nothing, and ``/auth/login`` (at next to no hashing cost), which
announces one event, with ten plugins that listen in both ways and do nothing, beside the same server without.

Two servers on the same database take turns, so that a busy machine slows both. ``make bench`` runs it.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hydracore.store.embedded import Mongod

PLUGIN = """
from hydracore.plugin import EventListener, events, hookimpl


class Plugin:
    def __init__(self, context):
        self.name = context.name

    @hookimpl
    async def hydracore_on_event(self, event):
        pass

    @hookimpl
    def hydracore_register_event_listeners(self):
        return [EventListener(self.name, self.listen)]

    async def listen(self, batch):
        pass
"""
BODY = '{"email": "ada@example.com", "password": "correct horse battery staple"}'


class Server:
    """A server process and one account's tokens."""

    def __init__(self, folder: Path, uri: str, database: str, listeners: int) -> None:
        plugins = folder / f"plugins{listeners}"
        plugins.mkdir()
        names = [f"quiet{number}" for number in range(listeners)]
        for name in names:
            (plugins / f"{name}.py").write_text(PLUGIN)
        self.port = 18700 + listeners
        environment = {
            **os.environ,
            "HYDRACORE_STORE__URI": uri,
            "HYDRACORE_STORE__DATABASE": database,
            "HYDRACORE_SECRET": "a-secret-of-the-benchmark-that-is-long-enough",
            "HYDRACORE_MAIL__ALLOW_UNDELIVERED": "true",
            "HYDRACORE_DATA_DIR": str(folder / database),
            "HYDRACORE_LIMITS__ENABLED": "false",
            "HYDRACORE_PASSWORD__PROFILE": "testing",
            "HYDRACORE_LOG__LEVEL": "error",
            "HYDRACORE_PLUGINS__DIR": str(plugins),
            "HYDRACORE_PLUGINS__ENABLED": str(names).replace("'", '"'),
        }
        command = [sys.executable, "-m", "hydracore", "serve", "--port", str(self.port)]
        self.process = subprocess.Popen(command, env=environment, cwd=folder)  # noqa: S603  # our own server

    async def ready(self) -> None:
        for _ in range(200):
            try:
                status, _ = await ask(self.port, "GET", "/health/ready")
            except OSError:
                status = 0
            if status == 200:
                return
            await asyncio.sleep(0.05)
        raise SystemExit("the server does not start")

    async def tokens(self) -> dict[str, Any]:
        _, body = await ask(self.port, "POST", "/auth/register", BODY)
        return dict(json.loads(body))


async def ask(port: int, method: str, path: str, body: str = "", token: str = "") -> tuple[int, bytes]:
    """One request on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(written(method, path, body, token))
    status, answer = await read(reader)
    writer.close()
    return status, answer


def written(method: str, path: str, body: str = "", token: str = "") -> bytes:
    bearer = f"Authorization: Bearer {token}\r\n" if token else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{bearer}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


async def read(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    return int(head.split(b" ", 2)[1]), await reader.readexactly(int(length.partition(b":")[2]))


async def rate(port: int, request: bytes, clients: int, seconds: float) -> float:
    """Requests a second, all of them answered 200."""
    ends, done = time.perf_counter() + seconds, 0

    async def client() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < ends:
            writer.write(request)
            status, body = await read(reader)
            if status != 200:
                raise SystemExit(f"{status}: {body!r}")
            done += 1
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return done / seconds


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--clients", type=int, default=16)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        mongod = Mongod(folder / "mongod")
        mongod.start()
        mongod.wait_ready()
        servers = [Server(folder, mongod.uri, "bench_none", 0), Server(folder, mongod.uri, "bench_ten", 10)]
        try:
            await compare(servers, chosen)
        finally:
            for server in servers:
                server.process.terminate()
                server.process.wait()
            mongod.stop()


async def compare(servers: list[Server], chosen: argparse.Namespace) -> None:
    requests: dict[str, list[bytes]] = {"me": [], "login": []}
    for server in servers:
        await server.ready()
        tokens = await server.tokens()
        requests["me"].append(written("GET", "/auth/me", token=tokens["access_token"]))
        requests["login"].append(written("POST", "/auth/login", BODY))
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; one worker each, ", end=""
    )
    print(f"{chosen.clients} clients, {chosen.rounds} rounds of {chosen.seconds} s, taking turns")
    for call, pair in requests.items():
        ratios, rates = [], ([], [])
        for turn in range(chosen.rounds + 1):
            both = [0.0, 0.0]
            for which in ((0, 1), (1, 0))[turn % 2]:
                both[which] = await rate(servers[which].port, pair[which], chosen.clients, chosen.seconds)
            ratios.append(both[1] / both[0])
            for kept, one in zip(rates, both, strict=True):
                kept.append(one)
        medians = [statistics.median(kept[1:]) for kept in rates]  # The first round warms up.
        print(f"{call:8} none {medians[0]:7.0f}/s   ten listeners {medians[1]:7.0f}/s   ", end="")
        print(f"ratio {statistics.median(ratios[1:]):.3f} ({min(ratios[1:]):.3f} to {max(ratios[1:]):.3f})")


if __name__ == "__main__":
    asyncio.run(main())
