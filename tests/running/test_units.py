"""The units of docs/running, as systemd judges them."""

import re
import subprocess
import sys
from pathlib import Path

from processes import command, program

UNITS = Path(__file__).parent.parent.parent / "docs/running"


def section(unit: str, name: str) -> dict[str, list[str]]:
    """What a unit says there, key by key."""
    text = (UNITS / unit).read_text("utf-8")
    found: dict[str, list[str]] = {}
    part = re.split(r"^\[(\w+)\]$", text, flags=re.MULTILINE)
    lines = part[part.index(name) + 1].splitlines()
    for line in lines:
        if line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_systemd_verifies_them(tmp_path: Path) -> None:
    """systemd finds nothing to complain of in them."""
    analyze = program("systemd-analyze")
    for name in ("hydracore.service", "hydracore.socket"):
        # Installed here is what runs the tests.
        text = (UNITS / name).read_text("utf-8").replace("/opt/hydracore/bin/hydracore", sys.executable)
        (tmp_path / name).write_text(text)
    units = [str(tmp_path / name) for name in ("hydracore.service", "hydracore.socket")]
    judged = subprocess.run([analyze, "verify", *units], capture_output=True, text=True)
    assert (judged.returncode, judged.stderr) == (0, "")


def test_systemd_takes_it_for_safe() -> None:
    """The service's exposure, as systemd measures it, is 2.0 of 10 at most."""
    unit = UNITS / "hydracore.service"
    judged = [program("systemd-analyze"), "security", "--offline=yes", "--threshold=20", str(unit)]
    result = subprocess.run(judged, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_its_user(tmp_path: Path) -> None:
    """systemd makes the user that the service runs as, who can sign in nowhere."""
    (tmp_path / "etc").mkdir()
    made = [program("systemd-sysusers"), f"--root={tmp_path}", str(UNITS / "hydracore.sysusers")]
    subprocess.run(made, check=True, capture_output=True)
    [user] = section("hydracore.service", "Service")["User"]
    name, _, _, _, _, home, shell = (tmp_path / "etc/passwd").read_text().strip().split(":")
    assert (name, home, shell) == (user, "/var/lib/hydracore", "/usr/sbin/nologin")


def test_what_the_server_counts_on() -> None:
    """It says when it is ready; at the end the server alone is told, which stops what it has started, and has the time
    that it may take."""
    service = section("hydracore.service", "Service")
    assert service["Type"] == ["notify"]
    assert service["KillMode"] == ["mixed"]
    assert int(service["TimeoutStopSec"][0]) > 10 + 5 + 10  # server.drain_timeout, the workers' end, mongod's
    assert section("hydracore.socket", "Socket")["ListenStream"] == ["127.0.0.1:8000"]


def test_the_socket_stays() -> None:
    """No number of starts in a short time is too many: systemd would give up the socket with the service, and keep
    neither."""
    assert section("hydracore.service", "Unit")["StartLimitIntervalSec"] == ["0"]


def test_what_it_is_given(tmp_path: Path) -> None:
    """Its variables, with what systemd puts in for the folders, are a configuration that holds; the secret is in
    none."""
    service = section("hydracore.service", "Service")
    credentials = dict(each.split(":", 1) for each in service["LoadCredential"])
    for name in credentials:
        (tmp_path / name).write_text("s" * 64)
    given = dict(line.split("=", 1) for line in service["Environment"])
    given = {name: value.replace("%d", str(tmp_path)).replace("%S", str(tmp_path)) for name, value in given.items()}
    assert Path(given["HYDRACORE_DATA_DIR"]).relative_to(tmp_path).as_posix() == service["StateDirectory"][0]
    words = service["ExecStart"][0].split()
    (tmp_path / "config.toml").write_text("")
    assert words[1:] == ["--config", "/etc/hydracore/config.toml", "serve"]
    code, printed, _ = command(tmp_path, "--config", "config.toml", "check-config", **given)
    assert code == 0
    assert f"embedded in {given['HYDRACORE_DATA_DIR']}" in printed
