"""Commands about the server secret, while it is replaced."""

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from hydracore.cli.data import admin_of, with_hydra
from hydracore.cli.output import says_why, show
from hydracore.core import HydraCore
from hydracore.flows.sealing import Need, last_used, needs, reseal


@click.group()
def secret() -> None:
    """The server secret, being replaced."""


@secret.command("check")
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
@says_why
def secret_check(file: Path | None, as_json: bool) -> None:
    """What the secrets in other_secrets are still needed for."""

    async def work(hydra: HydraCore) -> None:
        used, found = await last_used(hydra.services), await needs(hydra.services)
        rows = []
        for number, secret in enumerate((*hydra.services.secret.fingerprints, "")):
            of_it = [need for need in found if need.secret == secret]
            if of_it or secret:
                here = "missing" if not secret else "other" if number else "own"
                rows += [_row(secret, here, used.get(secret), need) for need in of_it or [Need(secret, "")]]
        show(rows, as_json)

    with_hydra(work, file)


def _row(secret: str, here: str, used: datetime | None, need: Need) -> dict[str, Any]:
    return {
        "secret": secret or "(unknown)",
        "is": here,
        "last used": used.isoformat(timespec="seconds") if used else "never",
        "needed for": need.what,
        "how many": need.count or "",
        "until": need.until.isoformat(timespec="seconds") if need.until else "",
    }


@secret.command("reseal")
@click.pass_obj
@says_why
def secret_reseal(file: Path | None) -> None:
    """Seal signing keys and waiting mails anew, under the secret of this server."""

    async def work(hydra: HydraCore) -> None:
        async with admin_of(hydra).doing("secret.reseal") as told:
            told["sealed"] = sealed = await reseal(hydra.services)
        click.echo(f"Sealed anew: {sealed}.")

    with_hydra(work, file)
