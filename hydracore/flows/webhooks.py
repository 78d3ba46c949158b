"""What operators do about webhooks: see what became of events, have them sent again, and try a webhook."""

from collections.abc import Sequence
from datetime import datetime

from hydracore.config import Endpoint
from hydracore.errors import NotFound
from hydracore.flows.services import Services
from hydracore.models import Delivery, DeliveryState, Notice
from hydracore.webhooks.notices import TEST, body_of
from hydracore.webhooks.posting import Answer, post
from hydracore.webhooks.relay import KEPT_UNDELIVERED

UNDELIVERED: Sequence[DeliveryState] = ("dead", "waiting")
EVERY: Sequence[DeliveryState] = ("dead", "waiting", "delivered")


async def list_deliveries(
    services: Services, limit: int, *, endpoint: str = "", states: Sequence[DeliveryState] = UNDELIVERED
) -> list[Delivery]:
    """What waits or was given up, of every webhook for ""; dead ones first. Raises :class:`NotFound`."""
    _check(services, endpoint)
    return await services.store.deliveries.list(states, endpoint, limit)


async def send_again(services: Services, delivery_id: str) -> bool:
    """Make one due now: a dead one, one that waits for its next try, or one that was delivered. Same id, same body.
    False where there is none, or it is being sent."""
    now = services.now()
    return bool(await services.store.deliveries.revive(delivery_id, now, now + KEPT_UNDELIVERED))


async def send_all_again(
    services: Services,
    *,
    endpoint: str = "",
    since: datetime | None = None,
    states: Sequence[DeliveryState] = UNDELIVERED,
) -> int:
    """The same for all in these states, of every webhook for "", put in ``since`` then; how many they were. Raises
    :class:`NotFound`."""
    _check(services, endpoint)
    now = services.now()
    return await services.store.deliveries.revive_all(states, endpoint, since, now, now + KEPT_UNDELIVERED)


async def send_test(services: Services, name: str) -> Answer:
    """Post a ``webhook.test`` event, now and from here, beside the outbox. Raises :class:`NotFound` and
    :class:`~hydracore.webhooks.posting.NoAnswer`."""
    now = services.now()
    notice = Notice(services.token(12), now, TEST, {"webhook": name})
    return await post(_endpoint(services, name), notice.id, body_of(notice), now)


def amiss(services: Services, name: str) -> str:
    """What is wrong with a webhook's name, in words; "" for one that there is."""
    known = services.settings.webhooks.endpoints
    return "" if name in known else f"No webhook has the name {name} (known: {', '.join(known) or 'none'})."


def _check(services: Services, name: str) -> None:
    if name:
        _endpoint(services, name)


def _endpoint(services: Services, name: str) -> Endpoint:
    try:
        return services.settings.webhooks.endpoints[name]
    except KeyError:
        raise NotFound().because("no webhook has that name") from None
