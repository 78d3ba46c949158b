"""HydraCore in other people's applications."""

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest
from support import PASSWORD, SECRET, MailBox, OpenSite, Page, refused, tokens
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from hydracore import CurrentUserMixin, EmailNotVerified, HydraCore, HydraError, NotAuthenticated, StartupError
from hydracore.config import load
from hydracore.errors import StoreUnavailable
from hydracore.models import Refusal

EMAIL = "ada@example.com"


class Anyone(CurrentUserMixin, RequestHandler):
    allow_anonymous = True
    allow_unverified = True

    def get(self) -> None:
        self.write(self.current_user.email if self.current_user else "stranger")


class WithPrepare(CurrentUserMixin, RequestHandler):
    async def prepare(self) -> None:
        await super().prepare()
        if not self._finished:
            self.set_header("X-Prepared", "yes")

    def get(self) -> None:
        self.write("page")


async def test_another_prefix_and_opting_out(open_site: OpenSite) -> None:
    """The API moves with its prefix; a handler may let anyone in and still know who it is; prepare chains."""

    def host(hydra: HydraCore) -> Application:
        rules = [*hydra.routes("/api/v1/auth"), *hydra.service_routes(), ("/", Anyone), ("/page", WithPrepare)]
        return Application(rules, hydracore=hydra)

    site = await open_site(host)
    site.prefix = "/api/v1/auth"
    assert (await site.ask("GET", "/")).body == b"stranger"
    first = await site.register()
    bearer = {"Authorization": f"Bearer {first['access_token']}"}
    assert (await site.ask("GET", "/", **bearer)).body == EMAIL.encode()
    assert (await site.ask("GET", "/", Authorization="Bearer rubbish")).body == b"stranger"
    assert (await site.ask("GET", "/health/ready")).code == 200
    assert (await site.ask("GET", "/.well-known/jwks.json")).code == 200
    body = {"email": EMAIL, "code": await site.box.code(EMAIL)}
    verified = tokens(await site.post("verify-email", body, **bearer))
    answer = await site.ask("GET", "/page", Authorization=f"Bearer {verified['access_token']}")
    assert (answer.body, answer.headers["X-Prepared"]) == (b"page", "yes")


async def test_authenticate_anywhere(open_site: OpenSite, expected_logs: list[str]) -> None:
    """authenticate() says who makes a request, or raises what is wrong."""
    expected_logs.append("/who")
    seen: list[object] = []

    class Who(RequestHandler):
        async def get(self) -> None:
            hydra: HydraCore = self.settings["hydracore"]
            request: HTTPServerRequest = self.request
            try:
                seen.append((await hydra.authenticate(request)).email)
            except (NotAuthenticated, EmailNotVerified) as error:
                seen.append(type(error))

    site = await open_site(lambda hydra: Application([*hydra.routes(), ("/who", Who)], hydracore=hydra))
    first = await site.register()
    await site.ask("GET", "/who")
    await site.ask("GET", "/who", Authorization=f"Bearer {first['access_token']}")
    body = {"email": EMAIL, "code": await site.box.code(EMAIL)}
    verified = tokens(await site.post("verify-email", body, Authorization=f"Bearer {first['access_token']}"))
    await site.ask("GET", "/who", Authorization=f"Bearer {verified['access_token']}")
    assert seen == [NotAuthenticated, EmailNotVerified, EMAIL]


class Asks(RequestHandler):
    """A handler without the mixin."""

    async def get(self) -> None:
        hydra: HydraCore = self.settings["hydracore"]
        try:
            self.write((await hydra.authenticate(self.request)).email)
        except HydraError as error:
            hydra.refuse(self, error)


@pytest.mark.parametrize("path", ["/page", "/asks"])
async def test_refusals_of_a_host_are_explained(
    open_site: OpenSite, expected_logs: list[str], monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """What the mixin refuses, or refuse() after authenticate(), has the shape and the headers of our own refusals; its
    request id, a trusted proxy's or ours, is known to ``hydracore explain``. A 503 is in the log under it."""
    expected_logs += [path, "unavailable"]

    def host(hydra: HydraCore) -> Application:
        return Application([*hydra.routes(), ("/page", Page), ("/asks", Asks)], hydracore=hydra)

    site = await open_site(host, server={"trusted_proxies": ["127.0.0.1"]})
    services = site.hydra.services
    bearer = {"Authorization": f"Bearer {(await site.register())['access_token']}"}

    async def explained(answer: HTTPResponse, status: int, code: str) -> Refusal:
        refused(answer, status, code)
        await site.hydra._refusals.flush()
        [kept] = await services.store.refusals.of_request(answer.headers["X-Request-Id"], services.now())
        assert (kept.status, kept.code, kept.call, kept.network) == (status, code, f"GET {path}", "127.0.0.1")
        return kept

    stranger = await explained(await site.ask("GET", path), 401, "not_authenticated")
    assert stranger.why == {"reason": "no access token came"}
    await explained(await site.ask("GET", path, **bearer), 403, "email_not_verified")
    asked = await site.ask("GET", path, X_Request_Id="the-proxys-1")
    assert (await explained(asked, 401, "not_authenticated")).request_id == "the-proxys-1"

    async def away(*arguments: object, **more: object) -> None:
        raise StoreUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(services.store.sessions, "live_with_user", away)
        answer = await site.ask("GET", path, **bearer)
    await explained(answer, 503, "store_unavailable")


async def test_two_in_one_process(open_site: OpenSite) -> None:
    """Two HydraCores with databases of their own share nothing: users, keys, tokens, plugins."""
    one = await open_site(store={"database": "two_a"}, tokens={"audience": "a"})
    two = await open_site(store={"database": "two_b"}, tokens={"audience": "b"})
    first = await one.register()
    refused(await two.me(first["access_token"]), 401, "not_authenticated")
    refused(await two.post("login", {"email": EMAIL, "password": PASSWORD}), 401, "invalid_credentials")
    refused(await two.post("refresh", {"refresh_token": first["refresh_token"]}), 401, "invalid_refresh_token")
    await two.register()
    assert len(one.box.letters) <= 1
    await one.box.code(EMAIL)
    await two.box.code(EMAIL)
    assert one.hydra.registry is not two.hydra.registry


async def test_its_own_mongod(tmp_path: Path, mongod_uri: str, expected_logs: list[str]) -> None:
    """Without a database of one's own it starts one, starts it again when it dies, and takes it along at the end."""
    expected_logs += ["mongod died", "does not answer", "outbox cannot be read", "limit backend failed", "unavailable"]
    expected_logs += ["mail left for later", "mail deferred"]
    values = {"data_dir": str(tmp_path / "data"), "password": {"profile": "testing"}, "store": {"timeout": 1}}
    box = MailBox()
    config = load(environment={}, overrides={**values, "mail": {"transport": "box"}})
    sockets = bind_sockets(0, "127.0.0.1")
    url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}/auth/"
    headers = {"Content-Type": "application/json"}
    body = json.dumps({"email": EMAIL, "password": PASSWORD})

    async def ask(call: str) -> int:
        answer = await AsyncHTTPClient().fetch(url + call, method="POST", body=body, headers=headers, raise_error=False)
        return answer.code

    async with HydraCore(config, plugins={"box": box.plugin}) as hydra:
        server = HTTPServer(Application(hydra.routes()))
        server.add_sockets(sockets)
        assert await ask("register") == 201
        assert hydra._mongod
        os.kill(hydra._mongod.pid, signal.SIGKILL)
        codes = set()
        for _ in range(200):
            codes.add(code := await ask("login"))
            if code == 200:
                break
            await asyncio.sleep(0.05)
        assert code == 200
        assert codes <= {200, 503}
        pid = hydra._mongod.pid
        server.stop()
        await server.close_all_connections()
    assert not Path(f"/proc/{pid}").exists()
    assert (tmp_path / "data/secret").stat().st_mode & 0o777 == 0o600


async def test_a_damaged_secret(tmp_path: Path, mongod_uri: str) -> None:
    """A secret file that is not whole, or is gone from beside its database, stops the start with the remedy before
    there is a mongod; no other secret takes its place."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "secret").write_text("short")
    hydra = HydraCore(load(environment={}, overrides={"data_dir": str(data)}))
    with pytest.raises(StartupError, match="not whole"):
        await hydra.__aenter__()
    assert hydra._mongod is None
    (data / "secret").unlink()
    (data / "db").mkdir()
    (data / "db" / "WiredTiger").write_text("")
    with pytest.raises(StartupError, match="is missing"):
        await hydra.__aenter__()
    assert hydra._mongod is None
    assert not (data / "secret").exists()


async def test_memory_by_name(expected_logs: list[str]) -> None:
    """store.driver = "memory" needs no database, and forgets."""
    expected_logs.append("nothing is kept")
    config = load(environment={}, overrides={"store": {"driver": "memory"}, "password": {"profile": "testing"}})
    async with HydraCore(config) as hydra:
        assert await hydra.not_ready() == ""


@pytest.mark.parametrize("driver", ["memory", "motor"])
async def test_the_story_on_other_drivers(open_site: OpenSite, driver: str) -> None:
    """The other drivers serve the whole story."""
    settings = {"store": {"driver": driver}, "secret": SECRET}
    site = await open_site(**{"driver": driver} if driver == "memory" else settings)
    verified = await site.verified()
    newer = tokens(await site.post("refresh", {"refresh_token": verified["refresh_token"]}))
    await site.post("forgot-password", {"email": EMAIL})
    reset = {"token": await site.box.reset_token(EMAIL), "new_password": "an entirely new password"}
    assert (await site.post("reset-password", reset)).code == 200
    refused(await site.me(newer["access_token"]), 401, "not_authenticated")
    tokens(await site.post("login", {"email": EMAIL, "password": "an entirely new password"}))
