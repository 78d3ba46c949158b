"""Every mail in every language, written to files to look at."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from html import escape
from pathlib import Path

import click

from hydracore.chance import now
from hydracore.cli.output import Failed, says_why
from hydracore.config import load
from hydracore.core import HydraCore
from hydracore.letters import Templates
from hydracore.logs import configure

_TO = "ada@example.com"
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; font-family: system-ui, sans-serif }}
section {{ display: flex; gap: 24px; overflow-x: auto; padding-bottom: 16px }}
figure {{ margin: 0; flex: none; width: 390px }}
figcaption {{ margin-bottom: 8px }}
iframe {{ width: 100%; height: 640px; border: 1px solid #8a929c }}
pre {{ white-space: pre-wrap; border: 1px solid #8a929c; padding: 8px }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}</body>
</html>
"""


@dataclass(frozen=True)
class Shown:
    """One mail in one language, and the files that it is written to, by ending."""

    message: str
    language: str
    letter: EmailMessage

    @property
    def text(self) -> str:
        return self._part("plain")

    @property
    def files(self) -> dict[str, bytes]:
        written = {"html": self._part("html").encode(), "txt": self.text.encode(), "eml": self.letter.as_bytes()}
        return {f"{self.message}.{self.language}.{ending}": content for ending, content in written.items()}

    def _part(self, kind: str) -> str:
        part = self.letter.get_body((kind,))
        return "" if part is None else str(part.get_content()).replace("\r\n", "\n")


@click.command("preview")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), default=Path("mail-preview"))
@click.option("--language", "languages", multiple=True, metavar="TAG", help="That language alone, such as de.")
@click.option("--message", "messages", multiple=True, metavar="NAME", help="That mail alone, such as verify_email.")
@click.pass_obj
@says_why
def preview(file: Path | None, directory: Path, languages: Sequence[str], messages: Sequence[str]) -> None:
    """Write every mail in every language, filled with sample values, as .html, .txt and .eml into DIRECTORY
    (mail-preview), and an index.html that shows them side by side. Says which translations are missing."""
    config = load(file)
    configure("error", config.log.format)
    templates = HydraCore(config).templates
    every = sorted({language for found in templates.languages.values() for language in found})
    languages = _chosen("mail in", languages, every)
    messages = _chosen("mail", messages, sorted(templates.languages))
    shown = [each for message in messages for each in _letters(templates, message, languages)]
    missing = list(_missing(templates, messages, languages))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for each in shown:
            for name, content in each.files.items():
                (directory / name).write_bytes(content)
        (directory / "index.html").write_text(_index(config.mail.product, messages, shown, missing), "utf-8")
    except OSError as error:
        raise Failed(f"{directory} cannot be written: {error.strerror}.") from error
    count = f"{len(shown)} mail{'s' if len(shown) != 1 else ''}"
    click.echo(f"{count} ({', '.join(messages)}; {', '.join(languages)}): open {directory / 'index.html'}.")
    for line in missing:
        click.echo(f"missing: {line}")


def _chosen(what: str, wanted: Sequence[str], there: Sequence[str]) -> Sequence[str]:
    for each in wanted:
        if each not in there:
            raise Failed(f"There is no {what} {each}: there are {', '.join(there)}.")
    return tuple(dict.fromkeys(wanted)) or there


def _letters(templates: Templates, message: str, languages: Iterable[str]) -> Iterator[Shown]:
    values = templates.example(message)
    for language in languages:
        if language in templates.languages[message]:
            try:
                letter = templates.compose(message, _TO, values, "preview", now(), language)
            except Exception as error:  # A plugin's template, which may do anything with its values.
                reason = f"{message} cannot be filled in for {language}: {error}."
                if not templates.has_sample(message):
                    reason += f" Put values that it can be shown with into {message}/sample.json."
                raise Failed(reason) from error
            yield Shown(message, language, letter)


def _missing(templates: Templates, messages: Iterable[str], languages: Iterable[str]) -> Iterator[str]:
    for message in messages:
        for language in languages:
            if language not in templates.languages[message]:
                yield f"{message} in {language}, sent in {templates.language_of(message, language)} instead"


def _index(product: str, messages: Iterable[str], shown: Iterable[Shown], missing: Iterable[str]) -> str:
    body = "".join(f"<p>Missing: {escape(line)}.</p>\n" for line in missing)
    for message in messages:
        figures = "".join(_figure(each) for each in shown if each.message == message)
        body += f"<h2>{escape(message)}</h2>\n<section>\n{figures}</section>\n"
    return _PAGE.format(title=f"The mails of {escape(product)}", body=body)


def _figure(shown: Shown) -> str:
    subject, language = escape(str(shown.letter["Subject"])), escape(shown.language)
    links = ", ".join(f'<a href="{escape(name)}">{name.rpartition(".")[2]}</a>' for name in shown.files)
    page = next(escape(name) for name in shown.files)
    return (
        f'<figure>\n<figcaption>{language} ({links})<br><b lang="{language}">{subject}</b></figcaption>\n'
        f'<iframe sandbox src="{page}" title="{subject}" lang="{language}"></iframe>\n'
        f'<pre lang="{language}">{escape(shown.text)}</pre>\n</figure>\n'
    )
