"""Configuration: where it comes from, and how it complains."""

import dataclasses
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from hydracore import config as module
from hydracore.config import Config, check_section, load, load_schema, with_defaults
from hydracore.discovery import installed
from hydracore.errors import ConfigError

ROOT = Path(__file__).parent.parent
SECRET = "s" * 32
WEBHOOK = "[webhooks.endpoints.crm]\nurl = 'https://example.com/x'\n"
SIGNED = f"{WEBHOOK}secret = 'whsec_{'c2Vj' * 10}'\n"


def complaint(tmp_path: Path, text: str = "", **environment: str) -> str:
    file = tmp_path / "my.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load(file, environment)
    return str(raised.value)


def test_shipped_file_has_every_key_with_its_default() -> None:
    """config.toml says what the schema says, key for key."""
    shipped = tomllib.loads((ROOT / "config.toml").read_text("utf-8"))
    schema = load_schema()
    plugins = shipped["plugins"]
    sections = {name: plugins.pop(name) for name in list(plugins) if isinstance(plugins[name], dict)}
    assert shipped == with_defaults({}, schema)
    with_sections = {name: plugin.schema() for name, plugin in installed().items() if plugin.schema()["properties"]}
    assert set(sections) == {name for name in with_sections if installed()[name].distribution == "hydracore"}
    for name, section in sections.items():
        assert section == with_defaults({}, with_sections[name]), name


def test_shipped_file_loads() -> None:
    """The shipped file is a configuration as good as none."""
    assert load(ROOT / "config.toml", {}).server == load(None, {}).server


def test_classes_have_the_schemas_keys() -> None:
    """Every key of the schema has its typed field, and the other way round."""
    schema = load_schema()
    for name, rule in schema["properties"].items():
        if rule.get("type") == "object" and name != "plugins":
            section = getattr(module, name.capitalize())
            assert {field.name for field in dataclasses.fields(section)} == set(rule["properties"]), name
    assert {field.name for field in dataclasses.fields(Config)} == set(schema["properties"])


def test_environment_wins_over_the_file(tmp_path: Path) -> None:
    """A variable is stronger than the file, and takes the key's type; lists are JSON."""
    file = tmp_path / "my.toml"
    file.write_text("[server]\nport = 9000\nworkers = 2\n")
    config = load(
        file,
        {
            "HYDRACORE_SERVER__PORT": "9001",
            "HYDRACORE_SERVER__TRUSTED_PROXIES": '["10.0.0.0/8"]',
            "HYDRACORE_LIMITS__ENABLED": "false",
            "HYDRACORE_PUBLIC_URL": "https://id.example.com",
        },
    )
    assert (config.server.port, config.server.workers) == (9001, 2)
    assert config.server.trusted_proxies == ("10.0.0.0/8",)
    assert config.limits.enabled is False
    assert config.issuer == "https://id.example.com"
    assert config.secure_cookies


def test_secret_from_a_file(tmp_path: Path) -> None:
    """A variable that ends in _FILE names a file that holds the value."""
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    assert load(None, {"HYDRACORE_SECRET_FILE": str(file)}).secret == SECRET
    with pytest.raises(ConfigError, match=r"HYDRACORE_SECRET_FILE.*missing"):
        load(None, {"HYDRACORE_SECRET_FILE": str(tmp_path / "missing")})


def test_plugin_values_from_the_environment(tmp_path: Path) -> None:
    """A plugin's section takes variables too, typed by its own schema, and _FILE."""
    file = tmp_path / "password"
    file.write_text("hush\n")
    config = load(
        None,
        {
            "HYDRACORE_PLUGINS__MAIL_SMTP__PORT": "1025",
            "HYDRACORE_PLUGINS__MAIL_SMTP__HOST": "12",
            "HYDRACORE_PLUGINS__MAIL_SMTP__PASSWORD_FILE": str(file),
        },
    )
    section = check_section("mail_smtp", config.plugins.sections["mail_smtp"], installed()["mail_smtp"].schema())
    assert (section["port"], section["host"], section["password"]) == (1025, "12", "hush")


def test_webhooks(tmp_path: Path) -> None:
    """A webhook has its defaults, its secret from a file that a variable names, and http to this machine alone, or
    where it was asked for; neither its URL nor its secret is shown."""
    file = tmp_path / "secret"
    file.write_text(f"whsec_{'c2Vj' * 10}\nwhsec_{'bmV4' * 10}\n")
    variable = "HYDRACORE_WEBHOOKS__ENDPOINTS__CRM__"
    named = {f"{variable}URL": "http://[::1]:9000/x", f"{variable}SECRET_FILE": str(file)}
    crm = load(None, {**named, f"{variable}EVENTS": '["key.rotated"]'}).webhooks.endpoints["crm"]
    assert (crm.name, crm.timeout, crm.events, crm.allow_http) == ("crm", 15, ("key.rotated",), False)
    assert [len(key) for key in crm.keys] == [30, 30]
    assert "9000" not in repr(crm)
    assert "whsec_" not in repr(crm)
    there = {**named, f"{variable}URL": "http://crm:9000/x", f"{variable}ALLOW_HTTP": "true"}
    assert "user.registered" in load(None, there).webhooks.endpoints["crm"].events
    said = complaint(tmp_path, "", **{**named, f"{variable}SECRET": "hush-hush", f"{variable}URL": "ftp://hush"})
    assert "hush" not in said
    assert f"{variable}URL" in said


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[server]\nprot = 1\n", ["my.toml", "server.prot", "did you mean server.port?"]),
        ("port = 1\n", ["my.toml", "port", "did you mean server.port?"]),
        ("[sever]\nport = 1\n", ["my.toml", "sever", "did you mean server?"]),
        ("[server]\nport = 70000\n", ["my.toml: server.port", "at most 65535, not 70000"]),
        ("[server]\nport = '8000'\n", ["my.toml: server.port", "must be a whole number, not '8000'"]),
        ("[server]\nport = true\n", ["must be a whole number"]),
        ("[store]\ndriver = 'pymong'\n", ["one of pymongo, motor, memory", "did you mean pymongo?"]),
        ("[server]\ntrusted_proxies = ['10.0.0.0/99']\n", ["server.trusted_proxies", "10.0.0.0/99"]),
        ("[limits]\nlogin_address = 'many'\n", ["limits.login_address", "'many'"]),
        ("[password]\ntime_cost = 1\n", ["password.memory_kib", "47104"]),
        ("secret = 'short'\n", ["secret", "32 characters"]),
        ("public_url = 'id.example.com'\n", ["public_url"]),
        ("[server\n", ["my.toml", "not valid TOML"]),
        ("[mail]\nsender = 'nobody'\n", ["mail.sender", "'nobody'"]),
        ("[store]\ndriver = 'memory'\n[server]\nworkers = 2\n", ["server.workers", "memory"]),
        ("[server]\nport = 8000.0\n", ["server.port", "must be a whole number, not 8000.0"]),
        ("[server]\nworkers = 2.0\n", ["server.workers", "must be a whole number"]),
        ("public_url = 'http://['\n", ["public_url", "is no URL"]),
        ("public_url = 'http://x:99999'\n", ["public_url", "is no URL"]),
        ("[store]\ndriver = 'memory'\nuri = 'mongodb://x'\n", ["store.driver", "store.uri"]),
        ("[limits]\nbackend = 'memory'\n[server]\nworkers = 2\n", ["limits.backend", "server.workers"]),
        ('[mail]\nproduct = "a\\nb"\n', ["mail.product"]),
        ("[server]\nallowed_origins = ['https://*']\n", ["server.allowed_origins", "https://*"]),
        ("[management]\nport = 8000\n", ["management.port", "another than server.port"]),
        ("[admin]\nport = 8000\n", ["admin.port", "another than server.port"]),
        ("[admin]\nport = 9\n[management]\nport = 9\n", ["admin.port", "another than management.port"]),
        ("[admin]\nport = 9\nhost = '::'\n", ["admin.host", "127.0.0.1", "admin.allow_remote"]),
        ("[admin]\nport = 9\nhost = '10.0.0.7'\n", ["admin.host", "no TLS"]),
        ("[admin]\nport = 9\nhost = 'admin.example.com'\n", ["admin.host", "no TLS"]),
        ("[admin]\nretention_days = 0\n", ["admin.retention_days"]),
        ("[admin]\nallow_remot = true\n", ["admin.allow_remot", "admin.allow_remote"]),
        ("[cookies]\nsame_site = 'none'\n", ["cookies.same_site", "public_url"]),
        (WEBHOOK, ["webhooks.endpoints.crm.secret", "is needed and has no default"]),
        (f"{WEBHOOK}secret = 'whsec_c2hvcnQ='\n", ["webhooks.endpoints.crm.secret", "openssl rand -base64 32"]),
        (f"{SIGNED}urls = ''\n", ["webhooks.endpoints.crm.urls", "did you mean webhooks.endpoints.crm.url?"]),
        (f"{SIGNED}events = ['user.made']\n", ["webhooks.endpoints.crm.events", "user.registered", "'user.made'"]),
        (SIGNED.replace("https", "http"), ["webhooks.endpoints.crm.url", "must be https", "allow_http"]),
        (SIGNED.replace("https", "ftp"), ["webhooks.endpoints.crm.url", "is not valid: what it was given"]),
        (SIGNED.replace("/x", ":x"), ["webhooks.endpoints.crm.url", "what it was given is no URL"]),
        (SIGNED.replace("crm", "My-CRM"), ["webhooks.endpoints", "lower-case letters"]),
    ],
)
def test_complaints_name_file_key_rule_and_remedy(tmp_path: Path, text: str, parts: list[str]) -> None:
    """A wrong key, type or value: one message with the file, the key, the rule and what was near."""
    said = complaint(tmp_path, text)
    for part in parts:
        assert part in said


def test_complaints_name_the_variable(tmp_path: Path) -> None:
    """What came from the environment is named by its variable."""
    assert "HYDRACORE_SERVER__PORT: server.port: must be a whole number" in complaint(
        tmp_path, HYDRACORE_SERVER__PORT="eighty"
    )
    assert "HYDRACORE_SERVER__PROT" in complaint(tmp_path, HYDRACORE_SERVER__PROT="1")
    assert "did you mean server.port?" in complaint(tmp_path, HYDRACORE_SERVER__PROT="1")


def test_every_complaint_at_once(tmp_path: Path) -> None:
    """Two mistakes are told together."""
    said = complaint(tmp_path, "[server]\nport = 0.5\nhots = ''\n")
    assert "server.port" in said
    assert "server.hots" in said


def test_complaints_do_not_repeat_secrets(tmp_path: Path) -> None:
    """A secret that is refused is not shown."""
    assert "hunter2" not in complaint(tmp_path, "secret = 'hunter2'\n")
    assert "hunter2" not in complaint(tmp_path, "[store]\nuri = 'http://u:hunter2@h/'\n")


def complaint_of(schema: dict[str, Any], **section: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        check_section("acme", section, schema)
    return str(raised.value)


SECRETS = {
    "token": {"type": "integer"},
    "client_secret": {"enum": ["sesame-street"]},
    "apiKey": {"minLength": 9, "maxLength": 1},
    "pin": {"type": "integer", "writeOnly": True},
    "words": {"type": "array", "uniqueItems": True, "items": {"type": "integer", "writeOnly": True}},
    "credentials": {"type": "object", "properties": {"name": {"type": "integer"}}},
    "both": {"anyOf": [{"required": ["x"]}, {"properties": {"password": {"const": ""}}}]},
    "gone": False,
}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("token", "hush"),
        ("client_secret", "sesame"),
        ("apiKey", "hush"),
        ("pin", "hush"),
        ("words", ["hush", "hush"]),
        ("credentials", {"name": "hush"}),
        ("both", {"password": "hush"}),
        ("gone", "hush"),
        ("unknown", "hush"),
    ],
)
def test_complaints_do_not_repeat_secrets_of_plugins(key: str, value: Any) -> None:
    """What may be a secret by its name, its section's or its schema is not shown, whichever rule it breaks."""
    said = complaint_of({"properties": SECRETS, "maxProperties": 0}, **{key: value})
    assert "plugins.acme" in said
    assert "hush" not in said
    assert "'sesame'" not in said
    assert "did you mean sesame" not in said


@pytest.mark.parametrize(
    ("rule", "value", "said"),
    [
        ({"enum": [1, 2, True]}, 3, "must be one of 1, 2, true, not 3"),
        ({"enum": ["miles", "km"]}, "mile", "must be one of miles, km, not 'mile'; did you mean miles?"),
        ({"type": ["integer", "boolean"]}, "x", "must be a whole number or true or false, not 'x'"),
        ({"const": "on"}, "off", "must be on, not 'off'"),
        (
            {"anyOf": [{"type": "integer"}, {"minLength": 3}]},
            "x",
            "a whole number, not 'x', or must have at least 3 ch",
        ),
        ({"oneOf": [{}, {}], "description": "Which."}, "x", "is not valid: 'x'. Which."),
        (
            {"anyOf": [{"required": ["a", "b"]}, {"type": "string"}]},
            {"a": 1},
            "must have b, or must be text, not a sec",
        ),
        ({"type": "object", "additionalProperties": False}, {"x": 1}, "plugins.acme.mood.x: there is no such key"),
        (
            {"type": "object", "patternProperties": {"^x": {}}, "additionalProperties": False},
            {"x": 1, "y": 2},
            "plugins.acme.mood.y: there is no such key",
        ),
    ],
)
def test_complaints_of_every_rule(rule: dict[str, Any], value: Any, said: str) -> None:
    """A rule of a plugin's schema is told in its own words."""
    message = complaint_of({"properties": {"mood": rule}}, mood=value)
    assert "plugins.acme.mood" in message
    assert said in message
    assert "openssl" not in message
    assert not ("mood.x" in message and "mood.y" in message)


def test_absent_keys_are_told_once_each() -> None:
    """Two keys that are needed are both named."""
    said = complaint_of({"required": ["one", "two"], "properties": {"one": {}, "two": {}}})
    assert [said.count(f"plugins.acme.{key}: is needed") for key in ("one", "two")] == [1, 1]


def test_rules_that_say_nothing() -> None:
    """A key whose rule is true takes anything; a section's own default counts."""
    schema = {"properties": {"any": True, "section": {"type": "object", "default": {"x": 1}}}}
    assert check_section("acme", {"any": [7]}, schema) == {"any": [7], "section": {"x": 1}}


def test_own_database_demands_a_secret(tmp_path: Path) -> None:
    """With store.uri a secret is needed that all nodes share, and the message says how to set it."""
    assert "HYDRACORE_SECRET" in complaint(tmp_path, "[store]\nuri = 'mongodb://db/'\n")


def test_the_configuration_hides_secrets() -> None:
    """Printing a configuration shows no secret."""
    environment = {
        "HYDRACORE_SECRET": SECRET,
        "HYDRACORE_STORE__URI": "mongodb://u:hunter2@db/",
        "HYDRACORE_PLUGINS__MAIL_SMTP__PASSWORD": "hunter3",
    }
    shown = repr(load(None, environment))
    assert SECRET not in shown
    assert "hunter" not in shown


def test_schema_is_valid_json_schema() -> None:
    """Every schema in the package is one of draft 2020-12, with a description for each key of configuration."""
    from jsonschema import Draft202012Validator

    for file in (ROOT / "schemas").rglob("*.json"):
        schema: dict[str, Any] = json.loads(file.read_text("utf-8"))
        Draft202012Validator.check_schema(schema)
    for name, rule in load_schema()["properties"].items():
        assert rule["description"], name


def test_origins_are_as_browsers_write_them() -> None:
    """An origin's case and its scheme's own port make no difference."""
    environment = {"HYDRACORE_SERVER__ALLOWED_ORIGINS": '["https://App.example.com:443", "http://a.example:8080"]'}
    assert load(None, environment).server.allowed_origins == ("https://app.example.com", "http://a.example:8080")
    assert load(None, {"HYDRACORE_PUBLIC_URL": "https://ID.example.com:443/x"}).origin == "https://id.example.com"


def test_nested_lists_in_the_environment(tmp_path: Path) -> None:
    """A list nested too deeply is refused like any other wrong value."""
    assert "plugins.enabled" in complaint(tmp_path, HYDRACORE_PLUGINS__ENABLED="[" * 100_000)


@pytest.mark.parametrize(
    "admin",
    [
        *({"port": 9, "host": host} for host in ("127.0.0.1", "::1", "localhost", "127.8.8.8")),
        {"port": 9, "host": "10.0.0.7", "allow_remote": True},
        {"port": 0, "host": "10.0.0.7"},
    ],
)
def test_where_administrators_are_let_in(admin: dict[str, Any]) -> None:
    """The admin listener is on this machine's own addresses, on others where somebody said so, or not there."""
    assert load(environment={}, overrides={"admin": admin}).admin.host == admin["host"]
    assert load(environment={}).admin.port == 0
