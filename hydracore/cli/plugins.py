"""Commands about plugins: which there are and how they are, a new one, and whether they keep the contract."""

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from hydracore.cli.data import with_hydra
from hydracore.cli.output import Failed, NotStarted, says_why, show
from hydracore.cli.project import write_project
from hydracore.config import Config, load
from hydracore.core import HydraCore
from hydracore.discovery import Installed, available, selected
from hydracore.errors import PluginError, StartupError
from hydracore.logs import configure
from hydracore.registry import Registry
from hydracore.testing.conformance import (
    AuthenticatorSuite,
    LimitBackendSuite,
    MailTransportSuite,
    Outcome,
    PasswordPolicySuite,
    Suite,
)


@click.group()
def plugins() -> None:
    """What extends the server."""


@plugins.command("list")
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
@says_why
def plugins_list(file: Path | None, as_json: bool) -> None:
    """Every plugin that is there: whether it is loaded, what it brings, and how it is."""
    config = load(file)
    configure("error", config.log.format)
    try:
        registry, problem = HydraCore(config).registry, None
    except StartupError as error:
        registry, problem = None, error
    health = asyncio.run(_health(registry)) if registry else _broken(problem)
    known = sorted(available(config).values(), key=lambda plugin: plugin.name)
    show([_row(config, plugin, registry, health) for plugin in known], as_json)
    if problem is not None:
        raise NotStarted(str(problem))


def _row(config: Config, plugin: Installed, registry: Registry | None, health: Mapping[str, str]) -> dict[str, Any]:
    loaded = registry is not None and plugin.name in registry.loaded
    hooks = registry.loaded.hooks_of(plugin.name) if registry is not None and loaded else []
    routes = (
        [route.path for route in registry.routes.values() if registry.owner_of(route) == plugin.name]
        if registry
        else []
    )
    return {
        "name": plugin.name,
        "version": plugin.version,
        "source": plugin.distribution,
        "loaded": selected(config).get(plugin.name, "no"),
        "hooks": ", ".join(hook.removeprefix("hydracore_") for hook in hooks),
        "routes": ", ".join(routes),
        # The keys alone: a value may be a secret.
        "config": ", ".join(sorted(config.plugins.sections.get(plugin.name, {}))),
        "health": health.get(plugin.name, "ok" if loaded else plugin.clash),
    }


def _broken(problem: StartupError | None) -> Mapping[str, str]:
    return {problem.plugin: "broken"} if isinstance(problem, PluginError) else {}


async def _health(registry: Registry) -> dict[str, str]:
    """What the health checks say, all asked at once."""
    checks = list(registry.checks.values())
    said = await asyncio.gather(*(registry.health(check) for check in checks))
    health: dict[str, str] = {}
    for check, problem in zip(checks, said, strict=True):
        if problem:
            owner = registry.owner_of(check)
            health[owner] = " ".join(filter(None, (health.get(owner), problem)))
    await registry.close()
    return health


@plugins.command("new")
@click.argument("name")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to write it; ./hydracore-NAME otherwise.")
@says_why
def plugins_new(name: str, folder: Path | None) -> None:
    """Write a plugin's project: its code, its tests, and how to install it."""
    folder = folder or Path(f"hydracore-{name.replace('_', '-')}")
    for file in write_project(name, folder):
        click.echo(f"  {file}")
    click.echo(f"Next: cd {folder}, and follow README.md.")


@plugins.command("check")
@click.option("--recipient", default="", metavar="ADDRESS", help="Send mails there, to try the transports.")
@click.pass_obj
@says_why
def plugins_check(file: Path | None, recipient: str) -> None:
    """Load the configuration, and try whether what is enabled keeps its contract.

    Nothing is left behind: counters have random names, no password is set, and mail goes out to --recipient alone.
    """
    failed: list[str] = []

    async def work(hydra: HydraCore) -> None:
        for kind, record, suite in _suites(hydra.registry, recipient):
            whose = f"{kind} {record.name}, of {hydra.registry.owner_of(record)}"
            click.echo(whose)
            for outcome in await suite.outcomes(record):
                click.echo(f"  {_told(outcome)}")
                if outcome.error:
                    failed.append(f"{whose}: {outcome.name}")

    with_hydra(work, file)
    if failed:
        raise Failed(f"{len(failed)} of the contracts' sentences do not hold ({'; '.join(failed)}).")


def _told(outcome: Outcome) -> str:
    state = "FAILED " if outcome.error else "skipped" if outcome.skipped else "ok     "
    reason = outcome.error or outcome.skipped
    return f"{state} {outcome.name}: {outcome.sentence}{f' ({reason})' if reason else ''}"


def _suites(registry: Registry, recipient: str) -> Iterator[tuple[str, Any, Suite[Any]]]:
    mail = MailTransportSuite()
    mail.recipient, mail.sender = recipient, recipient or mail.sender
    yield from (("limit backend", each, LimitBackendSuite()) for each in registry.backends.values())
    yield from (("password policy", each, PasswordPolicySuite()) for each in registry.policies.values())
    yield from (("authenticator", each, AuthenticatorSuite()) for each in registry.authenticators.values())
    yield from (("mail transport", each, mail) for each in registry.transports.values())
