"""Finding plugins: installed distributions by their entry points, and a deployer's loose modules.

Finding imports nothing: only what is enabled is loaded.
"""

import importlib.util
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from hydracore.complaints import wrong_defaults
from hydracore.config import Config
from hydracore.errors import ConfigError, PluginError
from hydracore.validation import compiled

GROUP = "hydracore"
# Never without a blocklist (ASVS 6.2.4), nor without a limiter to fall back on.
ALWAYS = ("password_standard", "limits_memory")
# The authenticator that is the core's own: the password that an account has.
OWN_AUTHENTICATOR = "password"

# Two underscores part the name from the key in HYDRACORE_PLUGINS__<NAME>__<KEY>.
NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_ANYTHING: Mapping[str, Any] = {"additionalProperties": True}


@dataclass(frozen=True)
class Installed:
    """A plugin that could be enabled. ``distribution`` is where it comes from: a distribution's name, or,
    where ``file`` is set, the path of a loose module, or "" for a host's class. ``clash`` says what else has its name,
    "" for nothing: it is a complaint for whoever uses the name."""

    name: str
    target: str
    distribution: str
    version: str
    file: Path | None = None
    clash: str = ""

    def load(self) -> Any:
        """The plugin's class. Raises whatever importing it raises."""
        if self.file is None:
            return metadata.EntryPoint(self.name, self.target, GROUP).load()
        found = getattr(_import_file(self.name, self.file), "Plugin", None)
        if not isinstance(found, type):
            raise PluginError(self.name, f"The plugin {self.name} in {self.file} has no class named Plugin.")
        return found

    @property
    def folder(self) -> Path | None:
        """Its package's folder, where ``schemas/`` and ``templates/`` are; None for a single module."""
        if self.file is not None:
            return self.file.parent if self.file.name == "__init__.py" else None
        # Without importing anything: only the top-level package is looked up, and from there the folders.
        top, *below = self.target.partition(":")[0].split(".")
        spec = importlib.util.find_spec(top)
        locations = (spec.submodule_search_locations or []) if spec else []
        # A namespace package has one in each distribution that shares it: the plugin is where most of its path is.
        found = [_descended(Path(location), below) for location in locations]
        return max(found, key=lambda each: each[0])[1] if found else None

    def schema(self) -> Mapping[str, Any]:
        """What ``[plugins.<name>]`` may hold: without a file nothing, or anything for a host's class. Raises
        :class:`PluginError` for a file that is no JSON Schema, or has a default that breaks its own rule."""
        file = self.folder / "schemas" / "config.json" if self.folder else None
        if file is None or not file.is_file():
            return {"properties": {}} if self.distribution else _ANYTHING
        schema = _read_schema(self.name, file)
        return schema if "properties" in schema else {**schema, "properties": {}}


def _descended(folder: Path, below: Sequence[str]) -> tuple[int, Path]:
    """How much of a module's path is there, and the folder of its package."""
    for depth, part in enumerate(below):
        if (folder / part).is_dir():
            folder = folder / part
        else:
            return depth + any(folder.glob(f"{part}.*")), folder
    return len(below), folder


def installed() -> dict[str, Installed]:
    """Every plugin of the environment, by name; of two of a name the first, with its ``clash``."""
    found: dict[str, Installed] = {}
    for distribution in metadata.distributions():
        points = distribution.entry_points.select(group=GROUP)
        if not points:
            continue
        about = distribution.metadata  # Read from its file, and parsed, each time that it is asked for.
        for point in points:
            plugin = Installed(point.name, point.value, about["Name"], about["Version"])
            other = found.setdefault(point.name, plugin)
            if other.target != plugin.target:
                clash = (
                    f"Two distributions have a plugin named {point.name}: {other.distribution} ({other.target}) and "
                    f"{plugin.distribution} ({plugin.target}). Uninstall one of them."
                )
                found[point.name] = replace(other, clash=clash)
    return found


def loose(folder: Path) -> dict[str, Installed]:
    """The modules (``NAME.py``) and packages (``NAME/__init__.py``) in a deployer's folder, by name; of two of a name
    the module, with its ``clash``."""
    found: dict[str, Installed] = {}
    for name, file in _modules(folder):
        if not NAME.fullmatch(name):
            continue
        plugin = found.setdefault(name, Installed(name, f"{file}:Plugin", str(file), "", file))
        if plugin.file != file:
            clash = f"Two plugins are named {name}: {plugin.file} and {file}. Rename one of them."
            found[name] = replace(plugin, clash=clash)
    return found


def misnamed(folder: Path, name: str) -> Path | None:
    """The module in a deployer's folder that ``name`` may mean, and that no plugin can be: by its own name."""
    for stem, file in _modules(folder):
        if not NAME.fullmatch(stem) and fitting_name(stem) == fitting_name(name) != "":
            return file
    return None


def fitting_name(name: str) -> str:
    """The name that a plugin might have that is called ``name`` now; "" where nothing is left of it."""
    return "_".join(re.findall("[a-z0-9]+", name.lower())).lstrip("0123456789_")


def _modules(folder: Path) -> list[tuple[str, Path]]:
    if not folder.is_dir():
        raise ConfigError(f"The configuration is wrong. plugins.dir: {folder.absolute()} is no folder.")
    alone = [(file.stem, file) for file in sorted(folder.glob("*.py")) if file.name != "__init__.py"]
    return alone + [(file.parent.name, file) for file in sorted(folder.glob("*/__init__.py"))]


def available(config: Config) -> dict[str, Installed]:
    """Everything that could be enabled here, by name; of two of a name one, with its ``clash``."""
    found = installed()
    if config.plugins.dir:
        for name, plugin in loose(Path(config.plugins.dir)).items():
            if name in found:
                clash = (
                    f"Two plugins are named {name}: {found[name].distribution}'s ({found[name].target}) and "
                    f"{plugin.file}. Rename the one in plugins.dir, or uninstall the other."
                )
                plugin = replace(plugin, clash=clash)
            found[name] = plugin
    return found


def hosted(name: str, factory: object) -> Installed | None:
    """A class that a host hands in, for what is in its package's folder. None for one of any other module: the folder
    around that is the host's own."""
    module = sys.modules.get(factory.__module__) if isinstance(factory, type) else None
    file = getattr(module, "__file__", None)
    if module is None or file is None or Path(file).name != "__init__.py":
        return None
    return Installed(name, module.__name__, "", "", Path(file))


def selected(config: Config) -> dict[str, str]:
    """The plugins to load, in order, each with the reason."""
    reasons = dict.fromkeys(ALWAYS, "always there")
    reasons |= {f"mail_{config.mail.transport}": f"mail.transport is {config.mail.transport}"}
    reasons |= {f"limits_{config.limits.backend}": f"limits.backend is {config.limits.backend}"}
    others = [name for name in config.login.authenticators if name != OWN_AUTHENTICATOR]
    reasons |= {f"authenticator_{name}": f"login.authenticators has {name}" for name in others}
    return reasons | dict.fromkeys(config.plugins.enabled, "plugins.enabled")


def _read_schema(name: str, file: Path) -> dict[str, Any]:
    try:
        schema = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise PluginError(name, f"The plugin {name} has a schema that cannot be read, {file}: {error}.") from error
    if not isinstance(schema, dict):
        raise PluginError(name, f"The plugin {name} has a schema that is no JSON object: {file}.")
    if schema.setdefault("type", "object") != "object":
        raise PluginError(name, f'The plugin {name} has a schema that is no section\'s, {file}: its type is "object".')
    try:
        compiled(schema)
    except ValueError as error:
        raise PluginError(name, f"The plugin {name} has a schema that is none, {file}: {error}.") from error
    for flaw in wrong_defaults(schema):
        raise PluginError(name, f"The plugin {name} has a default that breaks its own rule, {file}: {flaw}.")
    return schema


def _import_file(name: str, file: Path) -> ModuleType:
    # Named after its place too: two HydraCores of one process may have a folder each.
    unique = f"hydracore_dir_{sha256(str(file.resolve()).encode()).hexdigest()[:8]}_{name}"
    if unique in sys.modules:
        return sys.modules[unique]
    package = [str(file.parent)] if file.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(unique, file, submodule_search_locations=package)
    if spec is None or spec.loader is None:
        raise PluginError(name, f"The plugin {name} in {file} cannot be imported.")
    module = sys.modules[unique] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[unique]
        raise
    return module
