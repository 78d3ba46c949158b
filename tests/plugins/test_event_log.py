"""The event log: one line for each thing that happens."""

import dataclasses
import logging
from typing import Any

import pytest

from hydracore import events


def every() -> list[type[events.Event]]:
    """Every kind of event that there is."""
    kinds = [kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, events.Event)]
    bases = {base for kind in kinds for base in kind.__mro__[1:]}
    return [kind for kind in kinds if kind not in bases]


def example(kind: type[events.Event]) -> events.Event:
    values = {field.name: 7 if field.type in (int, "int") else field.name for field in dataclasses.fields(kind)}
    return kind(**values)


@pytest.mark.parametrize("kind", every())
async def test_one_line_an_event(
    make: Any, caplog: pytest.LogCaptureFixture, expected_logs: list[str], kind: type[events.Event]
) -> None:
    """Each event is one line of hydracore.events, named after it, with all its fields."""
    expected_logs.append("hydracore.events")
    caplog.set_level(logging.INFO)
    event = example(kind)
    await make("event_log").hydracore_on_event(event)
    [record] = caplog.records
    assert (record.name, record.getMessage()) == ("hydracore.events", kind.__name__)
    assert dataclasses.asdict(event).items() <= record.__dict__.items()
    alarming = (events.RefreshReused, events.EmailChangeUndone, events.MailDead)
    assert record.levelno == (logging.WARNING if kind in alarming else logging.INFO)


def test_there_are_events() -> None:
    """The suite above knows the events that matter most."""
    assert {events.LoginFailed, events.Limited, events.RefreshReused, events.MailDead} < set(every())


async def test_it_tells_of_a_sign_in(open_site: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Enabled in a HydraCore, it tells of a failed sign-in without naming the address or the password."""
    caplog.set_level(logging.INFO)
    site = await open_site(plugins={"enabled": ["event_log"]})
    await site.post("login", {"email": "ada@example.com", "password": "wrong password"})
    await site.hydra.registry.settle()
    [record] = [record for record in caplog.records if record.name == "hydracore.events"]
    assert record.getMessage() == "LoginFailed"
    assert "ada@" not in str(record.__dict__)
    assert "wrong password" not in str(record.__dict__)
