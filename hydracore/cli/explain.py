"""Why a request was refused."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from hydracore.cli.data import admin_of, with_hydra
from hydracore.cli.output import Failed, says_why, show
from hydracore.config import load
from hydracore.core import HydraCore
from hydracore.models import Refusal


@click.command()
@click.argument("request_id")
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
@says_why
def explain(file: Path | None, request_id: str, as_json: bool) -> None:
    """Why a request was refused.

    REQUEST_ID is the header X-Request-Id of its answer. Refusals are kept for log.explain_ttl seconds, from about
    a second after the answer.
    """

    async def work(hydra: HydraCore) -> None:
        now = hydra.services.now()
        await admin_of(hydra).saw("explain", request=request_id)
        found = await hydra.services.store.refusals.of_request(request_id, now)
        if not found:
            raise Failed(
                f"Nothing is kept of the request {request_id}: it was not refused, it was more than "
                f"{load(file).log.explain_ttl} s ago (log.explain_ttl), or one of very many at once."
            )
        if as_json:
            show([_facts(refusal) for refusal in found], as_json=True)
            return
        for refusal in found:
            _tell(_facts(refusal))

    with_hydra(work, file)


def _facts(refusal: Refusal) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "at": refusal.at.isoformat(timespec="seconds"),
        "call": refusal.call,
        "answer": f"{refusal.status} {refusal.code}",
        "network": refusal.network,
        **refusal.why,
    }
    if (resets_in := facts.pop("resets_in", None)) is not None:
        facts["resets at"] = (refusal.at + timedelta(seconds=resets_in)).isoformat(timespec="seconds")
    return {name: value for name, value in facts.items() if value != ""}


def _tell(facts: dict[str, Any]) -> None:
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        # As JSON writes it: some of it is a client's word, and no control character reaches a terminal.
        text = json.dumps(value) if not isinstance(value, str) else json.dumps(value)[1:-1]
        click.echo(f"{name.ljust(width)}  {text}")
    click.echo()
