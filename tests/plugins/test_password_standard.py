"""The password policies that are always on."""

import gzip
import hashlib
from importlib import resources
from typing import Any

import pytest

from hydracore.config import load
from hydracore.plugin import PasswordRefused

EMAIL = "ada.lovelace@analytical-engines.example"


def objections(make: Any, password: str, email: str = EMAIL, /, **settings: Any) -> list[str]:
    """The names of the policies that refuse that password."""
    plugin = make("password_standard", settings=load(environment={}, overrides=settings))
    refusing = []
    for policy in plugin.hydracore_register_password_policies():
        try:
            policy.check(password, email)
        except PasswordRefused as refusal:
            assert str(refusal)[0].isupper()
            assert str(refusal).endswith(".")
            refusing.append(policy.name)
    return refusing


@pytest.mark.parametrize(
    "password",
    [
        "correct horse battery staple",
        "Löwenzahn-im-Mai",
        "kuqmzhtw",
        "        ",
        "🐍🐍🐍🐍🐍🐍🐍🐍",
        "ada lovelace wrote notes",
        "x" * 128,
    ],
)
def test_good_ones_pass(make: Any, password: str) -> None:
    """There are no rules of composition: any Unicode, spaces and length alone will do."""
    assert objections(make, password) == []


@pytest.mark.parametrize("password", ["kuqmzht", "🐍" * 7, "é" * 7, ""])
def test_short_ones(make: Any, password: str) -> None:
    """Under eight code points is too short."""
    assert objections(make, password) == ["length"]


def test_the_length_is_configured(make: Any) -> None:
    """password.min_length counts, and the sentence names it."""
    assert objections(make, "k" * 14, password={"min_length": 15}) == ["length"]
    assert objections(make, "kuqmzhtwkuqmzht", password={"min_length": 15}) == []


@pytest.mark.parametrize(
    "password",
    [
        EMAIL,
        EMAIL.upper(),
        f"my {EMAIL}!",
        "ada.lovelace",
        "Ada.Lovelace",
        "ada.lovelace1815",
        "1815ada.lovelace!",
        "analytical-engines.example",
        "analytical-engines",
        "Analytical-Engines2026!",
    ],
)
def test_the_address(make: Any, password: str) -> None:
    """The address, its local part or its domain, in any case and with digits around, is refused."""
    assert objections(make, password) == ["context"]


@pytest.mark.parametrize(
    ("password", "email"),
    [("mary1984", "mary1984@example.com"), ("mary2026", "mary1984@example.com"), ("20261123", "20261123@example.com")],
)
def test_local_parts_with_digits(make: Any, password: str, email: str) -> None:
    """A local part that ends in digits, or is nothing else, is no password either, nor with other digits."""
    assert "context" in objections(make, password, email)


def test_short_local_parts_are_left_alone(make: Any) -> None:
    """A local part of a letter or three says nothing: a password that begins with it may stay."""
    assert objections(make, "a12345987654", "a@b.example") == []
    assert objections(make, "bob-kuqmzhtw", "bob@b.example") == []


@pytest.mark.parametrize(
    ("password", "product"),
    [
        ("hydracore", "HydraCore"),
        ("HydraCore2026!", "HydraCore"),
        ("hydracore1", "Acme Mail"),
        ("Acme Mail", "Acme Mail"),
        ("acmemail123", "Acme Mail"),
        ("Acme Mail 2", "Acme Mail 2"),
    ],
)
def test_the_services_name(make: Any, password: str, product: str) -> None:
    """The name of the service, configured or ours, is refused in any case and with digits around."""
    assert objections(make, password, mail={"product": product}) == ["context"]


@pytest.mark.parametrize("password", ["password", "PASSWORD", "PassWord", "12345678", "qwertyuiop", "iloveyou"])
def test_common_ones(make: Any, password: str) -> None:
    """The passwords that everyone tries first are refused in any case."""
    assert "common" in objections(make, password)


def test_every_long_one_of_the_list(make: Any) -> None:
    """Each entry of eight characters or more is refused, and the file is the one that SOURCE.md tells of."""
    folder = resources.files("hydracore_password_standard")
    packed = (folder / "common_passwords.txt.gz").read_bytes()
    source = (folder / "common_passwords.SOURCE.md").read_text("utf-8")
    assert hashlib.sha256(packed).hexdigest() in source
    assert "BSD" in source
    assert "Redistribution" in (folder / "common_passwords.LICENSE.txt").read_text("utf-8")
    entries = gzip.decompress(packed).decode("utf-8").splitlines()
    long = [entry for entry in entries if len(entry) >= 8]
    assert (f"{len(entries):,}" in source, f"{len(long):,}" in source) == (True, True)
    plugin = make("password_standard", settings=load(environment={}))
    for entry in long:
        with pytest.raises(PasswordRefused):
            plugin.refuse_common(entry, EMAIL)
