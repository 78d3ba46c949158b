"""Roles: given by operators, asked for by handlers, told by tokens."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from support import PASSWORD, OpenSite, Site, refused, tokens
from tornado.httpclient import HTTPResponse
from tornado.web import Application, RequestHandler

from hydracore import CurrentUserMixin, HydraCore, RoleRequired, require_role
from hydracore.config import load
from hydracore.errors import ConfigError, HydraError, NotFound, PluginError, ValidationFailed
from hydracore.events import Event, RolesChanged
from hydracore.flows.account import find_user, revoke_sessions
from hydracore.flows.roles import MOST, change_roles
from hydracore.models import User
from hydracore.plugin import Account, Context, Endpoint, Route, hookimpl, public, unverified, verified
from hydracore.web.access import Door, door_of

EMAIL = "ada@example.com"
ROLES = {"known": ["admin", "support", "beta"]}


class Acme:
    """A plugin with calls that require roles, and claims made of them."""

    def __init__(self, context: Context) -> None:
        pass

    @hookimpl
    def hydracore_register_routes(self) -> list[Route]:
        return [Route("/acme/desk", Desk)]

    @hookimpl
    async def hydracore_before_issue_token(self, account: Account) -> dict[str, Any]:
        return {"acme:may": list(account.roles)}


class Ear:
    """A plugin that hears what happens to roles."""

    def __init__(self, context: Context) -> None:
        self.heard: list[RolesChanged] = []

    @hookimpl
    async def hydracore_on_event(self, event: Event) -> None:
        if isinstance(event, RolesChanged):
            self.heard.append(event)


async def heard(site: Site) -> list[RolesChanged]:
    await site.hydra.registry.settle()
    found: list[RolesChanged] = site.hydra.registry.loaded["ear"].plugin.heard
    return found


@require_role("admin", "support")
class Desk(Endpoint):
    async def get(self) -> None:
        self.reply({"email": self.caller.email, "roles": self.caller.roles})

    @require_role("admin")
    async def delete(self) -> None:
        self.reply({}, 204)

    @verified
    async def put(self) -> None:
        self.reply({"roles": self.caller.roles})

    @unverified
    async def patch(self) -> None:
        self.reply({"roles": self.caller.roles})


def bearer(grant: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {grant['access_token']}"}


def claims(grant: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(grant["access_token"], options={"verify_signature": False})
    return found


async def account(site: Site, email: str = EMAIL) -> User:
    found = await find_user(site.hydra.services, email)
    assert found is not None
    return found


async def give(site: Site, *add: str, remove: tuple[str, ...] = (), email: str = EMAIL) -> User:
    return await change_roles(site.hydra.services, (await account(site, email)).id, add=add, remove=remove)


async def desk(site: Site, method: str = "GET", **headers: str) -> HTTPResponse:
    body = {"body": {}} if method in ("PUT", "PATCH") else {}
    return await site.ask(method, "/auth/acme/desk", **body, **headers)


async def why(site: Site, answer: HTTPResponse) -> dict[str, Any]:
    await site.hydra._refusals.flush()
    kept = await site.hydra.services.store.refusals.of_request(answer.headers["X-Request-Id"], site.clock())
    return dict(kept[0].why)


# -- who is let in -------------------------------------------------------------------------------------


async def test_who_has_one_is_let_in(open_site: OpenSite) -> None:
    """An endpoint that requires one of two roles answers 401 to strangers, 403 to whoever has neither, with the reason
    for the operator, and lets in whoever has one; a method's own word counts before its class's."""
    site = await open_site(extra={"acme": Acme}, roles=ROLES)
    refused(await desk(site), 401, "not_authenticated")
    first = await site.register()
    await give(site, "admin")
    refused(await desk(site, **bearer(first)), 403, "email_not_verified")
    assert json.loads((await desk(site, "PATCH", **bearer(first))).body) == {"roles": []}  # Not yet.
    await give(site, "beta", remove=("admin",))
    body = {"email": EMAIL, "code": await site.box.code(EMAIL)}
    grant = tokens(await site.post("verify-email", body, **bearer(first)))
    answer = await desk(site, **bearer(grant))
    assert refused(answer, 403, "role_required") == "This takes a role that your account does not have."
    facts = await why(site, answer)
    assert facts.pop("session")
    expected = {"reason": "the account has no role that this is for", "takes": "admin or support", "has": "beta"}
    assert facts == {**expected, "user": (await account(site)).id}
    await give(site, "support")
    assert json.loads((await desk(site, **bearer(grant))).body) == {"email": EMAIL, "roles": ["beta", "support"]}
    refused(await desk(site, "DELETE", **bearer(grant)), 403, "role_required")
    assert json.loads((await desk(site, "PUT", **bearer(grant))).body) == {"roles": ["beta", "support"]}
    await give(site, "admin")
    assert (await desk(site, "DELETE", **bearer(grant))).code == 204


@pytest.mark.parametrize("cache_ttl", [0, 5])
async def test_a_role_that_is_taken_is_gone_at_once(open_site: OpenSite, cache_ttl: int) -> None:
    """With a token that says otherwise, and though another process trusts sessions of a moment ago, what requires the
    role is closed with the next request."""
    settings = {"roles": ROLES, "tokens": {"cache_ttl": cache_ttl}}
    site = await open_site(extra={"acme": Acme}, **settings)
    other = await open_site(extra={"acme": Acme}, keep=True, **settings)
    await site.verified()
    await give(site, "admin")
    grant = tokens(await site.post("login", {"email": EMAIL, "password": PASSWORD}))
    assert claims(grant)["roles"] == ["admin"]
    for each in (site, other):
        assert (await desk(each, **bearer(grant))).code == 200
        assert json.loads((await each.me(grant["access_token"])).body)["roles"] == ["admin"]
    await give(site, remove=("admin",))
    for each in (site, other):
        refused(await desk(each, **bearer(grant)), 403, "role_required")
    assert "roles" not in json.loads((await site.me(grant["access_token"])).body)
    other.clock.forward(seconds=cache_ttl)
    assert "roles" not in json.loads((await other.me(grant["access_token"])).body)


async def test_ending_the_sessions_ends_the_rest(open_site: OpenSite) -> None:
    """Once an operator has ended the sessions too, no refresh makes a token of the old role."""
    site = await open_site(extra={"acme": Acme}, roles=ROLES)
    grant = await site.verified()
    await give(site, "admin")
    assert (await desk(site, **bearer(grant))).code == 200
    await revoke_sessions(site.hydra.services, await account(site))
    refused(await desk(site, **bearer(grant)), 401, "not_authenticated")
    refused(await site.post("refresh", {"refresh_token": grant["refresh_token"]}), 401, "invalid_refresh_token")
    again = tokens(await site.post("login", {"email": EMAIL, "password": PASSWORD}))
    assert claims(again)["roles"] == ["admin"]


async def test_an_account_of_before(open_site: OpenSite) -> None:
    """A document that an earlier version wrote has no roles: it signs in, has none, and can be given some."""
    site = await open_site(roles=ROLES)
    grant = await site.verified()
    users = site.hydra.services.store.collection("users")
    await users.update_one({"email": EMAIL}, {"$unset": {"roles": ""}})
    assert "roles" not in json.loads((await site.me(grant["access_token"])).body)
    assert (await give(site, "admin")).roles == ["admin"]
    assert json.loads((await site.me(grant["access_token"])).body)["roles"] == ["admin"]


async def test_one_that_is_known_no_longer(open_site: OpenSite) -> None:
    """A role that the configuration lost counts for nothing, whoever has it, and can still be taken."""
    site = await open_site(roles={"known": ["admin", "old"]})
    await site.verified()
    await give(site, "admin", "old")
    later = await open_site(keep=True, roles={"known": ["admin"]})
    grant = tokens(await later.post("login", {"email": EMAIL, "password": PASSWORD}))
    assert claims(grant)["roles"] == ["admin"]
    assert json.loads((await later.me(grant["access_token"])).body)["roles"] == ["admin"]
    exported = json.loads((await later.ask("GET", "/auth/me/export", **bearer(grant))).body)
    assert exported["account"]["roles"] == ["admin", "old"]
    assert (await give(later, remove=("old",))).roles == ["admin"]


# -- how they change -----------------------------------------------------------------------------------


async def test_changes_at_once(open_site: OpenSite) -> None:
    """Of a dozen changes at once none undoes another, and the events tell each difference once."""
    known = [f"role{number}" for number in range(12)]
    site = await open_site(extra={"ear": Ear}, roles={"known": known})
    await site.verified()
    await asyncio.gather(*(give(site, role) for role in known))
    assert (await account(site)).roles == sorted(known)
    await asyncio.gather(*(give(site, remove=(role,)) for role in known[::2]), give(site, known[1]))
    assert (await account(site)).roles == sorted(known[1::2])
    told = await heard(site)
    assert sorted(role for event in told for role in event.added) == sorted(known)
    assert sorted(role for event in told for role in event.removed) == sorted(known[::2])


async def test_what_cannot_be_changed(open_site: OpenSite) -> None:
    """A role that there is not, one that is both given and taken, one too many, and an account that is gone are
    refused, by name, and nothing of it is done; what is so already is no change."""
    known = [f"role{number:02}" for number in range(MOST + 1)]
    site = await open_site(extra={"ear": Ear}, roles={"known": known})
    await site.verified()

    async def said(*add: str, remove: tuple[str, ...] = ()) -> list[str]:
        with pytest.raises(ValidationFailed) as raised:
            await give(site, *add, remove=remove)
        return [problem.msg for problem in raised.value.problems]

    assert await said("rule01") == ["The role rule01 is not in roles.known; did you mean role01?"]
    assert await said(remove=("x",)) == ["There is no role x."]
    assert await said("role01", remove=("role01",)) == ["The role role01 is both given and taken."]
    assert await said(*known) == [f"An account has at most {MOST} roles."]
    assert (await account(site)).roles == []
    assert len((await give(site, *known[:-1])).roles) == MOST
    assert len((await give(site, *known[:-1])).roles) == MOST
    assert await said(known[-1]) == [f"An account has at most {MOST} roles."]
    assert known[-1] in (await give(site, known[-1], remove=(known[0],))).roles
    with pytest.raises(NotFound):
        await change_roles(site.hydra.services, "nobody", add=["role01"])
    assert len(await heard(site)) == 2


# -- what tokens tell ----------------------------------------------------------------------------------


@pytest.mark.parametrize("claim", ["roles", "groups", "https://example.com/roles", ""])
@pytest.mark.parametrize("extra", [{}, {"acme": Acme}])
async def test_tokens_tell(open_site: OpenSite, claim: str, extra: dict[str, Any]) -> None:
    """The configured claim lists the roles, but for those that are left out, from the next token on; with plugins'
    claims or without. What the token said is not among the caller's claims: it is the account that counts."""
    site = await open_site(extra=extra, roles={**ROLES, "claim": claim, "left_out": ["beta"]})
    first = await site.register()
    await give(site, "admin", "beta")
    names = {"roles", "groups", "https://example.com/roles"}
    assert not names & set(claims(first))
    body = {"email": EMAIL, "code": await site.box.code(EMAIL)}
    for grant in (
        tokens(await site.post("verify-email", body, **bearer(first))),
        later := tokens(await site.post("login", {"email": EMAIL, "password": PASSWORD})),
        tokens(await site.post("refresh", {"refresh_token": later["refresh_token"]})),
    ):
        told = claims(grant)
        assert {name: told[name] for name in names & set(told)} == ({claim: ["admin"]} if claim else {})
        assert told.get("acme:may", ["admin", "beta"]) == ["admin", "beta"]
        assert json.loads((await site.me(grant["access_token"])).body)["roles"] == ["admin", "beta"]
    request: Any = type("Request", (), {"headers": bearer(grant), "cookies": {}})
    who = await site.hydra.authenticate(request)
    assert set(who.claims) == ({"acme:may"} if extra else set())
    await give(site, "support", remove=("admin",))
    after = tokens(await site.post("refresh", {"refresh_token": grant["refresh_token"]}))
    assert claims(after).get(claim) == (["support"] if claim else None)


class Forging:
    """Claims what is the roles', or HydraCore's."""

    def __init__(self, context: Context) -> None:
        self.claim = context.config["claim"]

    @hookimpl
    async def hydracore_before_issue_token(self) -> dict[str, Any]:
        return {self.claim: ["admin"]}


@pytest.mark.parametrize("given", [(), ("beta",)])
@pytest.mark.parametrize("claim", ["https://example.com/roles", "roles", "sub", "exp"])
async def test_no_plugin_claims_roles(
    open_site: OpenSite,
    expected_logs: list[str],
    caplog: pytest.LogCaptureFixture,
    claim: str,
    given: tuple[str, ...],
) -> None:
    """A plugin that names the claim of the roles, or one of ours, is named in the log, and signs nobody in."""
    expected_logs += ["plugin failed", "unavailable"]
    roles = {**ROLES, "claim": "https://example.com/roles"}
    site = await open_site(roles=roles)
    await site.verified()
    await give(site, *given)
    forging = await open_site(keep=True, extra={"forging": Forging}, roles=roles, plugins={"forging": {"claim": claim}})
    refused(await forging.post("login", {"email": EMAIL, "password": PASSWORD}), 503, "unavailable")
    [line] = [record for record in caplog.records if record.getMessage() == "plugin failed"]
    assert line.__dict__["plugin"] == "forging"


async def test_the_largest_token(open_site: OpenSite, expected_logs: list[str]) -> None:
    """As many roles as an account may have, with names as long as they may be, fit into a cookie with the claims of
    plugins; where all together are too much, the plugin that adds the last is named."""
    long = [f"r{number:02}".ljust(32, "x") for number in range(64)]
    claim = "https://example.com/".ljust(128, "c")
    extra = {"big": big(500)}
    settings: dict[str, Any] = {"roles": {"known": long, "claim": claim}, "tokens": {"algorithm": "RS256"}}
    settings["store"] = {"database": "largest_token"}  # With a first key, which signs at once.
    site = await open_site(extra=extra, **settings)
    await site.verified()
    await give(site, *long[:MOST])
    answer = await site.post("login", {"email": EMAIL, "password": PASSWORD})
    assert claims(tokens(answer))[claim] == long[:MOST]
    assert max(map(len, answer.headers.get_list("Set-Cookie"))) < 4096
    assert (await site.me(json.loads(answer.body)["access_token"])).code == 200
    expected_logs += ["plugin failed", "unavailable"]
    bigger = await open_site(keep=True, extra={"big": big(900)}, **settings)
    refused(await bigger.post("login", {"email": EMAIL, "password": PASSWORD}), 503, "unavailable")


def big(size: int) -> Callable[[Context], object]:
    class Big:
        def __init__(self, context: Context) -> None:
            pass

        @hookimpl
        async def hydracore_before_issue_token(self) -> dict[str, Any]:
            return {"big:thing": "x" * size}

    return Big


# -- what stops the start ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"known": ["Admin"]}, "roles.known"),
        ({"known": ["a b"]}, "roles.known"),
        ({"known": ["admin\n"]}, "roles.known"),
        ({"known": ["a" * 33]}, "roles.known"),
        ({"known": ["admin", "admin"]}, "roles.known"),
        ({"known": [f"r{number}" for number in range(65)]}, "roles.known"),
        ({**ROLES, "left_out": ["admn"]}, "roles.left_out: 'admn' is not in roles.known; did you mean 'admin'?"),
        *(
            (
                {**ROLES, "claim": name},
                f"roles.claim: {name!r} is or might become a claim of another meaning: take roles",
            )
            for name in ("sub", "iss", "aud", "exp", "iat", "nbf", "jti", "sid", "evf", "client_id", "scope", "acme:x")
        ),
        ({**ROLES, "claim": "https://"}, "roles.claim"),
    ],
)
def test_a_configuration_that_cannot_be(section: dict[str, Any], said: str) -> None:
    """Names of another form, doubles, too many, and claims that mean something else stop the start, by their key."""
    with pytest.raises(ConfigError) as raised:
        load(environment={}, overrides={"roles": section})
    assert said in str(raised.value)


def test_a_role_that_nobody_can_have() -> None:
    """A plugin's endpoint that requires a role which is not listed stops the start: who, where, and the remedy."""
    config = load(environment={}, overrides={"store": {"driver": "memory"}, "roles": {"known": ["admin", "suport"]}})
    with pytest.raises(PluginError) as raised:
        HydraCore(config, plugins={"acme": Acme})
    assert str(raised.value) == (
        "The plugin acme requires the role 'support' for GET /acme/desk, and roles.known does not have it "
        "(did it mean 'suport'?): add it there."
    )


def test_no_decorator_takes_it_back() -> None:
    """Whatever requires a role is opened by no other decorator, and what would not ask cannot require one."""
    for opening in (public, unverified, verified):
        with pytest.raises(TypeError, match="requires a role, which no other decorator takes back"):
            opening(Desk)
        with pytest.raises(TypeError, match=r"Desk\.delete requires a role"):
            opening(Desk.delete)
    with pytest.raises(TypeError, match="CurrentUserMixin before RequestHandler"):
        require_role("admin")(RequestHandler)
    with pytest.raises(TypeError, match="Late has CurrentUserMixin behind RequestHandler"):
        type("Late", (RequestHandler, CurrentUserMixin), {})
    with pytest.raises(TypeError, match="names of roles"):
        require_role(Desk)  # type: ignore[arg-type]  # as if it had no brackets


def test_a_method_requires_it_wherever_it_is() -> None:
    """An endpoint that inherits a method with a requirement has it too, whatever its own class says beside it."""

    @public
    class Open(Desk):
        async def post(self) -> None:
            self.reply({})

    assert door_of(Open, "DELETE") == door_of(Desk, "DELETE") == Door("verified", ("admin",))
    assert door_of(Open, "POST") == Door("public")


def test_it_is_described() -> None:
    """openapi.json has the roles beside the credentials, one entry for each that will do, and the refusal."""
    config = load(environment={}, overrides={"store": {"driver": "memory"}, "roles": ROLES})
    call = HydraCore(config, plugins={"acme": Acme}).openapi()["paths"]["/auth/acme/desk"]
    either = [{by: [role]} for role in ("admin", "support") for by in ("bearer", "cookie")]
    assert call["get"]["security"] == either
    assert call["delete"]["security"] == [{"bearer": ["admin"]}, {"cookie": ["admin"]}]
    assert "role_required" in call["get"]["responses"]["403"]["content"]["application/json"]["examples"]
    assert "role_required" not in call["put"]["responses"]["403"]["content"]["application/json"]["examples"]


# -- in hosts ------------------------------------------------------------------------------------------


@require_role("admin")
class Ledger(CurrentUserMixin, RequestHandler):
    """What would open it does not."""

    allow_anonymous = True
    allow_unverified = True

    def get(self) -> None:
        assert self.current_user
        self.write(",".join(self.current_user.roles))

    @require_role("support", "admin")
    async def post(self) -> None:
        self.set_status(204)


class Page(Ledger):
    """A subclass is bound by its base."""


@public
class Opened(Ledger):
    """A decorator of endpoints opens no handler of a host."""

    @unverified
    def get(self) -> None:
        super().get()


@require_role("admin")
class Hasty(CurrentUserMixin, RequestHandler):
    """Its author forgot to ask."""

    async def prepare(self) -> None:
        self.caller = "someone"

    def get(self) -> None:
        self.write("open")


class Careful(Ledger):
    """A prepare of its own, as it should be."""

    async def prepare(self) -> None:
        await super().prepare()
        if not self._finished:
            self.caller = "someone"


class Bare(RequestHandler):
    """Its author forgot the mixin."""

    @require_role("admin")
    def get(self) -> None:
        self.write("open")


class Asking(RequestHandler):
    """Asks by itself."""

    async def get(self) -> None:
        hydra: HydraCore = self.settings["hydracore"]
        try:
            who = await hydra.authenticate(self.request, roles="admin")
        except HydraError as error:
            assert not isinstance(error, RoleRequired) or error.status == 403
            hydra.refuse(self, error)
        else:
            self.write(who.email)


def host(hydra: HydraCore) -> Application:
    pages = [("/ledger", Ledger), ("/page", Page), ("/opened", Opened), ("/careful", Careful)]
    pages += [("/bare", Bare), ("/hasty", Hasty), ("/asking", Asking)]
    return Application([*hydra.routes("/auth"), *pages], hydracore=hydra)


async def test_in_a_host(open_site: OpenSite, expected_logs: list[str]) -> None:
    """A host's handlers require roles by the same decorator, their subclasses too, and answer as HydraCore does; one
    without the mixin, or whose own prepare does not ask, runs for nobody."""
    expected_logs += ["tornado.access", "/bare", "/hasty"]
    site = await open_site(host, roles=ROLES)
    asking = ("/ledger", "/page", "/opened", "/careful", "/asking")
    for path in asking:
        refused(await site.ask("GET", path), 401, "not_authenticated")
    await site.hydra._refusals.flush()  # Of so many in a moment not all are kept.
    first = await site.register()
    for path in asking:
        refused(await site.ask("GET", path, **bearer(first)), 403, "email_not_verified")
    body = {"email": EMAIL, "code": await site.box.code(EMAIL)}
    grant = tokens(await site.post("verify-email", body, **bearer(first)))
    for path in asking:
        answer = await site.ask("GET", path, **bearer(grant))
        refused(answer, 403, "role_required")
        assert (await why(site, answer))["takes"] == "admin"
    await give(site, "support")
    refused(await site.ask("GET", "/page", **bearer(grant)), 403, "role_required")
    assert (await site.ask("POST", "/page", body={}, **bearer(grant))).code == 204
    await give(site, "admin")
    for path in ("/page", "/opened", "/careful"):
        assert (await site.ask("GET", path, **bearer(grant))).body == b"admin,support"
    assert (await site.ask("GET", "/asking", **bearer(grant))).body == EMAIL.encode()
    for path in ("/bare", "/hasty"):
        for anyone in ({}, bearer(grant)):
            assert (await site.ask("GET", path, **anyone)).code == 500
    with pytest.raises(RoleRequired) as raised:
        request: Any = type("Request", (), {"headers": bearer(grant), "cookies": {}})
        await site.hydra.authenticate(request, roles=["owner"])
    assert raised.value.why["reason"] == "roles.known has no role that this is for"
