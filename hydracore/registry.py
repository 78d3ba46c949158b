"""The plugins of one HydraCore: make, collect, ask, announce."""

import asyncio
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from types import FrameType, ModuleType
from typing import Any, TypeVar

import pluggy

from hydracore import hookspecs
from hydracore.calls import Calls
from hydracore.chance import Now, Token
from hydracore.config import Config, check_section
from hydracore.discovery import OWN_AUTHENTICATOR, Installed, available, selected
from hydracore.errors import PasswordRefused, PluginError
from hydracore.events import Event
from hydracore.fitting import (
    Factory,
    check_command,
    check_delivery,
    check_kind,
    check_member,
    check_names,
    check_over,
    check_path,
    check_spelling,
    check_version,
    checked_claims,
    checked_identity,
    choose,
    make,
    registered,
)
from hydracore.listening import Listening, Pump
from hydracore.logs import logger
from hydracore.models import Account
from hydracore.records import (
    Authenticator,
    Collection,
    Command,
    Context,
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
)
from hydracore.store import DriverError
from hydracore.threads import Threads

log = logger("hydracore.plugins")

Record = TypeVar("Record")

_SLOW_START = 1.0
_THREADS = 4
_MOST_JUDGED = 64


@dataclass(frozen=True)
class Owned:
    """A plugin that is loaded."""

    name: str
    plugin: object
    source: Installed | None
    config: Mapping[str, Any]


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
    ) -> None:
        self._now = now
        self._token = token
        self._specs = specs
        self._manager = pluggy.PluginManager("hydracore")
        self._manager.add_hookspecs(specs)
        self._implementations: dict[str, list[Any]] = {}
        self._owners: dict[tuple[type, str], str] = {}
        self.calls = Calls(config.plugins.timeout, (DriverError,))
        self._threads = Threads(_THREADS, _MOST_JUDGED)
        self.loaded: dict[str, Owned] = {}
        """The loaded plugins by name, in order."""
        known = available(config)
        self._load(config, known, extra or {}, surroundings)
        self._collect_all(config, known)

    # -- making ----------------------------------------------------------------------------------

    def _load(
        self, config: Config, known: Mapping[str, Installed], extra: Mapping[str, Factory], surroundings: Surroundings
    ) -> None:
        check_names(config, known, extra)
        wanted = [*selected(config), *(name for name in extra if name not in config.plugins.enabled)]
        for name in wanted:
            if name not in known and name not in extra:
                continue  # A transport or backend may be any plugin's: _choose judges them.
            source = None if name in extra else known[name]
            section = config.plugins.sections.get(name, {})
            own = check_section(name, section, source.schema()) if source else dict(section)
            context = Context(name, own, settings=config, now=self._now, token=self._token, surroundings=surroundings)
            started = perf_counter()
            plugin = make(name, extra.get(name) or known[name], context)
            if (seconds := perf_counter() - started) > _SLOW_START:
                log.warning("plugin is slow to start", plugin=name, seconds=round(seconds, 1))
            self.calls.note(name, "start", seconds, failed=False)
            self.loaded[name] = Owned(name, plugin, source, own)
        for name, owned in reversed(self.loaded.items()):
            self._register(name, owned.plugin)  # Pluggy asks the last one first.

    @property
    def template_folders(self) -> dict[str, Path]:
        """The folders of mail templates that plugins bring, by plugin, in order."""
        folders = {name: owned.source.folder for name, owned in self.loaded.items() if owned.source}
        found = {name: folder / "templates" / "mail" for name, folder in folders.items() if folder}
        return {name: folder for name, folder in found.items() if folder.is_dir()}

    @property
    def names(self) -> list[str]:
        """The loaded plugins, in order."""
        return list(self.loaded)

    def _register(self, name: str, plugin: object) -> None:
        self._implementations.clear()
        check_version(name, plugin)
        check_spelling(name, plugin, self._specs)
        try:
            with warnings.catch_warnings(record=True) as retiring:
                warnings.simplefilter("always")
                self._manager.register(plugin, name)
        except pluggy.PluginValidationError as error:
            raise PluginError(name, f"The plugin {name} does not fit a hook of HydraCore: {error}") from error
        for warning in retiring:
            log.warning("plugin uses what is going", plugin=name, reason=str(warning.message))
        for caller in self._manager.get_hookcallers(plugin) or []:
            for implementation in caller.get_hookimpls():
                if implementation.plugin is plugin:
                    check_kind(name, caller.name, implementation.function)

    def hooks_of(self, name: str) -> list[str]:
        """The hooks that the loaded plugin ``name`` implements."""
        callers = self._manager.get_hookcallers(self._manager.get_plugin(name)) or []
        return sorted(caller.name for caller in callers)

    def _asked(self, hook: str) -> list[Any]:
        if hook not in self._implementations:
            caller = getattr(self._manager.hook, hook)
            self._implementations[hook] = list(reversed(caller.get_hookimpls()))
        return self._implementations[hook]

    # -- collecting --------------------------------------------------------------------------------

    def _collect_all(self, config: Config, known: Mapping[str, Installed]) -> None:
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
        self._listening = Listening(self.calls, pumps, now=self._now, token=self._token)
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
            send = self.calls.measured(self.owner_of(transport), "mail_transport", transport.send, mail_timeout)
            self.transports[name] = replace(transport, send=send)
        for name, backend in self.backends.items():
            # Without a deadline of its own, for the sake of speed: the limiter has one.
            self.backends[name] = replace(
                backend, hit=self.calls.measured(self.owner_of(backend), "limit_backend", backend.hit)
            )

    def _collect(self, hook: str, kind: type[Record]) -> dict[str, Record]:
        hook = f"hydracore_register_{hook}"
        records: dict[str, Record] = {}
        for implementation in self._asked(hook):
            owner = implementation.plugin_name
            for found in registered(owner, hook, implementation.function):
                if not isinstance(found, kind):
                    raise PluginError(
                        owner, f"The plugin {owner} returned {found!r} from {hook}, which takes {kind.__name__}."
                    )
                # A plugin's collections are called after it: no two plugins can want the same.
                record: Any = replace(found, name=f"{owner}.{found.name}") if isinstance(found, Collection) else found
                name = _name(record)
                if name in records:
                    raise PluginError(
                        owner,
                        f"Two plugins register a {kind.__name__} named {name}: {self._owners[kind, name]} and {owner}. "
                        "Take one of them out of plugins.enabled.",
                    )
                records[name], self._owners[kind, name] = record, owner
        return records

    def blame(self, frame: FrameType | None) -> str:
        """The plugin whose code runs in a stack, the innermost one; "" for none."""
        files = {
            Path(module.__file__): name
            for name, owned in self.loaded.items()
            if (module := sys.modules.get(type(owned.plugin).__module__)) is not None and module.__file__
        }
        while frame is not None:
            here = Path(frame.f_code.co_filename)
            for file, name in files.items():
                if here == file or (file.name == "__init__.py" and file.parent in here.parents):
                    return name
            frame = frame.f_back
        return ""

    def owner_of(self, record: object) -> str:
        """The name of the plugin that registered it."""
        return self._owners.get((type(record), _name(record)), "")

    # -- asking ------------------------------------------------------------------------------------

    async def before_register(self, email: str, network: str, profile: Mapping[str, Any]) -> None:
        """Raises what a plugin refuses with, or 503 for one that is late or fails; so do the others."""
        await self._ask("hydracore_before_register", email=email, network=network, profile=profile)

    async def before_login(self, account: Account, network: str, authenticator: str) -> None:
        await self._ask("hydracore_before_login", account=account, network=network, authenticator=authenticator)

    async def before_reset_password(self, account: Account, network: str) -> None:
        await self._ask("hydracore_before_reset_password", account=account, network=network)

    @property
    def adds_claims(self) -> bool:
        """Whether anyone wants to be asked before a token is issued."""
        return bool(self._asked("hydracore_before_issue_token"))

    async def before_issue_token(self, account: Account, session_id: str, network: str) -> dict[str, Any]:
        """The claims to add."""
        claims: dict[str, Any] = {}

        def add(owner: str, answer: Any) -> None:
            claims.update(checked_claims(owner, answer, claims))

        given = {"account": account, "session_id": session_id, "network": network}
        await self._ask("hydracore_before_issue_token", add, **given)
        return claims

    async def _ask(self, hook: str, use: Callable[[str, Any], None] | None = None, /, **given: Any) -> None:
        for implementation in self._asked(hook):
            arguments = [given[name] for name in implementation.argnames]
            owner = implementation.plugin_name

            async def answered(
                implementation: Any = implementation, arguments: list[Any] = arguments, owner: str = owner
            ) -> None:
                answer = await implementation.function(*arguments)
                if use is not None:
                    use(owner, answer)  # What it does not take is the plugin's failure too.

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
        if policy.check is not None:
            await self._threads.run(partial(policy.check, new_password.password, new_password.email))
        if policy.judge is not None:
            await policy.judge(new_password)

    async def authenticate(self, name: str, email: str, password: str) -> Identity | None:
        """What the authenticator says. Raises its refusal, or :class:`Unavailable`."""
        authenticator = self.authenticators[name]

        async def asked() -> Identity | None:
            return checked_identity(await authenticator.authenticate(email, password))

        return await self.calls.call(self.owner_of(authenticator), "authenticator", asked)

    async def health(self, check: HealthCheck) -> str:
        """What a health check says; "" when all is well."""
        try:
            async with asyncio.timeout(self.calls.timeout):
                return str(await check.check())
        except TimeoutError:
            return f"no answer within {self.calls.timeout} s"
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    # -- announcing --------------------------------------------------------------------------------

    def announce(self, event: Event) -> None:
        """Tell every listener, beside the caller; returns at once."""
        self._listening.announce(event, self._asked("hydracore_on_event"))

    async def settle(self) -> None:
        """Wait for the listeners that were told; each has its deadline."""
        await self._listening.settle()

    async def close(self) -> None:
        """At the end: the last events, then whatever has a connection."""
        await self._listening.close()
        closing: list[MailTransport | LimitBackend] = [*self.transports.values(), *self.backends.values()]
        for record in closing:
            try:
                async with asyncio.timeout(self.calls.timeout):
                    await record.close()
            except Exception:
                log.exception("plugin cannot be closed", plugin=self.owner_of(record))
        self._threads.close()


def _name(record: Any) -> str:
    return str(record.path if isinstance(record, Route) else record.name)


def _of_kind(kind: str, names: Iterable[str]) -> list[str]:
    return [name.removeprefix(kind) for name in names if name.startswith(kind)]
