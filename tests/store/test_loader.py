"""Look-ups that are asked for at once are one operation, and each gets its own answer."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from hydracore.errors import StoreUnavailable
from hydracore.store.loader import Keys, Loader


class Asked:
    """An operation that is told its keys when ``turn`` is set, and finds those that begin with "a"."""

    def __init__(self) -> None:
        self.turn, self.end = asyncio.Event(), asyncio.Event()
        self.turn.set()
        self.end.set()
        self.batches: list[list[str]] = []
        self.failure: Exception | None = None
        self.loader: Loader[str, str] = Loader(self.ask)

    async def ask(self, keys: Keys[str]) -> Mapping[str, str]:
        await self.turn.wait()
        asked = list(keys())
        self.batches.append(asked)
        await self.end.wait()
        if self.failure is not None:
            raise self.failure
        return {key: key.upper() for key in asked if key.startswith("a")}


async def test_at_once() -> None:
    """Those of one pass of the loop are one operation, and one key is asked for once; whoever comes alone is alone."""
    asked = Asked()
    found = await asyncio.gather(*(asked.loader.get(key) for key in ("a1", "a2", "b1", "a1")))
    assert found == ["A1", "A2", None, "A1"]
    assert await asked.loader.get("a3") == "A3"
    assert asked.batches == [["a1", "a2", "b1"], ["a3"]]


async def test_while_waiting_for_the_turn() -> None:
    """Whoever comes while those before wait for their turn shares it; whoever comes when it has begun does not, for the
    answer might be older than the question."""
    asked = Asked()
    asked.turn.clear()
    asked.end.clear()
    first = asyncio.ensure_future(asked.loader.get("a1"))
    await asyncio.sleep(0.01)
    second = asyncio.ensure_future(asked.loader.get("a2"))
    await asyncio.sleep(0.01)
    asked.turn.set()
    await asyncio.sleep(0.01)
    third = asyncio.ensure_future(asked.loader.get("a1"))
    await asyncio.sleep(0.01)
    assert asked.batches == [["a1", "a2"], ["a1"]]
    asked.end.set()
    assert await asyncio.gather(first, second, third) == ["A1", "A2", "A1"]


async def test_no_more_than_a_batch() -> None:
    """Of many at once some are one operation, and the others the next."""
    asked = Asked()
    found = await asyncio.gather(*(asked.loader.get(f"a{number}") for number in range(120)))
    assert found == [f"A{number}" for number in range(120)]
    assert [len(batch) for batch in asked.batches] == [50, 50, 20]


async def test_who_gives_up() -> None:
    """Whoever does not wait any more costs the others nothing."""
    asked = Asked()
    asked.end.clear()
    gone, stays = (asyncio.ensure_future(asked.loader.get(key)) for key in ("a1", "a2"))
    await asyncio.sleep(0.01)
    gone.cancel()
    asked.end.set()
    assert await stays == "A2"
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_nobody_is_left() -> None:
    """What nobody waits for any more when its turn comes is not asked for."""
    asked = Asked()
    asked.turn.clear()
    first, second, third = (asyncio.ensure_future(asked.loader.get(key)) for key in ("a1", "a2", "a1"))
    await asyncio.sleep(0.01)
    first.cancel()
    second.cancel()
    asked.turn.set()
    assert await third == "A1"
    asked.turn.clear()
    alone = asyncio.ensure_future(asked.loader.get("a3"))
    await asyncio.sleep(0.01)
    alone.cancel()
    asked.turn.set()
    await asyncio.sleep(0.01)
    assert await asked.loader.get("a4") == "A4"
    assert asked.batches == [["a1"], ["a4"]]
    await asyncio.sleep(0)
    assert not asked.loader._running


async def test_a_loop_that_begins_at_once() -> None:
    """Where a task runs as soon as it is made (asyncio.eager_task_factory of Python 3.12) each is asked for alone."""

    def at_once(loop: asyncio.AbstractEventLoop, coroutine: Any, **kwargs: Any) -> Any:
        done = loop.create_future()
        with pytest.raises(StopIteration):
            coroutine.send(None)
        done.set_result(None)
        return done

    asked, loop = Asked(), asyncio.get_running_loop()
    before = loop.get_task_factory()
    loop.set_task_factory(at_once)
    try:
        assert [await asked.loader.get(key) for key in ("a1", "a2")] == ["A1", "A2"]
    finally:
        loop.set_task_factory(before)
    assert asked.batches == [["a1"], ["a2"]]


async def test_a_failure_is_everybodys_own() -> None:
    """Each is told why it failed, by an error of their own: what one adds to it is not the others'."""
    asked = Asked()
    asked.failure = StoreUnavailable().because("no turn")
    asked.failure.__cause__ = OSError("gone")
    first, second = await asyncio.gather(*(asked.loader.get(key) for key in ("a1", "a2")), return_exceptions=True)
    assert isinstance(first, StoreUnavailable)
    assert isinstance(second, StoreUnavailable)
    first.because(user="ada")
    assert (first.why, second.why) == ({"reason": "no turn", "user": "ada"}, {"reason": "no turn"})
    assert second.__cause__ is asked.failure.__cause__
    asked.failure = None
    assert await asked.loader.get("a1") == "A1"


async def test_a_mistake_reaches_everybody() -> None:
    """What nobody foresaw is raised too; nobody waits for ever, and the next are answered."""
    asked = Asked()
    asked.failure = KeyError("a mistake")
    found = await asyncio.gather(*(asked.loader.get(key) for key in ("a1", "a2")), return_exceptions=True)
    assert [type(each) for each in found] == [KeyError, KeyError]
    asked.failure = None
    assert await asked.loader.get("a1") == "A1"


@pytest.mark.parametrize("passed", [0, 0.01], ids=["before it began", "in the middle"])
async def test_the_end_of_the_loop(passed: float) -> None:
    """Where the operation itself is cancelled, as by whoever cancels all tasks of a loop, those who wait are, too, and
    what asks next is answered."""
    asked = Asked()
    asked.turn.clear()
    waiting = asyncio.ensure_future(asked.loader.get("a1"))
    await asyncio.sleep(passed)
    for running in asked.loader._running:
        running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    asked.turn.set()
    assert await asked.loader.get("a2") == "A2"
