"""A stranger's plugin: a distribution of its own, in a fresh virtual environment, beside an untouched HydraCore."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from processes import PASSWORD, settings, until
from replicas import free_port

# One environment for all of them.
pytestmark = pytest.mark.xdist_group("distribution")

ROOT = Path(__file__).parent.parent.parent

FILES = {
    "pyproject.toml": """
        [build-system]
        requires = ["setuptools>=77"]
        build-backend = "setuptools.build_meta"

        [project]
        name = "roadrunner-for-hydracore"
        version = "3.1"
        dependencies = ["hydracore"]

        [project.entry-points.hydracore]
        roadrunner = "roadrunner_for_hydracore.plugin:Roadrunner"

        [tool.setuptools]
        packages = ["roadrunner_for_hydracore"]

        [tool.setuptools.package-data]
        roadrunner_for_hydracore = ["schemas/*.json", "templates/mail/*/*"]
    """,
    "roadrunner_for_hydracore/__init__.py": "",
    "roadrunner_for_hydracore/plugin.py": """
        import click

        from hydracore.plugin import (
            Collection, Command, Endpoint, PasswordPolicy, PasswordRefused, Route, hookimpl, verified,
        )


        class Roadrunner:
            requires_api = "1.0"

            def __init__(self, context):
                self.context = context

            @hookimpl
            def hydracore_register_password_policies(self):
                return [PasswordPolicy("roadrunner", self.check)]

            def check(self, password, email):
                if "coyote" in password.casefold():
                    raise PasswordRefused("No coyotes.")

            @hookimpl
            def hydracore_register_collections(self):
                return [Collection("races")]

            @hookimpl
            def hydracore_register_routes(self):
                return [Route("/roadrunner/races", Races)]

            @hookimpl
            def hydracore_register_commands(self):
                return [Command("races", click.Command("races", callback=self.show, help="Races run."))]

            async def show(self):
                async for race in self.context.collection("races").find():
                    click.echo(f"{race['name']} {race['miles']} {self.context.config['unit']}")


        @verified
        class Races(Endpoint):
            async def post(self):
                race = self.body("race")
                await self.plugin.context.collection("races").insert_one(dict(race))
                await self.plugin.context.send_mail("won", self.caller.email, {"race": race["name"]})
                self.reply({"run": race["name"], "unit": self.plugin.context.config["unit"]}, 201)
    """,
    "roadrunner_for_hydracore/schemas/config.json": """
        {"type": "object", "properties": {"unit": {"enum": ["miles", "km"], "default": "miles"}}}
    """,
    "roadrunner_for_hydracore/schemas/race.json": """
        {"type": "object", "required": ["name"], "properties": {
            "name": {"type": "string", "minLength": 1}, "miles": {"type": "integer", "minimum": 1, "default": 1}}}
    """,
    "roadrunner_for_hydracore/templates/mail/roadrunner.won/subject.txt": "You won {{ race }}",
    "roadrunner_for_hydracore/templates/mail/roadrunner.won/body.txt": "Beep beep.",
    "roadrunner_for_hydracore/templates/mail/roadrunner.won/body.html": "<p>Beep beep.</p>",
    "roadrunner_for_hydracore/templates/mail/verify_email/subject.txt": "Run: your verification code",
}


def hydracore_in(folder: Path) -> list[str]:
    """What ``pip install`` takes for HydraCore as it is committed or about to be: a copy of the tracked files."""
    source = folder / "hydracore-source"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    return [f"{source}[embedded,memory]"]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The python of a fresh virtual environment with HydraCore, the stranger's distribution and pytest."""
    folder = tmp_path_factory.mktemp("stranger")
    for name, text in FILES.items():
        (folder / "plugin" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "plugin" / name).write_text(textwrap.dedent(text))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    made = folder / "venv/bin/python"
    for what in (["setuptools", "pytest"], ["--no-build-isolation", *hydracore_in(folder), folder / "plugin"]):
        # What nobody imports need not be compiled.
        command = [*pip(made), "install", "-q", "--no-compile", "-c", ROOT / ".ci/constraints.txt", *what]
        subprocess.run(command, env=environment(made), check=True, capture_output=True, timeout=500)
    return made


def pip(python: Path) -> list[Any]:
    """pip for that environment, which is quicker made without one of its own."""
    return [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]


def environment(python: Path, **more: str) -> dict[str, str]:
    mine = {name: value for name, value in settings(**more).items() if not name.startswith("PYTHON")}
    return {**mine, "PATH": f"{python.parent}:{os.environ['PATH']}"}


@pytest.fixture
def server(python: Path, tmp_path: Path) -> Iterator[Any]:
    """The command ``hydracore serve`` of that environment, the plugin enabled; asks it."""
    port = free_port()
    enabled = environment(
        python,
        HYDRACORE_PLUGINS__ENABLED='["event_log", "roadrunner"]',
        HYDRACORE_PLUGINS__ROADRUNNER__UNIT="km",
        HYDRACORE_SERVER__PORT=str(port),
    )
    process = subprocess.Popen(
        [python.parent / "hydracore", "serve"], cwd=tmp_path, env=enabled, stderr=subprocess.DEVNULL
    )

    def ask(method: str, path: str, body: Any = None, token: str = "") -> tuple[int, Any]:
        connection = HTTPConnection("127.0.0.1", port, timeout=20)
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, json.loads(text) if text else None

    def ready() -> bool:
        try:
            return ask("GET", "/health/ready")[0] == 200
        except OSError:
            return False

    try:
        assert until(ready, 30)
        yield ask, enabled
    finally:
        process.terminate()
        process.wait(30)


def letter(folder: Path, about: str) -> str:
    for _ in range(1000):
        for file in sorted((folder / "hydracore-data/mail").glob("*.eml")):
            if about in (text := file.read_text()):
                return text
        time.sleep(0.02)
    raise AssertionError(about)


def test_it_works(server: Any, python: Path, tmp_path: Path) -> None:
    """Its policy, its call with its schema, its section, its collection, its command and its mails all work."""
    ask, enabled = server
    ada = {"email": "ada@example.com", "password": PASSWORD}
    status, body = ask("POST", "/auth/register", {**ada, "password": "wily coyote, genius"})
    assert (status, body["detail"][0]["msg"]) == (422, "No coyotes.")
    _, first = ask("POST", "/auth/register", ada)
    code = re.search(r"^([0-9]{6})\s*$", letter(tmp_path, "Subject: Run: your verification code"), re.MULTILINE)
    assert code
    assert ask("POST", "/auth/roadrunner/races", {"name": "x"})[0] == 401
    assert ask("POST", "/auth/roadrunner/races", {"name": "x"}, first["access_token"])[0] == 403
    _, proven = ask("POST", "/auth/verify-email", {"email": "ada@example.com", "code": code[1]}, first["access_token"])
    status, body = ask("POST", "/auth/roadrunner/races", {"name": ""}, proven["access_token"])
    assert (status, body["detail"][0]["loc"]) == (422, ["body", "name"])
    status, body = ask("POST", "/auth/roadrunner/races", {"name": "Canyon", "miles": 7}, proven["access_token"])
    assert (status, body) == (201, {"run": "Canyon", "unit": "km"})
    letter(tmp_path, "Subject: You won Canyon")
    command = [python.parent / "hydracore", "races"]
    shown = subprocess.run(command, cwd=tmp_path, env=enabled, capture_output=True, text=True, timeout=60)
    assert shown.stdout == "Canyon 7 km\n"
    command = [python.parent / "hydracore", "plugins", "list", "--json"]
    listed = subprocess.run(command, cwd=tmp_path, env=enabled, capture_output=True, text=True, timeout=60)
    [row] = [row for row in json.loads(listed.stdout) if row["name"] == "roadrunner"]
    assert (row["version"], row["source"]) == ("3.1", "roadrunner-for-hydracore")
    assert (row["loaded"], row["routes"], row["config"]) == ("plugins.enabled", "/roadrunner/races", "unit")


def test_a_wrong_section(python: Path, tmp_path: Path) -> None:
    """A wrong value in its section stops the start: which variable, which key, what there is."""
    wrong = environment(python, HYDRACORE_PLUGINS__ENABLED='["roadrunner"]', HYDRACORE_PLUGINS__ROADRUNNER__UNIT="mile")
    command = [python.parent / "hydracore", "check-config"]
    result = subprocess.run(command, cwd=tmp_path, env=wrong, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert "HYDRACORE_PLUGINS__ROADRUNNER__UNIT" in result.stderr
    assert "did you mean miles?" in result.stderr


def test_a_new_project(python: Path, tmp_path: Path) -> None:
    """What plugins new writes installs, passes its own tests, and runs; it overwrites nothing."""

    def run(*command: Any, folder: Path = tmp_path, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=folder, env=environment(python, **more), capture_output=True, text=True, timeout=300
        )

    hydracore = python.parent / "hydracore"
    written = run(hydracore, "plugins", "new", "acme_corp")
    assert written.returncode == 0, written.stderr
    project = tmp_path / "hydracore-acme-corp"
    assert (project / ".gitignore").is_file()
    letter = project / "hydracore_acme_corp/templates/mail/verify_email/de/subject.txt"
    letter.parent.mkdir(parents=True)
    letter.write_text("Ihr Code")
    wheel = run(*pip(python), "wheel", "-q", "--no-build-isolation", "--no-deps", ".", folder=project)
    assert wheel.returncode == 0, wheel.stderr
    with ZipFile(next(project.glob("*.whl"))) as packed:
        assert str(letter.relative_to(project)) in packed.namelist()
        assert "hydracore_acme_corp/schemas/greet.json" in packed.namelist()
    shutil.rmtree(letter.parents[2])
    installed = run(*pip(python), "install", "-q", "--no-build-isolation", "-e", ".", folder=project)
    assert installed.returncode == 0, installed.stderr
    tested = run(python, "-m", "pytest", "-q", folder=project)
    assert "6 passed" in tested.stdout, tested.stdout + tested.stderr
    enabled = {"HYDRACORE_PLUGINS__ENABLED": '["acme_corp"]'}
    checked = run(hydracore, "plugins", "check", **enabled)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "password policy acme_corp, of acme_corp" in checked.stdout
    assert "is there already" in run(hydracore, "plugins", "new", "other", "--folder", str(project)).stderr
    assert "acme_corp already" in run(hydracore, "plugins", "new", "acme_corp", "--folder", "x").stderr
    assert "no plugin's name" in run(hydracore, "plugins", "new", "Acme-Corp").stderr
