"""What is wrong with a configuration, in an operator's words: where it stands, which rule, what was near."""

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    """Every way in which ``values`` break ``schema``; ``sources`` says which file or variable a key came from.
    No value that may be a secret is repeated."""
    told: set[KeyPath] = set()
    for error in sorted(_Validator(dict(schema)).iter_errors(values), key=lambda error: [*map(str, error.path)]):
        path = (*at, *_keys(error))
        if error.validator == "additionalProperties":
            known = rules_of(error.schema)
            for key in _unknown(error):
                near = _nearest((*path, key), known, schema, at)
                yield f"{_where((*path, key), sources)}: there is no such key{near}"
        elif error.validator == "required":
            # One error for each absent key, none of which names it: tell them once, together.
            absent = [(*path, key) for key in _absent(error) if (*path, key) not in told]
            yield from (f"{'.'.join(key)}: is needed and has no default" for key in absent)
            told.update(absent)
        else:
            yield f"{_where(path, sources)}: {_rule_in_words(error, _hides(error, schema, at))}"


def wrong_defaults(schema: Mapping[str, Any]) -> Iterator[str]:
    """Every default in ``schema`` that breaks its own rule, by its key."""
    whole = _Validator(dict(schema))
    for path, rule in _every_rule(schema):
        # Of the whole schema, so that a rule may refer to a part of it.
        for error in whole.evolve(schema=rule).iter_errors(rule["default"]) if "default" in rule else ():
            yield f"{'.'.join((*path, *_keys(error)))}: {_rule_in_words(error, hidden=False)}"


def rules_of(schema: Any) -> Mapping[str, Mapping[str, Any]]:
    """The keys of a section, each with its rule; a rule that is ``true`` or ``false`` says nothing of its value."""
    found = schema.get("properties", {}) if isinstance(schema, Mapping) else {}
    return {key: rule if isinstance(rule, Mapping) else {} for key, rule in found.items()}


def _keys(error: ValidationError) -> KeyPath:
    return tuple(str(part) for part in error.absolute_path)


def _unknown(error: ValidationError) -> list[str]:
    schema: Any = error.schema
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    return sorted(
        key for key in cast(Any, error.instance) if key not in known and not any(re.search(p, key) for p in patterns)
    )


def _absent(error: ValidationError) -> list[str]:
    rule: Any = error.validator_value
    return [key for key in rule if key not in cast(Any, error.instance)]


def _where(path: KeyPath, sources: Mapping[KeyPath, str]) -> str:
    for length in range(len(path), 0, -1):
        if path[:length] in sources:
            return f"{sources[path[:length]]}: {'.'.join(path)}"
    return ".".join(path)


def _nearest(path: KeyPath, known: Mapping[str, Any], schema: Mapping[str, Any], at: KeyPath) -> str:
    siblings = {".".join((*path[:-1], key)) for key in known}
    near = difflib.get_close_matches(".".join(path), siblings, 1, 0.6)
    every = [".".join((*at, *key)) for key, _ in _every_rule(schema)]
    if not near:
        # Perhaps a key of another section, or one that should be in a section.
        near = [name for name in every if name.rsplit(".", 1)[-1] == path[-1]][:1]
    if not near:
        near = difflib.get_close_matches(".".join(path), every, 1, 0.6)
    return f"; did you mean {near[0]}?" if near else f" (known: {', '.join(sorted(known)) or 'none'})"


def _every_rule(schema: Mapping[str, Any], at: KeyPath = ()) -> Iterator[tuple[KeyPath, Mapping[str, Any]]]:
    for key, rule in rules_of(schema).items():
        yield (*at, key), rule
        yield from _every_rule(rule, (*at, key))


# -- what is not repeated ----------------------------------------------------------------------------

_SECRET = re.compile("secret|token|key|password|passphrase|credential", re.IGNORECASE)
_ALSO_SECRET = ("uri",)  # It may hold a password.
_HIDDEN = "what it was given"


def _hides(error: ValidationError, schema: Mapping[str, Any], at: KeyPath) -> bool:
    """Whether what a key was given may be a secret: by its name, or that of a key around it, or by its schema."""
    keys = _keys(error)
    # A section of ours is no secret for being called tokens or password.
    names = keys if at else keys[1:] or keys
    items = error.schema.get("items") if isinstance(error.schema, Mapping) else None
    marked = _is_marked(error.schema) or _is_marked(items) or _is_marked(schema, list(error.absolute_path))
    return marked or any(map(_names_secret, names))


def _names_secret(key: str) -> bool:
    return key in _ALSO_SECRET or bool(_SECRET.search(key))


def _is_marked(schema: Any, path: Sequence[str | int] = ()) -> bool:
    """Whether the schema says ``writeOnly`` of what is at ``path``, or of something around it."""
    if not isinstance(schema, Mapping):
        return False
    if schema.get("writeOnly") is True or not path:
        return schema.get("writeOnly") is True
    first, *rest = path
    below = schema.get("items") if isinstance(first, int) else rules_of(schema).get(first)
    return _is_marked(below, rest)


def _shown(value: Any) -> str:
    """A value as it is repeated: of a section the keys alone, for one of them may be a secret's."""
    if isinstance(value, Mapping):
        return f"a section with {', '.join(map(str, value)) or 'nothing'}"
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return repr(value)


# -- rules in words ----------------------------------------------------------------------------------

_TYPES = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "string": "text",
    "object": "a section",
}


def _rule_in_words(error: ValidationError, hidden: bool) -> str:
    got = _HIDDEN if hidden else _shown(error.instance)
    rule: Any = error.validator_value
    match error.validator:
        case "type":
            kinds = [rule] if isinstance(rule, str) else rule
            return f"must be {' or '.join(_TYPES.get(kind, kind) for kind in kinds)}, not {got}"
        case "enum":
            near = "" if hidden else _suggest(error.instance, rule)
            return f"must be one of {', '.join(map(_written, rule))}, not {got}{near}"
        case "const":
            return f"must be {_written(rule)}, not {got}"
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
        case "required":
            return f"must have {' and '.join(_absent(error))}"
        case None:  # The rule is false; of which key the library does not say.
            return "has a key that may not be there"
        case "anyOf" | "oneOf" if error.context:
            return f"{_one_of(error.context, hidden)}{_described(error)}"
        case _:
            schema = error.schema if isinstance(error.schema, Mapping) else {}
            example = f", for example {schema['default']!r}" if schema.get("default") else ""
            return f"is not valid: {got}{_described(error)}{example}"


def _one_of(broken: Iterable[ValidationError], hidden: bool) -> str:
    """What each of the rules that one of must hold asks for: ``must be a, or must be b``."""
    rules: dict[Any, list[str]] = {}
    for error in broken:
        inner = ".".join(map(str, error.path))
        words = _rule_in_words(error, hidden or any(_names_secret(str(part)) for part in error.path))
        rules.setdefault(error.schema_path[0], []).append(f"{inner} {words}".strip())
    return ", or ".join(" and ".join(words) for words in rules.values())


def _described(error: ValidationError) -> str:
    words = error.schema.get("description", "") if isinstance(error.schema, Mapping) else ""
    return f". {words}".rstrip(". ") if words else ""


def _written(value: Any) -> str:
    """A value as an operator would write it, but for the quotes of text."""
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def counted(number: int, what: str) -> str:
    """``1 character``, ``2 characters``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _suggest(value: Any, known: list[Any]) -> str:
    near = difflib.get_close_matches(str(value), [str(item) for item in known], 1)
    return f"; did you mean {near[0]}?" if near else ""
