"""What flows work with: wired once by the core."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any

from hydracore import events
from hydracore.chance import Now, Token
from hydracore.config import Config
from hydracore.errors import HydraError, StoreUnavailable, Unavailable
from hydracore.events import Event
from hydracore.keys import Keys
from hydracore.letters import Templates
from hydracore.limits import Limiter
from hydracore.listening import Told
from hydracore.meters import Meters
from hydracore.models import Account, MailIntent, MailKind, User
from hydracore.passwords import Passwords
from hydracore.registry import Registry
from hydracore.secret import ServerSecret
from hydracore.store import Store
from hydracore.tokens import AccessTokens, RefreshTokens
from hydracore.webhooks.notices import notice_of
from hydracore.webhooks.relay import Relay

# Longer than a write may take, shorter than anyone waits for a mail.
_HOLD = timedelta(seconds=15)


@dataclass(frozen=True)
class Services:
    settings: Config
    secret: ServerSecret
    store: Store
    passwords: Passwords
    keys: Keys
    access: AccessTokens
    refresh: RefreshTokens
    limiter: Limiter
    templates: Templates
    registry: Registry
    relay: Relay
    wake_mail: Callable[[], None]
    wake_webhooks: Callable[[], None]
    meters: Meters
    now: Now
    token: Token

    def announce(self, event: Event) -> None:
        """Tell the plugins and webhooks; returns at once."""
        self.registry.announce(event)

    def stamped(self, event: Told) -> Told:
        """The event as it will be announced: for what has to be :meth:`untold` in the same step as it happens."""
        return self.registry.stamped(event)

    def untold(self, event: Event) -> list[dict[str, Any]]:
        """What the account's document is to hold of the event until it is in the webhooks' outbox."""
        return [asdict(notice_of(event))] if self.relay.wants(event) else []

    def address_digest(self, address_key: str) -> str:
        """Stands for an address where the address itself must not: in events and counters."""
        return self.address_digests(address_key)[0]

    def address_digests(self, address_key: str) -> tuple[str, ...]:
        """That under each server secret that is known, the one that things are made under first."""
        return tuple(mac[:22] for mac in self.secret.macs("address", address_key))

    def account(self, user: User) -> Account:
        """What plugins see of an account."""
        return user.account(self.settings.roles.held(user))

    async def admit(self, user: User, network: str, authenticator: str) -> None:
        """Ask the plugins before someone is signed in who has proven who they are."""
        try:
            await self.registry.before_login(self.account(user), network, authenticator)
        except HydraError as error:
            if not isinstance(error, Unavailable):
                self.announce(events.LoginRefused(user_id=user.id, network=network))
            raise

    @asynccontextmanager
    async def mail_with(
        self,
        kind: MailKind,
        address_key: str,
        *,
        language: str = "",
        after_epoch: int = -1,
        user_id: str = "",
        email: str = "",
        nonce: str = "",
    ) -> AsyncIterator[None]:
        """Mail that belongs to a write: put in before it, due when it is done.

        So whatever fails in between, no write is without its mail: when the outcome is unknown the
        intent comes due by itself, and is looked at again when it is sent. When the write is refused, it is
        taken back.
        """
        now = self.now()
        intent = MailIntent(
            self.token(12),
            kind,
            address_key,
            created_at=now,
            due_at=now + _HOLD,
            after_epoch=after_epoch,
            language=language,
            held=True,
            user_id=user_id,
            email=email,
            nonce=nonce,
        )
        if not await self.store.outbox.add(intent):
            raise StoreUnavailable
        try:
            yield
        except Unavailable:
            raise
        except HydraError:
            with suppress(StoreUnavailable):
                await self.store.outbox.withdraw(intent)
            raise
        with suppress(StoreUnavailable):
            await self.store.outbox.hasten(intent, self.now())
        self.wake_mail()

    async def post(
        self,
        kind: MailKind,
        address_key: str,
        language: str = "",
        *,
        after_epoch: int = -1,
        user_id: str = "",
        email: str = "",
    ) -> None:
        """Put an intent into the outbox: the same work for every address. Durable when it returns."""
        now = self.now()
        intent = MailIntent(self.token(12), kind, address_key, created_at=now, due_at=now, language=language)
        await self.put(replace(intent, after_epoch=after_epoch, user_id=user_id, email=email))

    async def put(self, intent: MailIntent) -> None:
        """Put an intent into the outbox that is due. Durable when it returns."""
        if not await self.store.outbox.add(intent):
            raise StoreUnavailable
        self.wake_mail()
