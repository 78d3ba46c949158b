"""The plugins that one HydraCore runs: made in order, and known to pluggy."""

import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from types import FrameType, ModuleType
from typing import Any

import pluggy

from hydracore import hookspecs
from hydracore.calls import Calls
from hydracore.config import Config, check_section
from hydracore.discovery import Installed, hosted, selected
from hydracore.errors import PluginError
from hydracore.fitting import Factory, check_kind, check_names, check_spelling, check_version, make
from hydracore.logs import logger
from hydracore.records import Context

log = logger("hydracore.plugins")

_SLOW_START = 1.0
_STILL_EVERY = 10.0


@dataclass(frozen=True)
class Owned:
    """A plugin that is loaded."""

    plugin: object
    source: Installed | None


class Loaded(Mapping[str, Owned]):
    """The plugins by name, in the order in which they are asked.

    ``context`` makes what a plugin's class is called with, from its name and its checked section. Raises
    :class:`StartupError` for what is unknown, cannot be made, or does not fit a hook.
    """

    def __init__(
        self,
        config: Config,
        known: Mapping[str, Installed],
        extra: Mapping[str, Factory],
        *,
        context: Callable[[str, Mapping[str, Any]], Context],
        calls: Calls,
        specs: ModuleType = hookspecs,
    ) -> None:
        self._specs = specs
        self._manager = pluggy.PluginManager("hydracore")
        self._manager.add_hookspecs(specs)
        self._implementations: dict[str, list[Any]] = {}
        self._plugins: dict[str, Owned] = {}
        check_names(config, known, extra)
        for name in (*selected(config), *(name for name in extra if name not in config.plugins.enabled)):
            if name not in known and name not in extra:
                continue  # A transport or backend may be any plugin's: the registry judges them.
            source = hosted(name, extra[name]) if name in extra else known[name]
            section = config.plugins.sections.get(name, {})
            own = check_section(name, section, source.schema()) if source else dict(section)
            started = perf_counter()
            with told_while_slow(name):
                plugin = make(name, extra.get(name) or known[name], context(name, own))
            if (seconds := perf_counter() - started) > _SLOW_START:
                log.warning("plugin is slow to start", plugin=name, seconds=round(seconds, 1))
            calls.note(name, "start", seconds, failed=False)
            self._plugins[name] = Owned(plugin, source)
        self._places: dict[Path, str] = {
            place: name for name, owned in reversed(self._plugins.items()) for place in _places(owned)
        }
        for name, owned in reversed(self._plugins.items()):
            self.register(name, owned.plugin)  # Pluggy asks the last one first.

    def __getitem__(self, name: str) -> Owned:
        return self._plugins[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._plugins)

    def __len__(self) -> int:
        return len(self._plugins)

    def register(self, name: str, plugin: object) -> None:
        """Let it be asked. Raises :class:`PluginError` where a hook of it has no place here."""
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
        """The hooks that the plugin ``name`` implements."""
        callers = self._manager.get_hookcallers(self[name].plugin) or []
        return sorted(caller.name for caller in callers)

    def implementing(self, hook: str) -> list[Any]:
        """Pluggy's implementations of ``hook``, in order."""
        if hook not in self._implementations:
            caller = getattr(self._manager.hook, hook)
            self._implementations[hook] = list(reversed(caller.get_hookimpls()))
        return self._implementations[hook]

    @property
    def template_folders(self) -> dict[str, Path]:
        """The folders of templates that plugins bring, by plugin, in order."""
        folders = {name: owned.source.folder for name, owned in self.items() if owned.source}
        found = {name: folder / "templates" for name, folder in folders.items() if folder}
        return {name: folder for name, folder in found.items() if folder.is_dir()}

    def blame(self, frame: FrameType | None) -> str:
        """The plugin whose code runs in a stack, the innermost one; "" for none."""
        while frame is not None:
            here = Path(frame.f_code.co_filename)
            for place in (here, *here.parents):
                if place in self._places:
                    return self._places[place]
            frame = frame.f_back
        return ""


def _places(owned: Owned) -> Iterator[Path]:
    """Where a plugin's code is: the file of its class, and the folder of its package, unless it is a host's."""
    file = getattr(sys.modules.get(type(owned.plugin).__module__), "__file__", None)
    if file:
        yield Path(file)
        if Path(file).name == "__init__.py":
            yield Path(file).parent
    if owned.source is not None and owned.source.folder is not None:
        yield owned.source.folder


@contextmanager
def told_while_slow(name: str) -> Iterator[None]:
    """A block in which the log says, after a second and then every ten, that the plugin is still loading: one that
    never comes back would otherwise be a start that says nothing."""
    over, started = threading.Event(), perf_counter()

    def tell() -> None:
        pause = _SLOW_START
        while not over.wait(pause):
            log.warning("plugin is still loading", plugin=name, seconds=round(perf_counter() - started))
            pause = _STILL_EVERY

    teller = threading.Thread(target=tell, name="hydracore-loading", daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()  # The server forks next, which wants no threads.
