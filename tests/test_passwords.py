"""Hashing beside the loop: bounded, at low priority, the right answers."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import pytest
from argon2 import extract_parameters
from processes import program
from support import Site

from hydracore.errors import HashingOverloaded
from hydracore.passwords import TESTING, HashCost, HashingPool, Passwords

STANDARD = HashCost(19456, 2, 1)


async def test_hash_and_verify() -> None:
    """A password verifies against its own hash and no other, in either normal form."""
    passwords = Passwords(TESTING, HashingPool(1, 10))
    encoded = await passwords.hash("café au lait")
    assert await passwords.verify(encoded, "cafe\u0301 au lait")
    assert not await passwords.verify(encoded, "cafe au lait")
    assert not await passwords.verify("rubbish", "café au lait")
    assert encoded != await passwords.hash("café au lait")
    passwords.close()


async def test_parameters() -> None:
    """The configured parameters are those of the hash; another's is outdated."""
    passwords = Passwords(STANDARD, HashingPool(1, 10))
    encoded = await passwords.hash("a password")
    found = extract_parameters(encoded)
    assert (found.memory_cost, found.time_cost, found.parallelism, found.type.name) == (19456, 2, 1, "ID")
    assert found.salt_len >= 16
    assert not passwords.outdated(encoded)
    cheap = Passwords(TESTING, HashingPool(1, 10))
    assert passwords.outdated(await cheap.hash("a password"))
    passwords.close()
    cheap.close()


async def test_nobodys_hash(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is verified for an address that nobody has is there before anyone is served: the first is no later than the
    next."""
    passwords = site.hydra.services.passwords
    monkeypatch.setattr(passwords, "_hasher", None)
    assert passwords._nobodys_hash.startswith("$argon2id$")


async def test_known_answer() -> None:
    """A hash made by argon2's reference implementation verifies."""
    passwords = Passwords(TESTING, HashingPool(1, 10))
    # argon2 -id -t 2 -m 16 -p 1 of "password" with the salt "somesalt", from the reference tests.
    encoded = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
    assert await passwords.verify(encoded, "password")
    assert not await passwords.verify(encoded, "Password")
    passwords.close()


async def test_full_queue() -> None:
    """Beyond threads and queue the refusal comes at once; when there is room again, work is taken."""
    pool = HashingPool(1, 2)
    gate = threading.Event()
    waiting = [asyncio.ensure_future(pool.run(gate.wait)) for _ in range(3)]
    await asyncio.sleep(0)
    before = time.monotonic()
    with pytest.raises(HashingOverloaded) as raised:
        await pool.run(gate.wait)
    assert time.monotonic() - before < 0.5
    assert raised.value.headers()["Retry-After"] == "1"
    gate.set()
    await asyncio.gather(*waiting)
    assert await pool.run(lambda: 7) == 7
    pool.close()


async def test_abandoned_work_counts_until_it_is_done() -> None:
    """A caller that gives up does not make room that is not there."""
    pool = HashingPool(1, 0)
    gate = threading.Event()
    abandoned = asyncio.ensure_future(pool.run(gate.wait))
    await asyncio.sleep(0.01)
    abandoned.cancel()
    await asyncio.sleep(0)
    assert pool.pending == 1
    before = time.monotonic()
    with pytest.raises(HashingOverloaded) as raised:
        await pool.run(gate.wait)
    # For want of room, and not because nothing came of it within the pool's patience.
    assert time.monotonic() - before < 0.5
    assert raised.value.why["reason"] == "password.hash_queue is full"
    gate.set()
    while pool.pending:  # noqa: ASYNC110  # simpler than an event
        await asyncio.sleep(0.01)
    assert await pool.run(lambda: 7) == 7
    pool.close()


async def test_patience() -> None:
    """A hash that does not end in time is refused; one that waits for it is never begun, and its place is free."""
    pool = HashingPool(1, 1, patience=0.1)
    gate, begun = threading.Event(), threading.Event()
    running = asyncio.ensure_future(pool.run(gate.wait))
    waiting = asyncio.ensure_future(pool.run(begun.set))
    for refused in (running, waiting):
        with pytest.raises(HashingOverloaded):
            await refused
    await asyncio.sleep(0)
    assert (pool.pending, pool.refused) == (1, 2)
    gate.set()
    assert await pool.run(lambda: 7) == 7
    assert not begun.is_set()
    pool.close()


async def test_closed_while_it_waits() -> None:
    """A hash that the pool's end has not let begin is refused: whoever waits for it has an answer."""
    pool = HashingPool(1, 1)
    begun, gate = threading.Event(), threading.Event()

    def work() -> bool:
        begun.set()
        return gate.wait(10)

    running = asyncio.ensure_future(pool.run(work))
    while not begun.is_set():  # noqa: ASYNC110  # a thread sets it
        await asyncio.sleep(0.01)
    waiting = asyncio.ensure_future(pool.run(work))
    await asyncio.sleep(0)
    pool.close()
    with pytest.raises(HashingOverloaded):
        await waiting
    gate.set()
    assert await running


async def test_a_place_is_kept() -> None:
    """Whoever has a place is served, and whoever comes meanwhile is refused at once; a place that is left is free."""
    pool = HashingPool(1, 0)
    with pool.room() as room:
        with pytest.raises(HashingOverloaded), pool.room():
            pytest.fail("there was room")
        with pytest.raises(HashingOverloaded):
            await pool.run(lambda: 7)
        assert await pool.run(lambda: 7, room) == 7
    with pool.room() as room:
        room.leave()
        assert await pool.run(lambda: 8) == 8
        assert await pool.run(lambda: 9, room) == 9
    assert pool.pending == 0
    pool.close()


async def test_few_are_made_ready() -> None:
    """Of those with a place only so many are near the front; the next comes near when a hash has ended or a place is
    left, and whoever waits too long for that gives up a place that others get."""
    pool = HashingPool(1, 20, patience=0.2)
    with ExitStack() as stack:
        rooms = [stack.enter_context(pool.room()) for _ in range(4)]
        for room in rooms[:2]:
            await room.near()
        await rooms[0].near()  # It is already.
        with pytest.raises(HashingOverloaded) as raised:
            await rooms[2].near()
        assert raised.value.why["reason"] == "no turn within password.hash_timeout"
        waiting = [asyncio.ensure_future(room.near()) for room in rooms[2:]]
        await asyncio.sleep(0)
        assert await pool.run(lambda: 7, rooms[0]) == 7
        await waiting[0]
        rooms[1].leave()
        await waiting[1]
    assert pool.pending == 0
    with ExitStack() as stack:
        for _ in range(2):
            await stack.enter_context(pool.room()).near()
    pool.close()


async def test_low_priority() -> None:
    """The hashing threads are nicer than the event loop's."""
    pool = HashingPool(1, 1)
    niceness = await pool.run(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
    assert niceness == min(19, os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) + 10)
    pool.close()


STARTED_NICE = """
import asyncio, os, threading
from hydracore.passwords import HashingPool

async def niceness():
    pool = HashingPool(1, 1)
    print(await pool.run(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))
    pool.close()

os.nice(15)
asyncio.run(niceness())
"""


def test_started_nice() -> None:
    """A server that was started nice, by a user who may not take that back, hashes all the same."""
    harmless = [program("setpriv"), "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    started = [*(harmless if os.getuid() == 0 else []), sys.executable, "-c", STARTED_NICE]
    ended = subprocess.run(started, capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("19\n", "")


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="only Linux has an idle class")
async def test_idle_class() -> None:
    """But for the first, which goes on where other programs leave no core idle, the hashing threads run only where
    nobody else wants to."""
    pool, together = HashingPool(3, 1), threading.Barrier(3)

    def policy() -> int:
        together.wait(10)
        return os.sched_getscheduler(threading.get_native_id())

    ours = os.sched_getscheduler(threading.get_native_id())
    policies = await asyncio.gather(*(pool.run(policy) for _ in range(3)))
    assert sorted(policies) == sorted([ours, os.SCHED_IDLE, os.SCHED_IDLE])
    assert os.sched_getscheduler(threading.get_native_id()) == ours
    pool.close()


async def test_loop_stays_free() -> None:
    """While every thread hashes, the loop goes on turning."""
    passwords = Passwords(STANDARD, HashingPool(2, 100, patience=60))  # The machine may be busy with more.
    hashing = asyncio.gather(*(passwords.hash("a password") for _ in range(20)))
    turns = 0
    while not hashing.done():
        await asyncio.sleep(0)
        turns += 1
    await hashing
    assert turns > 20
    passwords.close()
