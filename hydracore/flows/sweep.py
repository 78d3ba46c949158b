"""What the passing of time does to accounts, on any node and on several at once: each step is one atomic operation."""

from hydracore.flows.closing import delete_closed
from hydracore.flows.services import Services


async def sweep(services: Services) -> None:
    """Delete accounts whose grace is over, and let go of former addresses that were kept until now."""
    await delete_closed(services)
    await services.store.users.release(services.now())
