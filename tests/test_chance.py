"""Time and chance."""

import secrets

import pytest

from hydracore.chance import token


def test_no_option(monkeypatch: pytest.MonkeyPatch) -> None:
    """An id can be an argument on a command line: none begins with a hyphen."""
    drawn = iter(["-z", "--", "a-"])
    monkeypatch.setattr(secrets, "token_urlsafe", lambda size: next(drawn))
    assert token(9) == "a-"
