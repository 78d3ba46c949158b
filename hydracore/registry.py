"""What the plugins of one HydraCore register, and how they are asked and told."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from email.message import EmailMessage
from functools import partial
from types import ModuleType
from typing import Any, TypeVar

from hydracore import hookspecs
from hydracore.calls import Calls
from hydracore.chance import Now, Token
from hydracore.config import Config
from hydracore.discovery import OWN_AUTHENTICATOR, Installed, available
from hydracore.errors import PasswordRefused, PluginError
from hydracore.events import Event
from hydracore.fitting import (
    Factory,
    check_collection,
    check_command,
    check_delivery,
    check_member,
    check_nothing,
    check_over,
    check_path,
    checked_claims,
    checked_count,
    checked_identity,
    checked_words,
    choose,
    refuse_twice,
    registered,
)
from hydracore.listening import Listener, Listening, Pump, Told
from hydracore.loading import Loaded, told_while_slow
from hydracore.logs import logger
from hydracore.meters import UNMEASURED, Meters
from hydracore.models import Account, read_only
from hydracore.records import (
    Authenticator,
    Collection,
    Command,
    Context,
    Count,
    EventListener,
    HealthCheck,
    Identity,
    LimitBackend,
    MailTransport,
    NewPassword,
    PasswordPolicy,
    ProfileMember,
    Route,
    Surroundings,
    own_threads,
)
from hydracore.shapes import flaws
from hydracore.store import DriverError
from hydracore.threads import Threads

log = logger("hydracore.plugins")

Record = TypeVar("Record")


class Registry:
    """One plugin manager, and what the plugins registered with it.

    ``extra`` are plugin classes by name that a host hands in without an entry point. Raises
    :class:`StartupError` for whatever does not fit together, naming both parties and the remedy.
    """

    def __init__(
        self,
        config: Config,
        *,
        now: Now,
        token: Token,
        surroundings: Surroundings,
        extra: Mapping[str, Factory] | None = None,
        specs: ModuleType = hookspecs,
        meters: Meters = UNMEASURED,
    ) -> None:
        self._meters = meters
        self._roles_claim = config.roles.claim
        self._owners: dict[tuple[type, str], str] = {}
        self.calls = Calls(config.plugins.timeout, (DriverError,))
        self._threads: dict[str, Threads] = {}
        known = available(config)
        context = partial(
            Context, settings=config, now=now, token=token, surroundings=surroundings, threads=self._threads_of
        )
        self.loaded = Loaded(config, known, extra or {}, context=context, calls=self.calls, specs=specs)
        self._collect_all(config, known, now, token)

    # -- collecting --------------------------------------------------------------------------------

    def _collect_all(self, config: Config, known: Mapping[str, Installed], now: Now, token: Token) -> None:
        self.collections = self._collect("collections", Collection)
        self.policies = self._collect("password_policies", PasswordPolicy)
        self.authenticators = self._collect("authenticators", Authenticator)
        self.routes = self._collect("routes", Route)
        self.commands = self._collect("commands", Command)
        self.members = self._collect("profile_members", ProfileMember)
        self.checks = self._collect("health_checks", HealthCheck)
        self.transports = self._collect("mail_transports", MailTransport)
        self.backends = self._collect("limit_backends", LimitBackend)
        listeners = self._collect("event_listeners", EventListener)
        pumps = [Pump(self.calls, self.owner_of(listener), listener) for listener in listeners.values()]
        self._listening = Listening(self.calls, pumps, now=now, token=token)
        mails, limits = _of_kind("mail_", known), _of_kind("limits_", known)
        self._measure(config.mail.timeout)
        self.transport = choose(self.transports, "mail.transport", config.mail.transport, mails)
        self.limits = choose(self.backends, "limits.backend", config.limits.backend, limits)
        self.fallback_limits = choose(self.backends, "the fallback for limits", "memory", limits)
        for name in config.login.authenticators:
            if name != OWN_AUTHENTICATOR:
                choose(self.authenticators, "login.authenticators", name, _of_kind("authenticator_", known))
        for transport in self.transports.values():
            check_over(transport, self.transports, self.owner_of(transport))
        check_delivery(config, self.transport, self.transports)
        for route in self.routes.values():
            check_path(self.owner_of(route), route)
        for command in self.commands.values():
            check_command(self.owner_of(command), command)
        for member in self.members.values():
            check_member(self.owner_of(member), member)

    def _measure(self, mail_timeout: float) -> None:
        for name, transport in self.transports.items():
            work = partial(_handed_over, transport)
            send = self.calls.measured(self.owner_of(transport), "mail_transport", work, mail_timeout)
            self.transports[name] = replace(transport, send=send)
        for name, backend in self.backends.items():
            # Without a deadline of its own, for the sake of speed: the limiter has one.
            owner, give_back = self.owner_of(backend), backend.give_back
            hit = self.calls.measured(owner, "limit_backend", partial(_counted, backend.hit))
            if give_back is not None:
                give_back = self.calls.measured(owner, "limit_backend", give_back)
            self.backends[name] = replace(backend, hit=hit, give_back=give_back)

    def _collect(self, hook: str, kind: type[Record]) -> dict[str, Record]:
        hook = f"hydracore_register_{hook}"
        records: dict[str, Record] = {}
        for implementation in self.loaded.implementing(hook):
            owner = implementation.plugin_name
            with told_while_slow(owner):
                records_of_it = registered(owner, hook, implementation.function)
            for found in records_of_it:
                if not isinstance(found, kind):
                    raise PluginError(
                        owner, f"The plugin {owner} returned {found!r} from {hook}, which takes {kind.__name__}."
                    )
                for flaw in flaws(found):
                    raise PluginError(owner, f"The plugin {owner} returned a {kind.__name__} from {hook}: {flaw}.")
                if isinstance(found, Collection):
                    check_collection(owner, found)
                # A plugin's collections are called after it: no two plugins can want the same.
                record: Any = replace(found, name=f"{owner}.{found.name}") if isinstance(found, Collection) else found
                name = _name(record)
                if name in records:
                    refuse_twice(owner, kind.__name__, name, self._owners[kind, name])
                records[name], self._owners[kind, name] = record, owner
        return records

    def owner_of(self, record: object) -> str:
        """The name of the plugin that registered it."""
        return self._owners.get((type(record), _name(record)), "")

    # -- asking ------------------------------------------------------------------------------------

    async def before_register(self, email: str, network: str, profile: Mapping[str, Any]) -> None:
        """Raises what a plugin refuses with, or 503 for one that is late or fails; so do the others."""
        await self._ask("hydracore_before_register", email=email, network=network, profile=read_only(profile))

    async def before_login(self, account: Account, network: str, authenticator: str) -> None:
        await self._ask("hydracore_before_login", account=account, network=network, authenticator=authenticator)

    async def before_reset_password(self, account: Account, network: str) -> None:
        await self._ask("hydracore_before_reset_password", account=account, network=network)

    async def before_change_email(self, account: Account, email: str, network: str) -> None:
        await self._ask("hydracore_before_change_email", account=account, email=email, network=network)

    @property
    def adds_claims(self) -> bool:
        """Whether anyone wants to be asked before a token is issued."""
        return bool(self.loaded.implementing("hydracore_before_issue_token"))

    async def before_issue_token(
        self, account: Account, session_id: str, network: str, roles: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The claims to add, with that of its ``roles``, which no plugin's may be."""
        claims: dict[str, Any] = {**roles}

        def add(owner: str, answer: Any) -> None:
            claims.update(checked_claims(owner, answer, claims, self._roles_claim))

        given = {"account": account, "session_id": session_id, "network": network}
        await self._ask("hydracore_before_issue_token", add, **given)
        return claims

    async def _ask(self, hook: str, use: Callable[[str, Any], None] | None = None, /, **given: Any) -> None:
        for implementation in self.loaded.implementing(hook):
            arguments = [given[name] for name in implementation.argnames]
            owner = implementation.plugin_name

            async def answered(
                implementation: Any = implementation, arguments: list[Any] = arguments, owner: str = owner
            ) -> None:
                answer = await implementation.function(*arguments)
                # What is not taken is the plugin's failure too.
                if use is not None:
                    use(owner, answer)
                else:
                    check_nothing(hook, answer)

            await self.calls.call(owner, hook, answered)

    async def judge(self, new_password: NewPassword) -> list[str]:
        """Every policy's objection. Raises :class:`Unavailable` where one cannot judge: it lets nothing through."""
        objections = []
        for policy in self.policies.values():
            work = partial(self._judged, policy, new_password)
            try:
                await self.calls.call(self.owner_of(policy), "password_policy", work, passing=(PasswordRefused,))
            except PasswordRefused as refusal:
                objections.append(str(refusal))
        return objections

    async def _judged(self, policy: PasswordPolicy, new_password: NewPassword) -> None:
        answers: list[Any] = []
        try:
            if policy.check is not None:
                work: Callable[[], Any] = partial(policy.check, new_password.password, new_password.email)
                answers.append(await self._threads_of(self.owner_of(policy)).run(work))
            if policy.judge is not None:
                judge: Callable[[NewPassword], Awaitable[Any]] = policy.judge
                answers.append(await judge(new_password))
        except PasswordRefused as refusal:
            str(refusal).encode()  # One without words is the policy's failure.
            raise
        for answer in answers:
            check_nothing("a policy", answer)

    async def authenticate(self, name: str, email: str, password: str) -> Identity | None:
        """What the authenticator says. Raises its refusal, or :class:`Unavailable`."""
        authenticator = self.authenticators[name]

        async def asked() -> Identity | None:
            return checked_identity(await authenticator.authenticate(email, password))

        return await self.calls.call(self.owner_of(authenticator), "authenticator", asked)

    async def health(self, check: HealthCheck) -> str:
        """What a health check says; "" when all is well."""
        work = partial(_told, check.check)
        try:
            return await self.calls.measured(self.owner_of(check), "health_check", work, self.calls.timeout)()
        except TimeoutError as error:
            return str(error)
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    # -- announcing --------------------------------------------------------------------------------

    def hear(self, listener: Listener) -> None:
        """Have one of our own hear everything that is announced, in place of the one of before."""
        self._listening.add(listener)

    def stamped(self, event: Told) -> Told:
        """The event with the id and the moment under which it will be announced."""
        return self._listening.stamped(event)

    def announce(self, event: Event) -> None:
        """Tell every listener, beside the caller; returns at once."""
        self._meters.happened(event)
        self._listening.announce(event, self.loaded.implementing("hydracore_on_event"))

    async def settle(self) -> None:
        """Wait for the listeners that were told; each has its deadline."""
        await self._listening.settle()

    async def close(self) -> None:
        """At the end: the last events, then whatever has a connection."""
        await self._listening.close()
        closing: list[MailTransport | LimitBackend] = [*self.transports.values(), *self.backends.values()]
        for record in closing:
            try:
                await self.calls.measured(self.owner_of(record), "close", record.close, self.calls.timeout)()
            except Exception:
                log.exception("plugin cannot be closed", plugin=self.owner_of(record))
        for threads in self._threads.values():
            threads.close()

    def _threads_of(self, plugin: str) -> Threads:
        if plugin not in self._threads:
            self._threads[plugin] = own_threads(plugin)
        return self._threads[plugin]


async def _counted(hit: Callable[[str, int, int], Awaitable[Any]], key: str, window: int, cost: int) -> Count:
    return checked_count(await hit(key, window, cost), window)


async def _handed_over(transport: MailTransport, message: EmailMessage, key: str) -> None:
    send: Callable[[EmailMessage, str], Awaitable[Any]] = transport.send
    check_nothing(f"the mail transport {transport.name}", await send(message, key))


async def _told(check: Callable[[], Awaitable[Any]]) -> str:
    return checked_words(await check())


def _name(record: Any) -> str:
    return str(record.path if isinstance(record, Route) else record.name)


def _of_kind(kind: str, names: Iterable[str]) -> list[str]:
    return [name.removeprefix(kind) for name in names if name.startswith(kind)]
