"""An account that its owner closes, opens again, or lets go for good; and all that is held about it."""

import asyncio
import json
import re
from collections import Counter
from typing import Any

import pytest
from support import HOSTS, PASSWORD, OpenSite, Site, refused, tokens
from tornado.httpclient import HTTPResponse

from hydracore.errors import StoreUnavailable
from hydracore.flows.account import disable_user, enable_user, find_user
from hydracore.flows.sweep import sweep
from hydracore.models import User
from hydracore.plugin import Authenticator, Context, Identity, ProfileMember, events, hookimpl

EMAIL, OTHER = "ada@example.com", "countess@example.org"
NEW = "an entirely new password"


@pytest.fixture(autouse=True)
def an_undone_change_is_a_warning(expected_logs: list[str]) -> None:
    expected_logs.append("EmailChangeUndone")


def bearer(grant: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {grant['access_token']}"}


async def log_in(site: Site, password: str = PASSWORD, email: str = EMAIL) -> HTTPResponse:
    return await site.post("login", {"email": email, "password": password})


async def close(site: Site, grant: dict[str, Any], password: str = PASSWORD) -> HTTPResponse:
    return await site.ask("DELETE", "/auth/me", body={"password": password}, **bearer(grant))


async def reopen(site: Site, token: str) -> HTTPResponse:
    return await site.post("undo-deletion", {"token": token})


async def token_of(site: Site, nth: int = 1) -> str:
    return await site.box.undo_token(EMAIL, nth, "account is closed")


async def account(site: Site) -> User | None:
    return await find_user(site.hydra.services, EMAIL)


class Ear:
    """Hears what happens to accounts."""

    heard: list[str]

    def __init__(self, context: Context) -> None:
        type(self).heard = []

    @hookimpl
    async def hydracore_on_event(self, event: events.Event) -> None:
        if isinstance(event, events.DeletionRequested | events.DeletionUndone | events.UserDeleted):
            self.heard.append(type(event).__name__)


@pytest.mark.parametrize("host", HOSTS)
async def test_closed_opened_and_gone(open_site: OpenSite, host: str) -> None:
    """A closed account is closed for everybody at once, its address stays taken, and the mailed token opens it again;
    closed once more it is gone, with all that belonged to it, when its grace is over."""
    site = await open_site(HOSTS[host], extra={"ear": Ear})
    other = await site.verified()
    grant = tokens(await log_in(site))
    await site.post("forgot-password", {"email": EMAIL})
    reset = {"token": await site.box.reset_token(EMAIL), "new_password": NEW}
    answer = await close(site, grant)
    assert answer.code == 200, answer.body
    assert set(json.loads(answer.body)) == {"message", "deleted_at"}
    assert len(answer.headers.get_list("Set-Cookie")) == 2
    for void in (other, grant):
        refused(await site.me(void["access_token"]), 401, "not_authenticated")
        refused(await site.post("refresh", {"refresh_token": void["refresh_token"]}), 401, "invalid_refresh_token")
    refused(await log_in(site), 401, "invalid_credentials")
    refused(await site.post("reset-password", reset), 400, "invalid_token")
    refused(await site.post("register", {"email": EMAIL, "password": NEW}), 409, "email_taken")

    token = await token_of(site)
    site.clock.forward(days=6, hours=23)
    await sweep(site.hydra.services)
    answer = await reopen(site, token)
    assert (answer.code, set(json.loads(answer.body))) == (200, {"message"})
    refused(await site.me(grant["access_token"]), 401, "not_authenticated")
    refused(await reopen(site, token), 400, "invalid_token")
    grant = tokens(await log_in(site))

    assert (await close(site, grant)).code == 200
    token = await token_of(site, 2)
    site.clock.forward(days=7, seconds=1)
    refused(await reopen(site, token), 400, "invalid_token")
    assert await account(site)
    await sweep(site.hydra.services)
    assert await account(site) is None
    for name in ("users", "sessions", "codes", "outbox"):
        assert await site.hydra._store.collection(name).count_documents({}) == 0, name
    await site.hydra.registry.settle()
    assert Ear.heard == ["DeletionRequested", "DeletionUndone", "DeletionRequested", "UserDeleted"]
    await site.register()


async def test_at_once(open_site: OpenSite) -> None:
    """With a grace of 0 the account is gone before the answer is there, and the mail says so and has no link."""
    site = await open_site(account={"deletion_grace": 0}, extra={"ear": Ear})
    assert (await close(site, await site.verified())).code == 200
    assert await account(site) is None
    letter = await site.box.letter(EMAIL, about="account is closed")
    assert "It is deleted" in letter
    assert "token" not in letter
    await site.hydra.registry.settle()
    assert Ear.heard == ["DeletionRequested", "UserDeleted"]


async def test_a_wrong_password(open_site: OpenSite) -> None:
    """A wrong password closes nothing, and counts as a failed sign-in."""
    site = await open_site(limits={"enabled": True})
    grant = await site.verified()
    for _ in range(5):
        refused(await close(site, grant, "not the password"), 403, "invalid_password")
    refused(await close(site, grant), 429, "too_many_requests")
    refused(await log_in(site), 429, "too_many_requests")
    assert (await site.me(grant["access_token"])).code == 200


async def test_who_may(site: Site) -> None:
    """Strangers get 401, whoever has not proven the address 403, a foreign page 403, and a bad body 422."""
    unproven = await site.register("eve@example.com")
    grant = await site.verified()
    cookie = {"Cookie": f"hydracore_access={grant['access_token']}", "Sec_Fetch_Site": "cross-site"}
    body = {"password": PASSWORD}
    refused(await site.ask("DELETE", "/auth/me", body=body), 401, "not_authenticated")
    refused(await site.ask("DELETE", "/auth/me", body=body, **bearer(unproven)), 403, "email_not_verified")
    refused(await site.ask("DELETE", "/auth/me", body=body, **cookie), 403, "cross_origin")
    refused(await site.ask("DELETE", "/auth/me", **bearer(grant)), 415, "unsupported_media_type")
    for value in ({"$ne": None}, [PASSWORD], 1, None, "", "x" * 129):
        answer = await site.ask("DELETE", "/auth/me", body={"password": value}, **bearer(grant))
        [problem] = refused(answer, 422, "validation_failed")
        assert problem["loc"] == ["body", "password"]
    assert (await site.me(grant["access_token"])).code == 200
    refused(await site.ask("GET", "/auth/me/export"), 401, "not_authenticated")
    refused(await site.ask("GET", "/auth/me/export", **bearer(unproven)), 403, "email_not_verified")


class Directory:
    def __init__(self, context: Context) -> None:
        pass

    @hookimpl
    def hydracore_register_authenticators(self) -> list[Authenticator]:
        return [Authenticator("directory", self.authenticate)]

    async def authenticate(self, email: str, password: str) -> Identity | None:
        return Identity() if password == "known there" else None


async def test_a_password_elsewhere(open_site: OpenSite) -> None:
    """Someone whom an authenticator knows closes the account by the password that it takes, and is not let in while it
    is closed; once it is gone the next sign-in makes a new one."""
    site = await open_site(extra={"directory": Directory}, login={"authenticators": ["password", "directory"]})
    grant = tokens(await log_in(site, "known there"))
    refused(await close(site, grant), 403, "invalid_password")
    first = await account(site)
    assert (await close(site, grant, "known there")).code == 200
    refused(await log_in(site, "known there"), 401, "invalid_credentials")
    site.clock.forward(days=8)
    await sweep(site.hydra.services)
    tokens(await log_in(site, "known there"))
    again = await account(site)
    assert first
    assert again
    assert first.id != again.id


async def test_an_authenticator_that_is_gone(open_site: OpenSite) -> None:
    """Where the authenticator is asked no more there is no password to give, and that is told."""
    site = await open_site(extra={"directory": Directory}, login={"authenticators": ["directory"]})
    grant = tokens(await log_in(site, "known there"))
    later = await open_site(keep=True, extra={"directory": Directory})
    refused(await close(later, grant, "known there"), 403, "password_elsewhere")


async def test_parallel_closings(site: Site) -> None:
    """Of 10 closings at once one goes through, and one mail goes out; of 10 who open it again at once one does."""
    grant = await site.verified()
    answers = await asyncio.gather(*(close(site, grant) for _ in range(10)))
    assert Counter(answer.code for answer in answers) == {200: 1, 401: 9}
    token = await token_of(site)
    answers = await asyncio.gather(*(reopen(site, token) for _ in range(10)))
    assert Counter(answer.code for answer in answers) == {200: 1, 400: 9}
    assert len([letter for letter in site.box.letters if "account is closed" in letter["Subject"]]) == 1
    tokens(await log_in(site))


async def test_closing_against_signing_in(site: Site) -> None:
    """A sign-in that was judged while the account was being closed holds no live session."""
    grant = await site.verified()
    answers = await asyncio.gather(
        *(log_in(site) for _ in range(5)), close(site, grant), *(log_in(site) for _ in range(5))
    )
    for answer in (*answers[:5], *answers[6:]):
        if answer.code == 200:
            refused(await site.me(tokens(answer)["access_token"]), 401, "not_authenticated")


async def test_sweeps_at_once(open_site: OpenSite) -> None:
    """Of many nodes that sweep at once each account is deleted by one, and told once."""
    site = await open_site(extra={"ear": Ear})
    for number in range(5):
        grant = await site.verified(f"u{number}@example.com")
        assert (await close(site, grant)).code == 200
    site.clock.forward(days=8)
    await asyncio.gather(*(sweep(site.hydra.services) for _ in range(10)))
    await site.hydra.registry.settle()
    assert Counter(Ear.heard) == {"DeletionRequested": 5, "UserDeleted": 5}
    assert await site.hydra.services.store.users.page(None, 10) == []


@pytest.mark.parametrize("part", ["sessions.end_all", "codes.drop_all", "users.delete_closed"])
async def test_a_sweep_that_ends_half_way(open_site: OpenSite, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    """Wherever it ends, the next one does the rest."""
    site = await open_site(extra={"ear": Ear})
    assert (await close(site, await site.verified())).code == 200
    site.clock.forward(days=8)

    async def away(*args: Any, **named: Any) -> None:
        raise StoreUnavailable

    collection, verb = part.split(".")
    with monkeypatch.context() as patch:
        patch.setattr(getattr(site.hydra.services.store, collection), verb, away)
        with pytest.raises(StoreUnavailable):
            await sweep(site.hydra.services)
    assert await account(site)
    await sweep(site.hydra.services)
    assert await account(site) is None
    await site.hydra.registry.settle()
    assert Ear.heard == ["DeletionRequested", "UserDeleted"]


async def test_it_is_swept(open_site: OpenSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """A running HydraCore does so by itself, and goes on after the database was away."""
    monkeypatch.setattr("hydracore.core._SWEEP_EVERY", 0.05)
    site = await open_site()
    assert (await close(site, await site.verified())).code == 200
    over, failed = site.hydra.services.store.users.over, []

    async def away(*args: Any, **named: Any) -> list[User]:
        monkeypatch.setattr(site.hydra.services.store.users, "over", over)
        failed.append(args)
        raise StoreUnavailable

    monkeypatch.setattr(site.hydra.services.store.users, "over", away)
    site.clock.forward(days=8)
    for _ in range(500):
        if await account(site) is None:
            break
        await asyncio.sleep(0.01)
    assert await account(site) is None
    assert failed


async def test_an_operators_word(site: Site) -> None:
    """An operator who opens the account, or disables it, ends the deletion, and the mailed token with it."""
    grant = await site.verified()
    for number, word in enumerate((enable_user, disable_user), 1):
        assert (await close(site, grant)).code == 200
        token = await token_of(site, number)
        user = await account(site)
        assert user
        await word(site.hydra.services, user)
        refused(await reopen(site, token), 400, "invalid_token")
        answer = await log_in(site)
        assert answer.code == (200 if word is enable_user else 401)
        if answer.code == 200:
            grant = tokens(answer)
    site.clock.forward(days=8)
    await sweep(site.hydra.services)
    kept = await account(site)
    assert kept
    assert (kept.disabled, kept.closed) == (True, None)


async def test_enabled_by_an_older_node(site: Site) -> None:
    """An account that a node of before has enabled, which knows nothing of its closing, is not deleted."""
    assert (await close(site, await site.verified())).code == 200
    await site.hydra._store.collection("users").update_many({}, {"$set": {"disabled": False}})
    site.clock.forward(days=8)
    await sweep(site.hydra.services)
    tokens(await log_in(site))


async def test_a_thief_closes_it(site: Site) -> None:
    """A thief changes the address and closes the account: the address of before opens it again and has it back."""
    held = bearer(await site.verified())
    assert (await site.post("change-email", {"password": PASSWORD, "email": OTHER}, **held)).code == 200
    code = {"code": await site.box.change_code(OTHER)}
    thief = tokens(await site.post("confirm-email", code, **held))
    assert (await close(site, thief)).code == 200
    thiefs = await site.box.undo_token(OTHER, about="account is closed")
    owners = {"token": await site.box.undo_token(EMAIL)}
    assert (await site.post("undo-email-change", owners)).code == 200
    refused(await reopen(site, thiefs), 400, "invalid_token")
    reset = {"token": await site.box.reset_token(EMAIL), "new_password": NEW}
    assert (await site.post("reset-password", reset)).code == 200
    tokens(await log_in(site, NEW))
    site.clock.forward(days=8)
    await sweep(site.hydra.services)
    assert await account(site)


@pytest.mark.parametrize("token", ["x", "x" * 43, "\x00", "é" * 43, "$ne"])
async def test_tokens_that_are_none(site: Site, token: str) -> None:
    """What is no token of ours is 400; one kind never stands in for the other."""
    held = bearer(await site.verified())
    assert (await site.post("change-email", {"password": PASSWORD, "email": OTHER}, **held)).code == 200
    code = {"code": await site.box.change_code(OTHER)}
    grant = tokens(await site.post("confirm-email", code, **held))
    assert (await close(site, grant)).code == 200
    refused(await reopen(site, token), 400, "invalid_token")
    refused(await reopen(site, await site.box.undo_token(EMAIL)), 400, "invalid_token")
    other = {"token": await site.box.undo_token(OTHER, about="account is closed")}
    refused(await site.post("undo-email-change", other), 400, "invalid_token")


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("verb", ["close", "reopen"])
async def test_lost(
    site: Site, monkeypatch: pytest.MonkeyPatch, expected_logs: list[str], verb: str, done: bool
) -> None:
    """When it is unknown whether it went through the answer is 503, the mail goes out if so, and repeating it does no
    harm."""
    expected_logs.append("unavailable")
    grant = await site.verified()
    if verb == "reopen":
        await close(site, grant)
    users = site.hydra.services.store.users
    method = getattr(users, verb)

    async def lost(*args: Any) -> None:
        monkeypatch.setattr(users, verb, method)
        if done:
            await method(*args)
        raise StoreUnavailable

    async def attempt() -> HTTPResponse:
        return await close(site, grant) if verb == "close" else await reopen(site, await token_of(site))

    monkeypatch.setattr(users, verb, lost)
    refused(await attempt(), 503, "store_unavailable")
    assert (await attempt()).code == {("close", True): 401, ("reopen", True): 400}.get((verb, done), 200)
    site.clock.forward(seconds=16)
    site.hydra._mail.wake()
    await token_of(site)
    assert (await log_in(site)).code == (401 if verb == "close" else 200)
    assert len([letter for letter in site.box.letters if "account is closed" in letter["Subject"]]) == 1


async def test_links_come_from_the_configuration(open_site: OpenSite) -> None:
    """The link is built from public_url, or as mail.undo_deletion_url says."""
    at = "https://id.example.com"
    for url, link in (("", f"{at}/undo-deletion#token="), ("https://a.example/u", "https://a.example/u#token=")):
        site = await open_site(public_url=at, mail={"undo_deletion_url": url})
        assert (await close(site, await site.verified())).code == 200
        letter = await site.box.letter(EMAIL, about="account is closed")
        assert link in letter
        assert re.search(r"after [0-9-]{10} [0-9:]{5} UTC", letter)


# -- what is held --------------------------------------------------------------------------------------


class Members:
    def __init__(self, context: Context) -> None:
        pass

    @hookimpl
    def hydracore_register_profile_members(self) -> list[ProfileMember]:
        return [ProfileMember("display_name", {"type": "string", "maxLength": 80})]


@pytest.mark.parametrize("host", HOSTS)
async def test_export(open_site: OpenSite, host: str) -> None:
    """An owner gets all that is held, and nobody else's; no secret, no hash and no digest of one is among it."""
    site = await open_site(HOSTS[host], extra={"members": Members})
    body = {"email": EMAIL, "password": PASSWORD, "display_name": "Ada"}
    first = tokens(await site.post("register", body), 201)
    code = {"email": EMAIL, "code": await site.box.code(EMAIL)}
    how = {**bearer(first), "User_Agent": "curl/8", "Accept_Language": "en-GB,en;q=0.5"}
    held = bearer(tokens(await site.post("verify-email", code, **how)))
    assert (await site.post("change-email", {"password": PASSWORD, "email": OTHER}, **held)).code == 200
    code = {"code": await site.box.change_code(OTHER)}
    grant = tokens(await site.post("confirm-email", code, **held))
    await site.box.undo_token(EMAIL)
    await site.verified("eve@example.com")
    await site.post("forgot-password", {"email": OTHER})
    reset = await site.box.reset_token(OTHER)
    await site.hydra._mail.stop(5)
    site.clock.forward(minutes=2)
    await site.post("forgot-password", {"email": OTHER})
    answer = await site.ask("GET", "/auth/me/export", **bearer(grant))
    assert answer.code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    told = json.loads(answer.body)
    me = json.loads((await site.me(grant["access_token"])).body)
    assert me.pop("profile") == told["profile"] == {"display_name": "Ada"}
    assert told["account"] == {**me, "authenticator": "password", "language": "en-gb,en", "roles": []}
    assert [former["email"] for former in told["former_addresses"]] == [EMAIL]
    assert [session["current"] for session in told["sessions"]] == [True]
    assert len(told["networks"]) == 1
    assert [(mail["kind"], mail["state"]) for mail in told["mails"]] == [("reset_password", "waiting")]
    assert [code["kind"] for code in told["codes"]] == ["reset"]
    user = await site.hydra.services.store.users.by_address(OTHER)
    assert user
    text = answer.body.decode()
    hidden = [user.password_hash, reset, grant["refresh_token"], "eve@example.com", "argon2"]
    for entry in user.addresses:
        hidden += [entry[name] for name in ("nonce", "digest") if name in entry]
    async for document in site.hydra._store.collection("codes").find({}):
        hidden += [document["digest"]] if document["digest"] else []
    for secret in hidden:
        assert secret not in text, secret
