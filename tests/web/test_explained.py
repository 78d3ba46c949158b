"""Refusals that the operator can have explained: the client learns nothing of it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from support import PASSWORD, OpenSite, Site, tokens
from tornado.httpclient import HTTPResponse

from hydracore.errors import StoreUnavailable
from hydracore.flows.account import delete_user, disable_user, find_user, revoke_sessions
from hydracore.models import Refusal
from hydracore.plugin import Account, Context, LoginRefused, hookimpl

EMAIL = "ada@example.com"
RIGHT = {"email": EMAIL, "password": PASSWORD}
WRONG = {"email": EMAIL, "password": "wrong password"}

Ask = Callable[[Site], Awaitable[HTTPResponse]]


async def why(site: Site, answer: HTTPResponse) -> Refusal:
    """What is kept of an answer's request; nothing of it was told to the client."""
    services = site.hydra.services
    await site.hydra._refusals.flush()
    [refusal] = await services.store.refusals.of_request(answer.headers["X-Request-Id"], services.now())
    assert refusal.status == answer.code
    assert refusal.code == json.loads(answer.body)["code"]
    assert refusal.network == "127.0.0.1"
    for fact in refusal.why.values():
        assert not isinstance(fact, str) or fact not in answer.body.decode() or fact in ("", EMAIL)
    assert PASSWORD not in str(refusal)
    return refusal


async def nobody(site: Site) -> HTTPResponse:
    return await site.post("login", {**WRONG, "email": "nobody@example.com"})


async def no_address(site: Site) -> HTTPResponse:
    return await site.ask("POST", "/auth/token", raw=b"", Authorization="Basic bm9hZGRyZXNzOnBhc3N3b3Jk")


async def wrong_password(site: Site) -> HTTPResponse:
    await site.register()
    return await site.post("login", WRONG)


async def disabled(site: Site) -> HTTPResponse:
    await site.register()
    user = await find_user(site.hydra.services, EMAIL)
    assert user
    await disable_user(site.hydra.services, user)
    return await site.post("login", RIGHT)


async def no_token(site: Site) -> HTTPResponse:
    return await site.ask("GET", "/auth/me")


async def garbled(site: Site) -> HTTPResponse:
    return await site.me("garbled")


async def long(site: Site) -> HTTPResponse:
    return await site.me("x" * 5000)


async def forged(site: Site) -> HTTPResponse:
    token = (await site.register())["access_token"]
    return await site.me(token[:-8] + "AAAAAAAA")


async def expired(site: Site) -> HTTPResponse:
    token = (await site.register())["access_token"]
    site.clock.forward(seconds=1801)
    return await site.me(token)


async def ended(site: Site) -> HTTPResponse:
    grant = await site.register()
    await site.post("logout", {"refresh_token": grant["refresh_token"]})
    return await site.me(grant["access_token"])


async def revoked(site: Site) -> HTTPResponse:
    grant = await site.register()
    user = await find_user(site.hydra.services, EMAIL)
    assert user
    await revoke_sessions(site.hydra.services, user)
    return await site.post("refresh", {"refresh_token": grant["refresh_token"]})


async def deleted(site: Site) -> HTTPResponse:
    grant = await site.register()
    user = await find_user(site.hydra.services, EMAIL)
    assert user
    await delete_user(site.hydra.services, user)
    return await site.me(grant["access_token"])


async def stolen(site: Site) -> HTTPResponse:
    old = (await site.register())["refresh_token"]
    newer = tokens(await site.post("refresh", {"refresh_token": old}))["refresh_token"]
    tokens(await site.post("refresh", {"refresh_token": newer}))
    return await site.post("refresh", {"refresh_token": old})


async def no_refresh_token(site: Site) -> HTTPResponse:
    return await site.post("refresh")


async def foreign_refresh_token(site: Site) -> HTTPResponse:
    return await site.post("refresh", {"refresh_token": "hcr1.a.1.b"})


async def taken(site: Site) -> HTTPResponse:
    await site.register()
    return await site.post("register", RIGHT)


async def cross_origin(site: Site) -> HTTPResponse:
    return await site.post("login", RIGHT, Origin="https://evil.example", Sec_Fetch_Site="cross-site")


async def wrong_code(site: Site) -> HTTPResponse:
    await site.register()
    code = await site.box.code(EMAIL)
    return await site.post("verify-email", {"email": EMAIL, "code": f"{(int(code) + 1) % 1_000_000:06}"})


async def code_of_nobody(site: Site) -> HTTPResponse:
    return await site.post("verify-email", {"email": "nobody@example.com", "code": "123456"})


async def old_code(site: Site) -> HTTPResponse:
    await site.register()
    code = await site.box.code(EMAIL)
    site.clock.forward(seconds=86_400)
    return await site.post("verify-email", {"email": EMAIL, "code": code})


async def proven(site: Site) -> HTTPResponse:
    await site.verified()
    return await site.post("verify-email", {"email": EMAIL, "code": "123456"})


async def reset_token(site: Site) -> HTTPResponse:
    return await site.post("reset-password", {"token": "x" * 43, "new_password": PASSWORD})


@pytest.mark.parametrize(
    ("ask", "reason"),
    [
        (nobody, "the address has no account"),
        (no_address, "that is no address"),
        (wrong_password, "that is not the password"),
        (disabled, "the account is disabled"),
        (no_token, "no access token came"),
        (garbled, "the access token proves nothing"),
        (long, "the access token is too long"),
        (forged, "the access token proves nothing"),
        (expired, "the access token has expired"),
        (ended, "the session has ended or expired"),
        (revoked, "the session has ended or expired"),
        (deleted, "the session has ended or expired"),
        (stolen, "the refresh token was used before: the session is ended"),
        (no_refresh_token, "no refresh token came"),
        (foreign_refresh_token, "the refresh token is none of ours"),
        (taken, "the address has an account"),
        (wrong_code, "the code is wrong"),
        (code_of_nobody, "the address has no account"),
        (old_code, "no code is out: the last one has expired, or an event since made it void"),
        (proven, "the address is proven already"),
        (reset_token, "there is no such token, or it has expired"),
    ],
)
async def test_reasons(site: Site, ask: Ask, reason: str, expected_logs: list[str]) -> None:
    """One sentence for the client, the reason for the operator."""
    expected_logs.append("RefreshReused")
    assert (await why(site, await ask(site))).why["reason"] == reason


async def test_origin(site: Site) -> None:
    """A cross-origin refusal keeps whose page it was."""
    facts = (await why(site, await cross_origin(site))).why
    assert facts == {"origin": "https://evil.example", "fetch_site": "cross-site"}


async def test_limits(open_site: OpenSite) -> None:
    """A 429 keeps its rule, where the counter stood, and when it starts again."""
    site = await open_site(limits={"enabled": True})
    for _ in range(5):
        await site.post("login", WRONG)
    facts = (await why(site, await site.post("login", WRONG))).why
    assert facts["rule"] == "limits.login_address_network = 5/300"
    assert facts["count"] == 6
    assert 290 <= facts["resets_in"] <= 300


async def test_plugins(open_site: OpenSite, expected_logs: list[str]) -> None:
    """What a plugin refused, or why it was 503, names it."""
    expected_logs += ["plugin failed", "unavailable"]

    class Choosy:
        broken = False

        def __init__(self, context: Context) -> None:
            pass

        @hookimpl
        async def hydracore_before_login(self, account: Account) -> None:
            if self.broken:
                raise KeyError(account.email)
            raise LoginRefused("Not today.")

    site = await open_site(extra={"choosy": Choosy})
    await site.register()
    facts = (await why(site, await site.post("login", RIGHT))).why
    assert facts == {"plugin": "choosy", "hook": "hydracore_before_login"}
    Choosy.broken = True
    facts = (await why(site, await site.post("login", RIGHT))).why
    assert facts["reason"] == "the plugin failed"
    assert (facts["plugin"], facts["cause"]) == ("choosy", "KeyError")


async def test_a_storm_stays_small(open_site: OpenSite) -> None:
    """Between two writes ten refusals of a network are kept, and a hundred in all; the next second more are."""
    site = await open_site(server={"trusted_proxies": ["127.0.0.1"]})
    for number in range(12):
        for _ in range(11):
            await site.ask("GET", "/auth/me", X_Forwarded_For=f"203.0.113.{number}")
    refusals = site.hydra._refusals
    assert len(refusals._waiting) == 100
    await refusals.flush()
    await site.ask("GET", "/auth/me", X_Forwarded_For="203.0.113.1")
    assert len(refusals._waiting) == 1


async def test_switched_off(open_site: OpenSite) -> None:
    """With ``log.explain_ttl = 0`` nothing is kept."""
    site = await open_site(log={"explain_ttl": 0})
    await nobody(site)
    assert not site.hydra._refusals._waiting


async def test_kept_for_its_time(site: Site) -> None:
    """What is too old is not told, deleted already or not."""
    answer = await nobody(site)
    assert await why(site, answer)
    services = site.hydra.services
    later = services.now() + timedelta(seconds=3601)
    assert not await services.store.refusals.of_request(answer.headers["X-Request-Id"], later)


async def test_written_when_the_database_is_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the database refusals wait, the latest thousand; one that was written without an answer is there once."""
    answer = await nobody(site)
    written = site.hydra.services.store.refusals
    add = written.add

    async def no_answer(*arguments: Any) -> None:
        await add(*arguments)
        raise StoreUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(written, "add", no_answer)
        with pytest.raises(StoreUnavailable):
            await site.hydra._refusals.flush()
    assert (await why(site, answer)).why["reason"] == "the address has no account"


async def test_side_by_side(site: Site) -> None:
    """Of several refusals at once each is written once, while the core writes on its own."""
    answers = await asyncio.gather(*(site.ask("GET", "/auth/me") for _ in range(10)))
    for answer in answers:
        await why(site, answer)
