"""The mails themselves: every one in every language, alike in text and HTML, plain and accessible."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from html.parser import HTMLParser
from pathlib import Path

import pytest

from hydracore import HydraCore, StartupError
from hydracore.config import load
from hydracore.letters import Templates
from hydracore.template_folders import TemplateFolder

LANGUAGES = ("de", "en", "es", "fr", "zh")
ROOT = Path(__file__).parent.parent
INVITES = TemplateFolder(ROOT / "plugins/hydracore_invites/templates/mail", "invites")
OURS = Templates("HydraCore <no-reply@example.org>", "Hydra & Co", folders=[INVITES], plugins=["invites"])
EVERY = [(message, language) for message in OURS.languages for language in LANGUAGES]
ADDRESS = "ada@example.com"


def letter(message: str, languages: str, templates: Templates = OURS) -> EmailMessage:
    return templates.compose(message, ADDRESS, templates.example(message), "1", datetime.now(UTC), languages)


def text_of(composed: EmailMessage, kind: str = "plain") -> str:
    part = composed.get_body((kind,))
    assert part is not None
    return str(part.get_content())


class Read(HTMLParser):
    """A mail's HTML as a screen reader has it: the words, with links' targets in place of their labels; every tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.hidden: list[str] = []
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append((tag, values))
        if tag in ("meta", "br"):
            return
        self._open.append("hidden" if "display:none" in (values.get("style") or "") else tag)
        if tag == "a":
            self.words.append(values["href"] or "")

    def handle_endtag(self, tag: str) -> None:
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if "hidden" in self._open:
            self.hidden += data.split()
        elif "body" in self._open and "a" not in self._open:
            self.words += data.split()

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [values for each, values in self.tags if each == tag]


def test_every_language() -> None:
    """Every message, the shelf's too, is in every language."""
    assert set(OURS.languages) == {
        *("verify_email", "reset_password", "password_changed", "account_exists"),
        *("change_email", "address_taken", "email_changed", "account_closed"),
        "invites.invitation",
    }
    assert {tuple(sorted(found)) for found in OURS.languages.values()} == {LANGUAGES}


def test_the_table() -> None:
    """docs/mail.md has every message of HydraCore's own, with what it is given."""
    table = (ROOT / "docs/mail.md").read_text("utf-8")
    for message in (each for each in OURS.languages if "." not in each):
        [row] = [line for line in table.splitlines() if line.startswith(f"| `{message}` |")]
        assert set(re.findall(r"`(\w+)`", row.rsplit("|", 2)[1])) == set(OURS.example(message))


@pytest.mark.parametrize(("message", "language"), EVERY)
def test_says_the_same(message: str, language: str) -> None:
    """A translation holds all that the English one does: each variable's value, in text and in HTML, and as many
    paragraphs; its subject is its own."""
    ours, english = letter(message, language), letter(message, "en")
    values = {"email": ADDRESS, "product": "Hydra & Co", **OURS.example(message)}
    for kind in ("plain", "html"):
        said = [text_of(each, kind).replace("&amp;", "&") for each in (ours, english)]
        for name, value in values.items():
            assert str(value) in said[1], name
            assert str(value) in said[0], name
    assert text_of(ours).count("\n\n") == text_of(english).count("\n\n")
    assert "Hydra & Co" in ours["Subject"]
    assert language == "en" or ours["Subject"] != english["Subject"]
    assert ours["Content-Language"] == language


@pytest.mark.parametrize(("message", "language"), EVERY)
def test_text_and_html_are_equal(message: str, language: str) -> None:
    """The text says what the HTML says, word for word; what clients show of it beforehand is in it too, and no code."""
    composed = letter(message, language)
    read, text = Read(text_of(composed, "html")), text_of(composed)
    assert read.words == [*str(composed["Subject"]).split(), *text.split()]
    assert read.hidden
    assert " ".join(read.hidden) in " ".join(text.split())
    assert OURS.example(message).get("code", "-") not in (*read.hidden, *composed["Subject"].split())


@pytest.mark.parametrize(("message", "language"), EVERY)
def test_html(message: str, language: str) -> None:
    """The HTML says its language and direction, has a title and one heading, tables that are no tables, nothing from
    elsewhere, and no address but the link that it is about."""
    composed = letter(message, language)
    html = text_of(composed, "html")
    read = Read(html)
    for tag in (read.all("html"), [each for each in read.all("div") if "role" in each]):
        assert [(each["lang"], each["dir"]) for each in tag] == [(language, "ltr")]
    assert f"<title>{composed['Subject']}</title>".replace("&", "&amp;") in html
    assert len(read.all("h1")) == 1
    assert read.all("table")
    assert {each.get("role") for each in read.all("table")} == {"presentation"}
    assert {tag for tag, _ in read.tags} <= {
        *("html", "head", "meta", "title", "style", "body", "div", "table", "tr", "td", "h1", "p", "a"),
    }
    link = OURS.example(message).get("link", "")
    assert re.findall(r"(?:https?:)?//[^\"\s]+", html) == ([link] if link else [])
    assert [each["href"] for each in read.all("a")] == ([link] if link else [])
    assert "url(" not in html.replace("url=no", "")


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast(theme: str) -> None:
    """Words stand out from what they stand on by more than WCAG's AA asks, in light and in dark."""
    html = text_of(letter("reset_password", "en"), "html") + text_of(letter("verify_email", "en"), "html")
    dark = "\n".join(re.findall(r"^  \..*$", html, re.MULTILINE))
    declared = re.findall(r"\{([^}]*)\}", dark) if theme == "dark" else re.findall(r'style="([^"]*)"', html)
    pairs, words = set(), set()
    for each in declared:
        ground = re.search(r"background:\s*(#[0-9a-f]{6})", each)
        word = re.search(r"(?<![-a-z])color:\s*(#[0-9a-f]{6})", each)
        if word and ground:
            pairs.add((word[1], ground[1]))
        elif word:
            words.add(word[1])
    cards = [ground for _, ground in pairs if abs(luminance(ground) - (theme == "light")) < 0.02]
    assert len(pairs) >= 3
    assert words
    assert cards
    for word, ground in {*pairs, *((word, card) for word in words for card in cards)}:
        assert contrast(word, ground) > 5, (word, ground)


# -- which language --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        ("de-at,en", "de"),
        ("zh-hans-cn", "zh"),
        ("nl,fr-ca,de", "fr"),
        ("en-gb,de", "en"),
        ("nl", "es"),
        ("", "es"),
        ("d", "es"),
    ],
)
def test_the_best_match(asked: str, got: str) -> None:
    """Of the languages that a reader asks for the first is taken that there is, however it is spoken; else the
    configured one."""
    templates = Templates("a@example.com", "P", language="es")
    assert letter("verify_email", asked, templates)["Content-Language"] == got


def test_a_language_that_is_written_from_the_right(tmp_path: Path) -> None:
    """Arabic and its like set dir."""
    write(tmp_path, "verify_email/ar", code="{{ code }}")
    templates = Templates("a@example.com", "P", folders=[TemplateFolder(tmp_path)])
    read = Read(text_of(letter("verify_email", "ar-eg", templates), "html"))
    assert (read.all("html")[0]["lang"], read.all("html")[0]["dir"]) == ("ar", "rtl")


# -- a deployer's ----------------------------------------------------------------------------------


def write(folder: Path, where: str, *, code: str = "{{ code }}", parts: Sequence[str] = ("txt", "html")) -> None:
    (folder / where).mkdir(parents=True)
    (folder / where / "subject.txt").write_text(f"{where}\n")
    for part in parts:
        whole = f'{{% extends "layout.html" %}}{{% block body %}}{code}{{% endblock %}}' if part == "html" else code
        (folder / where / f"body.{part}").write_text(whole)


def hydra(folder: Path, **mail: str) -> HydraCore:
    plugins = {"enabled": ["invites"]}
    mail = {"templates": str(folder), **mail}
    return HydraCore(load(environment={}, overrides={"store": {"driver": "memory"}, "mail": mail, "plugins": plugins}))


def complaint(folder: Path, **mail: str) -> str:
    with pytest.raises(StartupError) as raised:
        hydra(folder, **mail)
    return str(raised.value)


def test_a_deployers_folder(tmp_path: Path) -> None:
    """mail.templates goes before all others, file by file: a subject, a translation, a plugin's mail, the layout."""
    (tmp_path / "verify_email/de").mkdir(parents=True)
    (tmp_path / "verify_email/de/subject.txt").write_text("Willkommen\n")
    (tmp_path / "invites.invitation").mkdir()
    (tmp_path / "invites.invitation/subject.txt").write_text("Come in\n")
    (tmp_path / "layout.html").write_text("<p>Acme</p>{% block body %}{% endblock %}")
    write(tmp_path, "verify_email/it")
    templates = hydra(tmp_path).templates
    assert letter("verify_email", "de", templates)["Subject"] == "Willkommen"
    assert "314159" in text_of(letter("verify_email", "de", templates))
    assert letter("verify_email", "it", templates)["Subject"] == "verify_email/it"
    assert letter("reset_password", "it", templates)["Content-Language"] == "en"
    assert letter("invites.invitation", "en", templates)["Subject"] == "Come in"
    for message in templates.languages:
        assert text_of(letter(message, "zh", templates), "html").startswith("<p>Acme</p>")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("verify_emial/subject.txt", "x", ["there is no such mail; did you mean verify_email?"]),
        ("news/subject.txt", "x", ["there is no such mail: HydraCore's are account_closed, account_exists"]),
        ("verify_email/body.htm", "x", ["verify_email that has body.htm; it takes subject.txt"]),
        ("verify_email/it/subject.txt", "x", ["verify_email/it that lacks body.html, body.txt"]),
        ("verify_email/subject.txt", "{{ cod }}", ["uses cod, which verify_email is not given"]),
        ("verify_email/fr/body.html", "{% if %}", ["verify_email/fr/body.html that is not valid"]),
        ("verify_email/fr/body.html", "{{ minutes.x }}", ["body.html that cannot be filled in", "in fr", "'x'"]),
        ("verify_email/body.html", "{{ minutes | join }}", ["cannot be filled in for verify_email in en"]),
        ("layout.html", "{{ mail.titel }}", ["layout.html that cannot be filled in", "'titel'"]),
        ("layout.html", "{{ code }}", ["layout.html that uses code, which layout.html is not given"]),
        ("parts.html", "", ["parts.html that cannot be filled in"]),
        ("invites.invitation/sample.json", "{}", ["invites.invitation that has sample.json"]),
    ],
)
def test_what_a_deployer_has_wrong(tmp_path: Path, name: str, text: str, said: list[str]) -> None:
    """Whatever no mail would use, or would fail with, stops the start with its path and the remedy."""
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(text)
    told = complaint(tmp_path)
    assert told.startswith(f"The configuration is wrong. mail.templates: {tmp_path} has ")
    for each in said:
        assert each in told


def test_no_folder(tmp_path: Path) -> None:
    """A folder that is not there, and a language that no mail is in, are told by the key."""
    assert f"mail.templates: {tmp_path / 'no'} is no folder" in complaint(tmp_path / "no")
    assert "mail.language: there is no mail in nl, there is in de, en, es, fr, zh." in complaint(
        tmp_path, language="nl"
    )


@pytest.mark.parametrize(("sample", "said"), [("[]", "is no JSON object"), ("{", "is no JSON:")])
def test_samples_that_are_none(tmp_path: Path, sample: str, said: str) -> None:
    """A plugin's sample that is none is told with its file."""
    folder = tmp_path / "templates/mail"
    write(folder, "acme.won")
    (folder / "acme.won/sample.json").write_text(sample)
    with pytest.raises(StartupError, match=r"The plugin acme has a file .*sample\.json that") as raised:
        Templates("a@example.com", "P", folders=[TemplateFolder(folder, "acme")], plugins=["acme"])
    assert said in str(raised.value)


def test_a_plugins_mail_in_one_language(tmp_path: Path) -> None:
    """A mail that is written in one language alone is sent in that; without a sample it is shown with its variables'
    names."""
    folder = tmp_path / "templates/mail"
    write(folder, "acme.won/de", code="{% set all = code %}{{ all }} {{ race }} {{ product }}")
    templates = Templates("a@example.com", "P", folders=[TemplateFolder(folder, "acme")], plugins=["acme"])
    assert templates.example("acme.won") == {"code": "[code]", "race": "[race]"}
    won = letter("acme.won", "fr", templates)
    assert won["Content-Language"] == "de"
    assert text_of(won) == "[code] [race] P\n"
