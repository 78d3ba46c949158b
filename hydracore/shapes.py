"""What the fields of a record must be: told at the start, not at the first use."""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from hydracore.events import Event
from hydracore.records import (
    Collection,
    EventListener,
    HealthCheck,
    Index,
    MailTransport,
    PasswordPolicy,
    ProfileMember,
    Route,
)

_COLLECTION = re.compile("[A-Za-z0-9_-]{1,64}")
# What MongoDB takes for a time after which documents go.
_LONGEST = 2**31 - 1


def flaws(record: Any) -> Iterator[str]:
    """What is wrong with a record, in words."""
    named = record.path if isinstance(record, Route) else record.name
    if not isinstance(named, str) or not named:
        yield f"its {'path' if isinstance(record, Route) else 'name'} is {named!r}, and no text"
    for field in ("send", "hit", "authenticate", "listen", "close", "judge", "give_back"):
        function = getattr(record, field, None)
        if hasattr(record, field) and not (field in ("judge", "give_back") and function is None):
            yield from _awaited(field, function)
    yield from _flags(record)
    match record:
        case PasswordPolicy(check=check) if check is not None:
            yield from _called("check", check)
            if inspect.iscoroutinefunction(check):
                yield "its check is async def, and runs in a thread: write def, or name it judge"
        case HealthCheck(check=check):
            yield from _awaited("check", check)
        case EventListener(of=of):
            if not (isinstance(of, tuple) and all(isinstance(kind, type) and issubclass(kind, Event) for kind in of)):
                yield f"its of is {of!r}, and no tuple of events' classes: write of=(events.LoggedIn,)"
        case Collection(indexes=indexes):
            if isinstance(named, str) and not _COLLECTION.fullmatch(named):
                yield "its name has other characters than letters, digits, _ and -"
            if not (_is_list(indexes) and all(isinstance(index, Index) and _is_index(index) for index in indexes)):
                yield f"its indexes are {indexes!r}, and no list like [Index([('at', 1)])]"
            else:
                for index in indexes:
                    yield from _index_flaws(index)
        case ProfileMember(schema=schema) if not isinstance(schema, Mapping):
            yield f"its schema is {schema!r}, and no JSON Schema"
        case MailTransport(over=over) if not (_is_list(over) and all(isinstance(name, str) for name in over)):
            yield f"its over is {over!r}, and no list of transports' names"
        case _:
            pass


def _called(field: str, function: Callable[..., Any] | None) -> Iterator[str]:
    if not callable(function):
        yield f"its {field} is {function!r}, which cannot be called"


def _awaited(field: str, function: Callable[..., Any] | None) -> Iterator[str]:
    """What is called a plain function's coroutine would be too late to complain of: it has acted by then."""
    yield from _called(field, function)
    if callable(function) and not _is_async(function):
        yield f"its {field} is a plain function, and is awaited: write async def"


def _is_async(function: Callable[..., Any]) -> bool:
    """Whether it is a coroutine function, a part of one, or an object whose ``__call__`` is one."""
    while isinstance(function, partial):
        function = function.func
    called = None if inspect.isroutine(function) else inspect.getattr_static(type(function), "__call__", None)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)


def _flags(record: Any) -> Iterator[str]:
    for field in ("delivers", "durable", "keep", "required", "sparse", "unique"):
        if not isinstance(flag := getattr(record, field, False), bool):
            yield f"its {field} is {flag!r}, and neither True nor False"


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _is_index(index: Index) -> bool:
    keys = index.keys
    return (
        _is_list(keys)
        and bool(keys)
        and all(_is_list(key) and len(key) == 2 and isinstance(key[0], str) and isinstance(key[1], int) for key in keys)
    )


def _index_flaws(index: Index) -> Iterator[str]:
    yield from _flags(index)
    for name, direction in index.keys:
        if not name or "\0" in name:
            yield f"its index {index.keys!r} has the key {name!r}, which is no name"
        if isinstance(direction, bool) or direction not in (1, -1):
            yield f"its index {index.keys!r} has the direction {direction!r}, and neither 1 nor -1"
    after = index.expire_after
    if after is None:
        return
    if isinstance(after, bool) or not isinstance(after, int) or not 0 <= after <= _LONGEST:
        yield f"its index {index.keys!r} has expire_after={after!r}, and no whole number from 0 to {_LONGEST}"
    if len(index.keys) != 1:
        yield f"its index {index.keys!r} has expire_after and {len(index.keys)} keys: documents expire by one key alone"
