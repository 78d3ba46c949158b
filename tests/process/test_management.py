"""The management listener of real processes: workers that count together, and die."""

import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from math import ceil
from pathlib import Path

from measured import value
from processes import Server, StartServer, gone, own, until
from prometheus_client.multiprocess import MultiProcessCollector

from hydracore.threads import cores

LIVE = {"route": "/health/live", "status": "2xx"}
REQUESTS = "hydracore_http_requests_total"


def managed(start: StartServer, folder: Path, uri: str, **more: str) -> tuple[Server, int]:
    """A server of two workers, and the port of its management listener."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    settings = {"HYDRACORE_MANAGEMENT__PORT": str(port), "TMPDIR": str(temporary), **more}
    return start("--workers", "2", **own(uri, "management", **settings)), port


def asked(port: int, path: str = "/metrics") -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=15)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def counted(port: int) -> float:
    return value(asked(port)[1], REQUESTS, **LIVE)


def by_place(folder: Path) -> list[float]:
    """What each worker has counted, as its own file has it."""
    [shared] = (folder / "tmp").glob("hydracore-metrics-*")
    found = []
    for place in range(2):
        metrics = MultiProcessCollector.merge([str(shared / f"counter_{place}.db")])
        samples = [sample for metric in metrics for sample in metric.samples]
        found.append(
            sum(each.value for each in samples if each.name == REQUESTS and LIVE.items() <= each.labels.items())
        )
    return found


def ask_until_both_have_counted(server: Server, folder: Path) -> int:
    """How many requests that took."""
    sent = 0
    with ThreadPoolExecutor(8) as crowd:
        while not all(by_place(folder)) or not sent:
            list(crowd.map(lambda _: server.ask("GET", "/health/live"), range(40)))
            sent += 40
            assert sent < 4000
    return sent


def test_workers_share_the_cores(start: StartServer, tmp_path: Path, mongod_uri: str) -> None:
    """However many workers there are, they hash in one thread a core, and in one each at least; or in as many as the
    configuration says."""
    queue = {"HYDRACORE_PASSWORD__HASH_QUEUE": "10"}
    server, port = managed(start, tmp_path, mongod_uri, **queue)
    assert until(lambda: value(asked(port)[1], "hydracore_hashes_capacity") == 2 * (ceil(cores() / 2) + 10))
    server.stop()
    server, port = managed(start, tmp_path, mongod_uri, **queue, HYDRACORE_PASSWORD__HASH_THREADS="3")
    assert until(lambda: value(asked(port)[1], "hydracore_hashes_capacity") == 2 * (3 + 10))


def test_workers_count_together(start: StartServer, tmp_path: Path, mongod_uri: str) -> None:
    """What two workers count adds up to what was sent, whichever is asked; nothing of it is public. A worker that is
    killed takes nothing back, and says nothing any more of how it stands; who replaces it goes on counting. The folder
    goes at the end."""
    server, port = managed(start, tmp_path, mongod_uri)
    sent = ask_until_both_have_counted(server, tmp_path)
    assert until(lambda: counted(port) == sent)
    assert server.ask("GET", "/metrics")[0] == 404
    assert {path: asked(port, path)[0] for path in ("/health/live", "/health/ready", "/auth/me")} == {
        "/health/live": 200,
        "/health/ready": 200,
        "/auth/me": 404,
    }
    sent += 1
    before, [victim, *_] = counted(port), server.children()["worker"]
    assert before == sent
    os.kill(victim, signal.SIGKILL)
    seen: list[tuple[float, float]] = []

    def replaced() -> bool:
        try:
            text = asked(port)[1]
        except (OSError, HTTPException):  # It was the victim that had taken the connection.
            return False
        seen.append((value(text, REQUESTS, **LIVE), value(text, "hydracore_workers")))
        return value(text, "hydracore_worker_starts_total") == 3 and seen[-1][1] == 2

    assert until(replaced)
    assert {number for number, _ in seen} == {before}
    assert {workers for _, workers in seen} <= {1, 2}
    more = ask_until_both_have_counted(server, tmp_path)
    assert until(lambda: counted(port) == before + more)
    assert server.lines("managing")[0]["addresses"] == [f"http://127.0.0.1:{port}"]
    assert server.stop() == 0
    assert not list((tmp_path / "tmp").iterdir())


def test_leftovers(start: StartServer, tmp_path: Path, mongod_uri: str) -> None:
    """What a server has left behind that was killed with all its workers goes with the next start, and counts nowhere;
    what a running one has stays."""
    first, port = managed(start, tmp_path, mongod_uri)
    ask_until_both_have_counted(first, tmp_path)
    [left] = (tmp_path / "tmp").glob("hydracore-metrics-*")
    below = first.children()["worker"]
    first.process.kill()
    first.process.wait()
    assert gone(*below)
    second, port = managed(start, tmp_path, mongod_uri)
    assert not left.exists()
    [kept] = (tmp_path / "tmp").glob("hydracore-metrics-*")
    assert counted(port) == 0
    third, _ = managed(start, tmp_path, mongod_uri)
    assert kept.exists()
    assert len(list((tmp_path / "tmp").glob("hydracore-metrics-*"))) == 2
    assert (second.stop(), third.stop()) == (0, 0)


def test_port_taken(start: StartServer, tmp_path: Path) -> None:
    """A management port on which another listens stops the start before anything has begun, by the key's name."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = start(wait=False, HYDRACORE_MANAGEMENT__PORT=str(port))
        assert server.process.wait(60) == 2
    assert f"Cannot listen on 127.0.0.1 port {port}" in server.log.read_text()
    assert "another management.host or management.port" in server.log.read_text()
    assert not (server.folder / "hydracore-data").exists()
