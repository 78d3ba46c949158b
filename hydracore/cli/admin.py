"""Commands about the Admin API: the tokens that open it, and what was done, by it or by commands."""

import re
from datetime import timedelta
from pathlib import Path

import click

from hydracore.cli.data import admin_of, with_hydra
from hydracore.cli.output import Failed, says_why, show
from hydracore.core import HydraCore
from hydracore.flows import admin_tokens, audit
from hydracore.flows.account import find_user
from hydracore.models import SCOPES, AuditEntry, Scope

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


@click.group()
def admin() -> None:
    """Admin tokens, and what was done."""


@admin.group()
def tokens() -> None:
    """What opens the Admin API."""


def _life(context: click.Context, parameter: click.Parameter, text: str) -> timedelta:
    match = re.fullmatch("([1-9][0-9]{0,5})([mhd])", text)
    life = timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else timedelta()
    if not timedelta() < life <= admin_tokens.LONGEST_LIFE:
        raise click.BadParameter(
            f"{text!r} is none: write 90m, 12h or 30d, {admin_tokens.LONGEST_LIFE.days}d at most.", context, parameter
        )
    return life


@tokens.command("create")
@click.option("--name", required=True, metavar="NAME", help="Whose it is, or what for.")
@click.option("--scope", "scopes", multiple=True, required=True, type=click.Choice(SCOPES), help="What it may do.")
@click.option("--expires", "life", default="30d", show_default=True, callback=_life, metavar="90m|12h|30d")
@click.pass_obj
@says_why
def tokens_create(file: Path | None, name: str, scopes: tuple[Scope, ...], life: timedelta) -> None:
    """Make a token, and print it: it is shown this once."""
    if not (name.isprintable() and 0 < len(name) <= 100):
        raise Failed("The name has 1 to 100 printable characters.")

    async def work(hydra: HydraCore) -> None:
        text, token = await admin_tokens.create_token(admin_of(hydra), name, scopes, life)
        click.echo(f"{token.id} is good until {token.expires_at.isoformat(timespec='seconds')}.", err=True)
        click.echo(text)

    with_hydra(work, file)


@tokens.command("list")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
@says_why
def tokens_list(file: Path | None, limit: int, as_json: bool) -> None:
    """Tokens, the latest first, and those that ended less than a month ago."""

    async def work(hydra: HydraCore) -> None:
        page, now = await admin_tokens.list_tokens(admin_of(hydra), limit=limit), hydra.services.now()
        rows = [token.public(now) for token in page.items]
        show(rows if as_json else [_row(**row) for row in rows], as_json)

    with_hydra(work, file)


def _row(*, scopes: list[str], created_at: str, revoked_at: str | None, **rest: object) -> dict[str, object]:
    used = rest.pop("last_used_at") or "never"
    return {**rest, "last used": used, "scopes": " ".join(scopes)}


@tokens.command("revoke")
@click.argument("token_id", metavar="ID")
@click.pass_obj
@says_why
def tokens_revoke(file: Path | None, token_id: str) -> None:
    """End a token at once."""

    async def work(hydra: HydraCore) -> None:
        token = await admin_tokens.revoke_token(admin_of(hydra), token_id)
        click.echo(f"Revoked {token.id} ({token.name}).")

    with_hydra(work, file)


@admin.command("audit")
@click.option("--user", metavar="EMAIL", default="", help="What was done to this account; its id will do, too.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
@says_why
def admin_audit(file: Path | None, user: str, limit: int, as_json: bool) -> None:
    """What administrators did, the latest first."""

    async def work(hydra: HydraCore) -> None:
        page = await audit.list_audit(admin_of(hydra), user_id=await _id_of(hydra, user), limit=limit)
        show([entry.public() if as_json else _line(entry) for entry in page.items], as_json)

    with_hydra(work, file)


async def _id_of(hydra: HydraCore, user: str) -> str:
    if "@" not in user:
        return user  # Of an account that was deleted nothing but its id is left.
    account = await find_user(hydra.services, user)
    if account is None:
        raise Failed(f"No account has the address {user}.")
    return account.id


def _line(entry: AuditEntry) -> dict[str, object]:
    details = " ".join(f"{name}={value}" for name, value in entry.details.items())
    return {
        "at": entry.at.isoformat(timespec="seconds"),
        "action": entry.action,
        "outcome": entry.outcome,
        "who": f"{entry.actor['kind']} {entry.actor['name'] or entry.actor['id']}",
        "user": entry.user_id,
        # Some of it is a client's word: no control character reaches a terminal.
        "details": "".join(letter if letter.isprintable() else "?" for letter in details),
    }
