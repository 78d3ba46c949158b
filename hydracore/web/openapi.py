"""The description of the calls by OpenAPI 3.1, made of the table, what each call says of itself, schemas and errors."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hydracore.config import Config
from hydracore.errors import (
    BadRequest,
    CrossOriginRefused,
    EmailNotVerified,
    HeadersTooLarge,
    HydraError,
    InvalidAdminToken,
    MissingScope,
    NotAuthenticated,
    Overloaded,
    PayloadTooLarge,
    RoleRequired,
    StoreUnavailable,
    TooManyRequests,
    Unavailable,
    UnsupportedMediaType,
    ValidationFailed,
)
from hydracore.web.access import Door, door_of
from hydracore.web.base import Endpoint
from hydracore.web.components import Components
from hydracore.web.cookies import Cookies
from hydracore.web.described import Description, description_of, query_of

# The API's own version. The server's is nobody's business (ASVS 5.0, 13.4.6).
_VERSION = "1.0"
_ABOUT = """JSON in, JSON out.

A refusal is a sentence for people (`detail`) and a name for machines (`code`); 422 has a list in `detail`, with one
entry for each thing that is wrong with the body. Any call also answers HEAD where it answers GET, OPTIONS, and 405 with
`Allow` for other methods; what is no HTTP request gets 400 without a body. Every answer has an `X-Request-Id`: tell it
to the operator when you ask why.

Browsers keep the two cookies and send them from this site's own pages; programs send `Authorization: Bearer`."""
_ABOUT_ADMIN = """What administrators do, each of it on record. JSON in, JSON out.

Whoever asks sends `Authorization: Bearer` with an admin token, which has scopes and an end: `hydracore admin tokens
create` makes one. No cookie and no other origin counts here. A refusal is a sentence for people (`detail`) and a name
for machines (`code`); 422 has a list in `detail`. Every answer has an `X-Request-Id`, which is in the audit, too."""
_WORDS = {
    "admin": "For administrators.",
    "auth": "Accounts, sign-ins and sessions.",
    "service": "For operators' tools and other services.",
}
_SILENT = ("HEAD", "OPTIONS")  # They go without saying.
_SAFE = ("GET", "HEAD", "OPTIONS")
_ANY_CALL = (PayloadTooLarge, HeadersTooLarge, Unavailable, StoreUnavailable, Overloaded)
_OF_BODIES = (UnsupportedMediaType, ValidationFailed)


@dataclass(frozen=True)
class Listed:
    """A row of the table of calls: ``path`` under ``prefix``; ``of`` is the plugin whose call it is or, of ``ours``,
    auth or service; ``taken`` and ``given`` are the schemas of bodies and of answers, by name."""

    prefix: str
    path: str
    endpoint: type[Endpoint]
    of: str
    taken: Mapping[str, Any]
    given: Mapping[str, Any]
    ours: bool = False


def document(config: Config, listed: Iterable[Listed], answers: Mapping[str, Any]) -> dict[str, Any]:
    """The whole description; ``answers`` has the schemas of refusals. Raises ``ValueError`` for a call of ours that
    says nothing of itself."""
    told = {"title": config.mail.product, "version": _VERSION, "description": _ABOUT}
    return _written(config, told, config.public_url.rstrip("/") or "/", listed, answers, _security_schemes(config))


def admin_document(config: Config, listed: Iterable[Listed], answers: Mapping[str, Any]) -> dict[str, Any]:
    """That of the Admin API. Raises as :func:`document`."""
    told = {"title": f"{config.mail.product}, administration", "version": _VERSION, "description": _ABOUT_ADMIN}
    scheme = {"type": "http", "scheme": "bearer", "description": "An admin token, which has the scope."}
    return _written(config, told, "/", listed, answers, {"admin": scheme})


def _written(
    config: Config,
    told: Mapping[str, str],
    server: str,
    listed: Iterable[Listed],
    answers: Mapping[str, Any],
    schemes: Mapping[str, Any],
) -> dict[str, Any]:
    rows, schemas = list(listed), Components()
    writer = _Writer(config, schemas, answers)
    paths = {row.prefix + row.path: writer.item(row) for row in rows}
    return {
        "openapi": "3.1.0",
        "info": told,
        "servers": [{"url": server}],
        "tags": [
            {"name": tag, "description": _WORDS.get(tag, f"Calls of the plugin {tag}.")}
            for tag in dict.fromkeys(row.of for row in rows)
        ],
        "paths": paths,
        "components": {
            "schemas": schemas.there,
            "securitySchemes": schemes,
            "headers": _HEADERS,
        },
    }


class _Writer:
    def __init__(self, config: Config, components: Components, answers: Mapping[str, Any]) -> None:
        self._config = config
        self._components = components
        self._answers = answers

    def item(self, row: Listed) -> dict[str, Any]:
        """All that is at one path."""
        parameters = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
            for name in re.findall(r"{(\w+)}", row.path)
        ]
        methods = [method for method in row.endpoint.allowed() if method not in _SILENT]
        operations = {method.lower(): self._operation(row, method, bool(parameters)) for method in methods}
        return {**({"parameters": parameters} if parameters else {}), **operations}

    def _operation(self, row: Listed, method: str, parameters: bool) -> dict[str, Any]:
        said = description_of(row.endpoint, method)
        if said is None and row.ours:
            raise ValueError(
                f"{row.endpoint.__name__} ({method} {row.path}) says nothing of itself: "
                f"decorate {method.lower()} with described(summary, takes=..., gives=..., refuses=...)"
            )
        return {
            "tags": [row.of],
            "operationId": _operation_id(row, method),
            **_words(said),
            "security": _security(row, method, said),
            **self._query(row, method),
            **self._request(row, method, said),
            "responses": {**self._successes(row, said), **self._refusals(row, method, said, parameters)},
        }

    def _query(self, row: Listed, method: str) -> dict[str, Any]:
        if not (name := query_of(row.endpoint, method)):
            return {}
        rules = row.taken[name]["properties"]
        return {"parameters": [{"name": key, "in": "query", "schema": rule} for key, rule in rules.items()]}

    def _request(self, row: Listed, method: str, said: Description | None) -> dict[str, Any]:
        if said is not None and said.takes:
            schema = self._reference(row, said.takes, row.taken)
            return {"requestBody": {"required": True, "content": _json(schema)}}
        if said is None and method not in (*_SAFE, "DELETE"):
            return {"requestBody": {"content": _json({})}}
        return {}

    def _successes(self, row: Listed, said: Description | None) -> dict[str, Any]:
        if said is None:
            return {"default": {"description": "What the plugin answers.", "headers": _headers("X-Request-Id")}}
        names = ("X-Request-Id", *(("Set-Cookie",) if said.sets_cookies else ()))
        return {
            str(status): {
                "description": row.given[name].get("description", "Done.") if name else "Done; there is no body.",
                "headers": _headers(*names),
                **({"content": _json(self._given(row, said, name))} if name else {}),
            }
            for status, name in said.gives.items()
        }

    def _given(self, row: Listed, said: Description, name: str) -> dict[str, str]:
        schema = row.given[name]
        kept_back = not self._config.cookies.tokens_in_body and said.sets_cookies and row.ours and name == "tokens"
        if not kept_back:
            return self._reference(row, name, row.given)
        rest = [member for member in schema["required"] if member not in ("access_token", "refresh_token")]
        return self._components.reference("SignedIn", {**schema, "title": "Signed in", "required": rest})

    def _refusals(
        self, row: Listed, method: str, said: Description | None, parameters: bool
    ) -> dict[str, dict[str, Any]]:
        by_status: dict[int, dict[str, type[HydraError]]] = {}
        for error in _errors(row, method, said, parameters):
            by_status.setdefault(error.status, {})[error.code] = error
        return {str(status): self._refusal(status, by_status[status]) for status in sorted(by_status)}

    def _refusal(self, status: int, errors: Mapping[str, type[HydraError]]) -> dict[str, Any]:
        names = ["X-Request-Id"]
        names += ["Retry-After"] if status in (429, 503) else ["WWW-Authenticate"] if status == 401 else []
        refusals = {code: {"detail": self._sentence(error), "code": code} for code, error in errors.items()}
        shapes = {
            code: "invalid" if issubclass(error, ValidationFailed) else "refusal" for code, error in errors.items()
        }
        examples = {code: {"value": refusals[code]} for code, shape in shapes.items() if shape == "refusal"}
        return {
            "description": "\n\n".join(dict.fromkeys(refusal["detail"] for refusal in refusals.values())),
            "headers": _headers(*names),
            "content": _json(self._any_of(shapes.values()), examples),
        }

    def _any_of(self, shapes: Iterable[str]) -> dict[str, Any]:
        references = [self._components.reference(_camel(name), self._answers[name]) for name in dict.fromkeys(shapes)]
        return references[0] if len(references) == 1 else {"anyOf": references}

    def _sentence(self, error: type[HydraError]) -> str:
        if error is PayloadTooLarge:
            return PayloadTooLarge(self._config.server.max_body).detail
        if error is HeadersTooLarge:
            return HeadersTooLarge(self._config.server.max_header).detail
        return error.detail

    def _reference(self, row: Listed, name: str, schemas: Mapping[str, Any]) -> dict[str, str]:
        return self._components.reference(_camel(name) if row.ours else f"{row.of}.{name}", schemas[name])


def _words(said: Description | None) -> dict[str, str]:
    words = {"summary": said.summary, "description": said.details} if said is not None else {}
    return {key: value for key, value in words.items() if value}


def _errors(row: Listed, method: str, said: Description | None, parameters: bool) -> Iterator[type[HydraError]]:
    """What a call may refuse with: its own errors, then those that its method, body and access bring along."""
    door = door_of(row.endpoint, method) or Door("verified")
    if door.access == "scoped":
        yield from (InvalidAdminToken, MissingScope, TooManyRequests)
    elif door.access != "public":
        yield NotAuthenticated
    if query_of(row.endpoint, method):
        yield ValidationFailed
    if door.access == "verified":
        yield EmailNotVerified
    if door.roles:
        yield RoleRequired
    if said is not None:
        yield from said.refuses
        # A plugin's may read its body without a schema.
        yield from _OF_BODIES if said.takes or not (row.ours or method in _SAFE) else ()
    if method not in _SAFE:
        yield CrossOriginRefused
    if parameters:
        yield BadRequest
    yield from _ANY_CALL


def _security(row: Listed, method: str, said: Description | None) -> list[dict[str, list[str]]]:
    """The credentials that it looks at, any one of which is enough; none for a call that looks at none."""
    door = door_of(row.endpoint, method) or Door("verified")
    if door.scope:
        return [{"admin": [door.scope]}]
    if said is not None and said.by:
        return [{} if credentials == "none" else {credentials: []} for credentials in said.by]
    # OpenAPI 3.1 has names of roles there, all of which it takes; so there is one entry for each that will do.
    needs = [[role] for role in door.roles] or [[]]
    return [] if door.access == "public" else [{by: need} for need in needs for by in ("bearer", "cookie")]


def _security_schemes(config: Config) -> dict[str, Any]:
    access, refresh = Cookies(config).names
    return {
        "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "An access token."},
        "cookie": {"type": "apiKey", "in": "cookie", "name": access, "description": "An access token."},
        "refresh_cookie": {"type": "apiKey", "in": "cookie", "name": refresh, "description": "A refresh token."},
        "basic": {"type": "http", "scheme": "basic", "description": "The e-mail address and the password."},
    }


_TEXT = {"type": "string"}
_HEADERS: dict[str, Any] = {
    "X-Request-Id": {"description": "Tells requests apart.", "required": True, "schema": _TEXT},
    "Retry-After": {
        "description": "Seconds after which to try again.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "WWW-Authenticate": {"description": "What to authenticate with (RFC 9110).", "required": True, "schema": _TEXT},
    "Set-Cookie": {"description": "The two cookies, each in a header of its own.", "schema": _TEXT},
}


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _json(schema: Mapping[str, Any], examples: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"application/json": {"schema": schema, **({"examples": examples} if examples else {})}}


def _operation_id(row: Listed, method: str) -> str:
    """``verify_email``, ``get_me``: the path without the prefix, and the method where it is none that does something by
    its path's own verb."""
    words = re.sub(r"[^a-z0-9]+", "_", row.path.lower()).strip("_")
    return words if method == "POST" else f"{method.lower()}_{words}"


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("-"))
