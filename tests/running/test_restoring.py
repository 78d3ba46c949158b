"""Backup and restore, as docs/backup.md tells them."""

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from bson import BSON
from click.testing import CliRunner
from processes import LOGIN, PASSWORD, StartServer, command, own
from pymongo import MongoClient
from support import Site
from test_readme import prints, steps

from hydracore.cli.main import main
from hydracore.cli.output import Failed
from hydracore.cli.sessions import _revoke_all
from hydracore.errors import StoreUnavailable
from hydracore.flows.account import revoke_all_sessions
from hydracore.models import User

PAGE = Path(__file__).parent.parent.parent / "docs/backup.md"
Dump = dict[str, list[bytes]]


def dump(uri: str, name: str) -> Dump:
    """Every document, byte by byte, as mongodump keeps them."""
    with MongoClient(uri) as client:
        database = client[name]
        return {
            each: [BSON.encode(found) for found in database[each].find()] for each in database.list_collection_names()
        }


def restore(uri: str, name: str, dumped: Dump) -> None:
    with MongoClient(uri) as client:
        client.drop_database(name)
        for collection, documents in dumped.items():
            if documents:
                client[name][collection].insert_many([BSON(document).decode() for document in documents])


def test_an_older_backup(start: StartServer, tmp_path: Path, mongod_uri: str) -> None:
    """A backup brings back sessions that were ended and links that were used, and the commands that the page shows end
    them before a node starts, with every key of before; people sign in, with the password of then."""
    settings = own(mongod_uri, "restored")
    server = start(**settings)
    server.register()
    ada = server.post("verify-email", {"email": LOGIN["email"], "code": server.code()})[1]
    server.register("bob@example.com")
    assert server.post("forgot-password", {"email": LOGIN["email"]})[0] == 200
    found = re.search(r"#token=([\w-]{43})", "".join(server.letter(nth) for nth in (1, 2, 3)))
    assert found
    reset = {"token": found[1], "new_password": f"{PASSWORD} too"}
    dumped = dump(mongod_uri, "restored")
    assert server.post("reset-password", reset)[0] == 200
    assert server.me(ada) == 401
    assert server.stop() == 0

    restore(mongod_uri, "restored", dumped)
    again = start(**settings)
    assert again.me(ada) == 200  # This is what the page warns of.
    before = again.ask("GET", "/.well-known/jwks.json")[1]["keys"]
    assert again.stop() == 0

    restore(mongod_uri, "restored", dumped)
    [told] = re.findall(r"```console\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    for words, shown in steps(told):
        code, printed, _ = command(tmp_path, *shlex.split(words)[1:], **settings)
        assert code == 0
        assert prints(shown, printed), words
    last = start(**settings)
    assert last.me(ada) == 401
    assert last.post("refresh", {"refresh_token": ada["refresh_token"]})[0] == 401
    assert last.post("reset-password", reset)[0] == 400
    status, grant, _ = last.post("login", LOGIN)
    assert status == 200
    assert last.me(grant) == 200
    keys = last.ask("GET", "/.well-known/jwks.json")[1]["keys"]
    assert {key["kid"] for key in keys} - {key["kid"] for key in before}


def test_the_folder_of_the_embedded_database(start: StartServer, tmp_path: Path) -> None:
    """The data folder of a server that was stopped, copied to another place, is the whole of it."""
    server = start()
    ada = server.register()
    assert server.stop() == 0
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    shutil.rmtree(tmp_path / "one")
    other = start(folder="two")
    assert other.me(ada) == 200


async def crowd(site: Site, many: int) -> None:
    now = site.hydra.services.now()
    for number in range(many):
        email = f"u{number}@example.com"
        assert await site.hydra._store.users.add(User(f"u{number}", email, email, "", now))


async def epochs(site: Site) -> list[int]:
    return [user.epoch for user in await site.hydra._store.users.page(None, 1000)]


async def test_every_session_of_every_account(site: Site) -> None:
    """More accounts than are ended at a time are all ended; whoever goes on behind one ends the younger ones alone."""
    await crowd(site, 70)
    done = [user async for user in revoke_all_sessions(site.hydra.services)]
    assert len(done) == 70
    assert await epochs(site) == [1] * 70
    assert len([user async for user in revoke_all_sessions(site.hydra.services, done[49])]) == 20
    assert await epochs(site) == [1] * 50 + [2] * 20


async def test_interrupted(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the database goes away in the middle, the command says how to go on, and what it has done stays done."""
    await crowd(site, 70)
    page = site.hydra._store.users.page

    async def failing(after: User | None, limit: int) -> list[User]:
        if after is not None:
            raise StoreUnavailable
        return await page(after, limit)

    monkeypatch.setattr(site.hydra._store.users, "page", failing)
    with pytest.raises(Failed) as raised:
        await _revoke_all(site.hydra, None)
    monkeypatch.undo()
    done = [user for user in await page(None, 1000) if user.epoch]
    assert 0 < len(done) < 70
    assert str(raised.value.message) == (
        f"Ended every session of {len(done)} accounts, and then the database did not answer. "
        f"For the others: hydracore sessions revoke --all --after {done[-1].email}"
    )


@pytest.mark.parametrize(
    "words",
    [[], ["ada@example.com", "--all"], ["--after", "ada@example.com"], ["ada@example.com", "--after", "b@b.de"]],
)
def test_whose_sessions(words: list[str]) -> None:
    """One account, or all of them: nothing else is taken for either."""
    result: Any = CliRunner().invoke(main, ["sessions", "revoke", *words])
    assert result.exit_code == 2
    assert "Name one EMAIL, or say --all." in result.output


def test_everybody_is_asked_for() -> None:
    """Ending everybody's sessions asks first."""
    result = CliRunner().invoke(main, ["sessions", "revoke", "--all"], input="n\n")
    assert result.exit_code == 1
    assert "Everybody has to sign in again. Go on?" in result.output
