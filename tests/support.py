"""Stand-ins that are small and real: a clock, a mail box, a site behind a socket, and hosts to mount it in."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.message import EmailMessage
from functools import cached_property
from typing import Any

from described import Described
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.web import Application, RequestHandler

from hydracore import CurrentUserMixin, HydraCore
from hydracore.chance import now as real_now
from hydracore.plugin import MailTransport, hookimpl

SECRET = "a-secret-of-the-tests-that-is-long-enough"
PASSWORD = "correct horse battery staple"
DRIVERS = ("memory", "pymongo", "motor")


class Clock:
    """The time, which a test may move."""

    def __init__(self) -> None:
        self._ahead = timedelta()

    def __call__(self) -> datetime:
        return real_now() + self._ahead

    def forward(self, **how: float) -> None:
        self._ahead += timedelta(**how)


class MailBox:
    """A transport that keeps what it is given, and fails when told to."""

    def __init__(self) -> None:
        self.letters: list[EmailMessage] = []
        self.keys: list[str] = []
        self.failure: Exception | None = None

    def plugin(self, context: Any) -> Any:
        box = self

        class Box:
            @hookimpl
            def hydracore_register_mail_transports(self) -> list[MailTransport]:
                return [MailTransport("box", box.send)]

        return Box()

    async def send(self, message: EmailMessage, key: str) -> None:
        self.keys.append(key)
        if self.failure is not None:
            raise self.failure
        self.letters.append(message)

    async def letter(self, to: str, nth: int = 1, about: str = "") -> str:
        """The text of the nth letter to that address whose subject has ``about``, once it is there."""
        for _ in range(1000):
            found = [
                letter for letter in self.letters if letter["To"].lower() == to.lower() and about in letter["Subject"]
            ]
            if len(found) >= nth:
                part = found[nth - 1].get_body(("plain",))
                assert part is not None
                return str(part.get_content())
            await asyncio.sleep(0.01)
        raise AssertionError(
            f"no letter {nth} to {to} about {about!r}: {[str(item['Subject']) for item in self.letters]}"
        )

    async def code(self, to: str, nth: int = 1) -> str:
        match = re.search(r"^([0-9]{6})\s*$", await self.letter(to, nth, "verification"), re.MULTILINE)
        assert match
        return match[1]

    async def change_code(self, to: str, nth: int = 1) -> str:
        match = re.search(r"^([0-9]{6})\s*$", await self.letter(to, nth, "code for a new address"), re.MULTILINE)
        assert match
        return match[1]

    async def undo_token(self, to: str, nth: int = 1, about: str = "address was changed") -> str:
        match = re.search(r"#token=([\w-]{43})\s", await self.letter(to, nth, about))
        assert match
        return match[1]

    async def reset_token(self, to: str, nth: int = 1) -> str:
        match = re.search(r"#token=([\w-]{43})\s", await self.letter(to, nth, "Set a new"))
        assert match
        return match[1]


@dataclass
class Site:
    """A HydraCore behind a real socket, and a client of it."""

    hydra: HydraCore
    url: str
    box: MailBox
    clock: Clock
    prefix: str = "/auth"
    answers: list[HTTPResponse] = field(default_factory=list)

    @cached_property
    def described(self) -> Described:
        """What every answer of a test is held against."""
        return Described(self.hydra.openapi())

    async def ask(
        self, method: str, path: str, *, body: Any = None, raw: bytes | None = None, **headers: str
    ) -> HTTPResponse:
        """One request, whose answer is as openapi.json describes it; ``body`` goes as JSON. Header names are written
        with underscores."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            raw = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        answer = await AsyncHTTPClient(force_instance=False).fetch(
            self.url + path,
            method=method,
            body=raw,
            headers=sent,
            allow_nonstandard_methods=True,
            raise_error=False,
            follow_redirects=False,
            request_timeout=25,
        )
        self.answers.append(answer)
        self.described.check(method, path, answer)
        return answer

    async def post(self, call: str, body: Any = None, **headers: str) -> HTTPResponse:
        return await self.ask("POST", f"{self.prefix}/{call}", body={} if body is None else body, **headers)

    async def me(self, access_token: str) -> HTTPResponse:
        return await self.ask("GET", f"{self.prefix}/me", Authorization=f"Bearer {access_token}")

    async def register(self, email: str = "ada@example.com", password: str = PASSWORD) -> dict[str, Any]:
        return tokens(await self.post("register", {"email": email, "password": password}), 201)

    async def verified(self, email: str = "ada@example.com", password: str = PASSWORD) -> dict[str, Any]:
        """Tokens of a new account whose address is proven."""
        first = await self.register(email, password)
        body = {"email": email, "code": await self.box.code(email)}
        return tokens(await self.post("verify-email", body, Authorization=f"Bearer {first['access_token']}"))


def tokens(answer: HTTPResponse, status: int = 200) -> dict[str, Any]:
    """The body of a sign-in, its shape checked."""
    assert answer.code == status, answer.body
    body: dict[str, Any] = json.loads(answer.body)
    assert set(body) == {"access_token", "email_verified", "expires_in", "refresh_token", "token_type"}
    assert (body["expires_in"], body["token_type"]) == (1800, "bearer")
    assert answer.headers["Cache-Control"] == "no-store"
    return body


def refused(answer: HTTPResponse, status: int, code: str) -> Any:
    """The ``detail`` of a refusal, its one shape checked."""
    assert answer.code == status, (answer.code, answer.body)
    assert answer.headers["Content-Type"] == "application/json; charset=UTF-8"
    assert answer.headers["X-Request-Id"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    body = json.loads(answer.body)
    assert set(body) == {"detail", "code"}
    assert body["code"] == code, body
    if status == 422:
        assert body["detail"]
        for problem in body["detail"]:
            assert set(problem) == {"loc", "msg", "type"}
            assert problem["loc"][0] == "body"
    else:
        assert isinstance(body["detail"], str)
    if status == 401:
        assert answer.headers["WWW-Authenticate"]
    if status in (429, 503):
        assert int(answer.headers["Retry-After"]) >= 1
    return body["detail"]


class Page(CurrentUserMixin, RequestHandler):
    """A host's page for verified users."""

    def get(self) -> None:
        assert self.current_user
        self.write(f"<p>Hello {self.current_user.email}")

    post = get


class OpenPage(Page):
    """A host's page that takes unverified users too."""

    allow_unverified = True


class HtmlNotFound(RequestHandler):
    def prepare(self) -> None:
        self.set_status(404)
        self.finish("<h1>Not our JSON</h1>")


def alone(hydra: HydraCore) -> Application:
    return hydra.application()


def mounted(hydra: HydraCore) -> Application:
    return Application([*hydra.routes("/auth"), ("/page", Page), ("/open", OpenPage)], hydracore=hydra)


def hostile(hydra: HydraCore) -> Application:
    return Application(
        [*hydra.routes("/auth"), ("/page", Page), ("/open", OpenPage)],
        hydracore=hydra,
        xsrf_cookies=True,
        debug=True,
        autoreload=False,
        default_handler_class=HtmlNotFound,
        cookie_secret="the host's own",
        login_url="/login",
    )


HOSTS: Mapping[str, Callable[[HydraCore], Application]] = {"alone": alone, "mounted": mounted, "hostile": hostile}

OpenSite = Callable[..., Awaitable[Site]]


async def enter(hydra: HydraCore, keep: bool) -> None:
    if keep:
        await hydra.__aenter__()
        return
    hydra._deliver_mail = False  # What an earlier test has left waiting must not come here.
    await hydra.__aenter__()
    for name in hydra._store._collections:
        if name != "keys":
            await hydra._store.collection(name).delete_many({})
    for worker in hydra._workers:
        worker.start()
