"""A plugin that raises, hangs, returns the wrong thing or blocks harms nobody else, and the log names it."""

import asyncio
import copy
import json
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
from processes import Server, StartServer, until
from support import PASSWORD, OpenSite, Site, refused, tokens
from tornado.web import Finish, HTTPError

from hydracore.calls import Calls
from hydracore.plugin import (
    Account,
    Collection,
    Context,
    Count,
    Endpoint,
    EventListener,
    Forbidden,
    HealthCheck,
    LimitBackend,
    MailTransport,
    PasswordPolicy,
    PasswordRefused,
    ProfileMember,
    RegistrationRefused,
    Route,
    Unavailable,
    events,
    hookimpl,
    public,
    unverified,
)
from hydracore.threads import LoopExecutor, Threads

EMAIL = "ada@example.com"


def blamed(caplog: pytest.LogCaptureFixture) -> set[str]:
    return {record.__dict__.get("plugin", "") for record in caplog.records if record.name == "hydracore.plugins"}


class Stubborn:
    """Hangs, and does not let itself be cancelled."""

    def __init__(self, context: Context) -> None:
        self.over = asyncio.Event()

    @hookimpl
    async def hydracore_before_register(self, email: str) -> None:
        if not email.startswith("slow"):
            return
        while not self.over.is_set():
            try:
                await self.over.wait()
            except asyncio.CancelledError:
                continue


async def test_one_that_cannot_be_cancelled(
    open_site: OpenSite, expected_logs: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A hook that hangs and swallows its cancellation is left to itself: its caller gets 503, others are served."""
    expected_logs += ["plugin is late", "unavailable"]
    site = await open_site(extra={"stubborn": Stubborn}, plugins={"timeout": 1})
    slow = [{"email": f"slow{number}@example.com", "password": PASSWORD} for number in range(5)]
    answers = await asyncio.gather(*(site.post("register", body) for body in slow))
    for answer in answers:
        refused(answer, 503, "unavailable")
    await site.register()
    assert blamed(caplog) == {"stubborn"}
    site.hydra.registry.loaded["stubborn"].plugin.over.set()  # type: ignore[attr-defined]
    spent = site.hydra.plugin_times()["stubborn", "hydracore_before_register"]
    assert (spent.calls, spent.failures) == (6, 5)
    assert spent.longest >= 1


class Oddity(BaseException):
    """Not an ``Exception``."""


class Mute(Exception):
    """Cannot say what it is."""

    def __str__(self) -> str:
        raise ValueError("no words")

    __repr__ = __str__


class Odd:
    """Fails in every way that a coroutine can, as the address says."""

    def __init__(self, context: Context) -> None:
        pass

    @hookimpl
    async def hydracore_before_register(self, email: str) -> None:
        match email.partition("@")[0]:
            case "exit":
                raise SystemExit(1)
            case "cancel":
                raise asyncio.CancelledError
            case "stop":
                raise StopAsyncIteration
            case "web":
                raise HTTPError(418)
            case "keyboard":
                raise KeyboardInterrupt
            case "generator":
                raise GeneratorExit
            case "odd":
                raise Oddity
            case "group":
                raise BaseExceptionGroup("many", [Oddity()])
            case "mute":
                raise Mute
            case "refuse":
                raise RegistrationRefused("Not today.")


@pytest.mark.parametrize("how", ["exit", "cancel", "stop", "web", "keyboard", "generator", "odd", "group", "mute"])
async def test_odd_failures(
    open_site: OpenSite, expected_logs: list[str], how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """SystemExit, its own cancellation, another framework's errors: 503, named, and the server goes on."""
    expected_logs += ["plugin failed", "unavailable"]
    site = await open_site(extra={"odd": Odd})
    refused(await site.post("register", {"email": f"{how}@example.com", "password": PASSWORD}), 503, "unavailable")
    body = {"email": "refuse@example.com", "password": PASSWORD}
    assert refused(await site.post("register", body), 403, "registration_refused") == "Not today."
    await site.register()
    assert blamed(caplog) == {"odd"}


class Meaning:
    """Returns what looks as if it should refuse."""

    def __init__(self, context: Context) -> None:
        pass

    @hookimpl
    async def hydracore_before_register(self, email: str) -> Any:
        return {"allowed": False} if email.startswith("register") else None

    @hookimpl
    async def hydracore_before_login(self, account: Any) -> Any:
        return not account.email.startswith("login")

    @hookimpl
    async def hydracore_before_reset_password(self) -> Any:
        return ""

    @hookimpl
    def hydracore_register_password_policies(self) -> list[PasswordPolicy]:
        return [PasswordPolicy("meaning", check=self.check), PasswordPolicy("meant", judge=self.judge)]  # type: ignore[arg-type]  # so it is

    def check(self, password: str, email: str) -> Any:
        return False if email.startswith("check") else None

    async def judge(self, new: Any) -> Any:
        return False if new.email.startswith("judge") else None


@pytest.mark.parametrize("who", ["register", "check", "judge", "login"])
async def test_returning_false(
    open_site: OpenSite, expected_logs: list[str], caplog: pytest.LogCaptureFixture, who: str
) -> None:
    """Whoever returns False where one refuses by raising meant to refuse: nobody is let through, and it is named."""
    expected_logs += ["plugin failed", "unavailable"]
    site = await open_site(extra={"meaning": Meaning})
    body = {"email": f"{who}@example.com", "password": PASSWORD}
    answer = await site.post("register", body)
    if who == "login":
        assert answer.code == 201
        answer = await site.post("login", body)
    refused(answer, 503, "unavailable")
    assert blamed(caplog) == {"meaning"}
    line = next(record for record in caplog.records if record.message == "unavailable")
    assert line.__dict__["plugin"] == "meaning"


def claiming(answer: Any) -> type:
    class Claiming:
        def __init__(self, context: Context) -> None:
            pass

        @hookimpl
        async def hydracore_before_issue_token(self) -> Any:
            return answer

    return Claiming


@pytest.mark.parametrize(
    "answer",
    [
        ["roles"],
        {"sub": "someone-else"},
        {"evf": True},
        {"other:role": "admin"},
        {7: "x"},
        {"acme:when": object()},
        {"acme:ratio": float("nan")},
        {"acme:big": "x" * 2048},
    ],
)
async def test_claims_that_cannot_be(open_site: OpenSite, expected_logs: list[str], answer: Any) -> None:
    """Claims of ours, of others, of no JSON or too many: nobody is signed in, and no account is made for nothing."""
    expected_logs += ["plugin failed", "unavailable"]
    site = await open_site(extra={"acme": claiming(answer)})
    refused(await site.post("register", {"email": EMAIL, "password": PASSWORD}), 503, "unavailable")
    assert await site.hydra.services.store.users.page(None, 10) == []


async def test_claims_of_two(open_site: OpenSite, expected_logs: list[str]) -> None:
    """Claims of two plugins are put together; the same one from both is refused."""
    site = await open_site(extra={"one": claiming({"one:a": 1}), "two": claiming({"https://x.example/b": [2]})})
    first = await site.register()
    user = await site.hydra.services.access.verify(first["access_token"])
    assert user.added == {"one:a": 1, "https://x.example/b": [2]}
    expected_logs += ["plugin failed", "unavailable"]
    same = claiming({"https://x.example/b": 1})
    other = await open_site(extra={"one": same, "two": same}, store={"database": "claims_of_two"})
    refused(await other.post("register", {"email": EMAIL, "password": PASSWORD}), 503, "unavailable")


class Writing:
    """Writes to what it is given to read, in the way that the address says."""

    def __init__(self, context: Context) -> None:
        self.context = context

    @hookimpl
    def hydracore_register_profile_members(self) -> list[ProfileMember]:
        return [ProfileMember("team", {"type": "object"})]

    @hookimpl
    def hydracore_register_collections(self) -> list[Collection]:
        return [Collection("seen")]

    @hookimpl
    def hydracore_register_routes(self) -> list[Route]:
        return [Route("/writing", Scribble)]

    @hookimpl
    async def hydracore_before_register(self, email: str, profile: Any) -> None:
        match email.partition("@")[0]:
            case "member":
                profile["admin"] = True
            case "more":
                profile |= {"admin": True}
            case "inside":
                profile["team"]["roles"].append("admin")

    @hookimpl
    async def hydracore_before_issue_token(self, account: Account) -> Mapping[str, Any] | None:
        profile: Any = account.profile
        match account.email.partition("@")[0]:
            case "issue":
                profile["admin"] = True
            case "issues":
                profile["team"]["roles"][0] = "admin"
        await self.context.collection("seen").insert_one({"profile": profile})
        copied = copy.deepcopy(profile)
        copied["team"]["roles"].append("copied")
        return {"writing:team": profile["team"], "writing:copied": copied["team"]}


class Scribble(Endpoint):
    @unverified
    async def get(self) -> None:
        self.reply({"was": self.caller.profile, "claims": self.caller.claims})

    @unverified
    async def post(self) -> None:
        profile: Any = self.caller.profile
        profile["team"].clear()


@pytest.mark.parametrize("who", ["member", "more", "inside", "issue", "issues"])
async def test_writing_to_what_is_read(
    open_site: OpenSite, expected_logs: list[str], caplog: pytest.LogCaptureFixture, who: str
) -> None:
    """What a plugin is given is to be read, at any depth: one that writes is named, and nothing of it is kept."""
    expected_logs += ["plugin failed", "unavailable"]
    site = await open_site(extra={"writing": Writing})
    body = {"email": f"{who}@example.com", "password": PASSWORD, "team": {"roles": ["reader"]}}
    refused(await site.post("register", body), 503, "unavailable")
    assert await site.hydra.services.store.users.page(None, 10) == []
    assert blamed(caplog) == {"writing"}


async def test_what_is_read(open_site: OpenSite, expected_logs: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """It can be kept, copied, answered and put into a token as any other value; a call that writes to its caller is
    named."""
    site = await open_site(extra={"writing": Writing})
    team = {"roles": ["reader"]}
    first = tokens(await site.post("register", {"email": EMAIL, "password": PASSWORD, "team": team}), 201)
    bearer = {"Authorization": f"Bearer {first['access_token']}"}
    expected = {
        "was": {"team": team},
        "claims": {"writing:team": team, "writing:copied": {"roles": ["reader", "copied"]}},
    }
    assert json.loads((await site.ask("GET", "/auth/writing", **bearer)).body) == expected
    expected_logs += ["plugin failed", "unavailable"]
    refused(await site.post("writing", **bearer), 500, "internal_error")
    assert json.loads((await site.me(first["access_token"])).body)["profile"] == {"team": team}
    assert blamed(caplog) == {"writing"}


class Moody:
    """Issues no claims while it is broken."""

    broken = False

    def __init__(self, context: Context) -> None:
        pass

    @hookimpl
    async def hydracore_before_issue_token(self) -> Mapping[str, Any]:
        if Moody.broken:
            raise OSError("away")
        return {"moody:a": 1}


async def test_a_refresh_survives_a_broken_plugin(open_site: OpenSite, expected_logs: list[str]) -> None:
    """While a plugin is broken a refresh is answered 503 and uses nothing up, however long that takes."""
    expected_logs += ["plugin failed", "unavailable"]
    Moody.broken = False
    site = await open_site(extra={"moody": Moody})
    first = await site.register()
    Moody.broken = True
    for _ in range(3):
        refused(await site.post("refresh", {"refresh_token": first["refresh_token"]}), 503, "unavailable")
        site.clock.forward(minutes=5)
    Moody.broken = False
    tokens(await site.post("refresh", {"refresh_token": first["refresh_token"]}))


class Hanging:
    """A policy whose threads never come back for some passwords."""

    def __init__(self, context: Context) -> None:
        self.over = threading.Event()

    @hookimpl
    def hydracore_register_password_policies(self) -> list[PasswordPolicy]:
        return [PasswordPolicy("hanging", self.check)]

    def check(self, password: str, email: str) -> None:
        if "hang" in password:
            self.over.wait()


async def test_policies_that_hang(open_site: OpenSite, expected_logs: list[str]) -> None:
    """Threads that a policy keeps for ever are replaced: those who register after are served, and so is login."""
    expected_logs += ["plugin is late", "unavailable"]
    site = await open_site(extra={"hanging": Hanging}, plugins={"timeout": 1})
    bodies = [{"email": f"user{n}@example.com", "password": "hang hang hang hang"} for n in range(12)]
    for answer in await asyncio.gather(*(site.post("register", body) for body in bodies)):
        refused(answer, 503, "unavailable")
    await site.register()
    tokens(await site.post("login", {"email": EMAIL, "password": PASSWORD}))
    site.hydra.registry.loaded["hanging"].plugin.over.set()  # type: ignore[attr-defined]


async def test_threads_are_bounded() -> None:
    """What waits is bounded; threads that are done with what was given up end."""
    threads, over = Threads("two", 2, 3), threading.Event()
    before = threading.active_count()
    tasks = [asyncio.ensure_future(threads.run(over.wait)) for _ in range(5)]
    await asyncio.sleep(0.05)
    with pytest.raises(Exception, match="not available"):
        await threads.run(lambda: 1)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert await threads.run(lambda: 7) == 7
    with pytest.raises(KeyError):
        await threads.run(lambda: {}["x"])
    with pytest.raises(RuntimeError, match="StopIteration"):
        await threads.run(lambda: next(iter(())))
    with pytest.raises(RuntimeError, match="SystemExit"):
        await threads.run(lambda: exit(3))
    over.set()
    threads.close()
    for _ in range(500):
        if threading.active_count() <= before:
            break
        await asyncio.sleep(0.01)
    assert threading.active_count() <= before


class Keeper:
    """A listener that keeps what it hears, and fails when told to."""

    def __init__(self, context: Context) -> None:
        self.heard: list[events.Event] = []
        self.batches: list[int] = []
        self.broken = False
        self.running = 0

    @hookimpl
    def hydracore_register_event_listeners(self) -> list[EventListener]:
        return [EventListener("keeper", self.listen, of=(events.LoginFailed,))]

    async def listen(self, batch: Sequence[events.Event]) -> None:
        assert not self.running, "two batches at a time"
        self.running += 1
        await asyncio.sleep(0)
        self.running -= 1
        if self.broken:
            raise OSError("away")
        self.heard += batch
        self.batches.append(len(batch))


def keeper(site: Site) -> Any:
    return site.hydra.registry.loaded["keeper"].plugin


async def test_listeners_hear_in_order(open_site: OpenSite) -> None:
    """A listener hears what it asked for, all of it, in order, in batches of a hundred at most."""
    site = await open_site(extra={"keeper": Keeper})
    for number in range(1000):
        site.hydra.registry.announce(events.LoginFailed(address_digest=str(number)))
        site.hydra.registry.announce(events.Registered(user_id="x"))
    await site.hydra.registry.settle()
    heard = keeper(site).heard
    assert [event.address_digest for event in heard] == [str(number) for number in range(1000)]
    assert len({event.id for event in heard}) == 1000
    assert max(keeper(site).batches) == 100
    assert all(abs((event.at - site.clock()).total_seconds()) < 60 for event in heard)


async def test_listeners_are_asked_again(open_site: OpenSite, expected_logs: list[str]) -> None:
    """What a listener failed to take comes again, in the same order; nothing is lost, and settling does not wait for
    ever."""
    expected_logs.append("plugin failed")
    site = await open_site(extra={"keeper": Keeper})
    keeper(site).broken = True
    for number in range(150):
        site.hydra.registry.announce(events.LoginFailed(address_digest=str(number)))
    await asyncio.wait_for(site.hydra.registry.settle(), 5)
    assert keeper(site).heard == []
    keeper(site).broken = False
    site.hydra.registry.announce(events.LoginFailed(address_digest="150"))
    await site.hydra.registry.settle()
    assert [event.address_digest for event in keeper(site).heard] == [str(number) for number in range(151)]


async def test_listeners_are_bounded(open_site: OpenSite, expected_logs: list[str]) -> None:
    """While a listener is broken ten thousand events wait for it and no more; the log counts the others."""
    expected_logs += ["plugin failed", "events were dropped", "events are dropped"]
    site = await open_site(extra={"keeper": Keeper})
    keeper(site).broken = True
    for number in range(10_050):
        site.hydra.registry.announce(events.LoginFailed(address_digest=str(number)))
    await site.hydra.registry.settle()
    keeper(site).broken = False
    await site.hydra.registry.settle()
    assert len(keeper(site).heard) == 10_000


async def test_the_end_asks_once_more(open_site: OpenSite, expected_logs: list[str]) -> None:
    """At the end a listener that was broken gets its last chance; what it refuses then is told as lost."""
    expected_logs += ["plugin failed", "events are lost"]
    site = await open_site(extra={"keeper": Keeper})
    keeper(site).broken = True
    site.hydra.registry.announce(events.LoginFailed(address_digest="1"))
    await site.hydra.registry.close()
    assert keeper(site).heard == []


@public
class Faulty(Endpoint):
    async def get(self, how: str) -> None:
        match how:
            case "raise":
                raise KeyError("a secret value")
            case "hang":
                await asyncio.sleep(60)
            case "web":
                raise HTTPError(404)
            case "exit":
                raise SystemExit(1)
            case "odd":
                raise Oddity
            case "twice":
                self.reply({"part": 1})
                raise KeyError("after replying")
        self.reply({"ok": how})


class Routed:
    def __init__(self, context: Context) -> None:
        pass

    @hookimpl
    def hydracore_register_routes(self) -> list[Route]:
        return [Route("/routed/{how}", Faulty)]


async def test_faulty_endpoints(
    open_site: OpenSite, expected_logs: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """An endpoint that raises is a 500 that says nothing, one that hangs a 503; both are put down to the plugin."""
    expected_logs += ["plugin failed", "plugin is late", "unavailable", "request failed"]
    site = await open_site(extra={"routed": Routed}, plugins={"timeout": 1})
    answer = await site.ask("GET", "/auth/routed/raise")
    refused(answer, 500, "internal_error")
    assert b"secret" not in answer.body
    refused(await site.ask("GET", "/auth/routed/exit"), 500, "internal_error")
    refused(await site.ask("GET", "/auth/routed/odd"), 500, "internal_error")
    refused(await site.ask("GET", "/auth/routed/hang"), 503, "unavailable")
    refused(await site.ask("GET", "/auth/routed/web"), 404, "not_found")
    refused(await site.ask("GET", "/auth/routed/twice"), 500, "internal_error")
    assert json.loads((await site.ask("GET", "/auth/routed/fine")).body) == {"ok": "fine"}
    refused(await site.ask("POST", "/auth/routed/fine"), 405, "method_not_allowed")
    refused(await site.ask("GET", "/auth/routed/a/b"), 404, "not_found")
    assert blamed(caplog) == {"routed"}


class Sayings(Forbidden):
    """Refuses in words of its own."""

    def __init__(self, **said: Any) -> None:
        super().__init__()
        vars(self).update(said)


class Silent(Forbidden):
    def public(self) -> dict[str, Any]:
        raise KeyError("no words")


class Partial(Forbidden):
    def public(self) -> dict[str, Any]:
        return {"detail": "Not you."}


class Unwritable(Forbidden):
    def public(self) -> dict[str, Any]:
        return {"detail": "Not you.", "code": {1, 2}}


class Heading(Forbidden):
    def __init__(self, *pair: Any) -> None:
        super().__init__()
        self.pair = pair

    def headers(self) -> Mapping[str, str]:
        return dict([self.pair])


class Wordless(PasswordRefused):
    def __str__(self) -> str:
        raise ValueError("no words")


REFUSALS = [
    *(Silent(), Partial(), Unwritable(), Sayings(status="403"), Sayings(status=200), Sayings(status=503)),
    *(Sayings(detail="\ud800"), Sayings(detail=7), Sayings(code=None), Sayings(code="\ud800"), Sayings(why=7)),
    *(Heading("X-Acme", "a\r\nSet-Cookie: b"), Heading("X-Acme", "\u20ac"), Heading("X Acme", "a"), Heading(7, "a")),
    *(
        Sayings(status=422),
        Sayings(status=429),
        Heading("X-Acme", None),
        Heading("Content-Length", "3"),
        Forbidden().because(what=object),
    ),
]


class Refusing:
    """Refuses with what the test says."""

    what: Exception = Forbidden()

    def __init__(self, context: Context) -> None:
        pass

    @hookimpl
    def hydracore_register_routes(self) -> list[Route]:
        return [Route("/refusing", Refuse)]

    @hookimpl
    def hydracore_register_password_policies(self) -> list[PasswordPolicy]:
        return [PasswordPolicy("refusing", self.check)]

    @hookimpl
    async def hydracore_before_register(self) -> None:
        raise Refusing.what

    def check(self, password: str, email: str) -> None:
        if isinstance(Refusing.what, PasswordRefused):
            raise Refusing.what


@public
class Refuse(Endpoint):
    async def get(self) -> None:
        raise Refusing.what


@pytest.mark.parametrize("what", REFUSALS, ids=lambda what: f"{type(what).__name__}-{vars(what)}"[:60])
async def test_refusals_that_are_none(
    open_site: OpenSite, expected_logs: list[str], caplog: pytest.LogCaptureFixture, what: Exception
) -> None:
    """A refusal that cannot be written in the one shape of errors is its plugin's failure, in a hook and in a call."""
    expected_logs += ["plugin failed", "unavailable"]
    Refusing.what = what
    site = await open_site(extra={"refusing": Refusing})
    refused(await site.post("register", {"email": EMAIL, "password": PASSWORD}), 503, "unavailable")
    refused(await site.ask("GET", "/auth/refusing"), 500, "internal_error")
    assert blamed(caplog) == {"refusing"}
    lines = [record.__dict__ for record in caplog.records if record.message == "unavailable"]
    assert {(line["plugin"], "refus" in line["reason"]) for line in lines} == {("refusing", True)}
    await site.hydra._refusals.flush()


async def test_refusals_of_its_own(open_site: OpenSite, expected_logs: list[str]) -> None:
    """A status, a code, a sentence and headers of its own are answered as they are."""
    expected_logs.append("unavailable")
    site = await open_site(extra={"refusing": Refusing})
    body = {"email": EMAIL, "password": PASSWORD}
    Refusing.what = Sayings(status=410, code="gone", detail="Long gone, Zo\u00eb.")
    # No description of ours foresees it.
    told = site.described.document["paths"]["/auth/register"]["post"]["responses"]
    told["410"] = told["409"]
    for answer in (await site.post("register", body), await site.ask("GET", "/auth/refusing")):
        assert refused(answer, 410, "gone") == "Long gone, Zo\u00eb."
    Refusing.what = Heading("X-Acme", "a b")
    assert (await site.ask("GET", "/auth/refusing")).headers["X-Acme"] == "a b"
    Refusing.what = Unavailable(7)
    assert (await site.ask("GET", "/auth/refusing")).headers["Retry-After"] == "7"


@pytest.mark.parametrize("what", [PasswordRefused("\ud800"), Wordless()])
async def test_objections_that_are_none(
    open_site: OpenSite, expected_logs: list[str], caplog: pytest.LogCaptureFixture, what: Exception
) -> None:
    """A policy's objection that has no words is the policy's failure."""
    expected_logs += ["plugin failed", "unavailable"]
    Refusing.what = what
    site = await open_site(extra={"refusing": Refusing})
    refused(await site.post("register", {"email": EMAIL, "password": PASSWORD}), 503, "unavailable")
    assert blamed(caplog) == {"refusing"}


@public
class Replying(Endpoint):
    """Answers as the path says."""

    async def get(self, how: str) -> Any:
        match how:
            case "nan":
                self.reply({"a": float("nan")})
            case "set":
                self.reply({"a": {1}})
            case "none":
                self.reply(None)  # type: ignore[arg-type]  # so it is
            case "body":
                self.reply({"a": 1}, 204)
            case "text":
                self.reply({}, "200")  # type: ignore[arg-type]  # so it is
            case "high":
                self.reply({}, 999)
            case "low":
                self.reply({}, 101)
            case "returned":
                return {"a": 1}
            case "status":
                self.set_status("200")  # type: ignore[arg-type]  # so it is
            case "unfit":
                self.set_status(204)
                self.write("a body")
            case "finish":
                raise Finish([1])
            case "error":
                raise HTTPError("404")  # type: ignore[arg-type]  # so it is
            case "server":
                raise HTTPError(502)
            case "empty":
                self.reply({}, 204)
            case "ended":
                raise Finish({"a": 1})
            case "sent":
                return self.finish({"a": 1})
            case "made":
                self.reply({"a": "</script>", "b": "\u00eb"}, HTTPStatus.CREATED)
        return None


class Answering:
    def __init__(self, context: Context) -> None:
        pass

    @hookimpl
    def hydracore_register_routes(self) -> list[Route]:
        return [Route("/answering/{how}", Replying)]


NO_ANSWERS = ["nan", "set", "none", "body", "text", "high", "low", "returned", "status", "unfit"]


@pytest.mark.parametrize("how", [*NO_ANSWERS, "finish", "error", "server"])
async def test_answers_that_are_none(
    open_site: OpenSite, expected_logs: list[str], caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """An answer that cannot be sent, or is returned in place of being sent, is a 500 that is put down to the plugin."""
    expected_logs += ["plugin failed", "unavailable"]
    site = await open_site(extra={"answering": Answering})
    refused(await site.ask("GET", f"/auth/answering/{how}"), 500, "internal_error")
    assert blamed(caplog) == {"answering"}


async def test_answers(open_site: OpenSite) -> None:
    """An answer without a body, one that is sent at once, and one that ends the method are sent as they are."""
    site = await open_site(extra={"answering": Answering})
    answer = await site.ask("GET", "/auth/answering/empty")
    assert (answer.code, answer.body, "Content-Type" in answer.headers) == (204, b"", False)
    for how in ("ended", "sent"):
        assert json.loads((await site.ask("GET", f"/auth/answering/{how}")).body) == {"a": 1}
    answer = await site.ask("GET", "/auth/answering/made")
    assert (answer.code, answer.body) == (201, b'{"a": "<\\/script>", "b": "\\u00eb"}')
    assert answer.headers["Content-Type"] == "application/json; charset=UTF-8"


class Uncountable:
    """Takes down a limit backend, and its health, in the way that is set."""

    def __init__(self, context: Context) -> None:
        self.answer: Any = None

    @hookimpl
    def hydracore_register_limit_backends(self) -> list[LimitBackend]:
        return [LimitBackend("uncountable", self.hit)]

    @hookimpl
    def hydracore_register_health_checks(self) -> list[HealthCheck]:
        return [HealthCheck("uncountable", self.check)]

    async def hit(self, key: str, window: int, cost: int) -> Any:
        if isinstance(self.answer, type):
            raise self.answer
        return self.answer

    async def check(self) -> Any:
        if self.answer is not None:
            return self.answer
        raise SystemExit(3)


@pytest.mark.parametrize(
    "answer",
    [
        *(None, 3, (1, 60), Count("one", 60), Count(1, None), Count(1, float("inf")), Count(9, 1e300), Count(9, -1)),
        *(SystemExit, Oddity, asyncio.CancelledError),
    ],
)
async def test_a_faulty_limit_backend(
    open_site: OpenSite, expected_logs: list[str], caplog: pytest.LogCaptureFixture, answer: Any
) -> None:
    """A limit backend that answers something else than a count is named, and each process counts for itself."""
    expected_logs.append("limit backend failed")
    rules = {"enabled": True, "backend": "uncountable", "login_address": "2/3600"}
    site = await open_site(extra={"uncountable": Uncountable}, limits=rules)
    site.hydra.registry.loaded["uncountable"].plugin.answer = answer  # type: ignore[attr-defined]
    body = {"email": EMAIL, "password": "not the password"}
    for _ in range(2):
        refused(await site.post("login", body), 401, "invalid_credentials")
    refused(await site.post("login", body), 429, "too_many_requests")
    assert "uncountable" in {record.__dict__.get("backend") for record in caplog.records}


async def test_a_faulty_health_check(open_site: OpenSite) -> None:
    """A health check that says exit() is the plugin's failure."""
    site = await open_site(extra={"uncountable": Uncountable})
    [check] = site.hydra.registry.checks.values()
    assert await site.hydra.registry.health(check) == "RuntimeError: SystemExit"


@pytest.mark.parametrize(("answer", "kind"), [(False, "bool"), (7, "int"), (b"ok", "bytes")])
async def test_a_health_check_without_words(open_site: OpenSite, answer: Any, kind: str) -> None:
    """A health check that returns something else than text is told as its failure, not shown."""
    site = await open_site(extra={"uncountable": Uncountable})
    [check] = site.hydra.registry.checks.values()
    site.hydra.registry.loaded["uncountable"].plugin.answer = answer  # type: ignore[attr-defined]
    said = await site.hydra.registry.health(check)
    assert said == f'TypeError: a health check returns a sentence, or "" when all is well, not {kind}'
    assert site.hydra.plugin_times()["uncountable", "health_check"].failures == 1


class Careless:
    """A mail transport that returns what it thinks of a message, and a health check that returns nothing."""

    def __init__(self, context: Context) -> None:
        self.answers: list[Any] = [False, None]
        self.keys: list[str] = []

    @hookimpl
    def hydracore_register_mail_transports(self) -> list[MailTransport]:
        return [MailTransport("careless", self.send)]

    @hookimpl
    def hydracore_register_health_checks(self) -> list[HealthCheck]:
        return [HealthCheck("careless", self.check)]

    async def send(self, message: object, key: str) -> Any:
        self.keys.append(key)
        return self.answers[len(self.keys) - 1]

    async def check(self) -> Any:
        return None


async def test_a_transport_that_returns_false(open_site: OpenSite, expected_logs: list[str]) -> None:
    """A message that a transport did not take over, by what it returned, is not lost: it is tried again."""
    expected_logs.append("mail deferred")
    site = await open_site(extra={"careless": Careless}, mail={"transport": "careless"})
    plugin: Any = site.hydra.registry.loaded["careless"].plugin
    await site.register()
    outbox = site.hydra.services.store.outbox
    for _ in range(500):
        if [intent.error for intent in await outbox.list(10)] not in ([""], []):
            break
        await asyncio.sleep(0.01)
    [waiting] = await outbox.list(10)
    assert "the mail transport careless" in waiting.error
    site.clock.forward(minutes=1)
    for _ in range(500):
        if await outbox.list(10) == []:
            break
        await asyncio.sleep(0.01)
    assert await outbox.list(10) == []
    assert plugin.keys[0] == plugin.keys[1]
    [check] = site.hydra.registry.checks.values()
    assert "not NoneType" in await site.hydra.registry.health(check)


BLOCKING = """
import time
from hydracore.plugin import hookimpl

class Plugin:
    def __init__(self, context):
        pass

    @hookimpl
    async def hydracore_before_register(self, email):
        if email.startswith("block"):
            time.sleep(600)
"""


def status(server: Server, email: str) -> int:
    """What a registration is answered; 0 where the connection breaks."""
    try:
        return server.post("register", {"email": email, "password": PASSWORD})[0]
    except (OSError, HTTPException):
        return 0


def test_one_that_blocks_the_loop(start: StartServer, tmp_path: Path) -> None:
    """A plugin that blocks the event loop is named, and its worker is replaced; the server answers again."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "blocking.py").write_text(BLOCKING)
    server = start(
        HYDRACORE_PLUGINS__DIR=str(folder),
        HYDRACORE_PLUGINS__ENABLED='["blocking"]',
        HYDRACORE_SERVER__STALL_TIMEOUT="4",
    )
    stuck = threading.Thread(target=lambda: status(server, "block@example.com"), daemon=True)
    stuck.start()
    assert until(lambda: server.lines("the event loop stands still"), 20)
    [line] = server.lines("the event loop stands still")
    assert line["plugin"] == "blocking"
    assert any("blocking.py" in step for step in line["where"])
    assert until(lambda: server.lines("worker ended, it is replaced"), 20)
    assert until(lambda: status(server, EMAIL) == 201, 20)
    stuck.join(10)


def test_a_slow_import(start: StartServer, tmp_path: Path) -> None:
    """A plugin that is slow to import is named; the server starts all the same."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "sleepy.py").write_text("import time\ntime.sleep(1.2)\n" + BLOCKING)
    server = start(HYDRACORE_PLUGINS__DIR=str(folder), HYDRACORE_PLUGINS__ENABLED='["sleepy"]')
    [line] = server.lines("plugin is slow to start")
    assert [still["plugin"] for still in server.lines("plugin is still loading")] == ["sleepy"]
    assert (line["plugin"], line["seconds"] >= 1.2) == ("sleepy", True)
    assert time.monotonic() - server.started < 15


class Deaf:
    """A listener that hangs and does not let itself be cancelled."""

    def __init__(self, context: Context) -> None:
        self.over = False

    @hookimpl
    async def hydracore_on_event(self, event: events.Event) -> None:
        while not self.over:
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                continue


async def test_a_deaf_listener(open_site: OpenSite, expected_logs: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """A listener that hangs for good is not waited for, neither by requests nor at the end. It is told of at its
    deadline, and counted as a failure once."""
    expected_logs.append("plugin is late")
    site = await open_site(extra={"deaf": Deaf}, plugins={"timeout": 1})
    await site.register()
    started = time.monotonic()
    await site.hydra.registry.close()
    assert time.monotonic() - started < 10
    late = [record for record in caplog.records if record.message == "plugin is late"]
    assert {record.__dict__["plugin"] for record in late} == {"deaf"}
    spent = replace(site.hydra.plugin_times()["deaf", "hydracore_on_event"])
    assert spent.calls == spent.failures == len(late) >= 1
    assert spent.longest >= 1
    site.hydra.registry.loaded["deaf"].plugin.over = True  # type: ignore[attr-defined]
    await site.hydra.registry.settle()
    assert site.hydra.plugin_times()["deaf", "hydracore_on_event"] == spent


async def test_a_listener_that_ends_well_when_cancelled(
    expected_logs: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A listener that catches its cancellation and returns was late all the same; one that cancels itself failed."""
    expected_logs += ["plugin is late", "plugin failed"]
    calls = Calls(0.05)

    async def polite() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

    async def quitting() -> None:
        raise asyncio.CancelledError

    await asyncio.wait({calls.begin("polite", "on", polite), calls.begin("quitting", "on", quitting)})
    told = {(record.message, record.__dict__["plugin"]) for record in caplog.records}
    assert told == {("plugin is late", "polite"), ("plugin failed", "quitting")}
    assert [(spent.calls, spent.failures) for spent in calls.spent.values()] == [(1, 1), (1, 1)]


async def test_stuck_calls_are_the_plugins_own(
    expected_logs: list[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plugin of whose calls too many never ended is asked no more, and told of by name; others are asked as ever."""
    monkeypatch.setattr("hydracore.calls._MOST_LEFT", 3)
    expected_logs += ["plugin is late", "plugin is asked no more"]
    calls, over = Calls(0.05), asyncio.Event()

    async def stuck() -> None:
        while not over.is_set():
            with suppress(asyncio.CancelledError):
                await over.wait()

    async def well() -> int:
        return 7

    for _ in range(4):
        with pytest.raises(Unavailable) as refusal:
            await calls.call("stuck", "before", stuck)
    assert refusal.value.why == {
        "reason": "too many calls of the plugin never ended",
        "plugin": "stuck",
        "hook": "before",
    }
    with pytest.raises(Unavailable):
        await calls.measured("stuck", "mail_transport", well, 1)()
    assert await calls.call("well", "before", well) == 7
    assert await calls.measured("well", "mail_transport", well, 1)() == 7
    [line] = [record.__dict__ for record in caplog.records if record.message.startswith("plugin is asked no more")]
    assert (line["plugin"], line["calls"]) == ("stuck", 3)
    assert calls.spent["stuck", "before"].failures == 4
    over.set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert await calls.call("stuck", "before", well) == 7


class Hearing:
    """Counts what it hears."""

    def __init__(self, context: Context) -> None:
        self.heard = 0

    @hookimpl
    async def hydracore_on_event(self) -> None:
        self.heard += 1


async def test_events_are_dropped_for_one_plugin_alone(
    open_site: OpenSite,
    expected_logs: list[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A plugin that is too slow misses events and is named for it; the listeners after it hear all of them."""
    monkeypatch.setattr("hydracore.listening._MOST_TOLD", 5)
    expected_logs += ["plugin is late", "events are dropped"]
    site = await open_site(extra={"deaf": Deaf, "hearing": Hearing}, plugins={"timeout": 1})
    for _ in range(12):
        site.hydra.registry.announce(events.EmailVerified(user_id="x"))
        await asyncio.sleep(0.01)
    plugins = site.hydra.registry.loaded
    assert plugins["hearing"].plugin.heard == 12  # type: ignore[attr-defined]
    lines = [record.__dict__ for record in caplog.records if "events are dropped" in record.message]
    assert {line["plugin"] for line in lines} == {"deaf"}
    plugins["deaf"].plugin.over = True  # type: ignore[attr-defined]


async def test_threads_are_the_plugins_own(
    open_site: OpenSite, expected_logs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plugin whose threads are all lost answers for itself: those of others, and of the core, work on."""
    monkeypatch.setattr("hydracore.threads._MOST_LOST", 1)
    made: dict[str, Context] = {}

    class Asking:
        def __init__(self, context: Context) -> None:
            made[context.name] = context

    site = await open_site(extra={"one": Asking, "two": Asking})
    over = threading.Event()
    stuck = asyncio.ensure_future(made["one"].in_thread(over.wait))
    await asyncio.sleep(0.05)
    stuck.cancel()
    await asyncio.wait({stuck})
    with pytest.raises(Unavailable) as refusal:
        await made["one"].in_thread(len, "abc")
    assert refusal.value.why["threads"] == "one"
    assert await made["two"].in_thread(len, "abc") == 3
    await site.hydra.rotate_keys()
    over.set()


async def test_the_loops_threads_are_kept_for_ever() -> None:
    """Names are looked up while a plugin keeps every thread that it can get; the end waits as long as it is told."""
    loop, executor, over = asyncio.get_running_loop(), LoopExecutor(), threading.Event()
    loop.set_default_executor(executor)
    stuck = [asyncio.ensure_future(asyncio.to_thread(over.wait)) for _ in range(100)]
    await asyncio.sleep(0.05)
    async with asyncio.timeout(10):
        assert await loop.getaddrinfo("127.0.0.1", 80)
        assert await asyncio.to_thread(socket.getfqdn)
    for task in stuck:
        task.cancel()
    await asyncio.wait(stuck)
    started = time.monotonic()
    assert executor.end(0.2) > 0
    assert time.monotonic() - started < 5
    over.set()
    assert executor.end(5) == 0


KEEPING = """
import asyncio, time
from hydracore.plugin import hookimpl

class Plugin:
    def __init__(self, context):
        pass

    @hookimpl
    async def hydracore_on_event(self):
        await asyncio.to_thread(time.sleep, 3600)
"""


def test_one_that_keeps_the_loops_threads(start: StartServer, tmp_path: Path) -> None:
    """While a plugin keeps all threads that the event loop has, mail goes out; SIGTERM waits for none of them, but for
    server.drain_timeout."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "keeping.py").write_text(KEEPING)
    server = start(
        HYDRACORE_PLUGINS__DIR=str(folder),
        HYDRACORE_PLUGINS__ENABLED='["keeping"]',
        HYDRACORE_PLUGINS__TIMEOUT="1",
        HYDRACORE_SERVER__DRAIN_TIMEOUT="3",
        HYDRACORE_LOG__LOAD_EVERY="1",
    )
    server.register("first@example.com")
    for _ in range(40):
        server.post("login", {"email": "first@example.com", "password": PASSWORD})
    server.register("last@example.com")
    assert server.letter(2)
    assert until(lambda: any(line["plugins"].get("keeping", {}).get("failures") for line in server.lines("load")), 10)
    assert {line["plugin"] for line in server.lines("plugin is late")} == {"keeping"}
    before = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - before < 3 + 3
    [line] = server.lines("work of plugins cut off at shutdown")
    assert line["threads"] > 1


async def test_a_code_survives_a_broken_plugin(open_site: OpenSite, expected_logs: list[str]) -> None:
    """A code that a broken plugin kept from signing in is still good, and the address is not proven meanwhile."""
    expected_logs += ["plugin failed", "unavailable"]
    Moody.broken = False
    site = await open_site(extra={"moody": Moody})
    first = await site.register()
    body = {"email": EMAIL, "code": await site.box.code(EMAIL)}
    Moody.broken = True
    refused(await site.post("verify-email", body), 503, "unavailable")
    assert json.loads((await site.me(first["access_token"])).body)["email_verified"] is False
    Moody.broken = False
    assert tokens(await site.post("verify-email", body))["email_verified"] is True


class Dawdling:
    """Takes its time before a registration, and for a call of its own."""

    def __init__(self, context: Context) -> None:
        pass

    @hookimpl
    async def hydracore_before_register(self, email: str) -> None:
        await asyncio.sleep(60 if email.startswith("slow") else 0)


async def test_a_request_has_a_deadline(open_site: OpenSite, expected_logs: list[str]) -> None:
    """A request that takes longer than ``server.request_timeout`` in all is answered 503, and nothing came of it."""
    expected_logs.append("unavailable")
    site = await open_site(extra={"dawdling": Dawdling}, server={"request_timeout": 1})
    started = time.monotonic()
    body = {"email": "slow@example.com", "password": PASSWORD}
    answer = await site.post("register", body)
    refused(answer, 503, "unavailable")
    assert answer.headers["Retry-After"]
    assert time.monotonic() - started < 4
    refused(await site.post("login", body), 401, "invalid_credentials")
    await site.register()


async def test_work_that_ends_as_it_is_given_up() -> None:
    """A caller who leaves at the moment when its work has ended costs no thread, however often that happens."""
    threads, loop = Threads("one", 1, 10), asyncio.get_running_loop()
    for _ in range(150):
        ended = threading.Event()
        running = loop.create_task(threads.run(ended.set))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert ended.wait(5)  # In its thread; the loop, which stands still here, has not heard of it.
        time.sleep(0.002)  # until the thread has said so
        running.cancel()
        await asyncio.wait({running})
    assert await threads.run(lambda: 7) == 7
    assert threads._lost == 0
    threads.close()


async def test_what_was_dropped_is_told_at_the_end(
    open_site: OpenSite, expected_logs: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Events that found no room are counted among the lost ones."""
    expected_logs += ["plugin failed", "events are lost", "events are dropped"]
    site = await open_site(extra={"keeper": Keeper})
    keeper(site).broken = True
    for number in range(10_050):
        site.hydra.registry.announce(events.LoginFailed(address_digest=str(number)))
    await site.hydra.registry.close()
    [line] = [record for record in caplog.records if record.message == "events are lost"]
    assert line.__dict__["events"] == 10_050
