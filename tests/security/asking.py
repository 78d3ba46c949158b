"""How the tests of this folder ask: as a browser, as a tool, and byte by byte."""

import asyncio
import json
from base64 import b64encode, urlsafe_b64decode
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

from support import PASSWORD, OpenSite, Site
from tornado.httpclient import HTTPResponse

ROOT = Path(__file__).parent.parent.parent
EMAIL, OTHER = "ada@example.com", "eve@example.com"
NEW = "an entirely new password"
LOGIN = {"email": EMAIL, "password": PASSWORD}
WRONG = {"email": EMAIL, "password": "not the password"}

# What each call takes, right in form.
CALLS: dict[str, dict[str, Any]] = {
    "register": LOGIN,
    "login": LOGIN,
    "refresh": {"refresh_token": "x"},
    "logout": {"refresh_token": "x"},
    "verify-email": {"email": EMAIL, "code": "123456"},
    "resend-verification": {"email": EMAIL},
    "forgot-password": {"email": EMAIL},
    "reset-password": {"token": "x", "new_password": NEW},
    "undo-email-change": {"token": "x"},
    "undo-deletion": {"token": "x"},
}

# What the calls of those who are signed in take, by the schema's name.
OWN_CALLS: dict[str, dict[str, Any]] = {
    "change-password": {"current_password": PASSWORD, "new_password": NEW},
    "change-email": {"password": PASSWORD, "email": OTHER},
    "confirm-email": {"code": "123456"},
    "delete-account": {"password": PASSWORD},
    "revoke-others": {},
}


def basic(email: str = EMAIL, password: str = PASSWORD) -> dict[str, str]:
    """The header of a tool that signs in."""
    return {"Authorization": "Basic " + b64encode(f"{email}:{password}".encode()).decode()}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def via(network: str) -> dict[str, str]:
    """A request through a proxy that :func:`limited` trusts."""
    return {"X_Forwarded_For": network}


async def limited(open_site: OpenSite, **rules: Any) -> Site:
    return await open_site(limits={"enabled": True, **rules}, server={"trusted_proxies": ["127.0.0.1"]})


def jar(answer: HTTPResponse) -> SimpleCookie:
    """The cookies that an answer sets."""
    cookies = SimpleCookie()
    for header in answer.headers.get_list("Set-Cookie"):
        cookies.load(header)
    return cookies


def sent(cookies: SimpleCookie) -> str:
    """The Cookie header of a browser that has them."""
    return "; ".join(f"{name}={morsel.value}" for name, morsel in cookies.items())


def claims(access_token: str) -> dict[str, Any]:
    """What an access token says, unproven."""
    part = access_token.split(".")[1]
    said: dict[str, Any] = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return said


async def log_in(site: Site, password: str = PASSWORD, email: str = EMAIL, **headers: str) -> HTTPResponse:
    return await site.post("login", {"email": email, "password": password}, **headers)


async def refresh(site: Site, refresh_token: str) -> HTTPResponse:
    return await site.post("refresh", {"refresh_token": refresh_token})


async def forgotten(site: Site, nth: int = 1, email: str = EMAIL) -> str:
    """The token of a reset that was asked for."""
    assert (await site.post("forgot-password", {"email": email})).code == 200
    return await site.box.reset_token(email, nth)


async def reset(site: Site, token: str, password: str = NEW) -> HTTPResponse:
    return await site.post("reset-password", {"token": token, "new_password": password})


async def every_answer(site: Site) -> list[HTTPResponse]:
    """An answer of each kind: what succeeds, what is refused, what is not there, with a body and without."""
    first = await site.register()
    answers = [
        await site.me(first["access_token"]),
        await site.ask("HEAD", "/auth/me", **bearer(first["access_token"])),
        await site.ask("GET", "/auth/me"),
        await site.ask("POST", "/auth/token", raw=b"", **basic()),
        await site.ask("POST", "/auth/token", raw=b""),
        await site.ask("OPTIONS", "/auth/login"),
        await site.ask("DELETE", "/auth/login"),
        await site.ask("GET", "/auth/nowhere"),
        await site.ask("GET", "/"),
        await site.ask("POST", "/auth/login", raw=b"{", Content_Type="application/json"),
        await site.ask("POST", "/auth/login", raw=b"{}", Content_Type="text/plain"),
        await site.ask("POST", "/auth/login", raw=b" " * 70_000, Content_Type="application/json"),
        await site.post("login", LOGIN, Sec_Fetch_Site="cross-site"),
        await site.post("login", WRONG),
        await site.post("login", LOGIN),
        await site.post("login", {}),
        await site.ask("GET", "/health/live"),
        await site.ask("GET", "/health/ready"),
        await site.ask("GET", "/.well-known/jwks.json"),
        *[await site.post(call, body) for call, body in CALLS.items()],
    ]
    assert {answer.code for answer in answers} == {200, 204, 400, 401, 403, 404, 405, 409, 413, 415, 422}
    return answers


async def exchange(site: Site, request: bytes) -> bytes:
    """All that the server says to those bytes until it, or the request, closes the connection."""
    host, port = site.url.removeprefix("http://").split(":")
    async with asyncio.timeout(15):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request)
        answer = await reader.read()
    writer.close()
    return answer


async def documents(site: Site, collection: str) -> list[Any]:
    return [document async for document in site.hydra._store.collection(collection).find({})]


def page(name: str) -> str:
    return (ROOT / name).read_text("utf-8")
