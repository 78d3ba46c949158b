"""The database dies, stands still, slows down, is cut off, is too small, or is not what it was."""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from email import message_from_bytes, policy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from figures import Bounds, Suffer, calm
from findings import keep
from lacking import lacking
from post import Letters, PostOffice
from processes import LOGIN, PASSWORD, until
from pymongo import MongoClient, WriteConcern
from pymongo.errors import PyMongoError
from rig import Mongo, Nodes, Proxy

from hydracore.store.embedded import Mongod


@pytest.fixture
def network(mongo: Mongo) -> Iterator[Proxy]:
    """What is between the nodes and the database."""
    opened = Proxy(mongo.port)
    yield opened
    opened.close()


@pytest.mark.short
def test_kill_9_of_mongod(mongo: Mongo, nodes: Nodes, suffer: Suffer) -> None:
    """mongod is killed under load and started again: nothing acknowledged is lost, and ten seconds after it is back
    everybody is served."""

    def fault() -> None:
        mongo.kill()
        time.sleep(1)
        mongo.start()

    suffer([nodes(mongo.uri)], fault, Bounds(within=10))


def test_kill_9_of_mongod_in_a_crowd(mongo: Mongo, nodes: Nodes, suffer: Suffer) -> None:
    """The same with more clients at once than operations that may be under way: those that waited are not late for
    ever."""

    def fault() -> None:
        mongo.kill()
        time.sleep(1)
        mongo.start()

    suffer([nodes(mongo.uri)], fault, Bounds(within=15), people=60)


def test_mongod_stands_still(mongo: Mongo, nodes: Nodes, suffer: Suffer) -> None:
    """mongod stands still for ten seconds: 503 until it goes on, and ten seconds later everybody is served."""

    def fault() -> None:
        mongo.pause()
        time.sleep(10)
        mongo.go_on()

    suffer([nodes(mongo.uri)], fault, Bounds(within=10))


@pytest.mark.parametrize("way", ["there", "back"])
def test_slow_network(mongo: Mongo, network: Proxy, nodes: Nodes, suffer: Suffer, way: str) -> None:
    """Every operation takes half a second longer for ten seconds, on its way to the database or back from it: slow
    answers, or 503, and nothing is lost; ten seconds later everybody is served."""

    def fault() -> None:
        network.set(**{"delay" if way == "there" else "delay_back": 0.5})
        time.sleep(10)
        network.set()

    suffer([nodes(network.uri)], fault, Bounds(within=10))


def test_no_connection_is_free(mongo: Mongo, network: Proxy, nodes: Nodes, suffer: Suffer) -> None:
    """Two connections for a crowd of forty, over a slow network: they wait for their turn, or get 503; ten seconds
    later everybody is served."""

    def fault() -> None:
        network.set(delay=0.3)
        time.sleep(8)
        network.set()

    suffer([nodes(f"{network.uri}?maxPoolSize=2")], fault, Bounds(within=10), people=40)


def test_network_is_cut(mongo: Mongo, network: Proxy, nodes: Nodes, suffer: Suffer) -> None:
    """Every connection to the database breaks, and none can be made for three seconds: 503, and ten seconds later
    everybody is served."""

    def fault() -> None:
        network.set(cut=True)
        time.sleep(3)
        network.set()

    suffer([nodes(network.uri)], fault, Bounds(within=10))


def test_network_is_silent(mongo: Mongo, network: Proxy, nodes: Nodes, suffer: Suffer) -> None:
    """For eight seconds nothing that is sent to the database arrives, and nobody says so; then all of it does, late.
    503, and ten seconds later everybody is served."""

    def fault() -> None:
        network.set(silent=True)
        time.sleep(8)
        network.set()

    suffer([nodes(network.uri)], fault, Bounds(within=10))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 400 MB, of which mongod takes what it takes at once."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        lacking(f"no disk can be full here, for nothing may be mounted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_disk_full(small_disk: Path, mongod_uri: str, nodes: Nodes, suffer: Suffer) -> None:
    """mongod's disk is full for some seconds, and mongod dies of it or not: 503, nothing acknowledged is lost, and
    fifteen seconds after there is room again, and a mongod, everybody is served."""
    # As the embedded one has it: a journal that grows as it is written, not by a hundred megabytes beforehand.
    mongo = Mongo(small_disk / "db", "--wiredTigerEngineConfigString", "log=(file_max=10MB,prealloc=false)")

    def fault() -> None:
        with full(small_disk) as top_up:
            time.sleep(2)
            use_up_the_journal(mongo.uri, 6, top_up)
        if mongo.process.poll() is not None:
            mongo.start()

    try:
        assert suffer([nodes(mongo.uri)], fault, Bounds(within=15)).unknown
    finally:
        mongo.kill()


@contextmanager
def full(disk: Path) -> Iterator[Callable[[], None]]:
    """Without a byte of space on it; what it yields takes the bytes that have become free since."""
    fill = disk / "fill"
    with fill.open("ab", buffering=0) as stream, suppress(OSError):

        def top_up() -> None:
            for size in (1 << 20, 1 << 12, 1):
                with suppress(OSError):
                    while stream.write(bytes(size)):
                        pass

        top_up()
        yield top_up
    fill.unlink()


def use_up_the_journal(uri: str, seconds: float, top_up: Callable[[], None]) -> None:
    """Write, so that mongod cannot live: what its files have room for lasts a quiet crowd for minutes, and what it
    tidies up when it is started again for some seconds more."""
    ends = time.monotonic() + seconds
    with MongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=200, timeoutMS=1000) as client:
        waste = client["another"].waste.with_options(write_concern=WriteConcern(j=True))
        while time.monotonic() < ends:
            try:
                waste.insert_one({"_": os.urandom(1 << 17)})
            except PyMongoError:
                top_up()


class Folder(Letters):
    """The letters that a node writes into its data folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder, self._seen = folder, set[str]()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(0.05):
            for file in sorted(self._folder.glob("*.eml")):
                if file.name not in self._seen:
                    self._seen.add(file.name)
                    letter = message_from_bytes(file.read_bytes(), policy=policy.default)
                    part = letter.get_body(("plain",))
                    text = part.get_content() if part else ""
                    self.take(str(letter["To"]), letter["Message-ID"].partition(".")[0], text)

    def close(self) -> None:
        self._over.set()
        self._thread.join()


def test_data_folder_full(small_disk: Path, mongod_uri: str, nodes: Nodes, request: pytest.FixtureRequest) -> None:
    """The disk of the data folder, where the embedded mongod, the secret and the mail are, is full for some seconds:
    503, nothing acknowledged is lost, no letter either, and none is cut short; thirty seconds after there is room again
    everybody is served, by the same server."""
    data = small_disk / "data"
    folder = Folder(data / "mail")
    server = nodes("", HYDRACORE_DATA_DIR=str(data), HYDRACORE_MAIL__TRANSPORT="folder")
    secret = (data / "secret").read_bytes()

    def fault() -> None:
        with full(small_disk) as top_up:
            time.sleep(2)
            use_up_the_journal(Mongod(data).uri, 6, top_up)

    try:
        # A letter that could not be written is tried again after a while, which becomes longer each time.
        suffer = Suffer("data-folder-full", folder, partial(keep, request.node))
        assert suffer([server], fault, Bounds(within=30, mail_within=120)).unknown
    finally:
        folder.close()
    assert server.lines("mail deferred")
    assert (data / "secret").read_bytes() == secret
    assert server.process.poll() is None
    assert not list((data / "mail").glob("*.part"))


def test_ttl_monitor_stopped(mongo: Mongo, nodes: Nodes, office: PostOffice) -> None:
    """Nothing is ever deleted for its age: sessions, codes, reset tokens and access tokens are refused once they have
    expired all the same."""
    with mongo.client() as client:
        client.admin.command("setParameter", 1, ttlMonitorEnabled=False)
    server = nodes(mongo.uri, HYDRACORE_TOKENS__ACCESS_TTL="20", HYDRACORE_TOKENS__IDLE_TTL="600")
    first = server.register()
    code = office.find(LOGIN["email"], r"^([0-9]{6})\s*$", 20)
    assert server.post("forgot-password", {"email": LOGIN["email"]})[0] == 200
    token = office.find(LOGIN["email"], r"#token=([\w-]{43})\s", 20)
    assert code
    assert token
    second = server.post("login", LOGIN)[1]
    with mongo.client() as client:
        database = client["hydracore"]
        kept = [database.sessions.count_documents({}), database.codes.count_documents({})]
        # An hour passes for what is in the database: that is where every end stands, but for the access tokens'.
        hour = int(timedelta(hours=1).total_seconds() * 1000)
        for collection in (database.sessions, database.codes):
            ages = [{"$set": {"expires_at": {"$subtract": ["$expires_at", hour]}}}]
            assert collection.update_many({}, ages).modified_count > 0
    for grant in (first, second):
        assert server.me(grant) == 401
        assert server.post("refresh", {"refresh_token": grant["refresh_token"]})[0] == 401
    assert server.post("verify-email", {"email": LOGIN["email"], "code": code})[0] == 400
    assert server.post("reset-password", {"token": token, "new_password": "an entirely new one"})[0] == 400
    third = server.post("login", LOGIN)[1]
    assert server.me(third) == 200
    with mongo.client() as client:
        database = client["hydracore"]
        assert [database.sessions.count_documents({}) - 1, database.codes.count_documents({})] == kept
        # The access token has its own end, and its session here has none.
        database.sessions.update_many({}, [{"$set": {"expires_at": {"$add": ["$expires_at", hour]}}}])
    assert until(lambda: server.me(third) == 401, 90)
    calm(server)


@pytest.mark.short
def test_an_index_is_missing(mongo: Mongo, nodes: Nodes) -> None:
    """An index that somebody dropped is made again before anybody is served: addresses stay unique, and so do the
    numbers of signing keys."""
    nodes(mongo.uri).stop()
    with mongo.client() as client:
        client["hydracore"].users.drop_index("address_key_1")
        client["hydracore"].keys.drop_index("sequence_1")
    server = nodes(mongo.uri, folder="again")
    assert [server.post("register", LOGIN)[0] for _ in range(3)] == [201, 409, 409]
    with mongo.client() as client:
        assert client["hydracore"].users.index_information()["address_key_1"]["unique"]
        assert client["hydracore"].keys.index_information()["sequence_1"]["unique"]
    calm(server)


@pytest.mark.short
def test_an_index_cannot_be_made(mongo: Mongo, nodes: Nodes) -> None:
    """Where an address has come to have two accounts, because the index was missing, the start is refused with a
    message that names the index, and nothing is deleted; once one of them is gone, it starts."""
    server = nodes(mongo.uri)
    server.register()
    server.stop()
    with mongo.client() as client:
        users = client["hydracore"].users
        users.drop_index("address_key_1")
        users.insert_one({**(users.find_one({}, {"addresses": 0}) or {}), "_id": "another"})
    refused = nodes(mongo.uri, folder="refused", wait=False)
    assert refused.process.wait(20) == 2
    assert "users.address_key_1" in refused.log.read_text()
    assert "Traceback" not in refused.log.read_text()
    with mongo.client() as client:
        assert client["hydracore"].users.count_documents({}) == 2
        client["hydracore"].users.delete_one({"_id": "another"})
    again = nodes(mongo.uri, folder="again")
    assert again.post("login", {"email": LOGIN["email"], "password": PASSWORD})[0] == 200
    assert again.post("register", LOGIN)[0] == 409
