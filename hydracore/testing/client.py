"""What a browser or an app would do, one request after the other."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request

PASSWORD = "correct horse battery staple"  # noqa: S105  # everybody's, in tests
_TIMEOUT = 30


@dataclass(frozen=True)
class Response:
    """An answer. ``headers`` are by lower-case name; ``set_cookies`` are all the cookies that it sets, as sent."""

    status: int
    headers: Mapping[str, str]
    text: str
    set_cookies: tuple[str, ...] = ()

    @property
    def json(self) -> Any:
        """The body. Raises ``ValueError`` where it is no JSON."""
        return json.loads(self.text)

    @property
    def code(self) -> str:
        """The machine's name of a refusal; "" for anything else."""
        try:
            said = self.json if self.status >= 400 else None
        except ValueError:
            return ""
        return str(said.get("code", "")) if isinstance(said, dict) else ""


class Client:
    """One client of a server. It keeps the tokens that it is given, and sends them along: as
    ``Authorization: Bearer``, or, with ``cookies=True``, as a browser does."""

    def __init__(self, url: str, *, prefix: str = "/auth", cookies: bool = False) -> None:
        self.url = url
        self.tokens: dict[str, Any] = {}
        self._prefix = prefix
        # To browsers 127.0.0.1 is as good as https, where cookies are Secure.
        policy = DefaultCookiePolicy(secure_protocols=("http", "https"))
        self._jar = CookieJar(policy) if cookies else None

    # -- any call --------------------------------------------------------------------------------

    def request(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Response:
        """One request; ``body`` goes as JSON. A ``path`` without a slash in front is one under the prefix."""
        target = path if path.startswith("/") else f"{self._prefix}/{path}"
        asked = Request(self.url.rstrip("/") + target, method=method)  # noqa: S310  # only the jar reads it
        raw = None if body is None else json.dumps(body)
        sent = {**({} if raw is None else {"Content-Type": "application/json"}), **self._credentials(asked)}
        given = {name.lower() for name in headers or ()}
        sent = {name: value for name, value in sent.items() if name.lower() not in given}
        where = urlsplit(self.url)
        connection = HTTPConnection(where.hostname or "", where.port, timeout=_TIMEOUT)
        try:
            connection.request(method, target, raw, {**sent, **(headers or {})})
            answer = connection.getresponse()
            if self._jar is not None:
                self._jar.extract_cookies(answer, asked)
            return _response(answer)
        finally:
            connection.close()

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Response:
        return self.request("GET", path, None, headers)

    def post(self, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Response:
        return self.request("POST", path, {} if body is None else body, headers)

    def put(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Response:
        return self.request("PUT", path, body, headers)

    def delete(self, path: str, headers: Mapping[str, str] | None = None) -> Response:
        return self.request("DELETE", path, None, headers)

    # -- the story -------------------------------------------------------------------------------

    def register(self, email: str, password: str = PASSWORD, **members: Any) -> Response:
        return self._kept(self.post("register", {"email": email, "password": password, **members}))

    def login(self, email: str, password: str = PASSWORD) -> Response:
        return self._kept(self.post("login", {"email": email, "password": password}))

    def verify(self, email: str, code: str) -> Response:
        return self._kept(self.post("verify-email", {"email": email, "code": code}))

    def refresh(self) -> Response:
        """From the body, or, with cookies, from the cookie."""
        return self._kept(self.post("refresh", self._refresh_token()))

    def logout(self) -> Response:
        """By the body, or, with cookies, by the cookie."""
        answer = self.post("logout", self._refresh_token())
        if answer.status == 204:
            self.tokens = {}
        return answer

    def me(self) -> Response:
        return self.get("me")

    def _refresh_token(self) -> dict[str, Any]:
        return {} if self._jar is not None else {"refresh_token": self.tokens.get("refresh_token", "")}

    def _kept(self, answer: Response) -> Response:
        if answer.status in (200, 201):
            self.tokens = answer.json
        return answer

    def _credentials(self, asked: Request) -> dict[str, str]:
        if self._jar is not None:
            self._jar.add_cookie_header(asked)
            cookies = asked.get_header("Cookie")
            return {
                **({"Cookie": cookies} if cookies else {}),
                "Origin": self.url,
                "Sec-Fetch-Site": "same-origin",
            }
        token = self.tokens.get("access_token")
        return {"Authorization": f"Bearer {token}"} if token else {}


def _response(answer: HTTPResponse) -> Response:
    text = answer.read().decode("utf-8", "replace")
    headers = {name.lower(): value for name, value in answer.headers.items()}
    return Response(answer.status, headers, text, tuple(answer.headers.get_all("Set-Cookie", [])))
