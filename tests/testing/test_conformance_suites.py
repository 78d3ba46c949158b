"""Each check of the suites catches the fault that it is for, and passes what is right."""

import asyncio
import hmac
import random
import time
from email.message import EmailMessage
from typing import Any

import pytest

from hydracore.plugin import (
    Authenticator,
    Count,
    Identity,
    LimitBackend,
    MailTransport,
    NewPassword,
    PasswordPolicy,
    PasswordRefused,
)
from hydracore.testing import AuthenticatorSuite, LimitBackendSuite, MailTransportSuite, PasswordPolicySuite
from hydracore.testing.conformance import Outcome, Suite


def fails(suite: Suite[Any]) -> set[str]:
    """The names of the checks that do not hold."""

    async def run() -> list[Outcome]:
        return await suite.outcomes(suite.make())

    return {outcome.name for outcome in asyncio.run(run()) if outcome.error}


# -- limit backends ----------------------------------------------------------------------------------


class Counting:
    """A right backend, whose faults are switched on by name."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.ahead = 0.0
        self.counters: dict[str, tuple[int, float]] = {}

    async def hit(self, key: str, window: int, cost: int) -> Any:
        now = time.monotonic() + self.ahead
        if self.fault == "one key":
            key = ""
        if self.fault == "case":
            key = key.lower()
        hits, ends = self.counters.get(key, (0, 0.0))
        if self.fault == "races":
            await asyncio.sleep(random.random() / 1000)  # noqa: S311  # only to mix them up
        if ends <= now and self.fault != "for ever":
            if cost < 0 and self.fault != "starts":
                return Count(0, 0)
            hits, ends = 0, now + window
        if self.fault == "slides":
            ends = now + window
        hits = hits + (cost if self.fault != "costs" else max(min(cost, 1), -1))
        if self.fault != "credit":
            hits = max(hits, 0)
        self.counters[key] = hits, ends
        if self.fault == "tuple":
            return hits, ends - now
        return Count(hits, (ends - now) * (1000 if self.fault == "milliseconds" else 1))


class Backends(LimitBackendSuite):
    def __init__(self, fault: str = "") -> None:
        self.counting = Counting(fault)

    def make(self) -> LimitBackend:
        return LimitBackend("counting", self.counting.hit)

    async def wait(self, seconds: float) -> None:
        self.counting.ahead += seconds


@pytest.mark.parametrize(
    ("fault", "caught"),
    [
        ("", set()),
        ("races", {"counts", "restarts"}),
        ("tuple", {"counts"}),
        ("milliseconds", {"counts", "windows_start_with_the_first_hit"}),
        ("costs", {"costs"}),
        ("slides", {"windows_start_with_the_first_hit"}),
        ("for ever", {"windows_start_with_the_first_hit", "restarts"}),
        ("credit", {"never_below_zero"}),
        ("starts", {"giving_back_starts_nothing"}),
        ("one key", {"keys_are_apart"}),
        ("case", {"keys_are_apart"}),
    ],
)
def test_limit_backends(fault: str, caught: set[str]) -> None:
    """A race, a wrong unit, a sliding window, credit, shared keys: each is caught."""
    found = fails(Backends(fault))
    assert caught <= found
    assert bool(found) == bool(fault)


# -- password policies -------------------------------------------------------------------------------


class Judging:
    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.asked = 0

    def check(self, password: str, email: str) -> Any:
        self.asked += 1
        if self.fault == "composition" and not any(sign in password for sign in "!?&"):
            raise PasswordRefused("Use a sign.")
        if self.fault == "raises" and "\0" in password:
            raise ValueError("embedded null byte")
        if self.fault == "moody" and self.asked % 2:
            raise PasswordRefused("Not today.")
        if password in ("password", "12345678", "qwertyuiop"):
            if self.fault == "repeats":
                raise PasswordRefused(f"{password} is too common.")
            if self.fault == "silent":
                raise PasswordRefused("")
            if self.fault == "a word":
                raise PasswordRefused("bad")
            raise PasswordRefused("This is too common.")


class Policies(PasswordPolicySuite):
    def __init__(self, fault: str = "", asynchronous: bool = False) -> None:
        self.judging = Judging(fault)
        self.asynchronous = asynchronous

    def make(self) -> PasswordPolicy:
        async def judge(new: NewPassword) -> None:
            self.judging.check(new.password, new.email)

        if self.asynchronous:
            return PasswordPolicy("judging", judge=judge)
        return PasswordPolicy("judging", self.judging.check)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    ("fault", "caught"),
    [
        ("", set()),
        ("composition", {"long_random_ones"}),
        ("raises", {"hostile_ones"}),
        ("moody", {"verdicts_are_the_same"}),
        ("repeats", {"sentences"}),
        ("silent", {"sentences"}),
        ("a word", {"sentences"}),
    ],
)
def test_password_policies(fault: str, caught: set[str], asynchronous: bool) -> None:
    """Rules of composition, exceptions for odd characters, moods, leaking sentences: each is caught."""
    found = fails(Policies(fault, asynchronous))
    assert caught <= found
    assert bool(found) == bool(fault)


# -- mail transports ---------------------------------------------------------------------------------


class Posting:
    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.arrived: list[str] = []
        self.keys: set[str] = set()
        self.busy = False
        self.closed = False

    async def send(self, message: EmailMessage, key: str) -> None:
        if self.fault == "one at a time" and self.busy:
            raise ConnectionError("busy")
        if self.fault == "keys" and key in self.keys:
            raise ValueError("the key was used")
        if self.fault == "ascii":
            str(message["Subject"]).encode("ascii")
        if self.fault == "cancelled" and self.busy and message["Subject"].startswith("one"):
            raise ConnectionError("the connection was left in the middle")
        self.busy = True
        await asyncio.sleep(0.001)
        self.busy = False
        self.keys.add(key)
        self.arrived += [] if self.fault == "loses" else [str(message["Subject"])] * (2 if self.fault == "twice" else 1)

    async def close(self) -> None:
        if self.closed and self.fault == "closes once":
            raise RuntimeError("closed already")
        self.closed = True


class Transports(MailTransportSuite):
    def __init__(self, fault: str = "", recipient: str = "ada@example.com") -> None:
        self.posting = Posting(fault)
        self.recipient = recipient

    def make(self) -> MailTransport:
        name = "not a name" if self.posting.fault == "name" else "posting"
        return MailTransport(name, self.posting.send, self.posting.close)

    async def arrived(self, subject: str) -> int | None:
        return self.posting.arrived.count(subject)


@pytest.mark.parametrize(
    ("fault", "caught"),
    [
        ("", set()),
        ("name", {"is_one"}),
        ("loses", {"sends", "side_by_side", "any_text"}),
        ("twice", {"sends"}),
        ("one at a time", {"side_by_side"}),
        ("cancelled", {"cancelled"}),
        ("keys", {"the_same_key"}),
        ("ascii", {"any_text"}),
        ("closes once", {"closes"}),
    ],
)
def test_mail_transports(fault: str, caught: set[str]) -> None:
    """Losing, doubling, one at a time, refused keys, ASCII alone, closing once: each is caught."""
    found = fails(Transports(fault))
    assert caught <= found
    assert bool(found) == bool(fault)


def test_nothing_is_sent_unasked() -> None:
    """Without a recipient no mail goes out, and the checks say why they were not made."""
    suite = Transports(recipient="")

    async def run() -> list[Outcome]:
        return await suite.outcomes(suite.make())

    outcomes = asyncio.run(run())
    assert {outcome.skipped for outcome in outcomes if outcome.name not in ("is_one", "closes")} == {
        "no recipient was given"
    }
    assert suite.posting.arrived == []


# -- authenticators ----------------------------------------------------------------------------------


class Knowing:
    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.hashes = 0

    async def authenticate(self, email: str, password: str) -> Any:
        known = email == "ada@example.com" if self.fault == "case" else email.lower() == "ada@example.com"
        if self.fault == "wildcard" and "*" in email:
            return Identity()
        if self.fault == "raises" and "\0" in password:
            raise ValueError("embedded null byte")
        if known or self.fault != "quick":
            self.hashes += 1
        if self.fault == "strips":
            password = password.strip()
        if self.fault == "empty" and not password:
            return Identity() if known else None
        right = hmac.compare_digest(password.encode(), b"Right Password") and known
        if self.fault == "bool":
            return right
        return Identity() if right else None


class Authenticators(AuthenticatorSuite):
    def __init__(self, fault: str = "") -> None:
        self.knowing = Knowing(fault)

    def make(self) -> Authenticator:
        return Authenticator("knowing", self.knowing.authenticate)

    def right(self) -> tuple[str, str] | None:
        return "ada@example.com", "Right Password"

    def work(self) -> int | None:
        return self.knowing.hashes


@pytest.mark.parametrize(
    ("fault", "caught"),
    [
        ("", set()),
        ("case", {"vouches"}),
        ("bool", {"vouches", "wrong_passwords", "unknown_addresses"}),
        ("strips", {"wrong_passwords"}),
        ("empty", {"wrong_passwords"}),
        ("raises", {"wrong_passwords", "unknown_addresses"}),
        ("wildcard", {"unknown_addresses"}),
        ("quick", {"the_same_work"}),
    ],
)
def test_authenticators(fault: str, caught: set[str]) -> None:
    """True for an identity, trimmed or empty passwords, wildcards, less work for strangers: each is caught."""
    found = fails(Authenticators(fault))
    assert caught <= found
    assert bool(found) == bool(fault)


# -- as pytest runs them -----------------------------------------------------------------------------


class TestBackends(LimitBackendSuite):
    """A right backend, through the tests that pytest finds."""

    def make(self) -> LimitBackend:
        return LimitBackend("counting", Counting().hit)


class TestPolicies(PasswordPolicySuite):
    def make(self) -> PasswordPolicy:
        return PasswordPolicy("judging", Judging().check)


def test_a_hanging_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that never answers fails its check, in the end."""
    monkeypatch.setattr("hydracore.testing.conformance.suite._DEADLINE", 0.2)

    async def hang(message: EmailMessage, key: str) -> None:
        await asyncio.sleep(60)

    class Hanging(MailTransportSuite):
        recipient = "ada@example.com"

        def make(self) -> MailTransport:
            return MailTransport("hanging", hang)

    assert "sends" in fails(Hanging())
    with pytest.raises(AssertionError, match="more than"):
        Hanging().test_sends()  # type: ignore[attr-defined]
