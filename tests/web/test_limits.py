"""Limits: by address and network, exact, and in force whatever fails."""

import asyncio
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest
from support import PASSWORD, OpenSite, Site, refused, tokens

from hydracore.errors import StoreUnavailable
from hydracore.flows.account import find_user
from hydracore.flows.networks import is_known
from hydracore.limits import Spend
from hydracore.plugin import Count, LimitBackend, hookimpl

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


class Asked:
    """A limit backend that tells what it was asked."""

    def __init__(self, context: Any) -> None:
        self.costs: list[int] = []
        self.hits: Counter[str] = Counter()
        self.away = False

    @hookimpl
    def hydracore_register_limit_backends(self) -> list[LimitBackend]:
        return [LimitBackend("asked", self.hit)]

    async def hit(self, key: str, window: int, cost: int) -> Count:
        self.costs.append(cost)
        if self.away:
            raise ConnectionError
        self.hits[key] += cost
        return Count(self.hits[key], window)


async def asked_by(open_site: OpenSite) -> tuple[Site, Asked]:
    made: list[Asked] = []

    def plugin(context: Any) -> Asked:
        made.append(Asked(context))
        return made[-1]

    site = await open_site(extra={"asked": plugin}, limits={"enabled": True, "backend": "asked"})
    await site.register()
    made[0].costs.clear()
    return site, made[0]


async def test_right_passwords_one_after_another(open_site: OpenSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of right passwords one after another each takes over the hits of the one before, and nothing is left of them in
    a moment; a wrong one among them stays counted."""
    monkeypatch.setattr("hydracore.counting._KEPT_FOR", 2.0)
    site, backend = await asked_by(open_site)
    for _ in range(10):
        tokens(await site.post("login", RIGHT))
    assert backend.costs == [1, 1, 1]
    refused(await site.post("login", WRONG), 401, "invalid_credentials")
    tokens(await site.post("login", RIGHT))
    assert backend.costs == [1] * 6
    async with asyncio.timeout(10):
        while backend.costs.count(-1) < 3:  # noqa: ASYNC110  # simpler than an event
            await asyncio.sleep(0.01)
    assert sum(backend.hits.values()) == 1 + 3
    for _ in range(4):
        refused(await site.post("login", WRONG), 401, "invalid_credentials")
    refused(await site.post("login", RIGHT), 429, "too_many_requests")


def test_hits_are_given_back_at_the_end(hydracore_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is closed leaves no attempt counted that was none."""
    monkeypatch.setattr("hydracore.counting._KEPT_FOR", 60.0)
    server = hydracore_server(plugins={"asked": Asked}, settings={"limits": {"enabled": True, "backend": "asked"}})
    server.client().register(EMAIL)
    backend = server.plugin("asked")
    backend.costs.clear()
    assert server.client().login(EMAIL).status == 200
    server.close()
    assert backend.costs == [1, 1, 1, -1, -1, -1]


async def test_hits_are_given_back_after_an_outage(
    open_site: OpenSite, monkeypatch: pytest.MonkeyPatch, expected_logs: list[str]
) -> None:
    """What was to be given back while the backend was away is given back when it is there again."""
    expected_logs.append("limit backend failed")
    monkeypatch.setattr("hydracore.counting._KEPT_FOR", 0.1)
    monkeypatch.setattr("hydracore.counting._OUTAGE_PAUSE", 0.5)
    site, backend = await asked_by(open_site)
    tokens(await site.post("login", RIGHT))
    backend.away = True
    async with asyncio.timeout(10):
        while -1 not in backend.costs:  # noqa: ASYNC110  # simpler than an event
            await asyncio.sleep(0.01)
        backend.away = False
        while backend.costs.count(-1) < 3:  # noqa: ASYNC110  # simpler than an event
            await asyncio.sleep(0.01)
    # The first one was asked for, and nobody knows whether it was counted.
    assert sum(backend.hits.values()) == 1 + 1


async def test_a_hit_over_the_rule_is_for_nobody_else(open_site: OpenSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the owner's attempt was counted as beyond the limit of the address lets no stranger in afterwards."""
    monkeypatch.setattr("hydracore.counting._KEPT_FOR", 60.0)
    site = await limited(open_site, login_address="10/3600")
    home = via("203.0.113.9")
    await site.post("register", RIGHT, **home)
    await storm(site)
    tokens(await site.post("login", RIGHT, **home))
    refused(await site.post("login", RIGHT, **via("203.0.113.77")), 429, "too_many_requests")


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
    assert codes == {400: 10, 429: 10}


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

    limiter._counters._backend = LimitBackend("gone", gone)
    codes = [(await site.post("login", WRONG)).code for _ in range(7)]
    assert codes == [401] * 5 + [429] * 2
    assert asked == 1
    limiter._counters._out_until = 0.0
    await site.post("login", WRONG)
    assert asked == 2


async def test_backend_hangs(open_site: OpenSite, expected_logs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that does not answer in its second is taken for gone."""
    expected_logs.append("limit backend failed")
    monkeypatch.setattr("hydracore.counting._BACKEND_DEADLINE", 0.05)
    site = await limited(open_site)
    limiter: Any = site.hydra.services.limiter

    async def hang(key: str, window: int, cost: int) -> Count:
        await asyncio.sleep(60)
        raise AssertionError

    limiter._counters._backend = LimitBackend("hangs", hang)
    codes = [(await site.post("login", WRONG)).code for _ in range(6)]
    assert codes == [401] * 5 + [429]


class Stubborn:
    """A limit backend that never answers, whatever it is told."""

    def __init__(self, context: Any) -> None:
        self.over = False
        self.asked = 0

    @hookimpl
    def hydracore_register_limit_backends(self) -> list[LimitBackend]:
        return [LimitBackend("stubborn", self.hit)]

    async def hit(self, key: str, window: int, cost: int) -> Count:
        self.asked += 1
        while not self.over:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)
        return Count(1, 1)


async def test_backend_will_not_be_cancelled(
    open_site: OpenSite, expected_logs: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A backend that does not let go of a hit holds nobody up, is named with its plugin, and is not asked for ever."""
    expected_logs.append("limit backend failed")
    monkeypatch.setattr("hydracore.counting._BACKEND_DEADLINE", 0.05)
    monkeypatch.setattr("hydracore.counting._OUTAGE_PAUSE", 0.0)
    monkeypatch.setattr("hydracore.counting._MOST_STUCK", 4)
    made: list[Stubborn] = []

    def plugin(context: Any) -> Stubborn:
        made.append(Stubborn(context))
        return made[-1]

    site = await open_site(extra={"obstinate": plugin}, limits={"enabled": True, "backend": "stubborn"})
    async with asyncio.timeout(20):
        codes = [(await site.post("login", WRONG)).code for _ in range(6)]
    assert codes == [401] * 5 + [429]
    assert made[0].asked == 4
    named = {(record.__dict__.get("backend"), record.__dict__.get("plugin")) for record in caplog.records}
    assert ("stubborn", "obstinate") in named
    made[0].over = True
    limiter: Any = site.hydra.services.limiter
    while limiter._counters._stuck:  # noqa: ASYNC110  # simpler than an event
        await asyncio.sleep(0.01)


async def test_two_nodes_share_their_limits(open_site: OpenSite) -> None:
    """Of wrong passwords at once on two nodes over one database exactly five are compared, and of those that come
    later none, until the time is over: what is refused makes it no longer."""
    one = await limited(open_site)
    two = await open_site(keep=True, limits={"enabled": True})
    for _ in range(2):
        answers = await asyncio.gather(*(site.post("login", WRONG) for site in (one, two) * 10))
        assert Counter(answer.code for answer in answers) == {401: 5, 429: 15}
        for site in (one, two) * 3:
            refused(await site.post("login", WRONG), 429, "too_many_requests")
        for site in (one, two):
            site.clock.forward(seconds=301)


@pytest.mark.parametrize("backend", ["mongodb", "memory"])
async def test_right_passwords_on_two_nodes(open_site: OpenSite, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    """Right passwords at once on two nodes wait for one another, and lock nobody out."""
    monkeypatch.setattr("hydracore.limits._PATIENCE", 15)  # However busy this machine is.
    one = await limited(open_site, backend=backend)
    two = await open_site(keep=True, limits={"enabled": True, "backend": backend})
    limiters: Any = [site.hydra.services.limiter for site in (one, two)]
    limiters[1]._counters._backend = limiters[0]._counters._backend  # One memory for both.
    await one.register()
    for _ in range(2):
        answers = await asyncio.gather(*(site.post("login", RIGHT) for site in (one, two) * 6))
        assert Counter(answer.code for answer in answers) == {200: 12}
    # Nothing is left of them.
    for site in (one, two, one, two, one):
        refused(await site.post("login", WRONG), 401, "invalid_credentials")
    monkeypatch.setattr("hydracore.limits._PATIENCE", 0.2)  # Of those that failed nobody gives anything back.
    refused(await two.post("login", RIGHT), 429, "too_many_requests")


class Held:
    """Comparisons of passwords that wait until they are let go."""

    def __init__(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gate = threading.Event()
        passwords = site.hydra.services.passwords
        verify = passwords._verify
        monkeypatch.setattr(passwords, "_verify", lambda *given: self.gate.wait(20) and verify(*given))
        self._site = site

    async def tries(self, number: int) -> list["asyncio.Future[Any]"]:
        """So many right passwords, which are being compared."""
        asked = [asyncio.ensure_future(self._site.post("login", RIGHT)) for _ in range(number)]
        while self._site.hydra.load().hashes < number:  # noqa: ASYNC110  # simpler than an event
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        return asked


async def test_refused_beside_attempts_under_way(open_site: OpenSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where right passwords that take long on another node keep one out, that one counts no more afterwards than they
    do."""
    monkeypatch.setattr("hydracore.limits._PATIENCE", 0.2)
    one = await limited(open_site, login_address_network="2/300")
    two = await open_site(keep=True, limits={"enabled": True, "login_address_network": "2/300"})
    await one.register()
    held = Held(one, monkeypatch)
    asked = await held.tries(2)
    for _ in range(3):
        answer = await two.post("login", RIGHT)
        refused(answer, 429, "too_many_requests")
        assert int(answer.headers["Retry-After"]) <= 300
    held.gate.set()
    for answer in await asyncio.gather(*asked):
        tokens(answer)
    tokens(await two.post("login", RIGHT))


async def test_given_back_in_another_window(open_site: OpenSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right passwords that are compared across a window's end give nobody more tries in the next window."""
    site = await limited(open_site, login_address="off", login_network="off")
    await site.register()
    held = Held(site, monkeypatch)
    asked = await held.tries(4)
    site.clock.forward(seconds=301)
    held.gate.set()
    wrong = asyncio.gather(*(site.post("login", WRONG) for _ in range(5)))
    for answer in await asyncio.gather(*asked):
        tokens(answer)
    codes = Counter(answer.code for answer in await wrong)
    codes += Counter([(await site.post("login", WRONG)).code for _ in range(5)])
    assert codes == {401: 5, 429: 5}


async def test_given_back_where_it_was_counted(
    open_site: OpenSite, monkeypatch: pytest.MonkeyPatch, expected_logs: list[str]
) -> None:
    """What this process counted while the backend was away is not given back to the backend."""
    expected_logs.append("limit backend failed")
    site = await limited(open_site)
    await site.register()
    for _ in range(5):
        refused(await site.post("login", WRONG), 401, "invalid_credentials")
    limiter: Any = site.hydra.services.limiter
    limiter._counters._out_until = float("inf")
    held = Held(site, monkeypatch)
    asked = await held.tries(3)
    limiter._counters._out_until = 0.0
    held.gate.set()
    for answer in await asyncio.gather(*asked):
        tokens(answer)
    refused(await site.post("login", WRONG), 429, "too_many_requests")


async def test_the_clock_goes_back(open_site: OpenSite) -> None:
    """When the clock is set back by an hour nobody waits for longer than the window, or is told to."""
    for backend in ("memory", "mongodb"):
        site = await limited(open_site, backend=backend)
        for _ in range(5):
            refused(await site.post("login", WRONG), 401, "invalid_credentials")
        site.clock.forward(hours=-1)
        answer = await site.post("login", WRONG)
        refused(answer, 429, "too_many_requests")
        assert 298 <= int(answer.headers["Retry-After"]) <= 300
        site.clock.forward(seconds=301)
        refused(await site.post("login", WRONG), 401, "invalid_credentials")


async def test_no_wait_is_longer_than_its_window(open_site: OpenSite) -> None:
    """A backend that rounds up makes no Retry-After longer than the rule's window."""
    site = await limited(open_site)
    limiter: Any = site.hydra.services.limiter

    async def rounding(key: str, window: int, cost: int) -> Count:
        return Count(99, window + 0.5)

    limiter._counters._backend = LimitBackend("rounding", rounding)
    limiter._failed = Counter({limiter._key(Spend("login_address_network", (EMAIL, "127.0.0.1"))): 99})
    assert (await site.post("login", WRONG)).headers["Retry-After"] == "300"


async def test_strangers_do_not_keep_anyone_from_verifying(open_site: OpenSite, expected_logs: list[str]) -> None:
    """When strangers have tried all the codes that they may in an hour, whoever registered the address, and holds the
    session, has a third of all tries left; nobody else has, and another account's session is no help."""
    site = await limited(open_site, mail_address="off", mail_address_hourly="off")
    mine, others = await site.register(), await site.register("eve@example.com")
    code = await site.box.code(EMAIL)
    wrong = {"email": EMAIL, "code": f"{(int(code) + 1) % 1_000_000:06d}"}
    for number in range(16):
        answer = await site.post("verify-email", wrong, **via(f"203.0.113.{number}"))
        assert answer.code == (400 if number < 10 else 429)
    for email in (EMAIL, "nobody@example.com"):
        body = {"email": email, "code": wrong["code"]}
        answer = await site.post("verify-email", body, Authorization=f"Bearer {others['access_token']}")
        assert answer.code == (429 if email == EMAIL else 400)
    session = {"Authorization": f"Bearer {mine['access_token']}"}
    for number in range(16):
        answer = await site.post("verify-email", wrong, **session, **via(f"198.51.100.{number % 2}"))
        assert answer.code == (400 if number < 5 else 429)
    site.clock.forward(seconds=3601)
    mine = tokens(await site.post("login", RIGHT))
    await site.post("resend-verification", {"email": EMAIL})
    for number in range(16):
        await site.post("verify-email", wrong, **via(f"203.0.113.{number}"))
    await site.post("resend-verification", {"email": EMAIL})
    body = {"email": EMAIL, "code": await site.box.code(EMAIL, 3)}
    tokens(await site.post("verify-email", body, Authorization=f"Bearer {mine['access_token']}"))


@pytest.mark.parametrize("call", ["forgot-password", "resend-verification", "register", "reset-password"])
async def test_unavailable_counts_nowhere(
    open_site: OpenSite, monkeypatch: pytest.MonkeyPatch, expected_logs: list[str], call: str
) -> None:
    """What is answered 503 may be repeated at once, as often as it takes, for known and unknown addresses."""
    expected_logs.append("unavailable")
    site = await limited(open_site, register_network="2/3600", reset_network="1/300")
    await site.register()
    bodies = {
        "register": {"email": "new@example.com", "password": PASSWORD},
        "reset-password": {"token": "no such token", "new_password": PASSWORD},
    }
    part, verb = {
        "register": (site.hydra.services.store.users, "add"),
        "reset-password": (site.hydra.services.store.codes, "reset"),
    }.get(call, (site.hydra.services.store.outbox, "add"))

    async def gone(*args: Any) -> Any:
        raise StoreUnavailable

    for email in (EMAIL, "nobody@example.com"):
        body = bodies.get(call, {"email": email})
        with monkeypatch.context() as patch:
            patch.setattr(part, verb, gone)
            for _ in range(4):
                refused(await site.post(call, body), 503, "store_unavailable")
        if call in bodies:
            assert (await site.post(call, body)).code == {"register": 201, "reset-password": 400}[call]
            break
        assert (await site.post(call, body)).code == 200
    refused(await site.post(call, body), 429, "too_many_requests")


async def test_no_room_for_a_registration(open_site: OpenSite, expected_logs: list[str]) -> None:
    """A registration that finds no room for its hash is not counted, and one that has begun keeps nobody else's place
    while the policies judge: they may be slow."""
    expected_logs.append("unavailable")
    site = await limited(open_site, register_network="2/3600")
    services = site.hydra.services
    pool: Any = services.passwords._pool
    pool.pending += pool._bound
    for _ in range(3):
        refused(await site.post("register", RIGHT), 503, "overloaded")
    pool.pending -= 1
    judge = services.registry.judge

    async def judged(*args: Any) -> list[str]:
        assert pool.pending == pool._bound - 1
        return await judge(*args)

    services.registry.judge = judged  # type: ignore[method-assign]
    for email in (EMAIL, "eve@example.com"):
        tokens(await site.post("register", {**RIGHT, "email": email}), 201)
    refused(await site.post("register", {**RIGHT, "email": "joan@example.com"}), 429, "too_many_requests")


def hash_slowly(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    passwords = site.hydra.services.passwords
    verify = passwords._verify

    def slow(*given: Any) -> bool:
        time.sleep(0.02)
        return verify(*given)

    monkeypatch.setattr(passwords, "_verify", slow)


async def test_one_network_does_not_take_the_pool(open_site: OpenSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one network signs in to many accounts as fast as it can, rightly even, others still get their turn."""
    site = await open_site(
        limits={"enabled": True, "register_network": "off", "backend": "memory"},
        server={"trusted_proxies": ["127.0.0.1"]},
        password={"hash_threads": 1, "hash_queue": 20},
    )
    hash_slowly(site, monkeypatch)
    for number in range(8):
        await site.register(f"user{number}@example.com")
    flood = [
        site.post("login", {"email": f"user{number % 8}@example.com", "password": PASSWORD}, **via("203.0.113.9"))
        for number in range(40)
    ]

    async def owner() -> int:
        await asyncio.sleep(0.1)
        return (await site.post("login", {**RIGHT, "email": "user3@example.com"}, **via("198.51.100.7"))).code

    answers = await asyncio.gather(owner(), owner(), owner(), *flood)
    assert list(answers[:3]) == [200, 200, 200]
    assert {answer.code for answer in answers[3:]} == {200}


async def test_those_who_wait_leave_room(
    open_site: OpenSite, monkeypatch: pytest.MonkeyPatch, expected_logs: list[str]
) -> None:
    """However many networks have attempts that wait for their turn, they are a part of the requests that are answered
    at once: who is signed in is served meanwhile. What is refused for that is 503, and may be repeated."""
    expected_logs.append("unavailable")
    site = await open_site(
        limits={"enabled": True, "backend": "memory"},
        server={"trusted_proxies": ["127.0.0.1"], "max_requests": 40},
        password={"hash_threads": 1, "hash_queue": 64},
    )
    hash_slowly(site, monkeypatch)
    token = (await site.verified())["access_token"]
    networks = [f"203.0.113.{number}" for number in range(1, 5)]
    over, codes = asyncio.Event(), Counter[int]()

    async def insist(network: str) -> None:
        while not over.is_set():
            codes[(await site.post("login", RIGHT, **via(network))).code] += 1

    insisting = [asyncio.ensure_future(insist(network)) for network in networks * 20]
    served = Counter([(await site.me(token)).code for _ in range(8)])
    over.set()
    await asyncio.gather(*insisting)
    assert set(served) == {200}
    assert set(codes) == {200, 503}
    for network in networks:
        tokens(await site.post("login", RIGHT, **via(network)))
