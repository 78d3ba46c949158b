"""Where configuration comes from: the file's text and the environment's variables, as one nested mapping.

Each value's source is remembered, for whoever complains about it.
"""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydracore.complaints import KeyPath
from hydracore.errors import ConfigError

PREFIX = "HYDRACORE_"
_NOT_KEYS = {"HYDRACORE_CONFIG"}


class FromEnvironment(str):
    """Text of a variable whose type only a plugin's schema can tell."""


def read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"The configuration file {file} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration file {file} is not valid TOML: {error}.") from error


def from_environment(
    environment: Mapping[str, str], schema: Mapping[str, Any], sources: dict[KeyPath, str]
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for variable in sorted(environment):
        if not variable.startswith(PREFIX) or variable in _NOT_KEYS:
            continue
        text, path = environment[variable], _key_of(variable)
        rule = _rule(schema, path)
        of_plugin = rule is None and path[0] == "plugins" and len(path) == 3
        if rule is None and variable.endswith("_FILE") and not of_plugin:
            path = _key_of(variable.removesuffix("_FILE"))
            rule, text = _rule(schema, path), secret_file(variable, text)
        sources[path] = variable
        target = values
        for part in path[:-1]:
            target = target.setdefault(part, {})
            if not isinstance(target, dict):
                raise ConfigError(f"{variable} contradicts another variable of the same section.")
        target[path[-1]] = FromEnvironment(text) if of_plugin else coerce(text, rule or {})
    return values


def _key_of(variable: str) -> KeyPath:
    return tuple(variable.removeprefix(PREFIX).lower().split("__"))


def _rule(schema: Mapping[str, Any], path: KeyPath) -> Mapping[str, Any] | None:
    rule: Mapping[str, Any] | None = schema
    for part in path:
        others = (rule or {}).get("additionalProperties")
        rule = (rule or {}).get("properties", {}).get(part, others if isinstance(others, Mapping) else None)
    return rule


def secret_file(variable: str, file: str) -> str:
    try:
        return Path(file).read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{variable} names the file {file}, which cannot be read: {error}.") from error


def coerce(text: str, rule: Mapping[str, Any]) -> Any:
    """The text of a variable as the type of its key; what is no such thing stays text, for the schema to refuse."""
    if rule.get("type") in ("integer", "number", "boolean", "array"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return str(text)
    return str(text)


def merge(
    into: dict[str, Any], values: Mapping[str, Any], sources: dict[KeyPath, str], source: str, at: KeyPath = ()
) -> None:
    for key, value in values.items():
        path = (*at, key)
        if isinstance(value, Mapping) and isinstance(into.get(key, {}), dict):
            into[key] = dict(into.get(key, {}))
            merge(into[key], value, sources, source, path)
        else:
            into[key] = value
        if source:
            sources[path] = source
