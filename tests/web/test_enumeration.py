"""Known and unknown addresses: the same status, body, headers, cookies, and the same work."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
from support import PASSWORD, OpenSite, Site, refused
from tornado.httpclient import HTTPResponse

KNOWN, UNVERIFIED, UNKNOWN = "known@example.com", "fresh@example.com", "nobody@example.com"
VARYING = ("Date", "X-Request-Id", "Content-Length")


async def people(site: Site) -> None:
    await site.verified(KNOWN)
    await site.register(UNVERIFIED)
    await site.box.code(UNVERIFIED)


def seen(answer: HTTPResponse) -> Any:
    headers = sorted((name, value) for name, value in answer.headers.get_all() if name not in VARYING)
    return answer.code, answer.body, headers


def basic(email: str) -> dict[str, str]:
    from base64 import b64encode

    return {"Authorization": "Basic " + b64encode(f"{email}:wrong password".encode()).decode()}


CALLS: dict[str, Callable[[Site, str], Any]] = {
    "login": lambda site, email: site.post("login", {"email": email, "password": "wrong password"}),
    "token": lambda site, email: site.ask("POST", "/auth/token", raw=b"", **basic(email)),
    "verify-email": lambda site, email: site.post("verify-email", {"email": email, "code": "000000"}),
    "resend-verification": lambda site, email: site.post("resend-verification", {"email": email}),
    "forgot-password": lambda site, email: site.post("forgot-password", {"email": email}),
}


@pytest.mark.parametrize("call", CALLS)
async def test_the_same_answer(site: Site, call: str) -> None:
    """Nobody can tell from an answer whether an address has an account, or is verified."""
    await people(site)
    answers = [seen(await CALLS[call](site, email)) for email in (KNOWN, UNVERIFIED, UNKNOWN)]
    assert answers[0] == answers[1] == answers[2]


async def test_the_same_register_answer(open_site: OpenSite) -> None:
    """With registration.reveal_existing off, register too, and signing in right after it tells nothing: the
    owner gets a mail, no cookie is set, and the first sign-in is the proof of the address."""
    site = await open_site(registration={"reveal_existing": False})
    body = {"email": KNOWN, "password": PASSWORD}
    answers = [await site.post("register", body) for _ in range(2)]
    refused(await site.post("login", body), 401, "invalid_credentials")
    assert (await site.post("verify-email", {"email": KNOWN, "code": await site.box.code(KNOWN, 2)})).code == 200
    answers.append(await site.post("register", body))
    assert seen(answers[0]) == seen(answers[1]) == seen(answers[2])
    assert answers[0].code == 202
    assert "Set-Cookie" not in answers[0].headers
    assert "There is an account with this address already" in await site.box.letter(KNOWN, about="already")
    assert (await site.post("login", body)).code == 200


@pytest.mark.parametrize("call", CALLS)
async def test_the_same_limit(open_site: OpenSite, call: str) -> None:
    """The limits answer alike too: after as many tries, in the same words."""
    site = await open_site(limits={"enabled": True, "register_network": "off", "mail_network": "off"})
    await people(site)
    codes: list[list[int]] = []
    for email in (KNOWN, UNVERIFIED, UNKNOWN):
        answers = [await CALLS[call](site, email) for _ in range(7)]
        codes.append([answer.code for answer in answers])
    assert codes[0] == codes[1] == codes[2]
    assert (429 in codes[0]) == (call != "verify-email")


@pytest.mark.parametrize("call", CALLS)
async def test_the_same_work(site: Site, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same operations reach the database, and as many hashes are spent, whoever is asked for."""
    await people(site)
    await site.hydra._mail.stop(5)
    work: list[list[str]] = []
    services = site.hydra.services
    for email in (KNOWN, UNVERIFIED, UNKNOWN):
        done: list[str] = []
        for part in (services.store.users, services.store.codes, services.store.outbox, services.store.sessions):
            for name in dir(part):
                method = getattr(type(part), name, None)
                if method is not None and not name.startswith("_"):
                    label = f"{type(part).__name__}.{name}"

                    def counted(
                        *args: Any,
                        _method: Any = method,
                        _part: Any = part,
                        _label: str = label,
                        _done: list[str] = done,
                    ) -> Any:
                        _done.append(_label)
                        return _method(_part, *args)

                    monkeypatch.setattr(part, name, counted)
        run = services.passwords._pool.run

        async def hashed(*args: Any, _run: Any = run, _done: list[str] = done) -> Any:
            _done.append("hash")
            return await _run(*args)

        with monkeypatch.context() as patch:
            patch.setattr(services.passwords._pool, "run", hashed)
            await CALLS[call](site, email)
        work.append(done)
    assert work[0] == work[1] == work[2]
    assert work[0]


async def test_login_takes_the_same_time(open_site: OpenSite) -> None:
    """With real hashing, a wrong password for nobody costs what one for somebody costs: the medians are
    within a factor, far from the tenfold that a missing hash makes."""
    site = await open_site(password={"profile": "standard"})
    await site.register(KNOWN)
    times: dict[str, list[float]] = {KNOWN: [], UNKNOWN: []}
    for _ in range(7):
        for email in times:  # In turn: what else the machine does meets both.
            before = time.perf_counter()
            refused(await CALLS["login"](site, email), 401, "invalid_credentials")
            times[email].append(time.perf_counter() - before)
    assert 1 / 3 < statistics.median(times[KNOWN]) / statistics.median(times[UNKNOWN]) < 3
