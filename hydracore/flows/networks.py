"""The networks that an owner has signed in from: what strangers try elsewhere does not lock these out."""

from contextlib import suppress

from hydracore.errors import StoreUnavailable
from hydracore.flows.services import Services
from hydracore.models import User


def network_digest(services: Services, user_id: str, network: str) -> str:
    """Stands for a network in an account: the account alone does not say where its owner is."""
    return _digests(services, user_id, network)[0]


def is_known(services: Services, user: User | None, network: str) -> bool:
    return user is not None and any(digest in user.networks for digest in _digests(services, user.id, network))


async def remember_network(services: Services, user: User, network: str) -> None:
    """After a sign-in. Where the database is away nothing is lost but this: the next one will do."""
    digest = network_digest(services, user.id, network)
    if digest not in user.networks:
        with suppress(StoreUnavailable):
            await services.store.users.remember_network(user.id, user.epoch, digest)


def _digests(services: Services, user_id: str, network: str) -> tuple[str, ...]:
    return tuple(mac[:22] for mac in services.secret.macs("owner-network", user_id, network))
