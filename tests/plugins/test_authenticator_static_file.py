"""Signing in the people of a file."""

import asyncio
import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest
from argon2 import PasswordHasher, Type
from click.testing import CliRunner, Result
from support import PASSWORD, Clock, OpenSite, Site, refused, tokens
from tornado.ioloop import IOLoop

from hydracore.addresses import parse_address
from hydracore.config import load
from hydracore.passwords import TESTING, HashingPool, Passwords
from hydracore.plugin import Identity, StartupError

EMAIL = "ada@example.com"
EVE = "eve@example.com"
HERS = "the engine weaves algebra"
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


def line(email: str, password: str = HERS) -> str:
    return f"{email}:{CHEAP.hash(password)}\n"


class Hashing:
    """The core's hashing, counted."""

    def __init__(self) -> None:
        self.passwords = Passwords(TESTING, HashingPool(2, 500))
        self.verified: list[str] = []

    def address_key(self, email: str) -> str:
        return parse_address(email).key

    async def verify_password(self, encoded: str, password: str) -> bool:
        self.verified.append(encoded)
        return await self.passwords.verify(encoded, password)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "people"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hashing() -> Iterator[Hashing]:
    one = Hashing()
    yield one
    one.passwords.close()


@pytest.fixture
def people(make: Any, file: Path, clock: Clock, hashing: Hashing, tmp_path: Path) -> Any:
    """Makes the plugin over the file, which then says what it is given."""

    def made(text: str | bytes, profile: str = "testing") -> Any:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        overrides = {"data_dir": str(tmp_path / "data"), "password": {"profile": profile}}
        settings = load(environment={}, overrides=overrides)
        return make("authenticator_static_file", now=clock, surroundings=hashing, settings=settings, file=str(file))

    return made


def replaced(file: Path, text: str) -> None:
    """As an operator should do it."""
    draft = file.with_suffix(".new")
    draft.write_text(text)
    draft.replace(file)


# -- who is in it ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        (EMAIL, EMAIL),
        ("Ada@Example.COM", "aDA@example.com"),
        ("ada@exämple.com", "ADA@xn--exmple-cua.com"),
        ("ada@xn--exmple-cua.com", "ada@EXÄMPLE.com"),
        ("ada\u0308@example.com", "ad\u00e4@example.com"),
        ("\uff21da@example.com", EMAIL),
        ("strasse@example.com", "stra\u00dfe@example.com"),
    ],
)
async def test_addresses_are_compared_as_accounts_are(people: Any, written: str, asked: str) -> None:
    """Case, composition, width and the domain's form make no difference."""
    plugin = people(line(written))
    assert await plugin.authenticate(asked, HERS) == Identity(email_verified=True)
    assert await plugin.authenticate(asked, HERS + ".") is None


@pytest.mark.parametrize("asked", ["ad@example.com", "ada@example.org", "ada+x@example.com", "no address", "", "a:b"])
async def test_others_are_nobody(people: Any, asked: str) -> None:
    """Another address is nobody's, whatever it is."""
    assert await people(line(EMAIL)).authenticate(asked, HERS) is None


async def test_equal_work(people: Any, hashing: Hashing) -> None:
    """One hash is verified for each sign-in: known, unknown, right, wrong or no address at all."""
    plugin = people(line(EMAIL))
    for who, password in ((EMAIL, HERS), (EMAIL, "wrong"), (EVE, HERS), ("no address", HERS), (EMAIL, "")):
        hashing.verified.clear()
        await plugin.authenticate(who, password)
        assert len(hashing.verified) == 1
        assert bool(hashing.verified[0]) == (who == EMAIL)


async def test_what_a_file_may_hold(people: Any) -> None:
    """Comments, blank lines, white space, CRLF, a BOM, the three kinds of argon2; and nothing at all."""
    text = f"\ufeff# people\r\n\r\n  {line(EMAIL).strip()}  \r\n\t# {line(EVE)}   \n{line('last@example.com').strip()}"
    plugin = people(text)
    assert await plugin.authenticate(EMAIL, HERS)
    assert await plugin.authenticate("last@example.com", HERS)
    assert await plugin.authenticate(EVE, HERS) is None
    kinds = [PasswordHasher(time_cost=1, memory_cost=8, parallelism=1, type=kind) for kind in Type]
    plugin = people("".join(f"kind{number}@example.com:{kind.hash(HERS)}\n" for number, kind in enumerate(kinds)))
    for number in range(len(kinds)):
        assert await plugin.authenticate(f"kind{number}@example.com", HERS)
    assert await people("").authenticate(EMAIL, HERS) is None


# -- what stops the start --------------------------------------------------------------------------

# Of one salt: what tests are called must be the same in each process that runs some of them.
HASH = CHEAP.hash(HERS, salt=b"the same one")


@pytest.mark.parametrize(
    ("text", "number", "said"),
    [
        (f"{EMAIL} {HASH.replace(':', '')}", 1, "no colon"),
        (f"# people\n\n{EMAIL}", 3, "no colon"),
        (f"{EMAIL}:{HASH}\nada:{HASH}", 2, "address"),
        (f":{HASH}", 1, "address"),
        (f'"a:b"@example.com:{HASH}', 1, "address"),
        (f"{HASH}:{EMAIL}", 1, "address"),
        (f"{EMAIL}:", 1, "argon2"),
        (f"{EMAIL}:{HERS}", 1, "argon2"),
        (f"{EMAIL}:$2b$12$abcdefghijklmnopqrstuv", 1, "argon2"),
        (f"{EMAIL}:{HASH[:-40]}", 1, "argon2"),
        (f"{EMAIL}:{HASH} more", 1, "argon2"),
        (f"{EMAIL}:{HASH[:-2]}", 1, "argon2"),
        (f"{EMAIL}:{HASH.replace('t=1', 't=0')}", 1, "argon2"),
        (f"{EMAIL}:{HASH.replace('m=8', 'm=7')}", 1, "argon2"),
        (f"{EMAIL}:{HASH.replace('m=8', 'm=' + '9' * 5000)}", 1, "argon2"),
        (line(EMAIL) + line(EVE) + line("ADA@Example.com"), 3, "line 1"),
        (line(EMAIL).encode() + b"\xff\xfe", 2, "UTF-8"),
    ],
)
def test_a_flaw_stops_the_start(people: Any, file: Path, text: str | bytes, number: int, said: str) -> None:
    """The message names the key, the file and the line, and what to do, and shows neither hash nor address."""
    with pytest.raises(StartupError, match=r"^plugins\.authenticator_static_file\.file: ") as raised:
        people(text)
    message = str(raised.value)
    assert f"{file}, line {number} " in message
    assert said in message
    assert message.endswith(".")
    for secret in (HASH[-20:], "$argon2", "$2b", HERS, EMAIL, "ADA@"):
        assert secret not in message


def test_no_file_stops_the_start(make: Any, tmp_path: Path) -> None:
    """A file that is not set, not there, a folder, a pipe, or far too large is told with the key."""
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(1 << 30)
    for name in ("absent", "", "pipe", "large"):
        with pytest.raises(StartupError, match=r"^plugins\.authenticator_static_file\.file: .*\.$") as raised:
            make("authenticator_static_file", file=str(tmp_path / name))
        assert str(tmp_path) in str(raised.value)
    with pytest.raises(StartupError, match=r"^plugins\.authenticator_static_file\.file is not set"):
        make("authenticator_static_file")


# -- a file that changes ---------------------------------------------------------------------------


async def test_a_change_counts_within_a_second(people: Any, file: Path, clock: Clock) -> None:
    """Who is added may sign in, who is taken out may not, and the file is looked at once a second at most."""
    plugin = people(line(EMAIL))
    replaced(file, line(EVE))
    assert await plugin.authenticate(EVE, HERS) is None
    clock.forward(seconds=1)
    assert await plugin.authenticate(EVE, HERS)
    assert await plugin.authenticate(EMAIL, HERS) is None
    replaced(file, line(EVE, "another password"))
    clock.forward(seconds=-3600)  # The clock was put right.
    assert await plugin.authenticate(EVE, "another password")


@pytest.mark.parametrize("flaw", ["ada@example.com", line(EVE) + line(EVE), f"{EMAIL}:{HERS}"])
async def test_a_flaw_changes_nothing(
    people: Any,
    file: Path,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    expected_logs: list[str],
    flaw: str,
) -> None:
    """While the file has a flaw it counts as it was, and one warning names the file and the line."""
    expected_logs.append("plugins.authenticator_static_file.file")
    plugin = people(line(EMAIL))
    replaced(file, "# people\n" + flaw)
    for _ in range(5):
        clock.forward(seconds=2)
        assert await plugin.authenticate(EMAIL, HERS)
        assert await plugin.authenticate(EVE, HERS) is None
    [record] = caplog.records
    assert f"{file}, line {3 if flaw.count('eve') else 2} " in record.getMessage()
    for secret in (HERS, "$argon2", EMAIL, EVE):
        assert secret not in record.getMessage()
    assert await plugin.check() != ""
    replaced(file, line(EVE))
    clock.forward(seconds=2)
    assert await plugin.authenticate(EVE, HERS)
    assert await plugin.check() == ""


async def test_a_file_that_goes(
    people: Any, file: Path, clock: Clock, caplog: pytest.LogCaptureFixture, expected_logs: list[str]
) -> None:
    """While the file is gone it counts as it was; each time it goes is told once; and it may come back."""
    expected_logs.append("cannot be read")
    plugin = people(line(EMAIL))
    kept = file.with_suffix(".kept")
    for times in (1, 2):
        file.rename(kept)
        for _ in range(3):
            clock.forward(seconds=2)
            assert await plugin.authenticate(EMAIL, HERS)
        assert len(caplog.records) == times
        assert str(file) in caplog.records[-1].getMessage()
        assert str(file) in await plugin.check()
        kept.rename(file)
        clock.forward(seconds=2)
        assert await plugin.authenticate(EMAIL, HERS)
        assert await plugin.check() == ""


async def test_a_crowd_while_the_file_is_replaced(people: Any, file: Path, clock: Clock) -> None:
    """Of a hundred sign-ins at once, over and over while the file is replaced, none fails for who is in each."""
    texts = [line(EMAIL), line(EVE) + line(EMAIL) + "# more\n" * 1000]
    plugin = people(texts[0])
    stop = asyncio.Event()

    def replace_once(number: int) -> None:
        replaced(file, texts[number % 2])

    async def keep_replacing() -> None:
        number = 0
        while not stop.is_set():
            await asyncio.to_thread(replace_once, number := number + 1)

    replacing = asyncio.create_task(keep_replacing())
    try:
        for _ in range(10):
            clock.forward(seconds=2)
            answers = await asyncio.gather(*(plugin.authenticate(EMAIL, HERS) for _ in range(100)))
            assert all(answers)
    finally:
        stop.set()
        await replacing


async def test_one_reads_for_a_crowd(people: Any, file: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred who come at once have the file looked at once, and all of them see the change."""
    plugin = people(line(EMAIL))
    replaced(file, line(EVE))
    clock.forward(seconds=2)
    asked: list[Path] = []
    stat = Path.stat
    monkeypatch.setattr(Path, "stat", lambda self, **how: (asked.append(self), stat(self, **how))[1])
    answers = await asyncio.gather(*(plugin.authenticate(EVE, HERS) for _ in range(100)))
    assert all(answers)
    assert asked.count(file) == 1


async def test_a_disk_that_hangs(people: Any, file: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where looking at the file takes long, sign-ins go on with what it said, and one thread waits at most."""
    plugin = people(line(EMAIL))
    asked: list[Path] = []
    released = threading.Event()
    stat = Path.stat

    def hang(self: Path, **how: Any) -> os.stat_result:
        asked.append(self)
        released.wait(20)
        return stat(self, **how)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", hang)
        for _ in range(2):
            clock.forward(seconds=10)
            answers = await asyncio.gather(*(plugin.authenticate(EMAIL, HERS) for _ in range(50)))
            assert all(answers)
        assert asked == [file]
        released.set()
        await plugin._looking


async def test_hashes_that_cost_something_else(
    people: Any, caplog: pytest.LogCaptureFixture, expected_logs: list[str]
) -> None:
    """Hashes whose time would tell who is in the file are warned of, without saying whose they are."""
    expected_logs.append("another cost")
    people(line(EMAIL) + line(EVE), profile="standard")
    [record] = caplog.records
    assert "hydracore static-file hash" in record.getMessage()
    assert record.__dict__["hashes"] == 2
    standard = load(environment={}).password
    like = f"$argon2id$v=19$m={standard.memory_kib},t={standard.time_cost},p={standard.parallelism}"
    people(f"{EMAIL}:{like}${HASH.split('$', 4)[4]}", profile="standard")
    assert len(caplog.records) == 1


# -- the whole server ------------------------------------------------------------------------------


async def opened(open_site: OpenSite, file: Path, text: str) -> Site:
    file.write_text(text)
    return await open_site(
        login={"authenticators": ["password", "static_file"]},
        plugins={"authenticator_static_file": {"file": str(file)}},
    )


async def test_signing_in(open_site: OpenSite, file: Path) -> None:
    """The first sign-in makes a verified account, the next ones are to the same, in whatever case."""
    site = await opened(open_site, file, line(EMAIL))
    first = tokens(await site.post("login", {"email": EMAIL, "password": HERS}))
    assert first["email_verified"] is True
    second = tokens(await site.post("login", {"email": "ADA@example.com", "password": HERS}))
    ids = {(await site.me(each["access_token"])).body for each in (first, second)}
    assert len(ids) == 1
    assert len(await site.hydra.services.store.users.page(None, 10)) == 1


async def test_a_crowd_makes_one_account(open_site: OpenSite, file: Path) -> None:
    """Of many first sign-ins at once each succeeds, and there is one account."""
    site = await opened(open_site, file, line(EMAIL))
    body = {"email": EMAIL, "password": HERS}
    for answer in await asyncio.gather(*(site.post("login", body) for _ in range(10))):
        tokens(answer)
    assert len(await site.hydra.services.store.users.page(None, 10)) == 1


async def test_wrong_is_wrong(open_site: OpenSite, file: Path) -> None:
    """A wrong password is answered as an address is that nobody has, before and after the account is made."""
    site = await opened(open_site, file, line(EMAIL))
    for _ in range(2):
        answers = [
            await site.post("login", {"email": who, "password": "wrong"}) for who in (EMAIL, "nobody@example.com")
        ]
        for answer in answers:
            refused(answer, 401, "invalid_credentials")
        assert answers[0].body == answers[1].body
        tokens(await site.post("login", {"email": EMAIL, "password": HERS}))
    refused(await site.post("login", {"email": EMAIL, "password": ""}), 422, "validation_failed")


async def test_no_reset_mail(open_site: OpenSite, file: Path) -> None:
    """Who asks for a reset of such an account is told the same as ever, and nothing is mailed."""
    site = await opened(open_site, file, line(EMAIL))
    tokens(await site.post("login", {"email": EMAIL, "password": HERS}))
    await site.verified("local@example.com")
    answers = [await site.post("forgot-password", {"email": who}) for who in (EMAIL, "local@example.com")]
    assert [answer.code for answer in answers] == [200, 200]
    assert answers[0].body == answers[1].body
    await site.box.reset_token("local@example.com")
    for _ in range(500):
        if not await site.hydra.services.store.outbox.list(10):
            break
        await asyncio.sleep(0.01)
    assert await site.hydra.services.store.outbox.list(10) == []
    assert {letter["To"] for letter in site.box.letters} == {"local@example.com"}


async def test_who_is_taken_out(open_site: OpenSite, file: Path) -> None:
    """A line that is gone refuses the next sign-in; the session that has begun goes on."""
    site = await opened(open_site, file, line(EMAIL) + line(EVE))
    first = tokens(await site.post("login", {"email": EMAIL, "password": HERS}))
    replaced(file, line(EVE))
    site.clock.forward(seconds=1)
    refused(await site.post("login", {"email": EMAIL, "password": HERS}), 401, "invalid_credentials")
    tokens(await site.post("login", {"email": EVE, "password": HERS}))
    tokens(await site.post("refresh", {"refresh_token": first["refresh_token"]}))


async def test_a_local_account_of_that_address(open_site: OpenSite, file: Path) -> None:
    """Who has a proven account with a password here has one account and both passwords."""
    site = await opened(open_site, file, line(EMAIL))
    local = await site.verified()
    seen = {(await site.me(local["access_token"])).body}
    for password in (PASSWORD, HERS, PASSWORD):
        granted = tokens(await site.post("login", {"email": EMAIL, "password": password}))
        seen.add((await site.me(granted["access_token"])).body)
    assert len(seen) == 1


async def test_a_stranger_who_was_first(open_site: OpenSite, file: Path) -> None:
    """An account that someone registered for the address without proving it is the owner's alone from then on."""
    site = await opened(open_site, file, line(EMAIL))
    stranger = await site.register()
    tokens(await site.post("login", {"email": EMAIL, "password": HERS}))
    refused(await site.post("login", {"email": EMAIL, "password": PASSWORD}), 401, "invalid_credentials")
    refused(await site.post("refresh", {"refresh_token": stranger["refresh_token"]}), 401, "invalid_refresh_token")


# -- the command -----------------------------------------------------------------------------------


@pytest.fixture
def run(io_loop: IOLoop, open_site: OpenSite, file: Path) -> Any:
    """Runs ``hydracore static-file hash`` in an open HydraCore, its coroutine function on the test's loop."""
    site = io_loop.run_sync(partial(opened, open_site, file, ""))
    command = site.hydra.registry.commands["static-file"].command.commands["hash"]

    def work(**options: Any) -> None:
        io_loop.run_sync(partial(command.callback, **options))

    driven = click.Command("hash", callback=work, params=command.params)

    def ran(*arguments: str, typed: str) -> Result:
        return CliRunner().invoke(driven, arguments, input=typed)

    ran.site = site  # type: ignore[attr-defined]
    return ran


@pytest.mark.parametrize("password", [HERS, "pa:ss$wo,rd", "gr\u00fc\u00dfe", "gru\u0308\u00dfe ", "#"])
def test_the_line_it_prints_signs_in(run: Any, io_loop: IOLoop, file: Path, password: str) -> None:
    """What is printed for a password from standard input, put into the file, signs in with it."""
    result = run("--password-stdin", EMAIL, typed=f"{password}\n")
    assert (result.exit_code, result.stderr) == (0, "")
    file.write_text(result.stdout)
    run.site.clock.forward(seconds=1)
    answer = io_loop.run_sync(partial(run.site.post, "login", {"email": EMAIL, "password": password}))
    tokens(answer)


def test_it_asks_twice(run: Any) -> None:
    """Without --password-stdin it asks, hides what is typed, and asks again until both are the same."""
    result = run("Ada@EXAMPLE.com", typed=f"one\nother\n{HERS}\n{HERS}\n")
    assert result.exit_code == 0
    [printed] = [each for each in result.stdout.splitlines() if "$argon2id$" in each]
    assert printed.startswith("Ada@example.com:$argon2id$")
    assert HERS not in result.output


@pytest.mark.parametrize(
    ("email", "typed"), [("ada", HERS), ("#ada@example.com", HERS), (EMAIL, ""), (EMAIL, "x" * 129), ("", HERS)]
)
def test_what_could_not_sign_in(run: Any, email: str, typed: str) -> None:
    """An address that is none, or would be a comment, and a password that no sign-in takes, are told."""
    result = run("--password-stdin", email, typed=f"{typed}\n")
    assert (result.exit_code, result.stdout) == (2, "")
    assert not typed or typed not in result.stderr
