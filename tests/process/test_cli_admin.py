"""Tokens and the audit on the command line, and the admin listener of real processes."""

import json
import os
import pwd
import socket
from collections.abc import Callable
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from processes import PASSWORD, Server, StartServer, command, own

Run = Callable[..., tuple[int, str, str]]
EMAIL = "ada@example.com"


@pytest.fixture
def run(tmp_path: Path, mongod_uri: str) -> Run:
    """Runs ``hydracore …`` in the first server's folder: exit code, output, errors."""
    (tmp_path / "one").mkdir(exist_ok=True)
    return partial(command, tmp_path / "one", **own(mongod_uri, "cli_admin"))


def entries(run: Run, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("admin", "audit", "--json", *arguments)[1])
    return found


def make_token(run: Run, *arguments: str) -> str:
    code, printed, said = run("admin", "tokens", "create", "--name", "desk", *arguments)
    assert (code, printed[:5], len(printed)) == (0, "hca1.", 49), said
    assert " is good until 20" in said
    return printed.strip()


def asked(port: int, token: str, method: str = "GET", path: str = "/admin/users") -> tuple[int, Any]:
    connection = HTTPConnection("127.0.0.1", port, timeout=15)
    try:
        connection.request(method, path, headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None
    finally:
        connection.close()


def administered(start: StartServer, uri: str, **more: str) -> tuple[Server, int]:
    """A server of two workers, and the port of its admin listener."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return start("--workers", "2", **own(uri, "cli_admin", HYDRACORE_ADMIN__PORT=str(port), **more)), port


def test_commands_are_on_record(run: Run) -> None:
    """What each command did is on record as what tokens do, under the user that ran it; passwords are not."""
    create = ("users", "create", EMAIL, "--password-stdin")
    assert run(*create, stdin=f"{PASSWORD}\n")[0] == 0
    assert run(*create, stdin=f"{PASSWORD}\n")[0] == 1
    [user] = json.loads(run("users", "list", "--json")[1])
    for words, said in (
        ("users mark-verified", "Marked as verified: ada@example.com."),
        ("users disable", "Disabled ada@example.com."),
        ("users enable", "Enabled ada@example.com."),
        ("users force-reset", "Voided the password of ada@example.com."),
        ("sessions revoke", "Ended every session of ada@example.com."),
    ):
        assert run(*words.split(), EMAIL)[1] == f"{said}\n"
    run("users", "language", EMAIL, "de")
    run("users", "roles", EMAIL, "--add", "support")
    theirs = entries(run, "--user", EMAIL)
    run("users", "delete", EMAIL, "--yes")
    [mail, *_] = [each["id"] for each in json.loads(run("mail", "list", "--json")[1])]
    assert run("mail", "drop", mail)[1] == "Dropped 1.\n"
    assert run("mail", "drop", mail)[::2] == (1, "hydracore: No mail has this id, or it is being sent.\n")
    for words in ("mail retry x", "mail retry --all", "keys list", "keys rotate", "users export", "secret reseal"):
        run(*words.split())
    run("users", "import", "-", stdin=json.dumps({"email": EMAIL}))
    wanted = [
        *("users.create:done", "users.create:email_taken", "users.list:done", "users.mark_verified:done"),
        *("users.disable:done", "users.enable:done", "users.force_reset:done", "sessions.end_all:done"),
        *("users.language:done", "users.roles:validation_failed", "audit.list:done", "users.delete:done"),
        *("mail.list:done", "mail.drop:done", "mail.drop:not_found", "mail.retry:not_found", "mail.retry_dead:done"),
        *("keys.list:done", "keys.rotate:done", "users.export:done", "secret.reseal:done", "users.import:done"),
    ]
    found = entries(run)[: len(wanted)]
    assert [f"{entry['action']}:{entry['outcome']}" for entry in reversed(found)] == wanted
    name = pwd.getpwuid(os.getuid()).pw_name
    assert {tuple(entry["actor"].values()) for entry in found} == {("cli", str(os.getuid()), name)}
    assert {entry["user_id"] for entry in theirs} == {user["id"]}
    assert len(theirs) == 8
    assert found[0]["details"] == {"origin": "ours", "dry_run": False, "imported": 1}
    assert PASSWORD not in json.dumps(found)
    table = run("admin", "audit", "--limit", "2")[1].splitlines()
    assert table[0].split() == ["at", "action", "outcome", "who", "user", "details"]
    assert table[1].split()[1:5] == ["audit.list", "done", "cli", name]


def test_tokens(run: Run, start: StartServer, mongod_uri: str) -> None:
    """A token that the command line made opens the running server's Admin API, on every worker, with its scopes; it is
    listed, and once it is revoked it opens nothing. The public listener has nothing of that, nor has the admin one of
    the public calls."""
    server, port = administered(start, mongod_uri)
    assert server.lines("administering")[0]["addresses"] == [f"http://127.0.0.1:{port}"]
    token = make_token(run, "--scope", "users:read", "--scope", "keys:read", "--expires", "12h")
    for _ in range(20):
        assert asked(port, token)[0] == 200
    assert asked(port, token, "POST", "/admin/mail/retry")[1]["code"] == "missing_scope"
    assert server.ask("GET", "/admin/users", Authorization=f"Bearer {token}")[0] == 404
    for path in ("/auth/me", "/metrics", "/health/ready", "/docs", "/"):
        assert asked(port, token, path=path)[0] == 404, path
    row, *_ = json.loads(run("admin", "tokens", "list", "--json")[1])
    assert (row["name"], row["state"], row["scopes"]) == ("desk", "active", ["keys:read", "users:read"])
    assert row["last_used_at"]
    table = run("admin", "tokens", "list")[1]
    assert "keys:read users:read" in table
    assert token not in table
    assert run("admin", "tokens", "revoke", row["id"])[1] == f"Revoked {row['id']} (desk).\n"
    for _ in range(20):
        assert asked(port, token)[0] == 401
    assert run("admin", "tokens", "revoke", row["id"])[0] == 1
    assert token not in server.log.read_text()
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--scope", "users:read", "--expires", "0d"), "write 90m, 12h or 30d"),
        (("--scope", "users:read", "--expires", "367d"), "366d at most"),
        (("--scope", "users:read", "--expires", "1y"), "write 90m, 12h or 30d"),
        (("--scope", "users:*"), "'users:*' is not one of"),
        ((), "Missing option '--scope'"),
    ],
)
def test_tokens_that_are_not_made(run: Run, arguments: tuple[str, ...], said: str) -> None:
    """A token without an end, beyond the longest life, or without a scope that there is, is not made; why is said."""
    code, printed, told = run("admin", "tokens", "create", "--name", "x", *arguments)
    assert (code, printed) == (2, "")
    assert said in " ".join(told.split())


def test_names(run: Run) -> None:
    """A token has a name, and one that a terminal may be shown."""
    for name in ("", "\x1b[31m", "n" * 101):
        assert run("admin", "tokens", "create", "--name", name, "--scope", "users:read")[0] == 1


def test_port_taken(start: StartServer) -> None:
    """An admin port on which another listens stops the start before anything has begun, by the key's name; so does an
    address that is not this machine's own."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = start(wait=False, HYDRACORE_ADMIN__PORT=str(port))
        assert server.process.wait(60) == 2
    assert "another admin.host or admin.port" in server.log.read_text()
    other = start(wait=False, folder="two", HYDRACORE_ADMIN__PORT="1", HYDRACORE_ADMIN__HOST="10.0.0.7")
    assert other.process.wait(60) == 2
    [line] = other.log.read_text().splitlines()
    assert line.startswith("hydracore: The configuration is wrong.")
    assert "admin.host: 10.0.0.7 is not this machine's own" in line
    assert not (other.folder / "hydracore-data").exists()
