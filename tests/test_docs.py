"""The documents say what the code says."""

import os
import re
import runpy
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from processes import PASSWORD, StartServer, own, settings
from test_readme import prints, steps

from hydracore.cli import main
from hydracore.web.access import scope_of
from hydracore.web.routes import ADMIN

DOCS = Path(__file__).parent.parent / "docs"
ROW = r"\| ([A-Z]+) `(/admin[^`]+)`.*? \| `([a-z:]+)` \|"


def test_plugins() -> None:
    """docs/plugins.md is what docs/generate.py writes: after a change, make docs."""
    written = runpy.run_path(str(DOCS / "generate.py"))["pages"]()
    assert (DOCS / "plugins.md").read_text("utf-8") == written
    assert "{{ " not in written


def test_links() -> None:
    """Every file that a document links to is there."""
    for page in DOCS.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
            assert target.startswith("http") or (page.parent / target).exists(), (page.name, target)


def test_the_kit(tmp_path: Path) -> None:
    """The tests that docs/testing.md shows pass as they are printed."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "testing.md").read_text("utf-8"), re.DOTALL)
    for number, block in enumerate(blocks):
        (tmp_path / f"test_block{number}.py").write_text(block)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:tornado", str(tmp_path)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert "5 passed" in result.stdout, result.stdout + result.stderr


def told_by(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch, mongod_uri: str) -> None:
    """Have the commands that a page of the documents shows print what it shows, one after the other."""
    monkeypatch.chdir(folder)
    for name, value in own(mongod_uri, f"docs_{page}").items():
        monkeypatch.setenv(name, value)
    for module in ("data", "preview"):  # The logs of this process are the tests'.
        monkeypatch.setattr(f"hydracore.cli.{module}.configure", lambda *how: None)

    def printed(command: str) -> str:
        if exported := re.fullmatch(r"export (\w+)=(\S+)", command):
            monkeypatch.setenv(*exported.groups())
            return ""
        if command.startswith("hydracore "):
            arguments, *_ = command.partition(" <password.txt")
            return CliRunner().invoke(main, shlex.split(arguments)[1:], input=f"{PASSWORD}\n").output
        return subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True).stdout

    told = re.findall(r"```console\n(.*?)```", (DOCS / f"{page}.md").read_text("utf-8"), re.DOTALL)
    for command, shown in (step for block in told for step in steps(block)):
        assert prints(shown, text := printed(command)), (command, text)


def test_moving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mongod_uri: str) -> None:
    """The commands that docs/moving.md shows print what it shows, one after the other."""
    told_by("moving", tmp_path, monkeypatch, mongod_uri)


@pytest.mark.skipif(not shutil.which("curl") and not os.environ.get("CI"), reason="there is no curl")
def test_admin(start: StartServer) -> None:
    """The commands that docs/admin.md shows print what it shows, one after the other, beside a running server."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    server = start(HYDRACORE_ADMIN__PORT=port)
    page = (DOCS / "admin.md").read_text("utf-8")
    [told] = re.findall(r"```console\n(.*?)```", page, re.DOTALL)
    script = "\n".join(f"{command} 2>&1\necho '--8<--'" for command, _ in steps(told)).replace("8001", port)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    result = subprocess.run(
        ["bash", "-c", script], cwd=server.folder, env=settings(PATH=path), capture_output=True, text=True, timeout=90
    )
    for (command, shown), text in zip(steps(told), result.stdout.split("--8<--\n"), strict=False):
        assert prints(shown, text), (command, shown, text)
    scopes = {f"{method} {path}": scope for method, path, scope in re.findall(ROW, page)}
    assert scopes == {
        f"{method} /admin{path}": scope_of(endpoint, method)
        for path, endpoint in ADMIN.items()
        for method in endpoint.allowed()
        if method not in ("HEAD", "OPTIONS")
    }


def test_mail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mongod_uri: str) -> None:
    """The commands that docs/mail.md shows print what it shows, one after the other."""
    told_by("mail", tmp_path, monkeypatch, mongod_uri)
    assert (tmp_path / "mail-preview/password_changed.it.txt").read_text("utf-8").startswith("La password di ada@")
