"""Commands about webhooks: what waits or was given up, sending it again, trying one."""

from datetime import UTC, datetime
from pathlib import Path

import click

from hydracore.cli.data import admin_of, with_hydra
from hydracore.cli.output import Failed, says_why, show
from hydracore.core import HydraCore
from hydracore.flows import administration
from hydracore.flows import webhooks as flow
from hydracore.models import Delivery
from hydracore.webhooks.courier import in_words
from hydracore.webhooks.posting import NoAnswer

_of = click.option("--webhook", "name", default="", metavar="NAME", help="Of this webhook alone.")
_since = click.option(
    "--since",
    type=click.DateTime(["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d"]),
    help="Of events put in since then, in UTC.",
)


@click.group()
def webhooks() -> None:
    """What is told to URLs."""


@webhooks.command("list")
@_of
@click.option("--all", "every", is_flag=True, help="What was delivered lately too.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=1000, show_default=True)
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
@says_why
def webhooks_list(file: Path | None, name: str, every: bool, limit: int, as_json: bool) -> None:
    """Events that wait or were given up, dead letters first."""

    async def work(hydra: HydraCore) -> None:
        states = flow.EVERY if every else flow.UNDELIVERED
        webhook = _known(hydra, name)
        found = await administration.deliveries_at_hand(admin_of(hydra), limit, webhook=webhook, states=states)
        show([_row(hydra, delivery) for delivery in found], as_json)

    with_hydra(work, file)


def _row(hydra: HydraCore, delivery: Delivery) -> dict[str, object]:
    gone = delivery.endpoint not in hydra.config.webhooks.endpoints
    return {
        "id": delivery.id,
        "state": "sending" if delivery.lease else delivery.state,
        "type": delivery.type,
        "webhook": f"{delivery.endpoint} (not configured)" if gone else delivery.endpoint,
        "created": delivery.created_at.isoformat(),
        "attempts": delivery.attempts,
        "due": delivery.due_at.isoformat() if delivery.state == "waiting" else "",
        "error": delivery.error,
    }


@webhooks.command("retry")
@click.argument("delivery_id", metavar="ID", required=False)
@click.option("--all", "every", is_flag=True, help="All that wait or were given up.")
@_of
@_since
@click.pass_obj
@says_why
def webhooks_retry(file: Path | None, delivery_id: str | None, every: bool, name: str, since: datetime | None) -> None:
    """Have an event sent now: one that waits, was given up, or was delivered."""
    if every == bool(delivery_id) or (delivery_id and (name or since)):
        raise click.UsageError("Name one ID, or say --all, and of which.")

    async def work(hydra: HydraCore) -> None:
        admin, webhook = admin_of(hydra), _known(hydra, name)
        if delivery_id is None:
            retried = await administration.retry_deliveries(
                admin, webhook=webhook, since=_utc(since), states=flow.UNDELIVERED
            )
        else:
            retried = 1
            await administration.retry_delivery(admin, delivery_id)
        click.echo(f"{retried} due now.")

    with_hydra(work, file)


@webhooks.command("replay")
@click.argument("name", metavar="NAME")
@_since
@click.pass_obj
@says_why
def webhooks_replay(file: Path | None, name: str, since: datetime | None) -> None:
    """Have all events that were delivered to a webhook sent again."""

    async def work(hydra: HydraCore) -> None:
        webhook = _known(hydra, name)
        retried = await administration.replay_webhook(admin_of(hydra), webhook, since=_utc(since))
        click.echo(f"{retried} due now.")

    with_hydra(work, file)


@webhooks.command("send-test")
@click.argument("name", metavar="NAME")
@click.pass_obj
@says_why
def webhooks_send_test(file: Path | None, name: str) -> None:
    """Post an event webhook.test from here, now, and say what is answered."""

    async def work(hydra: HydraCore) -> None:
        webhook = _known(hydra, name)
        try:
            answer = await administration.try_webhook(admin_of(hydra), webhook)
        except NoAnswer as error:
            raise Failed(f"{name} did not answer: {error}.") from error
        if not 200 <= answer.status < 300:
            raise Failed(f"{name} {in_words(answer)}.")
        click.echo(f"{name} {in_words(answer)}.")

    with_hydra(work, file)


def _known(hydra: HydraCore, name: str) -> str:
    if name and (problem := flow.amiss(hydra.services, name)):
        raise Failed(problem)
    return name


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)
