"""The server secret being replaced: what was made under the one of before is good, and nobody is signed out."""

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from email.message import EmailMessage
from typing import Any

import pytest
from support import PASSWORD, OpenSite, Site, refused, tokens

from hydracore import StartupError, load
from hydracore.flows import closing
from hydracore.flows.account import find_user
from hydracore.flows.networks import is_known, remember_network
from hydracore.flows.sealing import needs, reseal
from hydracore.models import MailIntent
from hydracore.secret import CannotOpen, ServerSecret
from hydracore.store import Store
from hydracore.tokens import RefreshTokens

EMAIL, OTHER, NEW_PASSWORD = "ada@example.com", "eve@example.com", "an entirely new password"
OLD, NEW = "the-secret-of-before-" + "o" * 20, "the-secret-to-come-" + "n" * 20

Open = Callable[..., Awaitable[Site]]


@pytest.fixture
def at(open_site: OpenSite, mongod_uri: str) -> Open:
    """Opens a node under a secret that knows others; over an empty database for the ``first``."""

    async def emptied() -> None:
        store = Store(driver="pymongo", database="server_secret", timeout=10)
        store.open(mongod_uri)
        await store.drop()
        await store.close()

    async def opened(secret: str, *others: str, first: bool = False, **more: Any) -> Site:
        more = {"store": {"database": "server_secret"}, **more}
        if first:
            await emptied()
        site = await open_site(secret=secret, other_secrets=list(others), keep=True, **more)
        site.hydra._tell_at = math.inf  # It is seen when it starts, and when a test says.
        return site

    return opened


def bearer(grant: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {grant['access_token']}"}


def test_one_secret_and_others() -> None:
    """Things are made under the first; what was made under any is opened and proven, for its own purpose and owner
    alone, and what was made under none is not."""
    old, new, both = ServerSecret(OLD), ServerSecret(NEW), ServerSecret(NEW, others=[OLD, NEW])
    assert both.mac("a", "b") == new.mac("a", "b") != old.mac("a", "b")
    assert both.macs("a", "b") == (new.mac("a", "b"), old.mac("a", "b"))
    for one in (old, new):
        assert both.proves(one.mac("a", "b"), "a", "b")
        assert not both.proves(one.mac("a", "b"), "a", "c")
        assert not both.proves(one.mac("a", "b"), "c", "b")
        sealed = one.seal("a", b"plain", "owner")
        assert both.look_into("a", sealed, "owner") == (b"plain", one.fingerprints[0])
        for purpose, owner in (("b", "owner"), ("a", "another")):
            with pytest.raises(CannotOpen):
                both.open(purpose, sealed, owner)
    for stranger in (both, old):
        with pytest.raises(CannotOpen):
            stranger.open("a", ServerSecret("x" * 32).seal("a", b"plain", "owner"), "owner")
    assert not both.proves(ServerSecret("x" * 32).mac("a"), "a")
    assert not both.proves("", "a")
    assert both.fingerprints == (new.fingerprints[0], old.fingerprints[0])


async def test_sessions_go_on(at: Open) -> None:
    """Access and refresh tokens of before are taken under the new secret, a refresh gives one that needs the old
    secret no more, and the node that still works under the old one takes those too."""
    old = await at(OLD, NEW, first=True)
    grant = await old.verified()
    new = await at(NEW, OLD)
    assert (await new.me(grant["access_token"])).code == 200
    renewed = tokens(await new.post("refresh", {"refresh_token": grant["refresh_token"]}))
    assert RefreshTokens(ServerSecret(NEW)).read(renewed["refresh_token"])
    for node in (old, new, old):
        renewed = tokens(await node.post("refresh", {"refresh_token": renewed["refresh_token"]}))
        assert (await node.me(renewed["access_token"])).code == 200


async def test_codes_and_tokens_that_are_out(at: Open) -> None:
    """A verification code and a code for another address are good under the new secret."""
    old = await at(OLD, NEW, first=True)
    grant = await old.register()
    code = await old.box.code(EMAIL)
    new = await at(NEW, OLD)
    refused(await new.post("verify-email", {"email": OTHER, "code": code}), 400, "invalid_code")
    grant = tokens(await new.post("verify-email", {"email": EMAIL, "code": code}, **bearer(grant)))
    await new.hydra._mail.stop(1)  # So that the old one has all the mail.
    await old.post("change-email", {"password": PASSWORD, "email": OTHER}, **bearer(grant))
    code = await old.box.change_code(OTHER)
    tokens(await new.post("confirm-email", {"code": code}, **bearer(grant)))


async def test_a_newer_code_ends_an_older_one(at: Open) -> None:
    """Of codes that two nodes have sent under two secrets, the newest alone is good, and tries count for it."""
    old = await at(OLD, NEW, first=True)
    grant = await old.register()
    first = await old.box.code(EMAIL)
    new = await at(NEW, OLD)
    new.clock.forward(seconds=61)
    await old.hydra._mail.stop(1)
    await new.post("resend-verification", {"email": EMAIL})
    second = await new.box.code(EMAIL)
    assert await new.hydra.services.store.collection("codes").count_documents({"user_id": {"$ne": ""}}) == 2
    if first != second:  # One in a million is.
        for node in (old, new):
            answer = await node.post("verify-email", {"email": EMAIL, "code": first}, **bearer(grant))
            refused(answer, 400, "invalid_code")
    tokens(await old.post("verify-email", {"email": EMAIL, "code": second}, **bearer(grant)))


async def test_resets(at: Open) -> None:
    """A reset token of before sets a password under the new secret, once."""
    old = await at(OLD, NEW, first=True)
    await old.verified()
    await old.post("forgot-password", {"email": EMAIL})
    body = {"token": await old.box.reset_token(EMAIL), "new_password": NEW_PASSWORD}
    new = await at(NEW, OLD)
    assert (await new.post("reset-password", body)).code == 200
    refused(await new.post("reset-password", body), 400, "invalid_token")


async def test_links_that_undo(at: Open, expected_logs: list[str]) -> None:
    """A closed account is opened again, and a former address brought back, by the tokens of before; and mail that is
    written anew under the new secret says the same token, for it is one that the account was closed with."""
    expected_logs.append("EmailChangeUndone")
    old = await at(OLD, NEW, first=True)
    grant = await old.verified()
    await old.post("change-email", {"password": PASSWORD, "email": OTHER}, **bearer(grant))
    grant = tokens(await old.post("confirm-email", {"code": await old.box.change_code(OTHER)}, **bearer(grant)))
    back = {"token": await old.box.undo_token(EMAIL)}
    await old.ask("DELETE", "/auth/me", body={"password": PASSWORD}, **bearer(grant))
    opens = {"token": await old.box.undo_token(OTHER, about="account is closed")}
    new = await at(NEW, OLD)
    user = await find_user(new.hydra.services, OTHER)
    assert user
    assert user.closed
    assert closing.undo_token(new.hydra.services, user, user.closed) == opens["token"]
    assert (await new.post("undo-deletion", opens)).code == 200
    refused(await new.post("undo-deletion", opens), 400, "invalid_token")
    assert (await new.post("undo-email-change", back)).code == 200
    assert await find_user(new.hydra.services, EMAIL)


async def test_networks_that_are_known(at: Open) -> None:
    """A network that an owner is known from is known under the new secret, and is remembered under that at the next
    sign-in."""
    old = await at(OLD, NEW, first=True)
    await old.verified()
    new = await at(NEW, OLD)
    services = new.hydra.services
    user = await find_user(services, EMAIL)
    assert user
    assert is_known(services, user, "127.0.0.1")
    assert not is_known(services, user, "192.0.2.1")
    await remember_network(services, user, "127.0.0.1")
    user = await find_user(services, EMAIL)
    assert is_known(replace(services, secret=ServerSecret(NEW)), user, "127.0.0.1")


async def test_invitations(at: Open) -> None:
    """What a plugin keeps by the digest of a code is found under the new secret: an invitation, once."""
    invites = {"plugins": {"enabled": ["invites"], "invites": {"required": True}}}
    old = await at(OLD, NEW, first=True, **invites)
    code = await old.hydra.registry.loaded["invites"].plugin.invite()
    new = await at(NEW, OLD, **invites)
    body = {"email": EMAIL, "password": PASSWORD, "invite_code": code}
    tokens(await new.post("register", body), 201)
    refused(await new.post("register", {**body, "email": OTHER}), 403, "registration_refused")


def letter(secret: str, site: Site, **more: Any) -> MailIntent:
    message = EmailMessage()
    message["To"], message["Subject"] = EMAIL, "Sealed before"
    message.set_content("Hello\n")
    now = site.clock()
    sealed = ServerSecret(secret).seal("outbox", message.as_bytes(), "one")
    values = {"created_at": now, "sealed": sealed, "sealed_until": now + timedelta(days=1), "due_at": now}
    return MailIntent("one", "verify_email", EMAIL, **{**values, **more})


async def test_mail_that_waits(at: Open) -> None:
    """A message that was sealed under the old secret is sent."""
    new = await at(NEW, OLD, first=True)
    await new.hydra.services.put(letter(OLD, new))
    assert await new.box.letter(EMAIL, about="Sealed before") == "Hello\n"


async def test_what_the_old_one_is_needed_for(at: Open) -> None:
    """An operator is told what hangs on the old secret: what rests can be sealed anew, by any number of nodes at once,
    and then a node opens it with the new one alone; the rest has its end."""
    old = await at(OLD, NEW, first=True)
    services = old.hydra.services
    await services.put(letter(OLD, old, due_at=old.clock() + timedelta(days=30)))
    await services.put(replace(letter("x" * 32, old, due_at=old.clock() + timedelta(days=30)), id="lost"))
    await old.hydra.rotate_keys()
    new = await at(NEW, OLD)
    services, before = new.hydra.services, ServerSecret(OLD).fingerprints[0]
    found = {(need.secret, need.what): need for need in await needs(services)}
    assert found[before, "signing keys"].count == 2
    assert found[before, "mails"].count == 1
    assert found["", "mails"].count == 1
    ends = [need.until - new.clock() for need in found.values() if need.until]
    assert [round(end / timedelta(days=1)) for end in ends] == [0, 7, 14]
    assert await reseal(services) == 3
    assert await reseal(services) == 0
    assert {need.what for need in await needs(services) if need.secret} == {
        "codes and reset tokens",
        "links that bring an address or an account back",
        "refresh tokens",
    }
    new.clock.forward(days=15)
    assert [(need.secret, need.what, need.count) for need in await needs(services)] == [("", "mails", 1)]
    grant = await new.verified()
    for site in (old, new):
        await site.hydra.services.store.collection("secrets").delete_many({})
        await site.hydra._mail.stop(0)
    alone = await at(NEW)
    renewed = tokens(await alone.post("refresh", {"refresh_token": grant["refresh_token"]}))
    assert (await alone.me(renewed["access_token"])).code == 200
    kept = await alone.hydra.services.store.outbox.sealed("", 10)
    assert ServerSecret(NEW).open("outbox", next(one.sealed or b"" for one in kept if one.id == "one"), "one")


async def test_without_the_old_one(at: Open) -> None:
    """A node that was given the new secret alone does not start, and says which key in which setting it wants."""
    old = await at(OLD, first=True)
    await old.hydra.services.store.collection("secrets").delete_many({})
    with pytest.raises(StartupError, match=r"made under another secret.*other_secrets \(HYDRACORE_OTHER_SECRETS\)"):
        await at(NEW)


async def test_nodes_that_do_not_know_the_new_one(at: Open) -> None:
    """While a node beside knows the old secret alone, none starts under the new one: it is told what to do first. Once
    that node is gone it starts, and then the other one does not."""
    old = await at(OLD, first=True)
    await old.hydra._neighbours.tell()
    with pytest.raises(StartupError, match=r"does not know this one's server secret.*Give all nodes that secret"):
        await at(NEW, OLD)
    await at(OLD, NEW)  # One that knows the new one is no hindrance, and hinders nobody.
    await old.hydra.services.store.collection("secrets").delete_many({})  # As when half a minute has gone by.
    new = await at(NEW, OLD)
    await at(OLD, NEW)
    with pytest.raises(StartupError, match=r"works under a server secret that this one does not know.*Give this one"):
        await at(OLD)
    assert await new.hydra.not_ready() == ""


async def test_nodes_that_started_at_once(at: Open, expected_logs: list[str]) -> None:
    """Of two nodes that started at once, the one that does not know the other's secret says that it cannot serve, and
    why, and the other goes on; half a minute after that one is gone it can."""
    expected_logs.append("cannot serve")
    new = await at(NEW, OLD, first=True)
    await new.hydra.services.store.collection("secrets").delete_many({})
    old = await at(OLD, NEW)
    old.hydra._neighbours._secret = ServerSecret(OLD)
    await old.hydra._neighbours.tell()
    await new.hydra._tell_neighbours()
    old.hydra._tell_at = 0.0  # It looks again within a second.
    async with asyncio.timeout(10):
        while not await old.hydra.not_ready():  # noqa: ASYNC110  # it is looked at, and tells nobody
            await asyncio.sleep(0.05)
    assert "works under a server secret that this one does not know" in await old.hydra.not_ready()
    assert await new.hydra.not_ready() == ""
    old.clock.forward(seconds=31)
    await old.hydra._prepare()
    assert await old.hydra.not_ready() == ""


@pytest.mark.parametrize("urgent", [(NEW, OLD), (OLD, NEW)], ids=["a stranger's key", "a key of its own"])
async def test_an_emergency_without_a_node(at: Open, expected_logs: list[str], urgent: tuple[str, str]) -> None:
    """A node that was left with the old secret alone, and says that it cannot serve, takes no token under a key that
    has ended in an emergency, whether or not it can open the next one; it signs nothing that nobody takes, and what it
    cannot prove it refuses as it should."""
    expected_logs += ["cannot serve", "keys_unavailable", "unavailable"]
    old = await at(OLD, first=True)
    grant = await old.verified()
    used = {"refresh_token": tokens(await old.post("login", {"email": EMAIL, "password": PASSWORD}))["refresh_token"]}
    await old.hydra.services.store.collection("secrets").delete_many({})
    await at(NEW, OLD)
    old.hydra._problem = "A node beside this one works under another secret."
    node = await at(*urgent)
    await node.hydra.rotate_keys(emergency=True)
    with pytest.raises(StartupError):
        await old.hydra._prepare()
    for site in (old, node):
        site.clock.forward(seconds=4)
    refused(await old.me(grant["access_token"]), 401, "not_authenticated")
    renewed = tokens(await node.post("refresh", {"refresh_token": grant["refresh_token"]}))
    assert (await node.me(renewed["access_token"])).code == 200
    answer = await old.me(renewed["access_token"])
    if urgent[0] == OLD:
        assert answer.code == 200
        return
    refused(answer, 401, "not_authenticated")
    credentials = {"email": EMAIL, "password": PASSWORD}
    refused(await old.post("login", credentials), 503, "keys_unavailable")
    refused(await old.post("refresh", used), 503, "keys_unavailable")
    node.clock.forward(minutes=1)
    tokens(await node.post("refresh", used))  # No theft: the one that was refused has not used it up.
    refused(await old.ask("GET", "/.well-known/jwks.json"), 503, "keys_unavailable")


async def test_configured_by_the_environment(tmp_path: Any) -> None:
    """Other secrets come as a JSON list, in a variable or in a file that one names; short ones are refused, and none
    is repeated."""
    file = tmp_path / "others"
    file.write_text(json.dumps([OLD]))
    assert load(None, {"HYDRACORE_OTHER_SECRETS_FILE": str(file)}).other_secrets == (OLD,)
    assert load(None, {"HYDRACORE_OTHER_SECRETS": json.dumps([OLD, NEW])}).other_secrets == (OLD, NEW)
    with pytest.raises(StartupError) as raised:
        load(None, {"HYDRACORE_OTHER_SECRETS": '["too-short-to-be-one"]'})
    assert "HYDRACORE_OTHER_SECRETS" in str(raised.value)
    assert "too-short" not in str(raised.value)
    assert OLD not in repr(load(None, {"HYDRACORE_OTHER_SECRETS": json.dumps([OLD])}))
