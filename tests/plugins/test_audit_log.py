"""Events that are kept in the database."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from lacking import lacking
from pymongo.errors import BulkWriteError, PyMongoError
from support import DRIVERS, PASSWORD, SECRET, Clock, OpenSite, Site
from tornado.ioloop import IOLoop

from hydracore import HydraCore, events
from hydracore.config import load
from hydracore.plugin import NotFound, StartupError, StoreUnavailable
from hydracore.store import Store
from hydracore.store.embedded import EmbeddedError, Mongod

EMAIL = "ada@example.com"


def event(what: Any, number: int, at: Any, **fields: Any) -> Any:
    return what(id=f"event{number}", at=at, network="203.0.113.7", **fields)


async def kept(collection: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await collection.find({}, sort=[("at", 1)]).to_list(None)
    return found


# -- by itself, over each driver -------------------------------------------------------------------


@pytest.fixture(params=DRIVERS)
def log(request: pytest.FixtureRequest, io_loop: IOLoop, make: Any) -> Iterator[Any]:
    """The plugin over a driver, with its collection empty; ``log.events`` is the collection."""
    clock = Clock()
    plugin = make("audit_log", now=clock, database=lambda name: store.collection(name), retention_days=7)
    [own] = plugin.hydracore_register_collections()
    collections = [replace(own, name=f"audit_log.{own.name}")]
    store = Store(driver=request.param, database=f"audit_{request.param}", timeout=10, collections=collections)
    uri = "" if request.param == "memory" else request.getfixturevalue("mongod_uri")

    async def start() -> None:
        store.open(uri)
        await store.ensure()
        assert await store.not_ready() == ""
        await store.collection("audit_log.events").delete_many({})

    io_loop.run_sync(start)
    plugin.clock, plugin.events = clock, store.collection("audit_log.events")
    yield plugin
    io_loop.run_sync(store.close)


async def test_repeated_batches(log: Any) -> None:
    """A batch that comes again, alone or with more, is kept once, and what is new in it too."""
    now = log.clock()
    batch = [event(events.Limited, number, now, rule="login", retry_after=number) for number in range(100)]
    await log.listen(batch[:60])
    await log.listen(batch)
    await log.listen(batch)
    assert sorted(document["retry_after"] for document in await kept(log.events)) == list(range(100))


async def test_batches_that_race(log: Any) -> None:
    """One batch from fifty places at once, as after an unknown outcome, is kept once."""
    batch = [event(events.KeyRotated, number, log.clock(), kid=f"key{number}") for number in range(20)]
    await asyncio.gather(*(log.listen(batch) for _ in range(50)))
    assert len(await kept(log.events)) == 20


async def test_what_is_kept(log: Any) -> None:
    """A document has the event's name, its fields, and an end that is the retention after it happened."""
    now = log.clock().replace(microsecond=0)
    await log.listen([event(events.LoggedIn, 1, now, user_id="user1", session_id="session1")])
    assert await kept(log.events) == [
        {
            "_id": "event1",
            "at": now,
            "event": "LoggedIn",
            "network": "203.0.113.7",
            "user_id": "user1",
            "session_id": "session1",
            "expires_at": now + timedelta(days=7),
        }
    ]


async def test_text_that_is_no_text(log: Any) -> None:
    """A stranger's words with a lone surrogate, or that look like operators, hold up nothing."""
    words = ["\ud800 broken", "$where: 1", "a\x00b", "x" * 100_000]
    batch = [event(events.MailDead, n, log.clock(), kind="k", intent_id="i", error=e) for n, e in enumerate(words)]
    await log.listen(batch)
    assert {document["error"] for document in await kept(log.events)} == {"? broken", *words[1:]}


async def test_a_refused_write_is_raised(log: Any, request: pytest.FixtureRequest) -> None:
    """What the database refuses for another reason than a repeat is raised, and the rest of the batch is kept."""
    if request.node.callspec.params["log"] == "memory":
        return  # It knows no validators.
    database, name = log.events.database, log.events.name
    await database.command("collMod", name, validator={"retry_after": {"$ne": 2}})
    batch = [event(events.Limited, number, log.clock(), rule="login", retry_after=number) for number in range(5)]
    try:
        with pytest.raises(BulkWriteError):
            await log.listen(batch)
        with pytest.raises(BulkWriteError):
            await log.listen(batch)  # Repeats and a refusal together.
    finally:
        await database.command("collMod", name, validator={})
    assert [document["retry_after"] for document in await kept(log.events)] == [0, 1, 3, 4]


# -- configuration ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "near"),
    [("LogedIn", "LoggedIn"), ("loggedin", "LoggedIn"), ("login_failed", "LoginFailed"), ("zzz", "there are: ")],
)
def test_unknown_events_stop_the_start(make: Any, name: str, near: str) -> None:
    """A name that is no event's is told with what was meant, or with all that there are."""
    with pytest.raises(StartupError, match=r"plugins\.audit_log\.events ") as raised:
        make("audit_log", events=["LoggedIn", name])
    assert repr(name) in str(raised.value)
    assert near in str(raised.value)


@pytest.mark.parametrize("wrong", [{"retention_days": 0}, {"retention_days": "90"}, {"events": "all"}, {"days": 90}])
def test_wrong_keys_stop_the_start(make: Any, wrong: dict[str, Any]) -> None:
    """The section is checked: bounds, types and keys."""
    with pytest.raises(StartupError, match=r"plugins\.audit_log"):
        make("audit_log", **wrong)


def test_only_what_is_named_is_heard(make: Any) -> None:
    """``events`` names what is heard, one by one or a whole kind; without it everything is."""

    def of(*names: str) -> tuple[type[events.Event], ...]:
        [listener] = make("audit_log", events=list(names)).hydracore_register_event_listeners()
        heard: tuple[type[events.Event], ...] = listener.of
        return heard

    assert of() == (events.Event,)
    assert of("LoggedIn", "LoginFailed") == (events.LoggedIn, events.LoginFailed)
    assert issubclass(events.LoggedIn, of("SessionEvent"))
    assert not issubclass(events.LoginFailed, of("UserEvent"))


# -- the whole server ------------------------------------------------------------------------------


def events_of(site: Site) -> Any:
    return site.hydra.services.store.collection("audit_log.events")


async def opened(open_site: OpenSite, **section: Any) -> Site:
    site = await open_site(plugins={"enabled": ["audit_log"], "audit_log": section})
    await events_of(site).delete_many({})
    return site


async def story(site: Site) -> str:
    """A registration, a failed sign-in, a refresh, a sign-out; the account's id."""
    tokens = await site.verified()
    await site.post("login", {"email": EMAIL, "password": "another password"})
    await site.post("refresh", {"refresh_token": tokens["refresh_token"]})
    await site.post("forgot-password", {"email": EMAIL})
    await site.box.reset_token(EMAIL)
    account = json.loads((await site.me(tokens["access_token"])).body)
    await site.post("logout", {"refresh_token": tokens["refresh_token"]})
    await site.hydra.registry.settle()
    return str(account["id"])


async def test_a_whole_story(open_site: OpenSite) -> None:
    """What people did is kept in order with who and from where, and no secret and no address with it."""
    site = await opened(open_site)
    user_id = await story(site)
    found = await kept(events_of(site))
    mine = [document["event"] for document in found if document.get("user_id") == user_id]
    assert [name for name in mine if name != "LoggedIn"] == ["Registered", "EmailVerified", "Refreshed", "LoggedOut"]
    assert {"LoginFailed", "MailRequested", "MailSent"} <= {document["event"] for document in found}
    assert {document["network"] for document in found if document["event"] == "LoginFailed"} == {"127.0.0.1"}
    everything = str(found)
    for secret in (EMAIL, "ada", PASSWORD, "another password", await site.box.code(EMAIL)):
        assert secret not in everything


async def test_only_chosen_events(open_site: OpenSite) -> None:
    """With ``events`` nothing else is written."""
    site = await opened(open_site, events=["LoginFailed", "Registered"])
    await story(site)
    assert {document["event"] for document in await kept(events_of(site))} == {"LoginFailed", "Registered"}


async def test_indexes(open_site: OpenSite) -> None:
    """The database deletes what has expired, and another retention needs no other index."""
    for days in (90, 7):
        site = await opened(open_site, retention_days=days)
        indexes = await events_of(site).index_information()
        assert indexes["expires_at_1"]["expireAfterSeconds"] == 0
        assert {"user_id_1_at_1", "at_1"} < set(indexes)


def test_away_and_back(io_loop: IOLoop, tmp_path: Path, expected_logs: list[str]) -> None:
    """While the database is away events wait; when it is back all are kept, in order, once."""
    expected_logs += ["plugin has no database", "the database does not answer"]
    mongod = Mongod(tmp_path / "mongod")
    try:
        mongod.start()
        mongod.wait_ready()
    except EmbeddedError as error:
        lacking(f"no mongod: {error}")
    values = {"secret": SECRET, "data_dir": str(tmp_path / "data"), "store": {"timeout": 1}}
    config = load(environment={}, overrides={**values, "plugins": {"enabled": ["audit_log"]}})

    async def outage() -> None:
        async with HydraCore(config, uri=mongod.uri, deliver_mail=False) as hydra:
            registry, collection = hydra.registry, hydra.services.store.collection("audit_log.events")
            registry.announce(events.Limited(rule="login", retry_after=0))
            await registry.settle()
            os.kill(mongod.pid, signal.SIGKILL)
            while mongod.poll() is None:
                time.sleep(0.01)
            for number in range(1, 150):
                registry.announce(events.Limited(rule="login", retry_after=number))
            await registry.settle()
            with pytest.raises(PyMongoError):
                await collection.count_documents({})
            mongod.restart()
            mongod.wait_ready()
            for _ in range(100):
                await registry.settle()
                if await collection.count_documents({}) >= 150:
                    break
            found = await collection.find({}, sort=[("$natural", 1)]).to_list(None)
            assert [document["retry_after"] for document in found] == list(range(150))

    try:
        io_loop.run_sync(outage, timeout=25)
    finally:
        mongod.stop()


# -- the command -----------------------------------------------------------------------------------


@pytest.fixture
def site(io_loop: IOLoop, open_site: OpenSite) -> Site:
    opened_site: Site = io_loop.run_sync(partial(opened, open_site, retention_days=7))
    return opened_site


@pytest.fixture
def ask(io_loop: IOLoop, site: Site) -> Any:
    """Runs ``hydracore audit list`` with those arguments, its coroutine function on the test's loop."""
    group = site.hydra.registry.commands["audit"].command
    listing = group.commands["list"]

    def run(**options: Any) -> None:
        io_loop.run_sync(partial(listing.callback, **options))

    driven = click.Group("audit", commands=[click.Command("list", callback=run, params=listing.params)])

    def asked(*arguments: str) -> Result:
        return CliRunner().invoke(driven, ["list", *arguments])

    return asked


def lines(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def announce(io_loop: IOLoop, site: Site, *told: events.Event) -> None:
    async def work() -> None:
        for one in told:
            site.hydra.registry.announce(one)
        await site.hydra.registry.settle()

    io_loop.run_sync(work)


def test_the_command_tells_the_story(io_loop: IOLoop, site: Site, ask: Any) -> None:
    """Newest first, as lines of JSON or as a table, all of them or those of one account."""
    user_id = io_loop.run_sync(partial(story, site))
    everything = lines(ask("--json"))
    assert [one["at"] for one in everything] == sorted((one["at"] for one in everything), reverse=True)
    mine = [one for one in everything if one.get("user_id") == user_id]
    assert mine[0]["event"] == "LoggedOut"
    assert {"id", "at", "event", "network", "user_id", "session_id"} == set(mine[0])
    for who in (EMAIL, EMAIL.upper(), user_id):
        assert lines(ask("--user", who, "--json")) == mine
    table = ask().stdout.splitlines()
    assert table[0].split() == ["at", "event", "user_id", "session_id", "network", "details"]
    assert len(table) == len(everything) + 1
    assert any("LoginFailed" in line and "address_digest=" in line for line in table)


def test_the_command_chooses(io_loop: IOLoop, site: Site, ask: Any) -> None:
    """By kind, by time in any zone, and so many."""
    start = site.clock()
    for number in range(5):
        announce(io_loop, site, events.Limited(rule="login", retry_after=number), events.KeyRotated(kid=f"k{number}"))
        site.clock.forward(hours=1)
    assert [one["retry_after"] for one in lines(ask("--event", "Limited", "--json"))] == [4, 3, 2, 1, 0]
    assert [one["retry_after"] for one in lines(ask("--event", "Limited", "--limit", "2", "--json"))] == [4, 3]
    assert len(lines(ask("--event", "Event", "--json"))) == 10
    since = start + timedelta(hours=2, minutes=30)
    for text in (
        f"{since:%Y-%m-%dT%H:%M:%S}",
        f"{since:%Y-%m-%dT%H:%M:%SZ}",
        f"{since + timedelta(hours=5):%FT%T}+05:00",
    ):
        assert [one["kid"] for one in lines(ask("--event", "KeyRotated", "--since", text, "--json"))] == ["k4", "k3"]


def test_what_has_expired_is_not_shown(io_loop: IOLoop, site: Site, ask: Any) -> None:
    """The retention is in the query: what the database has not deleted yet is not shown."""
    announce(io_loop, site, events.KeyRotated(kid="old"))
    site.clock.forward(days=6)
    announce(io_loop, site, events.KeyRotated(kid="new"))
    assert [one["kid"] for one in lines(ask("--json"))] == ["new", "old"]
    site.clock.forward(days=1)
    assert [one["kid"] for one in lines(ask("--json"))] == ["new"]
    site.clock.forward(days=7)
    assert ask().stdout == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--event", "LogedIn"], "did you mean LoggedIn?"),
        (["--since", "yesterday"], "2026-01-31"),
        (["--since", "0001-01-01T00:00+23:00"], "2026-01-31"),
        (["--limit", "0"], "--limit"),
        (["--limit", "10001"], "--limit"),
    ],
)
def test_wrong_arguments(ask: Any, arguments: list[str], said: str) -> None:
    """A wrong option is a sentence on standard error and exit code 2."""
    result = ask(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


def test_nobody_of_that_address(ask: Any) -> None:
    """An address without an account is said, as what the core prints as a sentence."""
    assert isinstance(ask("--user", "eve@example.com").exception, NotFound)


def test_words_that_would_command_a_terminal(io_loop: IOLoop, site: Site, ask: Any) -> None:
    """What strangers wrote reaches the operator's terminal without control characters, either way."""
    announce(io_loop, site, events.MailDead(kind="k", intent_id="i", error="\x1b[2J\x9b2J\u202e\nfake  LoggedIn"))
    for shown in (ask(), ask("--json")):
        assert not set(shown.stdout) & {"\x1b", "\x9b", "\u202e"}
        assert len(shown.stdout.splitlines()) == (1 if shown.stdout.startswith("{") else 2)


def test_the_database_is_away(make: Any, io_loop: IOLoop) -> None:
    """Without a database the command fails as the core's own commands do."""
    store = Store(driver="pymongo", database="audit", timeout=1, collections=[])

    class Away:
        def collection(self, name: str) -> Any:
            return store._database[name]

    async def listing() -> None:
        store.open("mongodb://127.0.0.1:1/")
        [command] = make("audit_log", surroundings=Away()).hydracore_register_commands()
        try:
            with pytest.raises(StoreUnavailable):
                await command.command.commands["list"].callback("", "", None, 10, as_json=True)
        finally:
            await store.close()

    io_loop.run_sync(listing)
