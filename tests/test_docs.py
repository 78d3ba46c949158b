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
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from hydracore.cli import main
from hydracore.testing import Served
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
            monkeypatch.setenv(exported[1], *shlex.split(exported[2]))
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
def test_admin(start: StartServer, mongod_uri: str) -> None:
    """The commands that docs/admin.md shows print what it shows, one after the other, beside a running server."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    environment = own(mongod_uri, "docs_admin", HYDRACORE_ADMIN__PORT=port)
    server = start(**environment)
    page = (DOCS / "admin.md").read_text("utf-8")
    [told] = re.findall(r"```console\n(.*?)```", page, re.DOTALL)
    script = "\n".join(f"{command} 2>&1\necho '--8<--'" for command, _ in steps(told)).replace("8001", port)
    given = settings(**environment, PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    result = subprocess.run(
        ["bash", "-c", script], cwd=server.folder, env=given, capture_output=True, text=True, timeout=90
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


def test_roles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mongod_uri: str) -> None:
    """The commands that docs/roles.md shows print what it shows, one after the other."""
    told_by("roles", tmp_path, monkeypatch, mongod_uri)


def test_roles_in_programs(expected_logs: list[str]) -> None:
    """The plugin and the application of docs/roles.md do what it says of them: each lets in who has the role."""
    expected_logs.append("403 DELETE /orders")  # The host's own line.
    plugin, host = re.findall(r"```python\n(.*?)```", (DOCS / "roles.md").read_text("utf-8"), re.DOTALL)
    acme, shop = {"__name__": "acme"}, {"__name__": "shop"}
    for program, names in ((plugin, acme), (host, shop)):
        exec(program, names)  # noqa: S102  # what the document shows
    with Served(settings={"roles": {"known": ["admin", "support"]}}, plugins={"acme": acme["Plugin"]}) as server:
        ada = server.signed_in("ada@example.com")
        assert ada.get("acme/shop").code == "role_required"
        server.give_roles("ada@example.com", "support")
        assert ada.get("acme/shop").json == {"closed": False, "for": ["support"]}
        assert ada.delete("acme/shop").code == "role_required"
        server.give_roles("ada@example.com", "admin")
        assert ada.delete("acme/shop").status == 204
        assert ada.get("acme/shop").json["closed"] is True
        bind = bind_sockets(0, "127.0.0.1")

        async def listen() -> HTTPServer:
            app = Application([("/orders", shop["Orders"])], hydracore=server.hydra)
            listening = HTTPServer(app)
            listening.add_sockets(bind)
            return listening

        listening = server.run(listen())
        eve = server.signed_in("eve@example.com")
        for client in (ada, eve):
            client.url = f"http://127.0.0.1:{bind[0].getsockname()[1]}"
        assert ada.get("/orders").json == {"orders": [], "may_close": True}
        assert eve.get("/orders").json == {"orders": [], "may_close": False}
        assert (ada.delete("/orders").status, eve.delete("/orders").code) == (204, "role_required")

        async def stop() -> None:
            listening.stop()
            await listening.close_all_connections()

        server.run(stop())


def test_mail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mongod_uri: str) -> None:
    """The commands that docs/mail.md shows print what it shows, one after the other."""
    told_by("mail", tmp_path, monkeypatch, mongod_uri)
    assert (tmp_path / "mail-preview/password_changed.it.txt").read_text("utf-8").startswith("La password di ada@")
