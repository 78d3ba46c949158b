"""Another address: proven by a code, told to the old one, and undone from there whatever a thief does."""

import asyncio
import json
import re
from collections import Counter
from typing import Any

import pytest
from support import HOSTS, PASSWORD, OpenSite, Site, refused, tokens
from tornado.httpclient import HTTPResponse

from hydracore.errors import StoreUnavailable
from hydracore.flows import address
from hydracore.flows.account import disable_user, find_user
from hydracore.plugin import Authenticator, Context, Identity, events, hookimpl

EMAIL, OTHER, THIRD, FREE = "ada@example.com", "countess@example.org", "ada.king@example.net", "nobody@example.com"
NEW = "an entirely new password"


@pytest.fixture(autouse=True)
def an_undone_change_is_a_warning(expected_logs: list[str]) -> None:
    expected_logs.append("EmailChangeUndone")


def bearer(grant: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {grant['access_token']}"}


async def log_in(site: Site, email: str = EMAIL, password: str = PASSWORD) -> HTTPResponse:
    return await site.post("login", {"email": email, "password": password})


async def ask(site: Site, grant: dict[str, Any], email: str = OTHER, password: str = PASSWORD) -> HTTPResponse:
    return await site.post("change-email", {"password": password, "email": email}, **bearer(grant))


async def confirm(site: Site, grant: dict[str, Any], code: str) -> HTTPResponse:
    return await site.post("confirm-email", {"code": code}, **bearer(grant))


async def change(site: Site, grant: dict[str, Any], email: str = OTHER, password: str = PASSWORD) -> dict[str, Any]:
    """The tokens of the session that goes on under another address."""
    assert (await ask(site, grant, email, password)).code == 200
    return tokens(await confirm(site, grant, await site.box.change_code(email)))


async def undo(site: Site, token: str) -> HTTPResponse:
    return await site.post("undo-email-change", {"token": token})


async def settled(site: Site) -> None:
    """Nothing waits in the outbox."""
    for _ in range(500):
        if not await site.hydra.services.store.outbox.list(1):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("mail waits")


@pytest.mark.parametrize("host", HOSTS)
async def test_changed_and_undone(open_site: OpenSite, host: str) -> None:
    """The code gives the account its new address and the caller a new session, ends all others and every mailed token
    of before; the old address is told, and undoes it: it is back, everybody is signed out, and sets a password by the
    mail that comes."""
    site = await open_site(HOSTS[host])
    other = await site.verified()
    grant = tokens(await log_in(site))
    await site.post("forgot-password", {"email": EMAIL})
    reset = {"token": await site.box.reset_token(EMAIL), "new_password": NEW}
    assert set(json.loads((await ask(site, grant)).body)) == {"message"}
    answer = await confirm(site, grant, await site.box.change_code(OTHER))
    changed = tokens(answer)
    assert len(answer.headers.get_list("Set-Cookie")) == 2
    me = json.loads((await site.me(changed["access_token"])).body)
    assert (me["email"], me["email_verified"]) == (OTHER, True)
    for void in (other, grant):
        refused(await site.me(void["access_token"]), 401, "not_authenticated")
    refused(await site.post("reset-password", reset), 400, "invalid_token")
    refused(await log_in(site), 401, "invalid_credentials")
    tokens(await log_in(site, OTHER))

    token = await site.box.undo_token(EMAIL)
    answer = await undo(site, token)
    assert (answer.code, set(json.loads(answer.body))) == (200, {"message"})
    assert "Set-Cookie" not in answer.headers
    refused(await site.me(changed["access_token"]), 401, "not_authenticated")
    refused(await undo(site, token), 400, "invalid_token")
    for email in (EMAIL, OTHER):
        refused(await log_in(site, email), 401, "invalid_credentials")
    again = {"token": await site.box.reset_token(EMAIL, 2), "new_password": NEW}
    assert (await site.post("reset-password", again)).code == 200
    tokens(await log_in(site, EMAIL, NEW))
    tokens(await site.post("register", {"email": OTHER, "password": PASSWORD}), 201)


# -- the code ------------------------------------------------------------------------------------------


async def test_one_answer(site: Site) -> None:
    """Whether the new address has an account, proven or not, is kept for one, or is free: the same answer, and the same
    work; who has it is told."""
    await site.verified("eve@example.com")
    await site.register("fresh@example.com")
    moved = await site.verified("moved@example.com")
    await change(site, moved, "elsewhere@example.com")
    grant = await site.verified()
    wanted = ("eve@example.com", "fresh@example.com", "moved@example.com", EMAIL.upper(), FREE)
    answers = [await ask(site, grant, email) for email in wanted]
    assert len({(answer.code, answer.body, answer.headers.get("Set-Cookie")) for answer in answers}) == 1
    for taken in wanted[:3]:
        assert "belongs to an account already" in await site.box.letter(taken, about="in use")
    await site.box.change_code(FREE)
    assert not [
        letter for letter in site.box.letters if letter["To"] in wanted[:3] and "new address" in letter["Subject"]
    ]


async def test_the_same_work(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request does the same operations whoever has the address: who has it is looked up when the mail is sent."""
    await site.verified("eve@example.com")
    grant = await site.verified()
    await settled(site)
    await site.hydra._mail.stop(5)
    work: list[list[str]] = []
    services = site.hydra.services
    for email in ("eve@example.com", FREE):
        done: list[str] = []
        for part in (services.store.users, services.store.codes, services.store.outbox, services.store.sessions):
            for name in (name for name in dir(part) if not name.startswith("_") and callable(getattr(part, name))):
                method = getattr(type(part), name)

                def counted(*args: Any, _of: Any = (method, part, name), _done: list[str] = done, **how: Any) -> Any:
                    _done.append(f"{type(_of[1]).__name__}.{_of[2]}")
                    return _of[0](_of[1], *args, **how)

                monkeypatch.setattr(part, name, counted)
        assert (await ask(site, grant, email)).code == 200
        work.append(done)
    assert work[0] == work[1] == ["Sessions.live_with_user"] * 2 + ["Outbox.add"]


async def test_a_wrong_password(site: Site) -> None:
    """Whoever does not know the password changes no address, and nobody is mailed."""
    grant = await site.verified()
    refused(await ask(site, grant, password="not the password"), 403, "invalid_password")
    await settled(site)
    assert {letter["To"] for letter in site.box.letters} == {EMAIL}


async def test_the_code_expires(site: Site) -> None:
    """It lives 10 minutes."""
    grant = await site.verified()
    await ask(site, grant)
    code = await site.box.change_code(OTHER)
    site.clock.forward(minutes=10, seconds=1)
    refused(await confirm(site, grant, code), 400, "invalid_code")


async def test_five_tries(site: Site) -> None:
    """Of 50 wrong guesses at once five are compared; after them the right code is refused, and a new one is taken."""
    grant = await site.verified()
    await ask(site, grant)
    code = await site.box.change_code(OTHER)
    wrong = f"{(int(code) + 1) % 1_000_000:06d}"
    answers = await asyncio.gather(*(confirm(site, grant, wrong) for _ in range(50)))
    assert Counter(answer.code for answer in answers) == {400: 50}
    refused(await confirm(site, grant, code), 400, "invalid_code")
    await ask(site, grant)
    tokens(await confirm(site, grant, await site.box.change_code(OTHER, 2)))


async def test_guesses_are_limited(open_site: OpenSite) -> None:
    """Tries are counted for the account, whatever codes are out, and so are the mails that it asks for."""
    site = await open_site(limits={"enabled": True, "verify_address": "3/3600", "mail_address_hourly": "2/3600"})
    grant = await site.verified()
    for _ in range(3):
        refused(await confirm(site, grant, "000000"), 400, "invalid_code")
    refused(await confirm(site, grant, "000000"), 429, "too_many_requests")
    assert [(await ask(site, grant, f"new{number}@example.com")).code for number in range(3)] == [200, 200, 429]


async def test_bound(site: Site) -> None:
    """A code is good for the account and the address that it was mailed for, and for nothing else."""
    ada, eve = await site.verified(), await site.verified("eve@example.com")
    await ask(site, ada)
    code = await site.box.change_code(OTHER)
    refused(await confirm(site, eve, code), 400, "invalid_code")
    refused(await site.post("verify-email", {"email": OTHER, "code": code}), 400, "invalid_code")
    refused(await site.post("reset-password", {"token": code, "new_password": NEW}), 400, "invalid_token")
    # The newest one counts, and for its own address.
    await ask(site, ada, THIRD)
    newest = await site.box.change_code(THIRD)
    if newest != code:
        refused(await confirm(site, ada, code), 400, "invalid_code")
    changed = tokens(await confirm(site, ada, newest))
    assert json.loads((await site.me(changed["access_token"])).body)["email"] == THIRD


async def test_void_with_the_epoch(site: Site) -> None:
    """A code of before a new password is void."""
    grant = await site.verified()
    await ask(site, grant)
    code = await site.box.change_code(OTHER)
    body = {"current_password": PASSWORD, "new_password": NEW}
    grant = tokens(await site.post("change-password", body, **bearer(grant)))
    refused(await confirm(site, grant, code), 400, "invalid_code")


async def test_parallel_confirmations(site: Site) -> None:
    """The right code sent ten times at once changes the address once."""
    grant = await site.verified()
    await ask(site, grant)
    code = await site.box.change_code(OTHER)
    answers = await asyncio.gather(*(confirm(site, grant, code) for _ in range(5)))
    assert sorted({answer.code for answer in answers}) in ([200, 400], [200, 401], [200, 400, 401])
    [won] = [answer for answer in answers if answer.code == 200]
    assert (await site.me(tokens(won)["access_token"])).code == 200
    await site.box.undo_token(EMAIL)
    await settled(site)
    assert len([letter for letter in site.box.letters if "address was changed" in letter["Subject"]]) == 1


async def test_the_index_decides(site: Site) -> None:
    """Two accounts that have proven one free address at once: one has it, the other is told that it is taken; and so
    is who was overtaken by a registration."""
    ada, eve = await site.verified(), await site.verified("eve@example.com")
    await ask(site, ada)
    await ask(site, eve)
    codes = [await site.box.change_code(OTHER, nth) for nth in (1, 2)]
    letters = [letter for letter in site.box.letters if letter["To"] == OTHER]
    assert len(letters) == 2
    answers = await asyncio.gather(
        *(confirm(site, grant, code) for grant in (ada, eve) for code in dict.fromkeys(codes))
    )
    found = Counter(answer.code for answer in answers)
    assert (found[200], found[409]) == (1, 1)
    loser = eve if (await site.me(ada["access_token"])).code == 401 else ada
    await ask(site, loser, THIRD)
    code = await site.box.change_code(THIRD)
    await site.register(THIRD)
    refused(await confirm(site, loser, code), 409, "email_taken")
    assert (await site.me(loser["access_token"])).code == 200
    await settled(site)


async def test_another_spelling(site: Site) -> None:
    """An account takes another spelling of its own address."""
    grant = await site.verified()
    changed = await change(site, grant, "Ada@Example.com")
    assert json.loads((await site.me(changed["access_token"])).body)["email"] == "Ada@example.com"
    tokens(await log_in(site))


async def test_who_may(site: Site) -> None:
    """Strangers get 401, whoever has not proven the address 403, a foreign page 403, and a bad body 422."""
    unproven = await site.register("eve@example.com")
    grant = await site.verified()
    cookie = {"Cookie": f"hydracore_access={grant['access_token']}", "Sec_Fetch_Site": "cross-site"}
    bodies = {"change-email": {"password": PASSWORD, "email": OTHER}, "confirm-email": {"code": "123456"}}
    for call, body in bodies.items():
        refused(await site.post(call, body), 401, "not_authenticated")
        refused(await site.post(call, body, **bearer(unproven)), 403, "email_not_verified")
        refused(await site.post(call, body, **cookie), 403, "cross_origin")
        for member in body:
            for value in ({"$ne": None}, [OTHER], 1, None, "x" * 300):
                problems = refused(
                    await site.post(call, {**body, member: value}, **bearer(grant)), 422, "validation_failed"
                )
                assert problems[0]["loc"] == ["body", member]


# -- the old address -----------------------------------------------------------------------------------


async def test_a_chain(site: Site) -> None:
    """A thief changes the address twice, and the password in between: the first address undoes it all, and no later
    address undoes anything any more."""
    thief = await site.verified()
    thief = await change(site, thief, OTHER)
    body = {"current_password": PASSWORD, "new_password": NEW}
    thief = tokens(await site.post("change-password", body, **bearer(thief)))
    thief = await change(site, thief, THIRD, NEW)
    owners, thiefs = await site.box.undo_token(EMAIL), await site.box.undo_token(OTHER)
    assert (await undo(site, owners)).code == 200
    refused(await undo(site, thiefs), 400, "invalid_token")
    refused(await site.me(thief["access_token"]), 401, "not_authenticated")
    for email in (EMAIL, OTHER, THIRD):
        refused(await log_in(site, email, NEW), 401, "invalid_credentials")
    await site.box.reset_token(EMAIL)
    user = await site.hydra.services.store.users.by_address(EMAIL)
    assert [entry["key"] for entry in user.addresses] == [EMAIL]


async def test_a_later_link(site: Site) -> None:
    """The link of a later address brings that one back, and leaves the earlier one's good."""
    grant = await change(site, await change(site, await site.verified(), OTHER), THIRD)
    first, second = await site.box.undo_token(EMAIL), await site.box.undo_token(OTHER)
    assert (await undo(site, second)).code == 200
    await site.box.reset_token(OTHER)
    refused(await site.me(grant["access_token"]), 401, "not_authenticated")
    assert (await undo(site, first)).code == 200
    await site.box.reset_token(EMAIL)


async def test_an_undo_beside_changes(site: Site) -> None:
    """Whatever a thief does at the same moment, the undo goes through, and the thief is out."""
    thief = await change(site, await site.verified(), OTHER)
    token = await site.box.undo_token(EMAIL)
    body = {"current_password": PASSWORD, "new_password": NEW}
    answers = await asyncio.gather(
        site.post("change-password", body, **bearer(thief)), undo(site, token), undo(site, token)
    )
    assert sorted(answer.code for answer in answers[1:]) == [200, 400]
    if answers[0].code == 200:
        refused(await site.me(tokens(answers[0])["access_token"]), 401, "not_authenticated")
    for password in (PASSWORD, NEW):
        for email in (EMAIL, OTHER):
            refused(await log_in(site, email, password), 401, "invalid_credentials")
    await site.box.reset_token(EMAIL)


async def test_kept_for_the_account(open_site: OpenSite) -> None:
    """Nobody else registers, changes to or is vouched for with the old address while it may be brought back; then
    whoever likes."""

    class Directory:
        def __init__(self, context: Context) -> None:
            pass

        @hookimpl
        def hydracore_register_authenticators(self) -> list[Authenticator]:
            return [Authenticator("directory", self.authenticate)]

        async def authenticate(self, email: str, password: str) -> Identity | None:
            return Identity() if password == "known there" else None

    site = await open_site(extra={"directory": Directory}, login={"authenticators": ["password", "directory"]})
    await change(site, await site.verified())
    stranger = {"email": EMAIL, "password": PASSWORD}
    refused(await site.post("register", stranger), 409, "email_taken")
    refused(await log_in(site, EMAIL, "known there"), 401, "invalid_credentials")
    await site.post("forgot-password", {"email": EMAIL})
    site.clock.forward(days=7, seconds=1)
    refused(await undo(site, await site.box.undo_token(EMAIL)), 400, "invalid_token")
    assert await site.hydra.services.store.users.release(site.clock()) == 1
    tokens(await site.post("register", stranger), 201)
    assert not [letter for letter in site.box.letters if letter["To"] == EMAIL and "Set a new" in letter["Subject"]]


async def test_kept_and_not_told(open_site: OpenSite) -> None:
    """With registration.reveal_existing off, who registers with an address that is kept gets the same answer, and a
    mail that says so."""
    site = await open_site(registration={"reveal_existing": False})
    body = {"email": EMAIL, "password": PASSWORD}
    first = await site.post("register", body)
    grant = tokens(await site.post("verify-email", {"email": EMAIL, "code": await site.box.code(EMAIL)}))
    await change(site, grant)
    again = await site.post("register", body)
    assert (again.code, again.body) == (first.code, first.body)
    assert "recently" in await site.box.letter(EMAIL, about="in use")


async def test_bounded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """An account keeps so many former addresses and no more: the oldest, its owner's, is not given up for them."""
    monkeypatch.setattr(address, "MOST_FORMERS", 2)
    grant = await change(site, await change(site, await site.verified(), OTHER), THIRD)
    refused(await ask(site, grant, FREE), 429, "too_many_requests")
    site.clock.forward(days=7, seconds=1)
    grant = tokens(await log_in(site, THIRD))
    await change(site, grant, FREE)


async def test_links_come_from_the_configuration(open_site: OpenSite) -> None:
    """The link is built from public_url, or as mail.undo_email_url says, whatever Host says."""
    for url, link in (
        ("", "https://id.example.com/undo-email-change#token="),
        ("https://a.example/u", "https://a.example/u#token="),
    ):
        site = await open_site(public_url="https://id.example.com", mail={"undo_email_url": url})
        grant = await site.verified()
        await ask(site, grant)
        code = {"code": await site.box.change_code(OTHER)}
        tokens(await site.post("confirm-email", code, **bearer(grant), Host="evil.example"))
        letter = await site.box.letter(EMAIL, about="address was changed")
        assert link in letter
        assert OTHER not in letter
        assert re.search(r"until [0-9-]{10} [0-9:]{5} UTC", letter)


@pytest.mark.parametrize("token", ["x", "x" * 43, "\x00", "é" * 43, "$ne"])
async def test_tokens_that_are_none(site: Site, token: str) -> None:
    """What is no token of ours is 400."""
    await change(site, await site.verified())
    refused(await undo(site, token), 400, "invalid_token")


async def test_tries_are_limited(open_site: OpenSite) -> None:
    """Tokens are tried no more often than reset tokens."""
    site = await open_site(limits={"enabled": True, "reset_network": "3/300"})
    assert [(await undo(site, "x")).code for _ in range(4)] == [400, 400, 400, 429]


async def test_disabled(site: Site) -> None:
    """An account that an operator has disabled is not opened by its former address."""
    await change(site, await site.verified())
    token = await site.box.undo_token(EMAIL)
    user = await find_user(site.hydra.services, OTHER)
    assert user
    await disable_user(site.hydra.services, user)
    refused(await undo(site, token), 400, "invalid_token")


async def test_stored_secrets(site: Site) -> None:
    """The database holds neither the code nor the token, sealed mail included."""
    grant = await site.verified()
    await ask(site, grant)
    code = await site.box.change_code(OTHER)
    await settled(site)
    names = await site.hydra._store._database.list_collection_names()
    stored = ""
    for name in names:
        stored += "".join([repr(document) async for document in site.hydra._store._database[name].find({})])
    assert code not in re.sub(r"datetime.*?\)", "", stored)
    tokens(await confirm(site, grant, code))
    token = await site.box.undo_token(EMAIL)
    for name in names:
        stored += "".join([repr(document) async for document in site.hydra._store._database[name].find({})])
    assert token not in stored


async def test_of_an_older_node(site: Site) -> None:
    """An account that a node of before has made, without the list of its addresses, changes as all others do, and what
    it keeps is kept."""
    grant = await site.verified()
    await site.hydra._store.collection("users").update_many({}, {"$unset": {"addresses": ""}})
    await change(site, grant)
    refused(await site.post("register", {"email": EMAIL, "password": PASSWORD}), 409, "email_taken")
    assert (await undo(site, await site.box.undo_token(EMAIL))).code == 200


async def test_given_away_by_an_older_node(site: Site) -> None:
    """Where a node of before has given the address to somebody, the undo says so and takes it from nobody."""
    await change(site, await site.verified())
    token = await site.box.undo_token(EMAIL)
    await site.hydra._store.collection("users").insert_one(
        {"_id": "x", "email": EMAIL, "address_key": EMAIL, "password_hash": "", "created_at": site.clock()}
    )
    refused(await undo(site, token), 409, "email_taken")
    assert (await find_user(site.hydra.services, EMAIL)).id == "x"


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("verb", ["change_address", "bring_back"])
async def test_lost(
    site: Site, monkeypatch: pytest.MonkeyPatch, expected_logs: list[str], verb: str, done: bool
) -> None:
    """When it is unknown whether a change or its undo went through the answer is 503, the mail that belongs to it goes
    out if so, and repeating it does no harm."""
    expected_logs.append("unavailable")
    grant = await site.verified()
    await ask(site, grant)
    code = await site.box.change_code(OTHER)
    if verb == "bring_back":
        tokens(await confirm(site, grant, code))
    users = site.hydra.services.store.users
    method = getattr(users, verb)

    async def lost(*args: Any) -> None:
        monkeypatch.setattr(users, verb, method)
        if done:
            await method(*args)
        raise StoreUnavailable

    async def attempt() -> HTTPResponse:
        if verb == "bring_back":
            return await undo(site, await site.box.undo_token(EMAIL))
        return await confirm(site, grant, code)

    monkeypatch.setattr(users, verb, lost)
    refused(await attempt(), 503, "store_unavailable")
    again = await attempt()
    assert again.code == {("change_address", True): 401, ("bring_back", True): 400}.get((verb, done), 200)
    site.clock.forward(seconds=16)
    site.hydra._mail.wake()
    if verb == "bring_back":
        await site.box.reset_token(EMAIL)
    else:
        tokens(await log_in(site, OTHER))
        await site.box.undo_token(EMAIL)
        assert len([letter for letter in site.box.letters if "address was changed" in letter["Subject"]]) == 1


async def test_told(open_site: OpenSite, caplog: pytest.LogCaptureFixture) -> None:
    """Each step is an event of the account, and an undone change is one to look at."""
    heard: list[str] = []

    class Ear:
        def __init__(self, context: Context) -> None:
            pass

        @hookimpl
        async def hydracore_on_event(self, event: events.Event) -> None:
            if isinstance(event, events.UserEvent):
                heard.append(type(event).__name__)

    site = await open_site(extra={"ear": Ear})
    await change(site, await site.verified())
    await undo(site, await site.box.undo_token(EMAIL))
    await site.hydra.registry.settle()
    assert [name for name in heard if name.startswith("EmailChange")] == [
        "EmailChangeRequested",
        "EmailChanged",
        "EmailChangeUndone",
    ]
    assert [record.message for record in caplog.records if record.name == "hydracore.events"] == ["EmailChangeUndone"]
