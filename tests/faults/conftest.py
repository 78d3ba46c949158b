"""The faults' fixtures, and the table of what a run has shown."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from figures import ROWS, Suffer, table
from post import PostOffice
from processes import Server, settings
from rig import Mongo, Nodes, Operator, by_smtp, over


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.faults)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if ROWS:
        terminalreporter.section("faults")
        for line in table():
            terminalreporter.write_line(line)


@pytest.fixture
def office() -> Iterator[PostOffice]:
    opened = PostOffice()
    yield opened
    opened.close()


@pytest.fixture
def mongo(mongod_uri: str, tmp_path: Path) -> Iterator[Mongo]:
    """A mongod that may be killed; ``mongod_uri`` says whether there is one at all."""
    opened = Mongo(tmp_path / "mongo")
    yield opened
    opened.go_on()
    opened.kill()


@pytest.fixture
def nodes(tmp_path: Path, office: PostOffice) -> Iterator[Nodes]:
    """Starts nodes over a database, or with their own, which mail by the post office."""
    started: list[Server] = []

    def start(uri: str, *arguments: str, folder: str = "node", wait: bool = True, **more: str) -> Server:
        settings = {**by_smtp(office), **(over(uri) if uri else {}), **more}
        server = Server(tmp_path / folder, *arguments, **settings)
        started.append(server)
        return server.wait() if wait else server

    yield start
    for server in started:
        server.process.kill()
        server.process.wait()


@pytest.fixture
def suffer(request: pytest.FixtureRequest, office: PostOffice) -> Suffer:
    # The name is the domain of everybody's address, too.
    return Suffer(re.sub("[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower()).strip("-"), office)


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    """What an operator types at a machine of their own, over a database; what it says."""
    folder = tmp_path / "operator"
    folder.mkdir()

    def typed(uri: str, *command: str) -> str:
        more = {"HYDRACORE_MAIL__ALLOW_UNDELIVERED": "true", "HYDRACORE_TOKENS__KEY_LEAD": "2"}
        arguments = [sys.executable, "-m", "hydracore", *command]
        environment = settings(**over(uri, **more))
        done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return typed
