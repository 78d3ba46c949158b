"""The commands: serve and check-config; those over the data and of plugins come from their own modules."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

import hydracore
from hydracore.cli import data
from hydracore.cli.admin import admin
from hydracore.cli.explain import explain
from hydracore.cli.extended import Extended
from hydracore.cli.moving import users_export, users_import
from hydracore.cli.output import says_why
from hydracore.cli.preview import preview
from hydracore.cli.roles import users_roles
from hydracore.cli.secret import secret
from hydracore.cli.sessions import sessions
from hydracore.cli.webhooks import webhooks
from hydracore.config import load
from hydracore.core import HydraCore
from hydracore.logs import configure
from hydracore.server import database_of, serve, sharing_of
from hydracore.sources import PREFIX

# What only these need is not imported for the others: a server starts without it.
_ELSEWHERE = {name: f"hydracore.cli.{name}:{name}" for name in ("bench", "plugins", "selftest")}


@click.group(cls=Extended, elsewhere=_ELSEWHERE, context_settings={"help_option_names": ["-h", "--help"]})
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
    loaded = list(HydraCore(config).registry.loaded)
    sharing_of(config)
    click.echo("The configuration is fine.")
    click.echo(f"  file      {file or 'none: defaults and the environment'}")
    variables = sorted(name for name in os.environ if name.startswith(PREFIX))
    click.echo(f"  variables {', '.join(variables) or 'none'}")
    click.echo(f"  database  {database_of(config)}")
    click.echo(f"  mail      {config.mail.transport}")
    click.echo(f"  webhooks  {', '.join(config.webhooks.endpoints) or 'none'}")
    click.echo(f"  plugins   {', '.join(loaded)}")


@main.command()
@click.pass_obj
@says_why
def openapi(file: Path | None) -> None:
    """Print the description of the API (OpenAPI 3.1)."""
    config = load(file)
    configure("error", config.log.format)
    click.echo(json.dumps(HydraCore(config).openapi(), indent=2, ensure_ascii=False))


for command in (admin, data.users, sessions, data.keys, data.mail, secret, webhooks, explain):
    main.add_command(command)
data.mail.add_command(preview)
data.users.add_command(users_import)
data.users.add_command(users_export)
data.users.add_command(users_roles)
