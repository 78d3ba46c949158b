"""A new plugin's project, from the templates."""

import re
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from hydracore.cli.output import Failed
from hydracore.discovery import installed
from hydracore.fitting import name_flaw
from hydracore.hookspecs import API_VERSION


def write_project(name: str, folder: Path) -> list[Path]:
    """Write it into ``folder``, which must not be there yet; the files. Raises :class:`Failed`."""
    if flaw := name_flaw(name):
        raise Failed(f"{name} is no plugin's name: {flaw}.")
    if name in installed():
        raise Failed(f"There is a plugin named {name} already: {installed()[name].distribution}'s.")
    if folder.exists():
        raise Failed(f"{folder} is there already. Choose another --folder.")
    words = {
        "NAME": name,
        "CLASS": "".join(part.capitalize() for part in name.split("_")),
        "PATH": name.replace("_", "-"),
        "API_VERSION": API_VERSION,
    }
    written: list[Path] = []
    try:
        _write(resources.files("hydracore") / "templates" / "project", folder, words, written)
    except OSError as error:
        raise Failed(f"{folder} cannot be written: {error.strerror}.") from error
    return written


def _write(source: Traversable, target: Path, words: dict[str, str], written: list[Path]) -> None:
    target.mkdir(parents=True)
    for entry in sorted(source.iterdir(), key=lambda each: each.name):
        name = _filled(entry.name.removesuffix(".in"), words)
        if entry.is_dir():
            _write(entry, target / name, words, written)
        else:
            file = target / (".gitignore" if name == "gitignore" else name)
            file.write_text(_filled(entry.read_text("utf-8"), words), "utf-8")
            written.append(file)


def _filled(text: str, words: dict[str, str]) -> str:
    return re.sub("|".join(words), lambda match: words[match[0]], text)
