"""The two cookies: the access token's and the refresh token's.

Both are HttpOnly and for the whole site. Under https they are Secure and carry the ``__Host-``
prefix, which no sibling domain can forge (RFC 6265bis, section 4.1.3.2).
"""

from collections.abc import Mapping
from typing import Any

from tornado.web import RequestHandler

from hydracore.config import Config
from hydracore.models import Grant


class Cookies:
    def __init__(self, config: Config) -> None:
        prefix = "__Host-" if config.secure_cookies else ""
        self._access = f"{prefix}hydracore_access"
        self._refresh = f"{prefix}hydracore_refresh"
        self._attributes: dict[str, Any] = {
            "path": "/",
            "httponly": True,
            "secure": config.secure_cookies,
            "samesite": config.cookies.same_site.capitalize(),
        }

    @property
    def names(self) -> tuple[str, str]:
        """The access token's and the refresh token's."""
        return self._access, self._refresh

    def access_token(self, jar: Mapping[str, object]) -> str:
        return _value(jar, self._access)

    def refresh_token(self, jar: Mapping[str, object]) -> str:
        return _value(jar, self._refresh)

    def set(self, handler: RequestHandler, grant: Grant) -> None:
        self._set(handler, self._access, grant.access_token, grant.expires_in)
        self._set(handler, self._refresh, grant.refresh_token, grant.refresh_expires_in)

    def clear(self, handler: RequestHandler) -> None:
        for name in (self._access, self._refresh):
            handler.clear_cookie(name, **self._attributes)

    def _set(self, handler: RequestHandler, name: str, value: str, max_age: int) -> None:
        handler.set_cookie(name, value, max_age=max_age, **self._attributes)


def _value(jar: Mapping[str, object], name: str) -> str:
    morsel = jar.get(name)
    return str(getattr(morsel, "value", ""))
