"""Whatever the bytes: a 4xx in the one shape, nothing stored, no traceback."""

import asyncio
import json
import socket
from base64 import b64encode
from typing import Any

import pytest
from support import PASSWORD, Site, refused, tokens

EMAIL = "ada@example.com"
CALLS: dict[str, dict[str, Any]] = {
    "register": {"email": EMAIL, "password": PASSWORD},
    "login": {"email": EMAIL, "password": PASSWORD},
    "refresh": {"refresh_token": "x"},
    "logout": {"refresh_token": "x"},
    "verify-email": {"email": EMAIL, "code": "123456"},
    "resend-verification": {"email": EMAIL},
    "forgot-password": {"email": EMAIL},
    "reset-password": {"token": "x", "new_password": PASSWORD},
    "undo-email-change": {"token": "x"},
    "undo-deletion": {"token": "x"},
}
WRONG: list[Any] = [{"$ne": None}, {"$gt": ""}, {"$regex": ".*"}, [EMAIL], ["a", "b"], 1, 1.5, True, None, {}, []]


async def untouched(site: Site) -> None:
    """Nothing was stored, and nothing was mailed."""
    await asyncio.sleep(0.01)
    for name in ("users", "sessions", "codes", "outbox"):
        assert await site.hydra._store.collection(name).count_documents({}) == 0, name


@pytest.mark.parametrize("call", CALLS)
async def test_wrong_types(site: Site, call: str) -> None:
    """A member of another type, operators and lists included, is 422 and named."""
    for member in CALLS[call]:
        for value in WRONG:
            problems = refused(await site.post(call, {**CALLS[call], member: value}), 422, "validation_failed")
            assert {"loc": ["body", member], "type": "string_type"}.items() <= problems[0].items()
    await untouched(site)


@pytest.mark.parametrize("call", CALLS)
async def test_bodies_that_are_no_objects(site: Site, call: str) -> None:
    """A body that is no JSON object is 422."""
    for body in (b"[]", b"1", b'"x"', b"null", b"true"):
        headers = {"Content_Type": "application/json"}
        problems = refused(await site.ask("POST", f"/auth/{call}", raw=body, **headers), 422, "validation_failed")
        assert problems[0]["type"] == "model_attributes_type"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"{'email': 1}",
        b'{"email": NaN}',
        b'{"email": Infinity}',
        b'{"email": "a@example.com", "email": "b@example.com"}',
        b'{"x": {"y": 1, "y": 2}}',
        b'{"password": "\xff\xfe"}',
        b'\xef\xbb\xbf{"email": "a@example.com"}',
        b'{"password": "\\ud800 lone surrogate"}',
        b'{"\\ud800": 1}',
        b'{"x": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b'{"x":' * 10_000 + b"1" + b"}" * 10_000,
        b'{"x": ' + b"9" * 20_000 + b"}",
        b'{"email": "a@example.com"} trailing',
        "{}".encode("utf-16"),
        b"\x00",
    ],
)
async def test_bytes_that_are_no_strict_json(site: Site, raw: bytes) -> None:
    """Anything but strict JSON is 422 json_invalid on every call that takes a body."""
    for call in CALLS:
        answer = await site.ask("POST", f"/auth/{call}", raw=raw, Content_Type="application/json")
        problems = refused(answer, 422, "validation_failed")
        assert [(problem["loc"], problem["type"]) for problem in problems] == [(["body"], "json_invalid")]
    await untouched(site)


async def test_every_problem_at_once(site: Site) -> None:
    """Two missing members, or two wrong ones, are told together."""
    problems = refused(await site.post("register", {}), 422, "validation_failed")
    assert sorted((problem["loc"][1], problem["type"]) for problem in problems) == [
        ("email", "missing"),
        ("password", "missing"),
    ]
    problems = refused(await site.post("register", {"email": "nobody", "password": "x"}), 422, "validation_failed")
    assert {(problem["loc"][1], problem["type"]) for problem in problems} == {
        ("email", "value_error"),
        ("password", "string_too_short"),
    }
    problems = refused(await site.post("login", {"email": 1, "password": "x" * 129}), 422, "validation_failed")
    assert {(problem["loc"][1], problem["type"]) for problem in problems} == {
        ("email", "string_type"),
        ("password", "string_too_long"),
    }


@pytest.mark.parametrize(
    "email",
    [
        "",
        " ",
        "ada",
        "ada@",
        "@example.com",
        "ada@example",
        "ada@exa mple.com",
        " ada@example.com",
        "ada@example.com ",
        "ada@example.com\n",
        "ada@example.com\r\nBcc: eve@example.com",
        "ada\x00@example.com",
        "ada@example.com\x00",
        "ada@@example.com",
        "ada\uff20example.com",
        "a" * 65 + "@example.com",
        "a@" + "b" * 250 + ".com",
        "ada@[127.0.0.1]",
        "ada@localhost",
        '"ada"@example.com',
        "Ada <ada@example.com>",
        "ada@example.com,eve@example.com",
    ],
)
async def test_addresses_that_are_none(site: Site, email: str) -> None:
    """What is no address, header injection and look-alike signs included, is 422."""
    for call in ("register", "login", "verify-email", "resend-verification", "forgot-password"):
        problems = refused(await site.post(call, {**CALLS[call], "email": email}), 422, "validation_failed")
        assert {tuple(problem["loc"]) for problem in problems} == {("body", "email")}
    await untouched(site)


@pytest.mark.parametrize(
    "code", ["12345", "1234567", "12345a", "١٢٣٤٥٦", "12345\n", " 12345", "123456\n", "-12345", "1e5000"]
)
async def test_codes_that_are_none(site: Site, code: str) -> None:
    """A code is six ASCII digits."""
    refused(await site.post("verify-email", {"email": EMAIL, "code": code}), 422, "validation_failed")


async def test_passwords_take_all_of_unicode(site: Site) -> None:
    """Passwords of 8 to 128 characters of any kind, NUL included, work whole and exactly as sent."""
    for number, password in enumerate(
        [
            "\x00" * 8 + "zero",
            "пароль-пароль",
            "🐙" * 128,
            "  spaces count  ",
            "x" * 63 + "y" * 65,
            "n̈" * 8 + "combined",
        ]
    ):
        email = f"user{number}@example.com"
        await site.register(email, password)
        tokens(await site.post("login", {"email": email, "password": password}))
        for other in (password[:-1], password.strip(), password.swapcase()):
            if other != password and other:
                refused(await site.post("login", {"email": email, "password": other}), 401, "invalid_credentials")
    refused(await site.post("register", {"email": EMAIL, "password": "🐙" * 129}), 422, "validation_failed")
    refused(await site.post("register", {"email": EMAIL, "password": "🐙" * 7}), 422, "validation_failed")


async def test_normalised_passwords(site: Site) -> None:
    """The composed and the decomposed spelling of a password are one password."""
    await site.register(EMAIL, "caf\u00e9 au lait")
    tokens(await site.post("login", {"email": EMAIL, "password": "cafe\u0301 au lait"}))


async def test_large_bodies(site: Site) -> None:
    """64 KiB are read; one more, or 10 MB, declared or in chunks, is 413 in the one shape."""
    fits = {"Content_Type": "application/json"}
    padding = 64 * 1024 - len(json.dumps(CALLS["login"])) - 1
    raw = json.dumps(CALLS["login"]).encode() + b" " * padding
    refused(await site.ask("POST", "/auth/login", raw=raw, **fits), 401, "invalid_credentials")
    for call in (*CALLS, "token", "nowhere"):
        refused(await site.ask("POST", f"/auth/{call}", raw=raw + b"  ", **fits), 413, "payload_too_large")
    refused(await site.ask("POST", "/auth/login", raw=b" " * 10_000_000, **fits), 413, "payload_too_large")
    refused(await _chunked(site, 200_000), 413, "payload_too_large")


async def _chunked(site: Site, size: int) -> Any:
    from tornado.httpclient import AsyncHTTPClient

    async def produce(write: Any) -> None:
        for _ in range(size // 1000):
            await write(b" " * 1000)

    return await AsyncHTTPClient().fetch(
        f"{site.url}/auth/login",
        method="POST",
        body_producer=produce,
        headers={"Content-Type": "application/json"},
        raise_error=False,
    )


async def test_endless_bodies_are_cut_off(site: Site) -> None:
    """A body beyond 16 MiB is answered before its end, and the connection closed."""
    host, port = site.url.removeprefix("http://").split(":")
    _reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
    sent = 0
    try:
        while sent < 64 * 1024 * 1024:
            writer.write(b" " * 65536)
            sent += 65536
            await asyncio.wait_for(writer.drain(), 5)
    except (ConnectionError, TimeoutError):
        pass
    assert sent < 64 * 1024 * 1024
    writer.close()
    assert (await site.ask("GET", "/health/live")).code == 200


@pytest.mark.parametrize(
    "media_type", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
async def test_other_media_types(site: Site, media_type: str) -> None:
    """Anything but application/json is 415, and the sentence helps a curl user."""
    for call, body in CALLS.items():
        answer = await site.ask("POST", f"/auth/{call}", raw=json.dumps(body).encode(), Content_Type=media_type)
        assert "curl: -H 'Content-Type: application/json'" in refused(answer, 415, "unsupported_media_type")
    await untouched(site)


async def test_media_type_parameters(site: Site) -> None:
    """A charset after the media type is fine, and its letters' case does not matter."""
    raw = json.dumps(CALLS["login"]).encode()
    answer = await site.ask("POST", "/auth/login", raw=raw, Content_Type="Application/JSON; charset=utf-8")
    refused(answer, 401, "invalid_credentials")


async def test_unknown_members(site: Site) -> None:
    """Unknown members are ignored and never reach a document."""
    body = {**CALLS["register"], "email_verified": True, "disabled": False, "epoch": 7, "_id": "x", "$set": {"a": 1}}
    assert tokens(await site.post("register", body), 201)["email_verified"] is False
    stored = await site.hydra._store.collection("users").find_one({})
    assert (stored["email_verified"], stored["epoch"]) == (False, 0)
    assert stored["_id"] != "x"
    assert "$set" not in stored


def _basic(text: str | bytes) -> str:
    return "Basic " + b64encode(text.encode() if isinstance(text, str) else text).decode()


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic",
        "Basic ",
        "Basic !!!!",
        "Basic YQ",
        "Bearer abc",
        "basic",
        _basic("no colon"),
        _basic(":"),
        _basic("ada@example.com:"),
        _basic(":" + PASSWORD),
        _basic("ada@example.com:control\x00character"),
        _basic("ada@example.com:line\nbreak"),
        _basic(b"ada@example.com:\xff\xfe not utf-8"),
        _basic("not an address:" + PASSWORD),
        _basic("ada@example.com:" + "x" * 129),
        _basic("ada@example.com:wrong password"),
        _basic("eve@example.com:" + PASSWORD),
        "Basic \u00e9\u00e9\u00e9\u00e9",
        "Basic " + "A" * 8000,
    ],
)
async def test_malformed_basic(site: Site, header: str) -> None:
    """Whatever is wrong with Basic credentials, the answer is 401 with the challenge, and no cookie."""
    await site.register()
    headers = {"Authorization": header} if header else {}
    answer = await site.ask("POST", "/auth/token", raw=b"", **headers)
    refused(answer, 401, "invalid_credentials")
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="hydracore", charset="UTF-8"'
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    ("user", "password", "header"),
    [
        ("Aladdin@example.com", "open sesame", None),
        ("test@example.com", "123£ and some more", None),
        ("colon@example.com", "a:b:c:d:e:f", None),
    ],
)
async def test_basic(site: Site, user: str, password: str, header: None) -> None:
    """RFC 7617: UTF-8, split at the first colon; tokens in the body and never a cookie."""
    await site.register(user, password)
    answer = await site.ask("POST", "/auth/token", raw=b"", Authorization=_basic(f"{user}:{password}"))
    assert "Set-Cookie" not in answer.headers
    assert (await site.me(tokens(answer)["access_token"])).code == 200
    lower = "basic" + _basic(f"{user}:{password}")[5:]
    tokens(await site.ask("POST", "/auth/token", raw=b"", Authorization=lower))


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"rubbish\r\n\r\n",
        b"GET /auth/me HTTP/9.9\r\n\r\n",
        b"GET /auth/me HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /auth/me HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n",
        b"GET /auth/me HTTP/1.1\r\nHost: x\r\nCookie: hydracore_access=\xff\xfe;;;=;\r\n\r\n",
        b"TRACE /auth/me HTTP/1.1\r\nHost: x\r\n\r\n",
        b"BREW /auth/me HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /%00%ff/../auth/me HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://evil.example/auth/me HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
async def test_malformed_http(site: Site, request_bytes: bytes) -> None:
    """What is no proper HTTP is 4xx or a closed connection, never a 500, and the server lives."""
    host, port = site.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request_bytes)
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    assert not answer or answer.startswith(b"HTTP/1.1 4"), answer
    assert b"Traceback" not in answer
    assert (await site.ask("GET", "/health/live")).code == 200


async def test_many_headers_are_bounded(site: Site) -> None:
    """A header block beyond its bound closes the connection and harms nobody."""
    host, port = site.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(b"GET /auth/me HTTP/1.1\r\nHost: x\r\n")
    assert (await site.ask("GET", "/health/live")).code == 200


async def test_a_body_that_is_given_up(site: Site) -> None:
    """Of a request whose client leaves in the middle of its body nothing stays behind: no count, and no task."""
    before = len(asyncio.all_tasks())
    writers = []
    for _ in range(5):
        _, writer = await asyncio.open_connection("127.0.0.1", int(site.url.rpartition(":")[2]))
        writer.write(b"POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
        writers.append(writer)
    while len(site.hydra.receiving) < 5:  # noqa: ASYNC110  # simpler than an event
        await asyncio.sleep(0.01)
    assert site.hydra.load().requests == 0
    for writer in writers:
        writer.close()
    while site.hydra.in_flight or len(asyncio.all_tasks()) > before:  # noqa: ASYNC110  # as above
        await asyncio.sleep(0.01)
