"""Commands that end sign-ins: one account's, or everybody's."""

from pathlib import Path

import click

from hydracore.cli.data import user_of, with_hydra
from hydracore.cli.output import Failed, says_why
from hydracore.core import HydraCore
from hydracore.errors import StoreUnavailable
from hydracore.flows.account import revoke_all_sessions, revoke_sessions
from hydracore.models import User


@click.group()
def sessions() -> None:
    """Sign-ins."""


@sessions.command("revoke")
@click.argument("email", required=False)
@click.option("--all", "every", is_flag=True, help="Those of every account: everybody signs in again.")
@click.option("--after", metavar="EMAIL", help="With --all: only of accounts that are younger than this one.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
@says_why
def sessions_revoke(file: Path | None, email: str | None, every: bool, after: str | None, yes: bool) -> None:
    """End every session of an account, and every code and token that was mailed."""
    if every == bool(email) or (after and not every):
        raise click.UsageError("Name one EMAIL, or say --all.")
    if every and not yes:
        click.confirm("Everybody has to sign in again. Go on?", abort=True)

    async def work(hydra: HydraCore) -> None:
        if email:
            user = await user_of(hydra, email)
            await revoke_sessions(hydra.services, user)
            click.echo(f"Ended every session of {user.email}.")
        else:
            await _revoke_all(hydra, await user_of(hydra, after) if after else None)

    with_hydra(work, file)


async def _revoke_all(hydra: HydraCore, last: User | None) -> None:
    count = 0
    try:
        async for user in revoke_all_sessions(hydra.services, last):
            last, count = user, count + 1
    except StoreUnavailable as error:
        rest = f"--all --after {last.email}" if last else "--all"
        raise Failed(
            f"Ended every session of {count} accounts, and then the database did not answer. "
            f"For the others: hydracore sessions revoke {rest}"
        ) from error
    click.echo(f"Ended every session of {count} accounts.")
