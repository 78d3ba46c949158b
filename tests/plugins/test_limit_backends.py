"""One suite for every place where attempts are counted; the real mongod and the real Valkey are the judges."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support import DRIVERS
from tornado.ioloop import IOLoop
from valkeys import Slowed

from hydracore.plugin import Count
from hydracore.store import Store


class Hands:
    """A clock that stands still until it is moved. It is ahead of ours, so no TTL index deletes beneath us."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Counting:
    """A driver's collection that counts what it is asked."""

    def __init__(self, collection: Any) -> None:
        self._collection = collection
        self.asked = 0

    def find_one_and_update(self, *arguments: Any, **options: Any) -> Any:
        self.asked += 1
        return self._collection.find_one_and_update(*arguments, **options)

    def update_many(self, *arguments: Any, **options: Any) -> Any:
        self.asked += 1
        return self._collection.update_many(*arguments, **options)


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def over(io_loop: IOLoop, request: pytest.FixtureRequest, make: Any, hands: Hands) -> Iterator[Any]:
    """Opens the plugin over a driver, with its collection empty."""
    stores: list[Store] = []

    def opened(driver: str) -> Any:
        counting: dict[str, Counting] = {}
        plugin = make("limits_mongodb", now=hands, database=lambda name: counting[name])
        [own] = plugin.hydracore_register_collections()
        collections = [replace(own, name=f"limits_mongodb.{own.name}")]
        store = Store(driver=driver, database=f"limits_{driver}", timeout=10, collections=collections)
        uri = "" if driver == "memory" else request.getfixturevalue("mongod_uri")

        async def start() -> None:
            store.open(uri)
            stores.append(store)
            await store.ensure()
            await store.collection("limits_mongodb.counters").delete_many({})
            counting["limits_mongodb.counters"] = Counting(store.collection("limits_mongodb.counters"))

        io_loop.run_sync(start)
        plugin.documents = lambda: store.collection("limits_mongodb.counters").count_documents({})
        plugin.asked = lambda: counting["limits_mongodb.counters"].asked
        return plugin

    yield opened
    for store in stores:
        io_loop.run_sync(store.close)


@pytest.fixture(params=DRIVERS)
def mongodb(request: pytest.FixtureRequest, over: Any) -> Any:
    return over(request.param)


@pytest.fixture(params=["memory", "redis", *(f"mongodb over {driver}" for driver in DRIVERS)])
def backend(request: pytest.FixtureRequest, make: Any, over: Any, hands: Hands) -> Any:
    """``hit`` of the backend that the plugin registers."""
    kind, _, driver = request.param.partition(" over ")
    if kind == "redis":
        plugin = Slowed(request, make, hands)
    else:
        plugin = over(driver) if driver else make("limits_memory", now=hands)
    [registered] = plugin.hydracore_register_limit_backends()
    assert registered.name == kind
    return registered.hit


async def test_exact_under_parallelism(backend: Any) -> None:
    """Of 200 hits at once each sees another number, 1 to 200, and all the same window."""
    counts = await asyncio.gather(*(backend("key", 60, 1) for _ in range(200)))
    assert sorted(count.hits for count in counts) == list(range(1, 201))
    assert {count.resets_in for count in counts} == {60}


async def test_the_window_starts_with_the_first_hit(backend: Any, hands: Hands) -> None:
    """The counter starts from zero a window after its first hit, not after its last, and not before."""
    assert await backend("key", 60, 1) == Count(1, 60)
    hands.forward(59)
    assert await backend("key", 60, 1) == Count(2, 1)
    hands.forward(0.5)
    assert await backend("key", 60, 1) == Count(3, 0.5)
    hands.forward(0.5)
    assert await backend("key", 60, 1) == Count(1, 60)


async def test_restarts_under_parallelism(backend: Any, hands: Hands) -> None:
    """When a window is over and nobody has deleted it, 200 hits at once start one new window together."""
    for _ in range(3):
        await backend("key", 60, 1)
    hands.forward(3600)
    counts = await asyncio.gather(*(backend("key", 60, 1) for _ in range(200)))
    assert sorted(count.hits for count in counts) == list(range(1, 201))


async def test_keys_are_apart(backend: Any) -> None:
    """Each key has its own counter and window, whatever characters it has."""
    keys = ["a", "b", "a:1", "a.b", "$a", "a\0b", "ä"]
    for number, key in enumerate(keys, 1):
        assert await backend(key, number, 1) == Count(1, number)
    for number, key in enumerate(keys, 1):
        assert await backend(key, number, 1) == Count(2, number)


async def test_costs(backend: Any) -> None:
    """A hit may cost more than one."""
    assert (await backend("key", 60, 5)).hits == 5
    assert (await backend("key", 60, 2)).hits == 7


async def test_given_back(backend: Any, hands: Hands) -> None:
    """What is given back is not counted, and the window stays as it was."""
    await backend("key", 60, 1)
    await backend("key", 60, 1)
    hands.forward(10)
    assert await backend("key", 60, -1) == Count(1, 50)
    assert await backend("key", 60, -1) == Count(0, 50)
    assert await backend("key", 60, 1) == Count(1, 50)


async def test_given_back_in_parallel(backend: Any) -> None:
    """Hits and gifts back at once add up."""
    await backend("key", 60, 100)
    await asyncio.gather(*(backend("key", 60, cost) for cost in [1, -1] * 50))
    assert (await backend("key", 60, 1)).hits == 101


async def test_never_below_zero(backend: Any) -> None:
    """Giving back more than was counted gives nobody credit."""
    await backend("key", 60, 1)
    for _ in range(3):
        assert (await backend("key", 60, -1)).hits == 0
    assert (await backend("key", 60, 1)).hits == 1


async def test_given_back_too_late(backend: Any, hands: Hands) -> None:
    """Giving back when the window is over, or never was, starts none and leaves no credit."""
    assert (await backend("other", 60, -1)).hits == 0
    await backend("key", 60, 1)
    hands.forward(61)
    assert (await backend("key", 60, -1)).hits == 0
    hands.forward(30)
    assert await backend("key", 60, 1) == Count(1, 60)
    assert await backend("other", 60, 1) == Count(1, 60)


async def test_a_clock_that_is_set_back(make: Any, mongodb: Any, hands: Hands) -> None:
    """When the clock goes back an hour, no window is longer than a window, what was counted stays, and it ends."""
    for plugin in (mongodb, make("limits_memory", now=hands)):
        await set_back(plugin.hit, hands)


async def set_back(hit: Any, hands: Hands) -> None:
    await hit("key", 300, 3)
    hands.forward(-3600)
    assert await hit("key", 300, 1) == Count(4, 300)
    hands.forward(100)
    assert await hit("key", 300, -1) == Count(3, 200)
    hands.forward(200)
    assert await hit("key", 300, 1) == Count(1, 300)
    hands.forward(-3600)
    assert await hit("key", 300, -1) == Count(0, 300)


async def test_clocks_that_differ(mongodb: Any, hands: Hands) -> None:
    """A node whose clock is ahead makes no window that is longer on the others, and they count together."""
    hands.forward(20)
    assert await mongodb.hit("key", 300, 1) == Count(1, 300)
    hands.forward(-20)
    assert await mongodb.hit("key", 300, 1) == Count(2, 300)
    hands.forward(20)
    assert await mongodb.hit("key", 300, 1) == Count(3, 280)


async def test_one_operation_a_hit(mongodb: Any, hands: Hands) -> None:
    """A hit and a gift back are one operation each, as are gifts back on many keys; to find a window over takes two
    more."""
    for cost, operations in [(1, 1), (1, 1), (-1, 1), (1, 1)]:
        before = mongodb.asked()
        await mongodb.hit("key", 60, cost)
        assert mongodb.asked() - before == operations
    await mongodb.hit("another", 60, 1)
    before = mongodb.asked()
    await mongodb.give_back(["key", "another", "nobody"])
    assert mongodb.asked() - before == 1
    assert [(await mongodb.hit(key, 60, 1)).hits for key in ("key", "another", "nobody")] == [2, 1, 1]
    hands.forward(60)
    before = mongodb.asked()
    await mongodb.hit("key", 60, 1)
    assert mongodb.asked() - before == 2


async def test_one_document_a_key(mongodb: Any, hands: Hands) -> None:
    """A key has one document, over all its windows; giving back makes none."""
    await mongodb.hit("nobody", 60, -1)
    assert await mongodb.documents() == 0
    for _ in range(5):
        await asyncio.gather(*(mongodb.hit("key", 60, 1) for _ in range(20)))
        hands.forward(61)
    assert await mongodb.documents() == 1


async def test_memory_is_bounded(make: Any, hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond its bound the memory forgets what is over first, then what ends soonest."""
    monkeypatch.setattr("hydracore_limits_memory._MOST_KEYS", 100)
    plugin = make("limits_memory", now=hands)
    for number in range(40):
        await plugin.hit(f"over {number}", 10, 1)
    hands.forward(11)
    for number in range(50):
        await plugin.hit(f"long {number}", 3600, 1)
    for number in range(11):
        await plugin.hit(f"short {number}", 60, 1)
    assert len(plugin._counts) <= 100
    assert not any(key.startswith("over") for key in plugin._counts)
    assert (await plugin.hit("long 0", 3600, 1)).hits == 2
    for number in range(1000):
        await plugin.hit(f"more {number}", 60, 1)
        assert len(plugin._counts) <= 100
    assert (await plugin.hit("long 1", 3600, 1)).hits == 2
