"""Whom an endpoint answers. Each says so, on the class or on a method; the audit at start refuses one that does not."""

from collections.abc import Callable
from types import FunctionType
from typing import Any, Literal, TypeVar, cast

from hydracore.models import Scope

Access = Literal["public", "unverified", "verified", "scoped"]
Target = TypeVar("Target", bound=Callable[..., Any])

_MARK = "hydracore_access"
_STAYS = "hydracore_access_stays"
_SCOPE = "hydracore_scope"


def public(target: Target) -> Target:
    """It answers anyone; there is no ``self.caller``."""
    return _marked(target, "public")


def unverified(target: Target) -> Target:
    """It answers whoever is signed in, the address proven or not."""
    return _marked(target, "unverified")


def verified(target: Target) -> Target:
    """It answers whoever is signed in and has proven the address."""
    return _marked(target, "verified")


def scoped(scope: Scope) -> Callable[[Target], Target]:
    """A method of the Admin API: it answers whoever holds an admin token with that scope."""

    def mark(target: Target) -> Target:
        marked = _marked(target, "scoped")
        setattr(marked, _SCOPE, scope)
        return marked

    return mark


def scope_of(endpoint: type, method: str) -> Scope | None:
    """What was said by :func:`scoped` for a method; None where nothing was."""
    scope: Scope | None = getattr(getattr(endpoint, method.lower()), _SCOPE, None)
    return scope


def always_public(target: Target) -> Target:
    """It answers anyone, whatever the classes say that inherit it."""
    marked = _marked(target, "public")
    setattr(marked, _STAYS, True)
    return marked


def access_of(endpoint: type, method: str) -> Access | None:
    """What was said for a method; None where nothing was. A class's word counts before that of a method which it
    inherits, and a base class's own word counts for nothing: a subclass that opens a door says so itself."""
    name = method.lower()
    function = getattr(endpoint, name)
    mark: Access | None = getattr(function, _MARK, None)
    if name in vars(endpoint) or getattr(function, _STAYS, False):
        return mark or vars(endpoint).get(_MARK)
    return vars(endpoint).get(_MARK) or mark


def _marked(target: Target, access: Access) -> Target:
    """The class, or a function of its own: ``get = public(Base.get)`` must not open ``Base.get``."""
    if isinstance(target, FunctionType):
        copy = FunctionType(
            target.__code__, target.__globals__, target.__name__, target.__defaults__, target.__closure__
        )
        copy.__kwdefaults__, copy.__qualname__ = target.__kwdefaults__, target.__qualname__
        copy.__doc__, copy.__module__, copy.__annotations__ = target.__doc__, target.__module__, target.__annotations__
        vars(copy).update(vars(target))
        target = cast(Target, copy)
    setattr(target, _MARK, access)
    return target
