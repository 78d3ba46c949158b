"""Hosts with habits of their own: XSRF, debug, error pages, a login, a current user, WebSockets, two databases."""

import asyncio
import json
from typing import Any

import pytest
from support import OpenSite, Site, refused, tokens
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.web import Application, RequestHandler, authenticated
from tornado.websocket import WebSocketHandler, websocket_connect

from hydracore import CurrentUserMixin, HydraCore
from hydracore.plugin import Context, Endpoint, EventListener, Route, events, hookimpl, public

EMAIL = "ada@example.com"


class HostsLogin(RequestHandler):
    """The host's own /login, with its own cookie."""

    def get(self) -> None:
        self.write("the host's own form")

    def post(self) -> None:
        self.set_signed_cookie("host_user", "bob")
        self.write("signed in at the host")


class HostsPage(RequestHandler):
    """A page behind the host's own get_current_user."""

    def get_current_user(self) -> Any:
        cookie = self.get_signed_cookie("host_user")
        return cookie.decode() if cookie else None

    @authenticated
    def get(self) -> None:
        self.write(f"host's {self.current_user}")


class OursInHost(CurrentUserMixin, RequestHandler):
    def get_current_user(self) -> Any:
        return "somebody else"

    def get(self) -> None:
        assert self.current_user
        self.write(self.current_user.email)

    post = get


class Explodes(RequestHandler):
    def get(self) -> None:
        raise KeyError("the host's own trouble")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        self.finish(f"<h1>Host's {status_code}</h1>")


class Missing(RequestHandler):
    def prepare(self) -> None:
        self.set_status(404)
        self.finish("<h1>Host's 404</h1>")

    def check_xsrf_cookie(self) -> None:
        pass


class Echo(CurrentUserMixin, WebSocketHandler):
    async def open(self, *args: str, **kwargs: str) -> None:
        assert self.current_user
        await self.write_message(f"hello {self.current_user.email}")

    async def on_message(self, message: str | bytes) -> None:
        assert self.current_user
        await self.write_message(f"{self.current_user.id} said {message!r}")


class OpenEcho(Echo):
    allow_anonymous = True

    async def open(self, *args: str, **kwargs: str) -> None:
        await self.write_message(self.current_user.email if self.current_user else "stranger")


def busy(hydra: HydraCore) -> Application:
    return Application(
        [
            *hydra.routes("/auth"),
            *hydra.service_routes(),
            ("/login", HostsLogin),
            ("/page", HostsPage),
            ("/ours", OursInHost),
            ("/explodes", Explodes),
            ("/echo", Echo),
            ("/open", OpenEcho),
        ],
        hydracore=hydra,
        xsrf_cookies=True,
        debug=True,
        autoreload=False,
        serve_traceback=True,
        compress_response=True,
        default_handler_class=Missing,
        cookie_secret="the host's own",
        login_url="/login",
    )


async def test_side_by_side(open_site: OpenSite, expected_logs: list[str]) -> None:
    """The host keeps its /login, its users and its error pages; ours keep theirs; neither sees the other's."""
    expected_logs += ["Uncaught exception", "/explodes", "401", "403", "404", "'_xsrf' argument missing"]
    site = await open_site(busy)
    assert (await site.ask("GET", "/login")).body == b"the host's own form"
    assert (await site.ask("GET", "/page")).code == 302
    first = await site.verified()
    bearer = {"Authorization": f"Bearer {first['access_token']}"}
    assert (await site.ask("GET", "/ours", **bearer)).body == EMAIL.encode()
    assert (await site.ask("GET", "/page", **bearer)).code == 302  # Ours is not the host's.
    refused_here = await site.ask("GET", "/ours")
    assert (refused_here.code, json.loads(refused_here.body)["code"]) == (401, "not_authenticated")
    assert (await site.ask("GET", "/explodes")).body == b"<h1>Host's 500</h1>"
    assert (await site.ask("GET", "/nowhere")).body == b"<h1>Host's 404</h1>"
    refused(await site.ask("GET", "/auth/nowhere"), 404, "not_found")
    assert "Content-Encoding" not in (await site.me(first["access_token"])).headers
    # The host's XSRF check is for its own forms, and for the mixin's handlers, which are the host's.
    assert (await site.ask("POST", "/ours", raw=b"", **bearer)).code == 403
    assert (await site.ask("POST", "/login", raw=b"")).code == 403


async def test_faults_of_ours_stay_ours(open_site: OpenSite, expected_logs: list[str]) -> None:
    """In a host with debug on, an error of ours or of a plugin shows no traceback."""
    expected_logs += ["request failed", "plugin failed", "unavailable"]

    @public
    class Broken(Endpoint):
        async def get(self) -> None:
            raise KeyError("secret")

    class Acme:
        def __init__(self, context: Context) -> None:
            pass

        @hookimpl
        def hydracore_register_routes(self) -> list[Route]:
            return [Route("/acme", Broken)]

    site = await open_site(busy, extra={"acme": Acme})
    answer = await site.ask("GET", "/auth/acme")
    refused(answer, 500, "internal_error")
    assert b"secret" not in answer.body
    assert b"Traceback" not in answer.body


async def socket(site: Site, path: str, **headers: str) -> Any:
    request = HTTPRequest(site.url.replace("http", "ws") + path, headers=headers)
    return await websocket_connect(request)


async def test_websockets(open_site: OpenSite, expected_logs: list[str]) -> None:
    """current_user is there in a WebSocket's open and on_message; strangers and the unverified get no socket."""
    expected_logs += ["401", "403"]
    site = await open_site(busy)
    first = await site.register()
    for headers, status in (
        ({}, 401),
        ({"Authorization": "Bearer rubbish"}, 401),
        ({"Authorization": f"Bearer {first['access_token']}"}, 403),
    ):
        with pytest.raises(HTTPClientError) as raised:
            await socket(site, "/echo", **headers)
        assert raised.value.code == status
    body = {"email": EMAIL, "code": await site.box.code(EMAIL)}
    verified = tokens(await site.post("verify-email", body, Authorization=f"Bearer {first['access_token']}"))
    for headers in (
        {"Authorization": f"Bearer {verified['access_token']}"},
        {"Cookie": f"hydracore_access={verified['access_token']}", "Origin": site.url},
    ):
        connection = await socket(site, "/echo", **headers)
        assert await connection.read_message() == f"hello {EMAIL}"
        await connection.write_message("hi")
        assert "said 'hi'" in await connection.read_message()
        connection.close()
    connection = await socket(site, "/open")
    assert await connection.read_message() == "stranger"
    connection.close()


async def test_websockets_of_foreign_pages(open_site: OpenSite, expected_logs: list[str]) -> None:
    """A foreign page opens no socket with the user's cookie."""
    expected_logs.append("403")
    site = await open_site(busy)
    verified = await site.verified()
    headers = {"Cookie": f"hydracore_access={verified['access_token']}", "Origin": "https://evil.example"}
    with pytest.raises(HTTPClientError) as raised:
        await socket(site, "/echo", **headers)
    assert raised.value.code == 403


class Heard:
    """A host's own plugin class, without a distribution."""

    def __init__(self, context: Context) -> None:
        self.heard: list[events.Event] = []

    @hookimpl
    def hydracore_register_event_listeners(self) -> list[EventListener]:
        return [EventListener("heard", self.listen, of=(events.Registered,))]

    async def listen(self, batch: Any) -> None:
        self.heard += batch


async def test_two_with_plugins(open_site: OpenSite) -> None:
    """Two HydraCores in one application, each with its database, its plugins and its prefix, hear their own alone."""
    one = await open_site(extra={"heard": Heard}, store={"database": "host_one"}, tokens={"audience": "one"})
    two = await open_site(extra={"heard": Heard}, store={"database": "host_two"}, tokens={"audience": "two"})
    both = Application([*one.hydra.routes("/one"), *two.hydra.routes("/two")])
    server = both.listen(0, "127.0.0.1")
    port = next(iter(server._sockets.values())).getsockname()[1]
    site = Site(one.hydra, f"http://127.0.0.1:{port}", one.box, one.clock, prefix="/one")
    first = await site.register()
    site.prefix = "/two"
    refused(await site.me(first["access_token"]), 401, "not_authenticated")
    second = await site.register()
    assert (await site.me(second["access_token"])).code == 200
    await asyncio.gather(one.hydra.registry.settle(), two.hydra.registry.settle())
    heard = [each.hydra.registry.loaded["heard"].plugin.heard for each in (one, two)]  # type: ignore[attr-defined]
    assert [len(events_) for events_ in heard] == [1, 1]
    assert heard[0][0].user_id != heard[1][0].user_id
    server.stop()
    await server.close_all_connections()
