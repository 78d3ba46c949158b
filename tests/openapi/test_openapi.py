"""openapi.json: what it says, that it is right, and how it is served."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from administering import both
from described import Described
from openapi_spec_validator import OpenAPIV31SpecValidator
from processes import StartServer, settings
from support import HOSTS, PASSWORD, OpenSite, Site, refused

from hydracore import HydraCore, StartupError
from hydracore.config import load
from hydracore.plugin import Endpoint, Forbidden, Route, described, hookimpl, public, verified
from hydracore.web import routes
from hydracore.web.admin.base import AdminEndpoint
from hydracore.web.described import description_of, misdescribed

EMAIL = {"type": "string", "format": "email", "maxLength": 254}
REFRESH_TOKEN = {"type": "string", "maxLength": 4096, "default": ""}
TOKENS = {"access_token", "email_verified", "expires_in", "refresh_token", "token_type"}


def text(least: int, most: int) -> dict[str, Any]:
    return {"type": "string", "minLength": least, "maxLength": most}


# Of each call: its method, what its body may have, what it must have, and what a success answers.
CONTRACT: dict[str, tuple[str, Mapping[str, Any] | None, set[str], str, set[str]]] = {
    "forgot-password": ("post", {"email": EMAIL}, {"email"}, "200", {"message"}),
    "login": ("post", {"email": EMAIL, "password": text(1, 128)}, {"email", "password"}, "200", TOKENS),
    "logout": ("post", {"refresh_token": REFRESH_TOKEN}, set(), "204", set()),
    "me": ("get", None, set(), "200", {"id", "email", "email_verified", "created_at", "profile", "roles"}),
    "refresh": ("post", {"refresh_token": REFRESH_TOKEN}, set(), "200", TOKENS),
    "register": ("post", {"email": EMAIL, "password": text(8, 128)}, {"email", "password"}, "201", TOKENS),
    "resend-verification": ("post", {"email": EMAIL}, {"email"}, "200", {"message"}),
    "reset-password": (
        "post",
        {"token": text(1, 256), "new_password": text(8, 128)},
        {"token", "new_password"},
        "200",
        {"message"},
    ),
    "token": ("post", None, set(), "200", TOKENS),
    "verify-email": ("post", {"email": EMAIL, "code": text(6, 6)}, {"email", "code"}, "200", TOKENS),
}

# The same of what owners do to their accounts, which came later; None is no body.
SELF_SERVICE: dict[str, tuple[str, Mapping[str, Any] | None, set[str], str, set[str]]] = {
    "change-email": (
        "post",
        {"password": text(1, 128), "email": EMAIL},
        {"password", "email"},
        "200",
        {"message"},
    ),
    "change-password": (
        "post",
        {"current_password": text(1, 128), "new_password": text(8, 128)},
        {"current_password", "new_password"},
        "200",
        TOKENS,
    ),
    "confirm-email": ("post", {"code": text(6, 6)}, {"code"}, "200", TOKENS),
    "me": ("delete", {"password": text(1, 128)}, {"password"}, "200", {"message", "deleted_at"}),
    "me/export": (
        *("get", None, set(), "200"),
        {"exported_at", "account", "profile", "former_addresses", "sessions", "networks", "mails", "told", "codes"},
    ),
    "sessions": ("get", None, set(), "200", {"sessions"}),
    "sessions/revoke-others": ("post", {}, set(), "200", {"ended"}),
    "sessions/{session_id}": ("delete", None, set(), "204", set()),
    "undo-deletion": ("post", {"token": text(1, 256)}, {"token"}, "200", {"message"}),
    "undo-email-change": ("post", {"token": text(1, 256)}, {"token"}, "200", {"message"}),
}


def hydra(extra: Mapping[str, Any] | None = None, **values: Any) -> HydraCore:
    """One that is not entered: what it says of itself needs no database."""
    overrides = {"store": {"driver": "memory"}, "password": {"profile": "testing"}, **values}
    return HydraCore(load(environment={}, overrides=overrides), plugins=extra)


def schema_at(document: dict[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    name = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
    found: dict[str, Any] = document["components"]["schemas"][name]
    return found


def without(rule: Mapping[str, Any], *keywords: str) -> dict[str, Any]:
    return {keyword: value for keyword, value in rule.items() if keyword not in keywords}


# -- what it says ------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", [None, "/auth", "/id/v1"])
@pytest.mark.parametrize("enabled", [[], ["invites"]])
def test_it_is_openapi(prefix: str | None, enabled: list[str]) -> None:
    """It is valid OpenAPI 3.1, alone and under a host's prefix, with the calls of plugins and without."""
    document = hydra(plugins={"enabled": enabled}).openapi(prefix)
    OpenAPIV31SpecValidator(document).validate()
    assert json.loads(json.dumps(document)) == document


CALLS = [(call, *told) for calls in (CONTRACT, SELF_SERVICE) for call, told in calls.items()]


@pytest.mark.parametrize(("call", "method", "members", "needed", "status", "answer"), CALLS)
def test_the_contract(
    call: str, method: str, members: Mapping[str, Any] | None, needed: set[str], status: str, answer: set[str]
) -> None:
    """Each of the ten calls, and each of an owner's, has the method, the members and their rules, and the answer that
    clients were promised."""
    document = hydra().openapi()
    operation = document["paths"][f"/auth/{call}"][method]
    if members is not None:
        assert operation["requestBody"]["required"] is True
        body = schema_at(document, operation["requestBody"]["content"])
        assert {name: without(rule, "pattern") for name, rule in body["properties"].items()} == members
        assert set(body.get("required", ())) == needed
        assert "422" in operation["responses"]
    else:
        assert "requestBody" not in operation
    success = operation["responses"][status]
    assert set(schema_at(document, success["content"])["properties"] if answer else {}) == answer
    assert {each for each in operation["responses"] if each < "300"} - {status} == (
        {"202"} if call == "register" else set()
    )


def test_the_ten() -> None:
    """The description of a server without plugins has the ten calls, the owners', health, and the published keys."""
    document = hydra().openapi()
    service = {(path, "get") for path in ("/health/live", "/health/ready", "/.well-known/jwks.json")}
    assert len(CONTRACT) == 10
    for prefix, told in (("/auth", document), ("/id", hydra().openapi("/id"))):
        listed = [(path, method) for path, item in told["paths"].items() for method in item if method != "parameters"]
        ours = {(f"{prefix}/{call}", method) for call, method, *_ in CALLS}
        assert set(listed) == ours | (service if prefix == "/auth" else set())
    items = document["paths"].values()
    ids = [each["operationId"] for item in items for method, each in item.items() if method != "parameters"]
    assert len(set(ids)) == len(ids)
    assert {"login", "verify_email", "get_me", "delete_me", "sessions_revoke_others"} <= set(ids)


def test_refusals() -> None:
    """What is refused has one shape, and 422 a list of what is wrong and where."""
    document = hydra().openapi()
    schemas = document["components"]["schemas"]
    assert set(schemas["Refusal"]["required"]) == {"detail", "code"}
    problem = schemas["Invalid"]["properties"]["detail"]["items"]
    assert (set(problem["properties"]), set(problem["required"])) == ({"loc", "msg", "type"}, {"loc", "msg", "type"})
    responses = document["paths"]["/auth/login"]["post"]["responses"]
    assert set(responses) == {"200", "401", "403", "413", "415", "422", "429", "431", "503"}
    assert set(responses["401"]["content"]["application/json"]["examples"]) == {"invalid_credentials"}
    assert "Retry-After" in responses["429"]["headers"]
    assert "WWW-Authenticate" in responses["401"]["headers"]


def test_credentials() -> None:
    """Each call says with which credentials it is asked; the cookies' names are those of this configuration."""
    document = hydra(public_url="https://id.example.com/").openapi()
    asked = document["paths"]
    assert asked["/auth/me"]["get"]["security"] == [{"bearer": []}, {"cookie": []}]
    assert asked["/auth/token"]["post"]["security"] == [{"basic": []}]
    assert asked["/auth/login"]["post"]["security"] == []
    assert asked["/auth/refresh"]["post"]["security"] == [{}, {"refresh_cookie": []}]
    schemes = document["components"]["securitySchemes"]
    assert (schemes["bearer"]["scheme"], schemes["basic"]["scheme"]) == ("bearer", "basic")
    assert schemes["cookie"]["name"] == "__Host-hydracore_access"
    assert document["servers"] == [{"url": "https://id.example.com"}]
    assert hydra().openapi()["servers"] == [{"url": "/"}]
    assert hydra().openapi()["components"]["securitySchemes"]["refresh_cookie"]["name"] == "hydracore_refresh"


def test_tokens_that_stay_in_cookies() -> None:
    """With cookies.tokens_in_body off, the answers that set cookies promise no tokens; those for programs do."""
    document = hydra(cookies={"tokens_in_body": False}).openapi()
    tokens = {"access_token", "refresh_token"}
    for call, promised in (("login", set()), ("verify-email", set()), ("token", tokens)):
        content = document["paths"][f"/auth/{call}"]["post"]["responses"]["200"]["content"]
        assert set(schema_at(document, content)["required"]) & tokens == promised, call
    OpenAPIV31SpecValidator(document).validate()


@pytest.mark.parametrize("enabled", [[], ["invites"]])
def test_examples(enabled: list[str]) -> None:
    """Every body and every answer that is JSON has an example, and every example is a good one."""
    document = hydra(plugins={"enabled": enabled, "invites": {"required": False}}).openapi()
    held = Described(document)
    for path, item in document["paths"].items():
        for operation in (told for method, told in item.items() if method != "parameters"):
            contents = [response.get("content") for response in operation["responses"].values()]
            for content in [operation.get("requestBody", {}).get("content"), *contents]:
                if content:
                    media = content["application/json"]
                    given = [example["value"] for example in media.get("examples", {}).values()]
                    examples = given or schema_at(document, content)["examples"]
                    assert examples, path
                    for example in examples:
                        held.of(media["schema"]).validate(example)


# -- of the Admin API ----------------------------------------------------------------------------------


def test_the_admin_api() -> None:
    """It has a valid document of its own, in which each call says the scope that it takes, what its query may have, and
    how it refuses; every example is a good one. The public document has nothing of it."""
    config = hydra().config
    document = routes.admin_description(config)
    OpenAPIV31SpecValidator(document).validate()
    assert list(document["components"]["securitySchemes"]) == ["admin"]
    assert len(document["paths"]) == len(routes.ADMIN)
    for endpoint in routes.ADMIN.values():
        methods = [method for method in endpoint.allowed() if method not in ("HEAD", "OPTIONS")]
        assert list(misdescribed(endpoint, methods, routes.admin_schemas().by_name, routes.answer_schemas())) == []
    users = document["paths"]["/admin/users"]
    assert [(each["name"], each["in"]) for each in users["get"]["parameters"]] == [
        *(("email", "query"), ("cursor", "query"), ("limit", "query"))
    ]
    assert users["get"]["security"] == [{"admin": ["users:read"]}]
    assert set(users["post"]["responses"]) == {"201", "401", "403", "409", "413", "415", "422", "429", "431", "503"}
    held = Described(document)
    operations = [
        each for item in document["paths"].values() for method, each in item.items() if method != "parameters"
    ]
    assert len({each["operationId"] for each in operations}) == len(operations)
    for operation in operations:
        assert set(operation["responses"]) >= {"401", "403", "429", "503"}
        contents = [response.get("content") for response in operation["responses"].values()]
        for content in [operation.get("requestBody", {}).get("content"), *contents]:
            if content:
                media = content["application/json"]
                given = [example["value"] for example in media.get("examples", {}).values()]
                for example in given or schema_at(document, content)["examples"]:
                    held.of(media["schema"]).validate(example)
    assert not [path for path in hydra().openapi()["paths"] if "admin" in path]


def test_a_call_without_a_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call of the Admin API that asks for no scope stops the start, by its name."""

    class Open(AdminEndpoint):
        @described("Anything", gives={204: ""})
        async def get(self) -> None: ...

    monkeypatch.setitem(routes.ADMIN, "/open", Open)
    with pytest.raises(ValueError, match=r"Open \(GET /open\) asks for no scope: decorate it with scoped"):
        routes.admin_description(hydra().config)


async def test_admin_document_is_served(open_site: OpenSite) -> None:
    """It is served by the listener whose calls it describes, for no other origin; server.docs takes it away."""
    site = await open_site(both)
    answer = await site.ask("GET", "/admin/openapi.json", Origin="https://app.example.com")
    assert json.loads(answer.body) == routes.admin_description(site.hydra.config)
    assert "Access-Control-Allow-Origin" not in answer.headers
    silent = await open_site(both, server={"docs": False})
    refused(await silent.ask("GET", "/admin/openapi.json"), 404, "not_found")


# -- that each call says it ---------------------------------------------------------------------------


def test_every_call_of_ours_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """No call of ours is without a description, whose schemas are there; one that is stops the start, by its name."""
    answers, bodies = routes.answer_schemas(), hydra()._schemas.by_name
    for path, endpoint in {**routes.AUTH, **routes.SERVICE}.items():
        methods = [method for method in endpoint.allowed() if method not in ("HEAD", "OPTIONS")]
        assert all(description_of(endpoint, method) for method in methods), path
        assert list(misdescribed(endpoint, methods, bodies, answers)) == []

    @public
    class Silent(Endpoint):
        async def get(self) -> None: ...

    monkeypatch.setitem(routes.AUTH, "/silent", Silent)
    with pytest.raises(
        ValueError, match=r"Silent \(GET /silent\) says nothing of itself: decorate get with described\("
    ):
        hydra().openapi()


async def test_answers_are_held_against_it(site: Site) -> None:
    """A status, a member or a header that is not described fails the test that sees it, whichever it is."""
    paths = site.described.document["paths"]
    described_ = paths["/auth/me"]["get"]["responses"].pop("401")
    with pytest.raises(AssertionError, match="says nothing"):
        await site.ask("GET", "/auth/me")
    paths["/auth/me"]["get"]["responses"]["401"] = {**described_, "headers": {"Retry-After": {}}}
    with pytest.raises(AssertionError, match="without Retry-After"):
        await site.ask("GET", "/auth/me")
    site.described.document["components"]["schemas"]["Message"]["required"].append("more")
    with pytest.raises(AssertionError, match="'more' is a required property"):
        await site.post("forgot-password", {"email": "ada@example.com"})


# -- plugins' -----------------------------------------------------------------------------------------

ACME = '''
from hydracore.plugin import (
    Endpoint, HydraError, NotFound, ProfileMember, Route, described, hookimpl, public, verified
)


class Plugin:
    def __init__(self, context):
        pass

    @hookimpl
    def hydracore_register_routes(self):
        return [Route("/acme/trips/{trip}", Trip), Route("/acme/silent", Silent)]

    @hookimpl
    def hydracore_register_profile_members(self):
        return [ProfileMember("team", {"type": "string", "minLength": 1}, required=True)]


class TooFar(HydraError):
    status = 422
    code = "too_far"
    detail = "That is too far."


class Trip(Endpoint):
    @public
    @described("One trip", gives={200: "trip"}, refuses=(NotFound,))
    async def get(self, trip):
        self.reply({"stops": [{"place": trip}]})

    @described("Another stop", "More *words*.", takes="stop", gives={201: "trip", 204: ""}, refuses=(TooFar,))
    @verified
    async def put(self, trip):
        self.reply({"stops": [self.body()]}, 201)


@public
class Silent(Endpoint):
    """Words that are not for everybody."""

    async def post(self):
        self.reply({"anything": 1})
'''
STOP = {"type": "object", "properties": {"place": {"type": "string", "minLength": 1}}, "required": ["place"]}
TRIP = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "description": "The trip.",
    "type": "object",
    "properties": {"stops": {"type": "array", "items": {"$ref": "#/$defs/stop"}}, "default": {"$ref": "#"}},
    "required": ["stops"],
    "$defs": {"stop": STOP},
}


@pytest.fixture
def plugins(tmp_path: Path) -> dict[str, Any]:
    """The configuration of a deployer's folder with the plugin acme."""
    schemas = tmp_path / "mine/acme/schemas"
    schemas.mkdir(parents=True)
    (schemas.parent / "__init__.py").write_text(ACME)
    (schemas / "trip.json").write_text(json.dumps(TRIP))
    (schemas / "stop.json").write_text(json.dumps(STOP))
    return {"dir": str(tmp_path / "mine"), "enabled": ["acme"]}


async def test_a_plugin_describes_its_calls(open_site: OpenSite, plugins: dict[str, Any]) -> None:
    """What a plugin says of its calls stands beside ours: its words, path, schemas, errors and whom it answers."""
    site = await open_site(plugins=plugins)
    document = json.loads((await site.ask("GET", "/openapi.json")).body)
    OpenAPIV31SpecValidator(document).validate()
    item = document["paths"]["/auth/acme/trips/{trip}"]
    assert [(each["name"], each["in"]) for each in item["parameters"]] == [("trip", "path")]
    assert (item["get"]["summary"], item["get"]["security"], item["get"]["tags"]) == ("One trip", [], ["acme"])
    assert item["put"]["description"] == "More *words*."
    assert item["put"]["security"] == [{"bearer": []}, {"cookie": []}]
    assert set(item["put"]["responses"]["422"]["content"]["application/json"]["schema"]) == {"anyOf"}
    codes = item["put"]["responses"]["403"]["content"]["application/json"]["examples"]
    assert set(codes) == {"email_not_verified", "cross_origin"}
    assert set(item["put"]["responses"]) >= {"201", "204", "401", "415", "422"}
    assert set(item["get"]["responses"]) >= {"200", "400", "404"}
    assert (await site.ask("GET", "/auth/acme/trips/Rome")).code == 200
    refused(await site.ask("PUT", "/auth/acme/trips/Rome", body={"place": "Pisa"}), 401, "not_authenticated")


def test_a_plugins_schemas_fit_in(plugins: dict[str, Any]) -> None:
    """A schema's references to parts of itself lead to the same parts in the document, whatever its members are called;
    a member that register demands stands there, and no example goes without it."""
    document = hydra(plugins=plugins).openapi()
    trip = document["components"]["schemas"]["acme.trip"]
    assert trip["properties"]["stops"]["items"] == {"$ref": "#/components/schemas/acme.trip/$defs/stop"}
    assert trip["properties"]["default"] == {"$ref": "#/components/schemas/acme.trip"}
    held = Described(document).of({"$ref": "#/components/schemas/acme.trip"})
    assert held.is_valid({"stops": [{"place": "Rome"}]})
    assert not held.is_valid({"stops": [{"place": ""}]})
    register = document["components"]["schemas"]["Register"]
    assert "team" in register["required"]
    assert "examples" not in register


async def test_a_plugin_that_says_nothing(open_site: OpenSite, plugins: dict[str, Any]) -> None:
    """Its call is there, with whom it answers and what any call may answer; its code's own words are not published."""
    site = await open_site(plugins=plugins)
    said = site.described.document["paths"]["/auth/acme/silent"]["post"]
    assert set(said) == {"tags", "operationId", "security", "requestBody", "responses"}
    assert set(said["responses"]) == {"default", "403", "413", "431", "503"}
    assert "not for everybody" not in json.dumps(site.described.document)
    assert (await site.post("acme/silent")).code == 200


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"takes": "nothing", "gives": {}}, r"Odd.get takes nothing, and there is no schema nothing.json"),
        ({"gives": {200: "nothing"}}, r"Odd.get gives nothing, and there is no schema nothing.json"),
        ({"gives": {404: ""}}, r"Odd.get gives 404, which is the status of no success"),
        (
            {"gives": {200: ""}, "refuses": (ValueError,)},
            r"Odd.get refuses with .*ValueError.*, which is no HydraError",
        ),
        ({"gives": {200: ""}, "by": ("smoke",)}, r"Odd.get is asked by 'smoke', which is none of bearer"),
    ],
)
def test_descriptions_that_are_wrong(said: dict[str, Any], complaint: str) -> None:
    """A description that names what is not there stops the start, by the plugin's name."""

    @verified
    class Odd(Endpoint):
        @described("Odd", **said)
        async def get(self) -> None: ...

    class Plugin:
        @hookimpl
        def hydracore_register_routes(self) -> list[Route]:
            return [Route("/acme", Odd)]

    with pytest.raises(StartupError, match=f"plugin acme.*{complaint}"):
        hydra({"acme": lambda context: Plugin()})


def test_classes_are_not_described() -> None:
    """What is said of a class would be of no method: it is refused, with the remedy."""
    with pytest.raises(TypeError, match="describe the methods of Endpoint, each by itself"):
        described("All of it", gives={})(Endpoint)


def test_inherited_descriptions() -> None:
    """A description is its method's: a class that has another describes that, and the one of before stays as it is."""

    @verified
    class Base(Endpoint):
        @described("Base", gives={200: ""}, refuses=(Forbidden,))
        async def get(self) -> None: ...

    @verified
    class Heir(Base):
        @described("Heir", gives={204: ""})
        async def get(self) -> None: ...

    first, second = description_of(Base, "GET"), description_of(Heir, "GET")
    assert first and second
    assert (first.summary, second.summary, second.refuses) == ("Base", "Heir", ())


# -- how it is served -----------------------------------------------------------------------------------


@pytest.mark.parametrize("host", HOSTS)
async def test_where_it_is(open_site: OpenSite, host: str) -> None:
    """Alone it is at the root, with health and keys; in a host it is under the prefix, where the host has nothing."""
    site = await open_site(HOSTS[host])
    root = "" if host == "alone" else "/auth"
    answer = await site.ask("GET", f"{root}/openapi.json")
    assert answer.code == 200
    assert json.loads(answer.body) == site.hydra.openapi(None if host == "alone" else "/auth")
    assert answer.headers["Content-Type"] == "application/json; charset=UTF-8"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers["Cache-Control"] == "public, max-age=300"
    page = await site.ask("GET", f"{root}/docs")
    assert (page.code, page.headers["Content-Type"]) == (200, "text/html; charset=UTF-8")
    if host == "alone":
        for path in ("/auth/openapi.json", "/auth/docs", "/docs/", "/docs/../openapi.json", "/docs/page.js"):
            refused(await site.ask("GET", path), 404, "not_found")


async def test_who_has_it_already(site: Site) -> None:
    """Its tag is that of its content: who has it gets 304 and no body; HEAD says what GET does."""
    answer = await site.ask("GET", "/openapi.json")
    tag = answer.headers["Etag"]
    again = await site.ask("GET", "/openapi.json", If_None_Match=tag)
    assert (again.code, again.body, again.headers["Etag"]) == (304, b"", tag)
    assert again.headers["Cache-Control"] == "public, max-age=300"
    assert (await site.ask("GET", "/openapi.json", If_None_Match='"another"')).code == 200
    head = await site.ask("HEAD", "/openapi.json")
    assert (head.code, head.body, head.headers["Content-Length"]) == (200, b"", str(len(answer.body)))
    refused(wrong := await site.ask("POST", "/openapi.json", body={}), 405, "method_not_allowed")
    assert wrong.headers["Allow"] == "GET, HEAD, OPTIONS"


async def test_the_viewers_files(site: Site) -> None:
    """The page runs no script of elsewhere, inline, or by eval; its files are named after their content, and kept."""
    page = await site.ask("GET", "/docs")
    policy = dict(part.strip().split(" ", 1) for part in page.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert page.headers["Cache-Control"] == "no-cache"
    assert (await site.ask("GET", "/docs", If_None_Match=page.headers["Etag"])).code == 304
    links = [part.split('"')[0] for part in page.body.decode().split('"docs/')[1:]]
    assert len(links) == 3
    for link in links:
        answer = await site.ask("GET", f"/docs/{link}")
        assert hashlib.sha256(answer.body).hexdigest().startswith(link.split(".")[-2])
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert (
            answer.headers["Content-Type"] == f"text/{'css' if link.endswith('css') else 'javascript'}; charset=UTF-8"
        )


@pytest.mark.parametrize("host", ["alone", "mounted"])
async def test_switched_off(open_site: OpenSite, host: str) -> None:
    """With server.docs off there is neither the description nor the page."""
    site = await open_site(HOSTS[host], server={"docs": False})
    for path in ("/openapi.json", "/docs") if host == "alone" else ("/auth/openapi.json", "/auth/docs"):
        refused(await site.ask("GET", path), 404, "not_found")
    assert (await site.post("register", {"email": "ada@example.com", "password": PASSWORD})).code == 201


def test_what_is_vendored() -> None:
    """Swagger UI is the one that viewer/README.md names, unchanged."""
    folder = Path(routes.__file__).parent.parent / "viewer"
    told = (folder / "README.md").read_text("utf-8")
    for name in ("swagger-ui-bundle.js", "swagger-ui.css"):
        digest = hashlib.sha256((folder / "swagger-ui" / name).read_bytes()).hexdigest()
        assert f"`{name}` {digest}" in told
    assert "Apache License" in (folder / "swagger-ui/LICENSE").read_text("utf-8")


# -- what docs/api.md shows ------------------------------------------------------------------------------


def block(language: str) -> str:
    page = (Path(__file__).parent.parent.parent / "docs/api.md").read_text("utf-8")
    return page.partition(f"```{language}\n")[2].partition("```")[0]


async def test_the_example(open_site: OpenSite, tmp_path: Path) -> None:
    """The plugin of docs/api.md does what it says, and its description is there."""
    schemas = tmp_path / "mine/acme/schemas"
    schemas.mkdir(parents=True)
    (schemas.parent / "__init__.py").write_text(block("python"))
    (schemas / "stop.json").write_text(json.dumps(STOP))
    (schemas / "trip.json").write_text(json.dumps({**TRIP, "properties": {"stops": {"type": "array"}}}))
    site = await open_site(plugins={"dir": str(tmp_path / "mine"), "enabled": ["acme"]})
    assert site.described.document["paths"]["/auth/acme/trips/{trip}"]["post"]["summary"] == "One more stop"
    answer = await site.post("acme/trips/rome", {"place": "Ostia"})
    assert (answer.code, json.loads(answer.body)) == (201, {"stops": ["Pisa", "Ostia"]})
    refused(await site.post("acme/trips/nowhere", {"place": "Ostia"}), 404, "not_found")
    refused(await site.post("acme/trips/rome", {"place": ""}), 422, "validation_failed")


def test_the_commands(start: StartServer) -> None:
    """The commands of docs/api.md print what it shows."""
    server = start(HYDRACORE_STORE__DRIVER="memory")
    asked, shown, printing = block("console").splitlines()
    asked = asked.removeprefix("$ ").replace("localhost:8000", f"127.0.0.1:{server.port}")
    printing = printing.removeprefix("$ ").replace("hydracore", f"{sys.executable} -m hydracore", 1)
    script = f"{asked}; echo; {printing}"
    told = subprocess.run(
        ["bash", "-c", script], cwd=server.folder, env=settings(), capture_output=True, text=True, check=True
    )
    assert told.stdout == f"{shown}\n"
    printed = json.loads((server.folder / "openapi.json").read_text("utf-8"))
    assert printed == server.ask("GET", "/openapi.json")[1]


def test_the_command(tmp_path: Path) -> None:
    """hydracore openapi prints it, without a server and without leaving anything behind."""
    command = [sys.executable, "-m", "hydracore", "openapi"]
    environment = settings(HYDRACORE_PLUGINS__ENABLED='["invites"]')
    printed = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    document = json.loads(printed.stdout)
    assert {"/auth/login", "/auth/invites", "/health/live"} <= set(document["paths"])
    OpenAPIV31SpecValidator(document).validate()
    assert list(tmp_path.iterdir()) == []
