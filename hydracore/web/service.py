"""What the operator's tools and other services ask: health, and the published keys."""

from hydracore.errors import KeysUnavailable, NotReady
from hydracore.web.access import public
from hydracore.web.base import Endpoint
from hydracore.web.described import described

_JWKS_MAX_AGE = 30


@public
class Live(Endpoint):
    """The process answers."""

    always = True

    @described("Whether the process answers", gives={200: "status"})
    async def get(self) -> None:
        self.reply({"status": "live"})

    head = get


@public
class Ready(Endpoint):
    """The process can serve: the store is there, with its indexes and a signing key."""

    always = True

    @described("Whether the process can serve", gives={200: "status"}, refuses=(NotReady,))
    async def get(self) -> None:
        if reason := await self.web.not_ready():
            raise NotReady(reason)
        self.reply({"status": "ready"})

    head = get


@public
class Jwks(Endpoint):
    """The keys that prove access tokens (RFC 7517). Cached for less than a new key's lead."""

    always = True

    @described("The keys that prove access tokens", gives={200: "jwks"}, refuses=(KeysUnavailable,))
    async def get(self) -> None:
        published = self.web.services.keys.jwks()
        if not published["keys"]:
            raise KeysUnavailable  # An empty set, cached, would refuse every good token.
        self.set_header("Cache-Control", f"public, max-age={_JWKS_MAX_AGE}")
        self.set_header("Access-Control-Allow-Origin", "*")
        self.reply(published)

    head = get
