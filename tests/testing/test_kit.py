"""What authors test with, tested as they would use it: in plain functions, whatever else is loaded."""

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

import hydracore.testing
from hydracore import StartupError
from hydracore.plugin import Context, ProfileMember, RegistrationRefused, events, hookimpl
from hydracore.testing import Client, Served

EMAIL = "ada@example.com"


def test_public_names() -> None:
    """The kit's names, exactly."""
    assert sorted(hydracore.testing.__all__) == [
        "AuthenticatorSuite",
        "Client",
        "Clock",
        "LimitBackendSuite",
        "MailTransportSuite",
        "Outbox",
        "PasswordPolicySuite",
        "Response",
        "Served",
    ]
    for name in hydracore.testing.__all__:
        assert getattr(hydracore.testing, name).__doc__, name


@pytest.mark.parametrize("cookies", [False, True])
@pytest.mark.parametrize("store", ["memory", "real"])
def test_the_story(hydracore_server: Any, store: str, cookies: bool) -> None:
    """A client registers, proves its address, refreshes, resets its password and logs out: by tokens or by cookies, in
    memory or on the real store."""
    server = hydracore_server(store=store)
    client = server.client(cookies=cookies)
    assert client.register(EMAIL).status == 201
    assert client.me().json["email_verified"] is False
    assert client.verify(EMAIL, server.outbox.code(EMAIL)).status == 200
    assert client.me().json["email_verified"] is True
    assert client.refresh().status == 200
    assert client.me().json["email"] == EMAIL
    assert client.post("forgot-password", {"email": EMAIL}).status == 200
    reset = {"token": server.outbox.reset_token(EMAIL), "new_password": "an entirely new password"}
    assert client.post("reset-password", reset).status == 200
    assert (client.me().status, client.me().code) == (401, "not_authenticated")
    assert client.login(EMAIL).code == "invalid_credentials"
    assert client.login(EMAIL, "an entirely new password").status == 200
    assert client.logout().status == 204
    assert client.me().status == 401
    assert server.wait_event(events.PasswordReset).user_id
    assert client.get("/health/live").json == {"status": "live"}
    assert client.put("me", {}).status == client.delete("me").status == 405


def test_the_clock(hydracore_server: Any) -> None:
    """A code is good for ten minutes of the clock that a test moves."""
    server = hydracore_server()
    client = server.client()
    client.register(EMAIL)
    code = server.outbox.code(EMAIL)
    server.clock.forward(minutes=11)
    assert client.verify(EMAIL, code).code == "invalid_code"


def test_a_signed_in_client(hydracore_client: Client, hydracore_server: Any) -> None:
    """A client that is signed in is one fixture; with an address that is not proven one argument."""
    assert hydracore_client.me().json["email_verified"] is True
    server = hydracore_server()
    assert server.signed_in("new@example.com", verified=False).me().json["email_verified"] is False


class Guarded:
    def __init__(self, context: Context) -> None:
        self.context = context

    @hookimpl
    def hydracore_register_profile_members(self) -> list[ProfileMember]:
        return [ProfileMember("nickname", {"type": "string"})]

    @hookimpl
    async def hydracore_before_register(self, email: str) -> None:
        if not email.endswith("@example.com"):
            raise RegistrationRefused("Not here.")


def test_plugins(hydracore_server: Any) -> None:
    """Plugins come by class or by name, with their sections; the plugin itself is at hand, in the server's loop too."""
    server = hydracore_server(
        ["register_domains"],
        plugins={"guarded": Guarded},
        settings={"plugins": {"register_domains": {"domains": ["example.com", "example.org"]}}},
    )
    assert server.signed_in(nickname="Ada").me().json["profile"] == {"nickname": "Ada"}
    assert server.client().register("eve@example.org").json["detail"] == "Not here."
    assert server.client().register("eve@example.net").code == "registration_refused"
    account = server.run(server.plugin("guarded").context.find_account("ADA@example.com"))
    assert account.profile == {"nickname": "Ada"}
    with pytest.raises(AssertionError, match="cannot sign in: 403"):
        server.signed_in("eve@example.net")


def test_mail_that_fails(hydracore_server: Any, expected_logs: list[str]) -> None:
    """The outbox fails when told to, and says what is there when a letter is not."""
    expected_logs.append("mail deferred")
    server = hydracore_server()
    server.outbox.failure = ConnectionError("mail is down")
    server.client().register(EMAIL)
    server.wait_event(events.MailDelayed)
    with pytest.raises(AssertionError, match="there are none"):
        server.outbox.wait(EMAIL, timeout=0.1)
    server.outbox.failure = None
    server.clock.forward(minutes=1)
    assert len(server.outbox.code(EMAIL)) == 6
    with pytest.raises(AssertionError, match="verification"):
        server.outbox.wait(EMAIL, "something else", timeout=0.1)
    with pytest.raises(AssertionError, match="no LoggedOut"):
        server.wait_event(events.LoggedOut, timeout=0.1)


def test_two_at_once(hydracore_server: Any) -> None:
    """Two servers of one test share nothing."""
    one, two = hydracore_server(store="real"), hydracore_server(store="real")
    client = one.signed_in()
    assert Client(two.url).login(EMAIL).status == 401
    assert client.me().status == 200
    assert one.events
    assert not [event for event in two.events if isinstance(event, events.Registered)]


def test_what_does_not_fit() -> None:
    """What stops a server's start is raised where the test asks for it, and leaves nothing."""
    before = threading.active_count()
    with pytest.raises(StartupError, match="did you mean event_log"):
        Served(["event_logs"])
    with pytest.raises(StartupError, match=r"server\.prot"):
        Served(settings={"server": {"prot": 1}})
    with pytest.raises(ValueError, match="uri"):
        Served(store="real")
    assert threading.active_count() == before


def test_nothing_is_left(hydracore_mongod: str) -> None:
    """A server that is closed leaves no thread, no folder and no database; it can be closed twice."""
    before = threading.active_count()
    with MongoClient[Any](hydracore_mongod) as databases:
        there = set(databases.list_database_names())
        with Served(store="real", uri=hydracore_mongod) as server:
            server.signed_in()
            folder = Path(server.hydra.config.data_dir)
            assert set(databases.list_database_names()) != there
        server.close()
        assert set(databases.list_database_names()) == there
    assert not folder.exists()
    deadline = time.monotonic() + 10  # The driver's own take a moment.
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before
    with pytest.raises(RuntimeError, match="closed"):
        server.plugin("outbox")


ALONE = """
def test_it(hydracore_server):
    client = hydracore_server().signed_in()
    assert client.me().json["email"] == "ada@example.com"

async def unused(): ...

def test_real(hydracore_server):
    assert hydracore_server(store="real").client().register("ada@example.com").status == 201
"""


@pytest.mark.parametrize("options", [[], ["-p", "no:tornado"], ["-p", "no:tornado", "-W", "error"]])
def test_in_other_projects(tmp_path: Path, hydracore_mongod: str, options: list[str]) -> None:
    """In a project of its own the fixtures are there, with and without other pytest plugins."""
    (tmp_path / "test_mine.py").write_text(ALONE)
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *options, str(tmp_path)],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "TESTING_MONGODB_URI": hydracore_mongod},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 passed" in result.stdout
