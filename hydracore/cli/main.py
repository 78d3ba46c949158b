"""The commands: serve, check-config, plugins; and those over the data."""

import os
import sys
from pathlib import Path
from typing import Any

import click

import hydracore
from hydracore import registry
from hydracore.cli import data
from hydracore.cli.output import says_why, show
from hydracore.config import PREFIX, load
from hydracore.core import HydraCore
from hydracore.server import database_of, serve


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(hydracore.__version__, prog_name="hydracore")
@click.option(
    "--config",
    "file",
    envvar="HYDRACORE_CONFIG",
    type=click.Path(path_type=Path),
    help="The configuration file. Without it ./config.toml is read if it is there.",
)
@click.pass_context
def main(context: click.Context, file: Path | None) -> None:
    """HydraCore, an identity server."""
    if file is None and Path("config.toml").is_file():
        file = Path("config.toml")
    context.obj = file


@main.command("serve")
@click.option("--host", help="The address to listen on.")
@click.option("--port", type=int, help="The port to listen on.")
@click.option("--workers", type=int, help="How many worker processes.")
@click.pass_obj
@says_why
def serve_command(file: Path | None, /, **options: Any) -> None:
    """Run the server."""
    given = {key: value for key, value in options.items() if value is not None}
    sys.exit(serve(load(file, overrides={"server": given} if given else None)))


@main.command()
@click.pass_obj
@says_why
def check_config(file: Path | None) -> None:
    """Say whether the configuration and the plugins fit together."""
    config = load(file)
    loaded = HydraCore(config).registry.names
    click.echo("The configuration is fine.")
    click.echo(f"  file      {file or 'none: defaults and the environment'}")
    variables = sorted(name for name in os.environ if name.startswith(PREFIX))
    click.echo(f"  variables {', '.join(variables) or 'none'}")
    click.echo(f"  database  {database_of(config)}")
    click.echo(f"  mail      {config.mail.transport}")
    click.echo(f"  plugins   {', '.join(loaded)}")


@main.group()
def plugins() -> None:
    """What extends the server."""


@plugins.command("list")
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
@says_why
def plugins_list(file: Path | None, as_json: bool) -> None:
    """Every installed plugin, and whether it is loaded."""
    config = load(file)
    reasons = registry.selected(config)
    loaded = HydraCore(config).registry
    rows = [
        {
            "name": plugin.name,
            "version": plugin.version,
            "distribution": plugin.distribution,
            "loaded": reasons.get(plugin.name, "no"),
            "hooks": ", ".join(hook.removeprefix("hydracore_") for hook in loaded.hooks_of(plugin.name))
            if plugin.name in loaded.names
            else "",
        }
        for plugin in sorted(registry.installed().values(), key=lambda plugin: plugin.name)
    ]
    show(rows, as_json)


for group in (data.users, data.sessions, data.keys, data.mail):
    main.add_command(group)
