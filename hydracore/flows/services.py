"""What flows work with: wired once by the core."""

from collections.abc import Callable
from dataclasses import dataclass

from hydracore.chance import Now, Token
from hydracore.config import Config
from hydracore.errors import StoreUnavailable
from hydracore.events import Event
from hydracore.keys import Keys
from hydracore.limits import Limiter
from hydracore.mail import Templates
from hydracore.models import MailIntent, MailKind
from hydracore.passwords import Passwords
from hydracore.registry import Registry
from hydracore.secret import ServerSecret
from hydracore.store import Store
from hydracore.tokens import AccessTokens, RefreshTokens


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
    wake_mail: Callable[[], None]
    now: Now
    token: Token

    def announce(self, event: Event) -> None:
        """Tell the plugins; returns at once."""
        self.registry.announce(event)

    def address_digest(self, address_key: str) -> str:
        """Stands for an address where the address itself must not: in events and counters."""
        return self.secret.mac("address", address_key)[:22]

    async def post(self, kind: MailKind, address_key: str) -> None:
        """Put an intent into the outbox: the same work for every address. Durable when it returns."""
        now = self.now()
        intent = MailIntent(self.token(12), kind, address_key, created_at=now, due_at=now)
        if not await self.store.outbox.add(intent):
            raise StoreUnavailable
        self.wake_mail()
