"""The command line and plugins: what there is, how it is, and the commands that they bring."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import command

Run = Callable[..., tuple[int, str, str]]

ACME = """
import click
from hydracore.plugin import Command, Endpoint, Forbidden, HealthCheck, Route, hookimpl, public


class Plugin:
    def __init__(self, context):
        self.context = context

    @hookimpl
    def hydracore_register_commands(self):
        group = click.Group("acme", help="What acme does.")
        group.add_command(click.Command("hello", callback=lambda: click.echo("hello")))
        email = click.Argument(["email"])
        group.add_command(click.Command("find", callback=self.find, params=[email]))
        group.add_command(click.Command("refuse", callback=self.refuse))
        group.add_command(click.Command("fail", callback=self.fail))
        group.add_command(click.Command("break", callback=self.break_))
        return [Command("acme", group)]

    async def find(self, email):
        account = await self.context.find_account(email)
        click.echo(account.email if account else "nobody")

    async def refuse(self):
        raise Forbidden("Not on a Monday.")

    async def fail(self):
        raise click.ClickException("It failed.")

    async def break_(self):
        raise KeyError("broken")

    @hookimpl
    def hydracore_register_health_checks(self):
        return [HealthCheck("acme", self.check)]

    async def check(self):
        return "the acme service does not answer"

    @hookimpl
    def hydracore_register_routes(self):
        return [Route("/acme/now", Now)]


@public
class Now(Endpoint):
    async def get(self):
        self.reply({})
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs ``hydracore …`` with the plugin acme in a folder: exit code, output, errors."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "acme.py").write_text(ACME)
    where = {"HYDRACORE_PLUGINS__DIR": str(folder), "HYDRACORE_PLUGINS__ENABLED": '["acme"]'}

    def done(*arguments: str, stdin: str = "", **environment: str) -> tuple[int, str, str]:
        return command(tmp_path, *arguments, stdin=stdin, **{**where, **environment})

    return done


def test_list(run: Run, tmp_path: Path) -> None:
    """plugins list shows where each comes from, what it brings, which keys are set, and how it is; it makes nothing."""
    code, out, _ = run("plugins", "list", "--json", HYDRACORE_PLUGINS__MAIL_SMTP__PASSWORD="hush")
    found = {row["name"]: row for row in json.loads(out)}
    assert code == 0
    assert found["acme"] == {
        "name": "acme",
        "version": "",
        "source": str(tmp_path / "plugins/acme.py"),
        "loaded": "plugins.enabled",
        "hooks": "register_commands, register_health_checks, register_routes",
        "routes": "/acme/now",
        "config": "",
        "health": "the acme service does not answer",
    }
    assert (found["mail_smtp"]["config"], found["mail_smtp"]["loaded"]) == ("password", "no")
    assert found["mail_folder"]["health"] == "ok"
    assert "hush" not in out
    assert not (tmp_path / "hydracore-data").exists()


def test_list_with_a_broken_one(run: Run, tmp_path: Path) -> None:
    """A plugin that cannot be loaded is shown as broken, with the reason, beside all the others; the exit code is 2."""
    (tmp_path / "plugins/acme.py").write_text("raise KeyError('oh')\n")
    code, out, said = run("plugins", "list")
    assert code == 2
    assert "The plugin acme cannot be made (acme.py, line 1): KeyError" in said
    [line] = [line for line in out.splitlines() if line.startswith("acme")]
    assert "broken" in line
    code, out, said = run("plugins", "list", HYDRACORE_PLUGINS__ENABLED='["acmee"]')
    assert (code, "did you mean acme?" in said) == (2, True)
    assert "event_log" in out


def test_commands(run: Run) -> None:
    """A plugin's commands are in the help and run, with the database where they ask for it; what they raise is a
    sentence."""
    assert "acme          What acme does." in run("--help")[1]
    assert "find" in run("acme", "--help")[1]
    assert run("acme", "hello")[:2] == (0, "hello\n")
    run("users", "create", "ada@example.com", "--password-stdin", stdin="correct horse battery staple\n")
    assert run("acme", "find", "ADA@example.com") == (0, "ada@example.com\n", "")
    assert run("acme", "find", "eve@example.com")[1] == "nobody\n"
    assert run("acme", "refuse") == (1, "", "hydracore: Not on a Monday.\n")
    assert run("acme", "fail") == (1, "", "Error: It failed.\n")
    code, _, said = run("acme", "break")
    assert (code, said.strip()) == (
        1,
        "hydracore: The plugin acme failed in its command break (acme.py, line 32): KeyError: 'broken'",
    )
    code, _, said = run("acmee")
    assert (code, "No such command" in said) == (2, True)


def test_help_makes_the_plugins_once(run: Run, tmp_path: Path) -> None:
    """Help asks each plugin once for its commands, however many there are."""
    text = ACME.replace("self.context = context", 'self.context = context; open("made", "a").write("x")')
    text = text.replace('[Command("acme", group)]', '[Command("acme", group), Command("acme2", group)]')
    (tmp_path / "plugins/acme.py").write_text(text)
    code, out, _ = run("--help")
    assert (code, "acme2" in out) == (0, True)
    assert (tmp_path / "made").read_text() == "x"


REFUSES = """
from hydracore.plugin import PasswordPolicy, PasswordRefused, hookimpl


class Plugin:
    def __init__(self, context):
        pass

    @hookimpl
    def hydracore_register_password_policies(self):
        return [PasswordPolicy("capitals", self.check)]

    def check(self, password, email):
        raise PasswordRefused("Write four capitals.")
"""


def test_check(run: Run, tmp_path: Path) -> None:
    """What does not keep its contract is told by its plugin, the check, its sentence and the reason, and the exit code
    is 1."""
    (tmp_path / "plugins/acme.py").write_text(REFUSES)
    code, out, said = run("plugins", "check", HYDRACORE_STORE__DRIVER="memory")
    assert code == 1
    _, _, of_acme = out.partition("password policy capitals, of acme\n")
    [failed] = [line for line in out.splitlines() if "FAILED" in line]
    assert failed in of_acme
    assert "FAILED  long_random_ones: A long random password is accepted: there are no rules of composition" in failed
    assert "(NotConforming: 32 random bytes were refused: Write four capitals.)" in failed
    assert said == (
        "hydracore: 1 of the contracts' sentences do not hold (password policy capitals, of acme: long_random_ones).\n"
    )


@pytest.mark.parametrize("name", ["Acme-Corp", "acme__corp", "admin", "login", "verify_email", "enabled", "dir"])
def test_new_with_a_name_that_no_plugin_may_have(run: Run, tmp_path: Path, name: str) -> None:
    """A project that could not start is not written."""
    code, _, said = run("plugins", "new", name)
    assert (code, f"{name} is no plugin's name" in said) == (1, True)
    assert not list(tmp_path.glob("hydracore-*"))


def test_list_with_two_of_a_name(run: Run, tmp_path: Path) -> None:
    """A name that two plugins have is listed with both, though neither is enabled."""
    (tmp_path / "plugins/event_log.py").write_text("")
    code, out, _ = run("plugins", "list", "--json", HYDRACORE_PLUGINS__ENABLED="[]")
    [row] = [row for row in json.loads(out) if row["name"] == "event_log"]
    assert (code, row["loaded"]) == (0, "no")
    assert "Two plugins are named event_log: hydracore's (hydracore_event_log:" in row["health"]


def test_help_where_the_configuration_is_wrong(run: Run) -> None:
    """Help comes although the configuration is wrong; a plugin's command says what is."""
    wrong = {"HYDRACORE_SERVER__PORT": "eighty"}
    assert "check-config" in run("--help", **wrong)[1]
    code, _, said = run("acme", "hello", **wrong)
    assert (code, "server.port" in said) == (2, True)


def test_no_click_command(run: Run, tmp_path: Path) -> None:
    """What is no click command is named with its plugin."""
    text = ACME.replace('Command("acme", group)', 'Command("acme", print)')
    (tmp_path / "plugins/acme.py").write_text(text)
    code, _, said = run("acme")
    assert (code, "acme, which is no click command" in said) == (2, True)
