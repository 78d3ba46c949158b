"""Bodies: strict JSON, held against the files in ``schemas/``; every problem at once, as 422."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, NoReturn, cast

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from hydracore.addresses import parse_address
from hydracore.complaints import counted, rules_of
from hydracore.errors import Problem, ValidationFailed
from hydracore.records import ProfileMember

_TYPES = {
    "string": ("string_type", "This should be a string."),
    "integer": ("int_type", "This should be a whole number."),
    "number": ("float_type", "This should be a number."),
    "boolean": ("bool_type", "This should be true or false."),
    "array": ("list_type", "This should be a list."),
    "object": ("model_attributes_type", "This should be an object."),
    "null": ("none_required", "This should be null."),
}

formats = FormatChecker(formats=())


@formats.checks("email", raises=ValueError)
def _is_email(value: object) -> bool:
    return not isinstance(value, str) or bool(parse_address(value))


class Schemas:
    """Validators, compiled once, by their schemas' names. Raises ``ValueError`` for what is no JSON Schema of
    an object."""

    def __init__(self, schemas: Mapping[str, Mapping[str, Any]]) -> None:
        self.by_name = dict(schemas)
        self._validators = {name: compiled(schema) for name, schema in schemas.items()}
        self._members = {name: _members_of(name, schema) for name, schema in schemas.items()}

    def check(self, name: str, body: Any, where: str = "body") -> Mapping[str, Any]:
        """``body`` with defaults for what is absent; raises :class:`ValidationFailed`, whose problems are ``where`` it
        came. Members that the schema does not know are left out. Raises ``LookupError`` for a name that no schema
        has."""
        if name not in self._validators:
            raise LookupError(f"there is no schema {name}.json (there are: {', '.join(self._validators) or 'none'})")
        validator = self._validators[name]
        problems = list(_problems(validator.iter_errors(body), where))
        if problems:
            raise ValidationFailed(problems)
        known: Mapping[str, Any] = self._members[name]
        return {key: body.get(key, rule.get("default")) for key, rule in known.items()}

    def check_query(self, name: str, query: Mapping[str, Sequence[bytes]]) -> Mapping[str, Any]:
        """A query with its numbers as such, held against a schema as :meth:`check` does. A name that comes twice, or
        that is not UTF-8, is a problem too."""
        rules, value = self._members[name], {}
        for key, texts in query.items():
            try:
                [text] = [each.decode() for each in texts]
            except ValueError:  # A UnicodeError is one, too.
                problem = Problem(("query", key), "This should be there once, as valid UTF-8.", "value_error")
                raise ValidationFailed([problem]) from None
            number = rules.get(key, {}).get("type") == "integer" and re.fullmatch("[0-9]{1,9}", text)
            value[key] = int(text) if number else text
        return self.check(name, value, "query")


def _members_of(name: str, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(schema, Mapping) or schema.get("type") != "object":
        raise ValueError(f"{name} does not say that it is of an object (type)")
    return rules_of(schema)


def schemas_in(folder: Traversable) -> dict[str, Any]:
    """The schemas of a folder: ``login`` is ``login.json``. Raises ``ValueError`` for what is no JSON."""
    files = [file for file in folder.iterdir() if file.name.endswith(".json")]
    return {file.name.removesuffix(".json"): json.loads(file.read_text("utf-8")) for file in files}


def own_schemas(members: Iterable[ProfileMember] = ()) -> Schemas:
    """Those of the auth API; register takes the plugins' ``members`` too."""
    schemas = schemas_in(resources.files("hydracore.schemas") / "auth")
    register = schemas["register"]
    for member in members:
        register["properties"][member.name] = member.schema
        if member.required:
            register["required"].append(member.name)
            register.pop("examples", None)  # They are good ones no longer.
    return Schemas(schemas)


def admin_schemas() -> Schemas:
    """Those of what the Admin API takes: bodies, and queries."""
    return Schemas(schemas_in(resources.files("hydracore.schemas") / "admin"))


def answer_schemas() -> dict[str, Any]:
    """Those of what the auth API answers."""
    return schemas_in(resources.files("hydracore.schemas") / "answers")


def sent_members(body: Mapping[str, Any], members: Iterable[str]) -> dict[str, Any]:
    """The values of the plugins' members that were sent. Raises :class:`ValidationFailed` for one that no document
    holds: a whole number beyond 64 bits, a name with a dollar sign in front, a full stop or NUL, too many levels."""
    sent = {name: body[name] for name in members if body[name] is not None}
    problems = [
        Problem(("body", name), "This holds a number, a name or a depth that cannot be kept.", "value_error")
        for name, value in sent.items()
        if not storable(value)
    ]
    if problems:
        raise ValidationFailed(problems)
    return sent


def storable(value: Any, depth: int = 32) -> bool:
    """Whether a document may hold what JSON gave, which may be so many levels deep."""
    if isinstance(value, dict):
        names = (not name.startswith("$") and "." not in name and "\0" not in name for name in value)
        return depth > 0 and all(names) and all(storable(each, depth - 1) for each in value.values())
    if isinstance(value, list):
        return depth > 0 and all(storable(each, depth - 1) for each in value)
    return not isinstance(value, int) or -(2**63) <= value < 2**63


def parse_json(raw: bytes) -> Any:
    """Strict JSON, as :func:`strict_json` reads it: raises :class:`ValidationFailed`."""
    try:
        return strict_json(raw)
    except NotJson as error:
        problem = Problem(("body",), f"The body is not valid JSON. {error}", "json_invalid")
        raise ValidationFailed([problem]) from None


def strict_json(raw: bytes) -> Any:
    """JSON by RFC 8259, with I-JSON's unique names and whole characters. Raises :class:`NotJson`, with the reason."""
    try:
        value = STRICT.decode(raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise NotJson("The text is not valid UTF-8.") from None
    except RecursionError:
        raise NotJson("It is nested too deeply.") from None
    except json.JSONDecodeError as error:
        raise NotJson(f"{error.msg} at line {error.lineno}, column {error.colno}.") from None
    except NotJson:
        raise
    except ValueError:
        raise NotJson("It holds a number that is too long or too large.") from None
    check_whole(value)
    return value


def check_whole(value: Any) -> None:
    """Raises :class:`NotJson` for what json takes all the same: lone surrogates from escapes, which UTF-8, the hash and
    the database do not take, and numbers that are none."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except UnicodeEncodeError:
        raise NotJson("The text is not valid UTF-8.") from None
    except ValueError:
        raise NotJson("It holds a number that is too long or too large.") from None
    except RecursionError:
        raise NotJson("It is nested too deeply.") from None


class NotJson(ValueError):
    """What is no JSON, or what json takes and the standards do not."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise NotJson("A member is there twice.")
    return members


def _no_constant(name: str) -> NoReturn:
    raise NotJson("NaN and Infinity are not JSON.")


STRICT = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
"""As :func:`strict_json` reads, but for what :func:`check_whole` looks at."""


def compiled(schema: Mapping[str, Any]) -> Draft202012Validator:
    """The schema's validator. Raises ``ValueError`` for what is no JSON Schema."""
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"{error.json_path}: {error.message}") from error
    _check_references(schema)
    # Without a registry of the world's schemas: a check asks nobody.
    return Draft202012Validator(schema, format_checker=formats, registry=Registry())


def _check_references(schema: Mapping[str, Any]) -> None:
    resource = DRAFT202012.create_resource(schema)
    resolver = Registry().with_resource("", resource).resolver()
    for reference in _references(schema):
        if not reference.startswith("#"):
            raise ValueError(f"it refers to {reference}: a schema refers to parts of itself alone (#/$defs/...)")
        try:
            found = resolver.lookup(reference).contents
        except Unresolvable as error:
            raise ValueError(f"it refers to {reference}, and has no such part") from error
        if not isinstance(found, Mapping | bool):
            raise ValueError(f"it refers to {reference}, which is no schema")  # noqa: TRY004  # it is its text that is wrong


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, Mapping):
        for key, value in schema.items():
            if key in ("$ref", "$dynamicRef") and isinstance(value, str):
                yield value
            elif key not in ("const", "enum", "default", "examples"):
                yield from _references(value)
    elif isinstance(schema, list):
        for each in schema:
            yield from _references(each)


def _problems(errors: Iterator[ValidationError], where: str) -> Iterator[Problem]:
    told: set[tuple[str | int, ...]] = set()
    for error in errors:
        loc = (where, *error.absolute_path)
        if error.validator == "required":
            # One error for each absent member, none of which names it: tell them once, together.
            required: Any = error.validator_value
            absent = [(*loc, name) for name in required if name not in cast(Any, error.instance)]
            yield from (Problem(place, "This is required.", "missing") for place in absent if place not in told)
            told.update(absent)
        elif error.validator == "additionalProperties" and error.validator_value is False:
            yield from (Problem((*loc, name), "There is no such member.", "extra_forbidden") for name in _extras(error))
        else:
            yield Problem(loc, *_in_words(error))


def _extras(error: ValidationError) -> list[str]:
    schema, sent = cast(Any, error.schema), cast(Any, error.instance)
    patterns = schema.get("patternProperties", {})
    return [
        name
        for name in sent
        if name not in schema.get("properties", {}) and not any(re.search(pattern, name) for pattern in patterns)
    ]


def _in_words(error: ValidationError) -> tuple[str, str]:
    limit: Any = error.validator_value
    match error.validator:
        case "type":
            type_, message = _TYPES.get(str(limit), ("type_error", f"This should be one of: {', '.join(limit)}."))
            return message, type_
        case "enum":
            return f"This should be one of: {', '.join(map(str, limit))}.", "literal_error"
        case "minimum":
            return f"This should be at least {limit}.", "greater_than_equal"
        case "maximum":
            return f"This should be at most {limit}.", "less_than_equal"
        case "minItems":
            return f"This should have at least {counted(limit, 'item')}.", "too_short"
        case "maxItems":
            return f"This should have at most {counted(limit, 'item')}.", "too_long"
        case "minLength":
            return f"This should have at least {counted(limit, 'character')}.", "string_too_short"
        case "maxLength":
            return f"This should have at most {counted(limit, 'character')}.", "string_too_long"
        case "pattern":
            return "This has characters or a form that are not accepted.", "string_pattern_mismatch"
        case "format":
            return str(error.cause), "value_error"
        case _:
            return "This is not accepted.", "value_error"
