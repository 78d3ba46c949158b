"""The faults' fixtures."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from figures import Suffer
from findings import keep
from post import PostOffice
from processes import Server, command
from rig import Mongo, Nodes, Operator, by_smtp, over


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.faults)
            # They take more of a machine than others, and their time is bounded: never two of them at once.
            item.add_marker(pytest.mark.xdist_group("faults"))


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
    name = re.sub("[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower()).strip("-")
    return Suffer(name, office, partial(keep, request.node))


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    """What an operator types at a machine of their own, over a database; what it says."""
    folder = tmp_path / "operator"
    folder.mkdir()

    def typed(uri: str, *words: str) -> str:
        more = {"HYDRACORE_MAIL__ALLOW_UNDELIVERED": "true", "HYDRACORE_TOKENS__KEY_LEAD": "2"}
        code, out, said = command(folder, *words, **over(uri, **more))
        assert code == 0, said
        return out

    return typed
