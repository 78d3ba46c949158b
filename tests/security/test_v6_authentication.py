"""ASVS 5.0, V6: authentication."""

import gzip
import hashlib
import random
import re
import secrets
import sys
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from asking import (
    EMAIL,
    LOGIN,
    NEW,
    OTHER,
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
from processes import command
from support import PASSWORD, OpenSite, Site, refused, tokens
from tornado.httpclient import HTTPResponse

from hydracore.flows.account import disable_user, find_user
from hydracore.plugin import Authenticator, Context, Identity, hookimpl
from hydracore.web.routes import AUTH, SERVICE


async def new_password_refused(site: Site, password: str, email: str = EMAIL) -> None:
    answer = await site.post("register", {"email": email, "password": password})
    problems = refused(answer, 422, "validation_failed")
    assert {tuple(problem["loc"]) for problem in problems} == {("body", "password")}


async def works(site: Site, password: str, email: str = EMAIL) -> None:
    """An account may have that password, and signs in with it."""
    await site.register(email, password)
    tokens(await log_in(site, password, email))


# -- 6.1 ---------------------------------------------------------------------------------------------


async def test_v6_1_1_no_lockout(open_site: OpenSite) -> None:
    """Nobody locks an owner out by guessing: from elsewhere the owner signs in, while the guesser waits, and when
    guesses come from everywhere, still from where the owner has been."""
    site = await limited(open_site, login_address="12/3600")
    home = via("198.51.100.7")
    await site.post("register", LOGIN, **home)
    for _ in range(6):
        await site.post("login", WRONG, **via("203.0.113.9"))
    refused(await site.post("login", LOGIN, **via("203.0.113.9")), 429, "too_many_requests")
    tokens(await site.post("login", LOGIN, **home))
    for number in range(12):
        await site.post("login", WRONG, **via(f"192.0.2.{number}"))
    refused(await site.post("login", LOGIN, **via("192.0.2.99")), 429, "too_many_requests")
    tokens(await site.post("login", LOGIN, **home))


def test_v6_1_1_configured() -> None:
    """Each limit against guessing is a key of the configuration, with words of its own."""
    text = page("config.toml")
    for key in ("login_address_network", "login_address", "login_network", "verify_address", "reset_network"):
        assert re.search(rf"^# .+\.\n{key} = \"\d+/\d+\"$", text, re.MULTILINE), key
    assert "Guesses from many networks" in page("docs/security.md")


async def test_v6_1_2_words_are_written_down(open_site: OpenSite) -> None:
    """The words of the context that docs/asvs.md lists are those that are refused."""
    [row] = re.findall(r"^\| 6\.1\.2 \(2\) \|.*$", page("docs/asvs.md"), re.MULTILINE)
    site = await open_site(mail={"product": "Analytical Engines"})
    words = {
        "the address": "countess.lovelace@notesonengines.example",
        "its local part": "countess.lovelace",
        "its domain": "notesonengines.example",
        "the domain's first label": "notesonengines",
        "hydracore": "HydraCore",
        "`mail.product`": "analyticalengines",
    }
    for told, word in words.items():
        assert told in row
        for password in (word, word.upper(), f"{word}2026"):
            await new_password_refused(site, password, words["the address"])


def test_v6_1_3_ways_are_written_down() -> None:
    """The README lists every call there is and no other, so every way to sign in, with its credentials."""
    table = page("README.md")
    told = set(re.findall(r"^\| (?:GET|POST|DELETE) `(/auth/[a-z_{}/-]+)`", table, re.MULTILINE))
    assert told == {f"/auth{path}" for path in AUTH}
    rows = re.findall(r"^\| POST `/auth/([a-z-]+)`.*\| 20[01] tokens.*$", table, re.MULTILINE)
    assert rows == ["register", "login", "token", "refresh", "verify-email", "change-password", "confirm-email"]


# -- 6.2 ---------------------------------------------------------------------------------------------


async def test_v6_2_1_eight_characters(site: Site) -> None:
    """Seven characters are too short, in register and reset; eight will do, whatever their bytes."""
    for password in ("kuqmzht", "\U0001f40d" * 7, ""):
        await new_password_refused(site, password)
    await works(site, "kuqmzhtw")
    refused(await reset(site, await forgotten(site), "kuqmzht"), 422, "validation_failed")


async def test_v6_2_1_fifteen_characters(open_site: OpenSite) -> None:
    """password.min_length makes it fifteen, in register and reset."""
    site = await open_site(password={"min_length": 15})
    await new_password_refused(site, "kuqmzhtwkuqmzh")
    await works(site, "kuqmzhtwkuqmzht")
    refused(await reset(site, await forgotten(site), "zhtkuqmzhtwkuq"), 422, "validation_failed")


async def test_v6_2_2_a_new_password(site: Site) -> None:
    """Whoever has an account sets a new password by a mailed token; the old one signs in no more."""
    await site.verified()
    assert (await reset(site, await forgotten(site))).code == 200
    refused(await log_in(site), 401, "invalid_credentials")
    tokens(await log_in(site, NEW))


async def test_v6_2_3_the_current_password(site: Site) -> None:
    """change-password takes the current password and the new one; a wrong one changes nothing."""
    grant = await site.verified()
    body = {"current_password": "not the password", "new_password": NEW}
    refused(await site.post("change-password", body, **bearer(grant["access_token"])), 403, "invalid_password")
    body["current_password"] = PASSWORD
    tokens(await site.post("change-password", body, **bearer(grant["access_token"])))
    refused(await log_in(site), 401, "invalid_credentials")
    tokens(await log_in(site, NEW))


async def test_v6_2_4_common_passwords(site: Site) -> None:
    """More than three thousand common passwords of eight characters and more are known, and refused in register and
    reset."""
    packed = (resources.files("hydracore_password_standard") / "common_passwords.txt.gz").read_bytes()
    common = [entry for entry in gzip.decompress(packed).decode("utf-8").splitlines() if 8 <= len(entry) <= 128]
    assert len(common) >= 3000
    assert {"password", "12345678", "iloveyou", "qwertyuiop", "11111111"} <= set(common)
    sample = ["password", "12345678", "PASSWORD", *common[:40], *common[:: len(common) // 60]]
    for password in sample:
        await new_password_refused(site, password)
    await site.register()
    token = await forgotten(site)
    for password in sample[:20]:
        refused(await reset(site, token, password), 422, "validation_failed")
    assert (await reset(site, token)).code == 200


@pytest.mark.parametrize(
    "password",
    [
        "kuqmzhtwp",
        "KUQMZHTWP",
        "730918254607",
        "        ~        ",
        "!?#%&/()=",
        "пароль-без-правил",
        "\U0001f40d\U0001f419\U0001f98b\U0001f40c\U0001f41d\U0001f422\U0001f9ad\U0001f994",
        "tab\tand\nnewline\x00nul",
    ],
)
async def test_v6_2_5_any_composition(site: Site, password: str) -> None:
    """Letters, digits, signs or spaces alone, any script and any character: all may be a password."""
    await works(site, password)


async def test_v6_2_8_exactly_as_sent(site: Site) -> None:
    """A password is compared whole: no other case, no trimmed space, no cut end, and what follows a NUL counts."""
    password = "  Löwen\x00Zahn im Mai  " + "x" * 107
    assert len(password) == 128
    await works(site, password)
    others = [password.strip(), password.lower(), password.upper(), password.swapcase(), password[:-1], password[1:]]
    others += [password[:72], password[:64], password.partition("\x00")[0], password.replace("\x00", "")]
    for other in others:
        refused(await log_in(site, other), 401, "invalid_credentials")
    refused(await log_in(site, password + "x"), 422, "validation_failed")


@pytest.mark.parametrize("length", [64, 65, 127, 128])
async def test_v6_2_9_long_passwords(site: Site, length: int) -> None:
    """Passwords of 64 characters, and up to 128, are taken, and each character of them counts."""
    password = ("Löwenzahn 🐍 " * 20)[: length - 1] + "y"
    await works(site, password)
    refused(await log_in(site, password[:-1] + "z"), 401, "invalid_credentials")


async def test_v6_2_10_no_expiry(site: Site) -> None:
    """Five years later the password is still good, and nobody asks for another."""
    await site.verified()
    site.clock.forward(days=5 * 365)
    answer = await log_in(site)
    assert tokens(answer)["email_verified"] is True


async def test_v6_2_11_words_of_the_context(site: Site) -> None:
    """The address, its parts and the service's name, in any case and with digits around, are no password, in register
    and reset."""
    words = (EMAIL, "ada@example.com1", "Example.Com", "HydraCore", "hydracore2026", "12hydracore!")
    for password in words:
        await new_password_refused(site, password)
    await site.register()
    token = await forgotten(site)
    for password in words:
        refused(await reset(site, token, password), 422, "validation_failed")
    assert (await reset(site, token)).code == 200


async def test_v6_2_12_breached_passwords(open_site: OpenSite, tmp_path: Path) -> None:
    """With password_breached a password that is known from breaches is refused, in register and reset."""
    breached = "kuqmzhtw-was-once-mine"
    known = sorted(hashlib.sha1(each.encode(), usedforsecurity=False).hexdigest().upper() for each in (breached, "x"))
    file = tmp_path / "breached.txt"
    file.write_text("".join(f"{digest}:7\n" for digest in known))
    section = {"source": "file", "file": str(file)}
    site = await open_site(plugins={"enabled": ["event_log", "password_breached"], "password_breached": section})
    await new_password_refused(site, breached)
    await works(site, f"{breached}-no-more")
    token = await forgotten(site)
    refused(await reset(site, token, breached), 422, "validation_failed")
    assert (await reset(site, token)).code == 200


# -- 6.3 ---------------------------------------------------------------------------------------------


async def test_v6_3_1_guessing(open_site: OpenSite) -> None:
    """Guessing at an account and stuffing many are both stopped: by address and network, by address, by network."""
    site = await limited(open_site, login_address="8/3600", login_network="10/300")
    await site.post("register", LOGIN, **via("198.51.100.7"))
    codes = [(await site.post("login", WRONG, **via("203.0.113.1"))).code for _ in range(7)]
    assert codes == [401] * 5 + [429] * 2
    codes = [(await site.post("login", WRONG, **via(f"203.0.113.{n}"))).code for n in range(2, 7)]
    assert codes == [401] * 3 + [429] * 2
    stuffed = [{"email": f"user{n}@example.com", "password": "x"} for n in range(12)]
    codes = [(await site.post("login", body, **via("192.0.2.1"))).code for body in stuffed]
    assert codes == [401] * 10 + [429] * 2


async def test_v6_3_2_no_default_accounts(site: Site) -> None:
    """A new server has no account, and lets in none of the names and passwords that servers often come with."""
    assert await documents(site, "users") == []
    for name in ("admin", "root", "sa", "administrator", "test", "hydracore"):
        for password in ("admin", "root", "password", "hydracore", "changeme", name):
            refused(await log_in(site, password, f"{name}@example.com"), 401, "invalid_credentials")
            refused(await log_in(site, password, name), 422, "validation_failed")
            refused(await tool(site, password, name), 401, "invalid_credentials")


async def tool(site: Site, password: str = PASSWORD, email: str = EMAIL, **headers: str) -> HTTPResponse:
    return await site.ask("POST", "/auth/token", raw=b"", **basic(email, password), **headers)


@pytest.mark.parametrize("first", ["login", "token"])
async def test_v6_3_4_one_count_for_all_ways(open_site: OpenSite, first: str) -> None:
    """Guesses by one way count for the other."""
    site = await limited(open_site)
    await site.register()
    one, other = (log_in, tool) if first == "login" else (tool, log_in)
    for _ in range(5):
        refused(await one(site, "wrong"), 401, "invalid_credentials")
    refused(await other(site), 429, "too_many_requests")


async def test_v6_3_4_closed_to_all_ways(site: Site) -> None:
    """A disabled account is closed by every way: password, tool, refresh, code, and reset."""
    first = await site.register()
    code, token = await site.box.code(EMAIL), await forgotten(site)
    user = await find_user(site.hydra.services, EMAIL)
    assert user
    await disable_user(site.hydra.services, user)
    refused(await log_in(site), 401, "invalid_credentials")
    refused(await tool(site), 401, "invalid_credentials")
    refused(await refresh(site, first["refresh_token"]), 401, "invalid_refresh_token")
    refused(await site.post("verify-email", {"email": EMAIL, "code": code}), 400, "invalid_code")
    refused(await reset(site, token), 400, "invalid_token")
    refused(await log_in(site, NEW), 401, "invalid_credentials")


async def test_v6_3_4_no_other_ways(site: Site) -> None:
    """There is nothing but the calls that the README lists: what other servers have is 404."""
    known = {f"/auth{path}" for path in AUTH} | set(SERVICE)
    for path in (
        "/auth/admin",
        "/auth/users",
        "/auth/oauth/token",
        "/auth/authorize",
        "/auth/otp",
        "/auth/magic-link",
        "/auth/impersonate",
        "/auth/debug",
        "/admin",
        "/metrics",
        "/.well-known/openid-configuration",
    ):
        assert path not in known
        for method in ("GET", "POST"):
            refused(await site.ask(method, path, raw=b"{}" if method == "POST" else None, **basic()), 404, "not_found")


async def test_v6_3_7_owner_is_told(site: Site) -> None:
    """After a reset the owner gets a mail that says so, without any secret in it; after one that is refused none."""
    await site.verified()
    token = await forgotten(site)
    refused(await reset(site, token, "password"), 422, "validation_failed")
    assert (await reset(site, token)).code == 200
    letter = await site.box.letter(EMAIL, about="was changed")
    assert NEW not in letter
    assert token not in letter
    assert len([each for each in site.box.letters if "was changed" in each["Subject"]]) == 1


async def test_v6_3_7_former_address_is_told(site: Site) -> None:
    """After a change of the address the former one gets a mail that says so, without the new one in it."""
    held = bearer((await site.verified())["access_token"])
    assert (await site.post("change-email", {"password": PASSWORD, "email": OTHER}, **held)).code == 200
    tokens(await site.post("confirm-email", {"code": await site.box.change_code(OTHER)}, **held))
    assert OTHER not in await site.box.letter(EMAIL, about="address was changed")


def seen(answer: HTTPResponse) -> Any:
    varying = ("Date", "X-Request-Id")
    return answer.code, answer.body, sorted(item for item in answer.headers.get_all() if item[0] not in varying)


async def test_v6_3_8_nobody_can_tell(open_site: OpenSite) -> None:
    """With registration.reveal_existing off no call tells an address that has an account from one that has none: not
    by status, words or headers, and not by limits. Register and forgot-password are among them."""
    known, unknown = EMAIL, "nobody@example.com"
    site = await open_site(registration={"reveal_existing": False})
    await site.post("register", LOGIN)
    assert (await site.post("verify-email", {"email": known, "code": await site.box.code(known)})).code == 200
    for call, body in {
        "login": {"password": "not the password"},
        "verify-email": {"code": "000000"},
        "resend-verification": {},
        "forgot-password": {},
        "register": {"password": PASSWORD},
    }.items():
        answers = [await site.post(call, {"email": email, **body}) for email in (known, unknown)]
        assert seen(answers[0]) == seen(answers[1]), call
    answers = [await tool(site, "wrong", email) for email in (known, "someone@example.com")]
    assert seen(answers[0]) == seen(answers[1])
    # A password that is right tells no more, before the address is proven.
    refused(await log_in(site, PASSWORD, unknown), 401, "invalid_credentials")


# -- 6.4 ---------------------------------------------------------------------------------------------


async def test_v6_4_1_initial_codes(site: Site) -> None:
    """The code that is mailed at first is six random digits, good for ten minutes and once, and never a password."""
    codes = []
    for number in range(12):
        await site.register(f"user{number}@example.com")
        codes.append(await site.box.code(f"user{number}@example.com"))
    assert all(re.fullmatch(r"[0-9]{6}", code) for code in codes)
    assert len(set(codes)) > 9
    email, code = "user0@example.com", codes[0]
    refused(await log_in(site, code, email), 401, "invalid_credentials")
    await new_password_refused(site, code, "late@example.com")
    tokens(await site.post("verify-email", {"email": email, "code": code}))
    refused(await site.post("verify-email", {"email": email, "code": code}), 400, "invalid_code")
    refused(await log_in(site, code, email), 401, "invalid_credentials")
    site.clock.forward(minutes=10, seconds=1)
    refused(await site.post("verify-email", {"email": "user1@example.com", "code": codes[1]}), 400, "invalid_code")


async def test_v6_4_2_no_hints(site: Site) -> None:
    """There is no hint and no secret question: what a client sends of the kind is not kept, and opens nothing."""
    asked = {"password_hint": "the usual", "security_question": "first pet", "security_answer": "Rex the dog"}
    assert (await site.post("register", {**LOGIN, **asked})).code == 201
    stored = repr([await documents(site, name) for name in ("users", "codes", "outbox", "sessions")])
    for word in (*asked, *asked.values()):
        assert word not in stored
    answers = [await site.post("forgot-password", {"email": EMAIL, **asked})]
    token = await site.box.reset_token(EMAIL)
    answers.append(await site.post("login", {**WRONG, **asked}))
    answers.append(await site.post("reset-password", {"token": "x", "new_password": NEW, "email": EMAIL, **asked}))
    assert [answer.code for answer in answers] == [200, 401, 400]
    for answer in answers:
        assert b"hint" not in answer.body
        assert b"usual" not in answer.body
    assert (await reset(site, token)).code == 200


async def test_v6_4_3_reset(site: Site) -> None:
    """A reset takes a token of 256 random bits that only the mail shows, good for 30 minutes and once; it signs nobody
    in, ends every session and every older token."""
    first = await site.register()
    asked = await site.post("forgot-password", {"email": EMAIL})
    older, newer = await site.box.reset_token(EMAIL), await forgotten(site, 2)
    assert re.fullmatch(r"[\w-]{43}", newer)
    assert older.encode() not in asked.body
    assert older not in str(asked.headers)
    answer = await reset(site, newer)
    assert answer.code == 200
    assert "Set-Cookie" not in answer.headers
    assert b"token" not in answer.body
    for token in (newer, older):
        refused(await reset(site, token, "another long password"), 400, "invalid_token")
    refused(await site.me(first["access_token"]), 401, "not_authenticated")
    late = await forgotten(site, 3)
    site.clock.forward(minutes=30, seconds=1)
    refused(await reset(site, late), 400, "invalid_token")


def test_v6_4_6_operators_choose_no_password(tmp_path: Path) -> None:
    """No command sets the password of an account that is there: forgot-password, for anyone, and force-reset start its
    reset, and the token goes to the owner."""
    _, said, _ = command(tmp_path, "users", "--help")
    commands = re.findall(r"^  ([a-z-]+) ", said.partition("Commands:")[2], re.MULTILINE)
    of_accounts = ["create", "delete", "disable", "enable", "force-reset", "language", "list", "mark-verified", "roles"]
    assert sorted(commands) == sorted([*of_accounts, "export", "import"])


async def test_v6_4_6_started_by_another(site: Site) -> None:
    """A reset that someone else started tells its token to the owner's mail alone, and changes nothing by itself."""
    await site.verified()
    answer = await site.post("forgot-password", {"email": EMAIL, "new_password": NEW, "to": OTHER, "cc": OTHER})
    await site.box.reset_token(EMAIL)
    assert {letter["To"] for letter in site.box.letters} == {EMAIL}
    assert not any(letter["Cc"] or letter["Bcc"] for letter in site.box.letters)
    assert b"token" not in answer.body
    tokens(await log_in(site))
    refused(await log_in(site, NEW), 401, "invalid_credentials")


# -- 6.5 ---------------------------------------------------------------------------------------------


async def test_v6_5_1_codes_work_once(site: Site) -> None:
    """A code, and a reset token, work once, however soon they come again."""
    await site.register()
    body = {"email": EMAIL, "code": await site.box.code(EMAIL)}
    tokens(await site.post("verify-email", body))
    refused(await site.post("verify-email", body), 400, "invalid_code")
    token = await forgotten(site)
    assert (await reset(site, token)).code == 200
    refused(await reset(site, token, "another long password"), 400, "invalid_token")
    tokens(await log_in(site, NEW))


async def test_v6_5_2_codes_at_rest(site: Site) -> None:
    """The database holds no code and no reset token, nor a digest of one that could be made without the secret."""
    await site.register()
    mailed = [await site.box.code(EMAIL), await forgotten(site)]
    stored = await documents(site, "codes")
    assert {document["kind"] for document in stored} == {"verification", "reset"}
    text = repr(stored) + repr(await documents(site, "outbox"))
    for secret in mailed:
        assert secret not in text
        for name in ("md5", "sha1", "sha256", "sha512", "sha3_256", "blake2b"):
            digest = hashlib.new(name, secret.encode(), usedforsecurity=False)
            assert digest.hexdigest() not in text
            assert repr(digest.digest())[2:-1] not in text
    [user] = await documents(site, "users")
    assert user["password_hash"].startswith("$argon2id$")


async def test_v6_5_3_secure_source(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens are what the system's secure source gave, and nothing of ours asks Python's random for a code or token."""
    given: list[str] = []
    asked: list[str] = []
    really = secrets.token_urlsafe

    def noted(size: int) -> str:
        given.append(really(size))
        return given[-1]

    def weak(way: Any, *args: Any, **kwargs: Any) -> Any:
        caller = sys._getframe(1).f_globals["__name__"]
        asked.extend([caller] if caller.startswith("hydracore") else [])
        return way(*args, **kwargs)

    monkeypatch.setattr(secrets, "token_urlsafe", noted)
    for name in (
        "random",
        "getrandbits",
        "randint",
        "randrange",
        "choice",
        "choices",
        "sample",
        "randbytes",
        "uniform",
    ):
        monkeypatch.setattr(random, name, partial(weak, getattr(random, name)))
    grant = await site.register()
    await site.box.code(EMAIL)
    before = len(given)
    assert (await site.post("resend-verification", {"email": EMAIL})).code == 200
    await site.box.code(EMAIL, 2)
    assert len([each for each in given[before:] if len(each) == 43]) == 1  # 256 bits, of which the code is made.
    assert await forgotten(site) in given
    assert grant["refresh_token"].split(".")[1] in given
    assert asked == []


async def test_v6_5_4_entropy(site: Site) -> None:
    """A code is six digits, leading zeros among them, and a shorter one is none."""
    await site.register()
    code = await site.box.code(EMAIL)
    assert re.fullmatch(r"[0-9]{6}", code)
    for part in (code[:5], code[1:], f"{code}0", f"0{code}", ""):
        refused(await site.post("verify-email", {"email": EMAIL, "code": part}), 422, "validation_failed")
    tokens(await site.post("verify-email", {"email": EMAIL, "code": code}))


async def test_v6_5_5_ten_minutes(site: Site) -> None:
    """A code is good for ten minutes and no longer, and the mail says so."""
    for number, email in enumerate((EMAIL, OTHER)):
        await site.register(email)
        body = {"email": email, "code": await site.box.code(email)}
        assert "10 minutes" in await site.box.letter(email, about="verification")
        site.clock.forward(minutes=9, seconds=50)
        if number:
            site.clock.forward(seconds=11)
            refused(await site.post("verify-email", body), 400, "invalid_code")
        else:
            tokens(await site.post("verify-email", body))


async def test_v6_5_6_lost_factors(site: Site) -> None:
    """A password that someone else has is replaced by a reset and then opens nothing; until then an operator can close
    the account, which its codes and tokens do not open either."""
    await site.verified()
    token = await forgotten(site)
    assert (await reset(site, token)).code == 200
    refused(await log_in(site), 401, "invalid_credentials")
    refused(await tool(site), 401, "invalid_credentials")
    pending = await forgotten(site, 2)
    user = await find_user(site.hydra.services, EMAIL)
    assert user
    await disable_user(site.hydra.services, user)
    refused(await log_in(site, NEW), 401, "invalid_credentials")
    refused(await reset(site, pending), 400, "invalid_token")


# -- 6.6 ---------------------------------------------------------------------------------------------


async def test_v6_6_2_bound_to_the_request(site: Site) -> None:
    """A code belongs to the request that it was made for: a newer one ends it, and it proves no other account."""
    first = await site.register()
    await site.register(OTHER)
    older = await site.box.code(EMAIL)
    assert (await site.post("resend-verification", {"email": EMAIL})).code == 200
    newer = await site.box.code(EMAIL, 2)
    if older not in (newer, await site.box.code(OTHER)):
        refused(await site.post("verify-email", {"email": EMAIL, "code": older}), 400, "invalid_code")
        refused(await site.post("verify-email", {"email": OTHER, "code": older}), 400, "invalid_code")
    body = {"email": EMAIL, "code": newer}
    tokens(await site.post("verify-email", body, **bearer(first["access_token"])))
    # A code of before a reset is void after it.
    code = await site.box.code(OTHER)
    assert (await reset(site, await forgotten(site, email=OTHER))).code == 200
    refused(await site.post("verify-email", {"email": OTHER, "code": code}), 400, "invalid_code")


async def test_v6_6_3_guessed_codes(open_site: OpenSite) -> None:
    """Guesses at codes are limited for an address, however many codes are mailed, and for a network."""
    site = await limited(open_site, mail_address="off", mail_address_hourly="off", mail_network="off")
    await site.register()
    codes = []
    for nth in range(1, 5):
        right = await site.box.code(EMAIL, nth)
        wrong = {"email": EMAIL, "code": f"{(int(right) + 1) % 1_000_000:06d}"}
        codes += [(await site.post("verify-email", wrong, **via(f"203.0.113.{nth}"))).code for _ in range(5)]
        assert (await site.post("resend-verification", {"email": EMAIL})).code == 200
    assert codes == [400] * 10 + [429] * 10
    right = {"email": EMAIL, "code": await site.box.code(EMAIL, 5)}
    refused(await site.post("verify-email", right, **via("203.0.113.5")), 429, "too_many_requests")
    bodies = [{"email": f"user{n}@example.com", "code": "000000"} for n in range(32)]
    codes = [(await site.post("verify-email", body, **via("192.0.2.1"))).code for body in bodies]
    assert codes == [400] * 30 + [429] * 2


# -- 6.8 ---------------------------------------------------------------------------------------------


class Directory:
    """Vouches for one person, under its own name."""

    name = "directory"

    def __init__(self, context: Context) -> None:
        self.people = {EMAIL: f"the {self.name}'s password"}

    @hookimpl
    def hydracore_register_authenticators(self) -> list[Authenticator]:
        return [Authenticator(self.name, self.authenticate)]

    async def authenticate(self, email: str, password: str) -> Identity | None:
        return Identity() if self.people.get(email) == password else None


class Rival(Directory):
    name = "rival"


async def test_v6_8_1_accounts_of_one_authenticator(open_site: OpenSite) -> None:
    """An account belongs to the authenticator that first vouched for it: another one that vouches for the same address
    gets nobody into it, nor does a password, nor a reset."""
    site = await open_site(
        extra={"directory": Directory, "rival": Rival}, login={"authenticators": ["password", "directory", "rival"]}
    )
    first = tokens(await log_in(site, "the directory's password"))
    refused(await log_in(site, "the rival's password"), 401, "invalid_credentials")
    refused(await tool(site, "the rival's password"), 401, "invalid_credentials")
    refused(await site.post("register", LOGIN), 409, "email_taken")
    refused(await log_in(site), 401, "invalid_credentials")
    await site.register(OTHER)
    assert (await site.post("forgot-password", {"email": EMAIL})).code == 200
    await forgotten(site, email=OTHER)
    assert EMAIL not in {letter["To"] for letter in site.box.letters}
    [mine] = [user for user in await documents(site, "users") if user["email"] == EMAIL]
    assert mine["authority"] == "directory"
    assert (await site.me(first["access_token"])).code == 200
    tokens(await log_in(site, "the directory's password"))
