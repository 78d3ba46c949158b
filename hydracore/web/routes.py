"""The table of calls."""

import inspect
import re
from abc import ABCMeta
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from tornado.routing import PathMatches, Rule
from tornado.web import Application

from hydracore.config import Config
from hydracore.errors import PluginError
from hydracore.loading import Owned
from hydracore.records import Route
from hydracore.registry import Registry
from hydracore.validation import Schemas, admin_schemas, answer_schemas, schemas_in
from hydracore.web import account, login, management, recovery, registration, service, session, verification
from hydracore.web.access import access_of, door_of, scope_of
from hydracore.web.admin import server as admin_server
from hydracore.web.admin import users as admin_users
from hydracore.web.admin import webhooks as admin_webhooks
from hydracore.web.base import Endpoint, Origin, Web
from hydracore.web.described import misdescribed
from hydracore.web.dispatch import Nested, Row, pattern, sample
from hydracore.web.docs import Published, description_file, published
from hydracore.web.openapi import Listed, admin_document, document

AUTH: dict[str, type[Endpoint]] = {
    "/me": session.Me,
    "/refresh": session.Refresh,
    "/register": registration.Register,
    "/login": login.Login,
    "/token": login.Token,
    "/logout": session.Logout,
    "/verify-email": verification.VerifyEmail,
    "/resend-verification": verification.ResendVerification,
    "/forgot-password": recovery.ForgotPassword,
    "/reset-password": recovery.ResetPassword,
    "/change-password": account.ChangePassword,
    "/change-email": account.ChangeEmail,
    "/confirm-email": account.ConfirmEmail,
    "/undo-email-change": account.UndoEmailChange,
    "/undo-deletion": account.UndoDeletion,
    "/me/export": account.Export,
    "/sessions": session.Sessions,
    "/sessions/revoke-others": session.RevokeOthers,
    "/sessions/{session_id}": session.OneSession,
}

SERVICE: dict[str, type[Endpoint]] = {
    "/health/live": service.Live,
    "/health/ready": service.Ready,
    "/.well-known/jwks.json": service.Jwks,
}

MANAGEMENT: dict[str, type[Endpoint]] = {
    "/health/live": service.Live,
    "/health/ready": service.Ready,
    "/metrics": management.Metrics,
}

ADMIN_PREFIX = "/admin"
ADMIN: dict[str, type[Endpoint]] = {
    "/users": admin_users.Users,
    "/users/{user_id}": admin_users.OneUser,
    "/users/{user_id}/disable": admin_users.DisableUser,
    "/users/{user_id}/enable": admin_users.EnableUser,
    "/users/{user_id}/force-reset": admin_users.ForceReset,
    "/users/{user_id}/mark-verified": admin_users.MarkVerified,
    "/users/{user_id}/roles": admin_users.Roles,
    "/users/{user_id}/sessions": admin_users.Sessions,
    "/users/{user_id}/sessions/{session_id}": admin_users.OneSession,
    "/mail": admin_server.Mail,
    "/mail/retry": admin_server.RetryAllMail,
    "/mail/{mail_id}": admin_server.OneMail,
    "/mail/{mail_id}/retry": admin_server.RetryMail,
    "/webhooks": admin_webhooks.Deliveries,
    "/webhooks/retry": admin_webhooks.RetryAllDeliveries,
    "/webhooks/replay": admin_webhooks.Replay,
    "/webhooks/{delivery_id}/retry": admin_webhooks.RetryDelivery,
    "/keys": admin_server.Keys,
    "/keys/rotate": admin_server.RotateKeys,
    "/tokens": admin_server.Tokens,
    "/tokens/{token_id}": admin_server.OneToken,
    "/audit": admin_server.Audit,
}

Calls = tuple[tuple[type[Endpoint], Origin], ...]

# What an endpoint may have of its own among the names that Endpoint has: its methods, and what pages are made with.
_FREE = frozenset(
    {"get", "head", "post", "put", "patch", "delete", "options"}
    | {"challenge", "create_template_loader", "get_template_namespace", "get_template_path", "get_user_locale"}
)
# What is there in a request only, and what any class has and may not have another of.
_OF_REQUESTS = frozenset(
    {"_answered", "_chunks", "_deadline", "_finished", "_headers", "_received", "_request_id", "_status_code"}
    | {"application", "request", "web"}
)
_OF_OBJECTS = frozenset({"__getattr__", "__getattribute__", "__init__", "__new__", "__setattr__"})
_CHALLENGE = re.compile(r"[\x20-\x7e]+")


def auth_rules(web: Web, prefix: str) -> list[Rule]:
    """The auth API under ``prefix``, the plugins' calls and the description of all included, for the rules of any
    Tornado application."""
    table = [*_auth_table(web, prefix), *_published_table(web, prefix, root=prefix, service=False)]
    return [Rule(PathMatches(re.escape(prefix) + "(?:/.*)?$"), Nested(web, table))]


def service_rules(web: Web) -> list[Rule]:
    """Health and published keys, at the root."""
    application = Nested(web, _table(web, SERVICE))
    return [Rule(PathMatches(pattern(path)), application) for path in SERVICE]


def standalone(web: Web, prefix: str) -> Application:
    """All of it, with our 404 for every other path."""
    return Nested(
        web, [*_auth_table(web, prefix), *_table(web, SERVICE), *_published_table(web, prefix, root="", service=True)]
    )


def operators(web: Web) -> Application:
    """What the management listener serves."""
    return Nested(web, _table(web, MANAGEMENT))


def administrators(web: Web) -> Application:
    """What the admin listener serves: its own schemas, and no other origin's pages."""
    config = web.services.settings
    web = replace(web, schemas=admin_schemas(), origins=(config.origin,), allowed_origins=(), plugins=())
    table = _table(web, ADMIN, ADMIN_PREFIX)
    file = description_file(admin_description(config))  # Published or not, what is amiss stops the start.
    if config.server.docs:
        table.append(_row(web, f"{ADMIN_PREFIX}/openapi.json", Published, file=file))
    return Nested(web, table)


def admin_description(config: Config) -> dict[str, Any]:
    """What OpenAPI 3.1 says of the Admin API. Raises ``ValueError`` for a call that says nothing of itself, or that
    asks for no scope."""
    taken, answers = admin_schemas().by_name, answer_schemas()
    for path, endpoint in ADMIN.items():
        for method in endpoint.allowed():
            if method != "OPTIONS" and scope_of(endpoint, method) is None:
                raise ValueError(f"{endpoint.__name__} ({method} {path}) asks for no scope: decorate it with scoped")
    rows = [Listed(ADMIN_PREFIX, path, each, "admin", taken, answers, ours=True) for path, each in ADMIN.items()]
    return admin_document(config, rows, answers)


def _auth_table(web: Web, prefix: str) -> list[Row]:
    table = _table(web, AUTH, prefix)
    return [*table, *(_row(web, prefix + origin.path, endpoint, of=origin) for endpoint, origin in web.plugins)]


def _table(web: Web, calls: Mapping[str, type[Endpoint]], prefix: str = "") -> list[Row]:
    return [_row(web, prefix + path, endpoint) for path, endpoint in calls.items()]


def _row(web: Web, path: str, endpoint: type[Endpoint], called: str = "", **given: Any) -> Row:
    # Named as the table has it, never as a client writes it: there are no more names than rows.
    answered = web.services.meters.route(route := called or path)
    return Row(path, endpoint, {"answered": answered, "route": route, **given})


def _published_table(web: Web, prefix: str, *, root: str, service: bool) -> list[Row]:
    """The description and its page, under ``root``: a host has its own things elsewhere."""
    config = web.services.settings
    if not config.server.docs:
        return []
    files = published(description(config, prefix, web.schemas, web.plugins, service=service))
    # What the page loads counts as the page: its names change with every version.
    called = {path: root + ("/docs" if path.startswith("/docs") else path) for path in files}
    return [_row(web, root + path, Published, called[path], file=file) for path, file in files.items()]


def description(config: Config, prefix: str, schemas: Schemas, plugins: Calls, *, service: bool) -> dict[str, Any]:
    """What OpenAPI 3.1 says of the calls under ``prefix``, with ``service`` of health and keys too."""
    answers = answer_schemas()
    rows = [
        Listed(prefix, path, each, "auth", schemas.by_name, answers, ours=True) for path, each in sorted(AUTH.items())
    ]
    for each, origin in plugins:
        known = origin.schemas.by_name
        rows.append(Listed(prefix, origin.path, each, origin.name, known, known))
    if service:
        rows += [Listed("", path, each, "service", {}, answers, ours=True) for path, each in SERVICE.items()]
    return document(config, rows, answers)


# -- the plugins' ----------------------------------------------------------------------------------


def plugin_calls(registry: Registry, roles: Sequence[str]) -> Calls:
    """The calls of the loaded plugins. Raises :class:`PluginError` for an endpoint that is none, does not say
    whom it answers, requires a role that is none of ``roles``, or describes itself wrongly, and for a schema that is
    none."""
    schemas = {name: _schemas(name, owned) for name, owned in registry.loaded.items()}
    calls: list[tuple[type[Endpoint], Origin]] = []
    for route in registry.routes.values():
        name = registry.owner_of(route)
        _audit(name, route, schemas[name])
        _check_roles(name, route, roles)
        _check_reached(name, route.path, [origin.path for _, origin in calls])
        calls.append((route.endpoint, Origin(name, registry.loaded[name].plugin, route.path, schemas[name])))
    return tuple(calls)


def audited(table: Iterable[tuple[str, type[Endpoint]]]) -> Iterator[str]:
    """What is wrong with endpoints, in words."""
    for path, endpoint in table:
        yield from _overriding(path, endpoint)
        for method in endpoint.allowed():
            function, what = getattr(endpoint, method.lower()), f"{endpoint.__name__} ({method} {path})"
            if access_of(endpoint, method) is None:
                said = "public, unverified, verified or require_role"
                yield f"{what} does not say whom it answers: decorate it with {said}"
            if not inspect.iscoroutinefunction(function):
                yield f"{what} is no coroutine function: write async def {method.lower()}"
        if endpoint.allowed() == ["OPTIONS"]:
            yield f"{endpoint.__name__} ({path}) has no method: write async def get, say"


def _overriding(path: str, endpoint: type[Endpoint]) -> Iterator[str]:
    """What of Endpoint's is another's, by whatever class or descriptor. Doors are closed in ``prepare``, errors get
    their shape in ``write_error``, requests are counted until ``on_finish``: one name too many, and one is not."""
    what = f"{endpoint.__name__} ({path})"
    if type(endpoint) not in (type, ABCMeta):
        yield f"{what} has the metaclass {type(endpoint).__name__}, which may hide what it is: take it off"
    # Looked at without being asked: a descriptor may say something else here than in a request.
    absent = object()
    names = {name for name in dir(Endpoint) if not name.startswith("__")} | _OF_REQUESTS | _OF_OBJECTS
    for name in sorted(names - _FREE):
        ours, theirs = (inspect.getattr_static(kind, name, absent) for kind in (Endpoint, endpoint))
        if theirs is not ours:
            yield f"{what} has {name}, which is HydraCore's and stays as it is: rename it, and call it from the method"
    if isinstance(inspect.getattr_static(endpoint, "caller", None), property):
        yield f"{what} has a property named caller, which HydraCore sets: rename it"
    if not (isinstance(endpoint.challenge, str) and _CHALLENGE.fullmatch(endpoint.challenge)):
        yield f"{what} has the challenge {endpoint.challenge!r}, which is no WWW-Authenticate header"


def _audit(name: str, route: Route, schemas: Schemas) -> None:
    endpoint = route.endpoint
    if not (isinstance(endpoint, type) and issubclass(endpoint, Endpoint)):
        raise PluginError(
            name, f"The plugin {name} registers {endpoint!r} for {route.path}: it takes a subclass of Endpoint."
        )
    known = schemas.by_name
    for problem in (*audited([(route.path, endpoint)]), *misdescribed(endpoint, endpoint.allowed(), known, known)):
        raise PluginError(name, f"The plugin {name} has an endpoint that does not fit: {problem}.")
    try:
        given = re.compile(pattern(route.path)).groupindex
    except re.error as error:
        raise PluginError(name, f"The plugin {name} registers the path {route.path}: {error}.") from error
    for method in endpoint.allowed():
        try:
            inspect.signature(getattr(endpoint, method.lower())).bind(None, **dict.fromkeys(given, ""))
        except TypeError as error:
            what = f"{endpoint.__name__} ({method} {route.path})"
            raise PluginError(
                name, f"The plugin {name} has an endpoint whose arguments do not fit its path: {what}: {error}."
            ) from error


def _check_roles(name: str, route: Route, known: Sequence[str]) -> None:
    """One that nobody can have is a mistake, of whoever wrote the plugin or of whoever configures it."""
    for method in route.endpoint.allowed():
        door = door_of(route.endpoint, method)
        for role in (role for role in (door.roles if door else ()) if role not in known):
            near = get_close_matches(role, known, 1)
            meant = f" (did it mean {near[0]!r}?)" if near else ""
            raise PluginError(
                name,
                f"The plugin {name} requires the role {role!r} for {method} {route.path}, and roles.known does not "
                f"have it{meant}: add it there.",
            )


def _check_reached(name: str, path: str, before: Iterable[str]) -> None:
    """The first path that matches is taken: one that matches all that ``path`` does leaves it nothing."""
    for other in before:
        if re.match(pattern(other), sample(path)):
            raise PluginError(
                name,
                f"The plugin {name} registers the path {path}, which nobody would reach: {other} comes before it and "
                "matches all that it does. Register it first, or take it out.",
            )


def _schemas(name: str, owned: Owned) -> Schemas:
    folder = owned.source.folder / "schemas" if owned.source and owned.source.folder else None
    if folder is None or not folder.is_dir():
        return Schemas({})
    try:
        schemas = schemas_in(folder)
        schemas.pop("config", None)  # The section's, which was held against it already.
        return Schemas(schemas)
    except ValueError as error:
        raise PluginError(name, f"The plugin {name} has a schema in {folder} that is none: {error}") from error
