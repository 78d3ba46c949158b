"""The fixtures, for pytest. They are there wherever HydraCore is installed, and need no other pytest plugin."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Literal

import pytest

from hydracore.plugin import Context
from hydracore.store.embedded import EmbeddedError, Mongod
from hydracore.testing.client import Client
from hydracore.testing.served import Served

# Not HYDRACORE_…: a server would take it for a key of its configuration.
_URI = "TESTING_MONGODB_URI"

Serve = Callable[..., Served]


@pytest.fixture(scope="session")
def hydracore_mongod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The connection string of a real MongoDB: ``TESTING_MONGODB_URI``, or a private mongod for the whole run.
    Without either a test is skipped; where ``CI`` is set it fails."""
    if os.environ.get(_URI):
        yield os.environ[_URI]
        return
    mongod = Mongod(tmp_path_factory.mktemp("hydracore-mongod"))
    try:
        _start(mongod)
        yield mongod.uri
    finally:
        mongod.stop()


def _start(mongod: Mongod) -> None:
    try:
        mongod.start()
        mongod.wait_ready()
    except EmbeddedError as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI needs a real mongod, or {_URI}: {error}")
        pytest.skip(f"no mongod, and {_URI} is not set: {error}")


@pytest.fixture
def hydracore_server(request: pytest.FixtureRequest) -> Iterator[Serve]:
    """Starts servers, and closes them at the test's end: takes what :class:`~hydracore.testing.Served` takes, but no
    ``uri``, which is that of ``hydracore_mongod`` where ``store="real"``."""
    closing = ExitStack()

    def served(
        enabled: Sequence[str] = (),
        *,
        settings: Mapping[str, Any] | None = None,
        plugins: Mapping[str, Callable[[Context], object]] | None = None,
        store: Literal["memory", "real"] = "memory",
    ) -> Served:
        uri = request.getfixturevalue("hydracore_mongod") if store == "real" else ""
        return closing.enter_context(Served(enabled, settings=settings, plugins=plugins, store=store, uri=uri))

    with closing:  # All of them, though one of them cannot be closed.
        yield served


@pytest.fixture
def hydracore_client(hydracore_server: Serve) -> Client:
    """A client of a server without plugins, signed in with a proven address."""
    return hydracore_server().signed_in()
