"""Every hook has its words, its plugin on the shelf, and its manners."""

import inspect
import re
from typing import Any

import pytest
from support import SECRET, OpenSite, refused

from hydracore import HydraCore, StartupError, hookspecs
from hydracore.config import load
from hydracore.plugin import Context, LimitBackend, PasswordPolicy, PasswordRefused, RegistrationRefused, hookimpl
from hydracore.registry import installed

HOOKS = {name: value for name, value in vars(hookspecs).items() if name.startswith("hydracore_")}


def hydra(extra: dict[str, Any] | None = None, **settings: Any) -> HydraCore:
    values = {"secret": SECRET, "store": {"driver": "memory"}, **settings}
    return HydraCore(load(environment={}, overrides=values), plugins=extra)


@pytest.mark.parametrize("name", HOOKS)
def test_hooks_are_documented(name: str) -> None:
    """A hook says its contract, an example from a plugin on the shelf, and since when."""
    words = inspect.getdoc(HOOKS[name])
    assert words
    assert "Since 0." in words
    example = re.search(r"Example \(``(hydracore_\w+)``\)::", words)
    assert example
    assert example[1].removeprefix("hydracore_") in installed()
    assert f"def {name}(self" in words
    kind = name.removeprefix("hydracore_").partition("_")[0]
    assert kind in ("register", "before", "on")
    assert inspect.iscoroutinefunction(HOOKS[name]) == (kind != "register")


def test_every_hook_has_a_plugin() -> None:
    """No hook without a plugin on the shelf that uses it; no plugin there that does not load."""
    everything = ["event_log", "mail_console", "mail_resend", "mail_smtp", "register_domains", "limits_mongodb"]
    resend = {"api_key": "re_test"}
    registry = hydra(plugins={"enabled": everything, "mail_resend": resend}).registry
    shelf = {name for name, plugin in installed().items() if plugin.distribution == "hydracore"}
    assert set(registry.names) == shelf
    assert {hook for name in registry.names for hook in registry.hooks_of(name)} == set(HOOKS)


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
        return [LimitBackend("memory", None)]


@pytest.mark.parametrize(
    ("plugin", "said"),
    [
        (Misspelt, ["acme", "hydracore_register_mail_transport", "Did you mean hydracore_register_mail_transports?"]),
        (WrongArgument, ["acme", "adress"]),
        (NotAsync, ["acme", "hydracore_on_event", "async def"]),
        (AsyncRegister, ["acme", "hydracore_register_password_policies", "not async def"]),
        (WrongRecord, ["acme", "'a policy'", "PasswordPolicy"]),
        (SameName, ["limits_memory", "acme", "memory", "plugins.enabled"]),
    ],
)
def test_what_does_not_fit_stops_the_start(plugin: Any, said: list[str]) -> None:
    """A misspelt hook or argument, a wrong kind or record, a taken name: both parties and the remedy are named."""
    with pytest.raises(StartupError) as raised:
        hydra({"acme": plugin})
    for part in said:
        assert part in str(raised.value)


def test_unknown_plugins() -> None:
    """An unknown plugin in enabled or with a section is named, with what was near."""
    with pytest.raises(StartupError, match="did you mean event_log"):
        hydra(plugins={"enabled": ["event_logs"]})
    with pytest.raises(StartupError, match="did you mean mail_smtp"):
        hydra(plugins={"mail_smpt": {"host": "x"}})


def test_names_order_and_once() -> None:
    """plugins.enabled orders the plugins, and one that is named and chosen is loaded once."""
    names = hydra(plugins={"enabled": ["register_domains", "event_log", "mail_folder"]}).registry.names
    assert names == [
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
    expected_logs += ["plugin failed", "unavailable"]
    site = await open_site(plugins={"timeout": 1})
    site.hydra.registry._register("slow", Slow(None))
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
    expected_logs += ["password policy failed", "unavailable"]
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
