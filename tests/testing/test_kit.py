"""What authors test with, tested as they would use it: in plain functions, whatever else is loaded."""

import asyncio
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

import hydracore.testing
from hydracore import StartupError
from hydracore.chance import now as real_now
from hydracore.plugin import (
    Collection,
    Context,
    EventListener,
    ProfileMember,
    RegistrationRefused,
    events,
    hookimpl,
)
from hydracore.testing import Client, Clock, Response, Served, fixtures

EMAIL = "ada@example.com"
PASSWORD = "correct horse battery staple"


def test_public_names() -> None:
    """The kit's names, exactly."""
    assert sorted(hydracore.testing.__all__) == [
        "AuthenticatorSuite",
        "Client",
        "Clock",
        "LimitBackendSuite",
        "MailTransportSuite",
        "Outbox",
        "PASSWORD",
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
    before = client.tokens
    assert client.logout().status == 204
    assert client.me().status == 401
    thief = server.client()
    thief.tokens = before
    assert thief.me().status == 401  # Ended on the server, and not only forgotten by the client.
    assert thief.refresh().code == "invalid_refresh_token"
    assert server.wait_event(events.PasswordReset).user_id
    assert client.get("/health/live").json == {"status": "live"}
    assert client.put("me", {}).status == client.delete("login").status == 405


def test_cookies(hydracore_server: Any) -> None:
    """With cookies a client does as browsers do: only cookies say who it is, and those that end are forgotten."""
    server = hydracore_server()
    client = server.client(cookies=True)
    answer = client.register(EMAIL)
    assert len(answer.set_cookies) == 2
    assert "HttpOnly" in answer.set_cookies[0]
    client.tokens = {}
    assert client.me().status == client.refresh().status == 200
    assert (
        client.post("refresh", headers={"origin": "https://evil.example", "sec-fetch-site": "cross-site"}).code
        == "cross_origin"
    )
    assert client.logout().status == 204
    assert client.me().code == "not_authenticated"
    assert server.client(cookies=True).me().status == 401


def test_two_clients(hydracore_server: Any) -> None:
    """Clients are apart; a refusal of logging out forgets nothing."""
    server = hydracore_server()
    ada, bob = server.signed_in("ada@example.com"), server.signed_in("bob@example.com")
    assert (ada.me().json["email"], bob.me().json["email"]) == ("ada@example.com", "bob@example.com")
    assert bob.logout().status == 204
    assert bob.tokens == {}
    assert ada.me().status == 200


@pytest.mark.parametrize("text", ["<h1>Bad gateway</h1>", "[1]", "", "null", "7"])
def test_answers_that_are_no_refusals(text: str) -> None:
    """The code of an answer that is no refusal of ours is empty, whatever a proxy or a plugin wrote."""
    assert Response(502, {}, text).code == Response(200, {}, text).code == ""


def test_bodies_of_any_size(hydracore_server: Any) -> None:
    """A body that is too large gets the answer that a real server gives."""
    client = hydracore_server().client()
    assert client.post("login", {"email": EMAIL, "password": "x" * (1 << 20)}).code == "payload_too_large"


def test_moving_the_clock_from_many_threads() -> None:
    """No move is lost, and the time has milliseconds, as what is stored has."""
    clock = Clock()
    threads = [threading.Thread(target=lambda: [clock.forward(seconds=1) for _ in range(1000)]) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ahead = clock() - real_now()
    assert timedelta(seconds=19_990) < ahead < timedelta(seconds=20_010)
    clock.forward(seconds=0.0001234)
    assert clock().microsecond % 1000 == 0
    assert clock().utcoffset() == timedelta(0)


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


GERMAN = {
    "subject.txt": "Ihr Code\n",
    "body.txt": "Hallo {{ email }}, Ihr Code ist {{ code }}.\n",
    "body.html": "<p>{{ code }}</p>\n",
}


def test_mail_of_any_template(hydracore_server: Any, tmp_path: Path) -> None:
    """A code is found in a mail of any language and template, and in no other mail."""
    plugin = tmp_path / "plugins/german"
    for folder in ("verify_email", "verify_email/de", "german.again"):
        (plugin / "templates/mail" / folder).mkdir(parents=True)
        for part, text in GERMAN.items():
            (plugin / "templates/mail" / folder / part).write_text(text)
    (plugin / "__init__.py").write_text(
        "class Plugin:\n    def __init__(self, context):\n        self.context = context\n"
    )
    server = hydracore_server(["german"], settings={"plugins": {"dir": str(tmp_path / "plugins")}})
    server.run(server.plugin("german").context.send_mail("again", "123456@example.com", {"code": "999999"}))
    server.outbox.wait("123456@example.com", "Ihr Code")
    client = server.signed_in("123456@example.com")
    assert client.me().json["email_verified"] is True
    body = {"email": "new@example.com", "password": PASSWORD}
    assert client.post("register", body, {"Accept-Language": "de"}).status == 201
    assert client.verify("new@example.com", server.outbox.code("new@example.com")).status == 200


def test_codes_in_order(hydracore_server: Any) -> None:
    """Codes come in the order in which they were sent; an address is found however it is written."""
    server = hydracore_server()
    client = server.client()
    client.register("Ada@bücher.example")
    first = server.outbox.code("ada@Bücher.example")
    server.clock.forward(minutes=5)
    assert client.post("resend-verification", {"email": "Ada@bücher.example"}).status == 200
    second = server.outbox.code("ada@xn--bcher-kva.example", nth=2)
    assert server.outbox.code("ada@bücher.example", nth=1, timeout=0) == first
    assert client.verify("ada@bücher.example", second).status == 200
    with pytest.raises(AssertionError, match=r"no mail 1 to ada@bücher\.example with a token"):
        server.outbox.reset_token("ada@bücher.example", timeout=0)


def test_work_in_the_servers_loop(hydracore_server: Any) -> None:
    """What runs in the server's loop has a deadline, is cancelled at it, and raises what it raises; it cannot wait for
    itself, nor for a server that is closed."""
    server = hydracore_server()
    ended: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("cancelled")

    async def fail() -> None:
        raise TimeoutError("its own")

    async def inside() -> None:
        server.run(fail())

    with pytest.raises(TimeoutError, match=r"more than 0\.1 s"):
        server.run(slow(), timeout=0.1)
    with pytest.raises(TimeoutError, match="its own"):
        server.run(fail())
    assert ended == ["cancelled"]
    with pytest.raises(RuntimeError, match="event loop already"):
        server.run(inside())
    server.close()
    with pytest.raises(RuntimeError, match="closed"):
        server.run(fail())


def test_events_by_number(hydracore_server: Any) -> None:
    """The nth event of a kind can be waited for."""
    server = hydracore_server()
    client = server.signed_in()
    client.login(EMAIL)
    sessions = {server.wait_event(events.LoggedIn, nth=number).session_id for number in (1, 2)}
    assert len(sessions) == 2
    with pytest.raises(AssertionError, match=r"no PasswordReset, the 1\. of them; there were \["):
        server.wait_event(events.PasswordReset, timeout=0)


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
    before = set(threading.enumerate())
    with pytest.raises(StartupError, match="did you mean event_log"):
        Served(["event_logs"])
    with pytest.raises(StartupError, match=r"server\.prot"):
        Served(settings={"server": {"prot": 1}})
    with pytest.raises(ValueError, match="uri"):
        Served(store="real")
    assert not set(threading.enumerate()) - before


def databases_of(client: MongoClient[Any]) -> set[str]:
    """What is there but for mongod's own, which it makes when it likes: ``config`` after five minutes."""
    return set(client.list_database_names()) - {"admin", "config", "local"}


def test_nothing_is_left(hydracore_mongod: str) -> None:
    """A server that is closed leaves no thread, no folder and no database; it can be closed twice."""
    before = threading.active_count()
    with MongoClient[Any](hydracore_mongod) as databases:
        there = databases_of(databases)
        with Served(store="real", uri=hydracore_mongod) as server:
            server.signed_in()
            folder = Path(server.hydra.config.data_dir)
            assert databases_of(databases) != there
        server.close()
        assert databases_of(databases) == there
    assert not folder.exists()
    deadline = time.monotonic() + 10  # The driver's own take a moment.
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before
    with pytest.raises(RuntimeError, match="closed"):
        server.plugin("testing_outbox")


class Late:
    """Writes what it has heard when all is over."""

    def __init__(self, context: Context) -> None:
        self.context = context

    @hookimpl
    def hydracore_register_collections(self) -> list[Collection]:
        return [Collection("heard")]

    @hookimpl
    def hydracore_register_event_listeners(self) -> list[EventListener]:
        return [EventListener("late", self.listen)]

    async def listen(self, batch: Any) -> None:
        await asyncio.sleep(0.3)
        await self.context.collection("heard").insert_one({"events": len(batch)})


def test_listeners_that_write_at_the_end(hydracore_server: Any, hydracore_mongod: str) -> None:
    """What a plugin writes while the server closes does not bring the database back."""
    with MongoClient[Any](hydracore_mongod) as databases:
        there = databases_of(databases)
        server = hydracore_server(plugins={"late": Late}, store="real")
        server.client().register(EMAIL)
        server.close()
        assert databases_of(databases) == there


def test_a_database_with_a_name(hydracore_server: Any, hydracore_mongod: str) -> None:
    """A database that the author names is not ours to drop: two servers may share one, and it stays."""
    with MongoClient[Any](hydracore_mongod) as databases:
        databases["precious"]["things"].insert_one({"name": "ring"})
        settings = {"store": {"database": "precious"}, "secret": "a-secret-that-is-shared-and-long-enough"}
        one, two = (hydracore_server(settings=settings, store="real") for _ in range(2))
        one.signed_in()
        assert two.client().login(EMAIL).status == 200
        one.close()
        two.close()
        assert databases["precious"]["things"].count_documents({}) == 1
        databases.drop_database("precious")


@pytest.mark.parametrize("store", ["memory", "real"])
def test_a_start_that_fails_late(store: Any, hydracore_mongod: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that fails when all but the last is open says why, and leaves nothing."""

    def fail(*_: Any) -> None:
        raise OSError("there is no socket left")

    monkeypatch.setattr("hydracore.testing.served.bind_sockets", fail)
    before = set(threading.enumerate())
    with MongoClient[Any](hydracore_mongod) as databases:
        there = databases_of(databases)
        with pytest.raises(OSError, match="no socket left"):
            Served(store=store, uri=hydracore_mongod)
        assert databases_of(databases) == there
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name == "hydracore-served"]


def test_a_database_that_is_away(expected_logs: list[str]) -> None:
    """A server whose database does not answer starts, answers 503, and can be closed; the log says what may be left."""
    expected_logs += ["answer", "is left", "store_unavailable", "unavailable", "outbox", "refused"]
    settings = {"store": {"timeout": 1}}
    # A socket that is not there: over TCP the driver may leave its own open when it is cancelled while it connects.
    with Served(store="real", uri="mongodb://%2Fnowhere%2Fmongod.sock", settings=settings) as server:
        assert server.client().register(EMAIL).status == 503
    with pytest.raises(RuntimeError, match="closed"):
        server.client()


def test_tasks_that_are_forgotten(hydracore_server: Any) -> None:
    """A task that a plugin has left running ends with the server."""
    server = hydracore_server()
    ended: list[bool] = []

    async def forget() -> None:
        async def forgotten() -> None:
            try:
                await asyncio.sleep(600)
            finally:
                ended.append(True)

        server.plugin("testing_outbox").task = asyncio.get_running_loop().create_task(forgotten())
        await asyncio.sleep(0)

    server.run(forget())
    server.close()
    assert ended == [True]


ALONE = """
def test_it(hydracore_server):
    client = hydracore_server().signed_in()
    assert client.me().json["email"] == "ada@example.com"

async def unused(): ...

def test_clock(hydracore_server):
    server = hydracore_server()
    client = server.client(cookies=True)
    client.register("ada@example.com")
    code = server.outbox.code("ada@example.com")
    server.clock.forward(minutes=11)
    assert client.verify("ada@example.com", code).code == "invalid_code"

def test_client(hydracore_client):
    assert hydracore_client.me().json["email_verified"] is True

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
    assert "4 passed" in result.stdout


CONFORMING = """
from hydracore.plugin import MailTransport, PasswordPolicy, PasswordRefused
from hydracore.testing import MailTransportSuite, PasswordPolicySuite

def check(password, email):
    if password == "password":
        raise PasswordRefused(password)

async def send(message, key):
    pass

class TestPolicy(PasswordPolicySuite):
    def make(self):
        return PasswordPolicy("mine", check)

class TestTransport(MailTransportSuite):
    def make(self):
        return MailTransport("mine", send)
"""


def test_suites_in_other_projects(tmp_path: Path) -> None:
    """A subclass of a suite is collected: what does not conform fails with a sentence, what cannot be told skips."""
    (tmp_path / "test_mine.py").write_text(CONFORMING)
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:tornado", "-W", "error", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "is no sentence" in result.stdout, result.stdout + result.stderr
    assert "no recipient was given" in result.stdout
    assert "1 failed, 5 passed, 7 skipped" in result.stdout


@pytest.mark.parametrize("ci", ["", "true"])
def test_without_a_mongod(tmp_path: Path, ci: str) -> None:
    """Where there is no mongod a test that needs one is skipped with the reason; in CI it fails."""
    (tmp_path / "test_mine.py").write_text("def test_it(hydracore_server):\n    hydracore_server(store='real')\n")
    (tmp_path / "conftest.py").write_text(
        "import hydracore.store.embedded as embedded\nembedded._candidates = lambda: []\n"
    )
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:tornado", str(tmp_path)],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "CI": ci},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ("1 failed" if ci else "1 skipped") in result.stdout, result.stdout + result.stderr
    assert "TESTING_MONGODB_URI" in result.stdout
    assert "There is no mongod on this machine" in result.stdout


def test_fixtures_names() -> None:
    """Whatever the plugin brings into other projects carries our name."""
    brought = {
        name for name, value in vars(fixtures).items() if type(value).__name__ == "FixtureFunctionDefinition"
    } | {name for name in vars(fixtures) if name.startswith("pytest_")}
    assert brought == {"hydracore_client", "hydracore_mongod", "hydracore_server"}


def test_one_that_cannot_be_closed(tmp_path: Path) -> None:
    """Servers are closed though one of them cannot be."""
    (tmp_path / "test_mine.py").write_text(
        "import threading\n"
        "def test_one(hydracore_server):\n"
        "    hydracore_server()\n"
        "    server = hydracore_server()\n"
        "    close = server.close\n"
        "    server.close = lambda: (close(), 1 / 0)\n"
        "def test_two():\n"
        "    assert 'hydracore-served' not in [thread.name for thread in threading.enumerate()]\n"
    )
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:tornado", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "2 passed, 1 error" in result.stdout, result.stdout + result.stderr
    assert "ZeroDivisionError" in result.stdout
