"""Whom an endpoint answers. Each says so, on the class or on a method; the audit at start refuses one that does not."""

from collections.abc import Callable
from typing import Any, Literal, TypeVar

Access = Literal["public", "unverified", "verified"]
Target = TypeVar("Target", bound=Callable[..., Any])

_MARK = "hydracore_access"


def public(target: Target) -> Target:
    """It answers anyone; there is no ``self.caller``."""
    setattr(target, _MARK, "public")
    return target


def unverified(target: Target) -> Target:
    """It answers whoever is signed in, the address proven or not."""
    setattr(target, _MARK, "unverified")
    return target


def verified(target: Target) -> Target:
    """It answers whoever is signed in and has proven the address."""
    setattr(target, _MARK, "verified")
    return target


def access_of(endpoint: type, method: str) -> Access | None:
    """What was said for a method; None where nothing was. What a base class says does not count: a
    subclass that opens a door says so itself."""
    said: Access | None = getattr(getattr(endpoint, method.lower()), _MARK, None) or vars(endpoint).get(_MARK)
    return said
