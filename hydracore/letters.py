"""Letters: from templates to messages, in the reader's language where there is a translation."""

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from pathlib import Path
from typing import Any

from jinja2 import (
    ChoiceLoader,
    Environment,
    FileSystemLoader,
    PackageLoader,
    StrictUndefined,
    TemplateError,
    meta,
    select_autoescape,
)

from hydracore.errors import PluginError

# What the templates of each kind are given, besides ``email`` and ``product``.
GIVEN: Mapping[str, frozenset[str]] = {
    "verify_email": frozenset({"code", "minutes"}),
    "reset_password": frozenset({"link", "token", "minutes"}),
    "password_changed": frozenset(),
    "account_exists": frozenset(),
}
PARTS = ("subject.txt", "body.txt", "body.html")

# Headers are not folded: folding may split a long international address into another one.
_POLICY = policy.SMTP.clone(max_line_length=900)
_INTERNATIONAL = policy.SMTPUTF8.clone(max_line_length=900)  # RFC 6532: a local part beyond ASCII stays as it is.
# As Accept-Language is read, in lower case; RFC 5646 has no languages of more than three letters.
_TAG = re.compile(r"[a-z]{2,3}(-[a-z0-9]{2,8})*")


class Templates:
    """``<kind>/{subject.txt,body.txt,body.html}``, and ``<kind>/<language>/…`` for translations.

    ``folders`` are the plugins' ``templates``, by name, in order, whose ``mail`` is looked into: the first that has a
    file wins, ours come last. ``plugins`` are the names of all that are loaded, whose mails there may be.
    ``language`` is that of the files without one. Raises :class:`PluginError` for a plugin's template that is not
    whole, and for one that no mail would use.
    """

    def __init__(
        self,
        sender: str,
        product: str,
        *,
        language: str = "en",
        folders: Mapping[str, Path] | None = None,
        plugins: Collection[str] = (),
    ) -> None:
        folders = folders or {}
        self._sender = sender
        self._product = product
        self._language = language
        own = PackageLoader("hydracore", "templates/mail")
        self._jinja = Environment(
            loader=ChoiceLoader([*(FileSystemLoader(folder / "mail") for folder in folders.values()), own]),
            autoescape=select_autoescape(["html"]),
            undefined=StrictUndefined,
            keep_trailing_newline=True,
        )
        kinds = {name.partition("/")[0] for name in own.list_templates()}
        for plugin, folder in folders.items():
            for flaw in _misplaced(folder, plugin, kinds, {plugin, *plugins}):
                raise PluginError(plugin, f"The plugin {plugin} has {flaw}")
            self._check(plugin, folder / "mail", kinds)
        self._known = set(self._jinja.list_templates())

    def compose(
        self, kind: str, to: str, values: Mapping[str, Any], message_id: str, now: datetime, languages: str = ""
    ) -> EmailMessage:
        """The whole message. ``languages`` are tags, the best first. Raises ``ValueError`` for an address that is no
        header's text, ``LookupError`` for a kind without templates."""
        if f"{kind}/{PARTS[0]}" not in self._known:
            raise LookupError(f"there is no template {kind}/{PARTS[0]}")
        where = f"{kind}/{self._translation(kind, languages.split(','))}"
        values = {"product": self._product, "email": to, **values}
        message = EmailMessage(policy=_POLICY if to.isascii() else _INTERNATIONAL)
        message["From"] = self._sender
        message["To"] = to
        message["Subject"] = self._render(f"{where}subject.txt", values).strip()
        message["Date"] = format_datetime(now)
        domain = parseaddr(self._sender)[1].rpartition("@")[2]
        message["Message-ID"] = f"<{message_id}@{domain}>"
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no vacation replies
        _set(message.set_content, self._render(f"{where}body.txt", values))
        _set(message.add_alternative, self._render(f"{where}body.html", values), subtype="html")
        return message

    def _translation(self, kind: str, languages: Sequence[str]) -> str:
        """``de/`` where the reader prefers German and there is German; "" for the language as shipped."""
        for tag in languages:
            for candidate in (tag, tag.partition("-")[0]):
                if candidate == self._language:
                    return ""
                if candidate and f"{kind}/{candidate}/{PARTS[0]}" in self._known:
                    return f"{candidate}/"
        return ""

    def _render(self, name: str, values: Mapping[str, Any]) -> str:
        return self._jinja.get_template(name).render(values)

    def _check(self, plugin: str, folder: Path, ours: set[str]) -> None:
        for letter in _letters(folder):
            name = letter.relative_to(folder).as_posix()
            there = {file.name for file in _inside(letter) if file.is_file()}
            # What replaces a part of ours leaves us the others; a letter of its own, or a translation, is whole.
            absent = set() if name in ours else set(PARTS) - there
            if absent or there - set(PARTS):
                wrong = f"lacks {', '.join(sorted(absent))}" if absent else f"has {', '.join(there - set(PARTS))}"
                raise PluginError(
                    plugin, f"The plugin {plugin} has a template {letter} that {wrong}; it takes {', '.join(PARTS)}."
                )
            for part in sorted(there):
                try:
                    self._jinja.get_template(f"{name}/{part}")
                    self._check_variables(plugin, letter / part, name.partition("/")[0])
                except (TemplateError, UnicodeDecodeError) as error:
                    raise PluginError(
                        plugin, f"The plugin {plugin} has a template {letter / part} that is not valid: {error}."
                    ) from error

    def _check_variables(self, plugin: str, file: Path, kind: str) -> None:
        """What takes the place of one of ours is given what ours is: an unknown variable would fail each mail."""
        if kind not in GIVEN:
            return  # A plugin's own: what it is given is the plugin's business.
        given = {"email", "product", *GIVEN[kind]}
        wanted = meta.find_undeclared_variables(self._jinja.parse(file.read_text("utf-8")))
        if unknown := sorted(wanted - given):
            raise PluginError(
                plugin,
                f"The plugin {plugin} has a template {file} that uses {', '.join(unknown)}, which {kind} is not given "
                f"(given are: {', '.join(sorted(given))}).",
            )


def _letters(folder: Path) -> Iterator[Path]:
    """The folders that hold parts: one a kind, and one a translation of it."""
    for kind in _inside(folder):
        translations = [entry for entry in _inside(kind) if entry.is_dir()]
        if any(entry.is_file() for entry in _inside(kind)) or not translations:
            yield kind
        yield from translations


def _misplaced(folder: Path, plugin: str, ours: Collection[str], plugins: Collection[str]) -> Iterator[str]:
    """What lies where no mail would look for it, in words, each with the remedy: nobody would miss it."""

    def is_mail(kind: Path) -> bool:
        owner, _, rest = kind.name.partition(".")
        return kind.is_dir() and (kind.name in ours or (rest != "" and owner in plugins))

    for entry in _inside(folder):
        # Other templates than those of mails are the plugin's business.
        if entry.name != "mail" and any(map(is_mail, (entry, *_inside(entry)))):
            yield f"mail templates in {entry}, where nothing looks for them: put them into {folder / 'mail'}."
    for kind in _inside(folder / "mail"):
        if not kind.is_dir():
            yield f"the file {kind}, which belongs to no mail: put it into the folder of one, say {sorted(ours)[0]}."
        elif not is_mail(kind):
            yield f"a template {kind}, and there is no such mail{_meant(kind.name, plugin, ours, plugins)}"
        else:
            yield from _no_translations(kind)


def _no_translations(kind: Path) -> Iterator[str]:
    for entry in _inside(kind):
        if entry.is_dir() and not _TAG.fullmatch(entry.name):
            tag = entry.name.lower().replace("_", "-")
            remedy = f"name it {tag}" if _TAG.fullmatch(tag) else "name it after one, such as de or pt-br"
            yield f"a template {entry}, which is no language's: {remedy}."
        elif entry.is_dir():
            yield from (f"a folder {each} in a translation: take it out." for each in _inside(entry) if each.is_dir())


def _meant(kind: str, plugin: str, ours: Collection[str], plugins: Collection[str]) -> str:
    owner, _, rest = kind.partition(".")
    if near := difflib.get_close_matches(owner, plugins if rest else ours, 1):
        return f"; did you mean {near[0]}{'.' if rest else ''}{rest}?"
    if rest:
        return f": no plugin {owner} is loaded. Add it to plugins.enabled, or take the template out."
    return f": HydraCore's are {', '.join(sorted(ours))}; one of the plugin's own would be {plugin}.{owner}."


def _inside(folder: Path) -> list[Path]:
    """What is in a folder, but for what is hidden, such as .gitkeep."""
    return sorted(entry for entry in folder.iterdir() if entry.name[0] != ".") if folder.is_dir() else []


def read_letter(raw: bytes) -> EmailMessage:
    """A message from the bytes that it was kept as."""
    return message_from_bytes(raw, policy=_POLICY if raw.isascii() else _INTERNATIONAL)


def _set(put: Callable[..., None], text: str, **how: str) -> None:
    # Lines of up to 998 octets may go as they are (RFC 5322, 2.1.1): a folder's files stay readable.
    plain = text.isascii() and max(map(len, text.splitlines()), default=0) < 998
    put(text, **how, **({"cte": "7bit"} if plain else {}))
