"""HydraCore beside its peers and beside the limits of the machine, in one run on one mongod.

Every contender is started with one worker and with two; then they take turns, call by call and round by round, so that
a busy machine slows all of them. Load comes from wrk, a process of its own. ``make bench`` runs it.
"""

import argparse
import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from feeds import Feed, Feeds, settle
from load import CLIENTS, HERE, Sample, machine, median, need_wrk, ratio, shuffled, wrk, wrk_command
from servers import FIELD, LEVERS, Running, cpu_of

from hydracore.store.embedded import Mongod

CALLS = ("login", "wrong", "token", "register", "refresh", "me", "me-new", "logout", "nothing", "find", "update")
_HASHING = ("login", "wrong", "token", "register")
_STORM = 32
_PROBES = 100
_FIRST_PORT = 18800


class Bench:
    def __init__(self, chosen: argparse.Namespace, folder: Path) -> None:
        self._chosen = chosen
        self.levers = chosen.levers
        self._folder = folder
        self._mongod = Mongod(folder / "mongod", cache_mb=1024)
        self._running: list[Running] = []
        self.samples: dict[tuple[str, str, int], list[Sample]] = defaultdict(list)
        self.ceiling: list[float] = []
        self.storm: dict[tuple[str, int], list[tuple[list[float], list[float]]]] = defaultdict(list)
        self.memory: dict[tuple[str, int], tuple[float, float, float]] = {}

    def run(self) -> None:
        self._mongod.start()
        self._mongod.wait_ready()
        try:
            self._start()
            for number in range(self._chosen.rounds):
                print(f"round {number + 1} of {self._chosen.rounds} …", file=sys.stderr, flush=True)
                self._round(number)
            for each in self._running:
                figures = (each.took, self._rest[id(each)], each.memory())
                self.memory[each.contender.name, each.workers] = figures
        finally:
            for each in self._running:
                each.stop()
            self._mongod.stop()

    def _start(self) -> None:
        field = LEVERS if self.levers else FIELD
        chosen = [each for each in field if re.search(self._chosen.only, each.name)]
        for contender in chosen:
            for workers in self._chosen.workers:
                port = _FIRST_PORT + len(self._running)
                each = Running(contender, workers, port, self._mongod.uri, self._folder)
                self._running.append(each)
                each.wait()
        self._rest = {id(each): each.memory() for each in self._running}
        self._feeds = Feeds(self._folder, self._mongod.uri)
        self._feeds.people([each for each in self._running if each.contender.name == "fastapi-users"][:1])

    def _round(self, number: int) -> None:
        for call in self._chosen.calls:
            able = [each for each in self._running if call in each.contender.calls]
            for each in shuffled(able, number):
                self.samples[call, each.contender.name, each.workers].append(self._measure(each, call))
        self.ceiling.append(float(_python("ceiling.py", str(self._chosen.seconds))))
        for each in self._running if self._chosen.storm else []:
            if {"me", "login"} <= set(each.contender.calls):
                self.storm[each.contender.name, each.workers].append(self._in_a_storm(each))

    def _measure(self, each: Running, call: str) -> Sample:
        feed = self._feeds.of(each, call, CLIENTS)
        self._load(each, feed, 1)
        if feed.used_up:  # By the warm-up.
            feed = self._feeds.of(each, call, CLIENTS)
        settle(self._mongod.uri)
        before = each.cpu(), cpu_of(self._mongod.pid), _client()
        told = self._load(each, feed, self._chosen.seconds)
        spent = each.cpu() - before[0], cpu_of(self._mongod.pid) - before[1], _client() - before[2]
        done = told["requests"]
        if told["broken"] or told["status"] != (done if feed.refused else 0) or done > feed.most:
            raise SystemExit(f"{each.contender.name}, {call}: {told}")
        costs = [seconds * 1000 / done for seconds in spent]
        return Sample(done / told["seconds"], told["p50"], told["p99"], *costs)

    def _load(self, each: Running, feed: Feed, seconds: int) -> dict[str, Any]:
        return wrk(each.port, feed, CLIENTS, CLIENTS, seconds)

    def _in_a_storm(self, each: Running) -> tuple[list[float], list[float]]:
        """The probe's times in milliseconds, quiet and while 32 clients sign in."""
        me, login = self._feeds.of(each, "me", 1), self._feeds.of(each, "login", 1)
        settle(self._mongod.uri)
        asked = str(each.port), str(me.file), str(_PROBES), str(self._chosen.seconds + 1)
        quiet = json.loads(_python("probe.py", *asked))
        command = wrk_command(each.port, login, 1, _STORM, self._chosen.seconds + 2)
        storm = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603  # wrk
        stormy = json.loads(_python("probe.py", *asked))
        told = json.loads(storm.communicate()[0].splitlines()[-1])
        if told["broken"] or told["status"] or quiet["refused"] or stormy["refused"]:
            raise SystemExit(f"{each.contender.name}, storm: {told}, refused {quiet['refused']} {stormy['refused']}")
        return quiet["times"], stormy["times"]


def _python(script: str, *arguments: str) -> str:
    command = [sys.executable, str(HERE / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603  # ours


def _client() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# -- telling ---------------------------------------------------------------------------------------


def tell(bench: Bench, chosen: argparse.Namespace) -> None:
    print(f"{machine('fastapi-users', 'beanie', 'uvicorn')}.")
    print(f"{chosen.rounds} rounds of {chosen.seconds} s a call, taking turns, {CLIENTS} clients; medians.\n")
    ceiling = statistics.median(bench.ceiling)
    print(f"argon2id alone, on all cores: {ceiling:.1f} a second\n")
    head = "| call | contender | workers | a second | of the limit | p50 | p99 | server | mongod | client |"
    print(f"{head}\n|{' --- |' * 3}{' --: |' * 7}")
    for (call, name, workers), samples in bench.samples.items():
        of_limit = ratio(samples, _limit(bench, call, name, workers))
        rate, p50, p99 = (median(samples, of) for of in ("rate", "p50", "p99"))
        costs = " | ".join(f"{median(samples, of):.2f} ms" for of in ("server", "database", "client"))
        print(f"| {call} | {name} | {workers} | {rate:.0f} | {of_limit} | {p50:.1f} ms | {p99:.1f} ms | {costs} |")
    if bench.storm:
        print(f"\n| me, {_PROBES} a second | workers | quiet p50 | quiet p99 | storm p50 | storm p99 |")
        print(f"|{' --- |' * 2}{' --: |' * 4}")
    for (name, workers), pairs in bench.storm.items():
        both = [sorted(time for pair in pairs for time in pair[which]) for which in (0, 1)]
        cells = [times[int(len(times) * part)] for times in both for part in (0.5, 0.99)]
        print(f"| {name} | {workers} | " + " | ".join(f"{cell:.1f} ms" for cell in cells) + " |")
    print("\n| contender | workers | ready after | PSS a worker at rest | PSS after the run |")
    print(f"|{' --- |' * 2}{' --: |' * 3}")
    for (name, workers), (took, rest, after) in bench.memory.items():
        print(f"| {name} | {workers} | {took:.2f} s | {rest:.0f} MiB | {after:.0f} MiB |")


def _limit(bench: Bench, call: str, name: str, workers: int) -> Sequence[Sample]:
    """What a call is measured against, round by round: the hashes alone, a bare handler, or the server as shipped."""
    if bench.levers:
        return bench.samples[call, "hydracore", workers]
    if call in _HASHING:
        return [Sample(rate, 0, 0, 0, 0, 0) for rate in bench.ceiling]
    if call == "me" and "cached" in name:
        return bench.samples.get(("nothing", "bare httptools", workers), [])
    bare = {"me": "find", "me-new": "find", "refresh": "update", "nothing": "nothing"}.get(call, "")
    return bench.samples.get((bare, "bare tornado", workers), [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--calls", nargs="+", default=list(CALLS), choices=CALLS)
    parser.add_argument("--only", default="", help="contenders whose name matches this expression")
    parser.add_argument("--levers", action="store_true", help="single settings of HydraCore instead of its peers")
    parser.add_argument("--no-storm", dest="storm", action="store_false")
    chosen = parser.parse_args()
    need_wrk()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        bench = Bench(chosen, Path(name))
        bench.run()
    tell(bench, chosen)


if __name__ == "__main__":
    main()
