"""Finding plugins: installed distributions by their entry points, and a deployer's loose modules.

Finding imports nothing: only what is enabled is loaded.
"""

import importlib.util
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from hydracore.complaints import wrong_defaults
from hydracore.config import Config
from hydracore.errors import ConfigError, PluginError, StartupError
from hydracore.validation import compiled

GROUP = "hydracore"
# Never without a blocklist (ASVS 6.2.4), nor without a limiter to fall back on.
ALWAYS = ("password_standard", "limits_memory")
# The authenticator that is the core's own: the password that an account has.
OWN_AUTHENTICATOR = "password"

_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Installed:
    """A plugin that could be enabled. ``distribution`` is where it comes from: a distribution's name, or,
    where ``file`` is set, the path of a loose module."""

    name: str
    target: str
    distribution: str
    version: str
    file: Path | None = None

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
        for folder in map(Path, locations):
            for part in below:
                folder = folder / part if (folder / part).is_dir() else folder
            return folder
        return None

    def schema(self) -> Mapping[str, Any]:
        """What ``[plugins.<name>]`` may hold. Raises :class:`PluginError` for a file that is no JSON Schema."""
        file = self.folder / "schemas" / "config.json" if self.folder else None
        if file is None or not file.is_file():
            return {"properties": {}}
        schema = _read_schema(self.name, file)
        return schema if "properties" in schema else {**schema, "properties": {}}


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


def loose(folder: Path) -> dict[str, Installed]:
    """The modules (``NAME.py``) and packages (``NAME/__init__.py``) in a deployer's folder."""
    if not folder.is_dir():
        raise ConfigError(f"The configuration is wrong. plugins.dir: {folder} is no folder.")
    found: dict[str, Installed] = {}
    for file in sorted([*folder.glob("*.py"), *folder.glob("*/__init__.py")]):
        name = file.parent.name if file.name == "__init__.py" else file.stem
        if not _NAME.fullmatch(name):
            continue
        if name in found:
            raise StartupError(f"Two plugins are named {name}: {found[name].file} and {file}. Rename one of them.")
        found[name] = Installed(name, f"{file}:Plugin", str(file), "", file)
    return found


def available(config: Config) -> dict[str, Installed]:
    """Everything that could be enabled here."""
    found = installed()
    if config.plugins.dir:
        for name, plugin in loose(Path(config.plugins.dir)).items():
            if name in found:
                raise StartupError(
                    f"Two plugins are named {name}: {found[name].distribution}'s ({found[name].target}) and "
                    f"{plugin.file}. Rename the one in plugins.dir, or uninstall the other."
                )
            found[name] = plugin
    return found


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
