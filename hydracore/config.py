"""Configuration: TOML, then the environment, held against ``schemas/config.json``, frozen.

The schema is where every key, its type, rule and default live; the classes here give them types.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import resources
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hydracore.complaints import KeyPath, complaints, message, rules_of
from hydracore.errors import ConfigError
from hydracore.models import User
from hydracore.signing import keys_of
from hydracore.sources import PREFIX, FromEnvironment, coerce, from_environment, merge, read, secret_file

# What RFC 9068, section 2.2.3.1, has for them.
_CLAIMS = ("roles", "groups", "entitlements")

BY_UNIX_SOCKET = "unix"
"""Among ``server.trusted_proxies``: whoever connects by a Unix socket."""


@dataclass(frozen=True)
class Server:
    host: str
    port: int
    workers: int
    prefix: str
    docs: bool
    trusted_proxies: tuple[str, ...]
    allowed_origins: tuple[str, ...]
    max_connections: int
    max_requests: int
    max_header: int
    max_body: int
    idle_timeout: int
    header_timeout: int
    body_timeout: int
    request_timeout: int
    send_timeout: int
    drain_timeout: int
    stall_timeout: int
    loop: str
    http: str


@dataclass(frozen=True)
class Management:
    host: str
    port: int


@dataclass(frozen=True)
class Admin:
    host: str
    port: int
    allow_remote: bool
    retention_days: int


@dataclass(frozen=True)
class Tracing:
    enabled: bool


@dataclass(frozen=True)
class Store:
    uri: str = field(repr=False)
    database: str
    driver: str
    timeout: int
    operations: int
    cache_mb: int


@dataclass(frozen=True)
class Tokens:
    audience: str
    algorithm: str
    access_ttl: int
    refresh_grace: int
    idle_ttl: int
    session_ttl: int
    key_lead: int
    key_rotation: int
    cache_ttl: int


@dataclass(frozen=True)
class Login:
    authenticators: tuple[str, ...]


@dataclass(frozen=True)
class Registration:
    reveal_existing: bool


@dataclass(frozen=True)
class Account:
    undo_ttl: int
    deletion_grace: int


@dataclass(frozen=True)
class Roles:
    known: tuple[str, ...]
    claim: str
    left_out: tuple[str, ...]

    def held(self, user: User) -> tuple[str, ...]:
        """The roles of an account that count: those that are known, once its address is proven. Before, whoever signs
        in may be a stranger who registered it first."""
        return tuple(sorted(role for role in user.roles if role in self.known)) if user.email_verified else ()

    def claims(self, user: User) -> dict[str, list[str]]:
        """What its access tokens say of them; nothing where there is nothing to say."""
        told = [role for role in self.held(user) if role not in self.left_out]
        return {self.claim: told} if self.claim and told else {}


@dataclass(frozen=True)
class Password:
    min_length: int
    profile: str
    memory_kib: int
    time_cost: int
    parallelism: int
    hash_threads: int
    hash_queue: int
    hash_timeout: int
    equalise: bool


@dataclass(frozen=True)
class Cookies:
    secure: str
    same_site: str
    tokens_in_body: bool


@dataclass(frozen=True)
class Mail:
    transport: str
    sender: str
    product: str
    language: str
    templates: str
    reset_url: str
    undo_email_url: str
    undo_deletion_url: str
    timeout: int
    max_attempts: int
    allow_undelivered: bool


@dataclass(frozen=True)
class Endpoint:
    """One webhook. Its URL may be as secret as its secret."""

    name: str
    url: str = field(repr=False)
    secret: str = field(repr=False)
    events: tuple[str, ...]
    timeout: int
    allow_http: bool

    @property
    def keys(self) -> list[bytes]:
        return keys_of(self.secret)


@dataclass(frozen=True)
class Webhooks:
    max_attempts: int
    kept_for: int
    endpoints: Mapping[str, Endpoint]


@dataclass(frozen=True)
class Limits:
    enabled: bool
    backend: str
    login_address_network: str
    login_address: str
    login_network: str
    verify_address: str
    verify_network: str
    mail_address: str
    mail_address_hourly: str
    mail_network: str
    register_network: str
    reset_network: str
    admin_network: str


@dataclass(frozen=True)
class Log:
    level: str
    format: str
    load_every: int
    explain_ttl: int


@dataclass(frozen=True)
class Plugins:
    enabled: tuple[str, ...]
    dir: str
    timeout: int
    sections: Mapping[str, Mapping[str, Any]] = field(repr=False)


@dataclass(frozen=True)
class Config:
    """The whole configuration of one HydraCore, checked."""

    data_dir: Path
    secret: str = field(repr=False)
    other_secrets: tuple[str, ...] = field(repr=False)
    public_url: str
    server: Server
    management: Management
    admin: Admin
    tracing: Tracing
    store: Store
    tokens: Tokens
    login: Login
    registration: Registration
    account: Account
    roles: Roles
    password: Password
    cookies: Cookies
    mail: Mail
    webhooks: Webhooks
    limits: Limits
    log: Log
    plugins: Plugins

    @property
    def embedded(self) -> bool:
        """Whether HydraCore runs its own mongod."""
        return not self.store.uri and self.store.driver != "memory"

    @property
    def issuer(self) -> str:
        """The ``iss`` of access tokens: the same on every node, whatever port it listens on."""
        return self.public_url.rstrip("/") or "hydracore"

    @property
    def base_url(self) -> str:
        """Where users reach this server: ``public_url``, or where it listens."""
        host = f"[{self.server.host}]" if ":" in self.server.host else self.server.host
        return self.public_url.rstrip("/") or f"http://{host}:{self.server.port}"

    @property
    def origin(self) -> str:
        """Scheme and authority of :attr:`base_url`, as browsers write them."""
        parts = urlsplit(self.base_url)
        return _as_browsers_write(f"{parts.scheme}://{parts.netloc}")

    @property
    def secure_cookies(self) -> bool:
        if self.cookies.secure == "auto":
            return self.base_url.startswith("https://")
        return self.cookies.secure == "always"


def load(
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Config:
    """The configuration from ``file``, over that the environment, over that ``overrides``.

    ``environment`` defaults to the process's. ``overrides`` is nested as TOML is. Raises
    :class:`ConfigError` with every problem in one message.
    """
    schema = load_schema()
    environment = os.environ if environment is None else environment
    sources: dict[KeyPath, str] = {}
    values: dict[str, Any] = {}
    if file is not None:
        merge(values, read(file), sources, str(file))
    variables = from_environment(environment, schema, sources)
    merge(values, variables, {}, "")
    if overrides:
        merge(values, overrides, sources, "argument")
    problems = list(complaints(values, schema, sources))
    if problems:
        raise ConfigError(message(problems))
    config = _build(with_defaults(values, schema))
    problems = list(_contradictions(config))
    if problems:
        raise ConfigError(message(problems))
    return config


def load_schema() -> dict[str, Any]:
    text = (resources.files("hydracore.schemas") / "config.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def check_section(name: str, values: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """A plugin's section, held against the plugin's own schema and completed with its defaults."""
    known = rules_of(schema)
    where = ("plugins", name)
    typed: dict[str, Any] = {}
    sources: dict[KeyPath, str] = {}
    for key, value in values.items():
        if isinstance(value, FromEnvironment):
            variable, text = PREFIX + "__".join((*where, key)).upper(), str(value)
            if key not in known and key.endswith("_file"):
                key, text = key.removesuffix("_file"), secret_file(variable, text)
            sources[*where, key] = variable
            typed[key] = coerce(text, known.get(key, {}))
        else:
            typed.setdefault(key, value)
    problems = list(complaints(typed, {"type": "object", "additionalProperties": False, **schema}, sources, where))
    if problems:
        raise ConfigError(message(problems))
    return with_defaults(typed, schema)


def with_defaults(values: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with every key of ``schema`` present."""
    complete, others = dict(values), schema.get("additionalProperties")
    for key, value in values.items():
        if isinstance(others, Mapping) and isinstance(value, Mapping) and key not in rules_of(schema):
            complete[key] = with_defaults(value, others)
    for key, rule in rules_of(schema).items():
        if rule.get("type") == "object":
            complete[key] = with_defaults(values.get(key, rule.get("default", {})), rule)
        elif key not in complete and "default" in rule:
            complete[key] = rule["default"]
    return complete


def _contradictions(config: Config) -> Iterator[str]:
    for endpoint in config.webhooks.endpoints.values():
        yield from _about_webhooks(endpoint)
    yield from _about_roles(config.roles)
    for network in config.server.trusted_proxies:
        try:
            if network != BY_UNIX_SOCKET:
                ip_network(network, strict=False)
        except ValueError:
            yield f"server.trusted_proxies: {network!r} is no address, no network such as 10.0.0.0/8, and not unix"
    if config.management.port and config.management == Management(config.server.host, config.server.port):
        yield "management.port: must be another than server.port, for nothing of it is public"
    yield from _about_admin(config)
    if config.cookies.same_site == "none" and not config.secure_cookies:
        yield "cookies.same_site: none needs secure cookies: set public_url to https, or cookies.secure to always"
    if config.tokens.idle_ttl > config.tokens.session_ttl:
        yield "tokens.idle_ttl: must not be longer than tokens.session_ttl"
    if 0 < config.tokens.key_rotation < config.tokens.key_lead + config.tokens.access_ttl:
        yield "tokens.key_rotation: must be 0, or no shorter than tokens.key_lead and tokens.access_ttl together"
    passes = config.password.time_cost
    floor = {1: 47104, 2: 19456}.get(passes, 12288)  # OWASP ASVS 5.0, appendix C
    if config.password.memory_kib < floor:
        yield f"password.memory_kib: must be at least {floor} when password.time_cost is {passes}"
    if config.public_url and not _is_url(config.public_url):
        yield f"public_url: {config.public_url!r} is no URL"
    if not config.secret.isprintable():
        yield "secret: must be printable text (make one: openssl rand -hex 32)"
    if not all(secret.isprintable() for secret in config.other_secrets):
        yield "other_secrets: must be printable texts"
    if config.store.driver == "memory" and config.store.uri:
        yield "store.driver: memory keeps nothing, and store.uri names a database: set one of them alone"
    if config.limits.enabled and config.limits.backend == "memory" and config.server.workers > 1:
        yield "limits.backend: memory counts in each worker apart: set it to mongodb, or server.workers to 1"
    if config.store.driver == "memory" and config.server.workers > 1:
        yield "server.workers: must be 1 when store.driver is memory, which one process keeps for itself"
    if config.store.uri and not config.secret:
        yield (
            "secret: store.uri is set, so a secret of at least 32 characters that all nodes share is needed: "
            "set HYDRACORE_SECRET or HYDRACORE_SECRET_FILE (make one: openssl rand -hex 32)"
        )


def _about_admin(config: Config) -> Iterator[str]:
    admin, server, management = config.admin, config.server, config.management
    if not admin.port:
        return
    taken = {"server": (server.host, server.port), "management": (management.host, management.port)}
    for name, place in taken.items():
        if (admin.host, admin.port) == place:
            yield f"admin.port: must be another than {name}.port, for not everybody may ask what is asked there"
    if not (_is_loopback(admin.host) or admin.allow_remote):
        yield (
            f"admin.host: {admin.host} is not this machine's own, and there is no TLS, so whoever is on the way reads "
            "the tokens: set it to 127.0.0.1, or, where a TLS proxy or a private network is between, set "
            "admin.allow_remote"
        )


def _is_url(text: str) -> bool:
    try:
        return bool(urlsplit(text).hostname) and urlsplit(text).port != 0  # Both may raise.
    except ValueError:
        return False


def _about_roles(roles: Roles) -> Iterator[str]:
    claim = roles.claim
    if claim and claim not in _CLAIMS and not (claim.startswith(("https://", "http://")) and _is_url(claim)):
        yield (
            f"roles.claim: {claim!r} is or might become a claim of another meaning: take {', '.join(_CLAIMS)}, "
            'a URL of yours ("https://example.com/roles"), or "" for none'
        )
    for role in roles.left_out:
        if role not in roles.known:
            near = get_close_matches(role, roles.known, 1)
            yield f"roles.left_out: {role!r} is not in roles.known" + (f"; did you mean {near[0]!r}?" if near else "")


def _about_webhooks(endpoint: Endpoint) -> Iterator[str]:
    where = f"webhooks.endpoints.{endpoint.name}"
    try:
        keys_of(endpoint.secret)
    except ValueError as error:
        yield f"{where}.secret: {error} (make one: echo whsec_$(openssl rand -base64 32))"
    if not _is_url(endpoint.url):
        yield f"{where}.url: what it was given is no URL"
    elif urlsplit(endpoint.url).scheme == "http" and not (
        endpoint.allow_http or _is_loopback(urlsplit(endpoint.url).hostname or "")
    ):
        yield (
            f"{where}.url: must be https, but for this machine's own addresses, or whoever is on the way reads along; "
            "where nobody is, set allow_http"
        )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _webhooks(values: Mapping[str, Any]) -> Webhooks:
    endpoints = {
        name: Endpoint(name=name, **{**endpoint, "events": tuple(endpoint["events"])})
        for name, endpoint in values["endpoints"].items()
    }
    return Webhooks(values["max_attempts"], values["kept_for"], endpoints)


def _as_browsers_write(origin: str) -> str:
    """An origin without its scheme's own port, in lower case."""
    scheme, _, authority = origin.lower().partition("://")
    return f"{scheme}://{authority.removesuffix({'http': ':80', 'https': ':443'}[scheme])}"


def _build(values: dict[str, Any]) -> Config:
    plugins = values["plugins"]
    sections = {name: value for name, value in plugins.items() if isinstance(value, dict)}
    server, roles = values["server"], values["roles"]
    return Config(
        data_dir=Path(values["data_dir"]),
        secret=values["secret"],
        other_secrets=tuple(values["other_secrets"]),
        public_url=values["public_url"],
        server=Server(
            **{
                **server,
                "trusted_proxies": tuple(server["trusted_proxies"]),
                "allowed_origins": tuple(_as_browsers_write(origin) for origin in server["allowed_origins"]),
            }
        ),
        management=Management(**values["management"]),
        admin=Admin(**values["admin"]),
        tracing=Tracing(**values["tracing"]),
        store=Store(**values["store"]),
        tokens=Tokens(**values["tokens"]),
        login=Login(tuple(values["login"]["authenticators"])),
        registration=Registration(**values["registration"]),
        account=Account(**values["account"]),
        roles=Roles(tuple(roles["known"]), roles["claim"], tuple(roles["left_out"])),
        password=Password(**values["password"]),
        cookies=Cookies(**values["cookies"]),
        mail=Mail(**values["mail"]),
        webhooks=_webhooks(values["webhooks"]),
        limits=Limits(**values["limits"]),
        log=Log(**values["log"]),
        plugins=Plugins(tuple(plugins["enabled"]), plugins["dir"], plugins["timeout"], sections),
    )
