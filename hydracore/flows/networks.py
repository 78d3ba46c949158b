"""The networks that an owner has signed in from: what strangers try elsewhere does not lock these out."""

from contextlib import suppress

from hydracore.errors import StoreUnavailable
from hydracore.flows.services import Services
from hydracore.models import User


def network_digest(services: Services, user_id: str, network: str) -> str:
    """Stands for a network in an account: the account alone does not say where its owner is."""
    return services.secret.mac("owner-network", user_id, network)[:22]


def is_known(services: Services, user: User | None, network: str) -> bool:
    return user is not None and network_digest(services, user.id, network) in user.networks


async def remember_network(services: Services, user: User, network: str) -> None:
    """After a sign-in. Where the database is away nothing is lost but this: the next one will do."""
    if not is_known(services, user, network):
        with suppress(StoreUnavailable):
            await services.store.users.remember_network(user.id, user.epoch, network_digest(services, user.id, network))
