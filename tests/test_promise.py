"""The promise to plugins: hook_api.json holds what they were told that they may rely on, and it only grows.

An argument or field is written by its name, with ``=`` behind it where it can be left out (``...=`` where there may be
several) and ``*`` before it where it is given by name alone; a method that is awaited has ``await`` before its name.
"""

import dataclasses
import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from hydracore import events, hookspecs, plugin
from hydracore.plugin import Context, Endpoint, HydraError

HERE = Path(__file__).parent
PROMISED: dict[str, Any] = json.loads((HERE / "hook_api.json").read_text("utf-8"))
PUBLIC = {name: getattr(plugin, name) for name in plugin.__all__}


def arguments(function: Callable[..., Any]) -> list[str]:
    return [_argument(each) for name, each in inspect.signature(function).parameters.items() if name != "self"]


def _argument(each: inspect.Parameter) -> str:
    if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
        return f"{each.name}...="
    return f"{'*' * (each.kind is each.KEYWORD_ONLY)}{each.name}{'=' * (each.default is not each.empty)}"


def members(kind: type, names: Iterable[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in names:
        member = getattr(kind, name, None)
        awaited = "await " * inspect.iscoroutinefunction(member)
        found[f"{awaited}{name}"] = arguments(member) if inspect.isfunction(member) else "attribute"
    return found


def hooks() -> dict[str, Any]:
    found = {name: hook for name, hook in vars(hookspecs).items() if name.startswith("hydracore_")}
    since = {name: re.search(r"Since ([0-9.]+)\.", hook.__doc__) for name, hook in found.items()}
    # An implementation names the arguments that it wants: one more harms none, and needs no default.
    given = {name: [f"{each}=" for each in arguments(hook)] for name, hook in found.items()}
    return {name: {"since": match and match[1], "arguments": given[name]} for name, match in since.items()}


def records() -> dict[str, list[str]]:
    return {name: arguments(kind) for name, kind in PUBLIC.items() if dataclasses.is_dataclass(kind)}


def event_classes() -> dict[str, Any]:
    found = {name: kind for name, kind in vars(events).items() if isinstance(kind, type)}
    kinds = {name: kind for name, kind in found.items() if issubclass(kind, events.Event)}
    return {name: {"is": kind.__base__.__name__, "fields": arguments(kind)} for name, kind in kinds.items()}


def context() -> dict[str, Any]:
    class Settings:
        data_dir = HERE

    made = Context("x", {}, settings=Settings(), now=None, token=None, surroundings=None)  # type: ignore[arg-type]
    return members(Context, [name for name in (*vars(made), *vars(Context)) if not name.startswith("_")])


def endpoint() -> dict[str, Any]:
    """What docs/plugins.in.md tells authors of ``self``: an endpoint has more, by Tornado and by us."""
    told = (HERE.parent / "docs/plugins.in.md").read_text("utf-8").partition("## Endpoints")[2].partition("\n## ")[0]
    there = {name for base in Endpoint.__mro__ for name in (*vars(base), *inspect.get_annotations(base))}
    return members(Endpoint, [name for name in dict.fromkeys(re.findall(r"`self\.([a-z_]+)", told)) if name in there])


def decorators() -> dict[str, list[str]]:
    """What marks an endpoint or its methods."""
    here = {name: value for name, value in PUBLIC.items() if inspect.isfunction(value) and name != "logger"}
    return {name: arguments(function) for name, function in here.items()}


def errors() -> dict[str, Any]:
    found = {name: kind for name, kind in PUBLIC.items() if isinstance(kind, type) and issubclass(kind, Exception)}
    told: dict[str, Any] = {}
    for name, kind in found.items():
        told[name] = {"is": next(base.__name__ for base in kind.__mro__[1:] if base in (*PUBLIC.values(), Exception))}
        if issubclass(kind, HydraError):
            told[name] |= {"status": kind.status, "code": kind.code, "arguments": arguments(kind)}
    return told


def there_is() -> dict[str, Any]:
    """What there is now, as hook_api.json has it."""
    return {
        "version": hookspecs.API_VERSION,
        "hooks": hooks(),
        "records": records(),
        "events": event_classes(),
        "context": context(),
        "endpoint": endpoint(),
        "decorators": decorators(),
        "errors": errors(),
    }


def broken(promised: Any, now: Any, at: str = "") -> Iterator[str]:
    """In what the promise is broken, in words."""
    if isinstance(promised, Mapping):
        yield from (f"{at}.{name} is gone" for name in promised if name not in now)
        for name in promised.keys() & now.keys():
            yield from broken(promised[name], now[name], f"{at}.{name}")
    elif isinstance(promised, list):
        yield from broken_arguments(promised, now, at)
    elif promised != now:
        yield f"{at} was {promised} and is {now}"


def broken_arguments(promised: list[str], now: list[str], at: str) -> Iterator[str]:
    placed, still = ([each for each in every if each[0] != "*"] for every in (promised, now))
    # What had no default may have one now.
    kept = {each.rstrip("=") for each in now if each.endswith("=")} | set(now)
    yield from (f"{at} has no {each} any more" for each in promised if each not in kept)
    if [each.rstrip("=") for each in still[: len(placed)]] != [each.rstrip("=") for each in placed]:
        yield f"{at} has its arguments in another order"
    before = {each.strip("*=") for each in promised}
    new = [each for each in now if each.strip("*=") not in before]
    yield from (f"{at} wants {each}, which nobody gives yet: let it have a default" for each in new if each[-1] != "=")


def test_the_promise() -> None:
    """What was promised is there: nothing is gone, nothing is called or ordered otherwise, no code and no status has
    changed, and what is new can be left out."""
    assert not list(broken(PROMISED, there_is()))


@pytest.mark.parametrize("part", there_is())
def test_what_is_new_is_promised(part: str) -> None:
    """What is new is written down, with API_VERSION's minor raised once the one before is out."""
    now = there_is()[part]
    assert now == PROMISED[part], f"write into hook_api.json: {json.dumps({part: now})}"


@pytest.mark.parametrize(
    ("promised", "now", "said"),
    [
        ({"Count": ["hits"]}, {"Count": ["hits", "resets_in"]}, ".Count wants resets_in, which nobody gives yet"),
        ({"LoggedIn": ["*id="]}, {"LoggedIn": ["*id=", "*device"]}, ".LoggedIn wants *device, which nobody gives"),
        ({"Count": ["hits", "rest="]}, {"Count": ["hits", "rest"]}, ".Count has no rest= any more"),
        ({"send": ["to", "values"]}, {"send": ["values", "to"]}, ".send has its arguments in another order"),
        ({"send": ["to"]}, {"send": ["new=", "to"]}, ".send has its arguments in another order"),
        ({"send": ["to", "life="]}, {"send": ["to", "*life="]}, ".send has no life= any more"),
        ({"await find": []}, {"find": []}, ".await find is gone"),
        ({"Forbidden": {"status": 403}}, {"Forbidden": {"status": 401}}, ".Forbidden.status was 403 and is 401"),
    ],
)
def test_what_breaks_a_promise(promised: Any, now: Any, said: str) -> None:
    """A thing that goes, moves, changes, or has to be given from now on is seen."""
    assert said in "\n".join(broken(promised, now))


@pytest.mark.parametrize(
    ("promised", "now"),
    [
        ({"Count": ["hits"]}, {"Count": ["hits", "rest="], "Other": ["a"]}),
        ({"send": ["to", "*life"]}, {"send": ["to=", "more=", "*new=", "*life="]}),
    ],
)
def test_what_breaks_none(promised: Any, now: Any) -> None:
    """What is new and can be left out breaks nothing, nor does a default where there was none."""
    assert not list(broken(promised, now))
