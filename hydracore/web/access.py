"""Whom an endpoint answers. Each says so, on the class or on a method; the audit at start refuses one that does not."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from types import FunctionType
from typing import Any, Literal, TypeVar, cast

from hydracore.models import CurrentUser, Scope

Access = Literal["public", "unverified", "verified", "scoped"]
Target = TypeVar("Target", bound=Callable[..., Any])

_MARK = "hydracore_access"
_STAYS = "hydracore_access_stays"


@dataclass(frozen=True)
class Door:
    """Whom something answers: of those whom ``access`` lets in, who has one of ``roles``, or all where it has none; or
    an admin token with the ``scope``."""

    access: Access
    roles: tuple[str, ...] = ()
    scope: Scope | None = None


class AsksWho:
    """What looks at :func:`require_role` before a method runs: an endpoint, or a host's handler with the mixin."""


def public(target: Target) -> Target:
    """It answers anyone; there is no ``self.caller``."""
    return _opened(target, "public")


def unverified(target: Target) -> Target:
    """It answers whoever is signed in, the address proven or not."""
    return _opened(target, "unverified")


def verified(target: Target) -> Target:
    """It answers whoever is signed in and has proven the address."""
    return _opened(target, "verified")


def require_role(role: str, *others: str) -> Callable[[Target], Target]:
    """It answers whoever is signed in, has proven the address, and has one of these roles now, whatever the access
    token says: 401 or 403 for others. It is for the classes and methods of endpoints, and of a host's handlers with
    ``CurrentUserMixin``. Raises ``TypeError`` on what would not ask."""
    for each in (role, *others):
        if not isinstance(each, str):
            raise TypeError(f'require_role takes the names of roles, require_role("admin"), not {each!r}')
    door = Door("verified", (role, *others))

    def mark(target: Target) -> Target:
        if isinstance(target, FunctionType):
            return _marked(cast(Target, _guarded(target, door.roles)), door)
        if not (isinstance(target, type) and issubclass(target, AsksWho)):
            raise TypeError(
                f"require_role is on {target!r}, which does not ask who makes a request: it takes an endpoint, or a "
                "handler that has CurrentUserMixin before RequestHandler"
            )
        return _marked(target, door)

    return mark


def scoped(scope: Scope) -> Callable[[Target], Target]:
    """A method of the Admin API: it answers whoever holds an admin token with that scope."""
    return partial(_marked, door=Door("scoped", scope=scope))


def always_public(target: Target) -> Target:
    """It answers anyone, whatever the classes say that inherit it."""
    marked = _marked(target, Door("public"))
    setattr(marked, _STAYS, True)
    return marked


def door_of(endpoint: type, method: str) -> Door | None:
    """What was said for a method; None where nothing was. A class's word counts before that of a method which it
    inherits, and a base class's own word counts for nothing: a subclass that opens a door says so itself. A method that
    requires a role or a scope does so in every class."""
    name = method.lower()
    function = getattr(endpoint, name)
    mark: Door | None = getattr(function, _MARK, None)
    if name in vars(endpoint) or getattr(function, _STAYS, False) or (mark and (mark.roles or mark.scope)):
        return mark or vars(endpoint).get(_MARK)
    return vars(endpoint).get(_MARK) or mark


def access_of(endpoint: type, method: str) -> Access | None:
    """The access of :func:`door_of`."""
    door = door_of(endpoint, method)
    return door.access if door else None


def scope_of(endpoint: type, method: str) -> Scope | None:
    """The scope of :func:`door_of`."""
    door = door_of(endpoint, method)
    return door.scope if door else None


def roles_of(handler: type, method: str) -> tuple[str, ...]:
    """What a host's handler requires for a method: the method's own word, or else that of the class or of its bases,
    for nobody audits a host's handlers. What was said beside it of an access opens nothing."""
    function = getattr(handler, method.lower(), None)
    doors = [getattr(function, _MARK, None), *(vars(each).get(_MARK) for each in handler.__mro__)]
    return next((door.roles for door in doors if door and door.roles), ())


def check_asked(handler: Any, roles: Sequence[str], what: str) -> None:
    """Nobody has come this far whom :func:`require_role` does not let in, unless it was not asked. Raises
    ``RuntimeError`` then: who forgot that must not open it."""
    callers = (getattr(handler, "caller", None), getattr(handler, "current_user", None))
    if not any(isinstance(caller, CurrentUser) and set(roles) & set(caller.roles) for caller in callers):
        raise RuntimeError(
            f"{what} requires a role, and nobody asked who makes the request: put CurrentUserMixin before "
            "RequestHandler, and await super().prepare() in a prepare of your own"
        )


def _opened(target: Target, access: Access) -> Target:
    own = vars(target).get(_MARK)
    if own is not None and own.roles:
        # Which of two decorators counts must not hang on their order.
        raise TypeError(
            f"{target.__qualname__} requires a role, which no other decorator takes back: require_role says all by "
            f"itself, leave {access} out"
        )
    return _marked(target, Door(access))


def _guarded(function: FunctionType, roles: tuple[str, ...]) -> Callable[..., Any]:
    """The method of a handler that was asked."""
    look = partial(check_asked, roles=roles, what=function.__qualname__)

    @wraps(function)
    async def awaited(self: Any, *args: Any, **kwargs: Any) -> Any:
        look(self)
        return await function(self, *args, **kwargs)

    @wraps(function)
    def called(self: Any, *args: Any, **kwargs: Any) -> Any:
        look(self)
        return function(self, *args, **kwargs)

    return awaited if inspect.iscoroutinefunction(function) else called


def _marked(target: Target, door: Door) -> Target:
    """The class, or a function of its own: ``get = public(Base.get)`` must not open ``Base.get``."""
    if isinstance(target, FunctionType):
        copy = FunctionType(
            target.__code__, target.__globals__, target.__name__, target.__defaults__, target.__closure__
        )
        copy.__kwdefaults__, copy.__qualname__ = target.__kwdefaults__, target.__qualname__
        copy.__doc__, copy.__module__, copy.__annotations__ = target.__doc__, target.__module__, target.__annotations__
        vars(copy).update(vars(target))
        target = cast(Target, copy)
    setattr(target, _MARK, door)
    return target
