"""Bodies: strict JSON, held against the files in ``schemas/``; every problem at once, as 422."""

import json
from collections.abc import Iterator, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, NoReturn, cast

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError

from hydracore.addresses import parse_address
from hydracore.errors import Problem, ValidationFailed

_TYPES = {
    "string": ("string_type", "This should be a string."),
    "integer": ("int_type", "This should be a whole number."),
    "number": ("float_type", "This should be a number."),
    "boolean": ("bool_type", "This should be true or false."),
    "array": ("list_type", "This should be a list."),
    "object": ("model_attributes_type", "This should be an object."),
}

formats = FormatChecker(formats=())


@formats.checks("email", raises=ValueError)
def _is_email(value: object) -> bool:
    return not isinstance(value, str) or bool(parse_address(value))


class Schemas:
    """The validators of a folder of schemas, compiled once, by name: ``login`` is ``login.json``."""

    def __init__(self, folder: Traversable) -> None:
        self._validators = {
            file.name.removesuffix(".json"): _compile(file) for file in folder.iterdir() if file.name.endswith(".json")
        }

        self._members = {name: dict(validator.schema)["properties"] for name, validator in self._validators.items()}  # type: ignore[arg-type]  # never a bare true or false here

    def check(self, name: str, body: Any) -> Mapping[str, Any]:
        """``body`` with defaults for what is absent; raises :class:`ValidationFailed`. Members that
        the schema does not know are left out."""
        validator = self._validators[name]
        problems = list(_problems(validator.iter_errors(body)))
        if problems:
            raise ValidationFailed(problems)
        known: Mapping[str, Any] = self._members[name]
        return {key: body.get(key, rule.get("default")) for key, rule in known.items()}


def own_schemas() -> Schemas:
    """Those of the auth API."""
    return Schemas(resources.files("hydracore.schemas") / "auth")


def parse_json(raw: bytes) -> Any:
    """Strict JSON (RFC 8259, and I-JSON's unique names and whole characters): raises :class:`ValidationFailed`."""
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
        # json takes lone surrogates from escapes; UTF-8, the hash and the database do not.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeError:
        _invalid("The text is not valid UTF-8.")
    except RecursionError:
        _invalid("It is nested too deeply.")
    except json.JSONDecodeError as error:
        _invalid(f"{error.msg} at line {error.lineno}, column {error.colno}.")
    except _NotStrict as error:
        _invalid(str(error))
    except ValueError:
        _invalid("It holds a number that is too long.")
    return value


class _NotStrict(ValueError):
    """What json takes and the standards do not."""


def _invalid(reason: str) -> NoReturn:
    raise ValidationFailed([Problem(("body",), f"The body is not valid JSON. {reason}", "json_invalid")]) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _NotStrict("A member is there twice.")
    return members


def _no_constant(name: str) -> NoReturn:
    raise _NotStrict("NaN and Infinity are not JSON.")


def _compile(file: Traversable) -> Draft202012Validator:
    schema = json.loads(file.read_text("utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=formats)


def _problems(errors: Iterator[ValidationError]) -> Iterator[Problem]:
    told: set[tuple[str | int, ...]] = set()
    for error in errors:
        loc = ("body", *error.absolute_path)
        if error.validator == "required":
            # One error for each absent member, none of which names it: tell them once, together.
            required: Any = error.validator_value
            absent = [(*loc, name) for name in required if name not in cast(Any, error.instance)]
            yield from (Problem(place, "This is required.", "missing") for place in absent if place not in told)
            told.update(absent)
        else:
            yield Problem(loc, *_in_words(error))


def _in_words(error: ValidationError) -> tuple[str, str]:
    limit: Any = error.validator_value
    match error.validator:
        case "type":
            type_, message = _TYPES[limit]
            return message, type_
        case "minLength":
            return f"This should have at least {limit} characters.", "string_too_short"
        case "maxLength":
            return f"This should have at most {limit} characters.", "string_too_long"
        case "pattern":
            return "This has characters or a form that are not accepted.", "string_pattern_mismatch"
        case "format":
            return str(error.cause), "value_error"
        case _:
            return "This is not accepted.", "value_error"
