"""Passwords that are easy to guess are refused."""

import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import zxcvbn_rs_py
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import OpenSite, refused, tokens

from hydracore.config import load
from hydracore.plugin import PasswordPolicy, PasswordRefused, StartupError
from hydracore.testing import PasswordPolicySuite

EMAIL = "ada.lovelace@analytical-engines.example"
LONGEST = 128
# What the library takes longest for: each of these signs may stand for a letter, and some for two.
SIGNS = "4@8({[<369&#!1/|0$5+7%2"


def verdict(plugin: Any, password: str, email: str = EMAIL) -> str:
    """The refusal's sentences, their shape checked; "" for an accepted password."""
    [policy] = plugin.hydracore_register_password_policies()
    try:
        policy.check(password, email)
    except PasswordRefused as refusal:
        said = str(refusal)
        assert said.startswith("This is too easy to guess.")
        assert said.endswith(".")
        return said
    return ""


class TestThePolicy(PasswordPolicySuite):
    """It keeps the contract of a password policy."""

    @pytest.fixture(autouse=True)
    def plugin(self, make: Any) -> None:
        self._plugin = make("password_strength")

    def make(self) -> PasswordPolicy:
        [policy] = self._plugin.hydracore_register_password_policies()
        assert isinstance(policy, PasswordPolicy)
        return policy


@pytest.mark.parametrize(
    "password",
    ["correct horse battery staple", "dein-Haus-am-See", "Löwenzahn-im-Mai", "g7Kq-2pXw-Zm4t", "я люблю теплые вечера"],
)
def test_good_ones_pass(make: Any, password: str) -> None:
    """What takes many guesses is accepted, in any language."""
    assert verdict(make("password_strength"), password) == ""


@pytest.mark.parametrize(
    ("password", "found", "helps"),
    [
        ("iloveyou", "one of the hundred most common", "Add a word or two"),
        ("P@ssw0rd123", "much like a common password", "Signs in place of letters"),
        ("aaaaaaaaaa", "repeats one character", "Do not repeat"),
        ("23.11.2026", "has a date", "Leave out dates"),
        ("JohnSmith", "a common name", "Capitals help little"),
        ("zxcvfr$%", "a short pattern on the keyboard", "Leave the keyboard"),
        ("drowssap", "much like a common password", "backwards"),
    ],
)
def test_easy_ones(make: Any, password: str, found: str, helps: str) -> None:
    """What is easy to guess is refused, with what was found and what would help, and without the password."""
    said = verdict(make("password_strength"), password)
    assert found in said
    assert helps in said
    assert password not in said


@pytest.mark.parametrize(
    "password",
    [EMAIL, "ada.lovelace", "Analytical-Engines1", "lovelaceLOVELACE", "hydracore1815", "Acme Mail 2", "acmemailacme"],
)
def test_what_anyone_would_try_here(make: Any, password: str) -> None:
    """The address, its parts and the name of the service count as words that everyone knows."""
    plugin = make("password_strength", settings=load(environment={}, overrides={"mail": {"product": "Acme Mail"}}))
    assert verdict(plugin, password)


def test_addresses_matter_alone(make: Any) -> None:
    """A password that is another one's name is judged by what it is."""
    plugin = make("password_strength", min_score=2)
    assert verdict(plugin, "xavertupfinger", "xaver.tupfinger@example.com")
    assert verdict(plugin, "xavertupfinger", EMAIL) == ""


def test_letters_of_an_address_are_no_words(make: Any) -> None:
    """An address of single letters makes no password bad."""
    assert verdict(make("password_strength"), "kuqmzhtwbxvf", "k.u.q.m@z.h.t.w.b.x.v.f") == ""


def test_the_score_is_configured(make: Any) -> None:
    """A higher min_score refuses more; with 0 everything is accepted."""
    passwords = ["iloveyou", "JohnSmith", "kuqmzhtw", "nine lakes", "correct horse battery staple"]
    accepted = [
        [verdict(make("password_strength", min_score=score), password) == "" for password in passwords].count(True)
        for score in range(5)
    ]
    assert accepted == [5, 4, 3, 2, 1]


def test_there_is_always_advice(make: Any) -> None:
    """Where the library says nothing, as of a password that only the strictest refuse, the sentence still helps."""
    said = verdict(make("password_strength", min_score=4), "nine lakes")
    assert said == "This is too easy to guess. Add a word or two that few would think of."


@pytest.mark.parametrize("score", [-1, 5, 2.5, "3"])
def test_no_such_score(make: Any, score: Any) -> None:
    """A score that there is not stops the start, and the message names the key."""
    with pytest.raises(StartupError, match=r"password_strength\.min_score"):
        make("password_strength", min_score=score)


def test_the_library_is_optional(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library the start stops, and says how to install it."""
    monkeypatch.delitem(sys.modules, "hydracore_password_strength", raising=False)
    monkeypatch.setitem(sys.modules, "zxcvbn_rs_py", None)
    with pytest.raises(StartupError, match=r'pip install "hydracore\[strength\]"'):
        make("password_strength")


def test_every_finding_has_words(make: Any) -> None:
    """The library names nothing that we have no sentence for, and each sentence is one."""
    make("password_strength")
    from hydracore_password_strength.sentences import _WORDS

    named = {
        name for kind in (zxcvbn_rs_py.Warning, zxcvbn_rs_py.Suggestion) for name in dir(kind) if name[0].isupper()
    }
    assert named == set(_WORDS)
    assert all(words[0].isupper() and words.endswith(".") for words in _WORDS.values())


# -- whatever is sent ------------------------------------------------------------------------------


def test_any_text(make: Any) -> None:
    """Whatever the text and the address, the verdict is a refusal or none, and the same again."""
    plugin = make("password_strength")
    texts = st.one_of(
        st.text(max_size=LONGEST),
        st.text(SIGNS, max_size=LONGEST),
        st.text("\0\n😀\u0301\u202eßİſ١２", max_size=LONGEST),
        st.builds(lambda unit, times: (unit * times)[:LONGEST], st.text(min_size=1), st.integers(1, LONGEST)),
    )

    @settings(max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(texts, st.one_of(st.emails(), st.text(max_size=254)))
    def judge(password: str, email: str) -> None:
        assert verdict(plugin, password, email) == verdict(plugin, password, email)

    judge()


def pathological() -> Iterator[str]:
    for unit in (
        "a",
        "abc",
        "1234567890",
        "password",
        "p@$$w0rD",
        "1.1.11",
        "qwertyuiop",
        "\0",
        "😀",
        "a\u0301",
        SIGNS,
    ):
        yield (unit * LONGEST)[:LONGEST]
    yield "".join(chr(0x1F600 + number % 64) for number in range(LONGEST))
    yield "52#|<+(5117%0$/[3/[<{8#+6@(/67|&2({{!|[[|8&029{2604|$/!@5#@5</%7" * 2


@pytest.mark.parametrize("password", pathological())
def test_no_password_takes_long(make: Any, password: str) -> None:
    """The longest passwords of patterns, emoji and signs are judged in a fraction of a second of work."""
    plugin, email = make("password_strength"), ".".join(["axe"] * 60) + "@example.com"
    began = time.thread_time()
    verdict(plugin, password, email)
    assert time.thread_time() - began < 1


def test_only_the_beginning_is_judged(make: Any) -> None:
    """A good beginning makes a good password, whatever follows; a dull one is not saved by what is far behind."""
    plugin = make("password_strength")
    assert verdict(plugin, "correct horse battery staple" + "a" * 100) == ""
    assert "repeats one character" in verdict(plugin, "a" * 100 + "correct horse battery staple")
    # Signs that may stand for letters cost the library the most: with many of them the beginning is shorter.
    assert verdict(plugin, "a" * 24 + "correct horse battery staple") == ""
    assert "repeats one character" in verdict(plugin, "a" * 24 + SIGNS)


# -- over the whole server -------------------------------------------------------------------------


async def test_register(open_site: OpenSite) -> None:
    """Registration is refused with the sentence, and goes through with a better password."""
    site = await open_site(plugins={"enabled": ["password_strength"]})
    weak = {"email": EMAIL, "password": "sunshine2024"}
    [problem] = refused(await site.post("register", weak), 422, "validation_failed")
    assert problem["loc"] == ["body", "password"]
    assert problem["msg"].startswith("This is too easy to guess. It is much like a common password. Add a word")
    tokens(await site.post("register", weak | {"password": "sunshine over nine frozen lakes"}), 201)


async def test_reset(open_site: OpenSite) -> None:
    """A weak password is refused at a reset too, where the address is known from the token; the token stays good."""
    site = await open_site(plugins={"enabled": ["password_strength"]})
    await site.register(EMAIL)
    await site.post("forgot-password", {"email": EMAIL})
    reset = {"token": await site.box.reset_token(EMAIL), "new_password": "Lovelace1815"}
    [problem] = refused(await site.post("reset-password", reset), 422, "validation_failed")
    assert problem["loc"] == ["body", "new_password"]
    assert (await site.post("reset-password", reset | {"new_password": "nine frozen lakes"})).code == 200
