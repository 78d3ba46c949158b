"""ASVS 5.0, V4: the API and its messages."""

import json
import re

import pytest
from asking import CALLS, EMAIL, WRONG, every_answer, exchange, limited, log_in, via
from support import OpenSite, Site, refused

JSON = b"Content-Type: application/json\r\n"


async def test_v4_1_1_content_types(site: Site) -> None:
    """Every answer that has a body says that it is JSON in UTF-8, and it is; one that has none says nothing."""
    for answer in await every_answer(site):
        if answer.body:
            assert answer.headers["Content-Type"] == "application/json; charset=UTF-8"
            json.loads(answer.body.decode("utf-8"))
        elif answer.code == 204:
            assert "Content-Type" not in answer.headers


async def test_v4_1_2_no_redirect_to_https(open_site: OpenSite) -> None:
    """A call that comes without TLS is not sent on to https: it is answered, or refused, where it came."""
    site = await open_site(public_url="https://id.example.com")
    for answer in [*await every_answer(site), await log_in(site, X_Forwarded_Proto="http", X_Scheme="http")]:
        assert not 300 <= answer.code < 400
        assert "Location" not in answer.headers


async def test_v4_1_3_forwarded_headers(open_site: OpenSite) -> None:
    """Who is no trusted proxy cannot say where it comes from: new addresses in forwarded headers are no new client."""
    site = await open_site(limits={"enabled": True})
    for number in range(5):
        refused(await site.post("login", WRONG, **via(f"203.0.113.{number}")), 401, "invalid_credentials")
    for name in ("X_Forwarded_For", "X_Real_IP", "Forwarded", "X_Client_IP", "True_Client_IP", "CF_Connecting_IP"):
        refused(await site.post("login", WRONG, **{name: "198.51.100.7"}), 429, "too_many_requests")
    answer = await site.ask("GET", "/health/live", X_Request_Id="mine-1")
    assert answer.headers["X-Request-Id"] != "mine-1"


async def test_v4_1_3_behind_a_proxy(open_site: OpenSite) -> None:
    """Behind a trusted proxy the hop that the proxy wrote counts, not those that a client wrote to its left."""
    site = await limited(open_site)
    for number in range(5):
        refused(await site.post("login", WRONG, **via(f"192.0.2.{number}, 203.0.113.9")), 401, "invalid_credentials")
    refused(await site.post("login", WRONG, **via("192.0.2.99, 203.0.113.9")), 429, "too_many_requests")
    refused(await site.post("login", WRONG, **via("203.0.113.9, 192.0.2.99")), 401, "invalid_credentials")


async def test_v4_1_3_identity_and_host(site: Site) -> None:
    """No header makes its sender a user, and none becomes part of a mailed link."""
    await site.register()
    for name in ("X_User_ID", "X_User", "Remote_User", "X_Email", "X_Forwarded_User"):
        refused(await site.ask("GET", "/auth/me", **{name: EMAIL}), 401, "not_authenticated")
    evil = {"Host": "evil.example", "X_Forwarded_Host": "evil.example", "Forwarded": "host=evil.example"}
    assert (await site.post("forgot-password", {"email": EMAIL}, **evil)).code == 200
    letter = await site.box.letter(EMAIL, about="Set a new")
    assert "#token=" in letter
    assert "evil" not in letter


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "BREW", "post", "QUERY"]
)
async def test_v4_1_4_methods(site: Site, method: str, http: str) -> None:
    """A call has its own method and OPTIONS: any other is 405, names what there is, and does nothing."""
    if http == "httptools" and method in ("BREW", "post"):  # It knows the methods that are registered, and no other.
        request = f"{method} /auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        assert (await exchange(site, request.encode())).startswith(b"HTTP/1.1 400 ")
        return
    for call in (*CALLS, "token"):
        request = f"{method} /auth/{call} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        answer = await exchange(site, request.encode())
        assert answer.startswith(b"HTTP/1.1 405 "), (call, answer)
        assert b"\r\nAllow: POST, OPTIONS\r\n" in answer
    reading = dict.fromkeys(("/health/live", "/health/ready", "/.well-known/jwks.json"), "GET, HEAD, OPTIONS")
    for path, allow in {"/auth/me": "GET, HEAD, DELETE, OPTIONS", **reading}.items():
        if method not in allow:
            request = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            answer = await exchange(site, request.encode())
            assert answer.startswith(b"HTTP/1.1 405 "), (path, answer)
            assert f"\r\nAllow: {allow}\r\n".encode() in answer


SMUGGLED = b"GET /auth/me HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        b"Content-Length: 4\r\nContent-Length: 5\r\n",
        b"Content-Length: 4, 5\r\n",
        b"Content-Length: +4\r\n",
        b"Content-Length: -4\r\n",
        b"Content-Length: 0x4\r\n",
        b"Content-Length : 4\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"Transfer-Encoding\x0b: chunked\r\n",
    ],
)
async def test_v4_2_1_one_framing(site: Site, framing: bytes) -> None:
    """A message whose end can be read in two ways is refused and its connection closed: what would have been the next
    request is never answered."""
    head = b"POST /auth/login HTTP/1.1\r\nHost: x\r\n" + JSON + framing + b"\r\n"
    answer = await exchange(site, head + b"0\r\n\r\n" + SMUGGLED)
    assert answer.count(b"HTTP/1.1 ") <= 1
    assert not answer or answer.startswith(b"HTTP/1.1 400 ")
    assert (await site.ask("GET", "/health/live")).code == 200


async def test_v4_2_1_chunks(site: Site) -> None:
    """A body in chunks ends with its last chunk, and a size that is none ends the connection."""
    body = b'{"email": "ada@example.com", "password": "x"}'
    head = b"POST /auth/login HTTP/1.1\r\nHost: x\r\n" + JSON + b"Transfer-Encoding: chunked\r\n\r\n"
    whole = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    answer = await exchange(site, head + whole + SMUGGLED)
    assert answer.count(b"HTTP/1.1 401 ") == 2
    assert b"invalid_credentials" in answer
    assert b"not_authenticated" in answer
    for size in (b"0x1", b"-1", b"+1", b"1_0", b"", b"zz"):
        assert (await exchange(site, head + size + b"\r\nx\r\n0\r\n\r\n" + SMUGGLED)).count(b"HTTP/1.1 ") <= 1


async def test_v4_2_2_lengths(site: Site) -> None:
    """Each answer has as many bytes as its Content-Length says, one after the other on one connection."""
    requests = [
        b"GET /auth/me HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /auth/login HTTP/1.1\r\nHost: x\r\n" + JSON + b"Content-Length: 2\r\n\r\n{}",
        b"POST /auth/logout HTTP/1.1\r\nHost: x\r\n" + JSON + b"Content-Length: 2\r\n\r\n{}",
        b"OPTIONS /auth/login HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ]
    rest = await exchange(site, b"".join(requests))
    statuses = []
    while rest:
        head, _, rest = rest.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 "), head
        assert b"transfer-encoding" not in head.lower()
        statuses.append(int(head.split()[1]))
        lengths = [int(length) for length in re.findall(rb"\r\n[Cc]ontent-[Ll]ength: (\d+)", head)]
        assert len(lengths) == (0 if statuses[-1] == 204 else 1)
        rest = rest[sum(lengths) :]
    assert statuses == [401, 200, 422, 204, 204, 404]


@pytest.mark.parametrize("value", [b"a\rb: c", b"a\nb: c", b"a\x00b"])
async def test_v4_2_4_headers_of_one_line(site: Site, value: bytes) -> None:
    """HTTP/1.1 alone is spoken, and there too a bare CR, LF or NUL makes no header that an answer repeats."""
    head = b"GET /auth/me HTTP/1.1\r\nHost: x\r\nOrigin: " + value + b"\r\nConnection: close\r\n\r\n"
    answer = await exchange(site, head)
    assert not answer or answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 401 ")), answer
    assert not re.search(rb"[\r\n]b: c", answer)
    hello = await exchange(site, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00" * 9)
    assert not hello or hello.startswith(b"HTTP/1.1 400 ")
