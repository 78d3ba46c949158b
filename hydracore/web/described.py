"""What a call says of itself beside its method; openapi.json is made of that."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from hydracore.errors import HydraError

Method = TypeVar("Method", bound=Callable[..., Any])
Credentials = Literal["bearer", "cookie", "refresh_cookie", "basic", "none"]

_MARK = "hydracore_described"
_ASKS = "hydracore_asks"


@dataclass(frozen=True)
class Description:
    """See :func:`described`."""

    summary: str
    details: str
    takes: str
    gives: Mapping[int, str]
    refuses: tuple[type[HydraError], ...]
    by: tuple[Credentials, ...]
    sets_cookies: bool


def described(
    summary: str,
    details: str = "",
    *,
    takes: str = "",
    gives: Mapping[int, str],
    refuses: tuple[type[HydraError], ...] = (),
    by: tuple[Credentials, ...] = (),
    sets_cookies: bool = False,
) -> Callable[[Method], Method]:
    """What a method does, for openapi.json: in a few words, and in more (Markdown).

    ``takes`` is the schema that ``self.body()`` holds its body against. ``gives`` has the schema of the answer by its
    status, "" where it has no body. ``refuses`` are the errors that are its own; those that any call may answer are
    added. ``by`` says which credentials it looks at where the access says too little; with "none" it does without.
    ``sets_cookies``: the session's cookies come along.
    """

    def mark(method: Method) -> Method:
        if isinstance(method, type):
            raise TypeError(
                f"describe the methods of {method.__name__}, each by itself: the class says nothing of them"
            )
        description = Description(summary, details, takes, dict(gives), tuple(refuses), tuple(by), sets_cookies)
        setattr(method, _MARK, description)
        return method

    return mark


def asks(schema: str) -> Callable[[Method], Method]:
    """The schema that the method's query is held against: what it may ask for, and how."""

    def mark(method: Method) -> Method:
        setattr(method, _ASKS, schema)
        return method

    return mark


def query_of(endpoint: type, method: str) -> str:
    """The name of that schema; "" where there is none."""
    name: str = getattr(getattr(endpoint, method.lower()), _ASKS, "")
    return name


def description_of(endpoint: type, method: str) -> Description | None:
    """What was said of a method; None where nothing was."""
    description: Description | None = getattr(getattr(endpoint, method.lower()), _MARK, None)
    return description


def misdescribed(
    endpoint: type, methods: list[str], taken: Mapping[str, Any], given: Mapping[str, Any]
) -> Iterator[str]:
    """What is wrong with the descriptions of an endpoint, whose bodies and answers have those schemas; in words."""
    for method in methods:
        what = f"{endpoint.__name__}.{method.lower()}"
        if (said := description_of(endpoint, method)) is None:
            continue
        if said.takes and said.takes not in taken:
            yield f"{what} takes {said.takes}, and there is no schema {said.takes}.json"
        for status, name in said.gives.items():
            if not (isinstance(status, int) and 200 <= status < 400):
                yield f"{what} gives {status!r}, which is the status of no success"
            if name and name not in given:
                yield f"{what} gives {name}, and there is no schema {name}.json"
        for credentials in said.by:
            if credentials not in get_args(Credentials):
                yield f"{what} is asked by {credentials!r}, which is none of {', '.join(get_args(Credentials))}"
        for error in said.refuses:
            if not (isinstance(error, type) and issubclass(error, HydraError)):
                yield f"{what} refuses with {error!r}, which is no HydraError"
