"""Folders of mail templates: what lies in them, whose it is, and what no mail would use."""

import difflib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydracore.errors import ConfigError, PluginError, StartupError

# Of the files that lie in a message's folder itself; every other language has a folder in there.
OWN_LANGUAGE = "en"
PARTS = ("subject.txt", "body.txt", "body.html")
# Values that a message may be filled with: what it is given, by example.
SAMPLE = "sample.json"
# What the HTML of all messages is made with.
SHARED = ("layout.html", "parts.html")

# As Accept-Language is read, in lower case; RFC 5646 has no languages of more than three letters.
_TAG = re.compile(r"[a-z]{2,3}(-[a-z0-9]{2,8})*")


@dataclass(frozen=True)
class TemplateFolder:
    """``<message>/<part>``, and ``<message>/<language>/<part>`` for translations. ``plugin`` brings it; "" for the
    deployer's own, ``mail.templates``."""

    path: Path
    plugin: str = ""

    def wrong(self, what: str) -> StartupError:
        """The error that says that it has ``what``."""
        if self.plugin:
            return PluginError(self.plugin, f"The plugin {self.plugin} has {what}")
        return ConfigError(f"The configuration is wrong. mail.templates: {self.path} has {what}")

    def files(self) -> Iterator[tuple[str, Path]]:
        """The templates and samples, each with its name in here."""
        for file in sorted(self.path.rglob("*")):
            name = file.relative_to(self.path)
            if file.is_file() and not any(part[0] == "." for part in name.parts):
                yield name.as_posix(), file

    def samples(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The messages that have values to be filled with, and these. Raises :class:`StartupError` for what is no
        JSON object."""
        for name, file in self.files():
            if file.name != SAMPLE:
                continue
            try:
                values = json.loads(file.read_text("utf-8"))
            except ValueError as error:
                raise self.wrong(f"a file {file} that is no JSON: {error}.") from error
            if not isinstance(values, dict):
                raise self.wrong(f"a file {file} that is no JSON object: it holds the variables with their values.")
            yield name.partition("/")[0], values


def misplaced(folder: TemplateFolder, messages: Collection[str], plugins: Collection[str]) -> Iterator[str]:
    """What lies where no mail would look for it, in words, each with the remedy: nobody would miss it. ``messages``
    are HydraCore's own; ``plugins`` are loaded, and may have some too."""

    def is_message(entry: Path) -> bool:
        owner, _, rest = entry.name.partition(".")
        return entry.is_dir() and (entry.name in messages or (rest != "" and owner in plugins))

    if folder.plugin:
        for entry in _inside(folder.path.parent):
            # Other templates than those of mails are the plugin's business.
            if entry.name != "mail" and any(map(is_message, (entry, *_inside(entry)))):
                yield f"mail templates in {entry}, where nothing looks for them: put them into {folder.path}."
    for entry in _inside(folder.path):
        if is_message(entry):
            yield from _no_parts(entry, of_its_own=entry.name.partition(".")[0] == folder.plugin)
        elif entry.is_dir():
            yield f"a template {entry}, and there is no such mail{_meant(entry.name, folder.plugin, messages, plugins)}"
        elif entry.name not in SHARED:
            yield (
                f"the file {entry}, which belongs to no mail: put it into the folder of one, say "
                f"{sorted(messages)[0]}. For all of them there are {' and '.join(SHARED)}."
            )


def _no_parts(message: Path, *, of_its_own: bool) -> Iterator[str]:
    yield from _no_part(message, (*PARTS, SAMPLE) if of_its_own else PARTS)
    for entry in (each for each in _inside(message) if each.is_dir()):
        if not _TAG.fullmatch(entry.name):
            tag = entry.name.lower().replace("_", "-")
            remedy = f"name it {tag}" if _TAG.fullmatch(tag) else "name it after one, such as de or pt-br"
            yield f"a template {entry}, which is no language's: {remedy}."
        elif entry.name == OWN_LANGUAGE:
            yield f"a template {entry}, which is the language of {message} itself: put its files there."
        else:
            yield from (f"a folder {each} in a translation: take it out." for each in _inside(entry) if each.is_dir())
            yield from _no_part(entry, PARTS)


def _no_part(folder: Path, parts: Collection[str]) -> Iterator[str]:
    for file in _inside(folder):
        if file.is_file() and file.name not in parts:
            yield f"a template {folder} that has {file.name}; it takes {', '.join(parts)}."


def _meant(name: str, plugin: str, messages: Collection[str], plugins: Collection[str]) -> str:
    owner, _, rest = name.partition(".")
    if near := difflib.get_close_matches(owner, plugins if rest else messages, 1):
        return f"; did you mean {near[0]}{'.' if rest else ''}{rest}?"
    if rest:
        return f": no plugin {owner} is loaded. Add it to plugins.enabled, or take the template out."
    ours = f": HydraCore's are {', '.join(sorted(messages))}"
    return f"{ours}; one of the plugin's own would be {plugin}.{owner}." if plugin else f"{ours}."


def _inside(folder: Path) -> list[Path]:
    """What is in a folder, but for what is hidden, such as .gitkeep."""
    return sorted(entry for entry in folder.iterdir() if entry.name[0] != ".") if folder.is_dir() else []
