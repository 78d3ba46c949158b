"""404, 405, 413, 415, 500, 503: one shape, in every host."""

import asyncio
import json

import pytest
from support import HOSTS, OpenSite, Site, refused

from hydracore.web.routes import AUTH, SERVICE

READ = "GET, HEAD, OPTIONS"
OTHERS = {
    "/me": "GET, HEAD, DELETE, OPTIONS",
    "/me/export": READ,
    "/sessions": READ,
    "/sessions/{session_id}": "DELETE, OPTIONS",
}
POSTS = [path for path in AUTH if path not in OTHERS]


@pytest.mark.parametrize("host", HOSTS)
async def test_nothing_here(open_site: OpenSite, host: str) -> None:
    """Unknown paths under the prefix are our JSON 404, whatever the host's own 404 is."""
    site = await open_site(HOSTS[host])
    for path in ("/auth", "/auth/", "/auth/nowhere", "/auth/login/", "/auth//login", "/auth/me/x"):
        for method in ("GET", "POST", "DELETE", "PUT", "PATCH"):
            refused(await site.ask(method, path, raw=b"{}"), 404, "not_found")


async def test_nothing_else_alone(site: Site) -> None:
    """Standing alone, every other path is our JSON 404."""
    for path in ("/", "/favicon.ico", "/authx", "//auth/login", "/AUTH/login", "/health"):
        refused(await site.ask("GET", path), 404, "not_found")


async def test_host_keeps_its_own_404(open_site: OpenSite, expected_logs: list[str]) -> None:
    """Paths beside the prefix are the host's."""
    expected_logs.append("tornado.access: 404 GET /nowhere")
    site = await open_site(HOSTS["hostile"])
    answer = await site.ask("GET", "/nowhere")
    assert (answer.code, answer.body) == (404, b"<h1>Not our JSON</h1>")


async def test_methods(site: Site) -> None:
    """Another method is 405 with Allow, before any 401."""
    for path in POSTS:
        for method in ("GET", "PUT", "DELETE", "PATCH", "HEAD"):
            answer = await site.ask(method, f"/auth{path}", raw=b"" if method in ("PUT", "PATCH") else None)
            assert answer.headers["Allow"] == "POST, OPTIONS"
            if method != "HEAD":
                refused(answer, 405, "method_not_allowed")
    for path, allow in {**OTHERS, **dict.fromkeys(SERVICE, READ)}.items():
        answer = await site.ask("POST", path if path in SERVICE else f"/auth{path}", body={})
        refused(answer, 405, "method_not_allowed")
        assert answer.headers["Allow"] == allow
    answer = await site.ask("OPTIONS", "/auth/login")
    assert (answer.code, answer.headers["Allow"]) == (204, "POST, OPTIONS")
    answer = await site.ask("BREW", "/auth/login")
    refused(answer, 405, "method_not_allowed")


@pytest.mark.parametrize("host", HOSTS)
async def test_failures_say_nothing(
    open_site: OpenSite, host: str, monkeypatch: pytest.MonkeyPatch, expected_logs: list[str]
) -> None:
    """A defect of ours is 500 without its cause, in a debugging host too; the log has the trace."""
    expected_logs.append("request failed")
    site = await open_site(HOSTS[host])

    async def broken(*args: object) -> None:
        raise RuntimeError("the cause with a secret")

    monkeypatch.setattr(site.hydra.services.store.users, "by_address", broken)
    answer = await site.post("login", {"email": "ada@example.com", "password": "x"})
    refused(answer, 500, "internal_error")
    assert b"secret" not in answer.body
    assert b"Traceback" not in answer.body


async def test_headers(site: Site) -> None:
    """Every answer has its id and the security headers, and does not say what serves."""
    for answer in (await site.ask("GET", "/health/live"), await site.post("login", {}), await site.ask("GET", "/x")):
        assert len(answer.headers["X-Request-Id"]) == 16
        assert answer.headers["Cache-Control"] == "no-store"
        assert (
            answer.headers["Content-Security-Policy"] == "default-src 'none'; base-uri 'none'; frame-ancestors 'none'"
        )
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert "Server" not in answer.headers
        assert "Etag" not in answer.headers


async def test_me_without_a_token(site: Site) -> None:
    """Without a token /auth/me is 401 with a Bearer challenge."""
    answer = await site.ask("GET", "/auth/me")
    refused(answer, 401, "not_authenticated")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="hydracore"'


async def test_health(site: Site) -> None:
    """live and ready answer GET and HEAD."""
    assert json.loads((await site.ask("GET", "/health/live")).body) == {"status": "live"}
    assert json.loads((await site.ask("GET", "/health/ready")).body) == {"status": "ready"}
    assert (await site.ask("HEAD", "/health/ready")).code == 200


async def test_not_ready_without_an_index(
    open_site: OpenSite, expected_logs: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """ready is 503 and names the index that is missing, in the log too, and under the request's id."""
    expected_logs.append("unavailable")
    site = await open_site(store={"database": "hydracore_unready"})
    await site.hydra._store.collection("users").drop_index("address_key_1")
    answer = await site.ask("GET", "/health/ready")
    assert answer.code == 503
    body = json.loads(answer.body)
    assert (body["status"], body["code"]) == ("not ready", "not_ready")
    assert "users.address_key_1" in body["detail"]
    assert answer.headers["Retry-After"]
    request_id = answer.headers["X-Request-Id"]
    [line] = [vars(record) for record in caplog.records if record.message == "unavailable"]
    assert (line["request_id"], line["reason"]) == (request_id, body["detail"])
    await site.hydra._refusals.flush()
    services = site.hydra.services
    [kept] = await services.store.refusals.of_request(request_id, services.now())
    assert (kept.code, kept.why["reason"]) == ("not_ready", body["detail"])
    await site.hydra._store.ensure()


async def test_request_ids_from_trusted_proxies(open_site: OpenSite, site: Site) -> None:
    """A trusted proxy's well-formed request id is kept; a stranger's is not."""
    behind = await open_site(server={"trusted_proxies": ["127.0.0.1"]})
    assert (await behind.ask("GET", "/health/live", X_Request_Id="abc-1")).headers["X-Request-Id"] == "abc-1"
    assert (await behind.ask("GET", "/health/live", X_Request_Id="a b<>")).headers["X-Request-Id"] != "a b<>"
    assert (await site.ask("GET", "/health/live", X_Request_Id="abc-1")).headers["X-Request-Id"] != "abc-1"


async def test_no_key_is_no_key_set(site: Site, expected_logs: list[str]) -> None:
    """While there is no key, the key set is 503 and not an empty one that caches would keep."""
    expected_logs.append("unavailable")
    keys = site.hydra.services.keys
    ring, keys._ring = keys._ring, ()
    answer = await site.ask("GET", "/.well-known/jwks.json")
    refused(answer, 503, "keys_unavailable")
    assert answer.headers["Cache-Control"] == "no-store"
    keys._ring = ring


async def test_readiness_is_asked_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ask at once whether it is ready, the database is asked once."""
    asked = 0
    really = site.hydra._store.not_ready

    async def counted() -> str:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.1)
        return await really()

    monkeypatch.setattr(site.hydra._store, "not_ready", counted)
    answers = await asyncio.gather(*(site.ask("GET", "/health/ready") for _ in range(50)))
    assert {answer.code for answer in answers} == {200}
    assert asked == 1
