"""Processes are killed, stopped and started; nodes of other versions and with other clocks; broken secrets."""

import json
import os
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import MISSING, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from figures import Bounds, Suffer, calm
from processes import LOGIN, Server, gone, until
from rig import Mongo, Nodes, Proxy

from hydracore.models import Code, MailIntent, Refusal, Session, SigningKey, User

# What a client sees of a server that is gone: it has not answered, and has not begun to.
GONE = {"ConnectionRefusedError", "ConnectionResetError", "RemoteDisconnected", "BrokenPipeError"}
# Messages that one worker has in hand at once: as many may come twice when it is killed.
IN_HAND = 4


def test_kill_9_of_workers(mongo: Mongo, nodes: Nodes, suffer: Suffer) -> None:
    """One worker of two is killed under load, and then the other: the one that is left serves, each is replaced, and
    five seconds later everybody is served. Only the killed worker's connections break."""
    server = nodes(mongo.uri, "--workers", "2")

    def fault() -> None:
        for _ in range(2):
            assert until(lambda: len(server.children()["worker"]) == 2)
            killed = server.children()["worker"][0]
            os.kill(killed, signal.SIGKILL)
            assert server.ask("GET", "/health/live")[0] == 200  # By whoever is left.
            assert until(lambda killed=killed: killed not in server.children()["worker"])  # type: ignore[misc]

    ledger = suffer([server], fault, Bounds(within=5, cut=True, twice=2 * IN_HAND, unanswered=10))
    assert set(ledger.broken) <= GONE
    assert ledger.answers[503] == 0


def test_kill_9_of_the_parent(mongo: Mongo, nodes: Nodes, suffer: Suffer) -> None:
    """The parent is killed under load: its workers end with it, nothing acknowledged is lost, and five seconds after
    the next start everybody is served."""
    servers = [nodes(mongo.uri, "--workers", "2")]

    def fault() -> None:
        below = servers[0].children()["worker"]
        servers[0].stop(signal.SIGKILL)
        assert gone(*below)
        servers[0] = nodes(mongo.uri, "--workers", "2")

    suffer(servers, fault, Bounds(within=5, cut=True, twice=2 * IN_HAND))


def test_kill_9_of_the_embedded_mongod(nodes: Nodes, suffer: Suffer) -> None:
    """The server's own mongod is killed under load: it is started again by itself, 503 until then, and fifteen seconds
    after its end everybody is served."""
    server = nodes("")

    def fault() -> None:
        [pid] = server.children()["mongod"]
        os.kill(pid, signal.SIGKILL)
        assert gone(pid)

    suffer([server], fault, Bounds(within=15))
    assert server.lines("the embedded mongod ended, it is started again")


def test_kill_9_of_all(nodes: Nodes, suffer: Suffer) -> None:
    """Server, workers and embedded mongod are killed at once under load, as when the power fails: nothing acknowledged
    is lost, and fifteen seconds after the next start everybody is served."""
    servers = [nodes("", "--workers", "2")]

    def fault() -> None:
        below = servers[0].children()
        for pid in (servers[0].process.pid, *below["mongod"], *below["worker"]):
            os.kill(pid, signal.SIGKILL)
        servers[0].process.wait()
        assert gone(*below["mongod"], *below["worker"])
        servers[0] = nodes("", "--workers", "2")

    suffer(servers, fault, Bounds(within=15, cut=True, twice=2 * IN_HAND))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_stopped_in_turn(mongo: Mongo, nodes: Nodes, suffer: Suffer, number: signal.Signals) -> None:
    """Two nodes are stopped and started anew one after the other under load, by SIGTERM or by SIGHUP: they end with 0,
    no answer is cut short, no mail comes twice, and nobody gets a 503; five seconds later everybody is served."""
    servers = [nodes(mongo.uri, "--workers", "2", folder=name) for name in ("one", "two")]

    def fault() -> None:
        for place, name in enumerate(("one", "two")):
            assert servers[place].stop(number) == 0
            servers[place] = nodes(mongo.uri, "--workers", "2", folder=name)

    ledger = suffer(servers, fault, Bounds(within=5, cut=True))
    assert set(ledger.broken) <= GONE
    assert ledger.answers[503] == 0


@pytest.mark.short
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_requests_in_flight(mongo: Mongo, nodes: Nodes, number: signal.Signals) -> None:
    """Twenty sign-ins that are under way when it is asked to stop are all answered, and then it ends with 0."""
    network = Proxy(mongo.port)
    try:
        server = nodes(network.uri, HYDRACORE_STORE__TIMEOUT="30", HYDRACORE_LOG__LOAD_EVERY="1")
        server.register()
        network.set(silent=True)
        with ThreadPoolExecutor(20) as pool:
            asked = [pool.submit(server.post, "login", LOGIN) for _ in range(20)]
            assert until(lambda: [line["requests"] for line in server.lines("load")][-1:] == [20])
            server.process.send_signal(number)
            assert until(lambda: bool(server.lines("stopping")))
            network.set()
            assert {answer.result()[0] for answer in asked} == {200}
        assert server.process.wait(15) == 0
        calm(server)
    finally:
        network.close()


@pytest.mark.short
def test_nodes_that_start_at_once(mongo: Mongo, nodes: Nodes, suffer: Suffer) -> None:
    """Four nodes start at once on an empty database: they agree on one signing key and on the indexes, and a crowd that
    goes to any of them notices nothing."""
    starting = [nodes(mongo.uri, folder=f"node{number}", wait=False) for number in range(4)]
    servers = [server.wait() for server in starting]
    [published] = {json.dumps(server.ask("GET", "/.well-known/jwks.json")[1], sort_keys=True) for server in servers}
    assert len(json.loads(published)["keys"]) == 1
    with mongo.client() as client:
        assert client["hydracore"].users.index_information()["address_key_1"]["unique"]
        assert client["hydracore"].keys.count_documents({}) == 1
    ledger = suffer(servers, lambda: None, Bounds(within=5))
    assert ledger.unknown == 0


MODELS: dict[str, type[Any]] = {
    "users": User,
    "sessions": Session,
    "codes": Code,
    "outbox": MailIntent,
    "keys": SigningKey,
    "refusals": Refusal,
}
# Queries name these: every node that there ever was has written them.
FROM_THE_FIRST = {"users": {"email_verified", "disabled", "epoch"}, "outbox": {"dead", "due_at", "lease"}}


def defaults(collection: str) -> dict[str, Any]:
    """What a document may lack, and what that stands for."""
    found = {}
    for item in fields(MODELS[collection]):
        if item.default_factory is not MISSING:
            found[item.name] = item.default_factory()
        elif item.default is not MISSING:
            found[item.name] = item.default
    return {name: value for name, value in found.items() if name not in FROM_THE_FIRST.get(collection, ())}


def make_older(database: Any) -> Counter[str]:
    """Leave out of every document what says no more than its absence; how often, by collection."""
    changed: Counter[str] = Counter()
    for collection in MODELS:
        for name, default in defaults(collection).items():
            result = database[collection].update_many({name: default}, {"$unset": {name: ""}})
            changed[collection] += result.modified_count
    return changed


def test_nodes_of_other_versions(mongo: Mongo, nodes: Nodes, suffer: Suffer) -> None:
    """An older node writes documents without any member that has a default beside this one, in every collection, and a
    newer one documents with members that this one does not know: everybody is served meanwhile, and what it does not
    know it leaves alone."""
    server = nodes(mongo.uri)
    tomorrow = {"of_tomorrow": {"a": [1, 2]}}
    older: Counter[str] = Counter()

    def fault() -> None:
        ends = time.monotonic() + 6
        with mongo.client() as client:
            database = client["hydracore"]
            while time.monotonic() < ends:
                older.update(make_older(database))
                for collection in MODELS:
                    database[collection].update_many({}, {"$set": tomorrow})

    ledger = suffer([server], fault, Bounds(within=5), before=1)
    assert ledger.unknown == 0
    # A refusal is never written without its end.
    assert {collection for collection, count in older.items() if count} == {*MODELS} - {"refusals"}
    with mongo.client() as client:
        database = client["hydracore"]
        assert database.users.count_documents({"epoch": {"$gt": 0}, **tomorrow}) > 0
        assert database.sessions.count_documents({"generation": {"$gt": 0}, **tomorrow}) > 0
        make_older(database)
        # As written by a node that knew none of them: the address still has one account, and its owner gets in.
        person = next(person for person in ledger.people if person.registered and not person.unsure)
    again = {"email": person.email, "password": person.password}
    assert server.post("register", again)[0] == 409
    assert server.post("login", again)[0] == 200
    calm(server)


SHIFTED = """
import datetime
import os
import time

_time, _real = time.time, datetime.datetime
_seen = [-1.0, 0.0]


def _ahead():
    # Looked up now and then: it may change in the middle of everything.
    if time.monotonic() - _seen[0] > 0.02:
        with open(os.environ["SHIFTED_BY"]) as file:
            _seen[:] = time.monotonic(), float(file.read())
    return _seen[1]


class _Any(type):
    def __instancecheck__(cls, value):
        return isinstance(value, _real)


class datetime_(_real, metaclass=_Any):
    @classmethod
    def now(cls, tz=None):
        return _real.now(tz) + datetime.timedelta(seconds=_ahead())


time.time = lambda: _time() + _ahead()
datetime.datetime = datetime_
"""


class WrongClock:
    """The wall clock of the nodes that are started with ``settings``."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(SHIFTED)
        self._file = folder / "seconds"
        self.settings = {"PYTHONPATH": str(folder), "SHIFTED_BY": str(self._file)}
        self.set(0)

    def set(self, hours: float) -> None:
        """How far it is ahead, from now on; at once for whoever looks at it."""
        draft = self._file.with_suffix(".new")
        draft.write_text(str(hours * 3600))
        draft.replace(self._file)


def issued_at(server: Server) -> int:
    token = server.post("login", LOGIN)[1]["access_token"]
    return int(jwt.decode(token, options={"verify_signature": False})["iat"])


@pytest.mark.parametrize("hours", [1, -1], ids=["ahead", "behind"])
def test_a_clock_is_wrong(mongo: Mongo, nodes: Nodes, suffer: Suffer, tmp_path: Path, hours: int) -> None:
    """One node's clock is an hour ahead, or behind: everybody is served by the node that they keep to, and what either
    has acknowledged holds. Mail comes at least once: a node that is ahead takes others' leases for over."""
    clock = WrongClock(tmp_path / "clock")
    clock.set(hours)
    servers = [nodes(mongo.uri, folder="right"), nodes(mongo.uri, folder="wrong", **clock.settings)]
    servers[0].register()
    assert abs(issued_at(servers[1]) - issued_at(servers[0]) - hours * 3600) < 60
    ledger = suffer(servers, lambda: time.sleep(2), Bounds(within=5, twice=1000, repeats=True), loyal=True)
    assert ledger.unknown == 0
    # What one has ended is over on the other, whatever the time.
    grant = servers[0].post("login", LOGIN)[1]
    assert servers[1].post("logout", {"refresh_token": grant["refresh_token"]})[0] == 204
    assert servers[0].me(grant) == 401
    assert servers[1].post("register", LOGIN)[0] == 409


@pytest.mark.parametrize("hours", [1, -1], ids=["forwards", "backwards"])
def test_a_clock_jumps(mongo: Mongo, nodes: Nodes, suffer: Suffer, tmp_path: Path, hours: int) -> None:
    """Under load one node's clock jumps by an hour, forwards or backwards, and two seconds later back again, three
    times. After a jump forwards access tokens of before are over, and a refresh helps; codes of before are over, too.
    Everybody is served, and nothing acknowledged is lost. Mail of an hour that was taken back waits until it comes
    again."""
    clock = WrongClock(tmp_path / "clock")
    servers = [nodes(mongo.uri, folder="right"), nodes(mongo.uri, folder="jumping", **clock.settings)]
    servers[0].register()

    def jump(ahead: int, me: int) -> None:
        before = servers[1].post("login", LOGIN)[1]
        clock.set(ahead)
        assert until(lambda: abs(issued_at(servers[1]) - issued_at(servers[0]) - ahead * 3600) < 60)
        assert servers[1].me(before) == me
        status, after, _ = servers[1].post("refresh", {"refresh_token": before["refresh_token"]})
        assert (status, servers[1].me(after)) == (200, 200)
        time.sleep(2)

    def fault() -> None:
        for _ in range(3):
            jump(hours, 401 if hours > 0 else 200)
            jump(0, 200 if hours > 0 else 401)

    def mend() -> None:
        with mongo.client() as client:
            hour = [{"$set": {"due_at": {"$subtract": ["$due_at", 3600 * 1000]}}}]
            late = {"due_at": {"$gt": datetime.now(UTC) + timedelta(minutes=10)}}
            assert client["hydracore"].outbox.update_many(late, hour).modified_count <= 3 * IN_HAND

    bounds = Bounds(within=5, twice=1000, repeats=True, jumps=True)
    ledger = suffer(servers, fault, bounds, loyal=True, mend=mend)
    assert ledger.unknown == 0
    grant = servers[0].post("login", LOGIN)[1]
    assert servers[1].post("logout", {"refresh_token": grant["refresh_token"]})[0] == 204
    assert servers[0].me(grant) == 401


def test_limits_when_a_clock_jumps(mongo: Mongo, nodes: Nodes, tmp_path: Path) -> None:
    """A limit that is used up is over once the clock has jumped past its window, and a jump backwards makes nobody wait
    for longer than the window is."""
    clock = WrongClock(tmp_path / "clock")
    rules = {"HYDRACORE_LIMITS__ENABLED": "true", "HYDRACORE_LIMITS__LOGIN_ADDRESS_NETWORK": "5/300"}
    server = nodes(mongo.uri, **rules, **clock.settings)

    def guesses() -> tuple[list[int], int]:
        answers = [server.post("login", {**LOGIN, "password": "a wrong guess"}) for _ in range(7)]
        return [answer[0] for answer in answers], max(int(answer[2]["Retry-After"] or 0) for answer in answers)

    for hours in (0, 1, 0):
        clock.set(hours)
        time.sleep(0.1)
        statuses, wait = guesses()
        assert set(statuses) <= {401, 429}
        assert 429 in statuses
        assert 0 < wait <= 300
    clock.set(2)
    time.sleep(0.1)
    assert guesses()[0] == [401] * 5 + [429] * 2
    calm(server)


# -- the secret ------------------------------------------------------------------------------------


def _truncated(file: Path) -> None:
    file.write_text(file.read_text()[:10])


def _binary(file: Path) -> None:
    file.write_bytes(os.urandom(64) + b"\xff")


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _folder(file: Path) -> None:
    """Unreadable for root too."""
    file.unlink()
    file.mkdir()


def _another(file: Path) -> None:
    file.write_text("another-secret-that-is-long-enough-for-it\n")


def _missing(file: Path) -> None:
    file.unlink()


BROKEN = [_truncated, _binary, _empty, _folder, _another, _missing]


@pytest.mark.short
@pytest.mark.parametrize("given", [False, True], ids=["its-own", "given"])
def test_broken_secret_file(mongo: Mongo, nodes: Nodes, tmp_path: Path, given: bool) -> None:
    """A secret file that is truncated, no text, empty, not readable, another's or missing stops the start with one
    message that says where the secret comes from, and no trace; nothing is changed, and with the right secret
    everybody is back. That holds for the server's own, beside the embedded database, and for one that it was given."""
    file = tmp_path / "given" if given else tmp_path / "node/hydracore-data/secret"
    named = "HYDRACORE_SECRET_FILE" if given else "hydracore-data/secret"
    more = {"HYDRACORE_STORE__URI": mongo.uri, "HYDRACORE_SECRET_FILE": str(file)} if given else {}
    if given:
        file.write_text("the-right-secret-that-is-long-enough-for-it\n")
    server = nodes("", **more)
    grant = server.register()
    assert server.stop() == 0
    right = file.read_text()
    wrong = {}
    for spoil in BROKEN:
        spoil(file)
        before = server.log.stat().st_size
        refused = nodes("", wait=False, **more)
        code = refused.process.wait(30)
        said = refused.log.read_text()[before:]
        if code != 2 or said.count("hydracore: ") != 1 or "Traceback" in said or named not in said:
            wrong[spoil.__name__] = f"{code}: {said}"
        if file.is_dir():
            file.rmdir()
        file.write_text(right)
    server = nodes("", **more)
    assert server.me(grant) == 200
    assert server.post("refresh", {"refresh_token": grant["refresh_token"]})[0] == 200
    assert server.post("login", LOGIN)[0] == 200
    assert wrong == {}
