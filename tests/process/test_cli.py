"""The command line, beside a running server, alone, and over a database of one's own."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from processes import LOGIN, PASSWORD, StartServer, command, own, until

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, mongod_uri: str) -> Run:
    """Runs ``hydracore …`` in the first server's folder: exit code, output, errors."""
    (tmp_path / "one").mkdir(exist_ok=True)
    return partial(command, tmp_path / "one")


def story(run: Run, **environment: str) -> None:
    """Every data command, one after the other."""
    create = ("users", "create", "ada@example.com", "--password-stdin", "--language", "de-AT,de")
    assert run(*create, stdin=f"{PASSWORD}\n", **environment)[0] == 0
    code, _, said = run("users", "create", "ADA@example.com", "--password-stdin", stdin=f"{PASSWORD}\n", **environment)
    assert (code, said) == (1, "hydracore: The address ADA@example.com has an account already.\n")
    [user] = json.loads(run("users", "list", "--json", **environment)[1])
    assert (user["email"], user["verified"], user["disabled"]) == ("ada@example.com", False, False)
    assert user["language"] == "de-at,de"
    assert run("users", "disable", "Ada@Example.com", **environment)[1] == "Disabled ada@example.com.\n"
    assert "yes" in run("users", "list", **environment)[1]
    assert run("users", "enable", "ada@example.com", **environment)[0] == 0
    assert run("sessions", "revoke", "ada@example.com", **environment)[0] == 0
    known = {**environment, "HYDRACORE_ROLES__KNOWN": '["admin", "support"]'}
    roles = ("users", "roles", "ADA@example.com")
    given = run(*roles, "--add", "admin", "--add", "support", **known)
    assert given == (*(0, "ada@example.com: admin, support\nThey count once the address is proven.\n", ""),)
    assert run(*roles, "--remove", "support", "--add", "sport", **known) == (
        *(1, "", "hydracore: The role sport is not in roles.known; did you mean support?\n"),
    )
    assert run(*roles, "--remove", "support", **known)[1].startswith("ada@example.com: admin\n")
    [admin] = json.loads(run("users", "list", "--role", "admin", "--json", **environment)[1])
    assert admin["roles"] == ["admin"]
    assert run("users", "list", "--role", "support", **environment)[1] == ""
    assert "(not in roles.known: it counts for nothing)" in run(*roles, **environment)[1]
    assert run(*roles, "--remove", "admin", **environment) == (0, "ada@example.com: no roles\n", "")
    assert run("users", "delete", "ada@example.com", stdin="n\n", **environment)[0] == 1
    assert run("users", "delete", "ada@example.com", "--yes", **environment)[0] == 0
    assert run("users", "list", **environment)[1] == ""
    assert run("users", "disable", "nobody@example.com", **environment)[2] == (
        "hydracore: No account has the address nobody@example.com.\n"
    )
    assert "Published" in run("keys", "rotate", **environment)[1]
    keys = json.loads(run("keys", "list", "--json", **environment)[1])
    assert [key["state"] for key in keys][-2:] == ["active", "next"]
    assert "when every key of before ends" in run("keys", "rotate", "--emergency", **environment)[1]
    keys = json.loads(run("keys", "list", "--json", **environment)[1])
    assert {bool(key["expires"]) for key in keys[:-1]} <= {True}
    assert not keys[-1]["expires"]
    [own] = json.loads(run("secret", "check", "--json", **environment)[1])
    assert (own["is"], own["needed for"], len(own["secret"])) == ("own", "", 16)
    assert run("secret", "reseal", **environment)[1] == "Sealed anew: 0.\n"
    assert run("mail", "list", **environment)[0] == 0
    assert run("mail", "retry", "--all", **environment)[1] == "0 due again.\n"
    assert run("mail", "retry", "nothing", **environment)[0] == 1
    assert run("mail", "retry", **environment)[0] == 2


@pytest.mark.parametrize(
    "words",
    [
        "--version",
        "bench hash --seconds 0",
        "check-config",
        "explain nothing",
        "keys list --json",
        "mail retry",
        "plugins list",
        "selftest enumeration --known ada@example.com",
        "sessions revoke nobody@example.com",
        "users list",
    ],
)
def test_as_its_users_start_it(run: Run, mongod_uri: str, words: str) -> None:
    """Each of them is the same in a Python of its own as in a fork of one that has imported it, as tests run it."""
    mine = own(mongod_uri, "cli_started")
    assert run(*words.split(), **mine) == run(*words.split(), **mine, anew=True)


def test_alone(run: Run) -> None:
    """With no server running, commands start the embedded database for the moment."""
    story(run)


def test_beside_a_server(run: Run, start: StartServer) -> None:
    """With a server running, commands reach its database."""
    start()
    story(run)


def test_over_a_database_of_ones_own(run: Run, mongod_uri: str) -> None:
    """With store.uri set, commands reach that."""
    story(run, **own(mongod_uri, "cli_own"))


def test_disabling_takes_effect_at_once(run: Run, start: StartServer) -> None:
    """A running server refuses the sessions of a user who was disabled on the command line."""
    server = start()
    tokens = server.register()
    assert run("users", "disable", "ada@example.com")[0] == 0
    assert server.me(tokens) == 401
    assert server.post("login", LOGIN)[0] == 401


def test_mail_is_left_to_the_server(run: Run, start: StartServer) -> None:
    """A command that has mail to send leaves it in the outbox, and the server sends it."""
    assert run("users", "create", "ada@example.com", "--password-stdin", stdin=f"{PASSWORD}\n")[0] == 0
    [waiting] = json.loads(run("mail", "list", "--json")[1])
    assert (waiting["kind"], waiting["state"], waiting["attempts"]) == ("verify_email", "waiting", 0)
    verified = ("users", "create", "eve@example.com", "--password-stdin", "--verified")
    assert run(*verified, stdin=f"{PASSWORD}\n")[0] == 0
    assert len(json.loads(run("mail", "list", "--json")[1])) == 1  # There is nothing to prove for her.
    server = start()
    assert len(server.code()) == 6
    assert until(lambda: json.loads(run("mail", "list", "--json")[1]) == [])


def test_rotated_keys_reach_a_running_server(run: Run, start: StartServer) -> None:
    """A key rotated on the command line is published by the server, and signs after its lead, without a restart."""
    server = start(HYDRACORE_TOKENS__KEY_LEAD="2")
    old = server.register()
    assert run("keys", "rotate", HYDRACORE_TOKENS__KEY_LEAD="2")[0] == 0
    assert until(lambda: len(server.ask("GET", "/.well-known/jwks.json")[1]["keys"]) == 2)

    def signed_anew() -> bool:
        new = server.post("login", LOGIN)[1]
        assert server.me(new) == server.me(old) == 200
        return bool(new["access_token"].split(".")[0] != old["access_token"].split(".")[0])

    assert until(signed_anew)
    assert [key["state"] for key in json.loads(run("keys", "list", "--json")[1])] == ["retired", "active"]


def test_refused_passwords(run: Run) -> None:
    """A password that a policy refuses is refused here too, with the reason; so is what else makes no account."""
    code, _, said = run("users", "create", "ada@example.com", "--password-stdin", stdin="password1\n")
    assert (code, said) == (1, "hydracore: This is among the most common passwords. Choose another.\n")
    assert run("users", "create", "no address", "--password-stdin", stdin=f"{PASSWORD}\n")[0] == 1
    german = run("users", "language", "ada@example.com", "Deutsch!")
    assert german == (1, "", "hydracore: Deutsch! is no language: write de, or pt-br.\n")
    long = run("users", "create", "ada@example.com", "--password-stdin", stdin=f"{'x y' * 50}\n")
    assert long == (1, "", "hydracore: This should have at most 128 characters.\n")
    assert run("users", "create", "ada@example.com", "--password-stdin", stdin="\udcff" * 9)[2] == (
        "hydracore: The password is not valid UTF-8.\n"
    )


def test_database_away(run: Run) -> None:
    """Without its database a command ends with 1, soon, and says where it looked, without credentials."""
    away = own("mongodb://ada:unspeakable@127.0.0.1:1/?directConnection=true", "away", HYDRACORE_STORE__TIMEOUT="1")
    for words in (("users", "list"), ("keys", "list"), ("mail", "retry", "--all")):
        assert run(*words, **away) == (
            1,
            "",
            "hydracore: Nothing was done: the database does not answer (127.0.0.1:1).\n",
        )


def test_check_config(run: Run, tmp_path: Path) -> None:
    """check-config says that all is fine, or what is not."""
    code, said, _ = run("check-config")
    assert code == 0
    assert said.startswith("The configuration is fine.")
    (tmp_path / "one/config.toml").write_text("[server]\nport = 'http'\n")
    code, _, said = run("check-config")
    assert (code, said) == (
        2,
        "hydracore: The configuration is wrong. config.toml: server.port: must be a whole number, not 'http'.\n",
    )
    other = tmp_path / "other.toml"
    other.write_text("[server]\nport = 9000\n")
    assert run("--config", str(other), "check-config")[0] == 0
    assert run("check-config", HYDRACORE_CONFIG=str(other))[0] == 0
    assert run("--config", str(tmp_path / "missing.toml"), "check-config")[0] == 2


def test_plugins_list(run: Run) -> None:
    """plugins list says what is installed, what is loaded and why, and which hooks each has."""
    found = {row["name"]: row for row in json.loads(run("plugins", "list", "--json")[1])}
    assert found["mail_folder"]["loaded"] == "mail.transport is folder"
    assert found["mail_smtp"]["loaded"] == "no"
    assert found["event_log"]["hooks"] == "on_event"
    assert "password_standard" in run("plugins", "list")[1]


def test_version(run: Run) -> None:
    """--version says which this is."""
    import hydracore

    assert run("--version")[1] == f"hydracore, version {hydracore.__version__}\n"


def test_explain(start: StartServer, run: Run) -> None:
    """Why a request was refused, beside a running server: for people, as JSON, and a sentence for what is unknown."""
    server = start(HYDRACORE_LIMITS__ENABLED="true", HYDRACORE_SERVER__TRUSTED_PROXIES='["127.0.0.1"]')
    for _ in range(5):
        server.post("login", LOGIN)
    status, body, headers = server.post("login", LOGIN)
    assert (status, body["code"]) == (429, "too_many_requests")
    request_id = headers["X-Request-Id"]
    assert until(lambda: run("explain", request_id)[0] == 0)
    said = dict(line.split(maxsplit=1) for line in run("explain", request_id)[1].splitlines() if line)
    assert said["call"] == "POST /auth/login"
    assert said["answer"] == "429 too_many_requests"
    assert said["rule"] == "limits.login_address_network = 5/300"
    assert said["count"] == "6"
    assert said["resets"].startswith("at  20")
    [facts] = json.loads(run("explain", request_id, "--json")[1])
    assert facts["network"] == "127.0.0.1"
    evil = {"Origin": "https://evil.example/\x9b31m", "X-Request-Id": "from-a-proxy"}  # Some terminals obey it.
    for _ in range(2):
        assert server.ask("POST", "/auth/login", LOGIN, **evil)[0] == 403
    assert until(lambda: run("explain", "from-a-proxy")[1].count("403 cross_origin") == 2)
    assert "evil.example/\\u009b31m" in run("explain", "from-a-proxy")[1]
    code, _, said_no = run("explain", "nothing")
    assert code == 1
    assert "Nothing is kept of the request nothing" in said_no
