"""Each check of the suites catches the fault that it is for, and passes what is right."""

import asyncio
import hmac
import random
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from email.message import EmailMessage
from typing import Any

import pytest

from hydracore.addresses import parse_address
from hydracore.plugin import (
    Authenticator,
    Count,
    Identity,
    LimitBackend,
    LoginRefused,
    MailDeferred,
    MailRefused,
    MailTransport,
    NewPassword,
    PasswordPolicy,
    PasswordRefused,
)
from hydracore.testing import AuthenticatorSuite, LimitBackendSuite, MailTransportSuite, PasswordPolicySuite
from hydracore.testing.conformance import NotConforming, Outcome, Suite, authenticators, run

Faults = Sequence[tuple[str, set[str]]]


def outcomes(suite: Suite[Any], record: Any = None) -> list[Outcome]:
    """What becomes of the checks over one record, as the command runs them."""

    async def checked() -> list[Outcome]:
        return await suite.outcomes(record or suite.make())

    return asyncio.run(checked())


def fails(suite: Suite[Any]) -> set[str]:
    """The names of the checks that do not hold, each over a record of its own."""
    return {outcome.name for outcome in run(suite) if outcome.error}


def caught_by(faults: Faults) -> set[str]:
    return {f"check_{name}" for _, caught in faults for name in caught}


# -- limit backends ----------------------------------------------------------------------------------


class Counting:
    """A right backend, whose faults are switched on by name."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.ahead = 0.0
        self.counters: dict[str, tuple[int, float]] = {}
        self.broken = False
        self.loop: Any = None

    async def hit(self, key: str, window: int, cost: int) -> Any:
        now = time.monotonic() + self.ahead
        if self.fault == "one loop":
            self.loop = self.loop or asyncio.get_running_loop()
            if self.loop is not asyncio.get_running_loop():
                raise RuntimeError("is bound to a different event loop")
        if self.fault == "cancelled":
            await self.fetch()
        if self.fault == "one key":
            key = ""
        if self.fault == "case":
            key = key.lower()
        if self.fault == "short keys":
            key = key[:32]
        hits, ends = self.counters.get(key, (0, 0.0))
        if self.fault == "races" or (self.fault == "races back" and cost < 0):
            await asyncio.sleep(random.random() / 1000)  # noqa: S311  # only to mix them up
        if ends <= now and self.fault != "for ever":
            if cost < 0 and self.fault != "starts":
                return Count(0, 0)
            hits, ends = 0, now + window
        if self.fault == "slides" or (self.fault == "gifts slide" and cost < 0):
            ends = now + window
        hits = hits + (cost if self.fault != "costs" else max(min(cost, 1), -1))
        if self.fault != "credit":
            hits = max(hits, 0)
        self.counters[key] = hits, ends
        if self.fault == "again":
            asyncio.get_running_loop().call_soon(self.again, key)
        if self.fault == "tuple":
            return hits, ends - now
        return Count(hits, (ends - now) * (1000 if self.fault == "milliseconds" else 1))

    async def fetch(self) -> None:
        """A connection that is broken for good when someone stops in the middle."""
        if self.broken:
            raise ConnectionError("left in the middle")
        try:
            await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            self.broken = True
            raise

    async def give_back(self, keys: Sequence[str]) -> None:
        for key in keys[:1] if self.fault == "gifts to one" else keys:
            await self.hit(key, 60, -1)

    def again(self, key: str) -> None:
        hits, ends = self.counters[key]
        self.counters[key] = hits + 1, ends


class Backends(LimitBackendSuite):
    def __init__(self, fault: str = "") -> None:
        self.counting = Counting(fault)

    def make(self) -> LimitBackend:
        return LimitBackend("counting", self.counting.hit, give_back=self.counting.give_back)

    async def wait(self, seconds: float) -> None:
        self.counting.ahead += seconds


LIMIT_FAULTS: Faults = [
    ("", set()),
    ("races", {"counts", "restarts"}),
    ("races back", {"giving_back"}),
    ("tuple", {"counts"}),
    ("milliseconds", {"counts", "windows_start_with_the_first_hit"}),
    ("costs", {"costs"}),
    ("slides", {"windows_start_with_the_first_hit"}),
    ("gifts slide", {"giving_back"}),
    ("gifts to one", {"giving_back_to_many"}),
    ("for ever", {"windows_start_with_the_first_hit", "restarts"}),
    ("credit", {"never_below_zero"}),
    ("starts", {"giving_back_starts_nothing"}),
    ("one key", {"keys_are_apart"}),
    ("case", {"keys_are_apart"}),
    ("short keys", {"keys_are_apart"}),
    ("cancelled", {"cancelled"}),
    ("again", {"cancelled"}),
    ("one loop", {"other_loops"}),
]


@pytest.mark.parametrize(("fault", "caught"), LIMIT_FAULTS)
def test_limit_backends(fault: str, caught: set[str]) -> None:
    """A race, a wrong unit, a sliding window, credit, shared keys, one loop for life: each is caught."""
    found = fails(Backends(fault))
    assert caught <= found
    assert bool(found) == bool(fault)


class Rounding(Counting):
    """Tells what is left of a window in whole seconds, as a TTL does."""

    async def hit(self, key: str, window: int, cost: int) -> Any:
        count = await super().hit(key, window, cost)
        return Count(count.hits, -(-count.resets_in // 1))


def test_whole_seconds() -> None:
    """A backend that tells whole seconds conforms."""
    suite = Backends()
    suite.counting = Rounding()
    assert not fails(suite)


def test_a_machine_that_stands_still() -> None:
    """Where the machine stood still for longer than the windows, nothing is said against the backend."""

    class Late(Backends):
        async def wait(self, seconds: float) -> None:
            self.counting.ahead += seconds * 2
            began = asyncio.get_running_loop().time()
            loop = asyncio.get_running_loop()
            loop.time = lambda: began + 100  # type: ignore[method-assign]

    [late] = [outcome for outcome in run(Late()) if outcome.name == "windows_start_with_the_first_hit"]
    assert (late.error, late.skipped) == ("", "this machine is too slow to tell")


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
            if self.fault == "returns":
                return "This is too common."
            if self.fault == "repeats":
                raise PasswordRefused(f"{password} is too common.")
            if self.fault == "repeats it in capitals":
                raise PasswordRefused(f"{password.upper()} is too common.")
            if self.fault == "silent":
                raise PasswordRefused("")
            if self.fault == "a word":
                raise PasswordRefused("bad")
            raise PasswordRefused("This is too common.")
        return None


class Policies(PasswordPolicySuite):
    def __init__(self, fault: str = "", asynchronous: bool = False) -> None:
        self.judging = Judging(fault)
        self.asynchronous = asynchronous

    def make(self) -> PasswordPolicy:
        async def judge(new: NewPassword) -> Any:
            return self.judging.check(new.password, new.email)

        if self.asynchronous:
            return PasswordPolicy("judging", judge=judge)
        return PasswordPolicy("judging", self.judging.check)


POLICY_FAULTS: Faults = [
    ("", set()),
    ("composition", {"long_random_ones"}),
    ("raises", {"hostile_ones"}),
    ("moody", {"verdicts_are_the_same"}),
    ("returns", {"sentences"}),
    ("repeats", {"sentences"}),
    ("repeats it in capitals", {"sentences"}),
    ("silent", {"sentences"}),
    ("a word", {"sentences"}),
]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(("fault", "caught"), POLICY_FAULTS)
def test_password_policies(fault: str, caught: set[str], asynchronous: bool) -> None:
    """Rules of composition, exceptions for odd characters, moods, leaking sentences: each is caught."""
    found = fails(Policies(fault, asynchronous))
    assert caught <= found
    assert bool(found) == bool(fault)


def test_a_check_that_should_be_a_judge() -> None:
    """A coroutine function given as ``check`` is never awaited and refuses nobody: it is caught."""

    async def judge(password: str, email: str) -> None:
        raise PasswordRefused("This is too common.")

    class Mistaken(PasswordPolicySuite):
        def make(self) -> PasswordPolicy:
            return PasswordPolicy("mistaken", judge)  # type: ignore[arg-type]

    assert fails(Mistaken()) == {"long_random_ones", "hostile_ones", "verdicts_are_the_same", "sentences"}


# -- mail transports ---------------------------------------------------------------------------------


class Posting:
    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.arrived: list[str] = []
        self.keys: set[str] = set()
        self.busy = False
        self.closed = False

    async def send(self, message: EmailMessage, key: str) -> Any:
        if self.fault == "one at a time" and self.busy:
            raise ConnectionError("busy")
        if self.fault == "keys" and key in self.keys:
            raise ValueError("the key was used")
        if self.fault == "ascii":
            str(message["Subject"]).encode("ascii")
        if self.fault == "ascii names":
            str(message["From"]).encode("ascii")
        if self.fault == "ascii addresses":
            str(message["To"]).encode("ascii")
        if self.fault == "cancelled" and self.busy and message["Subject"].startswith("one"):
            raise ConnectionError("the connection was left in the middle")
        if not str(message["To"]).isascii():
            raise MailRefused("nobody beyond ASCII")
        self.busy = True
        await asyncio.sleep(0.001 if self.fault != "hangs" else 60)
        self.busy = False
        self.keys.add(key)
        self.arrived += [] if self.fault == "loses" else [str(message["Subject"])] * (2 if self.fault == "twice" else 1)
        return self.fault != "returns" and None

    async def close(self) -> None:
        if self.closed and self.fault == "closes once":
            raise RuntimeError("closed already")
        self.closed = True


class Transports(MailTransportSuite):
    recipient_beyond_ascii = "grüße@example.com"

    def __init__(self, fault: str = "", recipient: str = "ada@example.com") -> None:
        self.posting = Posting(fault)
        self.recipient = recipient
        self.timeout = 0.1 if fault in ("hangs", "fails slowly") else 30

    def make(self) -> MailTransport:
        name = "not a name" if self.posting.fault == "name" else "posting"
        return MailTransport(name, self.posting.send, self.posting.close)

    def failing(self) -> MailTransport | None:
        async def fail(message: EmailMessage, key: str) -> None:
            match self.posting.fault:
                case "fails slowly":
                    await asyncio.sleep(60)
                case "fails in silence":
                    return
                case "tells the body":
                    raise MailDeferred(f"refused: {message.get_body(('plain',)).get_content()}")  # type: ignore[union-attr]
                case "tells the address":
                    raise MailRefused(f"no such user: {message['To']}")
            raise MailDeferred("the server is away")

        return MailTransport("failing", fail)

    async def arrived(self, subject: str) -> int | None:
        return self.posting.arrived.count(subject)


MAIL_FAULTS: Faults = [
    ("", set()),
    ("name", {"is_one"}),
    ("loses", {"sends", "side_by_side", "the_same_key", "any_text"}),
    ("twice", {"sends"}),
    ("returns", {"sends"}),
    ("hangs", {"sends", "side_by_side"}),
    ("one at a time", {"side_by_side"}),
    ("cancelled", {"cancelled"}),
    ("keys", {"the_same_key"}),
    ("ascii", {"any_text"}),
    ("ascii names", {"any_text"}),
    ("ascii addresses", {"any_address"}),
    ("closes once", {"closes"}),
    ("fails slowly", {"failures"}),
    ("fails in silence", {"failures"}),
    ("tells the body", {"failures"}),
    ("tells the address", {"failures"}),
]


@pytest.mark.parametrize(("fault", "caught"), MAIL_FAULTS)
def test_mail_transports(fault: str, caught: set[str]) -> None:
    """Losing, doubling, one at a time, refused keys, ASCII alone, closing once, silence: each is caught."""
    found = fails(Transports(fault))
    assert caught <= found
    assert bool(found) == bool(fault)


def test_nothing_is_sent_unasked() -> None:
    """Without a recipient no mail goes out, and the checks say why they were not made."""
    suite = Transports(recipient="")
    made = outcomes(suite)
    assert {outcome.skipped for outcome in made if outcome.name not in ("is_one", "closes")} == {
        "no recipient was given"
    }
    assert not [outcome for outcome in made if outcome.error]
    assert suite.posting.arrived == []


def test_what_is_in_use_stays_open() -> None:
    """What the command looks at is somebody's: with a recipient it sends, there only, and closes nothing."""
    posting, sent = Posting(), []

    async def send(message: EmailMessage, key: str) -> None:
        sent.append(str(message["To"]))

    suite = MailTransportSuite()
    suite.recipient = "ada@example.com"
    said = {outcome.name: outcome for outcome in outcomes(suite, MailTransport("live", send, posting.close))}
    assert not [outcome for outcome in said.values() if outcome.error]
    assert said["closes"].skipped == "it is in use"
    assert set(sent) == {"ada@example.com"}
    assert not posting.closed
    backend = LimitBackend("live", Counting().hit, posting.close)
    said = {outcome.name: outcome for outcome in outcomes(LimitBackendSuite(), backend)}
    assert not [outcome for outcome in said.values() if outcome.error]
    assert said["other_loops"].skipped == "it is in use"
    assert not posting.closed


# -- authenticators ----------------------------------------------------------------------------------


class Knowing:
    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.hashes = 0
        self.asked = ("", "")

    async def authenticate(self, email: str, password: str) -> Any:
        if self.fault == "shares":
            self.asked = email, password
            await asyncio.sleep(0)
            email, password = self.asked
        known = email == "ada@example.com" if self.fault == "case" else email.lower() == "ada@example.com"
        if self.fault == "wildcard" and "*" in email:
            return Identity()
        if self.fault == "raises" and "\0" in password:
            raise ValueError("embedded null byte")
        if self.fault == "refuses" and not known:
            raise LoginRefused("Who are you?")
        if self.fault == "ascii":
            email.encode("ascii")
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


AUTHENTICATOR_FAULTS: Faults = [
    ("", set()),
    ("case", {"vouches"}),
    ("bool", {"vouches", "wrong_passwords", "unknown_addresses"}),
    ("strips", {"wrong_passwords"}),
    ("empty", {"wrong_passwords"}),
    ("raises", {"wrong_passwords", "unknown_addresses"}),
    ("refuses", {"unknown_addresses"}),
    ("ascii", {"unknown_addresses"}),
    ("wildcard", {"unknown_addresses"}),
    ("shares", {"many_at_once"}),
    ("quick", {"the_same_work"}),
]


@pytest.mark.parametrize(("fault", "caught"), AUTHENTICATOR_FAULTS)
def test_authenticators(fault: str, caught: set[str]) -> None:
    """True for an identity, trimmed or empty passwords, wildcards, less work for strangers: each is caught."""
    found = fails(Authenticators(fault))
    assert caught <= found
    assert bool(found) == bool(fault)


def test_strangers_are_addresses() -> None:
    """The odd addresses that the suite tries are ones that the core lets through to an authenticator."""
    for form in authenticators._STRANGERS:
        email = authenticators._stranger(form)
        assert parse_address(email).email == email


# -- the suites themselves ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suite", "faults"),
    [
        (LimitBackendSuite, LIMIT_FAULTS),
        (PasswordPolicySuite, POLICY_FAULTS),
        (MailTransportSuite, MAIL_FAULTS),
        (AuthenticatorSuite, AUTHENTICATOR_FAULTS),
    ],
)
def test_no_check_is_for_nothing(suite: type[Suite[Any]], faults: Faults) -> None:
    """For each check there is a fault that it catches."""
    assert set(suite.checks()) == caught_by(faults)


@pytest.mark.parametrize("suite", [Backends(), Policies(), Transports(), Authenticators()])
def test_checks_and_tests_are_the_same(suite: Suite[Any]) -> None:
    """Each check is one test for pytest, with the same sentence, and one outcome for a command."""
    tests = {name for name in dir(suite) if name.startswith("test_")}
    assert tests == {name.replace("check_", "test_") for name in suite.checks()}
    for outcome in run(suite):
        assert outcome.sentence.endswith(".")
        assert getattr(suite, f"test_{outcome.name}").__doc__ == getattr(suite, f"check_{outcome.name}").__doc__


def test_a_check_that_is_changed() -> None:
    """A suite may say a check differently: it is made once, as the suite says."""

    class Changed(Backends):
        async def check_costs(self, backend: LimitBackend) -> None:
            """Nothing costs anything."""
            raise NotConforming("changed")

    assert len(Changed.checks()) == len(set(Changed.checks())) == len(LimitBackendSuite.checks())
    assert fails(Changed()) == {"costs"}
    with pytest.raises(NotConforming, match="changed"):
        Changed().test_costs()  # type: ignore[attr-defined]


class TestBackends(LimitBackendSuite):
    """A right backend, through the tests that pytest finds."""

    def make(self) -> LimitBackend:
        counting = Counting()
        return LimitBackend("counting", counting.hit, give_back=counting.give_back)


class TestPolicies(PasswordPolicySuite):
    def make(self) -> PasswordPolicy:
        return PasswordPolicy("judging", Judging().check)


@pytest.mark.parametrize("hook", ["send", "close"])
def test_a_hanging_record(monkeypatch: pytest.MonkeyPatch, hook: str) -> None:
    """A record that never answers, or cannot be closed, fails its check, in the end."""
    monkeypatch.setattr("hydracore.testing.conformance.suite._DEADLINE", 0.2)

    async def hang(*_: Any) -> None:
        await asyncio.sleep(60)

    class Hanging(MailTransportSuite):
        recipient = "ada@example.com"

        def make(self) -> MailTransport:
            return MailTransport("hanging", **({"send": Posting().send} | {hook: hang}))  # type: ignore[arg-type]

    assert {"sends", "closes"} <= fails(Hanging())
    with pytest.raises(NotConforming, match="more than"):
        Hanging().test_sends()  # type: ignore[attr-defined]


def test_a_deadline_of_its_own() -> None:
    """What a record raises as TimeoutError is its own failure, not ours to rename."""

    async def late(message: EmailMessage, key: str) -> None:
        raise TimeoutError("the relay said nothing")

    class Late(MailTransportSuite):
        recipient = "ada@example.com"

        def make(self) -> MailTransport:
            return MailTransport("late", late)

    with pytest.raises(TimeoutError, match="the relay said nothing"):
        Late().test_sends()  # type: ignore[attr-defined]


def test_the_current_loop_stays() -> None:
    """A suite's tests leave the event loop that is current, which is another plugin's, as it was."""
    before = asyncio.get_event_loop_policy()
    mine = asyncio.new_event_loop()
    asyncio.set_event_loop(mine)
    try:
        TestPolicies().test_sentences()  # type: ignore[attr-defined]
        assert asyncio.get_event_loop() is mine
        assert asyncio.get_event_loop_policy() is before
    finally:
        asyncio.set_event_loop(None)
        mine.close()


def python(*lines: str) -> Iterable[str]:
    """What a script prints, under python -O."""
    command = [sys.executable, "-O", "-c", "\n".join(lines)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_without_pytest() -> None:
    """The suites need no pytest, and python -O does not make them blind."""
    assert list(
        python(
            "import sys",
            "from hydracore.plugin import PasswordPolicy",
            "from hydracore.testing.conformance import PasswordPolicySuite, run",
            "class Mine(PasswordPolicySuite):",
            "    def make(self):",
            "        return PasswordPolicy('mine', lambda password, email: password == 'password')",
            "print('pytest' in sys.modules)",
            "print(sorted({bool(outcome.error) for outcome in run(Mine())}))",
        )
    ) == ["False", "[True]"]
