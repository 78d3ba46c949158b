"""docs/asvs.md says what the requirements and the tests say."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from asking import page

HERE = Path(__file__).parent
ROW = re.compile(r"\| (\d+\.\d+\.\d+) \((\d)\) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|")
WITHOUT = ("left to the deployer: ", "does not apply: ", "not met: ")


def requirements() -> dict[str, str]:
    """The level of each requirement, by its number."""
    lines = (HERE / "requirements.txt").read_text("utf-8").splitlines()
    pairs = [line.split() for line in lines if not line.startswith("#")]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def written() -> Iterator[str]:
    for file in HERE.glob("test_*.py"):
        for node in ast.parse(file.read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                yield node.name


def test_the_table() -> None:
    """Each requirement has one row, with its level, in order; a row without a test says why; each test that a row names
    is there and is of that requirement, and each test is named."""
    asked = requirements()
    chapters = {number.partition(".")[0] for number in asked}
    assert (len(asked), chapters) == (133, {"2", "3", "4", "6", "7", "9"})
    lines = [line for line in page("docs/asvs.md").splitlines() if re.match(r"\| *\d", line)]
    rows = [ROW.fullmatch(line) for line in lines]
    assert [line for line, row in zip(lines, rows, strict=True) if row is None] == []
    cells = [row.groups() for row in rows if row]
    assert [(number, level) for number, level, *_ in cells] == list(asked.items())
    named: list[str] = []
    for number, _, asks, how, proof in cells:
        assert asks.strip(), number
        assert how.strip(), number
        mine = re.findall(r"`(test_\w+)`", proof)
        prefix = f"test_v{number.replace('.', '_')}_"
        assert [test for test in mine if not test.startswith(prefix)] == [], number
        if not proof.startswith(WITHOUT):
            assert mine, number
            assert proof == ", ".join(f"`{test}`" for test in mine), number
        named += mine
    there = [name for name in written() if name != "test_the_table"]
    assert sorted(named) == sorted(there)
