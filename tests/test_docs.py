"""The documents say what the code says."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


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
