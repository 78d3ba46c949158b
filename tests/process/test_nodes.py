"""Two nodes with two workers each over one replica set: the story and the races, each request to any of them."""

import asyncio
import importlib.util
import inspect
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import jwt
import pytest
from processes import SECRET, Server
from replicas import ReplicaSet
from support import HOSTS, PASSWORD, Clock, MailBox, Site, refused, tokens
from tornado.httpclient import HTTPResponse
from tornado.ioloop import IOLoop

from hydracore import HydraCore
from hydracore.config import load
from hydracore.flows.account import disable_user, find_user

# One replica set for all of them.
pytestmark = pytest.mark.xdist_group("nodes")

EMAIL = "ada@example.com"
WITHIN = 5.0


def loaded(name: str) -> ModuleType:
    """The tests of one process, to be run on many."""
    file = Path(__file__).parent.parent / "web" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{name}_of_one", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RACES = {name: test for name, test in vars(loaded("test_races")).items() if name.startswith("test_")}


class Letters(MailBox):
    """What either node wrote into the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def letters(self) -> list[EmailMessage]:  # type: ignore[override]  # read anew each time
        files = sorted(self._folder.glob("*.eml"))
        return [cast(EmailMessage, BytesParser(policy=policy.default).parsebytes(file.read_bytes())) for file in files]


class Nodes(Site):
    """Sends each request to any node; which worker takes it is the kernel's choice."""

    urls: tuple[str, ...] = ()

    async def ask(self, method: str, path: str, **how: Any) -> HTTPResponse:
        self.url = random.choice(self.urls)  # noqa: S311  # any will do
        return await super().ask(method, path, **how)


@pytest.fixture(scope="module")
def nodes(mongod_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ReplicaSet, list[Server], Path]]:
    folder = tmp_path_factory.mktemp("nodes")
    replicas = ReplicaSet(folder)
    environment = {
        "HYDRACORE_STORE__URI": replicas.uri,
        "HYDRACORE_STORE__DATABASE": "nodes",
        "HYDRACORE_SECRET": SECRET,
        "HYDRACORE_MAIL__ALLOW_UNDELIVERED": "true",
        "HYDRACORE_DATA_DIR": str(folder / "data"),
        "HYDRACORE_TOKENS__KEY_LEAD": "2",
    }
    servers = [Server(folder / name, "--workers", "2", **environment) for name in ("one", "two")]
    try:
        yield replicas, [server.wait() for server in servers], folder / "data" / "mail"
    finally:
        for server in servers:
            server.process.kill()
            server.process.wait()
        replicas.close()


@pytest.fixture
def cluster(io_loop: IOLoop, nodes: tuple[ReplicaSet, list[Server], Path]) -> Iterator[Nodes]:
    """A site that is both nodes, without accounts and letters; ``hydra`` is a third that serves nobody."""
    replicas, servers, mail = nodes
    settings = {"store": {"uri": replicas.uri, "database": "nodes"}, "secret": SECRET}
    quiet = {"mail": {"allow_undelivered": True}, "password": {"profile": "testing"}, "tokens": {"key_lead": 2}}
    hydra = HydraCore(load(environment={}, overrides={**settings, **quiet}), deliver_mail=False)

    async def empty() -> None:
        await hydra.__aenter__()
        for name in ("users", "sessions", "codes", "outbox"):
            await hydra.services.store.collection(name).delete_many({})

    io_loop.run_sync(empty, timeout=30)
    for letter in mail.glob("*.eml"):
        letter.unlink()
    site = Nodes(hydra, "", Letters(mail), Clock())
    site.urls = tuple(f"http://127.0.0.1:{server.port}" for server in servers)
    yield site
    io_loop.run_sync(lambda: hydra.__aexit__(None, None, None), timeout=30)


def opener(cluster: Nodes) -> Callable[..., Awaitable[Nodes]]:
    async def opened(*host: Any, **settings: Any) -> Nodes:
        return cluster

    return opened


@pytest.mark.parametrize("time", range(3))
async def test_story(cluster: Nodes, time: int) -> None:
    """Sign up, prove the address, refresh, forget the password, sign out: each step on another node."""
    await loaded("test_story").test_story(opener(cluster), next(iter(HOSTS)))


@pytest.mark.parametrize("name", RACES)
async def test_races(cluster: Nodes, name: str) -> None:
    """What one atomic operation promises, it promises on all nodes together."""
    given: dict[str, Any] = {"site": cluster, "open_site": opener(cluster), "reveal": True}
    wanted = inspect.signature(RACES[name]).parameters
    await RACES[name](**{argument: given[argument] for argument in wanted})


async def test_replay(cluster: Nodes) -> None:
    """A refresh token of two generations ago, shown to all nodes at once, ends the session everywhere."""
    first = await cluster.register()
    second = tokens(await cluster.post("refresh", {"refresh_token": first["refresh_token"]}))
    third = tokens(await cluster.post("refresh", {"refresh_token": second["refresh_token"]}))
    stolen = {"refresh_token": first["refresh_token"]}
    answers = await asyncio.gather(*(cluster.post("refresh", stolen) for _ in range(20)))
    assert Counter(answer.code for answer in answers) == {401: 20}
    for _ in range(8):
        refused(await cluster.me(third["access_token"]), 401, "not_authenticated")
        refused(await cluster.post("refresh", {"refresh_token": third["refresh_token"]}), 401, "invalid_refresh_token")


async def test_new_keys(cluster: Nodes) -> None:
    """A rotated key is published by every worker of every node within five seconds, and what it signs is taken by all
    of them; so is what the old one signed."""
    old, right = await cluster.verified(), {"email": EMAIL, "password": PASSWORD}
    key = await cluster.hydra.rotate_keys()
    started = missed = time.monotonic()
    seen = 0
    while seen < 40:  # In a row: no worker is without it.
        at = time.monotonic()
        answer = await cluster.ask("GET", "/.well-known/jwks.json", Connection="close")
        seen, missed = (seen + 1, missed) if key.kid.encode() in answer.body else (0, at)
        assert at - started < 20
    # When the last one was without it: how long the asking takes is the machine's business.
    assert missed - started < WITHIN
    while key.kid != kid((await cluster.post("login", right)).body):
        assert time.monotonic() - started < 20
    new = tokens(await cluster.post("login", right))
    for _ in range(20):
        for grant in (old, new):
            assert (await cluster.ask("GET", "/auth/me", **bearer(grant), Connection="close")).code == 200


async def test_emergency(cluster: Nodes) -> None:
    """In an emergency no worker of any node takes a token under the old key five seconds later, while the session
    goes on: a refresh gives a token that all of them take."""
    old = await cluster.verified()
    started = missed = time.monotonic()
    key = await cluster.hydra.rotate_keys(emergency=True)
    seen = 0
    while seen < 40:  # In a row: no worker takes it.
        at = time.monotonic()
        answer = await cluster.ask("GET", "/auth/me", **bearer(old), Connection="close")
        seen, missed = (seen + 1, missed) if answer.code == 401 else (0, at)
        assert at - started < 20
    assert missed - started < WITHIN
    new = tokens(await cluster.post("refresh", {"refresh_token": old["refresh_token"]}))
    assert kid(json.dumps(new).encode()) == key.kid
    for _ in range(20):
        assert (await cluster.ask("GET", "/auth/me", **bearer(new), Connection="close")).code == 200
        published = json.loads((await cluster.ask("GET", "/.well-known/jwks.json", Connection="close")).body)["keys"]
        assert [one["kid"] for one in published] == [key.kid]


async def test_disabled(cluster: Nodes) -> None:
    """A disabled account is out on every worker of every node at once."""
    grant = await cluster.verified()
    user = await find_user(cluster.hydra.services, EMAIL)
    assert user
    await disable_user(cluster.hydra.services, user)
    for _ in range(20):
        refused(await cluster.ask("GET", "/auth/me", **bearer(grant), Connection="close"), 401, "not_authenticated")
        refused(await cluster.post("refresh", {"refresh_token": grant["refresh_token"]}), 401, "invalid_refresh_token")


async def test_step_down(cluster: Nodes, nodes: tuple[ReplicaSet, list[Server], Path]) -> None:
    """While the primary steps down, requests are answered, or 503 with Retry-After; what was acknowledged holds."""
    replicas, _, _ = nodes
    grants: list[dict[str, Any]] = []
    stepping = asyncio.ensure_future(asyncio.to_thread(replicas.step_down))
    for number in range(60):
        answer = await cluster.post("register", {"email": f"u{number}@example.com", "password": PASSWORD})
        if answer.code == 201:
            grants.append(tokens(answer, 201))
        else:
            refused(answer, 503, "store_unavailable")
    await stepping
    assert grants
    for grant in grants:
        assert (await cluster.me(grant["access_token"])).code == 200


def bearer(grant: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {grant['access_token']}"}


def kid(body: bytes) -> str:
    """The key that signed the access token of a sign-in."""
    return str(jwt.get_unverified_header(json.loads(body)["access_token"])["kid"])
