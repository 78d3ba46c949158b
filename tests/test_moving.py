"""Accounts in and out: our own lines, others' exports, and the commands."""

import asyncio
import errno
import io
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from importing import BCRYPT, IMPORTED_PASSWORD, imported
from processes import own
from receivers import until
from support import PASSWORD, OpenSite, Site, refused, tokens

from hydracore.cli import main
from hydracore.cli.moving import _bar
from hydracore.errors import HashingOverloaded, StoreUnavailable
from hydracore.flows import importing
from hydracore.flows.roles import change_roles
from hydracore.moving.formats import LONGEST_LINE, NotReadable, any_of_them, csv_rows, document, json_lines
from hydracore.moving.lines import line_of
from hydracore.moving.sources import NAMES, HashConfig, mapped, sources
from hydracore.plugin import ProfileMember, hookimpl

SAMPLES = Path(__file__).parent / "samples"
ADA = {"email": "ada@example.com", "password_hash": BCRYPT}
WEAK = "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"


class Team:
    def __init__(self, context: Any) -> None: ...

    @hookimpl
    def hydracore_register_profile_members(self) -> list[ProfileMember]:
        return [ProfileMember("team", {"type": "string", "maxLength": 10}, required=True)]


async def everything(site: Site) -> list[str]:
    return [line_of(user) for user in await site.hydra.services.store.users.page(None, 100)]


async def test_a_round_trip(open_site: OpenSite, expected_logs: list[str]) -> None:
    """What is exported, with passwords of here and of elsewhere, former addresses, a closing, a profile, a language and
    roles, comes back from an empty database byte for byte, and the tokens that were mailed before still do what
    they said."""
    site = await open_site(extra={"team": Team}, roles={"known": ["admin", "support"]})
    body = {"email": "ada@example.com", "password": PASSWORD, "team": "engines"}
    grant = tokens(await site.post("register", body), 201)
    grant = tokens(
        await site.post("verify-email", {"email": body["email"], "code": await site.box.code(body["email"])})
    )
    held = {"Authorization": f"Bearer {grant['access_token']}"}
    await site.post("change-email", {"password": PASSWORD, "email": "countess@example.com"}, **held)
    code = await site.box.change_code("countess@example.com")
    tokens(await site.post("confirm-email", {"code": code}, **held))
    undo = await site.box.undo_token("ada@example.com")
    grant = tokens(await site.post("register", {"email": "eve@example.com", "password": PASSWORD, "team": "x"}), 201)
    grant = tokens(
        await site.post("verify-email", {"email": "eve@example.com", "code": await site.box.code("eve@example.com")})
    )
    await site.hydra.services.store.users.set_language(
        (await site.hydra.services.store.users.by_address("countess@example.com")).id,
        "de-at,de",  # type: ignore[union-attr]
    )
    eve = await site.hydra.services.store.users.by_address("eve@example.com")
    assert eve
    await change_roles(site.hydra.services, eve.id, add=["support", "admin"])
    close = {"body": {"password": PASSWORD}, "Authorization": f"Bearer {grant['access_token']}"}
    assert (await site.ask("DELETE", "/auth/me", **close)).code == 200
    reopen = await site.box.undo_token("eve@example.com", about="account is closed")
    report, told = await imported(
        site,
        {**ADA, "email": "bob@example.com", "email_verified": True},
        {"email": "cy@example.com", "authenticator": "directory", "profile": {"desk": 7}, "roles": ["old", "admin"]},
    )
    assert (report.imported, told, report.unknown_roles) == (2, [], {"old": 1})
    exported = await everything(site)
    assert len(exported) == 4
    given = {line["email"]: line["roles"] for line in map(json.loads, exported) if "roles" in line}
    assert given == {"eve@example.com": ["admin", "support"], "cy@example.com": ["admin", "old"]}
    users = site.hydra.services.store.users
    await users._users._collection.delete_many({})
    report, told = await imported(site, *map(json.loads, exported))
    assert (report.imported, told) == (4, [])
    assert await everything(site) == exported
    assert (report.passwords["argon2id, kept"], report.passwords["bcrypt, wrapped already"]) == (2, 1)
    report, told = await imported(site, *map(json.loads, exported))
    assert (report.imported, report.there, report.differing, told) == (0, 4, 0, [])
    tokens(await site.post("login", {"email": "bob@example.com", "password": IMPORTED_PASSWORD}))
    tokens(await site.post("login", {"email": "countess@example.com", "password": PASSWORD}))
    assert (await site.post("undo-deletion", {"token": reopen})).code == 200
    taken = await site.post("register", {"email": "ada@example.com", "password": PASSWORD, "team": "x"})
    refused(taken, 409, "email_taken")
    expected_logs.append("EmailChangeUndone")
    assert (await site.post("undo-email-change", {"token": undo})).code == 200


PROBLEMS: dict[str, tuple[Any, str]] = {
    "no object": ([], "This should be an object."),
    "no address": ({}, "email: This is required."),
    "a bad address": ({"email": "ada@"}, "email: There must be something after the @-sign."),
    "another type": ({**ADA, "email_verified": "yes"}, "email_verified: This should be true or false."),
    "a typing error": ({**ADA, "emial_verified": True}, "emial_verified: There is no such member."),
    "a role": ({**ADA, "roles": ["Admin!"]}, "roles.0: This has characters or a form that are not accepted."),
    "too many roles": (
        {**ADA, "roles": [f"r{each}" for each in range(33)]},
        "roles: This should have at most 32 items.",
    ),
    "no time": ({**ADA, "created_at": "yesterday"}, "created_at: This is no time: write 2026-11-27T22:20:00+00:00."),
    "no zone": (
        {**ADA, "created_at": "2024-05-01"},
        "created_at: This time has no zone: write 2026-11-27T22:20:00+00:00.",
    ),
    "an id": ({**ADA, "id": "a b"}, "id: This has characters or a form that are not accepted."),
    "a language": ({**ADA, "language": "Deutsch!"}, "language: This has characters or a form that are not accepted."),
    "a hash": ({**ADA, "password_hash": "5f4dcc3b"}, "password_hash: This is no hash of a kind that is known."),
    "half a hash": (
        {**ADA, "password_hash": "$wrapped$bcrypt$5"},
        "password_hash: This is no wrapped hash, or not whole.",
    ),
    "a hash with an authenticator": (
        {**ADA, "authenticator": "directory"},
        "password_hash: An authenticator's account has none.",
    ),
    "a member that nobody registers": ({**ADA, "profile": {"desk": 7}}, "profile.desk: There is no such member."),
    "a member that a plugin refuses": ({**ADA, "profile": {"team": 7}}, "profile.team: This should be a string."),
    "a profile that cannot be kept": (
        {"email": "a@example.com", "authenticator": "x", "profile": {"$where": 1}},
        "profile: This holds what cannot be kept.",
    ),
    "half a closing": ({**ADA, "closing": {"nonce": "n", "digest": "d"}}, "closing.ends_at: This is required."),
    "a former address": (
        {**ADA, "former_addresses": [{"email": "x", "nonce": "n", "digest": "d", "expires_at": "2026-11-27"}]},
        "former_addresses.0.email: An email address must have an @-sign.",
    ),
}


async def test_problems(open_site: OpenSite) -> None:
    """Each line that is wrong is told with its place and its members, and nothing of it is written; a line beside it
    is."""
    site = await open_site(extra={"team": Team})
    lines = [line for line, _ in PROBLEMS.values()]
    report, told = await imported(site, *lines, {**ADA, "profile": {"team": "engines"}})
    assert told == [f"line {number}: {said}" for number, (_, said) in enumerate(PROBLEMS.values(), 1)]
    assert (report.read, report.imported, report.refused, report.whole) == (len(lines) + 1, 1, len(lines), False)
    assert len(await everything(site)) == 1


async def test_what_is_there_already(site: Site) -> None:
    """A line whose account is there is counted, and told if it differs; a second line of one address, an id of another
    account, and an address that is kept for another are refused. Nothing that is there is changed."""
    line = {**ADA, "id": "1", "email_verified": True, "created_at": "2024-05-01T12:00:00.1234+00:00"}
    await imported(site, line, {"email": "bob@example.com", "id": "2"})
    before = await everything(site)
    report, told = await imported(
        site,
        line,
        {**line, "email": "ADA@example.com", "id": "9"},
        {"email": "bob@example.com", "language": "de", "password_hash": BCRYPT},
        {"email": "cy@example.com", "id": "1"},
    )
    assert told == [
        "line 2: address: It is that of line 1.",
        "line 4: id: It is that of line 1.",
        "line 3: The account is there, and differs in language, password_hash. It is left as it is.",
    ]
    report, told = await imported(site, {"email": "ada@example.com", "id": "1"})  # Which says nothing of a password.
    assert (report.there, told) == (1, [])
    report, told = await imported(site, {"email": "cy@example.com", "id": "1"})
    assert told == ["line 1: id: Another account has it."]
    other = {**line, "email": "Ada@Example.com", "password_hash": BCRYPT.replace("CCCCCC.", "CCCCCe.")}
    report, told = await imported(site, other)
    assert told == ["line 1: The account is there, and differs in email, password_hash. It is left as it is."]
    assert (report.imported, report.there, report.differing) == (0, 1, 1)
    assert await everything(site) == before
    tokens(await site.post("login", {"email": "ada@example.com", "password": IMPORTED_PASSWORD}))
    report, told = await imported(site, line)  # Hashed anew by now.
    assert (report.there, told) == (1, [])


async def test_an_address_that_is_kept(site: Site) -> None:
    """Nobody is imported who has an address that another account had until lately."""
    former = {"email": "old@example.com", "nonce": "n", "digest": "d", "expires_at": "2999-01-01T00:00:00Z"}
    await imported(site, {**ADA, "former_addresses": [former]})
    _, told = await imported(site, {"email": "OLD@example.com"})
    assert told == ["line 1: email: An address of it is kept for another account."]


async def test_a_dry_run(site: Site) -> None:
    """It says what a run would, and changes nothing."""
    lines = [ADA, ADA, {"email": "x"}, {"email": "bob@example.com", "password_hash": WEAK}]
    dry, told = await imported(site, *lines, dry=True)
    assert await everything(site) == []
    assert (await imported(site, *lines)) == (dry, told)
    assert (dry.imported, dry.refused) == (2, 2)
    assert dry.passwords == {"bcrypt": 1, "argon2": 1}


async def test_two_runs_at_once(site: Site) -> None:
    """Of four runs of one file at once, each account is one's, and the others find it there."""
    lines = [{**ADA, "email": f"u{number}@example.com"} for number in range(40)]
    runs = await asyncio.gather(*(imported(site, *lines) for _ in range(4)))
    assert sum(report.imported for report, _ in runs) == 40
    assert all(report.imported + report.there == 40 for report, _ in runs)
    assert [told for _, told in runs] == [[]] * 4
    assert len(await everything(site)) == 40


@pytest.mark.parametrize("driver", ["memory", "motor"])
async def test_other_drivers(open_site: OpenSite, driver: str) -> None:
    """The other drivers tell as well which accounts were there."""
    site = await open_site(driver=driver)
    await imported(site, ADA)
    store = site.hydra.services.store.users
    [there] = await store.page(None, 10)
    other = [
        user for name in "bc" for user in [type(there)(name, f"{name}@x.org", f"{name}@x.org", "", there.created_at)]
    ]
    assert await store.add_all([other[0], there, other[1]]) == [there]
    report, told = await imported(site, ADA, {"email": "d@example.com"})
    assert (report.imported, report.there, told) == (1, 1, [])
    assert await store.works() == ["bcrypt:32"]


async def test_a_busy_machine(open_site: OpenSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no queue before the hashing threads, and sign-ins have them all, an import waits for its turn."""
    monkeypatch.setattr(importing, "_PAUSE", 0.01)
    site = await open_site(password={"hash_threads": 1, "hash_queue": 0})
    passwords = site.hydra.services.passwords
    with passwords.room():
        waiting = asyncio.ensure_future(imported(site, ADA, {**ADA, "email": "bob@example.com"}))
        await until(lambda: passwords.refused > 1)
    report, told = await waiting
    assert (report.imported, told) == (2, [])


HASH_CONFIG = HashConfig.parse((SAMPLES / "firebase-hash-config.txt").read_text())
PASSWORDS = {
    "supabase": IMPORTED_PASSWORD,
    "auth0": IMPORTED_PASSWORD,
    "firebase": "user1password",
    "keycloak": "lètmein",
    "django": "lètmein",
    "fastapi-users": "password",
}
IDS = {
    "supabase": "6f1c2a52-9f0e-4ad1-8d52-0c1f3e1b7a01",
    "auth0": "auth0|60425dc43519d90068f82973",
    "firebase": "zk1",
    "keycloak": "1a0f7f43-5c0b-4d3f-9f5c-8a8f0f1f0001",
    "django": "1",
    "fastapi-users": "6f1c2a52-9f0e-4ad1-8d52-0c1f3e1b7a01",
}


def sample(name: str) -> Path:
    [found] = SAMPLES.glob(f"{name}.*")
    return found


@pytest.mark.parametrize("name", NAMES)
async def test_exports_of_others(open_site: OpenSite, name: str) -> None:
    """Of each export, Ada comes with her id, her proven address, and the password that she has; Bob, who is shut out
    and has none, comes too; what is no account, or deleted, does not. The profile has what plugins have members for."""
    site = await open_site(extra={"team": Team})
    services = site.hydra.services
    source = sources(services.now, HASH_CONFIG)[name]
    told: list[str] = []
    with sample(name).open("rb") as file, importing.Import(services, told.append, dry=False) as run:
        lines = list(mapped(source.read(file), source, services.registry.members, verified=False))
        await run.take(lines)
    assert told == []
    assert (run.report.imported, run.report.whole) == (2, True)
    assert run.report.no_accounts == (1 if name in ("supabase", "keycloak", "django") else 0)
    ada = await services.store.users.by_address("ada@example.com")
    bob = await services.store.users.by_address("bob@example.com")
    assert ada
    assert bob
    assert ada.id == IDS[name]
    assert (ada.disabled, bob.disabled, bob.password_hash) == (False, True, "")
    assert ada.email_verified == (name != "django")  # Its users have no such field.
    if name not in ("auth0", "fastapi-users"):  # These do not say when.
        assert ada.created_at.isoformat().startswith("2024-05-01T12:00:00")
    by_name = {"auth0": bob, "supabase": ada, "keycloak": ada, "fastapi-users": ada}
    if name in by_name:
        assert by_name[name].profile == {"team": "engines"}
    left = {
        "supabase": {"avatar_url": 1},
        "firebase": {"display_name": 1},
        "keycloak": {"first_name": 1, "username": 2},
    }
    assert run.report.left_out == left.get(name, {"username": 2, "first_name": 1} if name == "django" else {})
    tokens(await site.post("login", {"email": "ada@example.com", "password": PASSWORDS[name]}))


def test_records_that_are_wrong(tmp_path: Path) -> None:
    """What is not as an export has it is told by its place, without a word of what it holds; addresses that an operator
    knows are proven are taken so."""
    rows: dict[str, list[Mapping[str, Any]]] = {
        "supabase": [{"email": "x", "raw_user_meta_data": "{secret"}, {"email": "x", "created_at": "secret"}],
        "auth0": [{"email": "x", "email_verified": "secret"}],
        "firebase": [{"email": "x", "createdAt": "secret"}, {"email": "x", "createdAt": 10**40}],
        "keycloak": [{"credentials": [{"type": "password", "secretData": "secret"}]}, {"credentials": "secret"}],
        "django": [{"fields": {"password": "x", "date_joined": "secret"}}],
    }
    from hydracore.moving.formats import Record

    for name, wrong in rows.items():
        source = sources(lambda: HASH_CONFIG)[name]  # type: ignore[arg-type, return-value]
        for each in mapped((Record("line 7", row) for row in wrong), source, {}, verified=False):
            assert each.problem
            assert each.place == "line 7"
            assert "secret" not in each.problem
    firebase = sources(lambda: HASH_CONFIG)["firebase"]  # type: ignore[arg-type, return-value]
    [no_key] = mapped(iter([Record("line 1", {"passwordHash": "AAAA"})]), firebase, {}, verified=False)
    assert no_key.problem == "passwordHash: it takes the project's parameters to verify this: --hash-config FILE."
    supabase = sources(lambda: HASH_CONFIG)["supabase"]  # type: ignore[arg-type, return-value]
    for nothing in ("", "null", None, {}):
        rows_of = iter([Record("line 1", {"email": "x", "raw_user_meta_data": nothing})])
        [bare] = mapped(rows_of, supabase, {}, verified=False)
        assert bare.line
        assert not bare.problem
    [proven] = mapped(iter([Record("line 1", {"email": "x"})]), firebase, {}, verified=True)
    assert proven.line == {"email": "x", "email_verified": True, "disabled": False}


class Dripping(io.RawIOBase):
    """A file that gives so many bytes at a time, and says the most that it was asked for at once."""

    def __init__(self, content: bytes, at_a_time: int) -> None:
        self._rest = content
        self._at_a_time = at_a_time

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._rest[: min(self._at_a_time, len(buffer))]
        self._rest = self._rest[len(piece) :]
        buffer[: len(piece)] = piece
        return len(piece)

    @property
    def left(self) -> int:
        return len(self._rest)


def test_documents_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a document is cut, its entries are the same; and the first are there before the last are read."""
    wanted = [{"é": 'a"b,]}'}, 1234, -5.5e3, "\u2028", [[]], {}, None, True]
    text = json.dumps({"before": [1, {"users": []}], "users": wanted, "after": 7}, ensure_ascii=False).encode()
    for piece in range(1, len(text) + 1):
        monkeypatch.setattr("hydracore.moving.documents._PIECE", piece)
        file = io.BytesIO(text)
        assert [record.value for record in document("users")(file)] == wanted  # type: ignore[arg-type]
    monkeypatch.setattr("hydracore.moving.documents._PIECE", 1 << 16)
    many = Dripping(json.dumps([{"email": "ada@example.com"}] * 100_000).encode(), 1 << 16)
    records = any_of_them(io.BufferedReader(many))
    assert next(records).value == {"email": "ada@example.com"}
    assert many.left > 2_000_000
    assert sum(1 for _ in records) == 99_999


def test_formats(tmp_path: Path) -> None:
    """JSON lines, CSV and lists are told apart; a byte order mark and empty lines do no harm; what is broken is told by
    its line, and a file that is no such thing is not read to its end."""
    file = tmp_path / "file"

    def read(content: bytes, of: Any = any_of_them) -> list[Any]:
        file.write_bytes(content)
        with file.open("rb") as opened:
            return [each.problem or each.value for each in of(opened)]

    assert read(b'\xef\xbb\xbf{"a": 1}\r\n\n {"a": 2}') == [{"a": 1}, {"a": 2}]
    assert read(b'\xef\xbb\xbfa,b\r\n1,"x\ny"\r\n') == [{"a": "1", "b": "x\ny"}]
    assert read(b'a,b\n1,"' + b"x" * 500_000 + b'"\n') == [{"a": "1", "b": "x" * 500_000}]
    assert read(b' [{"a": 1}]') == [{"a": 1}]
    assert read(b'{"users": [{"a": 1}]}', document("users")) == [{"a": 1}]
    assert read(b'\xef\xbb\xbf{"a": {"users": [1]}, "b": [2], "users": [3, 4], "c": 5} ', document("users")) == [3, 4]
    assert read(b"[ ]\n") == read(b'{"users": []}', document("users")) == []
    assert read(b"a,b\n1\n1,2,3\n") == ["It has not as many columns as the first line."] * 2
    assert read(b'{"a": 1}\n{"a": 1, "a": 2}\n', json_lines)[1] == "This is not valid JSON. A member is there twice."
    for content, of, said in (
        (b"a,b\n\xff,1\n", csv_rows, "is no CSV in UTF-8"),
        (b"a,b\n" + b"1," * LONGEST_LINE, csv_rows, "line 2 is no CSV"),
        (b'a,b\n1,"' + b"x\n" * LONGEST_LINE, csv_rows, "is no CSV in UTF-8"),
        (b'{"a": "' + b"x" * LONGEST_LINE + b'"}', json_lines, "line 1 is longer"),
        (b'{"a": [1]}', document("users"), "it has no list users"),
        (b"[1", any_of_them, "it is not valid JSON behind entry 1. It ends too early: , is missing"),
        (b"[1 2]", any_of_them, "behind entry 1. , is missing"),
        (b"[1,]", any_of_them, "A comma has nothing behind it"),
        (b"[1] 2", any_of_them, "behind entry 1. It goes on behind its end"),
        (b"[1, \xff]", any_of_them, "The text is not valid UTF-8"),
        (b'[1, "\\ud800"]', any_of_them, "The text is not valid UTF-8"),
        (b"[1, NaN]", any_of_them, "NaN and Infinity are not JSON"),
        (b"[" + b"9" * 5000 + b"]", any_of_them, "a number that is too long"),
        (b"[" * 100_000, any_of_them, "It is nested too deeply"),
        (b'["' + b"x" * LONGEST_LINE + b'"]', any_of_them, "Something in it is longer than"),
        (b'{"users": [1], "users": [2]}', document("users"), "A member is there twice"),
        (b'{"users": {"a": 1}}', document("users"), "it has no list users"),
        (b'{"users" [1]}', document("users"), ": is missing"),
        (b"{1: 2}", document("users"), "A member has no name"),
        (b'{"users": [1]', document("users"), "It ends too early"),
        (b"[" + b'"x" ' * LONGEST_LINE, any_of_them, "behind entry 1. , is missing"),
        (b"[tru" + b"e" * LONGEST_LINE, any_of_them, "behind entry 1. , is missing"),
        (b"realm", document("users"), "it is not valid JSON. Expecting value"),
    ):
        with pytest.raises(NotReadable, match=said):
            read(content, of)
    for text, said in (("algorithm: BCRYPT", "and not Firebase's"), ("rounds: 8", "There have to be")):
        with pytest.raises(ValueError, match=said):
            HashConfig.parse(text)


@pytest.fixture
def run(tmp_path: Path, mongod_uri: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """The command line in this process, over a database of the test's own."""
    monkeypatch.chdir(tmp_path)
    for name, value in own(mongod_uri, request.node.name, HYDRACORE_PASSWORD__PROFILE="testing").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("hydracore.cli.data.configure", lambda *how: None)  # The logs of this process are the tests'.

    def invoked(*arguments: str) -> Result:
        result = CliRunner().invoke(main, ["users", *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return invoked


def test_the_commands(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accounts go in, a batch at a time, with a report and an exit code that says whether all are there; they come out
    into a file for its owner alone, and never into one that is there; and go in again."""
    monkeypatch.setattr("hydracore.cli.moving.BATCH", 2)
    monkeypatch.setattr("hydracore.cli.moving._PAGE", 2)
    lines = [{**ADA, "email": f"u{number}@example.com"} for number in range(5)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"email": "x"}]))
    dry = run("import", "in.jsonl", "--dry-run")
    report = "read 6 would be imported 5 there already 0 of these differ 0 refused 1 password hashes bcrypt 5"
    assert " ".join(dry.stdout.split()) == report
    assert dry.stderr == "line 6: email: An email address must have an @-sign.\n"
    assert dry.exit_code == 1
    assert json.loads(run("list", "--json").stdout) == []
    done = run("import", "in.jsonl", "--json")
    assert (done.exit_code, json.loads(done.stdout)["imported"]) == (1, 5)
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    again = run("import", "in.jsonl", "--json")
    assert (again.exit_code, json.loads(again.stdout)["there"]) == (0, 5)
    out = run("export", "out.jsonl")
    assert (out.exit_code, out.stdout, out.stderr) == (0, "", "Exported 5.\n")
    assert stat.S_IMODE((tmp_path / "out.jsonl").stat().st_mode) == 0o600
    assert run("export").stdout == (tmp_path / "out.jsonl").read_text()
    assert run("import", "out.jsonl").exit_code == 0
    there = run("export", "out.jsonl")
    assert (there.exit_code, there.stderr) == (1, "hydracore: out.jsonl cannot be written: File exists.\n")


def test_dear_hashes(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator is told, by a dry run already, where the hashes of a file make every sign-in slow, or impossible; not
    where nobody is to pay for them."""
    asked: list[set[str]] = []

    def dear(seconds: float) -> Any:
        return lambda works, enough: asked.append(set(works)) or seconds

    (tmp_path / "in.jsonl").write_text(json.dumps(ADA))
    for seconds, said in ((1.2, ""), (1.5, "takes 1.5 s longer"), (6, "takes longer than password.hash_timeout")):
        monkeypatch.setattr("hydracore.flows.importing.price", dear(seconds))
        told = run("import", "in.jsonl", "--dry-run").stderr
        assert said in told
        assert bool(told) == bool(said)
    assert asked == [{"bcrypt:32"}] * 3
    monkeypatch.setenv("HYDRACORE_PASSWORD__EQUALISE", "false")
    assert run("import", "in.jsonl", "--dry-run").stderr == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal it is seen how far an import is; elsewhere nothing is printed for that."""
    (tmp_path / "file").write_bytes(b"0123456789")
    for terminal, seen in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr("sys.stderr", terminal)
        with (tmp_path / "file").open("rb") as file, _bar(file) as bar:
            bar.update(5)
            bar.update(5)
        assert ("100%" in terminal.getvalue()) == seen
        assert bool(terminal.getvalue()) == seen


def test_commands_that_cannot(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is not what it is said to be, parameters that are none, and a database that goes away end with a
    sentence; half an export is not left behind."""
    (tmp_path / "in.json").write_text('{"realm": "acme"}')
    broken = run("import", "in.json", "--from", "keycloak")
    assert (broken.exit_code, broken.stderr) == (1, "hydracore: in.json: it has no list users.\n")
    (tmp_path / "half.json").write_text(json.dumps([{"email": "eve@example.com"}, {"email": "bob@example.com"}])[:-4])
    half = run("import", "half.json", "--from", "fastapi-users")
    assert half.exit_code == 1
    assert half.stderr.startswith("hydracore: half.json: it is not valid JSON behind entry 1. ")
    assert half.stderr.endswith(" Before that: 1 imported.\n")
    assert [user["email"] for user in json.loads(run("list", "--json").stdout)] == ["eve@example.com"]
    (tmp_path / "config").write_text("rounds: 8")
    assert "There have to be base64" in run("import", "in.json", "--from", "firebase", "--hash-config", "config").stderr
    assert run("import", "nowhere.jsonl").exit_code == 2

    async def away(*given: Any) -> None:
        raise StoreUnavailable

    async def busy(*given: Any) -> None:
        raise HashingOverloaded

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "in.jsonl").write_text(json.dumps(ADA))
    said = "hydracore: {} All before line 1 is done: run the import again.\n"
    with monkeypatch.context() as patch:
        patch.setattr("hydracore.flows.importing._TRIES", 1)
        patch.setattr("hydracore.passwords.Passwords.wrap", busy)
        assert run("import", "in.jsonl").stderr == said.format("No hash is made within password.hash_timeout.")
    with monkeypatch.context() as patch:
        patch.setattr("hydracore.cli.moving.os.fsync", full)
        left = "hydracore: out.jsonl cannot be written: No space left on device.\n"
        assert run("export", "out.jsonl").stderr.endswith(left)
    monkeypatch.setattr("hydracore.store.users.Users.taking", away)
    assert run("import", "in.jsonl").stderr == said.format("The database does not answer.")
    monkeypatch.setattr("hydracore.store.users.Users.page", away)
    assert run("export", "out.jsonl").exit_code == 1
    assert not list(tmp_path.glob("out.jsonl*"))
