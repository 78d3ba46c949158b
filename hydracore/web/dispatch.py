"""From a path to its endpoint: most are looked up, and only those with parameters are matched."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tornado.httputil import HTTPServerRequest
from tornado.routing import PathMatches, Rule
from tornado.web import Application

from hydracore.web.base import Endpoint, NothingHere, Web, finished

_PARAMETER = re.compile(r"\\\{([a-z][a-z0-9_]*)\\\}")
# The route of paths that lead nowhere, for meters.
NOWHERE = "none"


class Row(NamedTuple):
    """A path, which may have ``{parameters}``, the endpoint that answers it, and what that is made with."""

    path: str
    endpoint: type[Endpoint]
    given: Mapping[str, Any]


def pattern(path: str) -> str:
    """The regular expression of the paths that ``path`` stands for."""
    return _PARAMETER.sub(r"(?P<\1>[^/]+)", re.escape(path)) + "$"


def sample(path: str) -> str:
    """A path that ``path`` stands for, and no other spells out."""
    return _PARAMETER.sub("\0", re.escape(path)).replace("\\", "")


class Nested(Application):
    """An application of our own, so that a host's settings do not leak in."""

    def __init__(self, web: Web, rows: Iterable[Row]) -> None:
        matched: list[tuple[PathMatches, Row]] = []
        self._by_path: dict[str, Row] = {}
        for row in rows:
            matcher = PathMatches(pattern(row.path))
            # The first that matches is taken, looked up or not.
            if not matcher.regex.groups and not any(before.regex.match(row.path) for before, _ in matched):
                self._by_path[row.path] = row
            matched.append((matcher, row))
        super().__init__(
            [Rule(matcher, row.endpoint, dict(row.given)) for matcher, row in matched],
            default_handler_class=NothingHere,
            default_handler_args={"answered": web.services.meters.route(NOWHERE), "route": NOWHERE},
            log_function=finished,
            hydracore_web=web,
        )

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:  # Tornado's own has no public name.
        row = self._by_path.get(request.path)
        if row is None:
            return super().find_handler(request, **kwargs)
        return self.get_handler_delegate(request, row.endpoint, dict(row.given))
