"""Letters: from templates to messages, in the reader's language where there is a translation."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError, meta, nodes, select_autoescape

from hydracore.errors import ConfigError
from hydracore.template_folders import OWN_LANGUAGE, PARTS, SAMPLE, SHARED, TemplateFolder, misplaced

_OURS = TemplateFolder(Path(__file__).parent / "templates/mail")
# What every template is given, besides its message's own.
_ALWAYS = frozenset({"email", "mail", "product"})
# Written from right to left (by their usual script).
_RIGHT_TO_LEFT = frozenset({"ar", "ckb", "dv", "fa", "he", "ps", "sd", "ug", "ur", "yi"})

# Headers are not folded: folding may split a long international address into another one.
_POLICY = policy.SMTP.clone(max_line_length=900)
_INTERNATIONAL = policy.SMTPUTF8.clone(max_line_length=900)  # RFC 6532: a local part beyond ASCII stays as it is.


class Templates:
    """``<message>/{subject.txt,body.txt,body.html}`` in English, and ``<message>/<language>/…`` in others.

    ``folders`` come before ours, in order: the first that has a file wins. ``plugins`` are the names of all that are
    loaded, whose mails there may be. ``language`` is for readers whose own is unknown or has no translation. Raises
    :class:`StartupError` for a template that is not whole, cannot be filled in, or that no mail would use.

    ``languages`` are those that each message is in.
    """

    def __init__(
        self,
        sender: str,
        product: str,
        *,
        language: str = OWN_LANGUAGE,
        folders: Sequence[TemplateFolder] = (),
        plugins: Collection[str] = (),
    ) -> None:
        self._sender = sender
        self._product = product
        self._language = language
        self._folders = tuple(folders)
        self._jinja = Environment(
            loader=FileSystemLoader([folder.path for folder in (*folders, _OURS)]),
            autoescape=select_autoescape(["html"]),
            undefined=StrictUndefined,
            keep_trailing_newline=True,
        )
        self._known = set(self._jinja.list_templates())
        self._samples = dict(_OURS.samples())
        ours = sorted({name.partition("/")[0] for name, _ in _OURS.files()} - set(SHARED))
        for folder in folders:
            for flaw in misplaced(folder, ours, plugins):
                raise folder.wrong(flaw)
            self._samples.update(folder.samples())
        self.languages = dict(self._found())
        for folder in folders:
            self._check_whole(folder)
            self._check_each(folder)
        self._check_filled()
        self._check_language()

    def compose(
        self, kind: str, to: str, values: Mapping[str, Any], message_id: str, now: datetime, languages: str = ""
    ) -> EmailMessage:
        """The whole message. ``languages`` are tags, the best first. Raises ``ValueError`` for an address that is no
        header's text, ``LookupError`` for a kind without templates."""
        if kind not in self.languages:
            raise LookupError(f"there is no template {kind}/{PARTS[0]}")
        language = self.language_of(kind, languages)
        subject, text, html = self._filled(kind, language, {"email": to, **values})
        message = EmailMessage(policy=_POLICY if to.isascii() else _INTERNATIONAL)
        message["From"] = self._sender
        message["To"] = to
        message["Subject"] = subject
        message["Date"] = format_datetime(now)
        domain = parseaddr(self._sender)[1].rpartition("@")[2]
        message["Message-ID"] = f"<{message_id}@{domain}>"
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no vacation replies
        _set(message.set_content, text)
        _set(message.add_alternative, html, subtype="html")
        message["Content-Language"] = language  # Last: it would be taken for the text's alone.
        return message

    def language_of(self, kind: str, languages: str = "") -> str:
        """The one that a reader gets a message in: of their own, then of ``mail.language``, then as it was written."""
        wanted = *languages.split(","), self._language, OWN_LANGUAGE
        return self._translation(kind, wanted) or min(self.languages[kind])

    def example(self, kind: str) -> Mapping[str, Any]:
        """Values to look at a message with: its sample; without one, its variables' names in place of their values."""
        if kind in self._samples:
            return self._samples[kind]
        names = (f"{_where(kind, language)}/{part}" for language in self.languages[kind] for part in PARTS)
        wanted: set[str] = set().union(*(self._variables(self._source(name)) for name in names))
        return {name: f"[{name}]" for name in sorted(wanted - _ALWAYS)}

    def has_sample(self, kind: str) -> bool:
        return kind in self._samples

    def _translation(self, kind: str, wanted: Sequence[str]) -> str | None:
        """The first that there is; of each the best match (RFC 4647, section 3.4): de-at, then de."""
        for tag in wanted:
            parts = tag.split("-")
            for end in range(len(parts), 0, -1):
                if (candidate := "-".join(parts[:end])) in self.languages[kind]:
                    return candidate
        return None

    def _filled(self, kind: str, language: str, values: Mapping[str, Any]) -> tuple[str, str, str]:
        """The subject, the text and the HTML."""
        direction = "rtl" if language.partition("-")[0] in _RIGHT_TO_LEFT else "ltr"
        mail = {"language": language, "direction": direction, "subject": ""}
        every = {"product": self._product, "mail": mail, **values}
        subject, text, html = (self._jinja.get_template(f"{_where(kind, language)}/{part}") for part in PARTS)
        mail["subject"] = subject.render(every).strip()
        return mail["subject"], text.render(every), html.render(every)

    # -- what is checked at the start --------------------------------------------------------------

    def _found(self) -> Iterator[tuple[str, frozenset[str]]]:
        """Messages, and the languages that they are in."""
        folders = {name.rpartition("/")[0] for name in self._known if name.endswith(PARTS)} - {""}
        for message in sorted({folder.partition("/")[0] for folder in folders}):
            tags = {each.partition("/")[2] or OWN_LANGUAGE for each in folders if each.partition("/")[0] == message}
            yield message, frozenset(tags)

    def _check_whole(self, folder: TemplateFolder) -> None:
        """What replaces a part of another's leaves that the rest; a mail of its own, or a translation, is whole."""
        for where in sorted({name.rpartition("/")[0] for name, file in folder.files() if file.name in PARTS}):
            if absent := sorted(part for part in PARTS if f"{where}/{part}" not in self._known):
                lacks = f"that lacks {', '.join(absent)}; it takes {', '.join(PARTS)}."
                raise folder.wrong(f"a template {folder.path / where} {lacks}")

    def _check_each(self, folder: TemplateFolder) -> None:
        """Each is a template, and wants nothing but what it is given: anything else would fail each mail."""
        for name, file in folder.files():
            if file.name == SAMPLE:
                continue
            message = name.partition("/")[0]
            told = message in self._samples or message in SHARED
            try:
                text = file.read_text("utf-8")
                wanted = self._variables(text)
                if not told:
                    self._jinja.compile(text)  # Others are when they are filled in.
            except (TemplateError, UnicodeDecodeError) as error:
                raise folder.wrong(f"a template {file} that is not valid: {error}.") from error
            if not told:
                continue  # What it is given is its plugin's business.
            given = _ALWAYS | self._samples.get(message, {}).keys()
            if unknown := sorted(wanted - given):
                raise folder.wrong(
                    f"a template {file} that uses {', '.join(unknown)}, which {message} is not given "
                    f"(given are: {', '.join(sorted(given))})."
                )

    def _check_filled(self) -> None:
        """Each message can be filled in, in each language, where anything in it is not ours: ours alone can."""
        for message in sorted(self.languages.keys() & self._samples.keys()):
            for language in sorted(self.languages[message]):
                names = *(f"{_where(message, language)}/{part}" for part in PARTS), *SHARED
                brought = list(filter(None, map(self._brought, names)))
                if brought:
                    # Whoever comes first has put something in place of what fitted.
                    folder, file = min(brought, key=lambda each: self._folders.index(each[0]))
                    try:
                        self._filled(message, language, {"email": "ada@example.com", **self._samples[message]})
                    except Exception as error:  # Whatever a filter or a test of Jinja's raises.
                        what = f"cannot be filled in for {message} in {language}: {error}."
                        raise folder.wrong(f"a template {file} that {what}") from error

    def _check_language(self) -> None:
        if all(self._translation(message, (self._language,)) is None for message in self.languages):
            there = ", ".join(sorted(frozenset().union(*self.languages.values())))
            raise ConfigError(
                f"The configuration is wrong. mail.language: there is no mail in {self._language}, there is in {there}."
            )

    def _brought(self, name: str) -> tuple[TemplateFolder, Path] | None:
        """Who brings the template of that name; None where it is ours."""
        found = ((folder, folder.path / name) for folder in self._folders)
        return next((each for each in found if each[1].is_file()), None)

    def _variables(self, source: str) -> set[str]:
        tree = self._jinja.parse(source)
        # A block may use what stands beside it, in the template itself, which Jinja does not count as declared.
        stored = {name.name for name in tree.find_all(nodes.Name) if name.ctx == "store"}
        made = {each.name for each in tree.find_all(nodes.Macro)} | {
            each.target for each in tree.find_all(nodes.Import)
        }
        return meta.find_undeclared_variables(tree) - stored - made

    def _source(self, name: str) -> str:
        brought = self._brought(name)
        return (brought[1] if brought else _OURS.path / name).read_text("utf-8")


def read_letter(raw: bytes) -> EmailMessage:
    """A message from the bytes that it was kept as."""
    return message_from_bytes(raw, policy=_POLICY if raw.isascii() else _INTERNATIONAL)


def _where(kind: str, language: str) -> str:
    return kind if language == OWN_LANGUAGE else f"{kind}/{language}"


def _set(put: Callable[..., None], text: str, **how: str) -> None:
    # Lines of up to 998 octets may go as they are (RFC 5322, 2.1.1): a folder's files stay readable.
    plain = text.isascii() and max(map(len, text.splitlines()), default=0) < 998
    put(text, **how, **({"cte": "7bit"} if plain else {}))
