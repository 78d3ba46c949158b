"""Signing keys that are published: told to plugins, webhooks and the log, whoever had them made."""

from hydracore.events import KeyRotated
from hydracore.flows.services import Services
from hydracore.logs import logger
from hydracore.models import SigningKey

log = logger("hydracore")


async def rotate_keys(services: Services, *, emergency: bool) -> SigningKey:
    """Publish a new key, as :meth:`hydracore.keys.Keys.rotate` says."""
    key = await services.keys.rotate(emergency=emergency)
    announce_key(services, key)
    return key


def announce_key(services: Services, key: SigningKey) -> None:
    log.info("signing key published", kid=key.kid, algorithm=key.algorithm, signs_from=key.active_from.isoformat())
    services.announce(KeyRotated(kid=key.kid, emergency=key.emergency))
