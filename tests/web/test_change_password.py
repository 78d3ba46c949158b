"""Another password, by whoever is signed in and knows the one of before."""

import asyncio
import json
from collections import Counter
from typing import Any

import pytest
from support import HOSTS, PASSWORD, OpenSite, Site, refused, tokens
from tornado.httpclient import HTTPResponse

from hydracore.errors import StoreUnavailable
from hydracore.plugin import Account, Authenticator, Context, Identity, ResetRefused, TokenRefused, hookimpl

EMAIL = "ada@example.com"
NEW = "an entirely new password"
BODY = {"current_password": PASSWORD, "new_password": NEW}
WRONG = {"current_password": "not the password", "new_password": NEW}


def bearer(grant: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {grant['access_token']}"}


async def log_in(site: Site, password: str = PASSWORD) -> HTTPResponse:
    return await site.post("login", {"email": EMAIL, "password": password})


@pytest.mark.parametrize("host", HOSTS)
async def test_changed(open_site: OpenSite, host: str) -> None:
    """The new password signs in and the old one does not; every session and mailed token of before is void, the caller
    has a new session, in body and cookies, and the owner is told."""
    site = await open_site(HOSTS[host])
    other = await site.verified()
    grant = tokens(await log_in(site))
    await site.post("forgot-password", {"email": EMAIL})
    reset = {"token": await site.box.reset_token(EMAIL), "new_password": "yet another password"}
    answer = await site.post("change-password", BODY, **bearer(grant), User_Agent="curl/8")
    newest = tokens(answer)
    assert len(answer.headers.get_list("Set-Cookie")) == 2
    assert newest["email_verified"] is True
    for void in (other, grant):
        refused(await site.me(void["access_token"]), 401, "not_authenticated")
        refused(await site.post("refresh", {"refresh_token": void["refresh_token"]}), 401, "invalid_refresh_token")
    refused(await site.post("reset-password", reset), 400, "invalid_token")
    tokens(await site.post("refresh", {"refresh_token": newest["refresh_token"]}))
    refused(await log_in(site), 401, "invalid_credentials")
    tokens(await log_in(site, NEW))
    assert "signed out" in await site.box.letter(EMAIL, about="was changed")


async def test_a_wrong_password(site: Site) -> None:
    """Another password than the current one is 403, changes nothing, ends nothing and mails nobody."""
    grant = await site.verified()
    refused(await site.post("change-password", WRONG, **bearer(grant)), 403, "invalid_password")
    assert (await site.me(grant["access_token"])).code == 200
    tokens(await log_in(site))
    assert await site.hydra.services.store.outbox.list(10) == []


async def test_guesses_are_failed_sign_ins(open_site: OpenSite) -> None:
    """Wrong ones count where failed sign-ins do, and the other way round; right ones count nowhere."""
    site = await open_site(limits={"enabled": True})
    held = bearer(await site.verified())
    for _ in range(3):
        refused(await site.post("change-password", WRONG, **held), 403, "invalid_password")
    for _ in range(2):
        refused(await log_in(site, "not the password"), 401, "invalid_credentials")
    refused(await site.post("change-password", WRONG, **held), 429, "too_many_requests")
    refused(await site.post("change-password", BODY, **held), 429, "too_many_requests")
    refused(await log_in(site), 429, "too_many_requests")
    site.clock.forward(seconds=301)
    for number in range(7):
        body = {"current_password": NEW + str(number - 1) if number else PASSWORD, "new_password": NEW + str(number)}
        held = bearer(tokens(await site.post("change-password", body, **held)))


async def test_parallel_guesses(open_site: OpenSite) -> None:
    """Of 40 guesses at once five are judged."""
    site = await open_site(limits={"enabled": True})
    held = bearer(await site.verified())
    answers = await asyncio.gather(*(site.post("change-password", WRONG, **held) for _ in range(40)))
    assert Counter(answer.code for answer in answers) == {403: 5, 429: 35}


async def test_parallel_changes(site: Site) -> None:
    """Of 10 changes at once one goes through, and that one signs in; to the others their session has ended."""
    grant = await site.verified()
    answers = await asyncio.gather(
        *(
            site.post("change-password", {"current_password": PASSWORD, "new_password": NEW + str(n)}, **bearer(grant))
            for n in range(10)
        )
    )
    assert Counter(answer.code for answer in answers) == {200: 1, 401: 9}
    winner = next(number for number, answer in enumerate(answers) if answer.code == 200)
    tokens(await log_in(site, NEW + str(winner)))
    assert (await site.me(tokens(answers[winner])["access_token"])).code == 200


async def test_policies(site: Site) -> None:
    """A password that a policy refuses is 422 and named, and nothing happened."""
    grant = await site.verified()
    for weak in ("password1", EMAIL, "hydracore1"):
        body = {**BODY, "new_password": weak}
        [problem, *_] = refused(await site.post("change-password", body, **bearer(grant)), 422, "validation_failed")
        assert problem["loc"] == ["body", "new_password"]
    assert (await site.me(grant["access_token"])).code == 200
    assert "was changed" not in str([letter["Subject"] for letter in site.box.letters])


async def test_hooks(open_site: OpenSite) -> None:
    """What may refuse a reset, or a token, may refuse this, and the password stays."""

    class Strict:
        refusal: Exception | None = None

        def __init__(self, context: Context) -> None:
            pass

        @hookimpl
        async def hydracore_before_reset_password(self, account: Account) -> None:
            if isinstance(self.refusal, ResetRefused):
                raise self.refusal

        @hookimpl
        async def hydracore_before_issue_token(self, account: Account) -> None:
            if isinstance(self.refusal, TokenRefused):
                raise self.refusal

    site = await open_site(extra={"strict": Strict})
    grant = await site.verified()
    for error in (ResetRefused("Not here."), TokenRefused("Not now.")):
        Strict.refusal = error
        assert refused(await site.post("change-password", BODY, **bearer(grant)), 403, error.code) == str(error)
    Strict.refusal = None
    assert (await site.me(grant["access_token"])).code == 200
    tokens(await log_in(site))


class Directory:
    def __init__(self, context: Context) -> None:
        pass

    @hookimpl
    def hydracore_register_authenticators(self) -> list[Authenticator]:
        return [Authenticator("directory", self.authenticate)]

    async def authenticate(self, email: str, password: str) -> Identity | None:
        return Identity() if password == "known there" else None


async def test_a_password_elsewhere(open_site: OpenSite) -> None:
    """An account of an authenticator has no password here, and is told so; address and password stay."""
    site = await open_site(extra={"directory": Directory}, login={"authenticators": ["password", "directory"]})
    held = bearer(tokens(await log_in(site, "known there")))
    body = {"current_password": "known there", "new_password": NEW}
    refused(await site.post("change-password", body, **held), 403, "password_elsewhere")
    change = {"password": "known there", "email": "eve@example.com"}
    refused(await site.post("change-email", change, **held), 403, "password_elsewhere")
    refused(await log_in(site, NEW), 401, "invalid_credentials")


async def test_who_may(site: Site) -> None:
    """Strangers get 401, whoever has not proven the address 403, a foreign page 403, and a bad body 422."""
    unproven = await site.register("eve@example.com")
    grant = await site.verified()
    refused(await site.post("change-password", BODY), 401, "not_authenticated")
    refused(await site.post("change-password", BODY, **bearer(unproven)), 403, "email_not_verified")
    foreign = {"Cookie": f"hydracore_access={grant['access_token']}", "Origin": "https://evil.example"}
    refused(await site.post("change-password", BODY, **foreign), 403, "cross_origin")
    for member in BODY:
        for value in ({"$ne": None}, [PASSWORD], 1, None, "x" * 129):
            body = {**BODY, member: value}
            [problem] = refused(await site.post("change-password", body, **bearer(grant)), 422, "validation_failed")
            assert problem["loc"] == ["body", member]
    assert (await site.me(grant["access_token"])).code == 200


async def test_an_ended_session(open_site: OpenSite) -> None:
    """With tokens.cache_ttl, too, a session that another process has ended changes nothing."""
    site = await open_site(tokens={"cache_ttl": 5})
    grant = await site.verified()
    assert (await site.me(grant["access_token"])).code == 200
    await site.hydra._store.collection("sessions").delete_many({})
    refused(await site.post("change-password", BODY, **bearer(grant)), 401, "not_authenticated")
    tokens(await log_in(site))


@pytest.mark.parametrize("done", [True, False])
async def test_lost(site: Site, monkeypatch: pytest.MonkeyPatch, expected_logs: list[str], done: bool) -> None:
    """When it is unknown whether it went through the answer is 503; the owner is told if so, and signs in with one of
    the two passwords."""
    expected_logs.append("unavailable")
    grant = await site.verified()
    users = site.hydra.services.store.users
    method = users.change_password

    async def lost(*args: Any) -> None:
        monkeypatch.setattr(users, "change_password", method)
        if done:
            await method(*args)
        raise StoreUnavailable

    monkeypatch.setattr(users, "change_password", lost)
    refused(await site.post("change-password", BODY, **bearer(grant)), 503, "store_unavailable")
    again = await site.post("change-password", BODY, **bearer(grant))
    if done:
        refused(again, 401, "not_authenticated")
    else:
        tokens(again)
    tokens(await log_in(site, NEW))
    site.clock.forward(seconds=16)
    site.hydra._mail.wake()
    await site.box.letter(EMAIL, about="was changed")


async def test_networks_of_before(open_site: OpenSite) -> None:
    """A new password leaves the network that it came from as the only one that is known."""
    site = await open_site(server={"trusted_proxies": ["127.0.0.1"]})
    grant = await site.verified()
    await site.post("login", {"email": EMAIL, "password": PASSWORD}, X_Forwarded_For="192.0.2.9")
    tokens(await site.post("change-password", BODY, **bearer(grant)))
    user = await site.hydra.services.store.users.by_address(EMAIL)
    assert len(user.networks) == 1
    assert json.loads((await log_in(site, NEW)).body)["email_verified"] is True
