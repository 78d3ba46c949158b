"""Limits: by address and network, exact, and in force whatever fails."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from support import PASSWORD, OpenSite, Site, refused, tokens

from hydracore.flows.account import find_user
from hydracore.flows.networks import is_known
from hydracore.records import Count, LimitBackend

EMAIL = "ada@example.com"
WRONG = {"email": EMAIL, "password": "wrong password"}
RIGHT = {"email": EMAIL, "password": PASSWORD}


async def limited(open_site: OpenSite, **rules: Any) -> Site:
    return await open_site(limits={"enabled": True, **rules}, server={"trusted_proxies": ["127.0.0.1"]})


def via(network: str) -> dict[str, str]:
    return {"X_Forwarded_For": network}


async def test_five_failures(open_site: OpenSite) -> None:
    """Five wrong passwords in five minutes; the sixth try is 429 even with the right one, until the time is over."""
    site = await limited(open_site)
    await site.register()
    for _ in range(5):
        refused(await site.post("login", WRONG), 401, "invalid_credentials")
    answer = await site.post("login", RIGHT)
    refused(answer, 429, "too_many_requests")
    assert 0 < int(answer.headers["Retry-After"]) <= 300
    basic = "Basic YWRhQGV4YW1wbGUuY29tOmNvcnJlY3QgaG9yc2UgYmF0dGVyeSBzdGFwbGU="
    refused(await site.ask("POST", "/auth/token", raw=b"", Authorization=basic), 429, "too_many_requests")
    site.clock.forward(seconds=301)
    tokens(await site.post("login", RIGHT))


async def test_parallel_failures(open_site: OpenSite) -> None:
    """Of 50 parallel wrong passwords exactly five are compared."""
    site = await limited(open_site)
    await site.register()
    answers = await asyncio.gather(*(site.post("login", WRONG) for _ in range(50)))
    assert Counter(answer.code for answer in answers) == {401: 5, 429: 45}


async def test_successes_do_not_count(open_site: OpenSite) -> None:
    """Signing in rightly, twenty times in a row or at once, meets no limit."""
    site = await limited(open_site)
    await site.register()
    for _ in range(20):
        tokens(await site.post("login", RIGHT))
    for answer in await asyncio.gather(*(site.post("login", RIGHT) for _ in range(20))):
        tokens(answer)


async def test_success_does_not_reset_others(open_site: OpenSite) -> None:
    """The owner's success from one network gives a guesser on another network no new tries."""
    site = await limited(open_site)
    await site.register()
    for _ in range(5):
        refused(await site.post("login", WRONG, **via("203.0.113.9")), 401, "invalid_credentials")
    tokens(await site.post("login", RIGHT, **via("198.51.100.7")))
    refused(await site.post("login", WRONG, **via("203.0.113.9")), 429, "too_many_requests")


async def test_many_networks_on_one_address(open_site: OpenSite) -> None:
    """Guesses from ever new networks meet the limit of the address."""
    site = await limited(open_site, login_address="10/3600")
    await site.register()
    codes = [(await site.post("login", WRONG, **via(f"203.0.113.{number}"))).code for number in range(12)]
    assert codes == [401] * 10 + [429] * 2


async def storm(site: Site, email: str = EMAIL) -> None:
    """More wrong passwords, from everywhere, than an address has in an hour."""
    for number in range(12):
        answer = await site.post("login", {**WRONG, "email": email}, **via(f"192.0.2.{number}"))
        refused(answer, 401 if number < 10 else 429, "invalid_credentials" if number < 10 else "too_many_requests")


@pytest.mark.parametrize("how", ["register", "login", "verify", "reset"])
async def test_strangers_do_not_lock_the_owner_out(open_site: OpenSite, how: str) -> None:
    """While strangers' guesses are over the limit of the address, the right password is still taken from a network
    that the owner has used, and from no other."""
    site = await limited(open_site, login_address="10/3600")
    home = via("203.0.113.9") if how == "register" else via("203.0.113.10")
    await site.post("register", RIGHT, **via("203.0.113.9"))
    match how:
        case "login":
            tokens(await site.post("login", RIGHT, **home))
        case "verify":
            await site.post("verify-email", {"email": EMAIL, "code": await site.box.code(EMAIL)}, **home)
        case "reset":
            await site.post("forgot-password", {"email": EMAIL}, **home)
            body = {"token": await site.box.reset_token(EMAIL), "new_password": PASSWORD}
            assert (await site.post("reset-password", body, **home)).code == 200
    await storm(site)
    refused(await site.post("login", RIGHT, **via("203.0.113.77")), 429, "too_many_requests")
    tokens(await site.post("login", RIGHT, **home))
    for _ in range(5):
        refused(await site.post("login", WRONG, **home), 401, "invalid_credentials")
    refused(await site.post("login", RIGHT, **home), 429, "too_many_requests")


@pytest.mark.parametrize("how", ["reset", "proof"])
async def test_networks_of_before(open_site: OpenSite, how: str) -> None:
    """A reset, and a proof by someone else than whoever registered, forget the networks of before."""
    site = await limited(open_site, login_address="10/3600")
    before, home = via("203.0.113.9"), via("203.0.113.10")
    await site.post("register", RIGHT, **before)
    if how == "reset":
        await site.post("forgot-password", {"email": EMAIL}, **home)
        body = {"token": await site.box.reset_token(EMAIL), "new_password": PASSWORD}
        assert (await site.post("reset-password", body, **home)).code == 200
    else:
        body = {"email": EMAIL, "code": await site.box.code(EMAIL)}
        assert (await site.post("verify-email", body, **home)).code == 200
    await storm(site)
    refused(await site.post("login", RIGHT, **before), 429, "too_many_requests")
    tokens(await site.post("login", RIGHT, **home))


async def test_eight_networks_are_known(open_site: OpenSite) -> None:
    """The last eight networks are remembered, and none twice, also where they come at once."""
    site = await limited(open_site)
    await site.post("register", RIGHT, **via("203.0.113.100"))
    for number in range(10):
        tries = (site.post("login", RIGHT, **via(f"203.0.113.{number}")) for _ in range(5))
        for answer in await asyncio.gather(*tries):
            tokens(answer)
    user = await find_user(site.hydra.services, EMAIL)
    assert len(set(user.networks)) == len(user.networks) == 8
    assert not any("203.0.113" in digest for digest in user.networks)
    for number in (2, 9):
        assert is_known(site.hydra.services, user, f"203.0.113.{number}")
    assert not is_known(site.hydra.services, user, "203.0.113.1")


async def test_one_network_on_many_addresses(open_site: OpenSite) -> None:
    """Stuffing ever new addresses from one network meets the limit of the network."""
    site = await limited(open_site, login_network="10/300")
    codes = [(await site.post("login", {**WRONG, "email": f"user{number}@example.com"})).code for number in range(12)]
    assert codes == [401] * 10 + [429] * 2


async def test_spellings_of_an_address_are_one(open_site: OpenSite) -> None:
    """Case and Unicode variants of an address, or of the path, are one key."""
    site = await limited(open_site)
    await site.register()
    for email in ("ada@example.com", "ADA@EXAMPLE.COM", "Ada@Example.com", "\uff41da@example.com", "aDa@example.com"):
        refused(await site.post("login", {**WRONG, "email": email}), 401, "invalid_credentials")
    refused(await site.post("login", WRONG), 429, "too_many_requests")
    refused(await site.ask("POST", "//auth/login", body=WRONG), 404, "not_found")


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:203.0.113.9", "203.0.113.9", True),
        ("203.0.113.9", "203.0.113.10", False),
        ("evil, 203.0.113.9", "203.0.113.9", True),
        ("198.51.100.1, 203.0.113.9", "192.0.2.1, 203.0.113.9", True),
        ("rubbish", "more rubbish", True),
        ("203.0.113.9, 127.0.0.1", "203.0.113.9", True),
    ],
)
async def test_networks(open_site: OpenSite, first: str, second: str, same: bool) -> None:
    """IPv6 counts by /64; the client is the right-most hop that is no trusted proxy; rubbish is the peer's own."""
    site = await limited(open_site)
    for _ in range(5):
        refused(await site.post("login", WRONG, **via(first)), 401, "invalid_credentials")
    assert (await site.post("login", WRONG, **via(second))).code == (429 if same else 401)


async def test_forwarded_headers_of_strangers(open_site: OpenSite) -> None:
    """Without trusted proxies X-Forwarded-For counts for nothing."""
    site = await open_site(limits={"enabled": True})
    codes = [(await site.post("login", WRONG, **via(f"203.0.113.{number}"))).code for number in range(6)]
    assert codes == [401] * 5 + [429]


async def test_mail_limits(open_site: OpenSite) -> None:
    """One mail a minute and five an hour for an address, of each kind, whether or not it has an account."""
    site = await limited(open_site)
    for call in ("forgot-password", "resend-verification"):
        for email in (EMAIL, "nobody@example.com"):
            assert (await site.post(call, {"email": email})).code == 200
            refused(await site.post(call, {"email": email}), 429, "too_many_requests")
    for _ in range(4):
        site.clock.forward(seconds=61)
        assert (await site.post("forgot-password", {"email": EMAIL})).code == 200
    site.clock.forward(seconds=61)
    answer = await site.post("forgot-password", {"email": EMAIL})
    refused(answer, 429, "too_many_requests")
    assert int(answer.headers["Retry-After"]) > 60


async def test_codes_tried_survive_a_resend(open_site: OpenSite, expected_logs: list[str]) -> None:
    """Fifteen guesses an hour for an account, however many codes are sent."""
    site = await limited(open_site, mail_address="off")
    await site.register()
    codes: Counter[int] = Counter()
    for nth in range(1, 5):
        code = await site.box.code(EMAIL, nth)
        wrong = f"{(int(code) + 1) % 1_000_000:06d}"
        for _ in range(5):
            codes[(await site.post("verify-email", {"email": EMAIL, "code": wrong})).code] += 1
        await site.post("resend-verification", {"email": EMAIL})
    assert codes == {400: 15, 429: 5}


async def test_register_limit(open_site: OpenSite) -> None:
    """Twenty registrations an hour from one network."""
    site = await limited(open_site)
    codes = Counter(
        [
            (await site.post("register", {"email": f"u{number}@example.com", "password": PASSWORD})).code
            for number in range(22)
        ]
    )
    assert codes == {201: 20, 429: 2}


async def test_a_refusal_uses_up_nothing_else(open_site: OpenSite) -> None:
    """What one limit refuses does not count on the others: a guesser cannot lock the address for its owner."""
    site = await limited(open_site, login_address="10/3600")
    await site.register()
    for _ in range(30):
        await site.post("login", WRONG, **via("203.0.113.9"))
    tokens(await site.post("login", RIGHT, **via("198.51.100.7")))


async def test_backend_gone(open_site: OpenSite, expected_logs: list[str]) -> None:
    """When the backend fails, this process counts on, and says so once; when it is back, it is asked again."""
    expected_logs.append("limit backend failed")
    site = await limited(open_site)
    limiter: Any = site.hydra.services.limiter
    asked = 0

    async def gone(key: str, window: int, cost: int) -> Count:
        nonlocal asked
        asked += 1
        raise ConnectionError

    limiter._backend = LimitBackend("gone", gone)
    codes = [(await site.post("login", WRONG)).code for _ in range(7)]
    assert codes == [401] * 5 + [429] * 2
    assert asked == 1
    limiter._out_until = 0.0
    await site.post("login", WRONG)
    assert asked == 2


async def test_backend_hangs(open_site: OpenSite, expected_logs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that does not answer in its second is taken for gone."""
    expected_logs.append("limit backend failed")
    monkeypatch.setattr("hydracore.limits._BACKEND_DEADLINE", 0.05)
    site = await limited(open_site)
    limiter: Any = site.hydra.services.limiter

    async def hang(key: str, window: int, cost: int) -> Count:
        await asyncio.sleep(60)
        raise AssertionError

    limiter._backend = LimitBackend("hangs", hang)
    codes = [(await site.post("login", WRONG)).code for _ in range(6)]
    assert codes == [401] * 5 + [429]


async def test_two_nodes_share_their_limits(open_site: OpenSite) -> None:
    """Two nodes over one database count together."""
    one = await limited(open_site)
    two = await open_site(keep=True, limits={"enabled": True})
    answers = await asyncio.gather(*(site.post("login", WRONG) for site in (one, two) * 10))
    assert Counter(answer.code for answer in answers) == {401: 5, 429: 15}


async def test_one_network_does_not_take_the_pool(open_site: OpenSite) -> None:
    """While one network signs in to many accounts as fast as it can, rightly even, others still get their turn."""
    site = await open_site(
        limits={"enabled": True, "register_network": "off"},
        server={"trusted_proxies": ["127.0.0.1"]},
        password={"profile": "standard", "hash_threads": 1, "hash_queue": 20},
    )
    for number in range(10):
        await site.register(f"user{number}@example.com")
    flood = [
        site.post("login", {"email": f"user{number % 10}@example.com", "password": PASSWORD}, **via("203.0.113.9"))
        for number in range(60)
    ]

    async def owner() -> int:
        await asyncio.sleep(0.1)
        return (await site.post("login", {**RIGHT, "email": "user3@example.com"}, **via("198.51.100.7"))).code

    answers = await asyncio.gather(owner(), owner(), owner(), *flood)
    assert list(answers[:3]) == [200, 200, 200]
    assert {answer.code for answer in answers[3:]} == {200}
