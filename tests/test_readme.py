"""What the README shows is what happens."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from processes import StartServer, settings, until
from replicas import free_port

from hydracore import hookspecs
from hydracore.discovery import installed
from hydracore.web.routes import AUTH

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
pytestmark = pytest.mark.skipif(not shutil.which("curl") and not os.environ.get("CI"), reason="there is no curl")


def blocks(language: str, heading: str) -> list[str]:
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def steps(block: str) -> list[tuple[str, str]]:
    """The commands of a console block, each with what it prints."""
    found = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n?)*)", block, re.MULTILINE)
    assert found
    return found


def prints(shown: str, printed: str) -> bool:
    """Whether ``printed`` is what is ``shown``, where … stands for anything."""
    return re.fullmatch(".+".join(map(re.escape, shown.strip().split("…"))), printed.strip(), re.DOTALL) is not None


def shell(folder: Path, script: str) -> list[str]:
    """What each command prints, in one shell; a line of its own parts them."""
    result = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=settings(), capture_output=True, text=True, timeout=60
    )
    return result.stdout.split("\n--8<--\n")


def test_the_story(start: StartServer) -> None:
    """The curl story runs as it is printed, command for command."""
    server = start()
    told = steps(blocks("console", "Run it")[0])
    mailed = f"until ls {server.folder}/hydracore-data/mail/*.eml >/dev/null 2>&1; do sleep 0.05; done"
    script = "\n".join(f"{command}\nprintf '\\n--8<--\\n'\n{mailed}" for command, _ in told)
    printed = shell(server.folder, script.replace("localhost:8000", f"localhost:{server.port}"))
    for (command, shown), text in zip(told, printed, strict=False):
        assert prints(shown, text), (command, shown, text)


def test_the_help(tmp_path: Path) -> None:
    """The command line's help is as it is shown."""
    [(_, shown)] = steps(blocks("console", "The command line")[0])
    result = subprocess.run(
        [sys.executable, "-m", "hydracore", "--help"], env=settings(), capture_output=True, text=True, cwd=tmp_path
    )
    assert result.stdout.replace("python -m hydracore", "hydracore").split() == shown.split()


def test_embedding(tmp_path: Path, mongod_uri: str) -> None:
    """The embedding example serves: 401 for strangers, our API under its prefix."""
    port = str(free_port())
    program = blocks("python", "Embed it")[0].replace("8888", port)
    embedded(tmp_path, program, {}, port, "/notes", 401)


def embedded(folder: Path, program: str, environment: dict[str, str], port: str, path: str, status: int) -> None:
    script = folder / "program.py"
    script.write_text(program)
    process = subprocess.Popen([sys.executable, str(script)], cwd=folder, env=settings(**environment))
    try:
        asked = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"http://127.0.0.1:{port}{path}"]
        assert until(lambda: subprocess.run(asked, capture_output=True, text=True).stdout == str(status))
        asked[-1] = f"http://127.0.0.1:{port}/auth/me"
        assert subprocess.run(asked, capture_output=True, text=True).stdout == "401"
    finally:
        process.terminate()
        process.wait()


def test_longer_example(tmp_path: Path, mongod_uri: str) -> None:
    """The longer example runs, and greets strangers."""
    program = (ROOT / "docs/examples/embedded.py").read_text("utf-8")
    port = str(free_port())
    embedded(tmp_path, program, {"PORT": port}, port, "/", 200)


def test_the_plugin(tmp_path: Path) -> None:
    """The plugin of the README, saved as it says, is found, loaded, and refuses what it says."""
    section = README.split("\n## Extend it\n")[1]
    folder = tmp_path / "my-plugins"
    folder.mkdir()
    (folder / "acme.py").write_text(blocks("python", "Extend it")[0])
    environment = dict(re.findall(r"(HYDRACORE_\w+)=([a-z-]+|'[^']+')", section))
    environment = {name: value.strip("'") for name, value in environment.items()}
    assert len(environment) == 2
    hydracore = [sys.executable, "-m", "hydracore"]
    listed = subprocess.run(
        [*hydracore, "plugins", "list"], cwd=tmp_path, env=settings(**environment), capture_output=True, text=True
    )
    assert re.search(r"acme +my-plugins/acme\.py +plugins\.enabled +register_password_policies", listed.stdout)
    refused = subprocess.run(
        [*hydracore, "users", "create", "ada@example.com", "--password-stdin"],
        cwd=tmp_path,
        env=settings(**environment, HYDRACORE_STORE__DRIVER="memory"),
        input="my Roadrunner password\n",
        capture_output=True,
        text=True,
    )
    assert refused.stderr == "hydracore: This holds a word that everyone here would guess.\n"


def test_tables() -> None:
    """The tables name every call, every hook and every plugin on the shelf."""
    for path in AUTH:
        assert f"`/auth{path}`" in README
    for hook in vars(hookspecs):
        if hook.startswith("hydracore_"):
            [row] = [line for line in README.splitlines() if line.startswith(f"| `{hook}` |")]
            for name in re.findall(r"`(\w+)`", row.rsplit("|", 2)[1]):
                assert hook in dir(installed()[name].load()), (hook, name)
    for name, plugin in installed().items():
        if plugin.distribution == "hydracore":
            assert f"`{name}`" in README


def test_for_real(tmp_path: Path) -> None:
    """The settings of a real deployment are accepted."""
    secret = tmp_path / "secret"
    secret.write_text("s" * 64)
    script = blocks("sh", "Run it")[1].replace("/etc/hydracore/secret", str(secret)).split("&&")[0]
    script = script.replace("hydracore check-config", f"{sys.executable} -m hydracore check-config")
    assert shell(tmp_path, script)[0].startswith("The configuration is fine.")


def test_files_that_are_linked() -> None:
    """Every file that the README links to is there."""
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
