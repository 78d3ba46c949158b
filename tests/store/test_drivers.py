"""What the drivers are told about the database."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import quote_plus, unquote

import pytest
from pymongo import ReadPreference
from pymongo.errors import PyMongoError

from hydracore.store import Store
from hydracore.store.drivers import connect

WRITERS = 16


@pytest.mark.parametrize(
    ("uri", "repeats"),
    [
        ("mongodb://localhost", False),
        ("mongodb://ada:a%2Cb@localhost/?authSource=admin", False),
        ("mongodb://%2Frun%2Fmongod.sock", False),
        ("mongodb://localhost/?retryWrites=true", True),
        ("mongodb://localhost/?replicaSet=rs", True),
        ("mongodb://localhost?replicaSet=rs", True),
        ("mongodb://one,two/?retryWrites=false", False),
        ("mongodb://ada:secret@one:1,two:2/", True),
    ],
)
async def test_repeated_writes(uri: str, repeats: bool) -> None:
    """Writes are repeated on a replica set, and on a single mongod only where the operator says so."""
    client, close = connect("pymongo", uri, 5)
    assert client.options.retry_writes is repeats
    await close()


class Line:
    """A socket in front of mongod's that can be cut."""

    def __init__(self, mongod: str) -> None:
        self._mongod = mongod
        self._open: set[asyncio.StreamWriter] = set()
        self._cut = False

    async def client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            writer.close()
            return
        to_reader, to_writer = await asyncio.open_unix_connection(self._mongod)
        self._open |= {writer, to_writer}
        await asyncio.gather(_copy(reader, to_writer), _copy(to_reader, writer))
        self._open -= {writer, to_writer}

    async def cut(self, seconds: float) -> None:
        self._cut = True
        for writer in self._open:
            writer.close()
        await asyncio.sleep(seconds)
        self._cut = False


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.close()


@asynccontextmanager
async def line(folder: Path, uri: str) -> AsyncIterator[tuple[Line, str]]:
    one = Line(unquote(uri.removeprefix("mongodb://").partition("/")[0]))
    path = folder / "line.sock"
    server = await asyncio.start_unix_server(one.client, path)
    try:
        yield one, f"mongodb://{quote_plus(str(path))}"
    finally:
        await one.cut(0)
        server.close()


async def test_back_after_an_outage(tmp_path: Path, mongod_uri: str) -> None:
    """When a single mongod is back, all who write are served again, however many have failed meanwhile."""
    async with line(tmp_path, mongod_uri) as (one, uri):
        client, close = connect("pymongo", uri, 5)
        written = [0] * WRITERS
        over = asyncio.Event()

        async def write(number: int) -> None:
            while not over.is_set():
                try:
                    await client["drivers"].written.insert_one({"by": number})
                except PyMongoError:
                    continue
                written[number] += 1

        writing = [asyncio.ensure_future(write(number)) for number in range(WRITERS)]
        async with asyncio.timeout(30):
            for _ in range(3):
                await _all_go_on(written)
                await one.cut(1)
            await _all_go_on(written)
            over.set()
            await asyncio.gather(*writing)
        await close()


async def _all_go_on(written: list[int]) -> None:
    before = list(written)
    while any(now - then < 3 for now, then in zip(written, before, strict=True)):  # noqa: ASYNC110  # simpler than an event
        await asyncio.sleep(0.05)


async def test_the_primary_is_asked() -> None:
    """Whatever store.uri says: a look-up must not be older than the write before it."""
    store = Store(driver="pymongo", database="x", timeout=1)
    store.open("mongodb://127.0.0.1:1/?readPreference=secondaryPreferred")
    assert store.collection("sessions").read_preference == ReadPreference.PRIMARY
    await store.close()
