"""Sends mail by the first of several transports that takes it: ``mail.transport = "failover"``.

::

    [plugins]
    enabled = ["mail_smtp", "mail_resend"]

    [plugins.mail_failover]
    transports = ["smtp", "resend"]

``timeout`` is what each may take for a message, ``rest`` for how long one that failed is asked last; both are in
seconds and described in ``schemas/config.json``. A transport that defers, fails or is late hands over to the next. A
transport that refuses has judged the message itself, and ends the matter: it goes to the dead letters. When all have
failed the message is deferred, with what each said, and is tried again as with any other transport.

A transport that failed rests, so that a dead first provider does not cost every message its ``timeout``. When its
rest is over one message tries it, while the others still go round it. Each process finds out for itself.

Every transport gets the same idempotency key. One that took a message over but did not say so in time has sent it,
and so does the next: two copies, with one Message-ID.
"""

import asyncio
import copy
from datetime import datetime, timedelta
from email.message import EmailMessage

from hydracore.plugin import (
    Context,
    HealthCheck,
    MailDeferred,
    MailFailed,
    MailRefused,
    MailTransport,
    StartupError,
    hookimpl,
    logger,
)

log = logger("hydracore.mail.failover")

_LONGEST_REASON = 300


class MailFailover:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._names: tuple[str, ...] = tuple(context.config["transports"])
        self._timeout: int = context.config["timeout"]
        self._rest = timedelta(seconds=context.config["rest"])
        self._resting: dict[str, datetime] = {}
        _check(self._names, self._timeout, context.settings.mail.timeout)

    @hookimpl
    def hydracore_register_mail_transports(self) -> list[MailTransport]:
        return [MailTransport("failover", self.send, over=self._names)]

    @hookimpl
    def hydracore_register_health_checks(self) -> list[HealthCheck]:
        return [HealthCheck("mail_failover", self.check)]

    async def send(self, message: EmailMessage, key: str) -> None:
        names = self._in_order()
        said = []
        for name, following in zip(names, [*names[1:], ""], strict=True):
            try:
                await self._hand_over(name, message, key)
            except MailRefused:
                self._works(name)
                raise
            except Exception as error:
                said.append(f"{name}: {self._reason(error)}")
                self._failed(name, following, self._reason(error))
            else:
                self._works(name)
                return
        raise MailDeferred(f"no transport took it over: {'; '.join(said)}")

    async def check(self) -> str:
        """Which transports rest, as this process knows."""
        now = self._context.now()
        resting = [f"{name} until {until:%H:%M:%S} UTC" for name, until in self._resting.items() if until > now]
        return f"asked last, for they failed: {', '.join(sorted(resting))}" if resting else ""

    def _in_order(self) -> list[str]:
        """As configured, but those that rest come last."""
        now = self._context.now()
        return sorted(self._names, key=lambda name: name in self._resting and self._resting[name] > now)

    async def _hand_over(self, name: str, message: EmailMessage, key: str) -> None:
        if name in self._resting:
            # Others that come meanwhile leave it alone until this one knows.
            trial = self._context.now() + timedelta(seconds=self._timeout)
            self._resting[name] = max(self._resting[name], trial)
        # A copy: whatever one does to the message, the next gets it as it was.
        message = copy.deepcopy(message)
        try:
            async with asyncio.timeout(self._timeout) as deadline:
                await self._context.mail_transport(name).send(message, key)
        except TimeoutError as error:
            if deadline.expired():
                raise MailDeferred(f"no answer within {self._timeout} s") from error
            raise

    def _failed(self, name: str, following: str, reason: str) -> None:
        if name not in self._resting:
            log.warning("mail transport failed", transport=name, next=following or "none is left", reason=reason)
        self._resting[name] = self._context.now() + self._rest

    def _works(self, name: str) -> None:
        if self._resting.pop(name, None):
            log.info("mail transport works again", transport=name)

    @staticmethod
    def _reason(error: Exception) -> str:
        """What a transport said to the operator; of any other error the kind alone, its words may be an address."""
        return str(error)[:_LONGEST_REASON] if isinstance(error, MailFailed) else type(error).__name__


def _check(names: tuple[str, ...], timeout: int, mail_timeout: int) -> None:
    key = "plugins.mail_failover.transports"
    if not names:
        raise StartupError(f'{key} is empty: name the transports to try, as in transports = ["smtp", "resend"].')
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise StartupError(f"{key} names {', '.join(twice)} more than once: name each transport once.")
    if "failover" in names:
        raise StartupError(f"{key} names failover, which is this transport itself: take it out.")
    if len(names) * timeout > mail_timeout:
        raise StartupError(
            f"{key} names {len(names)}, plugins.mail_failover.timeout gives each {timeout} s, but mail.timeout gives "
            f"a delivery {mail_timeout} s in all: set mail.timeout to {len(names) * timeout} or more, or "
            "plugins.mail_failover.timeout to less."
        )
