"""Plugins by themselves: made from their entry points with a context, and letters as the outbox hands them over."""

from collections.abc import Callable
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from hydracore.chance import token as real_token
from hydracore.config import check_section, load
from hydracore.discovery import installed
from hydracore.letters import Templates
from hydracore.plugin import Context

Make = Callable[..., Any]
Write = Callable[..., EmailMessage]


class Lent:
    """Surroundings that hold the database alone: ``database(name)`` gives a collection."""

    def __init__(self, database: Any) -> None:
        self._database = database

    def collection(self, name: str) -> Any:
        return self._database(name)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes the plugin of that name from its entry point, with that section, checked as the core does."""

    def made(
        name: str,
        *,
        now: Any = lambda: datetime.now(UTC),
        token: Any = real_token,
        surroundings: Any = None,
        database: Any = None,
        settings: Any = None,
        **section: Any,
    ) -> Any:
        plugin = installed()[name]
        context = Context(
            name,
            check_section(name, section, plugin.schema()),
            settings=settings or load(environment={}, overrides={"data_dir": str(tmp_path / "data")}),
            now=now,
            token=token,
            surroundings=surroundings or Lent(database),
        )
        return plugin.load()(context)

    return made


@pytest.fixture
def write() -> Write:
    """Composes a real letter and takes it through bytes, as sealing does."""

    def written(to: str = "ada@example.com", code: str = "314159") -> EmailMessage:
        values = {"code": code, "minutes": 10}
        templates = Templates("HydraCore <no-reply@example.org>", "HydraCore")
        letter = templates.compose("verify_email", to, values, "intent.1", datetime.now(UTC))
        return message_from_bytes(letter.as_bytes(policy=policy.SMTP), policy=policy.SMTP)

    return written
