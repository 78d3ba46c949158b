"""hydracore mail preview: every mail to look at."""

from email import message_from_bytes, policy
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hydracore.cli import main


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command runs: a deployer's folder with the plugin acme, which has a mail in two languages."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "hydracore.cli.preview.configure", lambda *how: None
    )  # The logs of this process are the tests'.
    monkeypatch.setenv("HYDRACORE_PLUGINS__DIR", "plugins")
    monkeypatch.setenv("HYDRACORE_PLUGINS__ENABLED", '["acme"]')
    for language in ("", "it"):
        where = tmp_path / "plugins/acme/templates/mail/acme.won" / language
        where.mkdir(parents=True, exist_ok=True)
        for part in ("subject.txt", "body.txt", "body.html"):
            (where / part).write_text(f"{language} {{{{ race }}}} <b>\n")
    plugin = "class Plugin:\n    def __init__(self, context):\n        pass\n"
    (tmp_path / "plugins/acme/__init__.py").write_text(plugin)
    return tmp_path


def preview(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["mail", "preview", *arguments])


def test_every_mail(folder: Path) -> None:
    """Every mail in every language is there as HTML, text and a whole message, a plugin's too, and the index shows all
    of them; what has no translation is named."""
    said = preview("out").output.splitlines()
    assert said[0] == (
        "42 mails (account_closed, account_exists, acme.won, address_taken, change_email, email_changed, "
        "password_changed, reset_password, verify_email; de, en, es, fr, it, zh): "
        "open out/index.html."
    )
    assert "missing: acme.won in de, sent in en instead" in said
    assert "missing: verify_email in it, sent in en instead" in said
    assert len(said) == 1 + 6 * 9 - 42
    index = (folder / "out/index.html").read_text("utf-8")
    for file in (folder / "out").iterdir():
        assert file.name == "index.html" or f'href="{file.name}"' in index
    assert "Missing: verify_email in it, sent in en instead." in index
    assert "[race] &lt;b&gt;" in index
    assert (folder / "out/acme.won.it.txt").read_text() == "it [race] <b>\n"
    assert "验证码" in (folder / "out/verify_email.zh.txt").read_text("utf-8")
    assert 'lang="zh"' in (folder / "out/verify_email.zh.html").read_text("utf-8")
    letter = message_from_bytes((folder / "out/verify_email.zh.eml").read_bytes(), policy=policy.default)
    assert (letter["To"], letter["Content-Language"]) == ("ada@example.com", "zh")
    assert "314159" in letter.get_body(("plain",)).get_content()


def test_some_mails(folder: Path) -> None:
    """Languages and mails may be named; unknown ones are told, with those that there are."""
    said = preview("--language", "de", "--message", "verify_email", "--message", "acme.won").output
    assert said == (
        "1 mail (verify_email, acme.won; de): open mail-preview/index.html.\n"
        "missing: acme.won in de, sent in en instead\n"
    )
    assert {each.name for each in (folder / "mail-preview").iterdir()} == {
        *("index.html", "verify_email.de.eml", "verify_email.de.html", "verify_email.de.txt"),
    }
    refused = preview("--language", "nl")
    assert (refused.exit_code, refused.output) == (
        1,
        "hydracore: There is no mail in nl: there are de, en, es, fr, it, zh.\n",
    )
    assert (
        "There is no mail verify_emial: there are account_closed, account_exists"
        in preview("--message", "verify_emial").output
    )


def test_a_mail_that_needs_a_sample(folder: Path) -> None:
    """A plugin's mail that cannot be shown without values is named, and where to put them; with them it is shown."""
    mail = folder / "plugins/acme/templates/mail/acme.won"
    (mail / "body.txt").write_text("{{ race.name }}")
    refused = preview()
    assert refused.exit_code == 1
    assert "acme.won cannot be filled in for en: " in refused.output
    assert refused.output.endswith("Put values that it can be shown with into acme.won/sample.json.\n")
    (mail / "sample.json").write_text('{"race": {"name": "Le Mans"}}')
    assert preview("--message", "acme.won").exit_code == 0
    assert (folder / "mail-preview/acme.won.en.txt").read_text() == "Le Mans\n"


def test_where_nothing_can_be_written(folder: Path) -> None:
    """A place that cannot be written to is a sentence."""
    (folder / "file").touch()
    refused = preview("file/below")
    assert (refused.exit_code, refused.output) == (1, "hydracore: file/below cannot be written: Not a directory.\n")
