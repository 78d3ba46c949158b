"""Cookies, and the requests of browsers."""

import json
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookies import SimpleCookie

import pytest
from support import HOSTS, PASSWORD, OpenSite, Site, refused, tokens
from tornado.httpclient import HTTPResponse

EMAIL = "ada@example.com"
LOGIN = {"email": EMAIL, "password": PASSWORD}


def jar(answer: HTTPResponse) -> SimpleCookie:
    cookies = SimpleCookie()
    for header in answer.headers.get_list("Set-Cookie"):
        cookies.load(header)
    return cookies


def sent(cookies: SimpleCookie) -> str:
    return "; ".join(f"{name}={morsel.value}" for name, morsel in cookies.items())


async def test_attributes_over_http(site: Site) -> None:
    """Over http the cookies are HttpOnly and SameSite=Lax, for the whole site, as long as their tokens live."""
    cookies = jar(await site.post("register", LOGIN))
    assert set(cookies) == {"hydracore_access", "hydracore_refresh"}
    for morsel in cookies.values():
        assert (morsel["httponly"], morsel["samesite"], morsel["path"]) == (True, "Lax", "/")
        assert not morsel["domain"]
        assert not morsel["secure"]
    assert cookies["hydracore_access"]["max-age"] == "1800"
    assert 1209590 <= int(cookies["hydracore_refresh"]["max-age"]) <= 1209600


async def test_attributes_over_https(open_site: OpenSite) -> None:
    """When the public URL is https they are Secure and __Host-, and HSTS is sent."""
    site = await open_site(public_url="https://id.example.com", cookies={"same_site": "strict"})
    answer = await site.post("register", LOGIN)
    cookies = jar(answer)
    assert set(cookies) == {"__Host-hydracore_access", "__Host-hydracore_refresh"}
    for morsel in cookies.values():
        assert (morsel["secure"], morsel["samesite"], morsel["path"]) == (True, "Strict", "/")
        assert len(morsel.OutputString()) < 4096
    assert "max-age" in answer.headers["Strict-Transport-Security"]
    assert (await site.ask("GET", "/auth/me", Cookie=sent(cookies))).code == 200


async def test_signed_in_by_cookie(site: Site) -> None:
    """A browser needs its cookies alone: me, refresh and logout work by them, and logout clears them."""
    await site.register()
    cookies = jar(await site.post("login", LOGIN))
    assert json.loads((await site.ask("GET", "/auth/me", Cookie=sent(cookies))).body)["email"] == EMAIL
    refreshed = await site.post("refresh", {}, Cookie=sent(cookies))
    tokens(refreshed)
    newer = jar(refreshed)
    assert newer["hydracore_refresh"].value != cookies["hydracore_refresh"].value
    assert (await site.ask("GET", "/auth/me", Cookie=sent(newer))).code == 200
    gone = await site.post("logout", {}, Cookie=sent(newer))
    assert gone.code == 204
    for morsel in jar(gone).values():
        assert not morsel.value
        assert parsedate_to_datetime(morsel["expires"]) < datetime.now(UTC)
        assert (morsel["httponly"], morsel["path"]) == (True, "/")
    refused(await site.ask("GET", "/auth/me", Cookie=sent(newer)), 401, "not_authenticated")
    refused(await site.post("refresh", {}, Cookie=sent(newer)), 401, "invalid_refresh_token")


async def test_body_tokens_bring_no_cookie(site: Site) -> None:
    """A refresh token in the body is answered in the body alone, even when a cookie came along."""
    first = await site.register()
    cookies = jar(await site.post("login", LOGIN))
    answer = await site.post("refresh", {"refresh_token": first["refresh_token"]}, Cookie=sent(cookies))
    tokens(answer)
    assert "Set-Cookie" not in answer.headers


async def test_bearer_wins_over_the_cookie(site: Site) -> None:
    """With both, the Authorization header says who it is."""
    await site.register()
    eve = await site.register("eve@example.com")
    cookies = jar(await site.post("login", LOGIN))
    answer = await site.ask("GET", "/auth/me", Cookie=sent(cookies), Authorization=f"Bearer {eve['access_token']}")
    assert json.loads(answer.body)["email"] == "eve@example.com"


async def test_tokens_in_cookies_alone(open_site: OpenSite) -> None:
    """With cookies.tokens_in_body off, bodies of browsers hold no token; /auth/token still answers them."""
    site = await open_site(cookies={"tokens_in_body": False})
    answer = await site.post("register", LOGIN)
    assert set(json.loads(answer.body)) == {"email_verified", "expires_in", "token_type"}
    assert set(jar(answer)) == {"hydracore_access", "hydracore_refresh"}
    basic = "Basic YWRhQGV4YW1wbGUuY29tOmNvcnJlY3QgaG9yc2UgYmF0dGVyeSBzdGFwbGU="
    tokens(await site.ask("POST", "/auth/token", raw=b"", Authorization=basic))


FOREIGN = [
    {"Sec_Fetch_Site": "cross-site", "Origin": "https://evil.example"},
    {"Sec_Fetch_Site": "cross-site"},
    {"Sec_Fetch_Site": "same-site", "Origin": "https://sibling.example.com"},
    {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"},
    {"Sec_Fetch_Site": "nonsense"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1.evil.example"},
    {"Origin": "http://["},
    {"Origin": "https://["},
    {"Origin": "://"},
    {"Origin": "\u00e9"},
]


@pytest.mark.parametrize("headers", FOREIGN)
async def test_other_sites_pages(site: Site, headers: dict[str, str]) -> None:
    """What another site's page sends is refused before it does anything, sign-in included."""
    await site.register()
    cookies = jar(await site.post("login", LOGIN))
    calls = {"login": LOGIN, "register": {**LOGIN, "email": "eve@example.com"}, "refresh": {}, "logout": {}}
    for call, body in calls.items():
        answer = await site.post(call, body, Cookie=sent(cookies), **headers)
        refused(answer, 403, "cross_origin")
        assert "Set-Cookie" not in answer.headers
        assert "Access-Control-Allow-Origin" not in answer.headers
    assert (await site.ask("GET", "/auth/me", Cookie=sent(cookies))).code == 200


async def test_our_own_pages(site: Site) -> None:
    """Our own pages pass, by Sec-Fetch-Site or by Origin; so does what no browser sent."""
    await site.register()
    for headers in (
        {},
        {"Sec_Fetch_Site": "same-origin", "Origin": site.url},
        {"Sec_Fetch_Site": "none"},
        {"Origin": site.url},
        {"Origin": site.hydra.config.origin},
    ):
        tokens(await site.post("login", LOGIN, **headers))


async def test_configured_origins(open_site: OpenSite) -> None:
    """A configured origin's pages may call, with CORS; no other origin is told that it may."""
    site = await open_site(server={"allowed_origins": ["https://app.example.com"]})
    await site.register()
    headers = {"Origin": "https://app.example.com", "Sec_Fetch_Site": "same-site"}
    answer = await site.post("login", LOGIN, **headers)
    tokens(answer)
    assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example.com"
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert "Origin" in answer.headers["Vary"]
    preflight = await site.ask("OPTIONS", "/auth/login", Origin="https://app.example.com")
    assert preflight.code == 204
    assert "Content-Type" in preflight.headers["Access-Control-Allow-Headers"]
    refusal = await site.post("login", {"email": EMAIL, "password": "wrong"}, **headers)
    assert refusal.headers["Access-Control-Allow-Origin"] == "https://app.example.com"
    refused(await site.post("login", LOGIN, Origin="https://app.example.com.evil.example"), 403, "cross_origin")


@pytest.mark.parametrize("host", ["mounted", "hostile"])
async def test_host_pages(open_site: OpenSite, host: str, expected_logs: list[str]) -> None:
    """A host's handlers are for verified users unless they say otherwise; refusals are our JSON."""
    expected_logs += ["/page", "/open"]
    site = await open_site(HOSTS[host])
    assert json.loads((await site.ask("GET", "/page")).body)["code"] == "not_authenticated"
    first = await site.register()
    bearer = {"Authorization": f"Bearer {first['access_token']}"}
    answer = await site.ask("GET", "/page", **bearer)
    assert (answer.code, json.loads(answer.body)["code"]) == (403, "email_not_verified")
    assert (await site.ask("GET", "/open", **bearer)).body == b"<p>Hello ada@example.com"
    body = {"email": EMAIL, "code": await site.box.code(EMAIL)}
    verified = await site.post("verify-email", body, **bearer)
    # The old token still says that the address is not proven.
    assert (await site.ask("GET", "/page", **bearer)).code == 403
    newer = {"Authorization": f"Bearer {tokens(verified)['access_token']}"}
    assert (await site.ask("GET", "/page", **newer)).body == b"<p>Hello ada@example.com"
    cookies = sent(jar(verified))
    assert (await site.ask("GET", "/page", Cookie=cookies)).code == 200
    # A link from elsewhere to a page is no forgery; a POST from elsewhere is.
    assert (await site.ask("GET", "/page", Cookie=cookies, Sec_Fetch_Site="cross-site")).code == 200
    if host == "mounted":
        foreign = await site.ask("POST", "/page", raw=b"", Cookie=cookies, Sec_Fetch_Site="cross-site")
        assert (foreign.code, json.loads(foreign.body)["code"]) == (403, "cross_origin")
        assert (await site.ask("POST", "/page", raw=b"", Cookie=cookies, Sec_Fetch_Site="same-origin")).code == 200


@pytest.mark.parametrize("value", ["", "x", "a" * 6000, '"quoted"', "%00", "{}", "..."])
async def test_rubbish_cookies(site: Site, value: str) -> None:
    """Rubbish in the cookies is no token: 401, and nothing else happens."""
    cookie = f"hydracore_access={value}; hydracore_refresh={value}"
    refused(await site.ask("GET", "/auth/me", Cookie=cookie), 401, "not_authenticated")
    refused(await site.post("refresh", {}, Cookie=cookie), 401, "invalid_refresh_token")
    assert (await site.post("logout", {}, Cookie=cookie)).code == 204
