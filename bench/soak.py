"""Whether a worker's memory stays flat: all calls together, for minutes, and its proportional set size all the while.

``python soak.py --minutes 10``; it ends with 1 where the last third of the samples is more than a tenth above the
second.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from feeds import Feeds
from load import machine, need_wrk, wrk_command
from servers import Running, hydracore

from hydracore.store.embedded import Mongod

_CALLS = ("login", "wrong", "token", "register", "refresh", "me", "logout")
_TURN = 5
_MOST_GROWTH = 0.1


def sample(each: Running, feeds: Feeds, minutes: float) -> list[float]:
    """MiB, once a turn: a turn is some seconds of one call by four clients."""
    sizes, ends, number = [], time.monotonic() + minutes * 60, 0
    while time.monotonic() < ends:
        call = _CALLS[number % len(_CALLS)]
        command = wrk_command(each.port, feeds.of(each, call, 4), 4 if call == "refresh" else 1, 4, _TURN)
        subprocess.run(command, capture_output=True, check=False)  # noqa: S603  # wrk
        sizes.append(each.memory())
        number += 1
    return sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    chosen = parser.parse_args()
    need_wrk()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        mongod = Mongod(folder / "mongod")
        mongod.start()
        mongod.wait_ready()
        each = Running(hydracore("hydracore"), 1, 18990, mongod.uri, folder)
        try:
            each.wait()
            rest = each.memory()
            feeds = Feeds(folder, mongod.uri)
            feeds.people([])
            sizes = sample(each, feeds, chosen.minutes)
        finally:
            each.stop()
            mongod.stop()
    third = max(1, len(sizes) // 3)
    middle, last = statistics.median(sizes[third : 2 * third] or sizes), statistics.median(sizes[-third:])
    print(f"{machine()}.\n{chosen.minutes:g} minutes of all calls in turn, 4 clients, one worker.")
    then = f"{middle:.0f} in the second third, {last:.0f} in the last, {max(sizes):.0f} at most"
    print(f"MiB of PSS: {rest:.0f} at rest, {then}")
    sys.exit(last > middle * (1 + _MOST_GROWTH))


if __name__ == "__main__":
    main()
