"""The commands that plugins bring, beside ours."""

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Mapping
from copy import copy
from functools import wraps
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import click

from hydracore.cli.data import opened
from hydracore.cli.output import Failed, says_why
from hydracore.config import Config, load
from hydracore.core import HydraCore
from hydracore.errors import HydraError, PluginError, StartupError
from hydracore.fitting import place
from hydracore.logs import configure
from hydracore.store.embedded import running

_KEY = f"{__name__}.commands"


class Extended(click.Group):
    """Our commands, then those of the plugins that the configuration enables. ``elsewhere`` are those of ours, by name,
    whose modules are imported when they are asked for: ``"module:command"``."""

    def __init__(self, *args: Any, elsewhere: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.elsewhere = elsewhere

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self.elsewhere:
            command: click.Command = resolve_name(self.elsewhere[cmd_name])
            return command
        own = super().get_command(ctx, cmd_name)
        return own if own is not None else _found(ctx).get(cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        own = sorted([*super().list_commands(ctx), *self.elsewhere])
        try:
            return [*own, *sorted(_found(ctx))]
        except click.ClickException:
            return own  # Help must come even where the configuration is wrong.


def configuration_file(context: click.Context) -> Path | None:
    """The configuration's file, as ``--config`` or the folder says."""
    given: Path | None = context.params.get("file")
    return given if given is not None or not Path("config.toml").is_file() else Path("config.toml")


def _found(context: click.Context) -> dict[str, click.Command]:
    """The plugins' commands, found once for each run: click asks for them one by one."""
    if _KEY not in context.meta:
        context.meta[_KEY] = _commands(configuration_file(context))
    found: dict[str, click.Command] = context.meta[_KEY]
    return found


def _commands(file: Path | None) -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}

    @says_why
    def find() -> None:
        config = load(file)
        configure("error", config.log.format)
        hydra = HydraCore(config, uri=running(config.data_dir) if config.embedded else None, deliver_mail=False)
        for command in hydra.registry.commands.values():
            owner = hydra.registry.owner_of(command)
            if not isinstance(command.command, click.Command):
                raise PluginError(owner, f"The plugin {owner} registers {command.name}, which is no click command.")
            found[command.name] = _bound(command.command, command.name, owner, hydra, config)

    find()
    return found


def _bound(command: click.Command, name: str, owner: str, hydra: HydraCore, config: Config) -> click.Command:
    """The command with its coroutine functions run in an open ``hydra``. A copy: a module's commands are
    everybody's who imports it."""
    bound = copy(command)
    bound.name = name
    if isinstance(bound, click.Group):
        bound.commands = {key: _bound(each, key, owner, hydra, config) for key, each in bound.commands.items()}
    callback = bound.callback
    if inspect.iscoroutinefunction(callback):
        bound.callback = says_why(_named(_in_hydra(callback, hydra, config), owner, name))
    elif callback is not None:
        bound.callback = says_why(_named(callback, owner, name))
    return bound


def _named(callback: Callable[..., Any], owner: str, name: str) -> Callable[..., None]:
    """A command whose failure is a sentence that names its plugin, and the place."""

    @wraps(callback)
    def named(*args: Any, **kwargs: Any) -> None:
        try:
            callback(*args, **kwargs)
        except (HydraError, StartupError, click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            raise Failed(
                f"The plugin {owner} failed in its command {name}{place(error)}: {type(error).__name__}: {error}"
            ) from error

    return named


def _in_hydra(
    callback: Callable[..., Coroutine[Any, Any, None]], hydra: HydraCore, config: Config
) -> Callable[..., None]:
    @wraps(callback)
    def run(*args: Any, **kwargs: Any) -> None:
        async def work(_: HydraCore) -> None:
            await callback(*args, **kwargs)

        asyncio.run(opened(hydra, config, work))

    return run
