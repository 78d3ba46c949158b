"""ASVS 5.0, V2: validation and business logic."""

import asyncio
import json
import re
from collections import Counter
from typing import Any

import pytest
from asking import (
    CALLS,
    EMAIL,
    LOGIN,
    NEW,
    OTHER,
    OWN_CALLS,
    ROOT,
    WRONG,
    basic,
    bearer,
    documents,
    forgotten,
    limited,
    log_in,
    page,
    refresh,
    reset,
    via,
)
from support import PASSWORD, OpenSite, Site, refused, tokens

from hydracore.config import load

LIMITS = {
    "failed sign-ins, per address and network": ["login_address_network"],
    "failed sign-ins, per address": ["login_address"],
    "failed sign-ins, per network": ["login_network"],
    "codes tried, per address / network": ["verify_address", "verify_network"],
    "mails asked for, per address and kind": ["mail_address", "mail_address_hourly"],
    "mails asked for, per network": ["mail_network"],
    "registrations, per network": ["register_network"],
    "reset tokens tried, per network": ["reset_network"],
    "admin tokens refused, per network": ["admin_network"],
}
SECONDS = {"a minute": 60, "in 5 minutes": 300, "an hour": 3600}


def documented_limits() -> dict[str, list[str]]:
    """The limits that docs/security.md tells, in the configuration's own form."""
    told = {}
    for name, text in re.findall(r"^\| ([a-z].+?, per .+?) \| (.+?) \|$", page("docs/security.md"), re.MULTILINE):
        told[name] = [
            f"{count}/{SECONDS[time]}" for count, time in re.findall(r"(\d+) (a minute|in 5 minutes|an hour)", text)
        ]
    return told


def test_v2_1_1_rules_are_written_down() -> None:
    """Each call that takes a body has a schema among the documents, which gives each member its type and bounds."""
    calls = CALLS | OWN_CALLS
    for call in calls:
        schema = json.loads((ROOT / "schemas/auth" / f"{call}.json").read_text("utf-8"))
        assert set(schema["properties"]) == set(calls[call]), call
        for member, rule in schema["properties"].items():
            assert rule["type"] == "string", (call, member)
            assert rule["maxLength"] <= 4096, (call, member)
            assert member != "email" or rule["format"] == "email"
            assert "password" not in member or rule["maxLength"] == 128
    assert {path.stem for path in (ROOT / "schemas/auth").glob("*.json")} == set(calls)


def test_v2_1_2_combinations_are_written_down() -> None:
    """What must fit together is told in docs/asvs.md, and the tests that hold it are named there."""
    [row] = re.findall(r"^\| 2\.2\.3 \(2\) \|.*$", page("docs/asvs.md"), re.MULTILINE)
    for pair in ("password and address", "code and address", "token and account"):
        assert pair in row


def test_v2_1_3_limits_are_written_down() -> None:
    """The limits that docs/security.md tells are the defaults, and none is left out."""
    told, limits = documented_limits(), load(environment={}).limits
    assert told == {name: [getattr(limits, key) for key in keys] for name, keys in LIMITS.items()}
    keys = set(re.findall(r"^(\w+) = \"\d+/\d+\"$", page("config.toml"), re.MULTILINE))
    assert keys == {key for keys in LIMITS.values() for key in keys}


@pytest.mark.parametrize("call", CALLS)
async def test_v2_2_1_members(site: Site, call: str) -> None:
    """What has another type, length or form than a call's rules say is 422 and named, and nothing is stored."""
    wrong: dict[str, list[Any]] = {
        "email": ["", "ada", "ada@localhost", "ada@example.com\nBcc: eve@example.com", f"{'a' * 250}@example.com"],
        "code": ["", "12345", "1234567", "12345x", "\u0661" * 6, "12345\n"],
        "password": ["", "x" * 129],
        "new_password": ["short", "x" * 129],
        "token": ["", "x" * 257],
        "refresh_token": ["x" * 4097],
    }
    for member in CALLS[call]:
        for value in [*wrong[member], {"$ne": None}, [EMAIL], 7, True, None]:
            problems = refused(await site.post(call, {**CALLS[call], member: value}), 422, "validation_failed")
            assert {tuple(problem["loc"]) for problem in problems} == {("body", member)}
    for name in ("users", "sessions", "codes", "outbox"):
        assert await documents(site, name) == []


@pytest.mark.parametrize("host", ["form", "script", "tool"])
async def test_v2_2_2_whoever_asks(site: Site, host: str) -> None:
    """The server judges by itself: what a page's script would have refused is refused from any client."""
    headers = {
        "form": {"Origin": site.url, "Sec_Fetch_Site": "same-origin"},
        "script": {"X_Requested_With": "XMLHttpRequest", "X_Validated": "true"},
        "tool": {"User_Agent": "curl/8"},
    }[host]
    refused(await site.post("register", {"email": EMAIL, "password": "short"}, **headers), 422, "validation_failed")
    refused(await site.post("register", {"email": "ada", "password": PASSWORD}, **headers), 422, "validation_failed")
    token = await forgotten_by_new(site)
    refused(await reset(site, token, "password"), 422, "validation_failed")
    refused(await log_in(site, "password"), 401, "invalid_credentials")


async def forgotten_by_new(site: Site) -> str:
    await site.register()
    return await forgotten(site)


async def test_v2_2_2_members_of_the_document(site: Site) -> None:
    """A client sets what the call takes and nothing else: no proof, state or id of an account."""
    wish = {"email_verified": True, "disabled": True, "epoch": 9, "_id": "mine", "id": "mine", "profile": {"role": "x"}}
    first = tokens(await site.post("register", {**LOGIN, **wish}), 201)
    [stored] = await documents(site, "users")
    assert (stored["email_verified"], stored["disabled"], stored["epoch"], stored["profile"]) == (False, False, 0, {})
    assert stored["_id"] != "mine"
    me = json.loads((await site.me(first["access_token"])).body)
    assert (me["email_verified"], me["id"]) == (False, stored["_id"])


async def test_v2_2_3_what_fits_together(site: Site) -> None:
    """Password and address: none that is made of the other. Code and address: a code proves its own. Token and
    account: a token sets the password of its own account, whatever address comes along."""
    for password in (EMAIL, "ada@example.com!", "example.com"):
        refused(await site.post("register", {"email": EMAIL, "password": password}), 422, "validation_failed")
    first = await site.register()
    other = await site.register(OTHER)
    code = await site.box.code(EMAIL)
    if code != await site.box.code(OTHER):
        body = {"email": OTHER, "code": code}
        refused(await site.post("verify-email", body, **bearer(other["access_token"])), 400, "invalid_code")
    body = {"token": await forgotten(site), "new_password": NEW, "email": OTHER}
    assert (await site.post("reset-password", body)).code == 200
    tokens(await log_in(site, NEW))
    tokens(await log_in(site, PASSWORD, OTHER))
    refused(await site.me(first["access_token"]), 401, "not_authenticated")
    assert (await site.me(other["access_token"])).code == 200


async def test_v2_3_1_no_step_is_left_out(site: Site) -> None:
    """Nobody proves, resets, refreshes or signs in before the step that comes ahead of it, nor takes a step again."""
    refused(await log_in(site), 401, "invalid_credentials")
    refused(await site.post("verify-email", {"email": EMAIL, "code": "123456"}), 400, "invalid_code")
    refused(await reset(site, "x" * 43), 400, "invalid_token")
    refused(await refresh(site, "x"), 401, "invalid_refresh_token")
    first = await site.register()
    refused(await site.post("register", LOGIN), 409, "email_taken")
    body = {"email": EMAIL, "code": await site.box.code(EMAIL)}
    refused(await reset(site, body["code"]), 400, "invalid_token")
    proven = tokens(await site.post("verify-email", body, **bearer(first["access_token"])))
    assert proven["email_verified"] is True
    refused(await site.post("verify-email", body), 400, "invalid_code")
    token = await forgotten(site)
    assert (await reset(site, token)).code == 200
    refused(await reset(site, token), 400, "invalid_token")


async def test_v2_3_2_as_documented(open_site: OpenSite) -> None:
    """As documented: the sixth wrong sign-in from a network is 429, the second mail in a minute, the wrong code that
    is over its network's bound, and the 21st registration."""
    site = await limited(open_site, verify_network="3/300")
    answers = [
        await site.post("register", {**LOGIN, "email": f"user{n}@example.com"}, **via("203.0.113.1")) for n in range(21)
    ]
    assert [answer.code for answer in answers] == [201] * 20 + [429]
    codes = [(await log_in(site, "wrong one", "user1@example.com", **via("203.0.113.2"))).code for _ in range(6)]
    assert codes == [401] * 5 + [429]
    mails = [(await site.post("forgot-password", {"email": "user2@example.com"})).code for _ in range(2)]
    assert mails == [200, 429]
    site.clock.forward(seconds=61)
    assert (await site.post("forgot-password", {"email": "user2@example.com"})).code == 200
    tried = [
        (await site.post("verify-email", {"email": f"user{n}@example.com", "code": "000000"})).code for n in range(3, 7)
    ]
    assert tried == [400, 400, 400, 429]


async def test_v2_3_2_five_tries_a_code(site: Site) -> None:
    """A code can be tried five times: after five wrong ones the right one is refused."""
    await site.register()
    code = await site.box.code(EMAIL)
    wrong = {"email": EMAIL, "code": f"{(int(code) + 1) % 1_000_000:06d}"}
    for _ in range(5):
        refused(await site.post("verify-email", wrong), 400, "invalid_code")
    refused(await site.post("verify-email", {"email": EMAIL, "code": code}), 400, "invalid_code")


async def test_v2_3_3_all_or_nothing(site: Site) -> None:
    """A registration that is refused leaves no account, session or mail behind; a reset that is refused leaves
    password, sessions and token as they were."""
    refused(await site.post("register", {"email": OTHER, "password": "password"}), 422, "validation_failed")
    first = await site.register()
    await site.box.code(EMAIL)
    refused(await site.post("register", {"email": EMAIL, "password": NEW}), 409, "email_taken")
    assert [user["email"] for user in await documents(site, "users")] == [EMAIL]
    assert len(await documents(site, "sessions")) == 1
    token = await forgotten(site)
    refused(await reset(site, token, "password"), 422, "validation_failed")
    assert (await site.me(first["access_token"])).code == 200
    tokens(await log_in(site))
    assert (await reset(site, token)).code == 200
    refused(await log_in(site), 401, "invalid_credentials")


async def test_v2_3_3_one_step(site: Site) -> None:
    """Of thirty resets with one token exactly one happens, whole: its password signs in and no other, and every
    session of before has ended."""
    first = await site.register()
    token = await forgotten(site)
    passwords = [f"long new password {number}" for number in range(30)]
    answers = await asyncio.gather(*(reset(site, token, password) for password in passwords))
    assert Counter(answer.code for answer in answers) == {200: 1, 400: 29}
    [winner] = [password for password, answer in zip(passwords, answers, strict=True) if answer.code == 200]
    signed_in = await asyncio.gather(*(log_in(site, password) for password in passwords))
    assert [answer.code == 200 for answer in signed_in] == [password == winner for password in passwords]
    refused(await refresh(site, first["refresh_token"]), 401, "invalid_refresh_token")


async def test_v2_3_4_no_double_booking(site: Site) -> None:
    """Of thirty registrations of one address at once one gets it, and of ten redemptions of its code one."""
    answers = await asyncio.gather(*(site.post("register", LOGIN) for _ in range(30)))
    assert Counter(answer.code for answer in answers) == {201: 1, 409: 29}
    assert len(await documents(site, "users")) == 1
    body = {"email": EMAIL, "code": await site.box.code(EMAIL)}
    answers = await asyncio.gather(*(site.post("verify-email", body) for _ in range(5)))
    assert Counter(answer.code for answer in answers) == {200: 1, 400: 4}


async def test_v2_4_1_automation_is_slowed(open_site: OpenSite) -> None:
    """Registering, guessing and having mails sent are bounded for a network, in every call that does so, at once too,
    and the answer says when to come again."""
    site = await limited(open_site, register_network="2/3600", mail_network="2/3600", login_network="3/300")
    for call, body, bound in (("register", LOGIN, 2), ("forgot-password", {}, 2), ("login", WRONG, 3)):
        bodies = [{**body, "email": f"user{number}@example.com"} for number in range(12)]
        answers = await asyncio.gather(*(site.post(call, body) for body in bodies))
        over = [answer for answer in answers if answer.code == 429]
        assert len(over) == 12 - bound, call
        for answer in over:
            assert 1 <= int(answer.headers["Retry-After"]) <= 3601  # Rounded up, never down.
    refused(await site.post("resend-verification", {"email": OTHER}), 429, "too_many_requests")
    refused(await site.ask("POST", "/auth/token", raw=b"", **basic(OTHER, "wrong")), 429, "too_many_requests")


async def test_v2_4_1_costly_work_is_bounded(open_site: OpenSite, expected_logs: list[str]) -> None:
    """Hashing takes no more than its queue: what comes on top is 503 at once, with Retry-After."""
    expected_logs.append("unavailable")
    # However busy this machine is, what has its place in the queue is judged.
    cost = {"profile": "standard", "hash_threads": 1, "hash_queue": 2, "time_cost": 4, "hash_timeout": 60}
    site = await open_site(password=cost)
    await site.register()
    answers = await asyncio.gather(*(site.post("login", WRONG) for _ in range(30)))
    counted = Counter(answer.code for answer in answers)
    assert set(counted) == {401, 503}
    assert counted[503] >= 1
    for answer in answers:
        assert answer.code == 401 or answer.headers["Retry-After"]
    tokens(await log_in(site))
