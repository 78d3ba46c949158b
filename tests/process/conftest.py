"""Servers as processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import Server, StartServer


@pytest.fixture
def start(tmp_path: Path, mongod_uri: str) -> Iterator[StartServer]:
    """Starts servers; whatever a test leaves running is killed at its end."""
    servers: list[Server] = []

    def started(*arguments: str, folder: str = "one", wait: bool = True, **environment: str) -> Server:
        server = Server(tmp_path / folder, *arguments, **environment)
        servers.append(server)
        return server.wait() if wait else server

    yield started
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait()
