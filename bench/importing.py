"""What moving in and out costs: 100,000 accounts imported by the command line, the same file a second time, and all of
them exported, on a mongod of its own.

Their hashes are strong argon2id ones, which stay as they are: where hashes are wrapped, each costs one argon2id more,
which `hydracore bench hash` measures.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from hydracore.store.embedded import Mongod

_HASH = "$argon2id$v=19$m=19456,t=2,p=1$c29tZSBvdGhlciBzYWx0$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"


@dataclass(frozen=True)
class Took:
    """Seconds by the clock, and the most memory that the process had, in MiB."""

    seconds: float
    memory: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accounts", type=int, default=100_000)
    count = parser.parse_args().accounts
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines, out = folder / "in.jsonl", folder / "out.jsonl"
        write(lines, count)
        mongod = Mongod(folder / "data")
        mongod.start()
        try:
            mongod.wait_ready()
            for verb, command in (
                ("imported", ("import", str(lines))),
                ("imported again", ("import", str(lines))),
                ("exported", ("export", str(out))),
            ):
                took = run(mongod.uri, folder, *command)
                rate = count / took.seconds
                print(f"{verb:15} {count} in {took.seconds:.1f} s, {rate:.0f} a second, {took.memory:.0f} MiB")
        finally:
            mongod.stop()
        with out.open() as exported:
            if sum(1 for _ in exported) != count:
                sys.exit("not all that was imported was exported")


def write(file: Path, count: int) -> None:
    with file.open("w") as out:
        for number in range(count):
            line = {"id": f"u{number}", "email": f"user{number}@example.com", "email_verified": True}
            out.write(json.dumps({**line, "created_at": "2024-05-01T12:00:00Z", "password_hash": _HASH}) + "\n")


def run(uri: str, folder: Path, *command: str) -> Took:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HYDRACORE_")},
        "HYDRACORE_STORE__URI": uri,
        "HYDRACORE_SECRET": "a-secret-of-the-benchmark-that-is-long-enough",
        "HYDRACORE_MAIL__ALLOW_UNDELIVERED": "true",
    }
    began = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603  # our own command
        [sys.executable, "-m", "hydracore", "users", *command], cwd=folder, env=environment, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"users {command[0]} failed")
    return Took(time.perf_counter() - began, usage.ru_maxrss / 1024)


if __name__ == "__main__":
    main()
