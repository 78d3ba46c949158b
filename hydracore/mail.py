"""Mail: the worker that empties the outbox."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from email.message import EmailMessage
from functools import partial
from random import SystemRandom
from typing import Any, Protocol

from hydracore.chance import Now, Token
from hydracore.errors import MailRefused, StoreUnavailable
from hydracore.events import Event, MailDead, MailDelayed, MailSent
from hydracore.leases import LeaseWorker, Outcome
from hydracore.letters import read_letter
from hydracore.logs import logger
from hydracore.models import MailIntent
from hydracore.records import MailTransport
from hydracore.secret import CannotOpen, ServerSecret
from hydracore.tracing import UNTRACED, Tracer

log = logger("hydracore.mail")

_FIRST_PAUSE = 5
_LONGEST_PAUSE = 3600
_LONGEST_ERROR = 500
_LOOKS = 3
_LOOK_AGAIN = 15

SEALED_ELSEWHERE = "sealed under another server secret; give this server that one too, among other_secrets"


@dataclass(frozen=True)
class Prepared:
    """A message, and until when it makes sense to send it: after that it is prepared anew."""

    message: EmailMessage
    until: datetime


Prepare = Callable[[MailIntent], Awaitable[Prepared | None]]


class OutboxStore(Protocol):
    async def lease(self, lease: str, now: datetime, until: datetime) -> MailIntent | None: ...

    async def seal(self, intent: MailIntent, sealed: bytes, until: datetime) -> bool: ...

    async def done(self, intent: MailIntent) -> None: ...

    async def defer(self, intent: MailIntent, due_at: datetime, error: str) -> None: ...

    async def bury(self, intent: MailIntent, error: str, *, whole: bool = False) -> None: ...

    async def release(self, intent: MailIntent, now: datetime) -> None: ...


class MailWorker(LeaseWorker[MailIntent]):
    """Leases intents, has them prepared, sends them; several nodes may each run one.

    At least once: a message is sent twice only if this process dies between the transport's yes and the store's, or
    the store is away for longer than the lease lasts. What is prepared is sealed in the store first, so that each try
    sends the same bytes under the same key. ``owner`` is the plugin that registered the transport.
    """

    def __init__(
        self,
        outbox: OutboxStore,
        transport: MailTransport,
        owner: str,
        prepare: Prepare,
        secret: ServerSecret,
        announce: Callable[[Event], None],
        *,
        timeout: int,
        max_attempts: int,
        now: Now,
        token: Token,
        tracer: Tracer = UNTRACED,
    ) -> None:
        super().__init__("mail", log, timeout=timeout, now=now, token=token)
        self._outbox = outbox
        self._transport = transport
        self._named = {"transport": transport.name, "plugin": owner}
        self._prepare = prepare
        self._secret = secret
        self._announce = announce
        self._max_attempts = max_attempts
        self._tracer = tracer
        self._jitter = SystemRandom().uniform

    async def _take(self, lease: str, now: datetime, until: datetime) -> MailIntent | None:
        return await self._outbox.lease(lease, now, until)

    async def _give_back(self, intent: MailIntent, now: datetime) -> None:
        await self._outbox.release(intent, now)

    async def _try(self, intent: MailIntent) -> Outcome:
        at_work: Mapping[str, str] = {}  # What fails before is not the transport's doing.
        about = {"hydracore.mail.kind": intent.kind, "hydracore.mail.transport": self._transport.name}
        try:
            async with asyncio.timeout(self._timeout):
                with self._tracer.work("mail", about):
                    sealed = await self._sealed(intent)
                    if sealed is not None:
                        opened = self._open(sealed)
                        at_work = self._named
                        await self._transport.send(*opened)
        except StoreUnavailable:
            raise
        except MailRefused as error:
            return self._buried(intent, error, at_work)
        except Exception as error:
            return self._deferred(intent, error, at_work)
        if sealed is None and intent.held and intent.attempts < _LOOKS:
            return partial(self._look_again, intent)
        return partial(self._done, intent, sent=sealed is not None)

    async def _look_again(self, intent: MailIntent) -> None:
        """The write that it belongs to may not be done yet: this node's clock may be ahead of the writer's."""
        await self._outbox.defer(intent, self._now() + timedelta(seconds=_LOOK_AGAIN), "")

    async def _done(self, intent: MailIntent, *, sent: bool) -> None:
        await self._outbox.done(intent)
        if sent:
            self._announce(MailSent(kind=intent.kind, intent_id=intent.id, attempts=intent.attempts))

    async def _sealed(self, intent: MailIntent) -> MailIntent | None:
        """The intent with its message sealed inside; None when there is nothing to send."""
        if intent.sealed is not None and intent.sealed_until and intent.sealed_until > self._now():
            return intent
        prepared = await self._prepare(intent)
        if prepared is None:
            return None
        raw = prepared.message.as_bytes()
        sealed = self._secret.seal("outbox", raw, intent.id)
        if not await self._outbox.seal(intent, sealed, prepared.until):
            return None  # Slower than the lease: another worker has it.
        return replace(intent, sealed=sealed, sealed_until=prepared.until)

    def _open(self, intent: MailIntent) -> tuple[EmailMessage, str]:
        try:
            raw = self._secret.open("outbox", intent.sealed or b"", intent.id)
        except CannotOpen as error:
            raise MailRefused(SEALED_ELSEWHERE) from error
        return read_letter(raw), f"{intent.id}-{int(intent.sealed_until.timestamp()) if intent.sealed_until else 0}"

    def _deferred(self, intent: MailIntent, failure: Exception, at_work: Mapping[str, str]) -> Outcome:
        if intent.attempts >= self._max_attempts:
            return self._buried(intent, failure, at_work)
        error = _words(failure)
        pause = min(_FIRST_PAUSE * 2 ** (intent.attempts - 1), _LONGEST_PAUSE) * self._jitter(0.5, 1)
        log.warning("mail deferred", **_told(intent, failure, at_work))

        async def defer() -> None:
            await self._outbox.defer(intent, self._now() + timedelta(seconds=pause), error)
            self._announce(MailDelayed(kind=intent.kind, intent_id=intent.id, attempts=intent.attempts, error=error))

        return defer

    def _buried(self, intent: MailIntent, failure: Exception, at_work: Mapping[str, str]) -> Outcome:
        error = _words(failure)
        log.error("mail given up", **_told(intent, failure, at_work))

        async def bury() -> None:
            # A plugin's own cannot be written anew when it is revived.
            await self._outbox.bury(intent, error, whole="." in intent.kind)
            self._announce(MailDead(kind=intent.kind, intent_id=intent.id, error=error))

        return bury


def _told(intent: MailIntent, failure: Exception, at_work: Mapping[str, str]) -> dict[str, Any]:
    """A line's members: which mail, who failed, and how."""
    about = {"intent": intent.id, "kind": intent.kind, "attempts": intent.attempts}
    return {**about, **at_work, "cause": type(failure).__name__, "error": _words(failure)}


def _words(error: Exception) -> str:
    """What a transport said, as a document can keep it."""
    try:
        said = str(error)
    except Exception:
        said = ""
    return (said or type(error).__name__).encode("utf-8", "replace").decode()[:_LONGEST_ERROR]
