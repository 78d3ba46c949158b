"""The Dockerfile and the compose file of docs/running: what must hold of them wherever they are built."""

import json
import re
import shlex
import threading
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from processes import command

from hydracore.config import load
from hydracore.core import HydraCore

ROOT = Path(__file__).parent.parent.parent
RUNNING = ROOT / "docs/running"
SECRETS = re.compile(r"secret|password|token|api_key", re.IGNORECASE)


def stages() -> list[list[tuple[str, str]]]:
    """The Dockerfile's instructions, stage by stage."""
    text = re.sub(r"\\\n\s*", "", (RUNNING / "Dockerfile").read_text("utf-8"))
    found: list[list[tuple[str, str]]] = []
    for line in text.splitlines():
        if line and not line.startswith("#"):
            word, _, rest = line.partition(" ")
            if word == "FROM":
                found.append([])
            found[-1].append((word, rest))
    return found


def said(word: str) -> list[str]:
    """What the image itself says by that instruction."""
    return [rest for each, rest in stages()[-1] if each == word]


def test_its_base_is_of_one_version() -> None:
    """Every stage is from a Python of the version that the tests run on, on a slim Debian whose name is given."""
    for stage in stages():
        word, rest = stage[0]
        assert word == "FROM"
        assert re.fullmatch(r"python:3\.11-slim-bookworm( AS \w+)?", rest)


def test_what_the_image_says_of_itself() -> None:
    """Nobody is root in it, by number; it has a port, a signal that drains, and a look at its health; what it starts is
    started without a shell, which would keep signals for itself."""
    [user], [signal], [health] = said("USER"), said("STOPSIGNAL"), said("HEALTHCHECK")
    assert int(user) >= 10_000
    assert signal == "SIGTERM"
    assert "/health/ready" in health
    assert said("EXPOSE") == [str(load(environment={}).server.port)]
    assert said("ENTRYPOINT") == ['["hydracore"]']
    assert said("CMD") == ['["serve"]']
    assert not [rest for rest in said("RUN") if "sudo" in rest or "curl" in rest]


class Health(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/health/ready" else 404)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        """Nothing is said of it."""


@pytest.mark.parametrize(("status", "well"), [(200, True), (503, False)])
def test_how_it_looks_at_its_health(monkeypatch: pytest.MonkeyPatch, status: int, well: bool) -> None:
    """The image's health check is well where the server is ready, and only there, whatever proxy the container is told
    of."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    python, flag, check = json.loads(said("HEALTHCHECK")[0].partition("CMD ")[2])
    assert (python, flag) == ("python", "-c")
    with HTTPServer(("127.0.0.1", 0), type("Answer", (Health,), {"status": status})) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert ", 8000," in check
        with pytest.raises(SystemExit) as ended:
            exec(check.replace("8000", str(server.server_port)), {})  # noqa: S102  # what the image runs
    assert (not ended.value.code) is well


def test_no_secret_is_in_it() -> None:
    """No build argument and no variable of the image is a secret, and no file is taken from elsewhere."""
    for stage in stages():
        for word, rest in stage:
            assert word not in ("ADD", "ARG")
            assert word != "ENV" or not SECRETS.search(rest)


def test_what_it_is_set_to() -> None:
    """The variables of the image are keys that there are, and they fit together."""
    given = dict(pair.split("=", 1) for line in said("ENV") for pair in shlex.split(line))
    config = load(environment=given)
    assert ip_address(config.server.host).is_unspecified
    assert str(config.data_dir) == "/data"


def let_through(path: str) -> bool:
    """Whether the build sees that file: the last pattern that matches decides."""
    seen = True
    for line in (RUNNING / "Dockerfile.dockerignore").read_text("utf-8").splitlines():
        pattern = line.removeprefix("!")
        parts = Path(path).parts
        ways = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
        patterns = [pattern, pattern.removeprefix("**/")]
        if line and not line.startswith("#") and any(fnmatch(way, each) for way in ways for each in patterns):
            seen = line.startswith("!")
        elif pattern.startswith("**/") and any(fnmatch(part, pattern[3:]) for part in parts):
            seen = False
    return seen


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("setup.py", True),
        ("README.md", True),
        (".ci/constraints.txt", True),
        ("hydracore/web/base.py", True),
        ("plugins/hydracore_mail_smtp/schemas/config.json", True),
        ("schemas/config.json", True),
        (".git/config", False),
        ("docs/running/secret", False),
        ("hydracore-data/secret", False),
        ("config.toml", False),
        ("hydracore/web/__pycache__/base.cpython-311.pyc", False),
        (".venv/bin/python", False),
    ],
)
def test_what_the_build_sees(path: str, seen: bool) -> None:
    """What is installed, and no data, no secret, no history."""
    assert let_through(path) is seen


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((RUNNING / "compose.yaml").read_text("utf-8"))
    return found


def test_compose_locks_the_server_in() -> None:
    """The server writes to its volume and /tmp alone, has no capability and can gain none; its secret is a file, not a
    variable; and it has as long to stop as it may take."""
    server = compose()["services"]["hydracore"]
    assert server["read_only"] is True
    assert server["tmpfs"] == ["/tmp"]  # noqa: S108  # the container's own
    assert server["cap_drop"] == ["ALL"]
    assert server["security_opt"] == ["no-new-privileges:true"]
    assert "HYDRACORE_SECRET" not in server["environment"]
    assert server["environment"]["HYDRACORE_SECRET_FILE"] == f"/run/secrets/{server['secrets'][0]}"
    assert int(server["stop_grace_period"].removesuffix("s")) > 25


def test_compose_opens_loopback_alone() -> None:
    """Every port is this machine's own, and the database has none; every image is of one version."""
    services = compose()["services"]
    ports = {name: service.get("ports", []) for name, service in services.items()}
    assert ports["mongo"] == []
    assert all(port.startswith("127.0.0.1:") for each in ports.values() for port in each)
    for name, service in services.items():
        assert name == "hydracore" or re.search(r":v?\d+\.\d+$", service["image"])


def test_compose_has_what_it_names() -> None:
    """What a service waits for, mounts and builds is there."""
    whole = compose()
    for service in whole["services"].values():
        assert set(service.get("depends_on", {})) <= set(whole["services"])
        assert {each.split(":")[0] for each in service.get("volumes", [])} <= set(whole["volumes"])
        assert set(service.get("secrets", [])) <= set(whole["secrets"])
    build = whole["services"]["hydracore"]["build"]
    assert (RUNNING / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()
    assert whole["services"]["hydracore"]["depends_on"]["mongo"]["condition"] == "service_healthy"


def test_what_the_page_starts() -> None:
    """The container that docs/running.md starts is locked in as compose's is, and its variables fit together."""
    page = (ROOT / "docs/running.md").read_text("utf-8").replace("\\\n", " ")
    [line] = [line for line in page.splitlines() if line.startswith("docker run ")]
    words = shlex.split(line)
    options = {(one, two) for one, two in pairwise(words) if one.startswith("--")}
    assert {("--cap-drop", "ALL"), ("--security-opt", "no-new-privileges")} <= options
    assert ("--tmpfs", "/tmp") in options  # noqa: S108  # the container's own
    assert "--read-only" in words
    given = dict(value.split("=", 1) for option, value in options if option == "--env")
    mounted = [value.split(":")[1] for option, value in options if option == "--volume"]
    assert given.pop("HYDRACORE_SECRET_FILE") in mounted
    assert HydraCore(load(environment={**given, "HYDRACORE_SECRET": "s" * 64})).config.mail.transport == "smtp"


def test_compose_is_a_configuration(tmp_path: Path) -> None:
    """The server's variables are keys that there are, and they fit together."""
    (tmp_path / "secret").write_text("s" * 64)
    given = {**compose()["services"]["hydracore"]["environment"], "HYDRACORE_SECRET_FILE": str(tmp_path / "secret")}
    code, printed, _ = command(tmp_path, "check-config", **given)
    assert code == 0
    assert "mongo:27017" in printed
