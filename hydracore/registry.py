"""The plugins of one HydraCore: find, make, collect, ask, announce."""

import asyncio
import difflib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import pluggy

from hydracore import hookspecs
from hydracore.chance import Now
from hydracore.config import Config, ConfigError, check_section
from hydracore.errors import HydraError, StartupError, Unavailable
from hydracore.events import Event
from hydracore.logs import logger
from hydracore.records import Collection, Context, LimitBackend, MailTransport, PasswordPolicy

log = logger("hydracore.plugins")

GROUP = "hydracore"
# Never without a blocklist (ASVS 6.2.4), nor without a limiter to fall back on.
ALWAYS = ("password_standard", "limits_memory")
_MOST_TOLD = 10_000

Record = TypeVar("Record", MailTransport, PasswordPolicy, LimitBackend, Collection)


@dataclass(frozen=True)
class Installed:
    """A plugin that could be enabled."""

    name: str
    target: str
    distribution: str
    version: str

    def load(self) -> Any:
        return metadata.EntryPoint(self.name, self.target, GROUP).load()

    def schema(self) -> Mapping[str, Any]:
        """What ``[plugins.<name>]`` may hold; read without importing the plugin."""
        spec = find_spec(self.target.partition(":")[0].partition(".")[0])
        for folder in (spec.submodule_search_locations or []) if spec else []:
            file = Path(folder) / "schemas" / "config.json"
            if file.is_file():
                schema: Mapping[str, Any] = json.loads(file.read_text("utf-8"))
                return schema
        return {"properties": {}}


def installed() -> dict[str, Installed]:
    """Every plugin of the environment, by name. Raises :class:`StartupError` for a name that two claim."""
    found: dict[str, Installed] = {}
    for distribution in metadata.distributions():
        for point in distribution.entry_points:
            if point.group != GROUP:
                continue
            plugin = Installed(point.name, point.value, distribution.metadata["Name"], distribution.version)
            other = found.setdefault(point.name, plugin)
            if other.target != plugin.target:
                raise StartupError(
                    f"Two distributions have a plugin named {point.name}: {other.distribution} ({other.target}) and "
                    f"{plugin.distribution} ({plugin.target}). Uninstall one of them."
                )
    return found


def selected(config: Config) -> dict[str, str]:
    """The plugins to load, in order, each with the reason."""
    reasons = dict.fromkeys(ALWAYS, "always there")
    reasons |= {f"mail_{config.mail.transport}": f"mail.transport is {config.mail.transport}"}
    reasons |= {f"limits_{config.limits.backend}": f"limits.backend is {config.limits.backend}"}
    return reasons | dict.fromkeys(config.plugins.enabled, "plugins.enabled")


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
        database: Callable[[str], Any],
        extra: Mapping[str, Callable[[Context], object]] | None = None,
    ) -> None:
        self._timeout = config.plugins.timeout
        self._manager = pluggy.PluginManager("hydracore")
        self._manager.add_hookspecs(hookspecs)
        self._background: set[asyncio.Task[None]] = set()
        known = installed()
        extra = extra or {}
        _check_names(config, known, extra)
        made: dict[str, object] = {}
        for name in [*selected(config), *(name for name in extra if name not in config.plugins.enabled)]:
            if name not in known and name not in extra:
                continue  # mail.transport and limits.backend may be any plugin's; _choose judges them.
            section = config.plugins.sections.get(name, {})
            own = dict(section) if name in extra else check_section(name, section, known[name].schema())
            context = Context(name, own, settings=config, now=now, database=database)
            made[name] = _make(name, extra.get(name), known.get(name), context)
        self.names = list(made)
        """The loaded plugins, in order."""
        for name, plugin in reversed(made.items()):
            self._register(name, plugin)  # Pluggy asks the last one first.
        self.collections = self._collect("hydracore_register_collections", Collection)
        self.policies = self._collect("hydracore_register_password_policies", PasswordPolicy)
        transports = self._collect("hydracore_register_mail_transports", MailTransport)
        backends = self._collect("hydracore_register_limit_backends", LimitBackend)
        mails, limits = _of_kind("mail_", known), _of_kind("limits_", known)
        self.transport = _choose(transports, "mail.transport", config.mail.transport, mails)
        self.limits = _choose(backends, "limits.backend", config.limits.backend, limits)
        self.fallback_limits = _choose(backends, "the fallback for limits", "memory", limits)
        _check_delivery(config, self.transport)

    def hooks_of(self, name: str) -> list[str]:
        """The hooks that the loaded plugin ``name`` implements."""
        callers = self._manager.get_hookcallers(self._manager.get_plugin(name)) or []
        return sorted(caller.name for caller in callers)

    async def before_register(self, email: str, network: str) -> None:
        """Ask every plugin; raises what one refuses with, or 503 for one that is late or fails."""
        for implementation in self._implementations("hydracore_before_register"):
            given = {"email": email, "network": network}
            moment: Any = implementation.function
            arguments = [given[name] for name in implementation.argnames]
            try:
                async with asyncio.timeout(self._timeout):
                    await moment(*arguments)
            except HydraError:
                raise
            except Exception as error:
                log.error("plugin failed", plugin=implementation.plugin_name, hook="before_register", exc_info=True)
                raise Unavailable from error

    def announce(self, event: Event) -> None:
        """Tell every listener, beside the caller; returns at once."""
        if len(self._background) >= _MOST_TOLD:
            log.warning("listeners are too slow, an event is dropped", event_type=type(event).__name__)
            return
        for implementation in self._implementations("hydracore_on_event"):
            task = asyncio.get_running_loop().create_task(self._tell(implementation, event))
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    def _implementations(self, hook: str) -> list[Any]:
        return list(reversed(getattr(self._manager.hook, hook).get_hookimpls()))

    async def settle(self) -> None:
        """Wait for the listeners that were told; each has its deadline."""
        while self._background:
            await asyncio.wait(self._background)

    async def _tell(self, implementation: Any, event: Event) -> None:
        arguments = [event for name in implementation.argnames if name == "event"]
        try:
            async with asyncio.timeout(self._timeout):
                await implementation.function(*arguments)
        except Exception:
            log.error(
                "plugin failed",
                plugin=implementation.plugin_name,
                hook="on_event",
                event_type=type(event).__name__,
                exc_info=True,
            )

    def _register(self, name: str, plugin: object) -> None:
        for attribute in dir(plugin):
            if attribute.startswith("hydracore_") and not hasattr(hookspecs, attribute):
                known = [hook for hook in dir(hookspecs) if hook.startswith("hydracore_")]
                near = difflib.get_close_matches(attribute, known, 1)
                raise StartupError(
                    f"The plugin {name} implements {attribute}, and HydraCore has no such hook"
                    + (f". Did you mean {near[0]}?" if near else f" (it has: {', '.join(known)}).")
                )
        try:
            self._manager.register(plugin, name)
        except pluggy.PluginValidationError as error:
            raise StartupError(f"The plugin {name} does not fit a hook of HydraCore: {error}") from error
        for caller in self._manager.get_hookcallers(plugin) or []:
            wants_async = not caller.name.startswith("hydracore_register_")
            for implementation in caller.get_hookimpls():
                if (
                    implementation.plugin is plugin
                    and inspect.iscoroutinefunction(implementation.function) != wants_async
                ):
                    raise StartupError(
                        f"The plugin {name} must write {caller.name} as "
                        + ("async def." if wants_async else "def, not async def.")
                    )

    def _collect(self, hook: str, kind: type[Record]) -> dict[str, Record]:
        records: dict[str, Record] = {}
        owners: dict[str, str] = {}
        for implementation in self._implementations(hook):
            owner = implementation.plugin_name
            for record in implementation.function():
                if not isinstance(record, kind):
                    raise StartupError(
                        f"The plugin {owner} returned {record!r} from {hook}, which takes {kind.__name__}."
                    )
                if record.name in records:
                    raise StartupError(
                        f"Two plugins register a {kind.__name__} named {record.name}: "
                        f"{owners[record.name]} and {owner}. Take one of them out of plugins.enabled."
                    )
                records[record.name], owners[record.name] = record, owner
        return records


def _make(name: str, factory: Callable[[Context], object] | None, plugin: Installed | None, context: Context) -> object:
    try:
        return (factory or plugin.load())(context)  # type: ignore[union-attr]  # one of them is there
    except StartupError:
        raise
    except ImportError as error:
        extra = f' Perhaps: pip install "{plugin.distribution}[{name.partition("_")[2]}]".' if plugin else ""
        raise StartupError(f"The plugin {name} cannot be imported: {error}.{extra}") from error
    except Exception as error:
        raise StartupError(f"The plugin {name} cannot be made: {type(error).__name__}: {error}") from error


def _check_names(config: Config, known: Mapping[str, Installed], extra: Iterable[str]) -> None:
    every = {*known, *extra}
    for source, names in (
        ("plugins.enabled", config.plugins.enabled),
        ("[plugins.…]", config.plugins.sections),
    ):
        for name in names:
            if name not in every:
                near = difflib.get_close_matches(name, every, 1)
                raise ConfigError(
                    f"{source} names {name}, and no such plugin is installed"
                    + (f"; did you mean {near[0]}?" if near else f" (installed: {', '.join(sorted(every))}).")
                )
    for name in set(config.plugins.sections) & set(known):
        check_section(name, config.plugins.sections[name], known[name].schema())


def _choose(records: Mapping[str, Record], setting: str, name: str, names: Iterable[str]) -> Record:
    """The record that a setting names; ``names`` are what could be chosen."""
    if name not in records:
        choices = {*records, *names}
        near = difflib.get_close_matches(name, choices, 1)
        raise ConfigError(
            f"{setting} is {name}, which no loaded plugin registers"
            + (f"; did you mean {near[0]}?" if near else f" (there are: {', '.join(sorted(choices))}).")
            + " If a plugin of yours does, add it to plugins.enabled."
        )
    return records[name]


def _of_kind(kind: str, names: Iterable[str]) -> list[str]:
    return [name.removeprefix(kind) for name in names if name.startswith(kind)]


def _check_delivery(config: Config, transport: MailTransport) -> None:
    if config.store.uri and not transport.delivers and not config.mail.allow_undelivered:
        raise ConfigError(
            f"mail.transport is {transport.name}, which delivers to nobody, and store.uri is set, so this is no trial. "
            "Set mail.transport to smtp or resend (HYDRACORE_MAIL__TRANSPORT), or, to go without mail on purpose, "
            "mail.allow_undelivered to true."
        )
