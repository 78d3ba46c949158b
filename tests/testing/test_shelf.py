"""The suites hold for what is on the shelf, in running servers: what is right is not complained of."""

from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest

from hydracore.testing import (
    AuthenticatorSuite,
    LimitBackendSuite,
    MailTransportSuite,
    PasswordPolicySuite,
    Served,
)
from hydracore.testing.conformance import Suite

EMAIL, PASSWORD = "ada@example.com", "the engine weaves algebra"


def skipped(server: Served, suite: Suite[Any], record: Any) -> dict[str, str]:
    """What could not be checked, and why; everything else holds."""
    outcomes = server.run(suite.outcomes(record))
    assert not [outcome for outcome in outcomes if outcome.error]
    return {outcome.name: outcome.skipped for outcome in outcomes if outcome.skipped}


@pytest.mark.parametrize(
    ("backend", "more"), [("memory", {"giving_back_to_many": "it gives back to one key at a time"}), ("mongodb", {})]
)
def test_limit_backends(hydracore_server: Any, backend: str, more: dict[str, str]) -> None:
    """The backends of the shelf count as they should, over a database in use, in real time."""
    server = hydracore_server(
        [f"limits_{backend}"], store="real", settings={"limits": {"enabled": True, "backend": backend}}
    )
    record = server.hydra.registry.backends[backend]
    assert skipped(server, LimitBackendSuite(), record) == {"other_loops": "it is in use", **more}
    assert server.signed_in().me().status == 200


def test_password_policies(hydracore_server: Any) -> None:
    """The policies of the shelf judge and do nothing else."""
    server = hydracore_server(["password_standard", "password_strength", "password_history"])
    assert len(server.hydra.registry.policies) >= 3
    for record in server.hydra.registry.policies.values():
        assert skipped(server, PasswordPolicySuite(), record) == {}


class People(AuthenticatorSuite):
    """Counts the hashes that the server verifies."""

    def __init__(self, server: Served) -> None:
        self.hashes = 0
        passwords = server.hydra.services.passwords
        verify = passwords.verify

        async def counted(encoded: str, password: str, **how: Any) -> bool:
            self.hashes += 1
            return await verify(encoded, password, **how)

        passwords.verify = counted  # type: ignore[method-assign]

    def right(self) -> tuple[str, str] | None:
        return EMAIL, PASSWORD

    def work(self) -> int | None:
        return self.hashes


def test_an_authenticator(hydracore_server: Any, tmp_path: Path) -> None:
    """The static file vouches for those who are in it, and for nobody else."""
    people = tmp_path / "people"
    people.write_text("")
    hashed = hydracore_server()
    people.write_text(f"{EMAIL}:{hashed.run(hashed.hydra.services.passwords.hash(PASSWORD))}\n")
    server = hydracore_server(
        ["authenticator_static_file"],
        settings={
            "login": {"authenticators": ["password", "static_file"]},
            "plugins": {"authenticator_static_file": {"file": str(people)}},
            "password": {"hash_queue": 1000},
        },
    )
    record = server.hydra.registry.authenticators["static_file"]
    assert set(skipped(server, AuthenticatorSuite(), record)) == {"vouches", "wrong_passwords", "the_same_work"}
    assert server.client().login(EMAIL, PASSWORD).status == 200
    people_known = People(server)
    assert skipped(server, people_known, record) == {}
    assert people_known.hashes > 60


class Folder(MailTransportSuite):
    recipient = EMAIL
    recipient_beyond_ascii = "grüße@example.com"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def arrived(self, subject: str) -> int | None:
        letters = (message_from_bytes(file.read_bytes(), policy=policy.default) for file in self.folder.glob("*.eml"))
        return sum(str(letter["Subject"]) == subject for letter in letters)


def test_a_mail_transport(hydracore_server: Any) -> None:
    """The folder takes every message over, and keeps each."""
    server = hydracore_server(settings={"mail": {"transport": "folder"}})
    record = server.hydra.registry.transports["folder"]
    assert set(skipped(server, MailTransportSuite(), record).values()) == {"no recipient was given", "it is in use"}
    [folder] = [Path(server.hydra.config.data_dir) / "mail"]
    assert not list(folder.glob("*"))
    assert set(skipped(server, Folder(folder), record)) == {"failures", "closes"}
    assert list(folder.glob("*"))
