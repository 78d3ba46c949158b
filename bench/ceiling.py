"""What the machine can hash: argon2id with HydraCore's parameters, in as many low-priority threads as there are cores.

``python ceiling.py SECONDS`` prints how many a second.
"""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher

from hydracore.threads import be_nice


def main(seconds: float) -> None:
    hash_ = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)
    cores = len(os.sched_getaffinity(0))
    encoded = hash_.hash("correct horse battery staple")
    ends = time.perf_counter() + seconds

    def work() -> int:
        done = 0
        while time.perf_counter() < ends:
            hash_.verify(encoded, "correct horse battery staple")
            done += 1
        return done

    with ThreadPoolExecutor(cores, initializer=be_nice) as pool:
        started = time.perf_counter()
        jobs = [pool.submit(work) for _ in range(cores)]
        done = sum(job.result() for job in jobs)
        print(done / (time.perf_counter() - started))


if __name__ == "__main__":
    main(float(sys.argv[1]))
