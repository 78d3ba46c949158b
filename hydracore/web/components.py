"""The schemas of a description, each once, under ``#/components/schemas``."""

import re
from collections.abc import Mapping
from typing import Any

# What a file says of itself, and a part of a document does not.
_OF_FILES = ("$schema", "$id")
# Under these keywords stand schemas by names of any kind.
_NAMED = ("properties", "patternProperties", "$defs", "dependentSchemas")


class Components:
    """The schemas under ``components``, each once."""

    def __init__(self) -> None:
        self.there: dict[str, Any] = {}

    def reference(self, name: str, schema: Mapping[str, Any]) -> dict[str, str]:
        """A reference to ``schema``, which stands there by that name from now on."""
        pointer = f"#/components/schemas/{name}"
        if name not in self.there:
            told = {keyword: value for keyword, value in schema.items() if keyword not in _OF_FILES}
            self.there[name] = _moved(told, pointer)
        return {"$ref": pointer}


def _moved(schema: Any, pointer: str) -> Any:
    """The schema with its references to parts of itself as they are at ``pointer`` of a larger document."""
    if isinstance(schema, list):
        return [_moved(each, pointer) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    return {keyword: _moved_keyword(keyword, value, pointer) for keyword, value in schema.items()}


def _moved_keyword(keyword: str, value: Any, pointer: str) -> Any:
    if keyword in ("const", "enum", "default", "examples"):
        return value  # What stands there is no schema.
    if keyword in ("$ref", "$dynamicRef") and isinstance(value, str) and re.match("#(/|$)", value):
        return pointer + value[1:]
    if keyword in _NAMED and isinstance(value, Mapping):
        return {name: _moved(each, pointer) for name, each in value.items()}
    return _moved(value, pointer)
