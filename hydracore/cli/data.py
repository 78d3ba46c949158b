"""Commands over the data: users, keys, mail. They work beside a running server, or without one."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import click

from hydracore.cli.output import Failed, says_why, show
from hydracore.config import Config, load
from hydracore.core import HydraCore
from hydracore.errors import EmailTaken
from hydracore.flows.account import delete_user, disable_user, enable_user, find_user, set_language
from hydracore.flows.registration import create_user
from hydracore.logs import configure
from hydracore.models import User
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
            user = await create_user(hydra.services, email, password, verified=verified, language=tags)
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
        found = await hydra.services.store.users.page(await user_of(hydra, after) if after else None, limit)
        show(
            [
                {
                    "id": user.id,
                    "email": user.email,
                    "verified": user.email_verified,
                    "disabled": user.disabled,
                    "language": user.language,
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
        await set_language(hydra.services, user, tags)
        click.echo(f"{user.email} is written to in {tags}.")

    with_hydra(work, file)


def _tags(language: str) -> str:
    if not (tags := languages(language)):
        raise Failed(f"{language} is no language: write de, or pt-br.")
    return tags


def _account_command(verb: str, act: Callable[..., Awaitable[None]], done: str) -> Callable[..., None]:
    def command(file: Path | None, email: str) -> None:
        async def work(hydra: HydraCore) -> None:
            user = await user_of(hydra, email)
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


_add(users, "disable", disable_user, "Disabled")
_add(users, "enable", enable_user, "Enabled")
_add(users, "delete", delete_user, "Deleted", asks=True)


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
                for key, state in hydra.services.keys.states()
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
        key = await hydra.rotate_keys(emergency=emergency)
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
