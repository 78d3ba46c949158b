"""Events on their way to webhooks, as administrators see them and have them sent again."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from hydracore.errors import InvalidCursor, NotFound, Problem, ValidationFailed
from hydracore.flows import administration
from hydracore.flows.webhooks import amiss
from hydracore.models import Delivery
from hydracore.web.access import scoped
from hydracore.web.admin.base import AdminEndpoint
from hydracore.web.described import asks, described


class _OfWebhooks(AdminEndpoint):
    def webhook_of(self, asked: Mapping[str, Any], where: str) -> str:
        """The webhook that a query or a body names, "" where it names none. Raises :class:`ValidationFailed` for one
        that there is not."""
        name: str = asked["webhook"] or ""
        if name and (problem := amiss(self.web.services, name)):
            raise ValidationFailed([Problem((where, "webhook"), problem, "value_error")])
        return name


class Deliveries(_OfWebhooks):
    @described(
        "Events for webhooks",
        "What waits, was given up, or was delivered and is still kept; nothing of what it says, and no URL.",
        gives={200: "admin-webhooks"},
        refuses=(InvalidCursor,),
    )
    @asks("webhooks")
    @scoped("webhooks:read")
    async def get(self) -> None:
        asked = self.query()
        webhook, known = self.webhook_of(asked, "query"), self.web.services.settings.webhooks.endpoints
        page = await administration.list_deliveries(self.admin, **{**asked, "webhook": webhook})

        def view(delivery: Delivery) -> Mapping[str, Any]:
            return delivery.administered(delivery.endpoint in known)

        self.reply_page("deliveries", page, view)

    head = get


class RetryAllDeliveries(_OfWebhooks):
    @described(
        "Make all dead letters due now",
        "Of one webhook, where `webhook` names it.",
        takes="retry-webhooks",
        gives={200: "retried"},
    )
    @scoped("webhooks:write")
    async def post(self) -> None:
        webhook = self.webhook_of(self.body(), "body")
        retried = await administration.retry_deliveries(self.admin, webhook=webhook, states=("dead",))
        self.reply({"retried": retried})


class RetryDelivery(AdminEndpoint):
    @described(
        "Make an event due now",
        "One that was given up, waits for its next try, or was delivered: under its old id, with its old body.",
        gives={204: ""},
        refuses=(NotFound,),
    )
    @scoped("webhooks:write")
    async def post(self, delivery_id: str) -> None:
        await administration.retry_delivery(self.admin, delivery_id)
        self.reply({}, 204)


class Replay(_OfWebhooks):
    @described(
        "Have all sent again that was delivered to a webhook",
        "As far as it is still kept (`webhooks.kept_for`), and came into the outbox `since` then, where that is given.",
        takes="replay-webhook",
        gives={200: "retried"},
    )
    @scoped("webhooks:write")
    async def post(self) -> None:
        body = self.body()
        webhook, since = self.webhook_of(body, "body"), _moment(body["since"])
        self.reply({"retried": await administration.replay_webhook(self.admin, webhook, since=since)})


def _moment(text: str | None) -> datetime | None:
    """What the pattern of a schema lets through may be no day of any month, or outside all years."""
    try:
        return None if text is None else datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        said = "This is no time: write it as 2026-11-27T22:20:00Z (RFC 3339)."
        raise ValidationFailed([Problem(("body", "since"), said, "value_error")]) from None
