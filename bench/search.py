"""How long an administrator's search by the beginning of an address takes with a million accounts, as a client of the
Admin API sees it, its entry in the audit included. Ends with 1 where it is longer than it may be."""

import argparse
import asyncio
import random
import string
import sys
import tempfile
import time
from datetime import timedelta
from http.client import HTTPConnection
from pathlib import Path

from load import machine
from scale import Town
from servers import Running, hydracore

from hydracore import HydraCore
from hydracore.flows.admin_tokens import create_token
from hydracore.flows.audit import Admin
from hydracore.models import Actor
from hydracore.store.embedded import Mongod

_PORT, _ADMIN_PORT = 18980, 18981
_MAY_TAKE = 50.0  # Milliseconds, of 99 in a hundred.


async def settled(town: Town) -> str:
    """A token for the town, which is filled."""
    await town.settle()
    async with HydraCore(town.config, deliver_mail=False) as hydra:
        admin = Admin(hydra.services, Actor("cli", "0", "bench"))
        text, _ = await create_token(admin, "bench", ["users:read"], timedelta(hours=12))
        return text


def prefixes(size: int, count: int) -> list[str]:
    """From one letter, which all addresses begin with, to whole addresses, and some that nobody has."""
    chance = random.Random()  # noqa: S311  # any will do
    names = [f"person{chance.randrange(size)}@example.com" for _ in range(count)]
    found = [name[: chance.randint(1, len(name))] for name in names]
    return [*found, *(f"{letter}nobody" for letter in string.ascii_lowercase)]


def times(token: str, asked: list[str]) -> list[float]:
    """Milliseconds of each search, the shortest first."""
    connection, took = HTTPConnection("127.0.0.1", _ADMIN_PORT, timeout=60), []
    for prefix in asked:
        began = time.perf_counter()
        connection.request("GET", f"/admin/users?email={prefix}", headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        answer.read()
        took.append((time.perf_counter() - began) * 1000)
        if answer.status != 200:
            raise SystemExit(f"{prefix}: {answer.status}")
    return sorted(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--searches", type=int, default=1000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        mongod = Mongod(folder / "mongod", cache_mb=4096)
        mongod.start()
        mongod.wait_ready()
        try:
            town = Town(chosen.size, mongod.uri, folder)
            token = asyncio.run(settled(town))
            served = {"HYDRACORE_STORE__DATABASE": town.database, "HYDRACORE_ADMIN__PORT": str(_ADMIN_PORT)}
            running = Running(hydracore("search", **served), 1, _PORT, mongod.uri, folder)
            try:
                running.wait()
                times(token, prefixes(chosen.size, 20))
                took = times(token, prefixes(chosen.size, chosen.searches))
            finally:
                running.stop()
        finally:
            mongod.stop()
    p50, p99 = (took[int(len(took) * part)] for part in (0.5, 0.99))
    print(f"{machine()}.\n{chosen.size:,} accounts, {len(took)} searches: p50 {p50:.1f} ms, p99 {p99:.1f} ms.")
    sys.exit(p99 > _MAY_TAKE)


if __name__ == "__main__":
    main()
