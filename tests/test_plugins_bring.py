"""What a plugin ships beside its code: routes, schemas, configuration, templates, translations, members."""

import asyncio
import importlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support import PASSWORD, OpenSite, Site, refused, tokens

from hydracore import HydraCore, StartupError
from hydracore.config import load
from hydracore.discovery import Installed
from hydracore.plugin import Context, ProfileMember, hookimpl
from hydracore.store import Store

EMAIL = "ada@example.com"
PARTS = ("subject.txt", "body.txt", "body.html")

ACME = """
from hydracore.plugin import Endpoint, ProfileMember, Route, hookimpl, public, unverified, verified
from . import words

class Plugin:
    requires_api = "1.0"

    def __init__(self, context):
        self.context = context
        self.greeting = context.config["greeting"]

    @hookimpl
    def hydracore_register_routes(self):
        return [Route("/acme/greet", Greet), Route("/acme/{kind}/of/{thing}", Of)]


class Greet(Endpoint):
    @verified
    async def post(self):
        name = self.body("greet")["name"]
        self.reply({"said": f"{self.plugin.greeting} {name}{words.END}", "to": self.caller.email})

    @public
    async def get(self):
        self.reply({"language": self.language})

    @unverified
    async def delete(self):
        self.reply({"gone": True})


@public
class Of(Endpoint):
    async def get(self, kind, thing):
        self.reply({"kind": kind, "thing": thing})

    async def post(self, kind, thing):
        self.reply({"got": self.json()})
"""
CONFIG = {"properties": {"greeting": {"type": "string", "default": "Hello", "description": "How it greets."}}}
GREET = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "times": {"type": "integer", "minimum": 1, "maximum": 3, "default": 1},
        "mood": {"enum": ["glad", "sad"]},
        "both": {"type": ["string", "null"]},
    },
    "required": ["name"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A deployer's folder with the plugin acme, a package."""
    acme = tmp_path / "mine" / "acme"
    (acme / "schemas").mkdir(parents=True)
    (acme / "__init__.py").write_text(ACME)
    (acme / "words.py").write_text('END = "!"\n')
    (acme / "schemas/config.json").write_text(json.dumps(CONFIG))
    (acme / "schemas/greet.json").write_text(json.dumps(GREET))
    return tmp_path / "mine"


def write(folder: Path, kind: str, subject: str, *, parts: tuple[str, ...] = PARTS) -> None:
    where = folder / "acme/templates/mail" / kind
    where.mkdir(parents=True)
    for part in parts:
        (where / part).write_text(subject if part == "subject.txt" else f"{subject}: {{{{ code }}}}\n")


async def opened(open_site: OpenSite, folder: Path, **section: Any) -> Site:
    return await open_site(plugins={"dir": str(folder), "enabled": ["acme"], "acme": section})


def complaint(folder: Path, **plugins: Any) -> str:
    values = {"store": {"driver": "memory"}, "plugins": {"dir": str(folder), "enabled": ["acme"], **plugins}}
    with pytest.raises(StartupError) as raised:
        HydraCore(load(environment={}, overrides=values))
    return str(raised.value)


# -- routes, schemas, configuration ------------------------------------------------------------------


async def test_routes(open_site: OpenSite, folder: Path) -> None:
    """A plugin's call has its own schema and configuration, is closed as it says, and is a call like ours."""
    site = await opened(open_site, folder, greeting="Good day")
    refused(await site.post("acme/greet", {"name": "Bob"}), 401, "not_authenticated")
    first = await site.register()
    bearer = {"Authorization": f"Bearer {first['access_token']}"}
    refused(await site.post("acme/greet", {"name": "Bob"}, **bearer), 403, "email_not_verified")
    assert (await site.ask("DELETE", "/auth/acme/greet", **bearer)).code == 200
    body = {"email": EMAIL, "code": await site.box.code(EMAIL)}
    verified = tokens(await site.post("verify-email", body, **bearer))
    bearer = {"Authorization": f"Bearer {verified['access_token']}"}
    answer = await site.post("acme/greet", {"name": "Bob", "admin": True}, **bearer)
    assert json.loads(answer.body) == {"said": "Good day Bob!", "to": EMAIL}
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Request-Id"]
    answer = await site.ask("PUT", "/auth/acme/greet", body={})
    refused(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET, POST, DELETE, OPTIONS"
    refused(await site.ask("POST", "/auth/acme/greet", raw=b"name=Bob", **bearer), 415, "unsupported_media_type")
    cookie = {"Cookie": f"hydracore_access={verified['access_token']}", "Origin": "https://evil.example"}
    refused(await site.post("acme/greet", {"name": "Bob"}, **cookie), 403, "cross_origin")


async def test_its_schema_complains(open_site: OpenSite, folder: Path) -> None:
    """Every keyword that a plugin's schema uses is told in words, and none makes a 500."""
    site = await opened(open_site, folder)
    verified = await site.verified()
    bearer = {"Authorization": f"Bearer {verified['access_token']}"}
    body = {"name": "", "times": 4, "mood": "angry", "both": 7}
    problems = refused(await site.post("acme/greet", body, **bearer), 422, "validation_failed")
    assert {problem["loc"][1]: problem["type"] for problem in problems} == {
        "name": "string_too_short",
        "times": "less_than_equal",
        "mood": "literal_error",
        "both": "type_error",
    }


async def test_members_that_nobody_knows(open_site: OpenSite, folder: Path) -> None:
    """A schema that closes an object has each member named that it does not know."""
    (folder / "acme/schemas/greet.json").write_text(
        '{"type": "object", "properties": {"name": {"type": "string"}}, "patternProperties": {"^x-": {}}, '
        '"additionalProperties": false}'
    )
    site = await opened(open_site, folder)
    verified = await site.verified()
    bearer = {"Authorization": f"Bearer {verified['access_token']}"}
    problems = refused(
        await site.post("acme/greet", {"name": "Bob", "nmae": 1, "x-y": 2, "z": 3}, **bearer), 422, "validation_failed"
    )
    assert [(problem["loc"], problem["type"]) for problem in problems] == [
        (["body", "nmae"], "extra_forbidden"),
        (["body", "z"], "extra_forbidden"),
    ]


async def test_parameters_of_a_path(open_site: OpenSite, folder: Path) -> None:
    """A parameter is one segment, decoded; a slash or a missing one is no match."""
    site = await opened(open_site, folder)
    answer = await site.ask("GET", "/auth/acme/sort/of/%C3%A4%20b")
    assert json.loads(answer.body) == {"kind": "sort", "thing": "ä b"}
    refused(await site.ask("GET", "/auth/acme/a/b/of/c"), 404, "not_found")
    refused(await site.ask("GET", "/auth/acme/a/of/"), 404, "not_found")
    assert json.loads((await site.post("acme/a/of/b", [1, "x"])).body) == {"got": [1, "x"]}
    refused(await site.ask("GET", "/auth/acme/a/of/%ff"), 400, "bad_request")


@pytest.mark.parametrize(
    ("header", "understood"),
    [
        ("de-AT, en;q=0.5", "de-at,en"),
        ("en;q=0.2, fr, de;q=0.9", "fr,de,en"),
        ("*, de;q=0", ""),
        ("x" * 5000, ""),
        ("de;q=2, <script>, \u00e9", ""),
        (",".join(f"a{chr(98 + n)}" for n in range(9)), "ab,ac,ad,ae,af"),
    ],
)
async def test_languages(open_site: OpenSite, folder: Path, header: str, understood: str) -> None:
    """An Accept-Language is read as it is meant, and whatever it is not is passed over."""
    site = await opened(open_site, folder)
    answer = await site.ask("GET", "/auth/acme/greet", Accept_Language=header)
    assert json.loads(answer.body) == {"language": understood}


def test_its_section(folder: Path) -> None:
    """A wrong key or value in a loose plugin's section is told like any other."""
    assert "did you mean plugins.acme.greeting?" in complaint(folder, acme={"greting": "x"})
    assert "plugins.acme.greeting: must be text" in complaint(folder, acme={"greeting": 7})


# -- finding -----------------------------------------------------------------------------------------


def test_a_folder_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is not there is told with its key, and its whole path."""
    assert "plugins.dir" in complaint(tmp_path / "nowhere")
    monkeypatch.chdir(tmp_path)
    assert f"plugins.dir: {tmp_path / 'nowhere'} is no folder" in complaint(Path("nowhere"))


@pytest.mark.parametrize(
    ("file", "enabled", "remedy"),
    [
        ("My-Plugin.py", "my_plugin", "My-Plugin.py, and no plugin may be called so: rename it my_plugin.py."),
        ("My-Plugin.py", "My-Plugin", "My-Plugin.py, and no plugin may be called so: rename it my_plugin.py."),
        ("two__parts/__init__.py", "two_parts", "two__parts, and no plugin may be called so: rename it two_parts."),
        ("enabled.py", "enabled", "plugins.enabled is a setting, so there is no section for it. Rename"),
        ("verify_email.py", "verify_email", "/verify-email is HydraCore's own path. Rename"),
    ],
)
def test_modules_that_no_plugin_may_be_called_after(folder: Path, file: str, enabled: str, remedy: str) -> None:
    """A module whose name is no plugin's is not passed over in silence: it is named, with the remedy."""
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_text("")
    message = complaint(folder, enabled=[enabled])
    assert remedy in message
    assert str((folder / file).parent) in message


def test_unknown_ones(folder: Path) -> None:
    """A misspelt name is told with what was near, in the folder too; what is not named is not imported."""
    (folder / "other.py").write_text("raise RuntimeError('imported')\n")
    assert "did you mean acme?" in complaint(folder, enabled=["acmee"])
    assert "RuntimeError: imported" in complaint(folder, enabled=["other"])
    values = {"store": {"driver": "memory"}, "plugins": {"dir": str(folder), "enabled": ["acme"]}}
    assert "acme" in HydraCore(load(environment={}, overrides=values)).registry.loaded


def test_two_of_a_name(folder: Path) -> None:
    """A module and a package of one name, or a name that is installed already: both are named, once it is used."""
    settings = {"store": {"driver": "memory"}, "plugins": {"dir": str(folder), "enabled": []}}
    (folder / "acme.py").write_text("")
    said = complaint(folder)
    assert str(folder / "acme.py") in said
    assert str(folder / "acme/__init__.py") in said
    HydraCore(load(environment={}, overrides=settings))
    (folder / "acme.py").rename(folder / "event_log.py")
    HydraCore(load(environment={}, overrides=settings))
    said = complaint(folder, enabled=["event_log"])
    assert "hydracore_event_log" in said
    assert str(folder / "event_log.py") in said


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("Plugin = 7\n", "no class named Plugin"),
        ("def broken(:\n", "SyntaxError"),
        ("import nothing_of_that_name\n", "nothing_of_that_name"),
        ("import sys; sys.exit(1)\n", "SystemExit"),
        ("class Plugin: pass\n", "def __init__(self, context)"),
    ],
)
def test_modules_that_are_none(folder: Path, code: str, said: str) -> None:
    """A module without its class, that cannot be read or that fails: named, with the reason."""
    (folder / "acme/__init__.py").write_text(code)
    message = complaint(folder)
    assert "The plugin acme" in message
    assert said in message


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("config.json", "{", "cannot be read"),
        ("config.json", "[]", "no JSON object"),
        ("greet.json", "{", "none"),
        ("greet.json", '{"type": "objekt"}', "none"),
        ("greet.json", '{"type": "array"}', "greet"),
    ],
)
def test_schemas_that_are_none(folder: Path, file: str, text: str, said: str) -> None:
    """A schema that is no JSON, or no JSON Schema: named with its plugin."""
    (folder / "acme/schemas" / file).write_text(text)
    message = complaint(folder)
    assert "acme" in message
    assert said in message


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"properties": {"greeting": {"type": "txt"}}}, "'txt' is not valid"),
        ({"properties": ["greeting"]}, "['greeting'] is not of type 'object'"),
        ({"properties": {"greeting": "string"}}, "'string' is not of type 'object'"),
        ({"properties": {"greeting": {"$ref": "https://schemas.example/a.json"}}}, "schemas.example"),
        ({"properties": {"greeting": {"$ref": "#/$defs/greeting"}}}, "no such part"),
        ({"properties": {"greeting": {"$ref": "#/title"}}, "title": "x"}, "#/title, which is no schema"),
        ({"properties": {"greeting": {"pattern": "("}}}, "'(' is not a 'regex'"),
        ({"properties": {"times": {"minimum": "1"}}}, "'1' is not of type 'number'"),
        ({"type": "array"}, 'its type is "object"'),
        ({"properties": {"times": {"type": "integer", "default": 2.0}}}, "times: must be a whole number, not 2.0"),
        ({"properties": {"mood": {"$ref": "#/$defs/m", "default": "bad"}}, "$defs": {"m": {"enum": ["glad"]}}}, "mood"),
        (
            {"properties": {"a": {"type": "object", "properties": {"b": {"maxLength": 1, "default": "xx"}}}}},
            "a.b: must have at most 1 character",
        ),
    ],
)
def test_sections_schemas_that_are_none(folder: Path, schema: Any, said: str) -> None:
    """A section's schema that is none, or whose default breaks its own rule: the plugin, the file, what is wrong."""
    file = folder / "acme/schemas/config.json"
    file.write_text(json.dumps(schema))
    message = complaint(folder)
    assert "The plugin acme has a" in message
    assert str(file) in message
    assert said in message


# -- templates ---------------------------------------------------------------------------------------


async def test_templates_replace_ours(open_site: OpenSite, folder: Path) -> None:
    """A plugin's template takes the place of ours, part by part."""
    write(folder, "verify_email", "Acme verification", parts=("subject.txt",))
    site = await opened(open_site, folder)
    await site.register()
    letter = await site.box.letter(EMAIL, about="Acme verification")
    assert "code" in letter


async def test_translations(open_site: OpenSite, folder: Path) -> None:
    """A translation is used for who asks for it, before ours, at register and at a reset; others get ours."""
    write(folder, "verify_email/it", "Conferma")
    write(folder, "verify_email/pt-br", "Confirme")
    write(folder, "password_changed/it", "La password", parts=("subject.txt",))
    for part in ("body.txt", "body.html"):
        (folder / "acme/templates/mail/password_changed/it" / part).write_text("La sua password\n")
    site = await opened(open_site, folder)
    for email, language, subject in (
        ("a@example.com", "it-CH", "Conferma"),
        ("b@example.com", "pt-BR,en;q=0.1", "Confirme"),
        ("c@example.com", "en,it;q=0.5", "verification"),
        ("d@example.com", "nl", "verification"),
    ):
        await site.post("register", {"email": email, "password": PASSWORD}, Accept_Language=language)
        await site.box.letter(email, about=subject)
    await site.post("forgot-password", {"email": "a@example.com"}, Accept_Language="it")
    body = {"token": await site.box.reset_token("a@example.com"), "new_password": "an entirely new password"}
    await site.post("reset-password", body, Accept_Language="it")
    await site.box.letter("a@example.com", about="La password")


@pytest.mark.parametrize(
    ("kind", "parts", "said"),
    [
        ("acme.news", ("subject.txt",), "lacks body.html, body.txt"),
        ("verify_email/it", ("subject.txt", "body.txt"), "lacks body.html"),
        ("verify_email/it", (*PARTS, "body.md"), "has body.md"),
        ("verify_email", ("sample.json",), "has sample.json"),
        ("verify_email", ("subject.txt", "body.md"), "has body.md"),
    ],
)
def test_templates_that_are_not_whole(folder: Path, kind: str, parts: tuple[str, ...], said: str) -> None:
    """A letter of one's own, or a translation, has all its parts, and no part is misspelt."""
    write(folder, kind, "x", parts=parts)
    message = complaint(folder)
    assert "acme" in message
    assert said in message


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("verify_emial", ["verify_emial, and there is no such mail", "did you mean verify_email?"]),
        ("won", ["mail/won, and there is no such mail", "acme.won", "account_closed, account_exists"]),
        ("acmee.won", ["mail/acmee.won", "did you mean acme.won?"]),
        ("invites.invitation", ["mail/invites.invitation", "no plugin invites is loaded", "plugins.enabled"]),
        ("verify_email/de_DE", ["verify_email/de_DE, which is no language's", "name it de-de."]),
        ("verify_email/DE", ["verify_email/DE, which is no language's", "name it de."]),
        ("verify_email/german", ["verify_email/german, which is no language's", "such as de or pt-br"]),
        ("acme.won/German", ["acme.won/German, which is no language's", "such as de or pt-br"]),
        ("verify_email/de/old", ["verify_email/de/old", "take it out"]),
        ("verify_email/en", ["verify_email/en, which is the language of", "put its files there"]),
        ("../mails/verify_email", ["acme/templates/mails, where nothing looks", "acme/templates/mail."]),
        ("../verify_email", ["acme/templates/verify_email, where nothing looks", "acme/templates/mail."]),
        (".", ["mail/body.html, which belongs to no mail", "say account_closed"]),
    ],
)
def test_templates_that_nothing_looks_for(folder: Path, kind: str, said: list[str]) -> None:
    """A template whose folder is misspelt, no language's or in another place would never be sent: it stops the start
    with its path and the remedy."""
    (folder / "acme/templates/mail/verify_email").mkdir(parents=True)
    where = folder / "acme/templates/mail" / kind
    where.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        (where / part).write_text("x")
    message = complaint(folder)
    for each in ("The plugin acme has", *said):
        assert each in message


async def test_templates_of_another_plugin(open_site: OpenSite, folder: Path) -> None:
    """A plugin may write the mails of another one that is loaded; what is hidden, and what is not mail, is its own."""
    write(folder, "invites.invitation", "Come in")
    (folder / "acme/templates/mail/.gitkeep").touch()
    (folder / "acme/templates/pages/news").mkdir(parents=True)
    (folder / "acme/templates/pages/news/body.html").touch()
    site = await open_site(plugins={"dir": str(folder), "enabled": ["acme", "invites"]})
    values = {"code": "x"}
    letter = site.hydra.templates.compose("invites.invitation", EMAIL, values, "1", datetime.now(UTC))
    assert letter["Subject"] == "Come in"


def test_templates_that_are_none(folder: Path) -> None:
    """A template with a mistake stops the start, with its file."""
    write(folder, "verify_email", "{% if %}")
    assert "verify_email/body.html" in complaint(folder)


def test_templates_with_unknown_variables(folder: Path) -> None:
    """A letter in place of ours that uses what it is not given would fail each mail: it stops the start."""
    write(folder, "verify_email", "{{ cod }}", parts=("subject.txt",))
    said = complaint(folder)
    assert "acme" in said
    assert "subject.txt that uses cod" in said
    assert "code, email, mail, minutes, product" in said


def test_a_plugin_in_a_subpackage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin's schemas and templates are beside its code, in a package within a package too."""
    package = tmp_path / "company_of_tests" / "hydra"
    (package / "schemas").mkdir(parents=True)
    for each in (package.parent, package):
        (each / "__init__.py").write_text("")
    (package / "schemas/config.json").write_text(json.dumps(CONFIG))
    monkeypatch.syspath_prepend(tmp_path)
    assert Installed("a", "company_of_tests.hydra:P", "d", "1").folder == package
    assert Installed("a", "company_of_tests.hydra.plugin:P", "d", "1").folder == package
    assert "greeting" in Installed("a", "company_of_tests.hydra:P", "d", "1").schema()["properties"]
    assert Installed("a", "company_of_tests:P", "d", "1").folder == package.parent


def distribution(folder: Path, name: str, **plugins: str) -> None:
    """A distribution in ``folder``, as pip leaves it, with entry points."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = (f"{plugin.replace('__', '-')} = {target}" for plugin, target in plugins.items())
    (info / "entry_points.txt").write_text("\n".join(["[hydracore]", *lines]))


def test_distributions_that_share_a_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies beside a plugin is found in whichever place of a namespace package it is, a single module's too."""
    for name in ("one", "two"):
        package = tmp_path / name / "namespace_of_tests" / name
        (package / "schemas").mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package.parent / f"alone_{name}.py").write_text("")
        (package / "schemas/config.json").write_text(json.dumps({"properties": {name: {}}}))
        monkeypatch.syspath_prepend(tmp_path / name)
    for name in ("one", "two"):
        plugin = Installed(name, f"namespace_of_tests.{name}:P", "d", "1")
        assert plugin.folder == tmp_path / name / "namespace_of_tests" / name
        assert list(plugin.schema()["properties"]) == [name]
        alone = Installed(name, f"namespace_of_tests.alone_{name}:P", "d", "1")
        assert alone.folder == tmp_path / name / "namespace_of_tests"


def test_distributions_of_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two distributions with a plugin of one name are in nobody's way until that name is used; then both are named."""
    (tmp_path / "twins_of_tests.py").write_text("class Plugin:\n    def __init__(self, context): pass\n")
    distribution(tmp_path, "first", twin="twins_of_tests:Plugin", other="twins_of_tests:Plugin")
    distribution(tmp_path, "second", twin="twins_of_tests:Second", mail_twin="twins_of_tests:Plugin")
    distribution(tmp_path, "third", mail_twin="twins_of_tests:Third")
    monkeypatch.syspath_prepend(tmp_path)

    def start(enabled: list[str], **settings: Any) -> HydraCore:
        values = {"store": {"driver": "memory"}, "plugins": {"enabled": enabled}, **settings}
        return HydraCore(load(environment={}, overrides=values))

    assert "other" in start(["other"]).registry.loaded
    for wrong in ({"enabled": ["twin"]}, {"enabled": [], "mail": {"transport": "twin"}}):
        with pytest.raises(StartupError) as raised:
            start(**wrong)  # type: ignore[arg-type]
        assert "Two distributions have a plugin named" in str(raised.value)
        assert "second (twins_of_tests:" in str(raised.value)
        assert "Uninstall one of them." in str(raised.value)


def test_distributions_whose_plugins_cannot_be_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that no route and no variable could have is refused once it is used, with a name that fits."""
    (tmp_path / "dashed_of_tests.py").write_text("class Plugin:\n    def __init__(self, context): pass\n")
    distribution(tmp_path, "dashed", dashed__corp="dashed_of_tests:Plugin")
    monkeypatch.syspath_prepend(tmp_path)
    values: dict[str, Any] = {"store": {"driver": "memory"}}
    HydraCore(load(environment={}, overrides=values))
    with pytest.raises(StartupError) as raised:
        HydraCore(load(environment={}, overrides={**values, "plugins": {"enabled": ["dashed-corp"]}}))
    assert "The plugin dashed-corp cannot be called so" in str(raised.value)
    assert "Rename its entry point in dashed: dashed_corp, say." in str(raised.value)


@pytest.mark.parametrize("name", ["acme-corp", "Acme", "acme__corp", "acme_", "2fa", "admin", "timeout"])
def test_hosts_plugins_that_cannot_be_called_so(name: str) -> None:
    """What a host hands in is called as any plugin is."""
    config = load(environment={}, overrides={"store": {"driver": "memory"}})
    with pytest.raises(StartupError, match=f"The plugin {name} cannot be called so.*HydraCore.plugins="):
        HydraCore(config, plugins={name: membered()})


async def test_a_hosts_class_in_a_package(open_site: OpenSite, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that a host hands in has the schemas and templates of its package, and its section is checked."""
    monkeypatch.syspath_prepend(folder)
    (folder / "acme").rename(folder / "acme_of_a_host")
    acme = importlib.import_module("acme_of_a_host").Plugin
    letter = folder / "acme_of_a_host/templates/mail/verify_email/subject.txt"
    letter.parent.mkdir(parents=True)
    letter.write_text("Acme verification")
    site = await open_site(extra={"acme": acme}, plugins={"acme": {"greeting": "Good day"}})
    verified = await site.verified()
    bearer = {"Authorization": f"Bearer {verified['access_token']}"}
    assert json.loads((await site.post("acme/greet", {"name": "Bob"}, **bearer)).body)["said"] == "Good day Bob!"
    await site.box.letter(EMAIL, about="Acme verification")
    values = {"store": {"driver": "memory"}, "plugins": {"acme": {"whatever": 1}}}
    with pytest.raises(StartupError, match=r"plugins\.acme\.whatever: there is no such key"):
        HydraCore(load(environment={}, overrides=values), plugins={"acme": acme})
    (folder / "acme_of_a_host/schemas/config.json").unlink()
    values["plugins"] = {"acme": {"greeting": "Hi", "whatever": 1}}
    free = HydraCore(load(environment={}, overrides=values), plugins={"acme": acme}).registry.loaded["acme"].plugin
    assert free.context.config == values["plugins"]["acme"]  # type: ignore[attr-defined]


async def test_mail_of_its_own(open_site: OpenSite, folder: Path, expected_logs: list[str]) -> None:
    """A plugin's own mail is sealed in the outbox, outlives failures of the transport, and ends when its life does."""
    expected_logs.append("mail deferred")
    write(folder, "acme.news", "News")
    site = await opened(open_site, folder)
    context: Context = site.hydra.registry.loaded["acme"].plugin.context  # type: ignore[attr-defined]
    site.box.failure = ConnectionError("mail is down")
    await context.send_mail("news", "Ada@Example.com", {"code": "s3cret"}, life=timedelta(hours=1))
    for _ in range(500):
        if site.box.keys:
            break
        await asyncio.sleep(0.01)
    [kept] = [document async for document in site.hydra._store.collection("outbox").find()]
    assert kept["kind"] == "acme.news"
    assert b"s3cret" not in str(kept).encode()
    site.box.failure = None
    site.clock.forward(minutes=10)
    assert "s3cret" in await site.box.letter("ada@example.com", about="News")
    with pytest.raises(ValueError, match="@"):
        await context.send_mail("news", "nobody", {"code": "x"})
    with pytest.raises(LookupError, match=r"acme\.other"):
        await context.send_mail("other", EMAIL, {})


async def test_dead_mail_of_its_own(open_site: OpenSite, folder: Path, expected_logs: list[str]) -> None:
    """Given up and revived within its life a plugin's mail goes out; after that it is dead, and says why."""
    expected_logs += ["mail deferred", "mail given up"]
    write(folder, "acme.news", "News")
    values = {"dir": str(folder), "enabled": ["acme"]}
    site = await open_site(plugins=values, mail={"max_attempts": 1})
    context: Context = site.hydra.registry.loaded["acme"].plugin.context  # type: ignore[attr-defined]
    outbox = site.hydra.services.store.outbox
    site.box.failure = ConnectionError("mail is down")
    for to in ("one@example.com", "two@example.com"):
        await context.send_mail("news", to, {"code": to}, life=timedelta(hours=1))
    await dead(site, 2)
    site.box.failure = None
    first, second = sorted(await outbox.list(10), key=lambda intent: intent.address_key)
    await outbox.revive(first.id, site.clock())
    await site.box.letter("one@example.com", about="News")
    site.clock.forward(hours=2)
    await outbox.revive(second.id, site.clock())
    for _ in range(500):
        [left] = await outbox.list(10)
        if left.dead and "too old" in left.error:
            break
        await asyncio.sleep(0.01)
    assert "too old" in left.error


async def dead(site: Site, number: int) -> None:
    for _ in range(500):
        if sum(intent.dead for intent in await site.hydra.services.store.outbox.list(10)) == number:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not given up")


# -- members -----------------------------------------------------------------------------------------


def membered(*members: ProfileMember) -> type:
    class Membered:
        asked: tuple[Any, ...] = ()

        def __init__(self, context: Context) -> None:
            pass

        @hookimpl
        def hydracore_register_profile_members(self) -> list[ProfileMember]:
            return list(members)

        @hookimpl
        async def hydracore_before_register(self, profile: Any) -> None:
            self.asked = (*self.asked, dict(profile))

    return Membered


async def test_members(open_site: OpenSite) -> None:
    """What is sent is checked, given to the hooks, and kept if it is to be; nothing else gets into a document."""
    site = await open_site(
        extra={
            "acme": membered(
                ProfileMember("display_name", {"type": "string", "maxLength": 10}, required=True),
                ProfileMember("captcha", {"type": "string"}, keep=False),
                ProfileMember("birthday", {"type": "object"}),
            )
        }
    )
    body = {"email": EMAIL, "password": PASSWORD, "display_name": "Ada", "captcha": "xyz", "is_admin": True}
    first = tokens(await site.post("register", body), 201)
    assert json.loads((await site.me(first["access_token"])).body)["profile"] == {"display_name": "Ada"}
    plugin = site.hydra.registry.loaded["acme"].plugin
    assert plugin.asked == ({"display_name": "Ada", "captcha": "xyz"},)  # type: ignore[attr-defined]
    [stored] = [document async for document in site.hydra._store.collection("users").find()]
    assert stored["profile"] == {"display_name": "Ada"}
    assert "is_admin" not in str(stored)
    for bad, kind in (({"display_name": "x" * 11}, "string_too_long"), ({"display_name": 7}, "string_type")):
        [problem] = refused(await site.post("register", {**body, **bad}), 422, "validation_failed")
        assert problem["type"] == kind


@pytest.mark.parametrize(
    "value",
    [
        {"$where": "1"},
        {"a.b": 1},
        {"a\0b": 1},
        {"n": 2**64},
        {"deep": [{"$x": 1}]},
        {"n": [-(2**70)]},
        {"deep": json.loads("[" * 40 + "]" * 40)},
    ],
)
async def test_members_that_cannot_be_kept(open_site: OpenSite, value: Any) -> None:
    """What no document may hold is refused by its name, not by a 500."""
    site = await open_site(extra={"acme": membered(ProfileMember("anything", {}))})
    body = {"email": EMAIL, "password": PASSWORD, "anything": value}
    [problem] = refused(await site.post("register", body), 422, "validation_failed")
    assert problem["loc"] == ["body", "anything"]


async def test_accounts_of_before(open_site: OpenSite) -> None:
    """An account that was made before there were profiles is read as one without."""
    site = await open_site()
    first = await site.register()
    users = site.hydra._store.collection("users")
    await users.update_many({}, {"$unset": {"profile": "", "authority": ""}})
    assert "profile" not in json.loads((await site.me(first["access_token"])).body)
    tokens(await site.post("login", {"email": EMAIL, "password": PASSWORD}))


async def test_a_plugins_collections_alone(open_site: OpenSite, folder: Path) -> None:
    """A plugin reaches the collections that it registered; ours and others' it has no name for."""
    site = await opened(open_site, folder)
    context: Context = site.hydra.registry.loaded["acme"].plugin.context  # type: ignore[attr-defined]
    for name in ("users", "notes"):
        with pytest.raises(LookupError):
            context.collection(name)
    assert isinstance(site.hydra._store, Store)
    assert context.mac("a") != context.mac("b")
    assert len(context.mac("a", "b")) == 43
    assert await context.find_account("nobody@example.com") is None
    assert await context.find_account("no address") is None
    await site.register()
    found = await context.find_account("ADA@example.com")
    assert found
    assert found.email == EMAIL
    hashed = await context.hash_password("x")
    assert await context.verify_password(hashed, "x")
    assert not await context.verify_password("", "x")


def test_a_key_that_is_needed(folder: Path) -> None:
    """A key that a plugin's schema requires is told by its whole name."""
    (folder / "acme/schemas/config.json").write_text(json.dumps({**CONFIG, "required": ["greeting"]}))
    assert "plugins.acme.greeting: is needed" in complaint(folder)


async def test_numbers_that_are_none(open_site: OpenSite) -> None:
    """A number beyond what a float holds is no JSON: nothing infinite is kept, nor answered."""
    site = await open_site(extra={"acme": membered(ProfileMember("ratio", {"type": "number"}))})
    raw = b'{"email": "ada@example.com", "password": "correct horse battery staple", "ratio": 1e999}'
    headers = {"Content_Type": "application/json"}
    [problem] = refused(await site.ask("POST", "/auth/register", raw=raw, **headers), 422, "validation_failed")
    assert problem["type"] == "json_invalid"
