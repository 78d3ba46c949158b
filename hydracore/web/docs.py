"""What is published of the API: its description as openapi.json, and a page that shows it.

All of it is made or read once, and served from memory. The page asks this server alone: Swagger UI lies in
``hydracore/viewer``, under names that change with its content.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib import resources
from typing import Any

from hydracore.meters import Answered
from hydracore.web.access import public
from hydracore.web.base import Endpoint, Origin

_VIEWER = (
    ("swagger-ui/swagger-ui.css", "text/css; charset=UTF-8"),
    ("swagger-ui/swagger-ui-bundle.js", "text/javascript; charset=UTF-8"),
    ("page.js", "text/javascript; charset=UTF-8"),
)
_PAGE_MAY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_DESCRIPTION_MAX_AGE = 300
_FOR_EVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True)
class File:
    """What is served as it is, with the headers that say how."""

    content: bytes
    headers: Mapping[str, str]


@public
class Published(Endpoint):
    """A file from memory; who has it already gets 304 (RFC 9110, section 13)."""

    _file: File

    def initialize(self, answered: Answered, route: str, of: Origin | None = None, file: File | None = None) -> None:
        super().initialize(answered, route, of)
        if file is not None:
            self._file = file

    async def get(self) -> None:
        for name, value in self._file.headers.items():
            self.set_header(name, value)
        if self.check_etag_header():
            self.set_status(304)
        else:
            self.write(self._file.content)

    head = get


def published(document: Mapping[str, Any]) -> dict[str, File]:
    """The files by their paths."""
    return {"/openapi.json": description_file(document, {"Access-Control-Allow-Origin": "*"}), **_viewer()}


def description_file(document: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> File:
    caching = f"public, max-age={_DESCRIPTION_MAX_AGE}"
    return _file(json.dumps(document, ensure_ascii=False).encode(), "application/json; charset=UTF-8", caching, headers)


@cache
def _viewer() -> Mapping[str, File]:
    folder = resources.files("hydracore") / "viewer"
    page = (folder / "page.html").read_text("utf-8")
    files: dict[str, File] = {}
    for name, media_type in _VIEWER:
        content = (folder / name).read_bytes()
        called = name.rpartition("/")[2]
        stem, _, ending = called.rpartition(".")
        unique = f"{stem}.{sha256(content).hexdigest()[:16]}.{ending}"
        page = page.replace(f'"docs/{called}"', f'"docs/{unique}"')
        files[f"/docs/{unique}"] = _file(content, media_type, _FOR_EVER)
    may = {"Content-Security-Policy": _PAGE_MAY}
    return {"/docs": _file(page.encode(), "text/html; charset=UTF-8", "no-cache", may), **files}


def _file(content: bytes, media_type: str, caching: str, more: Mapping[str, str] | None = None) -> File:
    digest = sha256(content).hexdigest()[:32]
    headers = {"Content-Type": media_type, "Cache-Control": caching, "Etag": f'"{digest}"'}
    return File(content, {**headers, **(more or {})})
