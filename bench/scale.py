"""What a call costs as a deployment grows: with a thousand, a hundred thousand and a million accounts, each with a
session; and what more workers give.

A server for each size on one mongod; they take turns, so that a busy machine slows all of them. Load comes from wrk,
and asks for accounts at random. Hashing costs next to nothing here: it is the same at any size.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
from collections import defaultdict
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from feeds import PASSWORD, Feed, bearer, feed, settle, written
from load import CLIENTS, Sample, machine, median, need_wrk, ratio, shuffled, wrk
from servers import SECRET, Running, cpu_of, hydracore

from hydracore import HydraCore
from hydracore.config import load
from hydracore.models import Session, User
from hydracore.secret import ServerSecret
from hydracore.store.embedded import Mongod
from hydracore.tokens import RefreshTokens

CALLS = ("me", "refresh", "login", "forgot-password")
_BATCH = 5000
# More than a server remembers of anything: each request finds its documents, and proves its token, anew.
_ASKED = 50_000
_CHEAP = {"HYDRACORE_PASSWORD__PROFILE": "testing"}
_MOST_FRESH = 100_000
_FIRST_PORT = 18900
_BEGAN = datetime.now(UTC).replace(microsecond=0)


class Town:
    """A database with ``size`` accounts, and requests of some of them."""

    def __init__(self, size: int, uri: str, folder: Path) -> None:
        self.size = size
        self._folder = folder
        self._fresh = iter(random.sample(range(size), k=min(size, _MOST_FRESH)))
        # What fills it is not measured, and a busy disk breaks none of that off.
        there = {"uri": uri, "database": self.database, "timeout": 120}
        overrides: dict[str, Any] = {"store": there, "secret": SECRET}
        quiet = {"mail": {"allow_undelivered": True}, "password": {"profile": "testing"}}
        self.config = load(environment={}, overrides={**overrides, **quiet})

    @property
    def database(self) -> str:
        return f"town{self.size}"

    async def settle(self) -> None:
        """Fill the database."""
        async with HydraCore(self.config, deliver_mail=False) as hydra:
            services = hydra.services
            encoded = await services.passwords.hash(PASSWORD)
            users, sessions = (services.store.collection(name) for name in ("users", "sessions"))
            for first in range(0, self.size, _BATCH):
                numbers = range(first, min(first + _BATCH, self.size))
                people = [self._user(number, encoded) for number in numbers]
                await users.insert_many([_document(user) for user in people], ordered=False)
                await sessions.insert_many([_document(self._session(number)) for number in numbers], ordered=False)

    async def feeds(self) -> dict[str, Feed]:
        """Requests of accounts at random, for every call but refresh."""
        async with HydraCore(self.config, deliver_mail=False) as hydra:
            services = hydra.services
            asked = random.choices(range(self.size), k=_ASKED)  # noqa: S311  # any will do
            people = [(self._user(number, ""), self._session(number)) for number in asked]
            access = [services.access.issue(user, session, {}) for user, session in people]
            bodies = {
                "login": [{"email": user.email, "password": PASSWORD} for user, _ in people],
                "forgot-password": [{"email": user.email} for user, _ in people],
            }
            requests = {
                call: [written("POST", f"/auth/{call}", json.dumps(body)) for body in each]
                for call, each in bodies.items()
            }
            requests["me"] = [written("GET", "/auth/me", **bearer(token)) for token in access]
            return {call: feed(self._folder / f"{self.database}-{call}", each) for call, each in requests.items()}

    async def weigh(self) -> dict[str, dict[str, float]]:
        """Bytes a document: as BSON, on disk, and in its indexes."""
        async with HydraCore(self.config, deliver_mail=False) as hydra:
            found = {}
            for name in ("users", "sessions"):
                stats = await hydra.services.store.collection(name).database.command("collStats", name)
                kept = {"BSON": "size", "disk": "storageSize", "indexes": "totalIndexSize"}
                found[name] = {what: stats[key] / stats["count"] for what, key in kept.items()}
            return found

    def refreshes(self) -> Feed:
        """Chains of sessions that nobody has refreshed yet."""
        tokens = RefreshTokens(ServerSecret(SECRET))
        sessions = [self._session(next(self._fresh)).id for _ in range(CLIENTS)]
        bodies = [json.dumps({"refresh_token": tokens.issue(session_id, 1)}) for session_id in sessions]
        requests = [written("POST", "/auth/refresh", body) for body in bodies]
        return replace(feed(self._folder / f"{self.database}-refresh", requests), chained=True)

    @staticmethod
    def _user(number: int, encoded: str) -> User:
        name = f"person{number}@example.com"
        return User(f"user{number:018}", name, name, encoded, _BEGAN, email_verified=True)

    @staticmethod
    def _session(number: int) -> Session:
        end = _BEGAN + timedelta(days=14)
        return Session(f"session{number:017}", f"user{number:018}", 0, 1, _BEGAN, _BEGAN, end, end)


def _document(value: Any) -> dict[str, Any]:
    fields = asdict(value)
    return {"_id": fields.pop("id"), **fields}


class Scale:
    """The sizes side by side; and one of them with more and more workers."""

    def __init__(self, chosen: argparse.Namespace, folder: Path) -> None:
        self._chosen = chosen
        self._folder = folder
        self._mongod = Mongod(folder / "mongod", cache_mb=4096)
        self._running: dict[tuple[int, int], Running] = {}
        self._towns: dict[int, Town] = {}
        self._feeds: dict[int, dict[str, Feed]] = {}
        self.sizes: dict[int, dict[str, dict[str, float]]] = {}
        self.samples: dict[tuple[str, int, int], list[Sample]] = defaultdict(list)

    def run(self) -> None:
        self._mongod.start()
        self._mongod.wait_ready()
        try:
            for size in self._chosen.sizes:
                self._open(size)
            for number in range(self._chosen.rounds + 1):  # The first round warms up.
                print(f"round {number} of {self._chosen.rounds} …", file=sys.stderr, flush=True)
                self._round(number)
            self.sizes = {size: asyncio.run(town.weigh()) for size, town in self._towns.items()}
        finally:
            for each in self._running.values():
                each.stop()
            self._mongod.stop()

    def _open(self, size: int) -> None:
        print(f"{size:,} accounts …", file=sys.stderr, flush=True)
        town = self._towns[size] = Town(size, self._mongod.uri, self._folder)
        asyncio.run(town.settle())
        self._feeds[size] = asyncio.run(town.feeds())
        middle = self._chosen.sizes[len(self._chosen.sizes) // 2]
        for workers in self._chosen.workers if size == middle else [1]:
            contender = hydracore(
                f"town {size}",
                HYDRACORE_STORE__DATABASE=town.database,
                **_CHEAP,
            )
            port = _FIRST_PORT + len(self._running)
            self._running[size, workers] = Running(contender, workers, port, self._mongod.uri, self._folder)
            self._running[size, workers].wait()

    def _round(self, number: int) -> None:
        for call in CALLS:
            for size, workers in shuffled(list(self._running), number):
                asked = self._towns[size].refreshes() if call == "refresh" else self._feeds[size][call]
                sample = self._measure(self._running[size, workers], asked, call)
                if number:
                    self.samples[call, size, workers].append(sample)

    def _measure(self, each: Running, asked: Feed, call: str) -> Sample:
        for town in self._towns.values():
            settle(self._mongod.uri, town.database)
        before = each.cpu(), cpu_of(self._mongod.pid)
        told = wrk(each.port, asked, CLIENTS, CLIENTS, self._chosen.seconds)
        spent = each.cpu() - before[0], cpu_of(self._mongod.pid) - before[1]
        done = told["requests"]
        if told["broken"] or told["status"]:
            raise SystemExit(f"{each.contender.name}, {call}: {told}")
        costs = [seconds * 1000 / done for seconds in spent]
        return Sample(done / told["seconds"], told["p50"], told["p99"], *costs, 0.0)


def tell(scale: Scale, chosen: argparse.Namespace) -> None:
    print(f"{machine()}.")
    print(f"{chosen.rounds} rounds of {chosen.seconds} s a call, taking turns, {CLIENTS} clients; medians.\n")
    smallest, middle = chosen.sizes[0], chosen.sizes[len(chosen.sizes) // 2]
    print("| call | accounts | workers | a second | p50 | p99 | server | mongod | of the smallest | of one worker |")
    print(f"|{' --- |' * 3}{' --: |' * 7}")
    for (call, size, workers), samples in scale.samples.items():
        rate, p50, p99 = (median(samples, of) for of in ("rate", "p50", "p99"))
        costs = " | ".join(f"{median(samples, of):.2f} ms" for of in ("server", "database"))
        smaller = ratio(samples, scale.samples[call, smallest, 1]) if workers == 1 else ""
        fewer = ratio(samples, scale.samples[call, middle, 1]) if size == middle else ""
        cells = [call, f"{size:,}", workers, f"{rate:.0f}", f"{p50:.1f} ms", f"{p99:.1f} ms", costs, smaller, fewer]
        print(f"| {' | '.join(map(str, cells))} |")

    print("\n| collection | accounts | bytes a document, as BSON | on disk | of indexes |")
    print(f"|{' --- |' * 2}{' --: |' * 3}")
    for size, collections in scale.sizes.items():
        for name, kept in collections.items():
            print(f"| {name} | {size:,} | " + " | ".join(f"{value:.0f}" for value in kept.values()) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 100_000, 1_000_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4], help="for the middle size")
    chosen = parser.parse_args()
    need_wrk()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        scale = Scale(chosen, Path(name))
        scale.run()
    tell(scale, chosen)


if __name__ == "__main__":
    main()
