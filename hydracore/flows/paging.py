"""Cursors: where a page ended, sealed under the server secret, so that they tell nothing and cannot be made up.

One is bound to its list and filter. It names the last thing of its page, not a number of things, so that what is added
or deleted meanwhile makes nothing appear twice or not at all.
"""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

from hydracore.errors import InvalidCursor
from hydracore.flows.services import Services
from hydracore.models import Page
from hydracore.secret import CannotOpen

Item = TypeVar("Item")


def page_of(
    services: Services, what: str, found: Sequence[Item], limit: int, place: Callable[[Item], Sequence[str]]
) -> Page[Item]:
    """The first ``limit`` of what was ``found``, of which there is one more if anything follows. ``what`` is the list
    with its filter, ``place`` where a thing stands in it."""
    if len(found) <= limit:
        return Page(found)
    last = json.dumps(place(found[limit - 1])).encode()
    return Page(found[:limit], urlsafe_b64encode(services.secret.seal("cursor", last, what)).rstrip(b"=").decode())


def place_of(services: Services, what: str, cursor: str) -> Sequence[str] | None:
    """Where the page before ended; None without a cursor. Raises :class:`InvalidCursor`."""
    if not cursor:
        return None
    try:
        sealed = urlsafe_b64decode(f"{cursor}{'=' * (-len(cursor) % 4)}")
        place: list[str] = json.loads(services.secret.open("cursor", sealed, what))
    except (ValueError, CannotOpen):
        raise InvalidCursor from None
    return place


def moment_of(place: Sequence[str] | None) -> tuple[datetime, str] | None:
    """The same, of a list in the order of a moment and an id."""
    return None if place is None else (datetime.fromisoformat(place[0]), place[1])
