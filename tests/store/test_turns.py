"""Operations take turns: so many at once, and none waits for ever."""

import asyncio

import pytest
from support import OpenSite, Site

from hydracore.errors import StoreUnavailable
from hydracore.store.turns import Turns


async def test_no_more_at_once() -> None:
    """However many there are, ``most`` are under way, and all of them come to their turn."""
    turns, here, seen = Turns(3, 5), 0, []

    async def operation() -> int:
        nonlocal here
        here += 1
        seen.append(here)
        await asyncio.sleep(0.001)
        here -= 1
        return 1

    assert sum(await asyncio.gather(*(turns.take(operation) for _ in range(50)))) == 50
    assert max(seen) == 3


async def test_no_turn() -> None:
    """Whoever waits too long is told so, and is out of the way of those behind; so is whoever gives up."""
    turns, go_on = Turns(1, 0.1), asyncio.Event()
    slow = asyncio.ensure_future(turns.take(go_on.wait))
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable) as raised:
        await turns.take(go_on.wait)
    assert raised.value.why["reason"] == "no turn within store.timeout"
    given_up = asyncio.ensure_future(turns.take(go_on.wait))
    await asyncio.sleep(0)
    given_up.cancel()
    go_on.set()
    assert await slow
    assert await turns.take(go_on.wait)


async def test_what_fails_ends_its_turn() -> None:
    """An operation that fails makes room for the next."""
    turns = Turns(1, 0.1)

    async def fails() -> None:
        raise StoreUnavailable

    for _ in range(3):
        with pytest.raises(StoreUnavailable) as raised:
            await turns.take(fails)
        assert not raised.value.why


async def test_writes_do_not_hold_up_reads(open_site: OpenSite) -> None:
    """While as many writes as may be are under way, and do not end, who is signed in is answered."""
    site = await open_site(store={"operations": 2})
    grant = await site.verified()
    writes, go_on = site.hydra.services.store.users._users._source.writes, asyncio.Event()
    stuck = [asyncio.ensure_future(writes.take(go_on.wait)) for _ in range(2)]
    await asyncio.sleep(0)
    assert (await site.me(grant["access_token"])).code == 200
    go_on.set()
    await asyncio.gather(*stuck)


async def test_nothing_is_cancelled() -> None:
    """Who gives up leaves the operation to itself: it keeps its place, and ends as it would have."""
    turns, go_on, ended = Turns(1, 0.05), asyncio.Event(), []

    async def operation() -> None:
        await go_on.wait()
        ended.append(True)
        raise StoreUnavailable

    waiting = asyncio.ensure_future(turns.take(operation))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(StoreUnavailable):
        await turns.take(go_on.wait)
    go_on.set()
    assert await turns.take(go_on.wait)
    assert ended


async def test_what_nobody_waits_for() -> None:
    """An operation whose caller has gone away goes on, and is waited for at the end, but not for ever."""
    turns, gate = Turns(1, 5), asyncio.Event()
    asked = asyncio.ensure_future(turns.take(gate.wait))
    await asyncio.sleep(0)
    asked.cancel()
    await asyncio.wait([asked])
    assert asked.cancelled()
    await turns.finish(0.01)
    assert turns._slots.locked()
    asyncio.get_running_loop().call_later(0.01, gate.set)
    await turns.finish(60)
    assert not turns._slots.locked()
    await turns.finish(60)  # There is nothing to wait for.


async def test_closing(site: Site) -> None:
    """A store that is closed while operations are under way leaves none of them behind, though nobody waits for them
    any more."""
    store = site.hydra._store
    before = asyncio.all_tasks()
    asked = [asyncio.ensure_future(store.users.by_id(str(number))) for number in range(10)]
    await asyncio.sleep(0)
    for each in asked:
        each.cancel()
    await store.close()
    assert {type(each) for each in await asyncio.gather(*asked, return_exceptions=True)} == {asyncio.CancelledError}
    assert not [task for task in asyncio.all_tasks() - before if "Turns" in repr(task)]
