"""Attempts counted in a real Valkey; what all backends have in common is in test_limit_backends.py."""

import asyncio
import logging
import os
import signal
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from processes import LOGIN, own, until
from redis.exceptions import AuthenticationError, ReadOnlyError, ResponseError
from redis.exceptions import ConnectionError as NoConnection
from support import PASSWORD, refused, tokens
from tornado.ioloop import IOLoop
from valkeys import HOST, Valkey

from hydracore.plugin import Count, StartupError

SECRET = "hunter2-of-the-operator"
Open = Callable[..., Any]


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Callable[..., Valkey]:
    """Starts a Valkey for this test alone, which may kill it."""

    def started(*options: str, **more: Any) -> Valkey:
        valkey = Valkey(*options, **more)
        request.addfinalizer(valkey.stop)
        return valkey

    return started


@pytest.fixture(scope="module")
def kept() -> Iterator[Valkey]:
    valkey = Valkey()
    yield valkey
    valkey.stop()


@pytest.fixture
def valkey(kept: Valkey) -> Valkey:
    """One for all tests that do it no harm, empty."""
    kept.judge.flushall()
    kept.judge.script_flush()
    return kept


@pytest.fixture
def counting(make: Any, io_loop: IOLoop) -> Iterator[Open]:
    """Makes the plugin for a Valkey or a URL; closes it at the end. It has nearly all of its second."""
    made = []

    def make_one(where: Any, **section: Any) -> Any:
        plugin = make("limits_redis", url=getattr(where, "url", where), **{"timeout": 0.9} | section)
        made.append(plugin)
        return plugin

    yield make_one
    for plugin in made:
        io_loop.run_sync(plugin.close)


class Door:
    """A port in front of a Valkey, which may be told to let nothing through, or to answer by itself."""

    def __init__(self) -> None:
        self.port = 0
        self.says: bytes | None = None
        """What is answered in the Valkey's place; b"" is silence."""
        self.writers: list[asyncio.StreamWriter] = []

    async def listen(self, valkey: Valkey, tls: ssl.SSLContext | None = None, to: int = 0) -> asyncio.Server:
        async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if to:
                inside, to_inside = await asyncio.open_connection(HOST, to)
            else:
                inside, to_inside = await asyncio.open_unix_connection(str(valkey.socket))
            self.writers += [writer, to_inside]
            await asyncio.gather(self._pass(reader, to_inside, writer), self._pass(inside, writer))

        server = await asyncio.start_server(client, HOST, 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: asyncio.StreamWriter | None = None
    ) -> None:
        try:
            while heard := await reader.read(65536):
                if self.says is None:
                    writer.write(heard)
                elif back is not None:
                    back.write(self.says)
        except OSError:
            pass
        writer.close()


@pytest.fixture
def door(io_loop: IOLoop, valkey: Valkey) -> Iterator[Callable[..., Any]]:
    servers: list[tuple[asyncio.Server, Door]] = []

    async def opened(tls: ssl.SSLContext | None = None, to: int = 0) -> Door:
        door = Door()
        servers.append((await door.listen(valkey, tls, to), door))
        return door

    yield opened

    async def stop() -> None:
        for server, door in servers:
            server.close()
            for writer in door.writers:
                writer.close()
        await asyncio.sleep(0.01)

    io_loop.run_sync(stop)


# -- windows ---------------------------------------------------------------------------------------


async def test_windows_end(valkey: Valkey, counting: Open) -> None:
    """A window ends by the Valkey's own clock, a second after its first hit and not after its last, and not before."""
    plugin = counting(valkey)
    began = time.monotonic()
    assert await plugin.hit("key", 1, 1) == Count(1, 1)
    hits = 1
    while (count := await plugin.hit("key", 1, 1)).hits != 1:
        assert count.hits == hits + 1
        assert 0 < count.resets_in <= 1
        hits = count.hits
        await asyncio.sleep(0.01)
    assert time.monotonic() - began > 0.9
    assert count.resets_in == 1


async def test_what_is_over_takes_no_memory(valkey: Valkey, counting: Open) -> None:
    """Every counter has an end from its first hit on, gifts back included, and is gone after it."""
    plugin = counting(valkey)
    for cost in (1, 5, -2, -100, 1):
        await plugin.hit("key", 60, cost)
        assert 0 < valkey.judge.pttl("hydracore:key") <= 60_000
    await plugin.hit("other", 60, -1)
    assert valkey.judge.keys() == [b"hydracore:key"]
    valkey.age(60)
    assert valkey.judge.keys() == []


async def test_clocks_of_nodes(valkey: Valkey, counting: Open) -> None:
    """Nodes whose clocks are a year apart count in one window and agree when it ends."""
    one = counting(valkey)
    other = counting(valkey, now=lambda: datetime.now(UTC) + timedelta(days=365))
    assert await one.hit("key", 3600, 1) == Count(1, 3600)
    count = await other.hit("key", 3600, 1)
    assert count.hits == 2
    assert 3500 < count.resets_in <= 3600
    assert (await one.hit("key", 3600, -1)).hits == 1


async def test_it_resets_when_it_says(valkey: Valkey, counting: Open) -> None:
    """resets_in is what is left of the key's time to live."""
    plugin = counting(valkey)
    await plugin.hit("key", 3600, 1)
    valkey.judge.pexpire("hydracore:key", 1_234_567)
    assert 1100 < (await plugin.hit("key", 3600, 1)).resets_in <= 1234.567


async def test_a_counter_without_an_end(valkey: Valkey, counting: Open) -> None:
    """Should someone have taken a counter's end away, it begins a new window: nobody is locked out for ever."""
    plugin = counting(valkey)
    valkey.judge.set("hydracore:key", 1000)
    assert await plugin.hit("key", 60, -1) == Count(0, 0)
    assert await plugin.hit("key", 60, 1) == Count(1, 60)
    assert valkey.judge.pttl("hydracore:key") > 0


async def test_prefixes_are_apart(valkey: Valkey, counting: Open) -> None:
    """Two HydraCores with a prefix each share a database and no counter; so do two databases."""
    for where, prefix in ((valkey, "one:"), (valkey, "other:"), (f"{valkey.url}?db=3", "one:")):
        plugin = counting(where, prefix=prefix)
        assert await plugin.hit("key", 60, 1) == Count(1, 60)
    assert sorted(valkey.judge.keys()) == [b"one:key", b"other:key"]


# -- one script ------------------------------------------------------------------------------------


async def test_one_round_trip(valkey: Valkey, counting: Open) -> None:
    """A hit or a gift back is one command on a kept connection; only the very first brings the script along."""
    plugin = counting(valkey)
    await plugin.hit("key", 60, 1)
    valkey.judge.config_resetstat()
    for number in range(10):
        await plugin.hit(f"key {number}", 60, 1)
        await plugin.hit(f"key {number}", 60, -1)
    stats = valkey.judge.info("commandstats")
    assert stats["cmdstat_evalsha"]["calls"] == 20
    assert "cmdstat_eval" not in stats
    assert len(others(valkey)) == 1


def others(valkey: Valkey) -> list[Any]:
    """The connections that are not the judge's."""
    mine = valkey.judge.client_id()
    return [client for client in valkey.judge.client_list() if int(client["id"]) != mine]


async def test_flushed_scripts(valkey: Valkey, counting: Open) -> None:
    """When the server has forgotten the script, the hit brings it again and is counted once."""
    plugin = counting(valkey)
    for number in range(1, 6):
        assert (await plugin.hit("key", 60, 1)).hits == number
        valkey.judge.script_flush()


async def test_flushed_under_parallelism(valkey: Valkey, counting: Open) -> None:
    """Scripts that are forgotten over and over amid 200 hits cost no hit and count none twice."""
    plugin = counting(valkey)
    hits = asyncio.gather(*(plugin.hit("key", 60, 1) for _ in range(200)))
    while not hits.done():
        valkey.judge.script_flush()
        await asyncio.sleep(0)
    assert sorted(count.hits for count in await hits) == list(range(1, 201))


async def test_connections_are_bounded(valkey: Valkey, counting: Open) -> None:
    """200 hits at once open no more connections than are configured, and close() ends them all, even twice."""
    plugin = counting(valkey, connections=4)
    counts = await asyncio.gather(*(plugin.hit("key", 60, 1) for _ in range(200)))
    assert sorted(count.hits for count in counts) == list(range(1, 201))
    assert len(others(valkey)) == 4
    await plugin.close()
    await plugin.close()
    await gone(valkey)


async def gone(valkey: Valkey) -> None:
    for _ in range(1000):
        if not others(valkey):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(others(valkey))


def test_nothing_before_the_first_hit(valkey: Valkey, make: Any) -> None:
    """Made without an event loop and before a fork, it has opened nothing; a Valkey that is away stops no start."""
    make("limits_redis", url=valkey.url)
    make("limits_redis", url="unix:///nowhere/at/all")
    make("limits_redis")
    assert not others(valkey)


def test_owners_share_a_counter(valkey: Valkey, make: Any) -> None:
    """Event loops of their own, in threads of their own, count on one counter: 200 hits, 200 numbers."""
    numbers: list[int] = []

    def work() -> None:
        async def hit() -> None:
            plugin = make("limits_redis", url=valkey.url, timeout=0.9)
            counts = await asyncio.gather(*(plugin.hit("key", 60, 1) for _ in range(50)))
            numbers.extend(count.hits for count in counts)
            await plugin.close()

        asyncio.run(hit())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 201))


# -- ways to the server ----------------------------------------------------------------------------


async def test_tcp_and_a_password(run: Any, counting: Open, caplog: pytest.LogCaptureFixture) -> None:
    """Over TCP with the password it counts; with a wrong one or none the hit fails, and no word says either."""
    caplog.set_level(logging.DEBUG)
    valkey = run(tcp=True, password=SECRET)
    plugin = counting(f"redis://:{SECRET}@{HOST}:{valkey.port}/2")
    assert await plugin.hit("key", 60, 1) == Count(1, 60)
    assert await plugin.check() == ""
    plugin = counting(f"redis://:{SECRET}-not@{HOST}:{valkey.port}")
    with pytest.raises(AuthenticationError) as raised:
        await plugin.hit("key", 60, 1)
    said = await plugin.check()
    assert "plugins.limits_redis.url" in said
    assert "AuthenticationError" in said
    assert SECRET not in f"{raised.value} {said} {caplog.text}"
    with pytest.raises(AuthenticationError):
        await counting(f"redis://{HOST}:{valkey.port}").hit("key", 60, 1)


async def test_least_rights(run: Any, counting: Open) -> None:
    """A user with the rights that the manual names can do all of it, in another database too, and nothing else."""
    valkey = run(tcp=True)
    rights = "~hydracore:* +evalsha +eval +pttl +get +set +incrby +ping +select"
    valkey.judge.execute_command("ACL", "SETUSER", "limits", "on", f">{SECRET}", *rights.split())
    plugin = counting(f"redis://limits:{SECRET}@{HOST}:{valkey.port}/1")
    for cost, hits in ((1, 1), (3, 4), (-1, 3)):
        assert (await plugin.hit("key", 60, cost)).hits == hits
    assert await plugin.check() == ""
    with pytest.raises(ResponseError):
        await counting(f"redis://limits:{SECRET}@{HOST}:{valkey.port}/1", prefix="x").hit("key", 60, 1)


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, str]:
    """What a server at our address shows, and the option that names its authority."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return context, f"ssl_ca_certs={tmp_path}/ca.pem"


async def test_tls(valkey: Valkey, counting: Open, door: Any, tls: Any, tmp_path: Path) -> None:
    """rediss:// speaks TLS and checks the certificate, whose authority is read once, at the start; one of an unknown
    authority gets nothing."""
    context, option = tls
    opened = await door(context)
    plugin = counting(f"rediss://{HOST}:{opened.port}/0?{option}", connections=3)
    (tmp_path / "ca.pem").unlink()
    counts = await asyncio.gather(*(plugin.hit("key", 60, 1) for _ in range(20)))
    assert sorted(count.hits for count in counts) == list(range(1, 21))
    with pytest.raises(NoConnection):
        await counting(f"rediss://{HOST}:{opened.port}").hit("key", 60, 1)


async def test_a_black_hole_behind_tls(valkey: Valkey, counting: Open, door: Any, tls: Any) -> None:
    """A server that falls silent costs the deadline and no more, though TLS would wait for its goodbye; and so does
    the end."""
    context, option = tls
    outer = await door(to=(await door(context)).port)
    plugin = counting(f"rediss://{HOST}:{outer.port}/0?{option}", timeout=0.5)
    await asyncio.gather(*(plugin.hit("key", 60, 1) for _ in range(5)))
    outer.says = b""
    async with asyncio.timeout(10):
        with pytest.raises(TimeoutError):
            await plugin.hit("key", 60, 1)
        await plugin.close()
    outer.says = None
    assert (await plugin.hit("key", 60, 1)).hits == 6


# -- trouble ---------------------------------------------------------------------------------------


async def test_killed_and_back(run: Any, counting: Open) -> None:
    """Hits fail while the Valkey is dead, and count again on the same plugin as soon as it is back, killed twice."""
    valkey = run()
    plugin = counting(valkey)
    for _ in range(2):
        assert (await plugin.hit("key", 60, 1)).hits == 1
        assert await plugin.check() == ""
        valkey.kill()
        with pytest.raises(NoConnection):
            await plugin.hit("key", 60, 1)
        assert "no PONG" in await plugin.check()
        valkey.start()
    assert (await plugin.hit("key", 60, 1)).hits == 1


async def test_killed_amid_hits(run: Any, counting: Open) -> None:
    """Of 200 hits amid which the Valkey is killed, each is counted or fails, none hangs, and it recovers."""
    valkey = run()
    plugin = counting(valkey)
    hits = [asyncio.ensure_future(plugin.hit("key", 60, 1)) for _ in range(200)]
    await asyncio.wait(hits, return_when=asyncio.FIRST_COMPLETED)
    valkey.kill()
    results = await asyncio.gather(*hits, return_exceptions=True)
    counted = sorted(one.hits for one in results if isinstance(one, Count))
    failed = [one for one in results if isinstance(one, NoConnection | TimeoutError)]
    assert counted == sorted(set(counted))
    assert (len(counted) > 0, len(counted) + len(failed)) == (True, 200)
    valkey.start()
    counts = await asyncio.gather(*(plugin.hit("key", 60, 1) for _ in range(200)))
    assert sorted(count.hits for count in counts) == list(range(1, 201))


async def test_a_frozen_server(run: Any, counting: Open) -> None:
    """Hits on a Valkey that stands still end at the deadline; what it answers later is taken for no other hit's."""
    valkey = run()
    plugin = counting(valkey, timeout=0.5, connections=2)
    await plugin.hit("key", 60, 70)
    os.kill(valkey.process.pid, signal.SIGSTOP)
    results = await asyncio.gather(*(plugin.hit("key", 60, 1) for _ in range(20)), return_exceptions=True)
    assert {type(result) for result in results} == {TimeoutError}
    assert "TimeoutError" in await plugin.check()
    os.kill(valkey.process.pid, signal.SIGCONT)
    assert valkey.judge.ping()
    assert await plugin.hit("other", 60, 1) == Count(1, 60)


async def test_a_black_hole(valkey: Valkey, counting: Open, door: Any) -> None:
    """A server that accepts and never answers costs the deadline, also those that wait for a connection; afterwards
    the same plugin counts."""
    opened = await door()
    opened.says = b""
    plugin = counting(f"redis://{HOST}:{opened.port}", timeout=0.5, connections=2)
    results = await asyncio.gather(*(plugin.hit("key", 60, 1) for _ in range(100)), return_exceptions=True)
    assert {type(result) for result in results} == {TimeoutError}
    opened.says = None
    assert (await plugin.hit("key", 60, 1)).hits == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"+OK\r\n",
        b"*0\r\n",
        b"*2\r\n$1\r\nx\r\n$1\r\ny\r\n",
        b"*2\r\n*0\r\n*0\r\n",
        b"$-1\r\n",
        b"-ERR no\r\n",
        b"-LOADING a dump\r\n",
        b"\0" * 100,
    ],
)
async def test_garbage(valkey: Valkey, counting: Open, door: Any, answer: bytes) -> None:
    """Whatever else a server answers fails the hit, never as a count; afterwards the same plugin counts."""
    opened = await door()
    plugin = counting(f"redis://{HOST}:{opened.port}", timeout=0.5)
    await plugin.hit("key", 60, 1)
    opened.says = answer
    assert "no PONG" in await plugin.check()
    for _ in range(3):
        with pytest.raises(Exception):  # noqa: B017  # the core takes any
            await plugin.hit("key", 60, 1)
    opened.says = None
    assert (await plugin.hit("key", 60, 1)).hits == 2


async def test_a_server_that_repeats_the_password(valkey: Valkey, counting: Open, door: Any) -> None:
    """What an operator reads is the kind of the failure, not words of a server that knows no AUTH."""
    opened = await door()
    opened.says = f"-ERR unknown command 'AUTH', with args beginning with: '{SECRET}'\r\n".encode()
    said = await counting(f"redis://:{SECRET}@{HOST}:{opened.port}").check()
    assert "no PONG" in said
    assert SECRET not in said


@pytest.mark.parametrize("silent", [False, True])
async def test_fail_over(run: Any, counting: Open, silent: bool) -> None:
    """After a fail-over to another server of the same address one hit fails, and all connections to the old one, which
    has become a replica or says nothing more, are left."""
    old, new = run(), run()
    address = old.folder / "address"
    address.symlink_to(old.socket)
    plugin = counting(f"unix://{address}")
    await asyncio.gather(*(plugin.hit("key", 60, 1) for _ in range(50)))
    assert len(others(old)) > 1
    if silent:
        os.kill(old.process.pid, signal.SIGSTOP)
    else:
        old.judge.replicaof(HOST, "1")
    address.unlink()
    address.symlink_to(new.socket)
    with pytest.raises(TimeoutError if silent else ReadOnlyError):
        await plugin.hit("key", 60, 1)
    counts = await asyncio.gather(*(plugin.hit("key", 60, 1) for _ in range(50)))
    assert sorted(count.hits for count in counts) == list(range(1, 51))


async def test_cancelled_hits(valkey: Valkey, counting: Open) -> None:
    """Hits that are cancelled in the middle free their connections, and mix up nobody's answers."""
    plugin = counting(valkey, connections=4)
    for number in range(20):
        hits = [asyncio.ensure_future(plugin.hit("cancelled", 60, 1)) for _ in range(20)]
        for _ in range(number):
            await asyncio.sleep(0)
        for hit in hits:
            hit.cancel()
        await asyncio.gather(*hits, return_exceptions=True)
    counts = await asyncio.gather(*(plugin.hit("key", 60, 1) for _ in range(100)))
    assert sorted(count.hits for count in counts) == list(range(1, 101))


async def test_a_key_of_someone_else(valkey: Valkey, counting: Open) -> None:
    """A key of another kind under the prefix fails its hits, and is left as it was."""
    valkey.judge.rpush("hydracore:key", "a")
    valkey.judge.expire("hydracore:key", 60)
    with pytest.raises(ResponseError):
        await counting(valkey).hit("key", 60, 1)
    assert valkey.judge.lrange("hydracore:key", 0, -1) == [b"a"]


# -- configuration ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "localhost:6379",
        "http://localhost:6379",
        "redis://",
        "redis:///0",
        "redis://localhost:hunter2",
        "redis://localhost:99999",
        "redis://localhost/hunter2",
        "redis://localhost/0#hunter2",
        "redis://:12#hunter2@localhost/0",
        "redis://:12/hunter2@localhost/0",
        "redis://:hunter2/3@localhost/0",
        "redis://:hunter2?3@localhost/0",
        "redis://[::1/0",
        "redis://localhost/0?hunter2=1",
        "redis://localhost/0?db=hunter2",
        "redis://localhost/0?protocol=9",
        "rediss://localhost/0?ssl_cert_reqs=hunter2",
        "redis://localhost/0?ssl_cert_reqs=none",
        "unix://",
        "unix://run/valkey.sock",
        "unix:///run/valkey.sock#hunter2",
    ],
)
def test_wrong_urls(make: Any, url: str) -> None:
    """What is no address of a Redis stops the start: the key and the remedy are named, not what may be a password."""
    with pytest.raises(StartupError, match=r"plugins\.limits_redis\.url .* write redis://") as raised:
        make("limits_redis", url=url)
    assert "hunter2" not in str(raised.value)


def test_wrong_tls_files(make: Any, tmp_path: Path) -> None:
    """A file of an authority that is not there, or is none, stops the start."""
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no certificate")
    for file in (garbage, tmp_path / "nowhere.pem"):
        with pytest.raises(StartupError, match=r"plugins\.limits_redis\.url has ssl_ options"):
            make("limits_redis", url=f"rediss://localhost?ssl_ca_certs={file}")


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://localhost/",
        "redis://user:p%2Fss%23@[::1]:6380/15",
        "rediss://cache.example.com:6380/0",
        "unix:///run/valkey.sock",
        "unix://user:pass@/run/valkey.sock?db=2",
        "redis://localhost?db=1&protocol=3&client_name=auth",
    ],
)
def test_right_urls(make: Any, url: str) -> None:
    """All that the library takes is taken."""
    make("limits_redis", url=url)


@pytest.mark.parametrize("section", [{"timeout": 0.91}, {"timeout": 0}, {"connections": 0}, {"timeout": "fast"}])
def test_bounds(make: Any, section: dict[str, Any]) -> None:
    """A timeout that the core would not wait for, and no connection, stop the start."""
    with pytest.raises(StartupError, match=rf"limits_redis\.{next(iter(section))}"):
        make("limits_redis", **section)


def test_the_library_is_optional(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library the start stops, and says how to install it."""
    monkeypatch.delitem(sys.modules, "hydracore_limits_redis", raising=False)
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(StartupError, match=r'pip install "hydracore\[redis\]"'):
        make("limits_redis")


# -- the whole server ------------------------------------------------------------------------------


async def test_limits_hold(open_site: Any, run: Any, expected_logs: list[str]) -> None:
    """With limits.backend = "redis" the sixth wrong password is refused, counted in the Valkey without the address;
    when the Valkey has died, this process counts for itself and people sign in."""
    expected_logs.append("limit backend failed")
    valkey = run()
    site = await open_site(
        limits={"enabled": True, "backend": "redis"}, plugins={"limits_redis": {"url": valkey.url, "timeout": 0.9}}
    )
    await site.register("ada@example.com")
    await site.register("eve@example.com")
    wrong = {"email": "eve@example.com", "password": "not the password"}
    for _ in range(5):
        refused(await site.post("login", wrong), 401, "invalid_credentials")
    refused(await site.post("login", wrong), 429, "too_many_requests")
    keys = b" ".join(valkey.judge.keys())
    assert b"hydracore:login_address_network:" in keys
    assert b"eve" not in keys
    valkey.kill()
    tokens(await site.post("login", {"email": "ada@example.com", "password": PASSWORD}))
    wrong["email"] = "ada@example.com"
    for _ in range(5):
        refused(await site.post("login", wrong), 401, "invalid_credentials")
    refused(await site.post("login", wrong), 429, "too_many_requests")


def test_limits_hold_over_processes(start: Any, run: Any, mongod_uri: str) -> None:
    """Workers that were forked from one process share their counters: what one has counted, the other knows."""
    valkey = run()
    settings = {
        "HYDRACORE_LIMITS__ENABLED": "true",
        "HYDRACORE_LIMITS__BACKEND": "redis",
        "HYDRACORE_PLUGINS__LIMITS_REDIS__URL": valkey.url,
        "HYDRACORE_PLUGINS__LIMITS_REDIS__TIMEOUT": "0.9",
    }
    server = start("--workers", "2", **own(mongod_uri, f"limits_redis_{os.getpid()}", **settings))
    assert until(lambda: len(server.lines("ready")) == 2)
    server.register()
    wrong = {**LOGIN, "password": "not the password"}
    answers = []
    for resting in server.children()["worker"]:
        os.kill(resting, signal.SIGSTOP)
        try:
            answers += [server.post("login", wrong)[0] for _ in range(4)]
        finally:
            os.kill(resting, signal.SIGCONT)
    assert answers == [401] * 5 + [429] * 3
    assert not server.lines("limit backend failed, counting in this process")
