"""What administrators do to accounts, sessions, mail and keys, by the Admin API."""

import asyncio
import json
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from administering import EMAIL, OWN, Desk, both, read
from support import PASSWORD, OpenSite, Site, refused, tokens
from tornado.ioloop import IOLoop

from hydracore.errors import NotFound
from hydracore.flows.account import force_reset
from hydracore.mail import MailWorker
from hydracore.models import Address, Closing
from hydracore.plugin import Authenticator, Context, Identity, MailRefused, events, hookimpl

OTHER = "bob@example.com"


class Ear:
    """Hears what happens."""

    heard: list[str]

    def __init__(self, context: Context) -> None:
        type(self).heard = []

    @hookimpl
    async def hydracore_on_event(self, event: events.Event) -> None:
        self.heard.append(type(event).__name__)


@pytest.fixture
def desk(io_loop: IOLoop, open_site: OpenSite) -> Desk:
    site: Site = io_loop.run_sync(
        lambda: open_site(both, extra={"ear": Ear}, store=OWN, roles={"known": ["support", "editor"]})
    )
    return Desk(site)


async def log_in(desk: Desk, email: str = EMAIL, password: str = PASSWORD) -> int:
    return int((await desk.site.post("login", {"email": email, "password": password})).code)


async def emails(desk: Desk, query: str = "") -> list[str]:
    return [user["email"] for user in (await desk.get(f"/users{query}"))["users"]]


# -- looking for accounts ----------------------------------------------------------------------------


async def test_search(desk: Desk) -> None:
    """Accounts are found by what their address begins with, in any case and any form of its letters; a whole address
    finds itself in its IDNA form, nothing but the beginning counts, and without one all are listed in order."""
    people = ["Ada@example.com", "adam@example.com", "al.ada@example.com", "müller@bücher.example", "Z.z@example.com"]
    for email in people:
        await desk.post("/users", {"email": email}, 201)
    assert await emails(desk) == ["Ada@example.com", *people[1:3], "müller@bücher.example", "Z.z@example.com"]
    assert await emails(desk, "?email=AD") == ["Ada@example.com", "adam@example.com"]
    assert await emails(desk, "?email=ada%40") == ["Ada@example.com"]
    assert await emails(desk, "?email=Z.Z%40example.com") == ["Z.z@example.com"]
    assert await emails(desk, f"?email={quote('MÜLLER@BÜCHER.example')}") == ["müller@bücher.example"]
    assert await emails(desk, f"?email={quote('ｍｕ̈ｌｌ')}") == ["müller@bücher.example"]
    for nothing in ("ada@example.com.", ".*", "^a", "$", "{'$gt':''}", "ada%", "lovelace", "\x00", "a" * 254):
        assert await emails(desk, f"?email={quote(nothing)}") == [], nothing


async def test_pages(desk: Desk) -> None:
    """Pages follow one another by the cursor without gap or overlap, whatever is added or deleted meanwhile, up to the
    end, which says so; HEAD answers as GET, without a body."""
    for number in range(7):
        await desk.post("/users", {"email": f"u{number}@example.com"}, 201)
    first = await desk.get("/users?email=u&limit=3")
    assert [user["email"][:2] for user in first["users"]] == ["u0", "u1", "u2"]
    await desk.post("/users", {"email": "u00@example.com"}, 201)
    await desk.post("/users", {"email": "u5a@example.com"}, 201)
    for gone in (first["users"][2], (await desk.get("/users?email=u3"))["users"][0]):
        await desk.delete(f"/users/{gone['id']}")
    second = await desk.get(f"/users?email=u&limit=3&cursor={first['next']}")
    assert [user["email"].partition("@")[0] for user in second["users"]] == ["u4", "u5", "u5a"]
    third = await desk.get(f"/users?email=u&limit=3&cursor={second['next']}")
    assert [user["email"].partition("@")[0] for user in third["users"]] == ["u6"]
    assert third["next"] is None
    assert (await desk.get("/users?email=u0&limit=2"))["next"] is None
    head = await desk.ask("HEAD", "/users?email=u")
    assert (head.code, head.body) == (200, b"")


async def test_cursors(desk: Desk) -> None:
    """A cursor that was altered, cut, made up, or given for another list or filter is refused by its name, and one says
    nothing of what it stands for."""
    for number in range(3):
        await desk.post("/users", {"email": f"u{number}@example.com"}, 201)
    good = (await desk.get("/users?email=u&limit=1"))["next"]
    again = (await desk.get("/users?email=u&limit=1"))["next"]
    assert good != again
    assert await emails(desk, f"?email=u&cursor={again}&limit=1") == ["u1@example.com"]
    flipped = ("B" if good[40] == "A" else "A").join((good[:40], good[41:]))
    audit = (await desk.get("/audit?limit=1"))["next"]
    altered = (flipped, good[:-4], good[4:], f"{good}AAAA")
    for cursor in (*altered, "AAAA", "u1@example.com", quote("é"), audit, "-" * 2000):
        detail = refused(await desk.ask("GET", f"/users?email=u&cursor={cursor}"), 400, "invalid_cursor")
        assert "cursor" in detail
    for path in (f"/users?cursor={good}", f"/users?email=u1&cursor={good}", f"/mail?cursor={good}"):
        refused(await desk.ask("GET", path), 400, "invalid_cursor")
    for path in (f"/audit?cursor={good}", f"/audit?user_id=u1&cursor={audit}"):
        refused(await desk.ask("GET", path), 400, "invalid_cursor")


@pytest.mark.parametrize(
    ("query", "name", "kind"),
    [
        ("limit=0", "limit", "greater_than_equal"),
        ("limit=101", "limit", "less_than_equal"),
        ("limit=ten", "limit", "int_type"),
        ("limit=1.5", "limit", "int_type"),
        ("limit=-1", "limit", "int_type"),
        ("limit=", "limit", "int_type"),
        ("limit=%D9%A3", "limit", "int_type"),
        ("limit=99999999999999999999", "limit", "int_type"),
        (f"email={'a' * 255}", "email", "string_too_long"),
        (f"cursor={'a' * 2049}", "cursor", "string_too_long"),
        ("email=a&email=b", "email", "value_error"),
        ("email=%FF", "email", "value_error"),
        ("emial=ada", "emial", "extra_forbidden"),
        ("email[$gt]=", "email[$gt]", "extra_forbidden"),
    ],
)
async def test_bad_queries(desk: Desk, query: str, name: str, kind: str) -> None:
    """What a query may not have is refused by its name and the rule: a misspelt one does not list everybody."""
    answer = await desk.ask("GET", f"/users?{query}")
    assert answer.code == 422, answer.body
    assert [(each["loc"], each["type"]) for each in json.loads(answer.body)["detail"]] == [(["query", name], kind)]


@pytest.mark.parametrize("path", ["mail?state=lost", "audit?user_id=%0A", "audit?state=dead", "mail?email=a"])
async def test_bad_filters(desk: Desk, path: str) -> None:
    """Each list has its own filters."""
    assert (await desk.ask("GET", f"/{path}")).code == 422


# -- one account -------------------------------------------------------------------------------------


async def test_an_account(desk: Desk) -> None:
    """An account is shown with what administrators need, and nothing that proves anything."""
    await desk.site.verified()
    user = await desk.user()
    shown = await desk.get(f"/users/{user.id}")
    assert shown == {
        "id": user.id,
        "email": EMAIL,
        "email_verified": True,
        "disabled": False,
        "deleted_at": None,
        "created_at": user.created_at.isoformat(),
        "authenticator": "password",
        "has_password": True,
        "language": "",
        "roles": [],
        "profile": {},
    }
    assert (await desk.get("/users"))["users"] == [shown]
    ends = user.created_at + timedelta(days=7)
    await desk.site.hydra.services.store.users.close(user, Closing("nonce", "kept", ends))
    closed = await desk.get(f"/users/{user.id}")
    assert (closed["disabled"], closed["deleted_at"]) == (True, ends.isoformat())


ACTIONS = ("disable", "enable", "force-reset", "mark-verified")


@pytest.mark.parametrize("user_id", ["nobody", "%2e%2e%2fx", "%00", "a%0Ab", "%FF", "{$gt:1}", "x" * 129, "é"])
async def test_unknown_accounts(desk: Desk, user_id: str) -> None:
    """An id that no account has, whatever it is made of, is 404 for every call, and changes nothing."""
    await desk.site.register()
    calls = [("POST", f"/{action}") for action in (*ACTIONS, "roles")]
    calls += [("GET", ""), ("DELETE", ""), ("GET", "/sessions"), ("DELETE", "/sessions"), ("DELETE", "/sessions/x")]
    before = await desk.user()
    for method, rest in calls:
        body = {"add": ["support"]} if rest == "/roles" else None
        answer = await desk.ask(method, f"/users/{quote(user_id, safe='%')}{rest}", body)
        assert answer.code == (400 if user_id == "%FF" else 404), (method, rest, answer.body)
    assert await desk.user() == before


async def test_make_an_account(desk: Desk) -> None:
    """An account is made with a password, with which its owner signs in, or without one: then the mail sets it."""
    made = await desk.post("/users", {"email": EMAIL, "password": PASSWORD, "email_verified": True}, 201)
    assert (made["email_verified"], made["has_password"]) == (True, True)
    assert await log_in(desk) == 200
    invited = await desk.post("/users", {"email": OTHER, "language": "de-AT,en"}, 201)
    assert (invited["email_verified"], invited["has_password"], invited["language"]) == (False, False, "de-at,en")
    assert await desk.last() == ("users.create", invited["id"], "done")
    assert await log_in(desk, OTHER) == 401
    for _ in range(500):
        if desk.site.box.letters:
            break
        await asyncio.sleep(0.01)
    [letter] = desk.site.box.letters
    assert letter["To"] == OTHER
    token = letter.get_body(("plain",)).get_content().partition("#token=")[2][:43]
    assert (await desk.site.post("reset-password", {"token": token, "new_password": PASSWORD})).code == 200
    assert await log_in(desk, OTHER) == 200
    assert (await desk.get(f"/users/{invited['id']}"))["email_verified"] is True


async def test_what_cannot_be_made(desk: Desk) -> None:
    """Addresses that are taken, passwords that policies refuse and bodies that do not fit are refused as register does,
    and leave no account behind."""
    await desk.site.register()
    refused(await desk.ask("POST", "/users", {"email": "ADA@example.com"}), 409, "email_taken")
    assert (await desk.last())[2] == "email_taken"
    for body, name in (
        ({"email": OTHER, "password": "password1"}, "password"),
        ({"email": OTHER, "password": "short"}, "password"),
        ({"email": OTHER, "password": None}, "password"),
        ({"email": OTHER, "email_verified": "yes"}, "email_verified"),
        ({"email": OTHER, "language": "de\r\nBcc: x"}, "language"),
        ({"email": ["bob@example.com"]}, "email"),
        ({}, "email"),
    ):
        answer = await desk.ask("POST", "/users", body)
        assert [problem["loc"] for problem in json.loads(answer.body)["detail"]] == [["body", name]], answer.body
    assert (await desk.ask("POST", "/users")).code == 415
    assert await emails(desk) == [EMAIL]


async def test_disabled_and_enabled(desk: Desk) -> None:
    """A disabled account is out at once, on sessions that it has and on new ones; an enabled one signs in again, and
    what ended stays ended. Twice is as once."""
    grant = await desk.site.verified()
    user = await desk.user()
    for _ in range(2):
        assert (await desk.post(f"/users/{user.id}/disable"))["disabled"] is True
    assert (await desk.site.me(grant["access_token"])).code == 401
    assert (await desk.site.post("refresh", {"refresh_token": grant["refresh_token"]})).code == 401
    assert await log_in(desk) == 401
    for _ in range(2):
        assert (await desk.post(f"/users/{user.id}/enable"))["disabled"] is False
    assert (await desk.site.me(grant["access_token"])).code == 401
    assert await log_in(desk) == 200


async def test_roles(desk: Desk) -> None:
    """Roles are given and taken in one step, which the account's own calls know at once, and plugins are told; one that
    is not known, and a member that there is not, is refused by its name and changes nothing."""
    grant = await desk.site.verified()
    user = await desk.user()
    given = await desk.post(f"/users/{user.id}/roles", {"add": ["support", "editor"]})
    assert given["roles"] == ["editor", "support"]
    assert json.loads((await desk.site.me(grant["access_token"])).body)["roles"] == ["editor", "support"]
    changed = await desk.post(f"/users/{user.id}/roles", {"add": ["editor"], "remove": ["support"]})
    assert changed["roles"] == (await desk.get(f"/users/{user.id}"))["roles"] == ["editor"]
    assert (await desk.get("/users"))["users"][0]["roles"] == ["editor"]
    [_, _, entry, *_] = await desk.entries()
    assert (entry.action, entry.user_id, entry.outcome) == ("users.roles", user.id, "done")
    assert entry.details == {"add": ["editor"], "remove": ["support"]}
    for body, name in (
        ({"add": ["suport"]}, ["add"]),
        ({"add": ["support"], "remove": ["support"]}, ["add"]),
        ({"remove": ["admin"]}, ["remove"]),
        ({"add": "support"}, ["add"]),
        ({"add": ["Support"]}, ["add", 0]),
        ({"roles": ["support"]}, ["roles"]),
    ):
        answer = await desk.ask("POST", f"/users/{user.id}/roles", body)
        assert answer.code == 422, answer.body
        assert [problem["loc"] for problem in json.loads(answer.body)["detail"]] == [["body", *name]], answer.body
    assert (await desk.get(f"/users/{user.id}"))["roles"] == ["editor"]
    assert Ear.heard.count("RolesChanged") == 2


async def test_deleted(desk: Desk) -> None:
    """A deleted account is gone with its sessions, its address is free, and a second time there is nothing."""
    grant = await desk.site.verified()
    user = await desk.user()
    await desk.delete(f"/users/{user.id}")
    assert (await desk.site.me(grant["access_token"])).code == 401
    assert await emails(desk) == []
    refused(await desk.ask("DELETE", f"/users/{user.id}"), 404, "not_found")
    assert await desk.last() == ("users.delete", user.id, "not_found")
    await desk.site.register()


async def test_force_reset(desk: Desk) -> None:
    """A forced reset voids the password and ends all sessions at once; the mail sets a new one; plugins are told."""
    grant = await desk.site.verified()
    user = await desk.user()
    shown = await desk.post(f"/users/{user.id}/force-reset")
    assert (shown["has_password"], shown["email_verified"]) == (False, True)
    assert (await desk.site.me(grant["access_token"])).code == 401
    assert (await desk.site.post("refresh", {"refresh_token": grant["refresh_token"]})).code == 401
    assert await log_in(desk) == 401
    reset = {"token": await desk.site.box.reset_token(EMAIL), "new_password": "an entirely new one"}
    assert (await desk.site.post("reset-password", reset)).code == 200
    assert await log_in(desk, password="an entirely new one") == 200
    assert "PasswordVoided" in Ear.heard


async def test_force_reset_of_another_address(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the address is changed in the moment in which the password is voided, the mail goes to the new one: nobody
    is left without a password and without a mail."""
    await desk.site.verified()
    user, users = await desk.user(), desk.site.hydra.services.store.users
    void_password = users.void_password

    async def changed_first(*given: Any) -> Any:
        assert await users.change_address(user, Address(OTHER, OTHER), [])
        return await void_password(*given)

    monkeypatch.setattr(users, "void_password", changed_first)
    shown = await desk.post(f"/users/{user.id}/force-reset")
    assert (shown["email"], shown["has_password"]) == (OTHER, False)
    reset = {"token": await desk.site.box.reset_token(OTHER), "new_password": "an entirely new one"}
    assert (await desk.site.post("reset-password", reset)).code == 200
    assert await log_in(desk, OTHER, "an entirely new one") == 200


async def test_deleted_meanwhile(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done to an account in the moment in which another administrator deletes it is 404, as if it came later,
    and neither keeps the account nor has anything mailed."""
    await desk.site.verified()
    user, users = await desk.user(), desk.site.hydra.services.store.users
    delete_closed = users.delete_closed

    async def others_first(*given: Any, **more: Any) -> Any:
        for action in ("enable", "disable"):
            refused(await desk.ask("POST", f"/users/{user.id}/{action}"), 404, "not_found")
            assert await desk.last() == (f"users.{action}", user.id, "not_found")
        return await delete_closed(*given, **more)

    monkeypatch.setattr(users, "delete_closed", others_first)
    await desk.delete(f"/users/{user.id}")
    assert await emails(desk) == []
    with pytest.raises(NotFound):
        await force_reset(desk.site.hydra.services, user)
    assert await desk.site.hydra.services.store.outbox.list(1) == []


async def test_no_password_to_void(open_site: OpenSite) -> None:
    """An authenticator's account has no password here, so none is voided, no session ends, and no mail goes out."""

    class Vouching:
        def __init__(self, context: Context) -> None: ...

        @hookimpl
        def hydracore_register_authenticators(self) -> list[Authenticator]:
            return [Authenticator("vouching", self.vouch)]

        async def vouch(self, email: str, password: str) -> Identity | None:
            return Identity(True)

    site = await open_site(both, extra={"vouching": Vouching}, login={"authenticators": ["vouching"]})
    desk = Desk(site)
    grant = tokens(await site.post("login", {"email": EMAIL, "password": "whatever"}))
    user = await desk.user()
    refused(await desk.ask("POST", f"/users/{user.id}/force-reset"), 403, "password_elsewhere")
    assert (await site.me(grant["access_token"])).code == 200
    assert await site.hydra.services.store.outbox.list(1) == []
    assert (await desk.get(f"/users/{user.id}"))["authenticator"] == "vouching"


async def test_mark_verified(desk: Desk) -> None:
    """A marked address is proven for whoever is signed in from the next refresh on; the mailed code is void, and a
    second time nothing is announced."""
    grant = await desk.site.register()
    code = await desk.site.box.code(EMAIL)
    user = await desk.user()
    for _ in range(2):
        assert (await desk.post(f"/users/{user.id}/mark-verified"))["email_verified"] is True
    grant = tokens(await desk.site.post("refresh", {"refresh_token": grant["refresh_token"]}))
    assert grant["email_verified"] is True
    refused(await desk.site.post("verify-email", {"email": EMAIL, "code": code}), 400, "invalid_code")
    assert Ear.heard.count("EmailVerified") == 1


async def test_sessions(desk: Desk) -> None:
    """Sessions are listed as their owner sees them, one is ended by itself, somebody else's id is none of theirs, and
    all are ended at once."""
    first = await desk.site.verified()
    second = tokens(await desk.site.post("login", {"email": EMAIL, "password": PASSWORD}, User_Agent="curl/8"))
    stranger = await desk.site.register(OTHER)
    user = await desk.user()
    listed = (await desk.get(f"/users/{user.id}/sessions"))["sessions"]
    [theirs] = (await desk.get(f"/users/{(await desk.user(OTHER)).id}/sessions"))["sessions"]
    refused(await desk.ask("DELETE", f"/users/{user.id}/sessions/{theirs['id']}"), 404, "not_found")
    assert (await desk.site.me(stranger["access_token"])).code == 200
    [curl] = [session["id"] for session in listed if session["device"] == "curl"]
    await desk.delete(f"/users/{user.id}/sessions/{curl}")
    assert (await desk.site.me(second["access_token"])).code == 401
    assert (await desk.site.me(first["access_token"])).code == 200
    refused(await desk.ask("DELETE", f"/users/{user.id}/sessions/{curl}"), 404, "not_found")
    await desk.delete(f"/users/{user.id}/sessions")
    assert (await desk.site.me(first["access_token"])).code == 401
    assert (await desk.get(f"/users/{user.id}/sessions"))["sessions"] == []
    assert await log_in(desk) == 200


# -- mail and keys -----------------------------------------------------------------------------------


async def test_mail(desk: Desk, expected_logs: list[str]) -> None:
    """The outbox is listed without what it says, by its state and by pages; a dead letter is sent again by itself or
    with all others, or dropped, and then it never goes out."""
    expected_logs += ["mail given up", "MailDead"]
    desk.site.box.failure = MailRefused("it will not do")
    for number in range(4):
        await desk.post("/users", {"email": f"u{number}@example.com"}, 201)
    dead: list[Any] = []
    for _ in range(1000):
        dead = (await desk.get("/mail?state=dead"))["mail"]
        if len(dead) == 4:
            break
        await asyncio.sleep(0.01)
    assert {(each["kind"], each["state"], each["error"]) for each in dead} == {
        ("reset_password", "dead", "it will not do")
    }
    page = await desk.get("/mail?state=dead&limit=3")
    rest = await desk.get(f"/mail?state=dead&limit=3&cursor={page['next']}")
    assert [each["id"] for each in (*page["mail"], *rest["mail"])] == [each["id"] for each in dead]
    assert (await desk.get("/mail?state=waiting"))["mail"] == []
    assert (await desk.get("/mail"))["mail"] == dead
    desk.site.box.failure = None
    await desk.delete(f"/mail/{dead[0]['id']}")
    assert (await desk.ask("POST", f"/mail/{dead[1]['id']}/retry")).code == 204
    assert await desk.site.box.reset_token(dead[1]["address"])
    assert await desk.post("/mail/retry") == {"retried": 2}
    for each in dead[2:]:
        assert await desk.site.box.reset_token(each["address"])
    assert dead[0]["address"] not in [letter["To"] for letter in desk.site.box.letters]
    for method, path in (("DELETE", ""), ("POST", "/retry")):
        refused(await desk.ask(method, f"/mail/{dead[0]['id']}{path}"), 404, "not_found")


async def test_mail_that_is_being_sent(open_site: OpenSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker has leased is not dropped: nobody could say whether it went out."""
    monkeypatch.setattr(MailWorker, "start", lambda self: None)
    site = await open_site(both)
    desk = Desk(site)
    await site.register()
    now = site.clock()
    assert await site.hydra.services.store.outbox.lease("mine", now, now)
    [sending] = (await desk.get("/mail"))["mail"]
    assert sending["state"] == "sending"
    refused(await desk.ask("DELETE", f"/mail/{sending['id']}"), 404, "not_found")


async def test_keys(desk: Desk) -> None:
    """Keys are listed with their stages, rotated, and in an emergency ended; no half of one that is private is told."""
    before = (await desk.get("/keys"))["keys"]
    assert "active" in {key["state"] for key in before}
    made = await desk.post("/keys/rotate", {}, 201)
    keys = (await desk.get("/keys"))["keys"]
    assert [key["kid"] for key in keys] == [*(key["kid"] for key in before), made["kid"]]
    assert keys[-1]["state"] == "next"
    urgent = await desk.post("/keys/rotate", {"emergency": True}, 201)
    keys = (await desk.get("/keys"))["keys"]
    assert keys[-1]["kid"] == urgent["kid"]
    assert {key["expires_at"] for key in keys[:-1]} == {urgent["signs_from"]}
    entry, *_ = [entry for entry in await desk.entries() if entry.action == "keys.rotate"]
    assert entry.details == {"emergency": True, "kid": urgent["kid"]}
    assert (await desk.ask("POST", "/keys/rotate", {"emergency": "yes"})).code == 422
    assert Ear.heard.count("KeyRotated") == 2


async def test_methods_and_paths(desk: Desk) -> None:
    """Other paths are our 404, other methods 405 with what there is; nothing of the Admin API is public."""
    refused(await desk.ask("GET", "/nothing"), 404, "not_found")
    answer = await desk.ask("PUT", "/users")
    refused(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET, HEAD, POST, OPTIONS"
    public = desk.site.hydra.application()
    for path in ("/admin/users", "/auth/admin/users", "/admin/openapi.json"):
        assert path not in public._by_path
    assert read(await desk.ask("GET", "/keys"))["keys"]
