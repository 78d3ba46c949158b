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
import tempfile
import time
from pathlib import Path

from client import BODY, Server, ask, read, written

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


def server(folder: Path, uri: str, database: str, listeners: int) -> Server:
    plugins = folder / f"plugins{listeners}"
    plugins.mkdir()
    names = [f"quiet{number}" for number in range(listeners)]
    for name in names:
        (plugins / f"{name}.py").write_text(PLUGIN)
    more = {
        "HYDRACORE_PASSWORD__PROFILE": "testing",
        "HYDRACORE_PLUGINS__DIR": str(plugins),
        "HYDRACORE_PLUGINS__ENABLED": json.dumps(names),
    }
    return Server(folder, uri, database, 18700 + listeners, **more)


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
        servers = [server(folder, mongod.uri, "bench_none", 0), server(folder, mongod.uri, "bench_ten", 10)]
        try:
            await compare(servers, chosen)
        finally:
            for each in servers:
                each.stop()
            mongod.stop()


async def compare(servers: list[Server], chosen: argparse.Namespace) -> None:
    requests: dict[str, list[bytes]] = {"me": [], "login": []}
    for each in servers:
        await each.ready()
        _, body = await ask(each.port, "POST", "/auth/register", BODY)
        tokens = json.loads(body)
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
