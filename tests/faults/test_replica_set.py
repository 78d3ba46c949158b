"""Two nodes with two workers each over a replica set of three: its primary steps down, dies, or is cut off; keys and
accounts change under load. Each request goes to either node, and the kernel chooses the worker."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from typing import Any

import jwt
import pytest
from figures import Bounds, Suffer
from post import PostOffice
from processes import LOGIN, Server, settled
from rig import Members, Nodes, Operator, watch

WITHIN = 5.0


@pytest.fixture
def members(mongod_uri: str, tmp_path: Path) -> Iterator[Members]:
    """A replica set; ``mongod_uri`` says whether there is a mongod at all."""
    opened = Members(tmp_path / "members")
    yield opened
    opened.close()


@pytest.fixture
def both(members: Members, nodes: Nodes) -> list[Server]:
    """Two nodes with two workers each. A new key signs two seconds after it is published."""
    lead = {"HYDRACORE_TOKENS__KEY_LEAD": "2"}
    starting = [nodes(members.uri, "--workers", "2", folder=name, wait=False, **lead) for name in ("one", "two")]
    return [server.wait() for server in starting]


@pytest.mark.short
def test_step_down(members: Members, both: list[Server], suffer: Suffer) -> None:
    """The primary steps down under load, twice: 503 until there is another, nothing acknowledged is lost, and ten
    seconds later everybody is served."""

    def fault() -> None:
        for _ in range(2):
            members.command(members.primary(), "replSetStepDown", 10, secondaryCatchUpPeriodSecs=5)
            members.primary()
            time.sleep(1)

    suffer(both, fault, Bounds(within=10))


def test_kill_9_of_the_primary(members: Members, both: list[Server], suffer: Suffer) -> None:
    """The primary is killed under load and comes back later as a member: nothing acknowledged is lost, and ten seconds
    after another is elected everybody is served."""

    def fault() -> None:
        killed = members.primary()
        members.members[killed].kill()
        others = tuple({0, 1, 2} - {killed})
        members.primary(others)
        time.sleep(3)
        members.members[killed].start()
        watch(members.members[killed].process.pid)

    suffer(both, fault, Bounds(within=10))


def test_a_primary_in_the_minority(members: Members, both: list[Server], suffer: Suffer) -> None:
    """The primary and one node with it are cut off from the other members and the other node for eight seconds. What
    the lonely primary takes meanwhile is acknowledged to nobody, so nothing acknowledged is lost when it is thrown
    away; ten seconds after the network is whole everybody is served, by both nodes."""
    one, _ = both

    def fault() -> None:
        lonely = members.primary()
        members.split(lonely, one.process.pid, *one.children()["worker"])
        members.primary(tuple({0, 1, 2} - {lonely}))
        time.sleep(8)
        members.heal()

    # Those at home with the node that is cut off wait; the others are served by theirs.
    for server in both:
        watch(server.process.pid, *server.children()["worker"])
    ledger = suffer(both, fault, Bounds(within=10, mail_within=75), loyal=True)
    assert ledger.unknown > 0


def test_a_story_on_all_of_them(both: list[Server], office: PostOffice) -> None:
    """Sign up, prove the address, sign in, refresh twenty times at once, sign out, set a new password: each step on
    another node than the one before, ten times over."""
    for number in range(10):
        one, two = both if number % 2 else reversed(both)
        _story(one, two, office, {"email": f"ada{number}@example.com", "password": LOGIN["password"]})


def _story(one: Server, two: Server, office: PostOffice, login: dict[str, str]) -> None:
    assert one.post("register", login)[0] == 201
    assert two.post("register", login)[0] == 409
    code = {"email": login["email"], "code": office.find(login["email"], r"^([0-9]{6})\s*$", 20)}
    assert sorted(server.post("verify-email", code)[0] for server in (two, one)) == [200, 400]
    first = one.post("login", login)[1]
    assert first["email_verified"]

    def refresh(server: Server) -> tuple[int, str]:
        status, grant, _ = server.post("refresh", {"refresh_token": first["refresh_token"]})
        return status, grant["refresh_token"]

    with ThreadPoolExecutor(20) as pool:
        answers = Counter(pool.map(refresh, [one, two] * 10))
    [(status, successor)] = answers
    assert status == 200
    last = two.post("refresh", {"refresh_token": successor})[1]
    assert one.me(last) == two.me(last) == 200
    assert two.post("logout", {"refresh_token": last["refresh_token"]})[0] == 204
    for server in (one, two):
        assert server.me(last) == 401
        assert server.post("refresh", {"refresh_token": last["refresh_token"]})[0] == 401
    held = two.post("login", login)[1]
    assert one.post("forgot-password", {"email": login["email"]})[0] == 200
    asked = {"token": office.find(login["email"], r"#token=([\w-]{43})\s", 20), "new_password": "an entirely new one"}
    assert [server.post("reset-password", asked)[0] for server in (two, one, two)] == [200, 400, 400]
    assert one.me(held) == two.me(held) == 401
    assert one.post("login", login)[0] == 401
    assert one.post("login", {**login, "password": "an entirely new one"})[0] == 200


def test_an_account_is_disabled(members: Members, both: list[Server], operator: Operator) -> None:
    """``hydracore users disable`` holds on every worker of both nodes within five seconds, and so does enable."""
    turn = cycle(both)
    grant = both[0].register()

    def all_say(status: int, ask: Callable[[Server], int]) -> bool:
        # Each request has a connection of its own: of so many in a row, none reaches a worker that does not know.
        return settled(lambda: ask(next(turn)), status, 30) < WITHIN

    def renew(server: Server) -> int:
        return server.post("refresh", {"refresh_token": grant["refresh_token"]})[0]

    operator(members.uri, "users", "disable", LOGIN["email"])
    assert all_say(401, lambda server: server.me(grant))
    assert all_say(401, renew)
    assert all_say(401, lambda server: server.post("login", LOGIN)[0])
    operator(members.uri, "users", "enable", LOGIN["email"])
    assert all_say(200, lambda server: server.post("login", LOGIN)[0])
    assert all_say(401, lambda server: server.me(grant))


def test_keys_are_rotated(members: Members, both: list[Server], suffer: Suffer, operator: Operator) -> None:
    """``hydracore keys rotate`` under load, twice: within five seconds every worker of both nodes publishes the new
    key, and signs with it once it is due; tokens under the old one stay good. Nobody is refused for it: a majority that
    is slower than ``store.timeout`` once, on a busy machine, is all that a 503 may come of."""
    turn = cycle(both)

    def published(server: Server) -> set[str]:
        return {key["kid"] for key in server.ask("GET", "/.well-known/jwks.json")[1]["keys"]}

    def signs(server: Server) -> Any:
        status, body, _ = server.post("login", LOGIN)
        return jwt.get_unverified_header(body["access_token"])["kid"] if status == 200 else status

    grant = both[0].register()
    assert both[0].ask("GET", "/auth/me", Authorization=f"Bearer {grant['access_token']}")[0] == 200

    def fault() -> None:
        for _ in range(2):
            before = published(both[0])
            operator(members.uri, "keys", "rotate")
            done = time.monotonic()
            while not (new := published(both[0]) - before):
                assert time.monotonic() - done < WITHIN
            [kid] = new
            assert settled(lambda kid=kid: kid in published(next(turn)), True, 30) < WITHIN  # type: ignore[misc]
            assert settled(lambda: signs(next(turn)), kid, 20) < 2 + WITHIN
            assert settled(lambda: next(turn).me(grant), 200, 20) < WITHIN

    ledger = suffer(both, fault, Bounds(within=5))
    assert ledger.answers[0] == 0
    assert ledger.unknown == ledger.refusals["store_unavailable"] <= 3
