"""Asks one call so many times a second, whatever becomes of the requests before, and prints the times as JSON.

``python probe.py PORT FILE RATE SECONDS``; FILE holds one request.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

from client import read


async def main(port: int, request: bytes, rate: float, seconds: float) -> None:
    free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    times: list[float] = []
    refused = 0

    async def ask() -> None:
        nonlocal refused
        before = time.perf_counter()
        pair = free.pop() if free else await asyncio.open_connection("127.0.0.1", port)
        pair[1].write(request)
        status, _ = await read(pair[0])
        free.append(pair)
        times.append((time.perf_counter() - before) * 1000)
        refused += status != 200

    loop = asyncio.get_running_loop()
    started, tasks = loop.time(), set()
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, started + number / rate - loop.time()))
        task = loop.create_task(ask())
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    print(json.dumps({"refused": refused, "times": times}))


if __name__ == "__main__":
    _, port, file, rate, seconds = sys.argv
    length, _, rest = Path(file).read_bytes().partition(b"\n")
    asyncio.run(main(int(port), rest[: int(length)], float(rate), float(seconds)))
