"""What ``hydracore bench hash`` measures."""

import json
import re
from functools import partial
from pathlib import Path

import pytest
from processes import command

from hydracore.calibration import EQUIVALENTS, Measured, build, measure, sustaining
from hydracore.config import load
from hydracore.passwords import TESTING, HashCost, hasher


def test_measure() -> None:
    """A hash that takes twice the passes costs more, and each has its memory counted once a thread."""
    cheap = measure(HashCost(1024, 1, 1), 2, 0.2)
    dear = measure(HashCost(1024, 20, 1), 2, 0.2)
    assert cheap.alone < dear.alone
    assert cheap.rate > dear.rate > 0
    assert cheap.memory_mib == 2


def test_equivalents() -> None:
    """What is offered is what OWASP and ASVS 5.0, 11.4.2, take for enough: more passes where there is less memory."""
    for cost in EQUIVALENTS:
        least = {1: 47104, 2: 19456, 3: 12288, 4: 9216, 5: 7168}[cost.time_cost]
        assert (cost.memory_kib, cost.parallelism) == (least, 1)
        assert f"m={least},t={cost.time_cost},p=1" in hasher(cost).hash("x")


def test_sustaining() -> None:
    """Half the rate buys twice the memory, in whole MiB and up to a GiB; a fifth of the cores is left for all else."""
    measured = Measured(HashCost(20480, 2, 1), 20, 80, 40)
    assert sustaining(measured, 64) == 20480
    assert sustaining(measured, 32) == 2 * 20480
    assert sustaining(measured, 41) % 1024 == 0
    assert sustaining(measured, 0.01) == 1024 * 1024


def test_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A library whose inner loop has 256-bit multiplications is one for AVX2; the one of the wheel has none."""
    assert build() in ("generic", "AVX2", "unknown")
    library = tmp_path / "library.so"
    monkeypatch.setattr("hydracore.calibration._libraries", lambda: [library])
    monkeypatch.setattr("hydracore.calibration.platform.machine", lambda: "x86_64")
    for code, expected in (
        (bytes(10_000), "generic"),
        (b"\xc5\xf1\xf4\xc0" * 30, "generic"),  # On 128 bits.
        (b"\xc5\xf5\xf4\xc0" * 30, "AVX2"),
        (b"\x62\xf1\xf5\x28\xf4\xc0" * 30, "AVX2"),
    ):
        library.write_bytes(code)
        assert build() == expected, code[:8]
    monkeypatch.setattr("hydracore.calibration._libraries", list)
    assert build() == "unknown"
    monkeypatch.setattr("hydracore.calibration.platform.machine", lambda: "aarch64")
    assert build() == "unknown"


def test_command(tmp_path: Path) -> None:
    """It tells what the configuration costs, what is as strong, which build there is, and what to set for a rate."""
    run = partial(command, tmp_path, "bench", "hash", "--seconds", "0.1")
    code, out, said = run("--sustain", "0.5", HYDRACORE_PASSWORD__MEMORY_KIB="20480")
    assert code == 0, said
    rows = out.splitlines()
    assert " ".join(rows[0].split()) == "memory_kib time_cost parallelism a hash, ms a second memory, MiB"
    assert rows[1].split()[:3] == ["20480", "2", "1"]
    assert len(rows) == 2 + len(EQUIVALENTS)
    assert "argon2id in" in said
    [memory] = re.findall("For 0.5 sign-ins a second: memory_kib = ([0-9]+), time_cost = 2", said)
    assert load(environment={}, overrides={"password": {"memory_kib": int(memory)}}).password.memory_kib >= 19456
    rows = json.loads(run("--json")[1])
    assert {row["build"] for row in rows} == {build()}
    assert all(row["a second"] > 0 for row in rows)


def test_too_much_is_asked(tmp_path: Path) -> None:
    """For a rate that would take weaker hashes it says so, and ends with 1."""
    code, _, said = command(tmp_path, "bench", "hash", "--seconds", "0.1", "--sustain", "1000000")
    assert code == 1
    assert "add cores or nodes" in said
    assert TESTING.memory_kib < 1024  # What nobody is ever told to set.
