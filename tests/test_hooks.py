"""The contract with plugins: every hook has its words and its plugin; whatever does not fit stops the start; whatever
goes wrong later harms nobody else."""

import importlib
import inspect
import json
import re
import sys
import threading
import time
from abc import ABC
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pluggy
import pytest
from support import SECRET, OpenSite, refused

from hydracore import HydraCore, StartupError, hookspecs
from hydracore.cli import main
from hydracore.config import load
from hydracore.discovery import installed
from hydracore.events import Event
from hydracore.fitting import OUR_COMMANDS
from hydracore.plugin import (
    Authenticator,
    Collection,
    Command,
    Context,
    Endpoint,
    EventListener,
    HealthCheck,
    Index,
    LimitBackend,
    LoginRefused,
    MailTransport,
    PasswordPolicy,
    PasswordRefused,
    ProfileMember,
    RegistrationRefused,
    Route,
    hookimpl,
    public,
    verified,
)
from hydracore.registry import Registry
from hydracore.web import routes as table

HOOKS = {name: value for name, value in vars(hookspecs).items() if name.startswith("hydracore_")}


def hydra(extra: dict[str, Any] | None = None, **settings: Any) -> HydraCore:
    values = {"secret": SECRET, "store": {"driver": "memory"}, **settings}
    return HydraCore(load(environment={}, overrides=values), plugins=extra)


@pytest.mark.parametrize("name", HOOKS)
def test_hooks_are_documented(name: str) -> None:
    """A hook says its contract, an example (which test_hook_examples runs), and since when."""
    words = inspect.getdoc(HOOKS[name])
    assert words
    assert re.search(r"Since [0-9]+\.[0-9]+\.", words)
    assert "Example::\n" in words
    assert f"def {name}(self" in words
    kind = name.removeprefix("hydracore_").partition("_")[0]
    assert kind in ("register", "before", "on")
    assert inspect.iscoroutinefunction(HOOKS[name]) == (kind != "register")


def test_every_hook_has_a_plugin(tmp_path: Path) -> None:
    """No hook without a plugin on the shelf that uses it; no plugin there that does not load."""
    shelf = {name for name, plugin in installed().items() if plugin.distribution == "hydracore"}
    people = tmp_path / "people"
    people.touch()
    registry = hydra(
        plugins={
            "enabled": sorted(shelf - {"password_standard", "limits_memory"}),
            "mail_resend": {"api_key": "re_test"},
            "mail_failover": {"transports": ["smtp", "resend"]},
            "authenticator_static_file": {"file": str(people)},
        }
    ).registry
    assert set(registry.loaded) == shelf
    assert {hook for name in registry.loaded for hook in registry.loaded.hooks_of(name)} == set(HOOKS)


def test_our_commands() -> None:
    """The names that no plugin's command may have are those of ours."""
    assert {*main.commands, *main.elsewhere} == OUR_COMMANDS
    for name in OUR_COMMANDS:
        assert main.get_command(click.Context(main), name).name == name


class Plain:
    def __init__(self, context: Context) -> None:
        pass


class Misspelt(Plain):
    @hookimpl
    def hydracore_register_mail_transport(self) -> list[Any]:
        return []


class WrongArgument(Plain):
    @hookimpl
    async def hydracore_before_register(self, adress: str) -> None:
        pass


class Unmarked(Plain):
    async def hydracore_before_login(self) -> None:
        raise LoginRefused


class NoHook(Plain):
    @hookimpl
    async def before_login(self) -> None:
        raise LoginRefused


class NoContext:
    def __init__(self) -> None:
        pass


class TooEarly:
    def __init__(self, context: Context) -> None:
        context.collection("logins")


class KeywordOnly(Plain):
    @hookimpl
    async def hydracore_before_register(self, *, email: str) -> None:
        pass


class WithDefault(Plain):
    @hookimpl
    async def hydracore_before_register(self, email: str, network: str = "") -> None:
        pass


class ForLater:
    requires_api = "1.7"

    def __init__(self, context: Context) -> None:
        raise AttributeError("what 1.7 has")


class NotAsync(Plain):
    @hookimpl
    def hydracore_on_event(self, event: object) -> None:
        pass


class AsyncRegister(Plain):
    @hookimpl
    async def hydracore_register_password_policies(self) -> list[Any]:
        return []


class WrongRecord(Plain):
    @hookimpl
    def hydracore_register_password_policies(self) -> list[Any]:
        return ["a policy"]


class SameName(Plain):
    @hookimpl
    def hydracore_register_limit_backends(self) -> list[LimitBackend]:
        return [LimitBackend("memory", send)]


class FailsToRegister(Plain):
    @hookimpl
    def hydracore_register_password_policies(self) -> list[Any]:
        raise KeyError("broken")


class ReturnsNone(Plain):
    @hookimpl
    def hydracore_register_password_policies(self) -> Any:
        return None


class Exits(Plain):
    def __init__(self, context: Context) -> None:
        raise SystemExit(3)


class Groups(Plain):
    def __init__(self, context: Context) -> None:
        raise BaseExceptionGroup("many", [GeneratorExit()])


class GroupsLater(Plain):
    @hookimpl
    def hydracore_register_password_policies(self) -> Any:
        raise BaseExceptionGroup("many", [GeneratorExit()])


class Interrupts(Plain):
    def __init__(self, context: Context) -> None:
        raise KeyboardInterrupt


class InterruptsLater(Plain):
    @hookimpl
    def hydracore_register_password_policies(self) -> Any:
        raise KeyboardInterrupt


class Silent(Endpoint):
    async def get(self) -> None:
        pass


@public
class NotCoroutine(Endpoint):
    def get(self) -> None:
        pass


@public
class NoMethod(Endpoint):
    pass


class OwnOptions(Endpoint):
    @public
    async def get(self) -> None:
        pass

    async def options(self) -> None:
        pass


@public
class Deaf(Endpoint):
    async def get(self, other: str) -> None:
        pass


@public
class Now(Endpoint):
    async def get(self) -> None:
        pass


@public
class Named(Endpoint):
    async def get(self, **names: str) -> None:
        pass


class Inherited(NoMethod):
    async def get(self) -> None:
        pass


@verified
class Base(Endpoint):
    async def get(self) -> None:
        self.reply({"secret": 1})


@verified
class Prepares(Endpoint):
    async def prepare(self) -> None:
        pass

    async def get(self) -> None:
        self.reply({"secret": 1})


class Preparing:
    async def prepare(self) -> None:
        pass


@verified
class Mixed(Preparing, Base):
    pass


@verified
class Further(Endpoint):
    SUPPORTED_METHODS = (*Endpoint.SUPPORTED_METHODS, "PROPFIND")  # type: ignore[assignment]  # so it is

    async def get(self) -> None:
        pass

    async def propfind(self) -> None:
        self.reply({"secret": 1})


def having(**members: Any) -> type:
    """An endpoint that is closed, with ``members`` of its own."""
    return verified(type("Having", (Base,), members))


class Meta(type):
    pass


@verified
class Made(Base, metaclass=Meta):
    pass


def bringing(hook: str, *records: Any) -> type:
    """A plugin class that registers ``records``."""

    def register(self: Any) -> list[Any]:
        return list(records)

    return type("Bringing", (Plain,), {hook: hookimpl(register)})


async def send(message: object, key: str) -> None: ...


async def judge_in_a_thread(password: str, email: str) -> None: ...


def at_once(*arguments: object) -> None: ...


async def made_later(context: Context) -> Plain:
    return Plain(context)


REFERRING = {"type": "object", "properties": {"a": {"$ref": "https://schemas.example/a.json"}}}
DANGLING = {"$ref": "#/$defs/nothing", "$defs": {"something": {}}}
LISTENERS = "hydracore_register_event_listeners"
ROUTES, COLLECTIONS = "hydracore_register_routes", "hydracore_register_collections"
TRANSPORTS, CHECKS = "hydracore_register_mail_transports", "hydracore_register_health_checks"


def indexed(**index: Any) -> type:
    """A plugin whose collection has that index, by the key ``at`` unless it says otherwise."""
    return bringing(COLLECTIONS, Collection("notes", [Index(**{"keys": [("at", 1)], **index})]))


def needs(version: Any) -> type:
    return type("Needs", (Plain,), {"requires_api": version})


@pytest.mark.parametrize(
    ("plugin", "said"),
    [
        (Misspelt, ["acme", "hydracore_register_mail_transport", "did you mean hydracore_register_mail_transports?"]),
        (WrongArgument, ["acme", "wants adress in hydracore_before_register", "email, network, profile"]),
        (KeywordOnly, ["acme", "email", "without a default"]),
        (WithDefault, ["acme", "network: str = ''", "never be given"]),
        (ForLater, ["acme", "requires the hook API 1.7"]),
        (bringing(LISTENERS, EventListener("a", send, of=[Event])), ["acme", "EventListener", "its of"]),
        (bringing(LISTENERS, EventListener("a", send, of=("LoggedIn",))), ["acme", "its of"]),
        (bringing(LISTENERS, EventListener("a", None)), ["acme", "its listen is None"]),
        (
            bringing("hydracore_register_password_policies", PasswordPolicy("a", check=judge_in_a_thread)),
            ["acme", "PasswordPolicy", "async def"],
        ),
        (bringing("hydracore_register_profile_members", ProfileMember(1, {})), ["acme", "its name is 1"]),
        (bringing("hydracore_register_profile_members", ProfileMember("a", "x")), ["acme", "JSON Schema"]),
        (bringing("hydracore_register_profile_members", ProfileMember("a", REFERRING)), ["acme", "schemas.example"]),
        (bringing("hydracore_register_profile_members", ProfileMember("a", DANGLING)), ["acme", "no such part"]),
        (bringing("hydracore_register_routes", Route(1, Silent)), ["acme", "its path is 1"]),
        (bringing("hydracore_register_commands", Command([], None)), ["acme", "its name is []"]),
        (bringing("hydracore_register_collections", Collection("a", None)), ["acme", "its indexes are None"]),
        (bringing("hydracore_register_collections", Collection("a", [Index("at")])), ["acme", "its indexes"]),
        (bringing("hydracore_register_collections", Collection("a$b")), ["acme", "its name has"]),
        (bringing("hydracore_register_mail_transports", MailTransport("a", send, over=None)), ["acme", "its over"]),
        (bringing("hydracore_register_mail_transports", MailTransport("", send)), ["acme", "its name is ''"]),
        (bringing("hydracore_register_health_checks", HealthCheck("a", "ok")), ["acme", "its check is 'ok'"]),
        (Unmarked, ["acme", "hydracore_before_login without @hookimpl"]),
        (NoHook, ["acme", "before_login", "did you mean hydracore_before_login?"]),
        (NoContext, ["acme", "def __init__(self, context)"]),
        (TooEarly, ["acme", "no database yet", "not in __init__", "test_hooks.py"]),
        (NotAsync, ["acme", "hydracore_on_event", "async def"]),
        (AsyncRegister, ["acme", "hydracore_register_password_policies", "not async def"]),
        (WrongRecord, ["acme", "'a policy'", "PasswordPolicy"]),
        (SameName, ["limits_memory", "acme", "memory", "plugins.enabled"]),
        (FailsToRegister, ["acme", "hydracore_register_password_policies", "KeyError", "test_hooks.py, line"]),
        (ReturnsNone, ["acme", "hydracore_register_password_policies", "a list"]),
        (Exits, ["acme", "SystemExit"]),
        (Groups, ["acme", "BaseExceptionGroup", "test_hooks.py, line"]),
        (GroupsLater, ["acme", "hydracore_register_password_policies", "BaseExceptionGroup"]),
        (needs("2.0"), ["acme", "2.0", "1.0", "Install"]),
        (needs("1.99"), ["acme", "1.99", "1.0"]),
        (needs("one"), ["acme", "'one'"]),
        (bringing("hydracore_register_routes", Route("/acme", Silent)), ["acme", "Silent", "GET /acme", "verified"]),
        (
            bringing("hydracore_register_routes", Route("/acme", OwnOptions)),
            ["acme", "OPTIONS /acme", "whom it answers"],
        ),
        (bringing("hydracore_register_routes", Route("/acme/{id}", Deaf)), ["acme", "Deaf (GET /acme/{id})", "id"]),
        (bringing("hydracore_register_routes", Route("/acme", Deaf)), ["acme", "Deaf (GET /acme)", "other"]),
        (bringing("hydracore_register_routes", Route("/acme", Inherited)), ["acme", "Inherited", "whom it answers"]),
        (bringing("hydracore_register_routes", Route("/acme", NotCoroutine)), ["acme", "async def get"]),
        (bringing("hydracore_register_routes", Route("/acme", NoMethod)), ["acme", "no method"]),
        (bringing("hydracore_register_routes", Route("/acme", object)), ["acme", "subclass of Endpoint"]),
        (bringing("hydracore_register_routes", Route("/login", NotCoroutine)), ["acme", "/login", "HydraCore's own"]),
        (
            bringing("hydracore_register_routes", Route("/acme", Now), Route("/acme", Now)),
            ["acme registers a Route named /acme twice"],
        ),
        (
            bringing("hydracore_register_routes", Route("/acme/{a}", Named), Route("/acme/{b}", Named)),
            ["acme", "/acme/{b}, which nobody would reach: /acme/{a} comes before it"],
        ),
        (
            bringing("hydracore_register_routes", Route("/acme/{a}", Named), Route("/acme/now", Now)),
            ["acme", "/acme/now, which nobody would reach: /acme/{a} comes before it"],
        ),
        (bringing("hydracore_register_routes", Route("acme", NotCoroutine)), ["acme", "begin with /acme"]),
        (bringing(ROUTES, Route("/acme", Prepares)), ["acme", "Prepares (/acme)", "prepare", "rename it"]),
        (bringing(ROUTES, Route("/acme", Mixed)), ["acme", "Mixed (/acme)", "prepare"]),
        (bringing(ROUTES, Route("/acme", Further)), ["acme", "Further (/acme)", "SUPPORTED_METHODS"]),
        (bringing(ROUTES, Route("/acme", Made)), ["acme", "Made (/acme)", "metaclass Meta"]),
        *(
            (bringing(ROUTES, Route("/acme", having(**{name: member}))), ["acme", "Having (/acme)", name])
            for name, member in (
                ("initialize", lambda self: None),
                ("data_received", lambda self, chunk: None),
                ("write_error", lambda self, status, **kwargs: None),
                ("set_default_headers", lambda self: None),
                ("on_finish", lambda self: None),
                ("log_exception", lambda self, *error: None),
                ("_admit", lambda self: None),
                ("_implements", classmethod(lambda kind, method: False)),
                ("_stream_request_body", False),
                ("_request_id", "always the same"),
                ("always", True),
                ("web", property(lambda self: None)),
                ("request", property(lambda self: None)),
                ("caller", property(lambda self: None)),
                ("reply", property(lambda self: None)),
                ("__getattribute__", lambda self, name: None),
                ("challenge", None),
                ("challenge", "Bearer\r\n"),
            )
        ),
        (indexed(expire_after=-5), ["acme", "Collection", "('at', 1)", "expire_after=-5"]),
        (indexed(expire_after=2**31), ["acme", "expire_after=2147483648"]),
        (indexed(expire_after=True), ["acme", "expire_after=True"]),
        (indexed(expire_after="60"), ["acme", "expire_after='60'"]),
        (indexed(keys=[("at", 1), ("by", 1)], expire_after=5), ["acme", "expire_after and 2 keys"]),
        (indexed(keys=[("at", 7)]), ["acme", "the direction 7"]),
        (indexed(keys=[("at", True)]), ["acme", "the direction True"]),
        (indexed(keys=[("", 1)]), ["acme", "the key ''"]),
        (indexed(unique="no"), ["acme", "its unique is 'no'"]),
        (bringing(COLLECTIONS, Collection("notes", durable="no")), ["acme", "its durable is 'no'"]),
        (bringing(TRANSPORTS, MailTransport("a", at_once)), ["acme", "its send is a plain function", "async def"]),
        (bringing(TRANSPORTS, MailTransport("a", send, at_once)), ["acme", "its close is a plain function"]),
        (bringing(TRANSPORTS, MailTransport("a", send, delivers="no")), ["acme", "its delivers is 'no'"]),
        (bringing(TRANSPORTS, MailTransport("a", partial(at_once, 1))), ["acme", "its send is a plain function"]),
        (bringing(CHECKS, HealthCheck("a", at_once)), ["acme", "its check is a plain function"]),
        (bringing(LISTENERS, EventListener("a", at_once)), ["acme", "its listen is a plain function"]),
        (
            bringing("hydracore_register_limit_backends", LimitBackend("a", at_once)),
            ["acme", "its hit is a plain function"],
        ),
        (
            bringing("hydracore_register_authenticators", Authenticator("a", at_once)),
            ["acme", "its authenticate is a plain function"],
        ),
        (
            bringing("hydracore_register_password_policies", PasswordPolicy("a", judge=at_once)),
            ["acme", "its judge is a plain function"],
        ),
        (lambda context: None, ["acme", "returns None"]),
        (made_later, ["acme", "coroutine function"]),
        (bringing("hydracore_register_commands", Command("serve", None)), ["acme", "serve", "HydraCore's own"]),
        (bringing("hydracore_register_profile_members", ProfileMember("email", {})), ["acme", "email"]),
        (bringing("hydracore_register_profile_members", ProfileMember("$x", {})), ["acme", "$x"]),
        (bringing("hydracore_register_profile_members", ProfileMember("x", {"type": "text"})), ["acme", "x", "schema"]),
        (
            bringing("hydracore_register_mail_transports", MailTransport("a", send, over=["smpt"])),
            ["acme", "smpt", "plugins.enabled"],
        ),
        (
            bringing("hydracore_register_mail_transports", MailTransport("a", send, over=["a"])),
            ["acme", "circle"],
        ),
    ],
)
def test_what_does_not_fit_stops_the_start(plugin: Any, said: list[str]) -> None:
    """A misspelt hook or argument, a wrong kind or record, a taken name, an endpoint that does not say whom it answers:
    both parties and the remedy are named."""
    with pytest.raises(StartupError) as raised:
        hydra({"acme": plugin})
    for part in said:
        assert part in str(raised.value)


@pytest.mark.parametrize("plugin", [Interrupts, InterruptsLater])
def test_an_interrupted_start(plugin: Any, expected_logs: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """Ctrl-C ends the start while a plugin loads, and the log says which: it may be the plugin that raised it."""
    expected_logs.append("the start was interrupted while the plugin acme was loading")
    with pytest.raises(KeyboardInterrupt):
        hydra({"acme": plugin})
    assert "acme" in {record.__dict__.get("plugin") for record in caplog.records}


def test_slow_loading_is_told_as_it_goes(
    expected_logs: list[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a plugin is made, or registers, the log says again and again that it is loading, and then no more."""
    monkeypatch.setattr("hydracore.loading._SLOW_START", 0.1)
    monkeypatch.setattr("hydracore.loading._STILL_EVERY", 0.1)
    expected_logs += ["plugin is still loading", "plugin is slow to start"]

    class Slow(Plain):
        def __init__(self, context: Context) -> None:
            time.sleep(0.5)

        @hookimpl
        def hydracore_register_password_policies(self) -> Any:
            told.append(len(caplog.records))
            time.sleep(0.5)
            return []

    told: list[int] = []
    hydra({"acme": Slow})
    still = [
        record.message == "plugin is still loading" and record.__dict__["plugin"] == "acme" for record in caplog.records
    ]
    assert sum(still[: told[0]]) >= 2
    assert sum(still[told[0] :]) >= 2
    assert "hydracore-loading" not in {thread.name for thread in threading.enumerate()}


def test_blame_falls_on_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code anywhere in a plugin's package is the plugin's, whichever of its modules the entry point names."""
    package, metadata = tmp_path / "blamed_acme", tmp_path / "blamed_acme-1.0.dist-info"
    for folder in (package, metadata):
        folder.mkdir()
    (package / "__init__.py").touch()
    (package / "plugin.py").write_text("class Acme:\n    def __init__(self, context):\n        pass\n")
    (package / "web.py").write_text("import sys\n\ndef here():\n    return sys._getframe()\n")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: blamed-acme\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[hydracore]\nacme = blamed_acme.plugin:Acme\n")
    monkeypatch.syspath_prepend(tmp_path)
    loaded = hydra(plugins={"enabled": ["acme"]}).registry.loaded
    assert loaded.blame(importlib.import_module("blamed_acme.web").here()) == "acme"
    assert loaded.blame(sys._getframe()) == ""


class Sender:
    """May be sent by in every way that there is."""

    async def send(self, message: object, key: str, *more: object) -> None: ...

    async def __call__(self, message: object, key: str) -> None: ...


def test_what_is_awaited() -> None:
    """A coroutine function, a bound one, a part of one and an object that is called as one are all taken."""
    sends: list[Any] = [send, Sender().send, partial(Sender().send, more=()), Sender(), partial(Sender())]
    transports = [MailTransport(f"a{number}", each) for number, each in enumerate(sends)]
    assert len(hydra({"acme": bringing(TRANSPORTS, *transports)}).registry.transports) == len(sends) + 1


def test_a_plugin_named_system() -> None:
    """MongoDB keeps names that begin with system. for itself: a plugin of that name has no collections."""
    with pytest.raises(StartupError, match=r"The plugin system .* system\.notes.* Rename the plugin"):
        hydra({"system": bringing(COLLECTIONS, Collection("notes"))})
    assert "system" in hydra({"system": Plain}).registry.loaded


async def test_an_index_that_the_database_refuses(open_site: OpenSite) -> None:
    """What MongoDB says of an index stops the start, by the names of the index, the collection and the plugin: it is no
    outage."""
    for keys, said in (([("_id", 1)], "_id"), ([("$at", 1)], "$")):
        with pytest.raises(StartupError) as raised:
            await open_site(extra={"acme": indexed(keys=keys, expire_after=5)})
        for part in ("acme.notes", f"{keys[0][0]}_1", "the plugin acme", said, "the database says"):
            assert part in str(raised.value)
        assert "full error" not in str(raised.value)


def test_a_policy_is_one_thing() -> None:
    """A policy has a check or a judge, not both and not neither."""
    with pytest.raises(TypeError, match="acme"):
        PasswordPolicy("acme")


def test_collections_are_apart(tmp_path: Path) -> None:
    """Two plugins may call their collections the same: each has its own."""
    one, two = (bringing("hydracore_register_collections", Collection("notes")) for _ in range(2))
    names = list(hydra({"one": one, "two": two}).registry.collections)
    assert {"one.notes", "two.notes"} <= set(names)


def test_routes_beside_each_other() -> None:
    """Paths that share some of what they match are all taken where the narrower one comes first."""
    paths = ["/acme/now", "/acme/{a}.json", "/acme/{a}", "/acme/{a}/{b}"]
    routes = [Route(path, Named) for path in paths]
    assert set(hydra({"acme": bringing("hydracore_register_routes", *routes)}).registry.routes) == set(paths)


def test_retiring_hooks_warn(expected_logs: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """A plugin that implements what is going is named in the log, with the words of the hook."""
    expected_logs.append("plugin uses what is going")
    specs = ModuleType("specs")
    vars(specs).update({name: value for name, value in vars(hookspecs).items() if name.startswith("hydracore_")})
    marker = pluggy.HookspecMarker("hydracore")
    going = DeprecationWarning("hydracore_on_thing goes in 2.0: use hydracore_on_event")

    @marker(warn_on_impl=going)
    async def hydracore_on_thing(thing: object) -> None: ...

    vars(specs)["hydracore_on_thing"] = hydracore_on_thing

    class Old(Plain):
        @hookimpl
        async def hydracore_on_thing(self) -> None: ...

    core = hydra()
    Registry(
        core.config,
        now=core._now,
        token=core._token,
        surroundings=None,  # type: ignore[arg-type]  # none is asked for anything
        extra={"old": Old},
        specs=specs,
    )
    [record] = [record for record in caplog.records if "going" in record.getMessage()]
    assert (record.__dict__["plugin"], "use hydracore_on_event" in record.__dict__["reason"]) == ("old", True)


def test_unknown_plugins() -> None:
    """An unknown plugin in enabled or with a section is named, with what was near."""
    with pytest.raises(StartupError, match="did you mean event_log"):
        hydra(plugins={"enabled": ["event_logs"]})
    with pytest.raises(StartupError, match="did you mean mail_smtp"):
        hydra(plugins={"mail_smpt": {"host": "x"}})


def test_names_order_and_once() -> None:
    """plugins.enabled orders the plugins, and one that is named and chosen is loaded once."""
    names = hydra(plugins={"enabled": ["register_domains", "event_log", "mail_folder"]}).registry.loaded
    assert list(names) == [
        "password_standard",
        "limits_memory",
        "mail_folder",
        "limits_mongodb",
        "register_domains",
        "event_log",
    ]


async def test_before_register_may_refuse(open_site: OpenSite) -> None:
    """A plugin's refusal reaches the client as its own sentence, and nothing is stored."""
    site = await open_site(plugins={"enabled": ["register_domains"], "register_domains": {"domains": ["Example.com"]}})
    await site.register("ada@EXAMPLE.com")
    body = {"email": "eve@example.org", "password": "correct horse battery staple"}
    assert "not open" in refused(await site.post("register", body), 403, "registration_refused")
    assert len(await site.hydra.services.store.users.page(None, 10)) == 1


class Slow(Plain):
    @hookimpl
    async def hydracore_before_register(self, email: str) -> None:
        import asyncio

        if email.startswith("slow"):
            await asyncio.sleep(60)
        if email.startswith("broken"):
            raise KeyError(email)
        if email.startswith("refused"):
            raise RegistrationRefused("Not you.")


async def test_late_and_broken_plugins(open_site: OpenSite, expected_logs: list[str]) -> None:
    """A before_ hook that is late or fails refuses with 503, and the log names the plugin."""
    expected_logs += ["plugin failed", "plugin is late", "unavailable"]
    site = await open_site(plugins={"timeout": 1})
    site.hydra.registry.loaded.register("slow", Slow(None))
    for who, status, code in (
        ("slow", 503, "unavailable"),
        ("broken", 503, "unavailable"),
        ("refused", 403, "registration_refused"),
    ):
        body = {"email": f"{who}@example.com", "password": "correct horse battery staple"}
        refused(await site.post("register", body), status, code)
    await site.register()


async def test_policies_of_plugins(open_site: OpenSite, expected_logs: list[str]) -> None:
    """Every policy is asked and every objection told; one that fails lets nothing through."""
    expected_logs += ["plugin failed", "unavailable"]
    site = await open_site()

    def check(password: str, email: str) -> None:
        if "broken" in password:
            raise RuntimeError
        raise PasswordRefused("Never good enough.")

    site.hydra.registry.policies["never"] = PasswordPolicy("never", check)
    answer = await site.post("register", {"email": "ada@example.com", "password": "password1"})
    problems = refused(answer, 422, "validation_failed")
    assert [problem["msg"] for problem in problems] == [
        "This is among the most common passwords. Choose another.",
        "Never good enough.",
    ]
    answer = await site.post("register", {"email": "ada@example.com", "password": "broken password"})
    refused(answer, 503, "unavailable")


class Open(Endpoint):
    """A base class whose method is open."""

    @public
    async def get(self) -> None:
        self.reply({"secret": 1})


@verified
class Closed(Open):
    pass


class Opened(Base):
    get = public(Base.get)


async def test_a_class_closes_what_it_inherits(open_site: OpenSite) -> None:
    """What a class says counts before what an inherited method says; and opening a method anew opens no other's."""
    routes = [Route("/acme/closed", Closed), Route("/acme/base", Base), Route("/acme/opened", Opened)]
    site = await open_site(extra={"acme": bringing("hydracore_register_routes", *routes)})
    refused(await site.ask("GET", "/auth/acme/closed"), 401, "not_authenticated")
    refused(await site.ask("GET", "/auth/acme/base"), 401, "not_authenticated")
    assert (await site.ask("GET", "/auth/acme/opened")).code == 200
    for name in ("closed", "base", "opened"):
        assert (await site.ask("OPTIONS", f"/auth/acme/{name}")).code == 204


async def test_a_method_that_is_not_http(open_site: OpenSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """A method outside HTTP's own is refused by whatever endpoint there is, not only by the audit."""
    monkeypatch.setattr(table, "_overriding", lambda path, endpoint: [])
    site = await open_site(extra={"acme": bringing(ROUTES, Route("/acme", Further))})
    refused(await site.ask("PROPFIND", "/auth/acme"), 405, "method_not_allowed")
    refused(await site.ask("GET", "/auth/acme"), 401, "not_authenticated")
    refused(await site.ask("POST", "/auth/acme", body={}), 405, "method_not_allowed")


class Page(Endpoint):
    """Has what an endpoint may have of its own: an abstract base, helpers, a challenge, a default for its caller."""

    challenge = 'Bearer realm="acme"'
    caller: Any = None

    def helper(self) -> str:
        return "helped"

    @verified
    async def get(self) -> None:
        self.reply({"said": self.helper()})


class Abstract(Page, ABC):
    pass


@verified
class Concrete(Abstract):
    pass


async def test_what_an_endpoint_may_have(open_site: OpenSite) -> None:
    """Names that are not Endpoint's are an endpoint's own, and so is its challenge."""
    site = await open_site(extra={"acme": bringing(ROUTES, Route("/acme", Page), Route("/acme/more", Concrete))})
    for path in ("/auth/acme", "/auth/acme/more"):
        answer = await site.ask("GET", path)
        refused(answer, 401, "not_authenticated")
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="acme"'
    bearer = {"Authorization": f"Bearer {(await site.verified())['access_token']}"}
    assert json.loads((await site.ask("GET", "/auth/acme", **bearer)).body) == {"said": "helped"}
