"""What a process says of its own load."""

import asyncio
import json
import logging
import time
from functools import partial

import pytest
from support import PASSWORD, OpenSite

from hydracore.busyness import LoopLag


async def test_lag() -> None:
    """A loop that was kept from turning says for how long; ten seconds later that is forgotten."""
    lag = LoopLag()
    measuring = asyncio.ensure_future(lag.measure())
    await asyncio.sleep(0.05)
    assert lag.longest == 0
    time.sleep(0.5)  # that is the point
    await asyncio.sleep(0.15)
    assert 0.3 <= lag.longest < 5
    lag._late.extend([0.0] * 100)
    assert lag.longest == 0
    measuring.cancel()


async def test_load(open_site: OpenSite, expected_logs: list[str]) -> None:
    """Requests and hashes in flight are counted, and those that found no room."""
    expected_logs.append("unavailable")
    site = await open_site(password={"profile": "standard", "hash_threads": 1, "hash_queue": 1})
    attempts = [site.post("login", {"email": f"u{number}@example.com", "password": PASSWORD}) for number in range(8)]
    waiting = [asyncio.ensure_future(attempt) for attempt in attempts]
    seen = site.hydra.load()
    while not all(attempt.done() for attempt in waiting):
        now = site.hydra.load()
        seen = max(seen, now, key=lambda load: (load.hashes, load.requests))
        await asyncio.sleep(0)
    refused = [attempt.result().code for attempt in waiting].count(503)
    assert 1 <= seen.hashes <= 2
    assert seen.requests >= seen.hashes
    after = site.hydra.load()
    assert (after.requests, after.hashes, after.hashes_refused) == (0, 0, refused)
    assert refused >= 1
    assert after.loop_lag >= 0


async def test_refused_unread(open_site: OpenSite, expected_logs: list[str]) -> None:
    """A sign-in for whose hash there is no room is refused before its body or its credentials are looked at."""
    expected_logs.append("unavailable")
    site = await open_site(password={"hash_threads": 1, "hash_queue": 0})
    calls = ("login", {"raw": b"{", "Content-Type": "application/json"}), ("token", {"Authorization": "Basic ?"})
    asked = [partial(site.ask, "POST", f"/auth/{call}", **given) for call, given in calls]
    assert [(await ask()).code for ask in asked] == [422, 401]
    with site.hydra.services.passwords.room():
        assert [(await ask()).code for ask in asked] == [503, 503]
    assert site.hydra.load().hashes_refused == 2
    assert [(await ask()).code for ask in asked] == [422, 401]


async def test_load_is_logged(open_site: OpenSite, caplog: pytest.LogCaptureFixture) -> None:
    """A line about the load comes as often as ``log.load_every`` says, with what each plugin has cost."""
    caplog.set_level(logging.INFO)
    site = await open_site(log={"load_every": 1})
    for failed in (False, True):
        site.hydra.registry.calls.note("box", "mail_transport", 0.25, failed=failed)
    site.hydra.registry.calls.note("box", "hydracore_on_event", 0.5, failed=False)
    for _ in range(200):
        if lines := [record for record in caplog.records if record.message == "load"]:
            break
        await asyncio.sleep(0.05)
    said = {name: lines[0].__dict__[name] for name in ("loop_lag", "requests", "hashes", "hashes_refused", "pid")}
    assert json.loads(json.dumps(said)) == said
    cost = {"calls": 3, "failures": 1, "seconds": 1.0, "longest": 0.5}
    assert lines[0].__dict__["plugins"] == {"box": cost}  # What it took to start is not among them.
