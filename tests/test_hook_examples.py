"""The example of every hook does what its contract says: the code in the docstring, run as it is printed."""

import asyncio
import hmac
import inspect
import re
import textwrap
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import click
import jwt
import pytest
from click.testing import CliRunner
from support import PASSWORD, OpenSite, Site, refused, tokens

import hydracore.plugin
from hydracore import hookspecs

HOOKS = {name: value for name, value in vars(hookspecs).items() if name.startswith("hydracore_")}
EMAIL = "ada@example.com"
Scenario = Callable[[Site, Any], Awaitable[None]]


def example(hook: str) -> Any:
    """The class that the hook's docstring shows."""
    words = inspect.cleandoc(HOOKS[hook].__doc__)
    code = textwrap.dedent(words.split("Example::\n", 1)[1])
    names = {name: getattr(hydracore.plugin, name) for name in hydracore.plugin.__all__}
    names |= {"asyncio": asyncio, "hmac": hmac, "click": click}
    exec(compile(code, hook, "exec"), names)  # noqa: S102  # our own docstrings
    return names["Example"]


async def mail_transports(site: Site, plugin: Any) -> None:
    await site.register()
    for _ in range(500):
        if plugin.sent:
            break
        await asyncio.sleep(0.01)
    assert [to for to, _ in plugin.sent] == [EMAIL]


async def password_policies(site: Site, plugin: Any) -> None:
    body = {"email": EMAIL, "password": "my Roadrunner is fast"}
    [problem] = refused(await site.post("register", body), 422, "validation_failed")
    assert problem["msg"] == "Everyone here would guess this one."


async def limit_backends(site: Site, plugin: Any) -> None:
    await site.register()
    answers = [await site.post("login", {"email": EMAIL, "password": "wrong password"}) for _ in range(6)]
    assert [answer.code for answer in answers] == [401] * 5 + [429]


async def authenticators(site: Site, plugin: Any) -> None:
    right = {"email": EMAIL, "password": "the engine weaves algebra"}
    first = tokens(await site.post("login", right))
    assert first["email_verified"] is True
    second = tokens(await site.post("login", right))
    assert subject(first) == subject(second)
    refused(await site.post("login", {**right, "password": "wrong"}), 401, "invalid_credentials")


async def routes(site: Site, plugin: Any) -> None:
    path = "/auth/example/greeting/Bob"
    refused(await site.ask("GET", path), 401, "not_authenticated")
    first = await site.register()
    refused(await site.ask("GET", path, **bearer(first)), 403, "email_not_verified")
    body = {"email": EMAIL, "code": await site.box.code(EMAIL)}
    verified = tokens(await site.post("verify-email", body, **bearer(first)))
    answer = await site.ask("GET", path, **bearer(verified))
    assert answer.body == b'{"greeting": "Hello Bob", "from": "ada@example.com"}'


async def commands(site: Site, plugin: Any) -> None:
    [registered] = plugin.hydracore_register_commands()
    await site.register()
    command = registered.command
    printed: list[str] = []
    for email in (EMAIL, "nobody@example.com"):
        with CliRunner().isolation() as (output, *_):
            await command.callback(email=email)
            printed.append(output.getvalue().decode())
    assert printed == [f"{EMAIL} has an account.\n", "nobody@example.com is unknown.\n"]


async def collections(site: Site, plugin: Any) -> None:
    notes = site.hydra._store.collection("example.notes")
    await notes.delete_many({})
    await plugin.note("first")
    assert [document["text"] async for document in notes.find()] == ["first"]
    assert (await notes.index_information())["at_1"]["expireAfterSeconds"] == 86_400


async def profile_members(site: Site, plugin: Any) -> None:
    body = {"email": EMAIL, "password": PASSWORD}
    [problem] = refused(await site.post("register", body), 422, "validation_failed")
    assert (problem["loc"], problem["type"]) == (["body", "display_name"], "missing")
    first = tokens(await site.post("register", {**body, "display_name": "Ada", "admin": True}), 201)
    answer = await site.me(first["access_token"])
    assert b'"profile": {"display_name": "Ada"}' in answer.body


async def event_listeners(site: Site, plugin: Any) -> None:
    await site.register()
    await site.hydra.registry.settle()
    assert [type(event).__name__ for event in plugin.seen] == ["Registered"]


async def health_checks(site: Site, plugin: Any) -> None:
    [check] = site.hydra.registry.checks.values()
    assert "is not there" in await site.hydra.registry.health(check)
    plugin.folder.mkdir()
    assert await site.hydra.registry.health(check) == ""


async def before_register(site: Site, plugin: Any) -> None:
    body = {"email": "eve@example.org", "password": PASSWORD}
    assert "example.com" in refused(await site.post("register", body), 403, "registration_refused")
    await site.register()


async def before_login(site: Site, plugin: Any) -> None:
    await site.register()
    body = {"email": EMAIL, "password": PASSWORD}
    plugin.now = lambda: datetime(2026, 11, 23, tzinfo=UTC)
    tokens(await site.post("login", body))
    plugin.now = lambda: datetime(2026, 11, 22, tzinfo=UTC)
    assert refused(await site.post("login", body), 403, "login_refused") == "On Sundays we rest."
    refused(await site.post("login", {**body, "password": "wrong"}), 401, "invalid_credentials")


async def before_issue_token(site: Site, plugin: Any) -> None:
    first = await site.register()
    assert claims(first)["https://example.com/roles"] == []
    body = {"email": EMAIL, "code": await site.box.code(EMAIL)}
    verified = tokens(await site.post("verify-email", body, **bearer(first)))
    assert claims(verified)["https://example.com/roles"] == ["staff"]
    again = tokens(await site.post("refresh", {"refresh_token": verified["refresh_token"]}))
    assert claims(again)["https://example.com/roles"] == ["staff"]


async def before_reset_password(site: Site, plugin: Any) -> None:
    for email, status in (("shared-desk@example.com", 403), (EMAIL, 200)):
        await site.register(email)
        await site.post("forgot-password", {"email": email})
        body = {"token": await site.box.reset_token(email), "new_password": "an entirely new password"}
        assert (await site.post("reset-password", body)).code == status


async def before_change_email(site: Site, plugin: Any) -> None:
    held = bearer(await site.verified())
    body = {"password": PASSWORD, "email": "ada@example.org"}
    assert refused(await site.post("change-email", body, **held), 403, "change_refused").endswith("stay there.")
    assert (await site.post("change-email", {**body, "email": "countess@example.com"}, **held)).code == 200


async def on_event(site: Site, plugin: Any) -> None:
    await site.post("login", {"email": EMAIL, "password": "wrong password"})
    await site.hydra.registry.settle()
    assert plugin.failures == 1


def bearer(grant: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {grant['access_token']}"}


def claims(grant: dict[str, Any]) -> dict[str, Any]:
    read: dict[str, Any] = jwt.decode(grant["access_token"], options={"verify_signature": False})
    return read


def subject(grant: dict[str, Any]) -> str:
    return str(claims(grant)["sub"])


SETTINGS: dict[str, dict[str, Any]] = {
    "hydracore_register_mail_transports": {"mail": {"transport": "example"}},
    "hydracore_register_limit_backends": {"limits": {"enabled": True, "backend": "example"}},
    "hydracore_register_authenticators": {"login": {"authenticators": ["password", "example"]}},
}


@pytest.mark.parametrize("hook", HOOKS)
async def test_example(open_site: OpenSite, hook: str) -> None:
    """The example of each hook, loaded as a plugin, does what its contract says."""
    scenario: Scenario = globals()[re.sub("^hydracore_(register_)?", "", hook)]
    site = await open_site(extra={"example": example(hook)}, **SETTINGS.get(hook, {}))
    await scenario(site, site.hydra.registry.loaded["example"].plugin)
