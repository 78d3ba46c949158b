"""Writes docs/plugins.md from docs/plugins.in.md and what the code says of itself: ``make docs``."""

import dataclasses
import inspect
import re
import textwrap
from pathlib import Path

from hydracore import events, hookspecs, plugin
from hydracore.discovery import installed

HERE = Path(__file__).parent
HEAD = "<!-- Written by docs/generate.py from docs/plugins.in.md and the code: change those, then make docs. -->\n\n"


def pages() -> str:
    """The whole of docs/plugins.md."""
    text = (HERE / "plugins.in.md").read_text("utf-8")
    for name, written in (("hooks", hooks), ("records", records), ("events", event_table), ("shelf", shelf)):
        text = text.replace(f"{{{{ {name} }}}}", written())
    return HEAD + text.replace("{{ version }}", hookspecs.API_VERSION)


def hooks() -> str:
    """A section for each hook: signature, since when, contract, example."""
    names = [name for name in vars(hookspecs) if name.startswith("hydracore_")]
    return "\n".join(_hook(name) for name in names).rstrip()


def _hook(name: str) -> str:
    function = getattr(hookspecs, name)
    words, _, example = inspect.cleandoc(function.__doc__).partition("Example::\n")
    since = re.search(r"\s*Since ([0-9.]+)\.", words)
    if since is None:
        raise SystemExit(f"{name} does not say since when")
    kind = "async def" if inspect.iscoroutinefunction(function) else "def"
    arguments = ", ".join(["self", *inspect.signature(function).parameters])
    return (
        f"### {name}\n\n`{kind} {name}({arguments})` · since {since[1]}\n\n"
        f"{_prose(words.replace(since[0], ''))}\n\n```python\n{textwrap.dedent(example).strip()}\n```\n"
    )


def records() -> str:
    """What hooks take and return: fields and contract."""
    kinds = [getattr(plugin, name) for name in plugin.__all__]
    found = [kind for kind in kinds if dataclasses.is_dataclass(kind) and isinstance(kind, type)]
    return "\n".join(_record(kind) for kind in found).rstrip() + "\n\n" + _context()


def _record(kind: type) -> str:
    fields = ", ".join(
        field.name if field.default is field.default_factory is dataclasses.MISSING else f"{field.name}=…"
        for field in dataclasses.fields(kind)
    )
    return f"### {kind.__name__}\n\n`{kind.__name__}({fields})`\n\n{_prose(inspect.cleandoc(kind.__doc__ or ''))}\n"


def _context() -> str:
    lines = [f"### Context\n\n{_prose(inspect.cleandoc(plugin.Context.__doc__ or ''))}\n"]
    for name, method in vars(plugin.Context).items():
        if not name.startswith("_") and callable(method):
            signature = ", ".join(str(each) for each in inspect.signature(method).parameters if each != "self")
            start = "await " if inspect.iscoroutinefunction(method) else ""
            lines.append(f"- `{start}context.{name}({signature})`: {_prose(' '.join((method.__doc__ or '').split()))}")
    return "\n".join(lines)


def event_table() -> str:
    """Every event with its fields."""
    own = [kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, events.Event)]
    common = {field.name for field in dataclasses.fields(events.Event)}
    rows = ["| event | fields | what happened |", "| --- | --- | --- |"]
    for kind in own:
        if kind in (events.Event, events.UserEvent, events.SessionEvent):
            continue
        fields = ", ".join(f"`{field.name}`" for field in dataclasses.fields(kind) if field.name not in common)
        rows.append(f"| `{kind.__name__}` | {fields} | {_prose(' '.join((kind.__doc__ or '').split()))} |")
    return "\n".join(rows)


def shelf() -> str:
    """The plugins that come along, each with the first paragraph of its own words."""
    rows = ["| plugin | what it does |", "| --- | --- |"]
    for name, found in sorted(installed().items()):
        if found.distribution == "hydracore" and found.folder is not None:
            module = (found.folder / "__init__.py").read_text("utf-8").split('"""')[1]
            rows.append(f"| `{name}` | {_prose(' '.join(module.split(chr(10) * 2)[0].split()))} |")
    return "\n".join(rows)


def _prose(text: str) -> str:
    """Docstrings' marks as Markdown's."""
    text = re.sub(r":(?:class|func|data|meth):`[~!]?(?:[\w.]*\.)?(\w+)`", r"`\1`", text)
    return text.replace("``", "`").strip()


if __name__ == "__main__":
    (HERE / "plugins.md").write_text(pages(), "utf-8")
