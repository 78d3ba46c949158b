"""What accounts may be allowed."""

from pathlib import Path

import click

from hydracore.cli.data import admin_of, user_of, with_hydra
from hydracore.cli.output import says_why
from hydracore.core import HydraCore
from hydracore.flows import administration


@click.command("roles")
@click.argument("email")
@click.option("--add", multiple=True, metavar="ROLE", help="One to give; it may be said several times.")
@click.option("--remove", multiple=True, metavar="ROLE", help="One to take; it may be said several times.")
@click.pass_obj
@says_why
def users_roles(file: Path | None, email: str, add: tuple[str, ...], remove: tuple[str, ...]) -> None:
    """Give an account roles and take some, in one step; say which it has.

    This server's calls know at once. Access tokens that are out say what they said until they expire.
    """

    async def work(hydra: HydraCore) -> None:
        admin, user = admin_of(hydra), await user_of(hydra, email)
        if add or remove:
            user = await administration.change_roles(admin, user.id, add=add, remove=remove)
        else:
            user = await administration.show_user(admin, user.id)
        known = hydra.config.roles.known
        told = [role if role in known else f"{role} (not in roles.known: it counts for nothing)" for role in user.roles]
        click.echo(f"{user.email}: {', '.join(told) or 'no roles'}")
        if told and not user.email_verified:
            click.echo("They count once the address is proven.")

    with_hydra(work, file)
