"""A write whose outcome is unknown is answered 503, does no harm when it is repeated, and keeps its mail."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support import PASSWORD, Site, refused, tokens

from hydracore.errors import StoreUnavailable

EMAIL = "ada@example.com"
BODY = {"email": EMAIL, "password": PASSWORD}
NEW = "an entirely new password"


def lose(monkeypatch: pytest.MonkeyPatch, part: Any, verb: str, *, done: bool) -> None:
    """The next call of ``verb`` is done, or not, and then the connection is lost."""
    method: Callable[..., Awaitable[Any]] = getattr(part, verb)

    async def lost(*args: Any, **named: Any) -> Any:
        monkeypatch.setattr(part, verb, method)
        if done:
            await method(*args, **named)
        raise StoreUnavailable

    monkeypatch.setattr(part, verb, lost)


async def test_outbox_lost_at_registration(
    site: Site, monkeypatch: pytest.MonkeyPatch, expected_logs: list[str]
) -> None:
    """When the mail cannot be put in, nobody is registered, and repeating it registers and mails."""
    expected_logs.append("unavailable")
    lose(monkeypatch, site.hydra.services.store.outbox, "add", done=False)
    refused(await site.post("register", BODY), 503, "store_unavailable")
    tokens(await site.post("register", BODY), 201)
    await site.box.code(EMAIL)


@pytest.mark.parametrize("done", [True, False])
async def test_user_lost_at_registration(
    site: Site, monkeypatch: pytest.MonkeyPatch, expected_logs: list[str], done: bool
) -> None:
    """When it is unknown whether the user was added, the code is mailed if so, and a repetition or a sign-in works."""
    expected_logs.append("unavailable")
    lose(monkeypatch, site.hydra.services.store.users, "add", done=done)
    refused(await site.post("register", BODY), 503, "store_unavailable")
    if done:
        refused(await site.post("register", BODY), 409, "email_taken")
        tokens(await site.post("login", BODY))
        site.clock.forward(seconds=16)
        site.hydra._mail.wake()
    else:
        tokens(await site.post("register", BODY), 201)
    await site.box.code(EMAIL)


@pytest.mark.parametrize("done", [True, False])
async def test_reset_lost(site: Site, monkeypatch: pytest.MonkeyPatch, expected_logs: list[str], done: bool) -> None:
    """When it is unknown whether a reset went through, the owner is told if so, and the token works once at most."""
    expected_logs.append("unavailable")
    await site.register()
    await site.post("forgot-password", {"email": EMAIL})
    reset = {"token": await site.box.reset_token(EMAIL), "new_password": NEW}
    lose(monkeypatch, site.hydra.services.store.users, "reset_password", done=done)
    refused(await site.post("reset-password", reset), 503, "store_unavailable")
    if done:
        refused(await site.post("reset-password", reset), 400, "invalid_token")
    else:
        assert (await site.post("reset-password", reset)).code == 200
    tokens(await site.post("login", {"email": EMAIL, "password": NEW}))
    site.clock.forward(seconds=16)
    site.hydra._mail.wake()
    await site.box.letter(EMAIL, about="was changed")


async def test_refused_writes_leave_no_mail(site: Site) -> None:
    """A registration that is refused, and a reset that is, leave nothing in the outbox and mail nobody."""
    await site.register()
    await site.box.code(EMAIL)
    for _ in range(3):
        refused(await site.post("register", BODY), 409, "email_taken")
    await site.post("reset-password", {"token": "x", "new_password": NEW})
    site.clock.forward(seconds=16)
    assert await site.hydra.services.store.outbox.list(10) == []
    assert len(site.box.letters) == 1


async def test_no_notice_of_what_did_not_happen(
    site: Site, monkeypatch: pytest.MonkeyPatch, expected_logs: list[str]
) -> None:
    """The notice of a reset that was lost before it happened is dropped."""
    expected_logs.append("unavailable")
    await site.register()
    await site.post("forgot-password", {"email": EMAIL})
    reset = {"token": await site.box.reset_token(EMAIL), "new_password": NEW}
    lose(monkeypatch, site.hydra.services.store.users, "reset_password", done=False)
    refused(await site.post("reset-password", reset), 503, "store_unavailable")
    site.clock.forward(seconds=16)
    site.hydra._mail.wake()
    await site.post("forgot-password", {"email": EMAIL})
    await site.box.reset_token(EMAIL, 2)
    assert not [letter for letter in site.box.letters if "was changed" in letter["Subject"]]


@pytest.mark.parametrize("done", [True, False])
async def test_refresh_lost(site: Site, monkeypatch: pytest.MonkeyPatch, expected_logs: list[str], done: bool) -> None:
    """When it is unknown whether a refresh went through, repeating it yields the successor either way."""
    expected_logs.append("unavailable")
    first = await site.register()
    lose(monkeypatch, site.hydra.services.store.sessions, "advance", done=done)
    body = {"refresh_token": first["refresh_token"]}
    refused(await site.post("refresh", body), 503, "store_unavailable")
    second = tokens(await site.post("refresh", body))
    tokens(await site.post("refresh", {"refresh_token": second["refresh_token"]}))
