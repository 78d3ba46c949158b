"""The command line: arguments in, text out; the work is in the core and the flows."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import click

import hydracore
from hydracore import registry
from hydracore.config import PREFIX, load
from hydracore.core import HydraCore
from hydracore.errors import EmailTaken, HydraError, StartupError, ValidationFailed
from hydracore.flows.account import delete_user, disable_user, enable_user, find_user, revoke_sessions
from hydracore.flows.registration import create_user
from hydracore.logs import configure
from hydracore.models import User
from hydracore.server import STARTUP_FAILED, database_of, serve
from hydracore.store.embedded import running
from hydracore.validation import own_schemas

P = ParamSpec("P")


class Failed(click.ClickException):
    """A sentence on standard error, and exit code 1."""

    def show(self, file: Any = None) -> None:
        click.echo(f"hydracore: {self.message}", err=True)


class NotStarted(Failed):
    """What the operator has to put right first."""

    exit_code = STARTUP_FAILED


def says_why(command: Callable[P, None]) -> Callable[P, None]:
    """Turn what a command raises into a sentence and an exit code."""

    @wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except StartupError as error:
            raise NotStarted(str(error)) from error
        except ValidationFailed as error:
            raise Failed(" ".join(problem.msg for problem in error.problems)) from error
        except HydraError as error:
            raise Failed(error.detail) from error

    return guarded


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


# -- plugins -----------------------------------------------------------------------------------------


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
    _show(rows, as_json)


# -- data --------------------------------------------------------------------------------------------


def with_hydra(work: Callable[[HydraCore], Awaitable[None]], file: Path | None) -> None:
    """Open the database, of a running server if there is one, and do ``work``. Mail is left in the
    outbox: the server sends it."""
    config = load(file)
    configure("error", config.log.format)
    uri = running(config.data_dir) if config.embedded else None

    async def opened() -> None:
        async with HydraCore(config, uri=uri, deliver_mail=False) as hydra:
            if problem := await hydra.not_ready():
                raise Failed(f"Nothing was done: {problem} ({database_of(config)}).")
            await work(hydra)

    asyncio.run(opened())


async def _user(hydra: HydraCore, email: str) -> User:
    user = await find_user(hydra.services, email)
    if user is None:
        raise Failed(f"No account has the address {email}.")
    return user


@main.group()
def users() -> None:
    """Accounts."""


@users.command("create")
@click.argument("email")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--verified", is_flag=True, help="The address is known to be the owner's.")
@click.pass_obj
@says_why
def users_create(file: Path | None, email: str, password_stdin: bool, verified: bool) -> None:
    """Create an account; asks for the password."""
    if password_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    try:
        password.encode()
    except UnicodeEncodeError:
        raise Failed("The password is not valid UTF-8.") from None
    # What register would refuse, nobody could sign in with.
    own_schemas().check("register", {"email": email, "password": password})

    async def work(hydra: HydraCore) -> None:
        try:
            user = await create_user(hydra.services, email, password, verified=verified)
        except EmailTaken as error:
            raise Failed(f"The address {email} has an account already.") from error
        click.echo(f"Created {user.email} ({user.id}).")

    with_hydra(work, file)


@users.command("list")
@click.option("--limit", type=click.IntRange(1, 100_000), default=1000, show_default=True)
@click.option("--after", metavar="EMAIL", help="Only accounts that are younger than this one.")
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
@says_why
def users_list(file: Path | None, limit: int, after: str | None, as_json: bool) -> None:
    """Accounts, oldest first."""

    async def work(hydra: HydraCore) -> None:
        found = await hydra.services.store.users.page(await _user(hydra, after) if after else None, limit)
        _show(
            [
                {
                    "id": user.id,
                    "email": user.email,
                    "verified": user.email_verified,
                    "disabled": user.disabled,
                    "created": user.created_at.isoformat(),
                }
                for user in found
            ],
            as_json,
        )

    with_hydra(work, file)


def _account_command(verb: str, act: Callable[..., Awaitable[None]], done: str) -> Callable[..., None]:
    def command(file: Path | None, email: str) -> None:
        async def work(hydra: HydraCore) -> None:
            user = await _user(hydra, email)
            await act(hydra.services, user)
            click.echo(f"{done} {user.email}.")

        with_hydra(work, file)

    command.__name__, command.__doc__ = verb, (act.__doc__ or "").partition("\n")[0]
    return says_why(command)


def _add(group: click.Group, verb: str, act: Callable[..., Awaitable[None]], done: str, *, asks: bool = False) -> None:
    command = click.argument("email")(click.pass_obj(_account_command(verb, act, done)))
    if asks:
        command = click.confirmation_option(prompt="This cannot be undone. Go on?")(command)
    group.command(verb)(command)


@main.group()
def sessions() -> None:
    """Sign-ins."""


_add(users, "disable", disable_user, "Disabled")
_add(users, "enable", enable_user, "Enabled")
_add(users, "delete", delete_user, "Deleted", asks=True)
_add(sessions, "revoke", revoke_sessions, "Ended every session of")


@main.group()
def keys() -> None:
    """Signing keys."""


@keys.command("list")
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
@says_why
def keys_list(file: Path | None, as_json: bool) -> None:
    """Published keys, oldest first."""

    async def work(hydra: HydraCore) -> None:
        _show(
            [
                {
                    "kid": key.kid,
                    "algorithm": key.algorithm,
                    "state": state,
                    "created": key.created_at.isoformat(),
                    "signs from": key.active_from.isoformat(),
                    "expires": key.expires_at.isoformat() if key.expires_at else "",
                }
                for key, state in hydra.services.keys.states()
            ],
            as_json,
        )

    with_hydra(work, file)


@keys.command("rotate")
@click.pass_obj
@says_why
def keys_rotate(file: Path | None) -> None:
    """Publish a new key; every node takes it up without a restart."""

    async def work(hydra: HydraCore) -> None:
        key = await hydra.rotate_keys()
        click.echo(f"Published {key.kid}; it signs from {key.active_from.isoformat()}.")

    with_hydra(work, file)


@main.group()
def mail() -> None:
    """The outbox."""


@mail.command("list")
@click.option("--limit", type=click.IntRange(1, 100_000), default=1000, show_default=True)
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
@says_why
def mail_list(file: Path | None, limit: int, as_json: bool) -> None:
    """What waits or was given up, dead letters first."""

    async def work(hydra: HydraCore) -> None:
        _show(
            [
                {
                    "id": intent.id,
                    "state": "dead" if intent.dead else "sending" if intent.lease else "waiting",
                    "kind": intent.kind,
                    "address": intent.address_key,
                    "created": intent.created_at.isoformat(),
                    "attempts": intent.attempts,
                    "due": intent.due_at.isoformat() if intent.due_at else "",
                    "error": intent.error,
                }
                for intent in await hydra.services.store.outbox.list(limit)
            ],
            as_json,
        )

    with_hydra(work, file)


@mail.command("retry")
@click.argument("intent_id", metavar="ID", required=False)
@click.option("--all", "every", is_flag=True, help="Every dead letter.")
@click.pass_obj
@says_why
def mail_retry(file: Path | None, intent_id: str | None, every: bool) -> None:
    """Make a dead letter due again."""
    if every == bool(intent_id):
        raise click.UsageError("Name one ID, or say --all.")

    async def work(hydra: HydraCore) -> None:
        revived = await hydra.services.store.outbox.revive(intent_id, hydra.services.now())
        if intent_id and not revived:
            raise Failed(f"No dead letter has the id {intent_id}.")
        click.echo(f"{revived} due again.")

    with_hydra(work, file)


# -- output ------------------------------------------------------------------------------------------


def _show(rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    elif rows:
        _table(list(rows[0]), ([_cell(value) for value in row.values()] for row in rows))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
