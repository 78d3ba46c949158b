"""Arbitrary JSON at every call: only documented statuses, only the one shape."""

import json
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import Site, refused
from tornado.ioloop import IOLoop

MEMBERS = ["email", "password", "code", "token", "new_password", "refresh_token", "_id", "$where", "__proto__"]
TEXTS = st.one_of(
    st.text(),
    st.sampled_from(["ada@example.com", "123456", "a long enough password", "\x00", "\ud800", "{{7*7}}", "';--"]),
    st.emails(),
    st.from_regex(r"[0-9]{6}", fullmatch=True),
)
VALUES: Any = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS),
    lambda children: st.one_of(st.lists(children, max_size=3), st.dictionaries(TEXTS, children, max_size=3)),
    max_leaves=8,
)
BODIES = st.one_of(
    st.dictionaries(st.sampled_from(MEMBERS), VALUES),
    VALUES,
    st.fixed_dictionaries(
        {
            "email": TEXTS,
            "password": TEXTS,
            "code": TEXTS,
            "token": TEXTS,
            "new_password": TEXTS,
            "refresh_token": TEXTS,
        }
    ),
)
REFUSALS = {
    "register": {409: "email_taken"},
    "login": {401: "invalid_credentials"},
    "refresh": {401: "invalid_refresh_token"},
    "logout": {},
    "verify-email": {400: "invalid_code"},
    "resend-verification": {},
    "forgot-password": {},
    "reset-password": {400: "invalid_token"},
    "undo-email-change": {400: "invalid_token"},
    "undo-deletion": {400: "invalid_token"},
}
SUCCESSES = {"register": 201, "logout": 204}


@pytest.mark.parametrize("call", REFUSALS)
def test_any_json(io_loop: IOLoop, site: Site, call: str) -> None:
    """Whatever JSON is sent, the answer is the call's success, one of its refusals, or 422."""

    @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(BODIES)
    def throw(body: Any) -> None:
        raw = json.dumps(body).encode("utf-8", "surrogatepass")

        async def ask() -> None:
            answer = await site.ask("POST", f"/auth/{call}", raw=raw, Content_Type="application/json")
            if answer.code != SUCCESSES.get(call, 200):
                assert answer.code in {*REFUSALS[call], 422}, (answer.code, answer.body)
                refused(answer, answer.code, REFUSALS[call].get(answer.code, "validation_failed"))

        io_loop.run_sync(ask)

    throw()


def test_any_bytes(io_loop: IOLoop, site: Site) -> None:
    """Whatever bytes are sent, as whatever media type, the answer is 4xx in the one shape."""

    @settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(
        st.binary(max_size=200), st.sampled_from(["application/json", "text/plain", ""]), st.sampled_from([*REFUSALS])
    )
    def throw(raw: bytes, media_type: str, call: str) -> None:
        async def ask() -> None:
            answer = await site.ask("POST", f"/auth/{call}", raw=raw, Content_Type=media_type)
            assert answer.code in (204, 401, 415, 422)
            if answer.code != 204:
                refused(answer, answer.code, json.loads(answer.body)["code"])

        io_loop.run_sync(ask)

    throw()


def test_any_authorization(io_loop: IOLoop, site: Site) -> None:
    """Whatever an Authorization header says, /auth/token and /auth/me answer 401."""
    header = st.one_of(
        st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=80),
        st.binary(max_size=60).map(lambda raw: "Basic " + b64encode(raw).decode()),
        st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=80).map(lambda text: f"Bearer {text}"),
    )

    @settings(max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(header)
    def throw(value: str) -> None:
        async def ask() -> None:
            refused(await site.ask("POST", "/auth/token", raw=b"", Authorization=value), 401, "invalid_credentials")
            refused(await site.ask("GET", "/auth/me", Authorization=value), 401, "not_authenticated")

        io_loop.run_sync(ask)

    throw()
