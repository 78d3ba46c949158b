"""The arrows of the house: imports run downhill, and nobody knows what is not theirs to know."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "hydracore"

# From the ground up. A module imports from its own level and those above it in this list, never below.
LEVELS = [
    {"errors"},
    {
        "models",
        "events",
        "chance",
        "logs",
        "records",
        "secret",
        "complaints",
        "threads",
        "calls",
        "watchdog",
        "busyness",
        "recent",
        "template_folders",
        "shapes",
        "selftest",
        "jwk",
        "foreign",
        "leases",
        "signing",
        "notify",
    },
    {"meters"},
    {
        "config",
        "sources",
        "addresses",
        "hookspecs",
        "passwords",
        "listening",
        "prometheus",
        "sharing",
        "reporting",
        "tracing",
    },
    {
        "tokens",
        "keys",
        "calibration",
        "validation",
        "discovery",
        "store",
        "letters",
        "connections",
        "httptools_server",
        "neighbours",
        "counting",
        "sockets",
        "spans",
    },
    {"moving"},
    {"fitting"},
    {"loading"},
    {"registry"},
    {"limits", "mail", "refusals", "webhooks"},
    {"flows"},
    {"web"},
    {"core", "plugin"},
    {"server", "testing"},
    {"cli", "__init__", "__main__"},
]
# Where each of these may be imported; nowhere else.
ONLY_IN = {
    "tornado": (
        "web/",
        "core.py",
        "server.py",
        "connections.py",
        "httptools_server.py",
        "sockets.py",
        "testing/served.py",
        "webhooks/posting.py",
    ),
    "pymongo": ("store/",),
    "motor": ("store/drivers.py",),
    "mongomock_motor": ("store/drivers.py",),
    "argon2": ("passwords.py", "foreign/"),
    "bcrypt": ("foreign/",),
    "jwt": ("tokens.py", "jwk.py"),
    "pluggy": ("hookspecs.py", "loading.py"),
    "jsonschema": ("complaints.py", "validation.py"),
    "structlog": ("logs.py",),
    "click": ("cli/",),
    "jinja2": ("letters.py",),
    "email_validator": ("addresses.py",),
    "prometheus_client": ("prometheus.py", "sharing.py"),
    "opentelemetry": ("spans.py",),
    "uvloop": ("server.py",),
    "httptools": ("httptools_server.py",),
    "secrets": ("chance.py",),
    "pytest": ("testing/fixtures.py",),
}
# Optional dependencies, imported where they are chosen.
LATE = {
    "store/drivers.py": {"motor.motor_asyncio", "mongomock_motor"},
    "core.py": {"hydracore.prometheus", "hydracore.spans"},
    "server.py": {"uvloop", "hydracore.httptools_server", "hydracore.sharing", "hydracore.spans"},
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imported(tree: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or "", node
            if node.module == "hydracore":
                for alias in node.names:
                    yield f"hydracore.{alias.name}", node


def level(name: str) -> int:
    return next(number for number, rooms in enumerate(LEVELS) if name in rooms)


def room(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_room_has_its_level() -> None:
    """The drawing names every module and folder there is, and no other."""
    assert {room(file) for file in modules()} == set().union(*LEVELS)


@pytest.mark.parametrize("file", modules(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_arrows(file: Path) -> None:
    """Imports run downhill, and a library is known only where it belongs."""
    here, where = level(room(file)), file.relative_to(PACKAGE).as_posix()
    for name, _ in imported(ast.parse(file.read_text("utf-8"))):
        parts = name.split(".")
        if parts[0] == "hydracore" and len(parts) > 1 and parts[1] != "schemas":
            assert level(parts[1]) <= here, f"{where} imports {name}"
        if parts[0] in ONLY_IN:
            assert where.startswith(ONLY_IN[parts[0]]), f"{where} imports {name}"
        # Its suites are for plugins' authors; the one command that runs them is the exception.
        assert not name.startswith("hydracore.testing") or room(file) == "testing" or where == "cli/plugins.py"


def test_no_circles() -> None:
    """Rooms of one level form no circle, whole modules considered."""
    graph = {
        file: {
            target
            for name, _ in imported(ast.parse(file.read_text("utf-8")))
            if (target := _file_of(name)) is not None and target != file
        }
        for file in modules()
        if file.name not in ("__init__.py", "__main__.py")
    }
    done: set[Path] = set()

    def visit(file: Path, above: tuple[Path, ...]) -> None:
        assert file not in above, " -> ".join(path.stem for path in (*above, file))
        if file not in done and file in graph:
            for target in graph[file]:
                visit(target, (*above, file))
            done.add(file)

    for file in graph:
        visit(file, ())


def test_a_server_starts_without_what_single_commands_need() -> None:
    """What the command line imports at its start has nothing of the suites, the self-test or the measurements."""
    command = [sys.executable, "-c", "import sys, hydracore.cli; print(*sys.modules)"]
    found = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert "hydracore.server" in found
    assert not found & {"hydracore.calibration", "hydracore.selftest", "hydracore.testing", "unittest"}


def _file_of(name: str) -> Path | None:
    path = ROOT / (name.replace(".", "/") + ".py")
    return path if path.is_file() else None


@pytest.mark.parametrize("file", modules(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_late_imports(file: Path) -> None:
    """Imports stand at the head of a module, but for optional dependencies."""
    tree = ast.parse(file.read_text("utf-8"))
    top = {id(node) for node in tree.body} | {
        id(inner) for node in tree.body if isinstance(node, ast.If) for inner in node.body
    }
    allowed = LATE.get(file.relative_to(PACKAGE).as_posix(), set())
    late = {name for name, node in imported(tree) if id(node) not in top}
    assert late <= allowed


@pytest.mark.parametrize("file", sorted((ROOT / "plugins").rglob("*.py")), ids=lambda file: file.parent.name)
def test_plugins_use_the_public_door(file: Path) -> None:
    """What is on the shelf imports hydracore.plugin and nothing else of ours."""
    for name, _ in imported(ast.parse(file.read_text("utf-8"))):
        if name.split(".")[0] == "hydracore":
            assert name == "hydracore.plugin", f"{file} imports {name}"


def test_nothing_reads_the_clock_or_chance() -> None:
    """Time and chance come in at construction: only chance.py reads them."""
    for file in modules():
        text = file.read_text("utf-8")
        if room(file) in ("chance", "store", "server", "secret", "mail", "selftest"):
            continue  # Nonces, jitter, samples, and how long processes have run are nobody's domain time.
        for source in ("time.time(", "datetime.now(", "utcnow(", "import random", "token_bytes", "urandom(", "uuid"):
            if (file.name, source) != ("passwords.py", "urandom("):  # The hash that nobody has.
                assert source not in text, f"{file.name}: {source}"


def test_wheels_names() -> None:
    """Nothing named plugins or schemas is installed at the top level."""
    assert "plugins" not in sys.modules
    setup = (ROOT / "setup.py").read_text("utf-8")
    assert '"hydracore.schemas": "schemas"' in setup
