"""What is for the operator's own tools, on a listener of its own: nothing of it is public (ASVS 5.0, 13.4.5)."""

from hydracore.web.access import public
from hydracore.web.base import Endpoint


@public
class Metrics(Endpoint):
    """What was measured."""

    always = True

    async def get(self) -> None:
        numbers, media_type = await self.web.exposition()
        self.set_header("Content-Type", media_type)
        self.write(numbers)

    head = get
