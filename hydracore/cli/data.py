"""Commands over the data: users, keys, mail. They work beside a running server, or without one."""

import asyncio
import os
import pwd
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import click

from hydracore.cli.output import Failed, says_why, show
from hydracore.config import Config, load
from hydracore.core import HydraCore
from hydracore.errors import EmailTaken
from hydracore.flows import administration
from hydracore.flows.account import find_user
from hydracore.flows.audit import Admin
from hydracore.logs import configure
from hydracore.models import Actor, User
from hydracore.server import database_of
from hydracore.store.embedded import running
from hydracore.validation import own_schemas
from hydracore.web.client import languages


def with_hydra(work: Callable[[HydraCore], Awaitable[None]], file: Path | None) -> None:
    """Open the database, of a running server if there is one, and do ``work``. Mail is left in the
    outbox: the server sends it."""
    config = load(file)
    configure("error", config.log.format)
    uri = running(config.data_dir) if config.embedded else None
    asyncio.run(opened(HydraCore(config, uri=uri, deliver_mail=False), config, work))


async def opened(hydra: HydraCore, config: Config, work: Callable[[HydraCore], Awaitable[None]]) -> None:
    """Do ``work`` in an open ``hydra``. Raises :class:`Failed` when the database is away."""
    async with hydra:
        if problem := await hydra.not_ready():
            raise Failed(f"Nothing was done: {problem} ({database_of(config)}).")
        await work(hydra)


def admin_of(hydra: HydraCore) -> Admin:
    """Whoever runs the command, as the system knows them: what they do is on record as what tokens do."""
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:  # A container has users without a name.
        name = ""
    return Admin(hydra.services, Actor("cli", str(uid), name))


async def user_of(hydra: HydraCore, email: str) -> User:
    """The account of an address. Raises :class:`Failed`."""
    user = await find_user(hydra.services, email)
    if user is None:
        raise Failed(f"No account has the address {email}.")
    return user


@click.group()
def users() -> None:
    """Accounts."""


@users.command("create")
@click.argument("email")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--verified", is_flag=True, help="The address is known to be the owner's.")
@click.option("--language", default="", metavar="TAG", help="What the owner reads, such as de or pt-br.")
@click.pass_obj
@says_why
def users_create(file: Path | None, email: str, password_stdin: bool, verified: bool, language: str) -> None:
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
    tags = _tags(language) if language else ""

    async def work(hydra: HydraCore) -> None:
        try:
            user = await administration.create_user(admin_of(hydra), email, password, verified=verified, language=tags)
        except EmailTaken as error:
            raise Failed(f"The address {email} has an account already.") from error
        click.echo(f"Created {user.email} ({user.id}).")

    with_hydra(work, file)


@users.command("list")
@click.option("--limit", type=click.IntRange(1, 100_000), default=1000, show_default=True)
@click.option("--after", metavar="EMAIL", help="Only accounts that are younger than this one.")
@click.option("--role", default="", help="Only accounts that have it.")
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
@says_why
def users_list(file: Path | None, limit: int, after: str | None, role: str, as_json: bool) -> None:
    """Accounts, oldest first."""

    async def work(hydra: HydraCore) -> None:
        last = await user_of(hydra, after) if after else None
        found = await administration.list_users(admin_of(hydra), last, limit, role)
        show(
            [
                {
                    "id": user.id,
                    "email": user.email,
                    "verified": user.email_verified,
                    "disabled": user.disabled,
                    "language": user.language,
                    "roles": list(user.roles),
                    "created": user.created_at.isoformat(),
                }
                for user in found
            ],
            as_json,
        )

    with_hydra(work, file)


@users.command("language")
@click.argument("email")
@click.argument("language", metavar="TAG")
@click.pass_obj
@says_why
def users_language(file: Path | None, email: str, language: str) -> None:
    """Have mails to the owner be in that language: de, pt-br, or several such as de,en."""
    tags = _tags(language)

    async def work(hydra: HydraCore) -> None:
        user = await user_of(hydra, email)
        await administration.set_language(admin_of(hydra), user.id, tags)
        click.echo(f"{user.email} is written to in {tags}.")

    with_hydra(work, file)


def _tags(language: str) -> str:
    if not (tags := languages(language)):
        raise Failed(f"{language} is no language: write de, or pt-br.")
    return tags


Act = Callable[[Admin, str], Awaitable[object]]


def _account_command(verb: str, act: Act, done: str) -> Callable[..., None]:
    def command(file: Path | None, email: str) -> None:
        async def work(hydra: HydraCore) -> None:
            user = await user_of(hydra, email)
            await act(admin_of(hydra), user.id)
            click.echo(f"{done} {user.email}.")

        with_hydra(work, file)

    command.__name__, command.__doc__ = verb, (act.__doc__ or "").partition("\n")[0]
    return says_why(command)


def _add(group: click.Group, verb: str, act: Act, done: str, *, asks: bool = False) -> None:
    command = click.argument("email")(click.pass_obj(_account_command(verb, act, done)))
    if asks:
        command = click.confirmation_option(prompt="This cannot be undone. Go on?")(command)
    group.command(verb)(command)


_add(users, "disable", administration.disable_user, "Disabled")
_add(users, "enable", administration.enable_user, "Enabled")
_add(users, "delete", administration.delete_user, "Deleted", asks=True)
_add(users, "force-reset", administration.force_reset, "Voided the password of")
_add(users, "mark-verified", administration.mark_verified, "Marked as verified:")


@click.group()
def keys() -> None:
    """Signing keys."""


@keys.command("list")
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
@says_why
def keys_list(file: Path | None, as_json: bool) -> None:
    """Published keys, oldest first."""

    async def work(hydra: HydraCore) -> None:
        show(
            [
                {
                    "kid": key.kid,
                    "algorithm": key.algorithm,
                    "state": state,
                    "created": key.created_at.isoformat(),
                    "signs from": key.active_from.isoformat(),
                    "expires": key.expires_at.isoformat() if key.expires_at else "",
                }
                for key, state in await administration.list_keys(admin_of(hydra))
            ],
            as_json,
        )

    with_hydra(work, file)


@keys.command("rotate")
@click.option("--emergency", is_flag=True, help="End the keys of before seconds later; nobody is signed out.")
@click.pass_obj
@says_why
def keys_rotate(file: Path | None, emergency: bool) -> None:
    """Publish a new key; every node takes it up without a restart."""

    async def work(hydra: HydraCore) -> None:
        key = await administration.rotate_keys(admin_of(hydra), emergency=emergency)
        ends = ", when every key of before ends" if emergency else ""
        click.echo(f"Published {key.kid}; it signs from {key.active_from.isoformat()}{ends}.")

    with_hydra(work, file)


@click.group()
def mail() -> None:
    """The outbox, and what mails look like."""


@mail.command("list")
@click.option("--limit", type=click.IntRange(1, 100_000), default=1000, show_default=True)
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
@says_why
def mail_list(file: Path | None, limit: int, as_json: bool) -> None:
    """What waits or was given up, dead letters first."""

    async def work(hydra: HydraCore) -> None:
        show(
            [
                {
                    "id": intent.id,
                    "state": intent.state,
                    "kind": intent.kind,
                    "address": intent.address_key,
                    "created": intent.created_at.isoformat(),
                    "attempts": intent.attempts,
                    "due": intent.due_at.isoformat() if intent.due_at else "",
                    "error": intent.error,
                }
                for intent in await administration.mail_at_hand(admin_of(hydra), limit)
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
        admin = admin_of(hydra)
        if intent_id is None:
            revived = await administration.retry_dead_mail(admin)
        else:
            revived = 1
            await administration.retry_mail(admin, intent_id)
        click.echo(f"{revived} due again.")

    with_hydra(work, file)


@mail.command("drop")
@click.argument("intent_id", metavar="ID")
@click.pass_obj
@says_why
def mail_drop(file: Path | None, intent_id: str) -> None:
    """Give a mail up for good: it is never sent."""

    async def work(hydra: HydraCore) -> None:
        await administration.drop_mail(admin_of(hydra), intent_id)
        click.echo("Dropped 1.")

    with_hydra(work, file)
