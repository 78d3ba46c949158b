"""What is installed."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_wheel(tmp_path: Path) -> None:
    """The wheel holds every schema, template and data file, and nothing at the top level but our own names."""
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    source = tmp_path / "source"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([*build, str(source)], check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    for folder, inside in (("hydracore", "hydracore"), ("schemas", "hydracore/schemas"), ("plugins", "")):
        for file in (source / folder).rglob("*"):
            if file.is_file():
                assert (Path(inside) / file.relative_to(source / folder)).as_posix() in held
    tops = {name.partition("/")[0] for name in held if ".dist-info/" not in name}
    assert all(top.startswith("hydracore") for top in tops), tops
