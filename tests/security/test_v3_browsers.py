"""ASVS 5.0, V3: what concerns the browsers that an API answers."""

import json
from typing import Any

import pytest
from asking import CALLS, EMAIL, LOGIN, WRONG, basic, documents, every_answer, jar, log_in, sent
from support import OpenSite, Site, refused, tokens

from hydracore.plugin import Context, hookimpl

HTTPS = "https://id.example.com"
FOREIGN: list[dict[str, str]] = [
    {"Sec_Fetch_Site": "cross-site", "Origin": "https://evil.example"},
    {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"},
    {"Sec_Fetch_Site": "same-site", "Origin": "https://sibling.example.com"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
]


async def test_v3_1_1_older_browsers(site: Site) -> None:
    """A browser that does not send Sec-Fetch-Site is judged by its Origin; what sends neither, and has no say over the
    body's type, as a form, gets nothing done."""
    await site.register()
    cookies = sent(jar(await log_in(site)))
    refused(await site.post("logout", {}, Cookie=cookies, Origin="https://evil.example"), 403, "cross_origin")
    tokens(await log_in(site, Origin=site.url))
    answer = await site.ask("POST", "/auth/logout", raw=b"{}", Content_Type="text/plain", Cookie=cookies)
    refused(answer, 415, "unsupported_media_type")
    assert (await site.ask("GET", "/auth/me", Cookie=cookies)).code == 200
    assert (await site.post("logout", {}, Cookie=cookies)).code == 204


async def test_v3_2_1_never_a_document(site: Site) -> None:
    """Whatever is asked, the answer is JSON that must not be sniffed, and a browser that shows it runs and loads
    nothing."""
    for answer in await every_answer(site):
        assert answer.headers.get("Content-Type", "application/json").startswith("application/json")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    page = await site.ask("GET", "/auth/<script>alert(1)</script>", Accept="text/html")
    assert refused(page, 404, "not_found")
    assert b"<script" not in page.body


async def every_cookie(site: Site) -> list[Any]:
    """Those of each call that sets or clears one."""
    answers = [await site.post("register", LOGIN), await log_in(site)]
    answers.append(await site.post("refresh", {}, Cookie=sent(jar(answers[1]))))
    answers.append(await site.post("verify-email", {"email": EMAIL, "code": await site.box.code(EMAIL)}))
    answers.append(await site.post("logout", {}, Cookie=sent(jar(answers[3]))))
    assert [answer.code for answer in answers] == [201, 200, 200, 200, 204]
    cookies = [morsel for answer in answers for morsel in jar(answer).values()]
    assert len(cookies) == 10
    return cookies


async def test_v3_3_1_secure(open_site: OpenSite) -> None:
    """Under https every cookie is Secure, the cleared ones too."""
    for morsel in await every_cookie(await open_site(public_url=HTTPS)):
        assert morsel["secure"] is True
        assert morsel.key.startswith("__Host-")


@pytest.mark.parametrize("same_site", ["Lax", "Strict"])
async def test_v3_3_2_same_site(open_site: OpenSite, same_site: str) -> None:
    """Every cookie says SameSite: Lax unless the deployer says otherwise."""
    settings = {"cookies": {"same_site": "strict"}} if same_site == "Strict" else {}
    for morsel in await every_cookie(await open_site(public_url=HTTPS, **settings)):
        assert morsel["samesite"] == same_site


async def test_v3_3_3_host_prefix(open_site: OpenSite) -> None:
    """Under https the names begin with __Host-, with the path / and no domain, and the same names without it, which a
    sibling's page could plant, count for nothing."""
    site = await open_site(public_url=HTTPS)
    cookies = await every_cookie(site)
    assert {morsel.key for morsel in cookies} == {"__Host-hydracore_access", "__Host-hydracore_refresh"}
    for morsel in cookies:
        assert (morsel["path"], morsel["domain"]) == ("/", "")
    mine = jar(await log_in(site))
    planted = sent(mine).replace("__Host-", "")
    assert (await site.ask("GET", "/auth/me", Cookie=sent(mine))).code == 200
    refused(await site.ask("GET", "/auth/me", Cookie=planted), 401, "not_authenticated")
    refused(await site.post("refresh", {}, Cookie=planted), 401, "invalid_refresh_token")


async def test_v3_3_4_http_only(open_site: OpenSite) -> None:
    """Every cookie is HttpOnly, and with cookies.tokens_in_body off no answer to a browser has a token in its body."""
    site = await open_site(public_url=HTTPS, cookies={"tokens_in_body": False})
    for morsel in await every_cookie(site):
        assert morsel["httponly"] is True
    values = [morsel.value for answer in site.answers for morsel in jar(answer).values() if morsel.value]
    assert len(values) == 8
    cookies = sent(jar(site.answers[1]))
    await site.ask("GET", "/auth/me", Cookie=cookies)
    for answer in site.answers:
        said = answer.body.decode()
        assert "access_token" not in said
        assert "refresh_token" not in said
        assert not [value for value in values if value in said]


class Claims:
    """Adds as much to each token as the core takes."""

    def __init__(self, context: Context) -> None:
        pass

    @hookimpl
    async def hydracore_before_issue_token(self) -> dict[str, str]:
        return {"claims:note": "x" * 2000}


async def test_v3_3_5_small_enough(open_site: OpenSite) -> None:
    """Name and value of each cookie have at most 4096 bytes, with the longest signature and all the claims that plugins
    may add."""
    site = await open_site(
        public_url=HTTPS,
        extra={"claims": Claims},
        tokens={"algorithm": "RS256"},
        store={"database": "hydracore_claims"},
    )
    cookies = await every_cookie(site)
    sizes = [len(morsel.key) + len(morsel.coded_value) for morsel in cookies]
    assert 3000 < max(sizes) <= 4096


async def test_v3_4_1_hsts(open_site: OpenSite) -> None:
    """Under https every answer, refusals included, has HSTS for a year at least."""
    for answer in await every_answer(await open_site(public_url=HTTPS)):
        directives = answer.headers["Strict-Transport-Security"].replace(" ", "").split(";")
        [age] = [part.removeprefix("max-age=") for part in directives if part.startswith("max-age=")]
        assert int(age) >= 31_536_000


async def test_v3_4_2_cors(open_site: OpenSite) -> None:
    """Only a configured origin is named in Access-Control-Allow-Origin, whole and with Vary; a star stands on the
    published keys alone, and without credentials."""
    mine = "https://app.example.com"
    site = await open_site(server={"allowed_origins": [mine]})
    await site.register()
    answer = await log_in(site, Origin=mine)
    assert answer.headers.get_list("Access-Control-Allow-Origin") == [mine]
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert answer.headers["Vary"] == "Origin"
    for origin in (
        "https://evil.example",
        "null",
        f"{mine}.evil.example",
        "http://app.example.com",
        f"{mine}:444",
        "*",
    ):
        for answer in (
            await log_in(site, Origin=origin),
            await site.ask("GET", "/auth/me", Origin=origin),
            await site.ask("OPTIONS", "/auth/login", Origin=origin, Access_Control_Request_Method="POST"),
        ):
            assert "Access-Control-Allow-Origin" not in answer.headers
            assert "Access-Control-Allow-Credentials" not in answer.headers
    keys = await site.ask("GET", "/.well-known/jwks.json", Origin="https://anyone.example")
    assert keys.headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in keys.headers


async def test_v3_4_4_nosniff(site: Site) -> None:
    """Every answer says nosniff."""
    for answer in await every_answer(site):
        assert answer.headers.get_list("X-Content-Type-Options") == ["nosniff"]


async def test_v3_4_5_referrer(site: Site) -> None:
    """Every answer says no-referrer, and a mailed link has its token in the fragment, which no Referer shows."""
    for answer in await every_answer(site):
        assert answer.headers.get_list("Referrer-Policy") == ["no-referrer"]
    letter = await site.box.letter(EMAIL, about="Set a new")
    [link] = [word for word in letter.split() if word.startswith("http")]
    assert "token" not in link.partition("#")[0]
    assert "#token=" in link


async def test_v3_4_6_no_frames(site: Site) -> None:
    """Every answer forbids to be framed, by Content-Security-Policy."""
    for answer in await every_answer(site):
        [policy] = answer.headers.get_list("Content-Security-Policy")
        assert "frame-ancestors 'none'" in [part.strip() for part in policy.split(";")]


@pytest.mark.parametrize("headers", FOREIGN)
async def test_v3_5_1_other_sites(site: Site, headers: dict[str, str]) -> None:
    """What another site's page has a browser send is refused, with the user's cookies or before there are any."""
    await site.register()
    await site.box.letter(EMAIL)  # With it its code is there, which is not made by the registration itself.
    cookies = sent(jar(await log_in(site)))
    before = [await documents(site, name) for name in ("users", "sessions")]
    for call, body in CALLS.items():
        refused(await site.post(call, body, Cookie=cookies, **headers), 403, "cross_origin")
    refused(await site.ask("POST", "/auth/token", raw=b"", Cookie=cookies, **basic(), **headers), 403, "cross_origin")
    assert [await documents(site, name) for name in ("users", "sessions")] == before
    assert (await site.ask("GET", "/auth/me", Cookie=cookies)).code == 200


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
)
async def test_v3_5_2_no_call_without_preflight(site: Site, media_type: str) -> None:
    """A body of a type that a form may send without a preflight is refused by every call, though it holds JSON; a
    tool's sign-in takes nothing but an Authorization header, which is never sent without one."""
    await site.register()
    cookies = sent(jar(await log_in(site)))
    for call, body in CALLS.items():
        raw = json.dumps(body).encode()
        answer = await site.ask("POST", f"/auth/{call}", raw=raw, Content_Type=media_type, Cookie=cookies)
        refused(answer, 415, "unsupported_media_type")
        assert "Set-Cookie" not in answer.headers
    for raw in (json.dumps(LOGIN).encode(), b"email=ada@example.com&password=correct+horse+battery+staple"):
        answer = await site.ask("POST", "/auth/token", raw=raw, Content_Type=media_type, Cookie=cookies)
        refused(answer, 401, "invalid_credentials")
    assert (await site.ask("GET", "/auth/me", Cookie=cookies)).code == 200


async def test_v3_5_3_nothing_by_get(site: Site) -> None:
    """No safe method signs in, ends or changes anything, whatever its query and body say."""
    await site.register()
    await site.box.letter(EMAIL)  # With it its code is there, which is not made by the registration itself.
    cookies = sent(jar(await log_in(site)))
    before = [await documents(site, name) for name in ("users", "sessions", "codes")]
    for call, body in CALLS.items():
        query = "&".join(f"{name}={value.replace(' ', '+')}" for name, value in body.items())
        for method in ("GET", "HEAD"):
            answer = await site.ask(method, f"/auth/{call}?{query}&_method=POST", Cookie=cookies, **basic())
            assert answer.code == 405
            override = {"X_HTTP_Method_Override": "POST", "X_HTTP_Method": "POST"}
            assert (await site.ask(method, f"/auth/{call}?{query}", Cookie=cookies, **override)).code == 405
        answer = await site.ask("OPTIONS", f"/auth/{call}?{query}", Cookie=cookies)
        assert (answer.code, answer.body) == (204, b"")
    assert [await documents(site, name) for name in ("users", "sessions", "codes")] == before
    assert (await site.ask("GET", "/auth/me", Cookie=cookies)).code == 200


async def test_v3_5_6_no_jsonp(site: Site) -> None:
    """A callback that a query names wraps no answer."""
    await site.register()
    cookies = sent(jar(await log_in(site)))
    for path in ("/auth/me", "/health/live", "/.well-known/jwks.json", "/auth/nowhere"):
        plain = await site.ask("GET", path, Cookie=cookies)
        for name in ("callback", "jsonp", "cb", "_callback"):
            answer = await site.ask("GET", f"{path}?{name}=steal", Cookie=cookies, Accept="application/javascript")
            assert (answer.code, answer.body) == (plain.code, plain.body)
            assert answer.headers["Content-Type"] == plain.headers["Content-Type"]


async def test_v3_7_2_no_redirects(site: Site) -> None:
    """No answer sends a browser anywhere, whatever a query, body or header names."""
    await site.register()
    evil = "https://evil.example/"
    wish = dict.fromkeys(("next", "redirect_uri", "return_to", "url"), evil)
    query = "&".join(f"{name}={evil}" for name in wish)
    headers = {"X_Forwarded_Host": "evil.example", "Referer": evil, "X_Original_URL": evil, "X_Forwarded_Proto": "http"}
    for answer in (
        await site.post(f"login?{query}", {**LOGIN, **wish}, **headers),
        await site.post(f"login?{query}", {**WRONG, **wish}, **headers),
        await site.post(f"logout?{query}", wish, **headers),
        await site.post(f"reset-password?{query}", {"token": "x", "new_password": "x" * 9, **wish}, **headers),
        await site.ask("GET", f"/auth/me?{query}", **headers),
        await site.ask("GET", f"/?{query}", **headers),
        await site.ask("GET", f"//evil.example/?{query}", **headers),
        await site.ask("GET", f"/auth/login/?{query}", **headers),
    ):
        assert not 300 <= answer.code < 400
        assert "Location" not in answer.headers
        assert "Refresh" not in answer.headers
        assert b"evil" not in answer.body
    tokens(await log_in(site))


async def test_v3_4_3_policy(site: Site) -> None:
    """The policy loads nothing, objects included, and lets no base be set."""
    for answer in await every_answer(site):
        parts = [part.strip() for part in answer.headers["Content-Security-Policy"].split(";")]
        assert {"default-src 'none'", "base-uri 'none'"} <= set(parts)


async def test_v3_5_8_meant_for_our_pages(site: Site) -> None:
    """Every answer says that other sites may not load it."""
    for answer in await every_answer(site):
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
