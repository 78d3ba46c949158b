"""From the outbox to one webhook, until it takes what it is told or is given up."""

from datetime import datetime, timedelta
from functools import partial
from random import SystemRandom
from typing import Protocol

from hydracore.chance import Now, Token
from hydracore.config import Endpoint
from hydracore.leases import LeaseWorker, Outcome
from hydracore.logs import logger
from hydracore.models import Delivery
from hydracore.webhooks.posting import Answer, NoAnswer, post

log = logger("hydracore.webhooks")

_FIRST_PAUSE = 5
_FACTOR = 4
_LONGEST_PAUSE = 12 * 3600
_GONE = 410


class OutboxStore(Protocol):
    async def lease(self, endpoint: str, lease: str, now: datetime, until: datetime) -> Delivery | None: ...

    async def done(self, delivery: Delivery, expires_at: datetime) -> None: ...

    async def defer(self, delivery: Delivery, due_at: datetime, error: str) -> None: ...

    async def bury(self, delivery: Delivery, error: str) -> None: ...

    async def release(self, delivery: Delivery, now: datetime) -> None: ...


class Courier(LeaseWorker[Delivery]):
    """Delivers to one webhook; a slow one keeps no other waiting.

    At least once: a notice is sent twice where the answer or this process is lost before the outbox knows of it, and
    each try has the same id and body. ``kept_for`` is how long what was delivered can be listed and sent again.
    """

    def __init__(
        self,
        outbox: OutboxStore,
        endpoint: Endpoint,
        *,
        max_attempts: int,
        kept_for: timedelta,
        now: Now,
        token: Token,
    ) -> None:
        super().__init__("webhook", log, timeout=endpoint.timeout, now=now, token=token)
        self._outbox = outbox
        self._endpoint = endpoint
        self._max_attempts = max_attempts
        self._kept_for = kept_for
        self._jitter = SystemRandom().uniform

    async def _take(self, lease: str, now: datetime, until: datetime) -> Delivery | None:
        return await self._outbox.lease(self._endpoint.name, lease, now, until)

    async def _give_back(self, delivery: Delivery, now: datetime) -> None:
        await self._outbox.release(delivery, now)

    async def _try(self, delivery: Delivery) -> Outcome:
        try:
            answer = await post(self._endpoint, delivery.notice_id, delivery.body, self._now())
        except NoAnswer as error:
            return self._failed(delivery, str(error), 0)
        if 200 <= answer.status < 300:
            return partial(self._outbox.done, delivery, self._now() + self._kept_for)
        return self._failed(delivery, in_words(answer), answer.retry_after, gone=answer.status == _GONE)

    def _failed(self, delivery: Delivery, error: str, retry_after: int, *, gone: bool = False) -> Outcome:
        about = {"delivery": delivery.id, "type": delivery.type, "endpoint": delivery.endpoint}
        about |= {"attempts": str(delivery.attempts), "error": error}
        if gone or delivery.attempts >= self._max_attempts:
            log.error("webhook given up", **about)
            return partial(self._outbox.bury, delivery, error)
        log.warning("webhook deferred", **about)
        pause = min(_FIRST_PAUSE * _FACTOR ** (delivery.attempts - 1), _LONGEST_PAUSE) * self._jitter(0.75, 1.25)
        due_at = self._now() + timedelta(seconds=max(pause, min(retry_after, _LONGEST_PAUSE)))
        return partial(self._outbox.defer, delivery, due_at, error)


def in_words(answer: Answer) -> str:
    """What was answered, for an operator."""
    said = f"answered {answer.status}"
    if 300 <= answer.status < 400:
        return f"{said}: no redirect is followed, name the webhook's own URL"
    return f"{said}: the receiver wants no more" if answer.status == _GONE else said
