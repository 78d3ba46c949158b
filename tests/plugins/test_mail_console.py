"""The console: mail to look at while developing."""

import logging
from typing import Any

import pytest


async def test_a_letter_is_printed(
    make: Any, write: Any, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Headers and text go to standard output, and none of it to the log."""
    caplog.set_level(logging.DEBUG)
    plugin = make("mail_console")
    await plugin.send(write(), "key")
    shown = capsys.readouterr().out
    assert "To: ada@example.com\n" in shown
    assert "Subject: " in shown
    assert "314159" in shown
    assert "<html" not in shown
    assert "314159" not in caplog.text
    [transport] = plugin.hydracore_register_mail_transports()
    assert (transport.name, transport.delivers) == ("console", False)
