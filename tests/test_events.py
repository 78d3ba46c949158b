"""What the log and the listeners learn, and what they never do."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from datetime import datetime

import pytest
from support import PASSWORD, OpenSite, Site, tokens

from hydracore.logs import configure

EMAIL = "ada@example.com"


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """Everything that any logger writes, at the lowest level."""
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure("debug", "json", stream)
    root.handlers += handlers
    yield stream
    root.handlers = handlers
    root.setLevel(level)
    for name in ("tornado.access", "pymongo", "asyncio", "aiosmtplib"):
        logging.getLogger(name).disabled = False
        logging.getLogger(name).setLevel(logging.NOTSET)


async def test_no_secret_is_logged(site: Site, written: io.StringIO, expected_logs: list[str]) -> None:
    """In the log of a whole story, at debug, there is no password, code, token, cookie or Authorization header."""
    expected_logs += ["RefreshReused"]
    first = await site.register()
    code = await site.box.code(EMAIL)
    verified = tokens(await site.post("verify-email", {"email": EMAIL, "code": code}))
    await site.post("login", {"email": EMAIL, "password": "a wrong password"})
    basic = "Basic YWRhQGV4YW1wbGUuY29tOmNvcnJlY3QgaG9yc2UgYmF0dGVyeSBzdGFwbGU="
    await site.ask("POST", "/auth/token", raw=b"", Authorization=basic)
    newer = tokens(await site.post("refresh", {"refresh_token": verified["refresh_token"]}))
    site.clock.forward(seconds=40)
    await site.post("refresh", {"refresh_token": verified["refresh_token"]})
    await site.post("forgot-password", {"email": EMAIL})
    reset = await site.box.reset_token(EMAIL)
    await site.post("reset-password", {"token": reset, "new_password": "an entirely new password"})
    await site.ask("GET", f"/auth/me?token={reset}", Cookie=f"hydracore_access={newer['access_token']}")
    await site.hydra.registry.settle()
    log = written.getvalue()
    assert log.count('"event": "request"') >= 9
    secrets = [PASSWORD, "a wrong password", "an entirely new password", reset, basic[6:]]
    for grant in (first, verified, newer):
        secrets += [grant["access_token"], grant["refresh_token"], grant["access_token"].split(".")[2]]
    for secret in secrets:
        assert secret not in log
    assert code not in [str(value) for line in log.splitlines() for value in json.loads(line).values()]
    assert EMAIL not in log


async def test_one_line_a_request(site: Site, written: io.StringIO) -> None:
    """A request is one line with its id, and JSON whatever the path holds."""
    answer = await site.ask("GET", '/auth/"quoted%0a"?x=1')
    [line] = [json.loads(line) for line in written.getvalue().splitlines() if '"event": "request"' in line]
    assert line["request_id"] == answer.headers["X-Request-Id"]
    assert (line["method"], line["status"], line["code"], line["level"]) == ("GET", 404, "not_found", "info")
    assert "x=1" not in line["path"]


async def test_attempts_are_events(site: Site, written: io.StringIO) -> None:
    """Every sign-in, right or wrong, is an event with the client's network and without the address."""
    await site.register()
    await site.post("login", {"email": EMAIL, "password": "a wrong password"})
    await site.hydra.registry.settle()
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    events = [line["event"] for line in lines if line["logger"] == "hydracore.events"]
    assert {"Registered", "LoggedIn", "LoginFailed"} <= set(events)
    [failed] = [line for line in lines if line["event"] == "LoginFailed"]
    assert failed["network"] == "127.0.0.1"
    assert len(failed["address_digest"]) == 22
    assert datetime.fromisoformat(failed["at"]).tzinfo is not None


async def test_text_for_people() -> None:
    """On a terminal the log is text."""
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        configure("info", "text", stream)
        logging.getLogger("x").info("hello", extra={"number": 7})
    finally:
        root.handlers = handlers
        root.setLevel(level)
        logging.getLogger("tornado.access").disabled = False
    assert "hello" in stream.getvalue()
    assert "number=7" in stream.getvalue()
    with pytest.raises(ValueError, match="data"):
        json.loads(stream.getvalue())


async def test_listeners_harm_nobody(
    open_site: OpenSite, expected_logs: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A listener that raises or hangs is logged with its name, and the request does not wait for it."""
    expected_logs += ["plugin failed", "plugin is late"]
    from hydracore.plugin import Context, events, hookimpl

    class Bad:
        def __init__(self, context: Context) -> None:
            pass

        @hookimpl
        async def hydracore_on_event(self, event: events.Event) -> None:
            if isinstance(event, events.Registered):
                raise ConnectionError("bad listener")  # any failure will do
            await asyncio.sleep(60)

    site = await open_site(plugins={"timeout": 1}, extra={"bad": Bad})
    await asyncio.wait_for(site.register(), 0.9)
    site.hydra.registry.announce(events.EmailVerified(user_id="x"))
    await site.hydra.registry.settle()
    lines = {record.message: record.__dict__ for record in caplog.records if record.name == "hydracore.plugins"}
    assert set(lines) == {"plugin failed", "plugin is late"}
    assert {(line["plugin"], line["hook"]) for line in lines.values()} == {("bad", "hydracore_on_event")}
