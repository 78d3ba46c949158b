"""An administrator of a site: the Admin API on a socket of its own kind, and tokens for it."""

import json
from datetime import timedelta
from typing import Any

from described import Described
from support import Clock, Site
from tornado.httpclient import HTTPResponse
from tornado.routing import AnyMatches, PathMatches, Rule
from tornado.web import Application

from hydracore import HydraCore
from hydracore.flows.account import find_user
from hydracore.flows.admin_tokens import create_token
from hydracore.flows.audit import Admin
from hydracore.models import SCOPES, Actor, AuditEntry, Scope, User
from hydracore.web.routes import admin_description

EMAIL = "ada@example.com"
# Where keys are rotated: what other tests have has none of that.
OWN = {"database": "hydracore_admin"}
TESTER = Actor("cli", "0", "tester")


def both(hydra: HydraCore) -> Application:
    """The public calls, and those of the Admin API, behind one socket: they tell each other apart by the path."""
    administration = Rule(PathMatches("/admin(?:/.*)?$"), hydra.administration())
    return Application([administration, Rule(AnyMatches(), hydra.application())])


class Desk:
    """Asks the Admin API of a site, by a token that may do all unless another is given."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.admin = Admin(site.hydra.services, TESTER)
        self.described = Described(admin_description(site.hydra.config))
        self.token = ""

    @property
    def clock(self) -> Clock:
        return self.site.clock

    async def make_token(self, *scopes: Scope, name: str = "desk", **life: float) -> str:
        """A new one, with all scopes unless some are named."""
        text, _ = await create_token(self.admin, name, scopes or SCOPES, timedelta(**(life or {"days": 30})))
        return text

    async def ask(self, method: str, path: str, body: Any = None, token: str | None = None, **headers: str) -> Any:
        """One request, whose answer is as it is described, and tells nothing that nobody is to know."""
        if token is None:
            token = self.token = self.token or await self.make_token()
        sent = {"Authorization": f"Bearer {token}"} if token else {}
        raw = b"" if method == "POST" and body is None else None
        answer = await self.site.ask(method, f"/admin{path}", body=body, raw=raw, **sent, **headers)
        self.described.check(method, f"/admin{path}", answer)
        for secret in (b"$argon2", b"digest", b"hca1.", b"hcr1.", b"sealed"):
            assert secret not in answer.body, answer.body
        assert "Set-Cookie" not in answer.headers
        assert "Access-Control-Allow-Origin" not in answer.headers
        return answer

    async def get(self, path: str) -> Any:
        return read(await self.ask("GET", path))

    async def post(self, path: str, body: Any = None, status: int = 200) -> Any:
        return read(await self.ask("POST", path, body), status)

    async def delete(self, path: str) -> None:
        assert (await self.ask("DELETE", path)).code == 204

    async def user(self, email: str = EMAIL) -> User:
        user = await find_user(self.site.hydra.services, email)
        assert user
        return user

    async def entries(self) -> list[AuditEntry]:
        """The audit, the latest first, by its own words; looking here is no entry."""
        services = self.site.hydra.services
        return await services.store.audit.page("", None, services.now(), 1000)

    async def last(self) -> tuple[str, str, str]:
        """What the last entry says: what was done, on whom, and how it ended."""
        [entry, *_] = await self.entries()
        return entry.action, entry.user_id, entry.outcome


def read(answer: HTTPResponse, status: int = 200) -> Any:
    assert answer.code == status, (answer.code, answer.body)
    return json.loads(answer.body) if answer.body else None
