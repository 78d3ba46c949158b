"""HydraCore: wires the parts, opens and closes them, and steps aside."""

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tornado.httputil import HTTPServerRequest
from tornado.routing import Rule
from tornado.web import Application, RequestHandler

from hydracore.busyness import Load, LoopLag
from hydracore.calls import Spent
from hydracore.chance import Now, Token
from hydracore.chance import now as real_now
from hydracore.chance import token as real_token
from hydracore.config import Config, load
from hydracore.counting import Counters
from hydracore.errors import ConfigError, HydraError, StartupError, StoreUnavailable
from hydracore.flows.lent import Lent
from hydracore.flows.messages import prepare
from hydracore.flows.services import Services
from hydracore.flows.signing_keys import announce_key, rotate_keys
from hydracore.flows.sweep import sweep
from hydracore.keys import Keys
from hydracore.leases import LeaseWorker
from hydracore.letters import Templates
from hydracore.limits import CountingLimiter, Limiter, NullLimiter
from hydracore.logs import logger
from hydracore.mail import MailWorker
from hydracore.meters import UNMEASURED, Meters, State
from hydracore.meters import Registry as MetricsRegistry
from hydracore.models import Backlog, CurrentUser, SigningKey
from hydracore.neighbours import TOLD_EVERY, Neighbours
from hydracore.passwords import TESTING, HashCost, HashingPool, Passwords
from hydracore.records import Context
from hydracore.refusals import Refusals
from hydracore.registry import Registry
from hydracore.reporting import Reporter
from hydracore.secret import ServerSecret, kept_secret
from hydracore.store import Store, reason
from hydracore.store.embedded import Mongod
from hydracore.template_folders import TemplateFolder
from hydracore.threads import Threads, cores
from hydracore.tokens import AccessTokens, RefreshTokens
from hydracore.tracing import UNTRACED, Tracer
from hydracore.validation import own_schemas
from hydracore.web import routes
from hydracore.web.base import Web, current_user, headers_of
from hydracore.web.client import Proxies
from hydracore.web.cookies import Cookies
from hydracore.web.host import refuse
from hydracore.webhooks.courier import Courier
from hydracore.webhooks.relay import Relay

log = logger("hydracore")

_TEND_EVERY = 1.0
_SWEEP_EVERY = 60.0
_MONGOD_START = 15.0
_THREADS = 2
_MOST_WAITING = 64
# The part of the requests at once that may wait for a turn at a limit: most are for others.
_WAITING_PART = 4
# At the end, what clients have sent by then is answered too.
_ON_ITS_WAY = 0.1

PluginFactory = Callable[[Context], object]


class HydraCore:
    """An identity server, to run or to mount.

    ::

        async with HydraCore(load(Path("config.toml"))) as hydra:
            app = tornado.web.Application([*hydra.routes("/auth"), ("/", Home)], hydracore=hydra)

    It belongs to the event loop that it is entered in; fork before that. ``plugins`` are classes by
    name, beside the installed ones that the configuration names. ``uri`` is a database that runs already, in
    place of the embedded one. Without ``deliver_mail`` mail, and what webhooks are told, waits in the outbox for
    another process. ``metrics`` is a ``prometheus_client.CollectorRegistry``, which has what docs/operations.md lists
    while this is open; without one nothing is measured. ``tracer_provider`` is an OpenTelemetry ``TracerProvider``,
    for the spans that it lists; without one there are none. ``now`` and ``token`` are where time and chance come from.

    Raises :class:`~hydracore.errors.StartupError` (with a message for the operator) for a
    configuration or plugins that do not fit together, here, and for a database that belongs to another
    secret, a data folder or a registry in use, when entered. A database that does not answer is no error: calls get
    503 until it does.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        plugins: Mapping[str, PluginFactory] | None = None,
        uri: str | None = None,
        deliver_mail: bool = True,
        metrics: MetricsRegistry | None = None,
        tracer_provider: Any = None,
        now: Now = real_now,
        token: Token = real_token,
    ) -> None:
        self.config = load() if config is None else config
        self._uri = uri if uri is not None else self.config.store.uri
        self._deliver_mail = deliver_mail
        self._now = now
        self._token = token
        self._tracer = _tracer(tracer_provider)
        self._meters = self._tracer.meters(_meters(metrics))
        self._mongod: Mongod | None = None
        self._lag = LoopLag()
        self._beside: list[asyncio.Task[None]] = []
        self._services: Services | None = None
        self._problem = "starting"
        self._tell_at = 0.0
        self._asking: asyncio.Task[str] | None = None
        self._asked_at = 0.0
        self.registry = Registry(
            self.config,
            now=now,
            token=token,
            surroundings=Lent(lambda: self._services),
            extra=plugins,
            meters=self._meters,
        )
        self.templates = Templates(
            self.config.mail.sender,
            self.config.mail.product,
            language=self.config.mail.language,
            folders=_template_folders(self.config, self.registry),
            plugins=tuple(self.registry.loaded),
        )
        self._calls = routes.plugin_calls(self.registry, self.config.roles.known)
        self._schemas = own_schemas(self.registry.members.values())
        self._store = Store(
            driver=self.config.store.driver,
            database=self.config.store.database,
            timeout=self.config.store.timeout,
            operations=self.config.store.operations,
            cache_ttl=self.config.tokens.cache_ttl,
            collections=tuple(self.registry.collections.values()),
            meters=self._meters,
        )

    # -- life ----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        # Not the loop's own, which plugins may keep for ever.
        self._threads = Threads("core", _THREADS, _MOST_WAITING)
        self._meters.open()
        try:
            if self.config.embedded and not self._uri:
                await self._start_mongod()
            if self.config.store.driver == "memory":
                log.warning("store.driver is memory: nothing is kept")
            self._store.open(self._uri)
            self._wire()
            await asyncio.gather(self._prepare(), self._threads.run(self.services.passwords.prepare))
        except BaseException:
            await self._close()
            raise
        loop = asyncio.get_running_loop()
        self._beside = [loop.create_task(work()) for work in self._works()]
        if self._relay.on:
            self._relay.start()
        if self._deliver_mail:
            for worker in self._workers:
                worker.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop_delivering(self.config.server.drain_timeout)
        while beside := [task for task in self._beside if not task.done()]:
            # More than once: a driver may make an error of its own of a cancellation.
            for task in beside:
                task.cancel()
            await asyncio.wait(beside, timeout=0.1)
        if self._asking is not None:
            self._asking.cancel()
        with suppress(StoreUnavailable):
            await self._refusals.flush()
        await self.services.limiter.close()
        await self.registry.close()
        self.services.passwords.close()
        self._reporter.close()
        await self._close()

    async def _close(self) -> None:
        await self._store.close()
        if self._mongod is not None:
            await self._threads.run(self._mongod.stop)
        self._threads.close()
        self._meters.close()

    async def _start_mongod(self) -> None:
        server_secret(self.config, self._token)  # Before there is a database that it belongs to.
        # Started in this thread, which outlives it: its parent-death signal is the thread's.
        mongod = Mongod(self.config.data_dir, cache_mb=self.config.store.cache_mb)
        mongod.start()
        self._mongod, self._uri = mongod, mongod.uri
        await self._threads.run(partial(mongod.wait_ready, _MONGOD_START))

    def _wire(self) -> None:
        config = self.config
        secret = ServerSecret(server_secret(config, self._token), _secret_source(config), config.other_secrets)
        self._neighbours = Neighbours(self._store.secrets, secret, now=self._now)
        keys = Keys(
            self._store.keys,
            secret,
            self._threads,
            algorithm=config.tokens.algorithm,
            access_ttl=config.tokens.access_ttl,
            lead=config.tokens.key_lead,
            rotation=config.tokens.key_rotation,
            now=self._now,
        )
        self._couriers = self._webhook_couriers()
        self._relay = Relay(
            config.webhooks.endpoints, self._store.users, self._store.deliveries, self._wake_couriers, now=self._now
        )
        if self._relay.on:
            self.registry.hear(self._relay)
        self._services = Services(
            settings=config,
            secret=secret,
            store=self._store,
            passwords=_passwords(config, self._meters),
            keys=keys,
            access=AccessTokens(
                keys,
                issuer=config.issuer,
                audience=config.tokens.audience,
                ttl=config.tokens.access_ttl,
                now=self._now,
                token=self._token,
            ),
            refresh=RefreshTokens(secret),
            limiter=self._limiter(secret),
            templates=self.templates,
            registry=self.registry,
            relay=self._relay,
            wake_mail=lambda: self._mail.wake(),
            wake_webhooks=self._wake_couriers,
            meters=self._meters,
            now=self._now,
            token=self._token,
        )
        self._mail = MailWorker(
            self._store.outbox,
            self.registry.transport,
            self.registry.owner_of(self.registry.transport),
            partial(prepare, self.services),
            secret,
            self.registry.announce,
            timeout=config.mail.timeout,
            max_attempts=config.mail.max_attempts,
            now=self._now,
            token=self._token,
            tracer=self._tracer,
        )
        self._refusals = Refusals(self._store, ttl=config.log.explain_ttl, now=self._now)
        self._workers: list[LeaseWorker[Any]] = [self._mail, *self._couriers]
        self._reporter = Reporter(
            self._meters,
            self._state,
            lambda: self._store.outbox.backlog(self._now()),
            {name: partial(self._webhook_backlog, name) for name in config.webhooks.endpoints},
        )
        self._web = Web(
            services=self.services,
            schemas=self._schemas,
            plugins=self._calls,
            proxies=Proxies(config.server.trusted_proxies),
            cookies=Cookies(config),
            origins=(config.origin, *config.server.allowed_origins),
            allowed_origins=config.server.allowed_origins,
            not_ready=self.not_ready,
            refusals=self._refusals,
            headers=headers_of(config),
            exposition=self._reporter.exposition,
            tracer=self._tracer,
        )

    def _webhook_couriers(self) -> list[Courier]:
        webhooks = self.config.webhooks
        return [
            Courier(
                self._store.deliveries,
                endpoint,
                max_attempts=webhooks.max_attempts,
                kept_for=timedelta(seconds=webhooks.kept_for),
                now=self._now,
                token=self._token,
            )
            for endpoint in webhooks.endpoints.values()
        ]

    def _wake_couriers(self) -> None:
        for courier in self._couriers:
            courier.wake()

    async def _webhook_backlog(self, endpoint: str) -> Backlog:
        return await self._store.deliveries.backlog(endpoint, self._now())

    async def _stop_delivering(self, timeout: float) -> None:
        await asyncio.gather(*(worker.stop(timeout) for worker in self._workers))

    def _limiter(self, secret: ServerSecret) -> Limiter:
        if not self.config.limits.enabled:
            return NullLimiter()
        registry = self.registry
        plugin, meters = registry.owner_of(registry.limits), self._meters
        counters = Counters(registry.limits, registry.fallback_limits, now=self._now, plugin=plugin, meters=meters)
        most_waiting = self.config.server.max_requests // _WAITING_PART
        return CountingLimiter(
            self.config.limits, counters, secret, registry.announce, most_waiting=most_waiting, meters=meters
        )

    async def _prepare(self) -> None:
        """Have indexes and a signing key; where the database is away, leave it to :meth:`_tend`."""
        try:
            await self._store.ensure()
            await self.services.keys.load()  # First: keys end on a node that may not serve, too.
            await self._neighbours.check(starting=True)
            made = await self.services.keys.ensure()
            if made is not None and made.sequence > 1:
                announce_key(self.services, made)
            await self._equalise()
            # Not before the keys could be opened: a stranger's secret is no reason for others to stop.
            await self._tell_neighbours()
        except StoreUnavailable as error:
            if self._problem != reason(error):
                log.warning(reason(error), cause=type(error.__cause__).__name__)
            self._problem = reason(error)
        else:
            if self._problem not in ("", "starting"):
                log.info("the database answers again")
            self._problem = ""

    async def _equalise(self) -> None:
        """Have every sign-in cost what those of imported accounts cost."""
        if self.config.password.equalise:
            self.services.passwords.equalise(await self._store.users.works())

    async def _tend(self) -> None:
        """Once a second: the embedded mongod lives, what was missing is made, new keys and imports are seen."""
        while True:
            await asyncio.sleep(_TEND_EVERY)
            try:
                if self._mongod is not None and self._mongod.poll() is not None:
                    log.error("the embedded mongod died, starting it again")
                    self._mongod.restart()
                if self._problem:
                    await self._prepare()
                else:
                    await self._tend_keys()
                    if asyncio.get_running_loop().time() >= self._tell_at:
                        await self._tell_neighbours()
                    await self._equalise()
                    await self._refusals.flush()
            except StoreUnavailable as error:
                self._problem = reason(error)
            except StartupError as error:
                if self._problem == str(error):
                    continue
                self._problem = str(error)
                log.error("cannot serve", reason=self._problem)  # noqa: TRY400  # the message is for the operator, a trace is not
            except Exception:
                log.exception("tending failed, it goes on")

    async def _tell_neighbours(self) -> None:
        await self._neighbours.tell()
        self._tell_at = asyncio.get_running_loop().time() + TOLD_EVERY
        await self._neighbours.check()  # Two that have started at once may only see each other now.

    async def _tend_keys(self) -> None:
        keys = self.services.keys
        await keys.load()
        if made := await keys.rotate_if_due():
            announce_key(self.services, made)

    def _works(self) -> tuple[Callable[[], Coroutine[Any, Any, None]], ...]:
        reporter = self._reporter
        return (
            *(self._tend, self._sweep, self._lag.measure),
            *(self._tell_load, reporter.tell_state, reporter.tell_outbox),
        )

    async def _sweep(self) -> None:
        """Once a minute, on every node: what is over for accounts."""
        while True:
            await asyncio.sleep(_SWEEP_EVERY)
            try:
                await sweep(self.services)
            except StoreUnavailable:
                continue  # That is told elsewhere, and the next one will do.
            except Exception:
                log.exception("sweeping failed, it goes on")

    async def _tell_load(self) -> None:
        while every := self.config.log.load_every:
            await asyncio.sleep(every)
            log.info("load", pid=os.getpid(), **asdict(self.load()), plugins=self._plugins_cost())

    def _plugins_cost(self) -> dict[str, dict[str, float]]:
        """By plugin, since the start of this process; those that were called."""
        spent = self.registry.calls.by_plugin()
        return {name: {what: round(number, 4) for what, number in asdict(cost).items()} for name, cost in spent.items()}

    # -- use -----------------------------------------------------------------------------------

    def routes(self, prefix: str = "/auth") -> list[Rule]:
        """Rules for a Tornado application: the whole auth API under ``prefix``, in a nested
        application of our own, so that the host's settings do not reach it nor ours the host. Unless
        ``server.docs`` is off, ``<prefix>/openapi.json`` describes it and ``<prefix>/docs`` shows that."""
        return routes.auth_rules(self._web, prefix)

    def service_routes(self) -> list[Rule]:
        """Rules for ``/health/live``, ``/health/ready`` and ``/.well-known/jwks.json``."""
        return routes.service_rules(self._web)

    def application(self) -> Application:
        """All of it as an application of its own, under the configured prefix."""
        return routes.standalone(self._web, self.config.server.prefix)

    def openapi(self, prefix: str | None = None) -> dict[str, Any]:
        """The description of the calls by OpenAPI 3.1, as ``/openapi.json`` has it: of :meth:`application`, or of what
        :meth:`routes` serves under ``prefix``. It need not be entered."""
        under = self.config.server.prefix if prefix is None else prefix
        return routes.description(self.config, under, self._schemas, self._calls, service=prefix is None)

    def management(self) -> Application:
        """``/metrics`` and health for the operator's own tools, to listen with where only they reach it: nobody has to
        sign in. ``hydracore serve`` does that for ``management.port``."""
        return routes.operators(self._web)

    def administration(self) -> Application:
        """The Admin API under ``/admin``, to listen with where only administrators reach it; each request has an admin
        token. ``hydracore serve`` does that for ``admin.port``."""
        return routes.administrators(self._web)

    async def authenticate(
        self, request: HTTPServerRequest, *, allow_unverified: bool = False, roles: str | Sequence[str] = ()
    ) -> CurrentUser:
        """Who makes the request: by ``Authorization: Bearer`` or by cookie, their session looked up.

        Raises :class:`~hydracore.errors.NotAuthenticated`; :class:`~hydracore.errors.EmailNotVerified`
        while the token says that the address is not proven, unless ``allow_unverified``;
        :class:`~hydracore.errors.RoleRequired` for who has none of ``roles``, where there are any;
        :class:`~hydracore.errors.CrossOriginRefused` for a cookie on another site's POST;
        :class:`~hydracore.errors.StoreUnavailable`. It answers nothing and keeps nothing: that is for whoever
        catches the error, with :meth:`refuse` if they like.
        """
        wanted = (roles,) if isinstance(roles, str) else tuple(roles)
        return await current_user(self._web, request, allow_unverified=allow_unverified, roles=wanted)

    def refuse(self, handler: RequestHandler, error: HydraError) -> None:
        """Answer a request of yours with what :meth:`authenticate` raised, and finish it: the JSON and the headers of
        HydraCore's own calls, ``X-Request-Id`` among them, under which ``hydracore explain`` tells the reason. The id
        is a trusted proxy's, or a new one."""
        refuse(self._web, handler, error)

    async def rotate_keys(self, *, emergency: bool = False) -> SigningKey:
        """Publish a new signing key; it signs ``tokens.key_lead`` seconds from now, on every node. In an ``emergency``
        that is three seconds from now, and all keys of before end then: access tokens under them are refused, while
        sessions and refresh tokens stay."""
        return await rotate_keys(self.services, emergency=emergency)

    async def not_ready(self) -> str:
        """Why it cannot serve, in words for an operator; "" when it can."""
        if self._problem:
            return self._problem
        # Anyone may ask, so the database is asked by one at a time, and once a second at most.
        loop = asyncio.get_running_loop()
        if self._asking is None or (self._asking.done() and loop.time() - self._asked_at >= _TEND_EVERY):
            self._asked_at = loop.time()
            self._asking = loop.create_task(self._store.not_ready())
        return await asyncio.shield(self._asking)

    @property
    def services(self) -> Services:
        """What flows work with, once it is open."""
        if self._services is None:
            raise StoreUnavailable
        return self._services

    def plugin_times(self) -> Mapping[tuple[str, str], Spent]:
        """What each plugin's part in each hook has cost this process, by (plugin, hook)."""
        return self.registry.calls.spent

    def load(self) -> Load:
        """What this process has on its hands."""
        passwords = self.services.passwords
        return Load(round(self._lag.longest, 4), len(self._web.in_flight), passwords.pending, passwords.refused)

    def _state(self) -> State:
        return State(self.load(), self.services.passwords.capacity, self.registry.calls.spent)

    @property
    def receiving(self) -> list[HTTPServerRequest]:
        """Requests whose bodies are on their way."""
        return [endpoint.request for endpoint in self._web.receiving]

    @property
    def in_flight(self) -> list[HTTPServerRequest]:
        """Requests that are being received or answered."""
        return [*self.receiving, *(endpoint.request for endpoint in self._web.in_flight)]

    async def drain(self, timeout: float) -> None:
        """Before the end, once nothing more is accepted: begin no more deliveries, and give the requests and
        deliveries under way ``timeout`` seconds."""
        for endpoint in (*self._web.receiving, *self._web.in_flight):
            endpoint.set_header("Connection", "close")
        loop = asyncio.get_running_loop()
        deliveries, deadline = loop.create_task(self._stop_delivering(timeout)), loop.time() + timeout
        await asyncio.sleep(_ON_ITS_WAY)
        while self.in_flight and loop.time() < deadline:  # noqa: ASYNC110  # simpler than an event
            await asyncio.sleep(0.02)
        await deliveries


def _meters(registry: MetricsRegistry | None) -> Meters:
    if registry is None:
        return UNMEASURED
    # Optional dependency: imported only when there is a registry, which is the same library's.
    from hydracore.prometheus import PrometheusMeters

    return PrometheusMeters(registry)


def _tracer(provider: Any) -> Tracer:
    if provider is None:
        return UNTRACED
    # Optional dependency: imported only when there is a provider, which is the same library's.
    from hydracore.spans import SpanTracer

    return SpanTracer(provider)


def _template_folders(config: Config, registry: Registry) -> list[TemplateFolder]:
    """Where mails' templates are looked for before our own: the deployer's folder, then the plugins'."""
    brought = [TemplateFolder(path / "mail", plugin) for plugin, path in registry.loaded.template_folders.items()]
    if not config.mail.templates:
        return brought
    folder = Path(config.mail.templates)
    if not folder.is_dir():
        raise ConfigError(f"The configuration is wrong. mail.templates: {folder.absolute()} is no folder.")
    return [TemplateFolder(folder), *brought]


def _passwords(config: Config, meters: Meters) -> Passwords:
    chosen = config.password
    cost = HashCost(chosen.memory_kib, chosen.time_cost, chosen.parallelism)
    if chosen.profile == "testing":
        log.warning("password.profile is testing: hashes protect nobody")
        cost = TESTING
    threads = chosen.hash_threads or cores()
    return Passwords(cost, HashingPool(threads, chosen.hash_queue, chosen.hash_timeout, meters))


def server_secret(config: Config, token: Token) -> str:
    """The configured secret; beside the embedded database one of its own, made at the first start.

    Raises :class:`StartupError` when its file cannot be read or is not whole.
    """
    if config.secret:
        return config.secret
    if not config.embedded:
        return token(32)  # store.driver is memory: nothing outlives this process.
    return kept_secret(config.data_dir / "secret", token, data=config.data_dir / "db")


def _secret_source(config: Config) -> str:
    if config.secret:
        return "the key secret, HYDRACORE_SECRET or HYDRACORE_SECRET_FILE"
    return str(config.data_dir / "secret")
