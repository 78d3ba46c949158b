"""What plugins are lent: the few verbs of ours that :class:`~hydracore.records.Context` offers."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from hydracore.addresses import deliverable, parse_address
from hydracore.flows.account import find_user
from hydracore.flows.services import Services
from hydracore.models import Account, MailIntent
from hydracore.passwords import normalise
from hydracore.records import MailTransport


class Lent:
    """The surroundings of plugins. ``services`` gives what the core has wired, None before it is open."""

    def __init__(self, services: Callable[[], Services | None]) -> None:
        self._services = services

    @property
    def _open(self) -> Services:
        services = self._services()
        if services is None:
            raise RuntimeError("there is no database yet: it is there in hooks and commands, not in __init__")
        return services

    def collection(self, name: str) -> Any:
        return self._open.store.collection(name)

    def mac(self, purpose: str, *parts: str) -> str:
        return self._open.secret.mac(purpose, *parts)

    def macs(self, purpose: str, *parts: str) -> tuple[str, ...]:
        return self._open.secret.macs(purpose, *parts)

    def address_key(self, email: str) -> str:
        return parse_address(email).key

    def mail_transport(self, name: str) -> MailTransport:
        return self._open.registry.transports[name]

    async def verify_password(self, encoded: str, password: str) -> bool:
        return await self._open.passwords.verify(encoded, password, equal=False)

    async def hash_password(self, password: str) -> str:
        return await self._open.passwords.hash(normalise(password))

    async def find_account(self, email: str) -> Account | None:
        user = await find_user(self._open, email)
        return self._open.account(user) if user else None

    async def send_mail(
        self, template: str, to: str, values: Mapping[str, Any], *, life: timedelta, language: str
    ) -> None:
        services = self._open
        address, now, id_ = parse_address(to), services.now(), services.token(12)
        # As composed as it will ever be: what a plugin says is its own, and is kept sealed from the start.
        user = await services.store.users.by_address(address.key)
        language = user.reads(language) if user else language
        message = services.templates.compose(template, deliverable(address), values, f"{id_}.0", now, language)
        sealed = services.secret.seal("outbox", message.as_bytes(), id_)
        intent = MailIntent(
            id_, template, address.key, created_at=now, due_at=now, sealed=sealed, sealed_until=now + life
        )
        await services.put(intent)
