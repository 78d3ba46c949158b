"""What is wrong with a configuration, in an operator's words: where it stands, which rule, what was near."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from jsonschema import Draft202012Validator, TypeChecker
from jsonschema import validators as jsonschema_validators
from jsonschema.exceptions import ValidationError

KeyPath = tuple[str, ...]


def _is_integer(checker: TypeChecker, value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)  # JSON Schema takes 2.0 as well.


_Validator = jsonschema_validators.extend(  # type: ignore[no-untyped-call]  # the library's stubs have no types here
    Draft202012Validator, type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer)
)


def message(problems: Sequence[str]) -> str:
    """One message for all of them."""
    if len(problems) == 1:
        end = "" if problems[0].endswith("?") else "."
        return f"The configuration is wrong. {problems[0]}{end}"
    return "The configuration is wrong:" + "".join(f"\n  - {problem}" for problem in problems)


def complaints(
    values: Mapping[str, Any], schema: Mapping[str, Any], sources: Mapping[KeyPath, str], at: KeyPath = ()
) -> Iterator[str]:
    """Every way in which ``values`` break ``schema``; ``sources`` says which file or variable a key came from."""
    for error in sorted(_Validator(dict(schema)).iter_errors(values), key=lambda error: list(error.path)):
        path = (*at, *(str(part) for part in error.absolute_path))
        if error.validator == "additionalProperties":
            known = cast(Any, error.schema)["properties"]
            for key in sorted(set(cast(Any, error.instance)) - set(known)):
                near = _nearest((*path, key), known, schema, at)
                yield f"{_where((*path, key), sources)}: there is no such key{near}"
        elif error.validator == "required":
            rule: Any = error.validator_value
            absent = [".".join((*path, key)) for key in rule if key not in cast(Any, error.instance)]
            yield f"{absent[0]}: is needed and has no default"
        else:
            yield f"{_where(path, sources)}: {_rule_in_words(error)}"


def _where(path: KeyPath, sources: Mapping[KeyPath, str]) -> str:
    for length in range(len(path), 0, -1):
        if path[:length] in sources:
            return f"{sources[path[:length]]}: {'.'.join(path)}"
    return ".".join(path)


def _nearest(path: KeyPath, known: Mapping[str, Any], schema: Mapping[str, Any], at: KeyPath) -> str:
    siblings = {".".join((*path[:-1], key)) for key in known}
    near = difflib.get_close_matches(".".join(path), siblings, 1, 0.6)
    if not near:
        # Perhaps a key of another section, or one that should be in a section.
        near = [name for name in _every_key(schema, at) if name.rsplit(".", 1)[-1] == path[-1]][:1]
    if not near:
        near = difflib.get_close_matches(".".join(path), list(_every_key(schema, at)), 1, 0.6)
    return f"; did you mean {near[0]}?" if near else f" (known: {', '.join(sorted(known)) or 'none'})"


def _every_key(schema: Mapping[str, Any], at: KeyPath) -> Iterator[str]:
    for key, rule in schema.get("properties", {}).items():
        yield ".".join((*at, key))
        yield from _every_key(rule, (*at, key))


_SECRETS = ("secret", "password", "api_key", "uri")
_TYPES = {
    "integer": "a whole number",
    "boolean": "true or false",
    "array": "a list",
    "string": "text",
    "object": "a section",
}


def _rule_in_words(error: ValidationError) -> str:
    path = [str(part) for part in error.absolute_path]
    got = "what it was given" if path and path[-1] in _SECRETS else repr(error.instance)
    rule: Any = error.validator_value
    match error.validator:
        case "type":
            return f"must be {_TYPES.get(rule, rule)}, not {got}"
        case "enum":
            return f"must be one of {', '.join(rule)}, not {got}{_suggest(error.instance, rule)}"
        case "minimum":
            return f"must be at least {rule}, not {got}"
        case "maximum":
            return f"must be at most {rule}, not {got}"
        case "minLength":
            return f"must have at least {counted(rule, 'character')}"
        case "maxLength":
            return f"must have at most {counted(rule, 'character')}"
        case "minItems":
            return f"must name at least {rule}"
        case "uniqueItems":
            return f"must not name a thing twice, as {got} does"
        case "anyOf":
            return "must have at least 32 characters (make one: openssl rand -hex 32)"
        case _:
            schema = cast(Any, error.schema)
            example = f", for example {schema['default']!r}" if schema.get("default") else ""
            return f"is not valid: {got}. {schema.get('description', '').rstrip('.')}{example}".rstrip(". ")


def counted(number: int, what: str) -> str:
    """``1 character``, ``2 characters``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _suggest(value: Any, known: list[Any]) -> str:
    near = difflib.get_close_matches(str(value), [str(item) for item in known], 1)
    return f"; did you mean {near[0]}?" if near else ""
