"""What the operator's tools and other services ask: health, and the published keys."""

from hydracore.errors import KeysUnavailable, NotReady
from hydracore.web.access import public
from hydracore.web.base import Endpoint
from hydracore.web.described import described

_JWKS_MAX_AGE = 30  # Seconds: what an emergency waits for at services that heed it.


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
    """The keys that prove access tokens (RFC 7517). Cached for half of a new key's lead at most, so that whoever heeds
    that has each key before it signs."""

    always = True

    @described("The keys that prove access tokens", gives={200: "jwks"}, refuses=(KeysUnavailable,))
    async def get(self) -> None:
        published = self.web.services.keys.jwks()
        if not published["keys"]:
            raise KeysUnavailable  # An empty set, cached, would refuse every good token.
        lead = self.web.services.settings.tokens.key_lead
        self.set_header("Cache-Control", f"public, max-age={min(_JWKS_MAX_AGE, lead // 2)}")
        self.set_header("Access-Control-Allow-Origin", "*")
        self.reply(published)

    head = get
