"""Real parts for the tests: a mongod, sockets, a mail box, a clock."""

import asyncio
import inspect
import logging
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from findings import kept, table
from lacking import lacking
from processes import Server, StartServer
from support import SECRET, Clock, MailBox, OpenSite, Site, alone, enter
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets
from tornado.web import Application

from hydracore import HydraCore
from hydracore.config import load
from hydracore.httptools_server import HttptoolsServer
from hydracore.store.embedded import EmbeddedError, Mongod


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every ``async def`` test runs on pytest-tornado's loop; one that needs longer says so by a mark of its own."""
    for item in items:
        marked = item.get_closest_marker("gen_test") is not None
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj) and not marked:
            item.add_marker(pytest.mark.gen_test, append=False)


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """What a test says or logs may be no text; a report must be, to come here from the process that ran it."""
    return sendable((yield))


def sendable(value: Any) -> Any:
    match value:
        case str():
            return value.encode(errors="replace").decode()
        case list() | tuple():
            return type(value)(sendable(each) for each in value)
        case dict():
            return {sendable(key): sendable(each) for key, each in value.items()}
    return value


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if rows := kept(report for reports in terminalreporter.stats.values() for report in reports):
        terminalreporter.section("faults")
        for line in table(rows):
            terminalreporter.write_line(line)


@pytest.fixture(scope="session", autouse=True)
def first_loop() -> Iterator[None]:
    """Tornado asks for the thread's loop before it makes its own: the one that asyncio would make nobody closes."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    loop.close()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the caller's shell configures is not the tests' business."""
    for name in [name for name in os.environ if name.startswith("HYDRACORE_")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def many_connections() -> None:
    """Tornado's client opens ten at a time unless told otherwise."""
    AsyncHTTPClient.configure(None, max_clients=250)


KNOWN_LOGS = ("password.profile is testing", "store.driver is memory")


class _Loud(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.name}: {record.getMessage()} {record.__dict__.get('error', '')}")


@pytest.fixture(autouse=True)
def expected_logs() -> Iterator[list[str]]:
    """A log line at WARNING or above fails the test, unless the test says that it expects it."""
    expected = list(KNOWN_LOGS)
    handler = _Loud()
    logging.getLogger().addHandler(handler)
    yield expected
    logging.getLogger().removeHandler(handler)
    assert not [line for line in handler.lines if not any(part in line for part in expected)]


@pytest.fixture(scope="session")
def mongod_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real mongod for the whole run. Without one tests skip, but in CI they fail."""
    mongod = Mongod(tmp_path_factory.mktemp("mongod"))
    try:
        mongod.start()
        mongod.wait_ready(60)  # However busy this machine is.
    except EmbeddedError as error:
        lacking(f"no mongod: {error}")
    yield mongod.uri
    mongod.stop()


@pytest.fixture
def http() -> str:
    """Whose server reads the requests of a site, as ``server.http`` names it."""
    return "tornado"


@pytest.fixture
def open_site(
    io_loop: IOLoop, http: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[OpenSite]:
    """Opens sites on the real mongod (or another driver); each closes at the test's end."""
    # A busy machine is no outage: with the deadline of every day it may count in the process instead, and say so.
    monkeypatch.setattr("hydracore.counting._BACKEND_DEADLINE", 20.0)
    closing: list[Callable[[], Any]] = []

    async def opened(
        host: Callable[[HydraCore], Application] = alone,
        driver: str = "pymongo",
        keep: bool = False,
        extra: Mapping[str, Any] | None = None,
        metrics: Any = None,
        tracer_provider: Any = None,
        **settings: Any,
    ) -> Site:
        box, clock = MailBox(), Clock()
        values: dict[str, Any] = {
            "secret": SECRET,
            "data_dir": str(tmp_path / "data"),
            "store": {"driver": driver},
            "mail": {"transport": "box"},
            "password": {"profile": "testing"},
            "limits": {"enabled": False},
        }
        for section, value in settings.items():
            values[section] = values.get(section, {}) | value if isinstance(value, dict) else value
        uri = "" if driver == "memory" else request.getfixturevalue("mongod_uri")
        config = load(environment={}, overrides=values)
        given = {"metrics": metrics, "tracer_provider": tracer_provider, "now": clock}
        hydra = HydraCore(config, uri=uri, plugins={"box": box.plugin, **(extra or {})}, **given)
        await enter(hydra, keep)
        sockets = bind_sockets(0, "127.0.0.1")
        server: HTTPServer | HttptoolsServer
        if http == "httptools":
            server = HttptoolsServer(host(hydra), settings=config.server)
            await server.listen(sockets)
        else:
            server = HTTPServer(host(hydra), max_body_size=1 << 40)
            server.add_sockets(sockets)

        async def close() -> None:
            server.stop()
            await server.close_all_connections()
            await hydra.__aexit__(None, None, None)

        closing.append(close)
        return Site(hydra, f"http://127.0.0.1:{sockets[0].getsockname()[1]}", box, clock)

    yield opened
    for close in reversed(closing):
        io_loop.run_sync(close, timeout=20)


@pytest.fixture
def site(io_loop: IOLoop, open_site: OpenSite) -> Site:
    """A site with its defaults, but for cheap hashing and without limits."""
    opened: Site = io_loop.run_sync(open_site)
    return opened


@pytest.fixture
def start(tmp_path: Path, mongod_uri: str) -> Iterator[StartServer]:
    """Starts servers; whatever a test leaves running is killed at its end."""
    servers: list[Server] = []

    def started(*arguments: str, folder: str = "one", wait: bool = True, **environment: Any) -> Server:
        server = Server(tmp_path / folder, *arguments, **environment)
        servers.append(server)
        return server.wait() if wait else server

    yield started
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait()
