"""What is measured, as it is exposed."""

import asyncio
import json
import math
import re
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from measured import labels, samples, value
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from support import PASSWORD, OpenSite, Site, refused, tokens

from hydracore import HydraCore
from hydracore.busyness import Load
from hydracore.calls import Spent
from hydracore.config import Config, load
from hydracore.errors import (
    Forbidden,
    HashingOverloaded,
    HydraError,
    InvalidCredentials,
    StartupError,
    StoreUnavailable,
    TooManyRequests,
)
from hydracore.meters import State, outcome_of
from hydracore.models import Backlog
from hydracore.plugin import Count, Endpoint, LimitBackend, LoginRefused, Route, hookimpl, public
from hydracore.prometheus import Metrics, PrometheusMeters
from hydracore.reporting import Reporter
from hydracore.server import sharing_of
from hydracore.store import Store

ROOT = Path(__file__).parent.parent
EMAIL = "ada@example.com"
RIGHT = {"email": EMAIL, "password": PASSWORD}
WRONG = {"email": EMAIL, "password": "wrong password"}


async def measured(open_site: OpenSite, **settings: Any) -> tuple[Site, CollectorRegistry]:
    registry = CollectorRegistry()
    return await open_site(metrics=registry, **settings), registry


def read(registry: CollectorRegistry) -> str:
    return generate_latest(registry).decode()


@public
class Letters(Endpoint):
    async def get(self, name: str) -> None:
        self.reply({"name": name})


class Lettered:
    """A plugin with a path that has a parameter, which refuses some."""

    def __init__(self, context: Any) -> None:
        pass

    @hookimpl
    def hydracore_register_routes(self) -> list[Route]:
        return [Route("/letters/{name}", Letters)]

    @hookimpl
    async def hydracore_before_login(self, account: Any) -> None:
        if account.email.startswith("mallory"):
            raise LoginRefused("Not you.")


async def test_requests(open_site: OpenSite) -> None:
    """Requests and their time are counted by the table's row, never by the path as it was written, and by status
    class; what has no row has one name for all."""
    site, registry = await measured(open_site, extra={"letters": Lettered})
    await site.register()
    assert (await site.post("login", WRONG)).code == 401
    tokens(await site.post("login", RIGHT))
    for path in ("/auth/letters/a", "/auth/letters/b", "/nobody/1", "/nobody/2", "/auth/%6De"):
        await site.ask("GET", path)
    text = read(registry)
    requests = "hydracore_http_requests_total"
    assert value(text, requests, route="/auth/login", status="2xx") == 1
    assert value(text, requests, route="/auth/login", status="4xx") == 1
    assert value(text, requests, route="/auth/login", status="5xx") == 0
    assert value(text, requests, route="/auth/letters/{name}") == 2
    assert value(text, requests, route="none", status="4xx") >= 2
    known = {"/health/live", "/health/ready", "/.well-known/jwks.json", "/auth/letters/{name}", "none"}
    known |= {"/openapi.json", "/docs", "/auth/me/export"}
    known |= {"/auth/sessions/revoke-others", "/auth/sessions/{session_id}"}
    assert {name for name in labels(text, requests, "route") if not re.fullmatch(r"/auth/[a-z-]+", name)} == known
    took = "hydracore_http_request_duration_seconds"
    assert value(text, f"{took}_count", route="/auth/login") == 2
    assert value(text, f"{took}_bucket", route="/auth/login", le="+Inf") == 2
    assert value(text, f"{took}_sum", route="/auth/login") > 0


async def test_logins(open_site: OpenSite, expected_logs: list[str]) -> None:
    """Sign-ins are counted by how they ended, by whichever call; what happened besides is counted by its event."""
    expected_logs.append("unavailable")
    site, registry = await measured(open_site, extra={"letters": Lettered}, limits={"enabled": True})
    await site.register()
    await site.register("mallory@example.com")
    tokens(await site.post("login", RIGHT))
    for _ in range(5):
        refused(await site.post("login", WRONG), 401, "invalid_credentials")
    basic = "Basic YWRhQGV4YW1wbGUuY29tOmNvcnJlY3QgaG9yc2UgYmF0dGVyeSBzdGFwbGU="
    refused(await site.ask("POST", "/auth/token", raw=b"", Authorization=basic), 429, "too_many_requests")
    refused(await site.post("login", {**RIGHT, "email": "mallory@example.com"}), 403, "login_refused")
    pool: Any = site.hydra.services.passwords._pool
    pool._bound = 0
    refused(await site.post("login", {**RIGHT, "email": "bob@example.com"}), 503, "overloaded")
    text, logins = read(registry), "hydracore_logins_total"
    wanted = {"success": 1, "invalid_credentials": 5, "limited": 1, "refused": 1, "unavailable": 1, "error": 0}
    assert {outcome: value(text, logins, outcome=outcome) for outcome in labels(text, logins, "outcome")} == wanted
    happened = "hydracore_events_total"
    assert value(text, happened, event="Registered") == 2
    assert value(text, happened, event="LoginFailed") == 5
    assert value(text, happened, event="LoginRefused") == value(text, happened, event="Limited") == 1


async def test_events_from_the_start(open_site: OpenSite) -> None:
    """Every event that may happen is counted from 0 on, and no kind of events: the first time that Prometheus reads a
    counter it has not grown, whatever it is at."""
    _, registry = await measured(open_site)
    text, happened = read(registry), "hydracore_events_total"
    assert value(text, happened, event="RefreshReused") == value(text, happened, event="MailDead") == 0
    assert not {"Event", "UserEvent", "SessionEvent"} & set(labels(text, happened, "event"))


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "success"),
        (InvalidCredentials(), "invalid_credentials"),
        (TooManyRequests(1), "limited"),
        (LoginRefused(), "refused"),
        (Forbidden(), "refused"),
        (HashingOverloaded(), "unavailable"),
        (StoreUnavailable(), "unavailable"),
        (asyncio.CancelledError(), "unavailable"),
        (HydraError(), "error"),
        (ValueError(), "error"),
    ],
)
def test_outcomes(error: BaseException | None, outcome: str) -> None:
    """Every end of a sign-in has its word: what is nobody's fault is told apart from what a guesser does."""
    assert outcome_of(error) == outcome


async def test_limits(open_site: OpenSite, expected_logs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the limiter decides is counted by rule, a crowd apart; hits that the backend did not count are too."""
    expected_logs.append("limit backend failed")
    monkeypatch.setattr("hydracore.limits._MOST_WAITING", 0)
    site, registry = await measured(open_site, limits={"enabled": True, "login_address_network": "2/300"})
    for _ in range(2):
        refused(await site.post("login", WRONG), 401, "invalid_credentials")
    refused(await site.post("login", WRONG), 429, "too_many_requests")
    text, decisions, rule = read(registry), "hydracore_limit_decisions_total", "login_address_network"
    assert value(text, decisions, rule=rule, decision="allowed") == 2
    assert value(text, decisions, rule=rule, decision="refused") == 1
    assert value(text, decisions, rule="login_address", decision="allowed") == 2
    assert value(text, decisions, rule=rule, decision="crowded") == 0
    crowd = [site.post("login", {**WRONG, "email": "bob@example.com"}) for _ in range(6)]
    answers = [answer.code for answer in await asyncio.gather(*crowd)]
    assert answers.count(429) == 4
    text = read(registry)
    both = [value(text, decisions, rule=rule, decision=decision) for decision in ("refused", "crowded")]
    assert sum(both) == 1 + 4
    assert value(text, "hydracore_limit_fallbacks_total") == 0

    async def gone(key: str, window: int, cost: int) -> Count:
        raise ConnectionError

    limiter: Any = site.hydra.services.limiter
    limiter._counters._backend = LimitBackend("gone", gone)
    await site.post("login", {**WRONG, "email": "eve@example.com"})
    assert value(read(registry), "hydracore_limit_fallbacks_total") == 3


async def test_hashes(open_site: OpenSite, expected_logs: list[str]) -> None:
    """A hash is counted with what it waited and what it took; one without room is counted as refused; how many are
    pending, and how many may be, is told."""
    expected_logs.append("unavailable")
    site, registry = await measured(open_site, password={"hash_threads": 1, "hash_queue": 1})
    pool: Any = site.hydra.services.passwords._pool
    gate = threading.Event()
    stuck = asyncio.ensure_future(pool.run(lambda: gate.wait(20)))
    waits = asyncio.ensure_future(pool.run(lambda: None))
    await asyncio.sleep(0)
    refused(await site.post("login", WRONG), 503, "overloaded")
    site.hydra._reporter._meters.report(site.hydra._state())
    text = read(registry)
    assert (value(text, "hydracore_hashes_pending"), value(text, "hydracore_hashes_capacity")) == (2, 2)
    assert value(text, "hydracore_hashes_refused_total") == 1
    assert value(text, "hydracore_hash_wait_seconds_count") == 0
    gate.set()
    await asyncio.gather(stuck, waits)
    await asyncio.sleep(0)
    text = read(registry)
    assert value(text, "hydracore_hash_wait_seconds_count") == value(text, "hydracore_hash_duration_seconds_count") == 2
    assert value(text, "hydracore_hash_wait_seconds_sum") > 0
    assert value(text, "hydracore_hash_duration_seconds_sum") > 0


async def test_store(open_site: OpenSite) -> None:
    """Operations on the database are timed by collection and kind."""
    site, registry = await measured(open_site)
    grant = await site.register()
    for _ in range(3):
        assert (await site.me(grant["access_token"])).code == 200
    text, took = read(registry), "hydracore_store_operation_duration_seconds_count"
    assert value(text, took, collection="users", operation="insert_one") == 1
    assert value(text, took, collection="sessions", operation="aggregate") >= 3
    assert value(text, "hydracore_store_failures_total") == 0


async def test_store_failures() -> None:
    """An operation that the database does not answer is a failure, and its time is counted; a unique index that
    refuses is none."""
    registry = CollectorRegistry()
    meters = PrometheusMeters(registry)
    meters.open()
    store = Store(driver="pymongo", database="x", timeout=1, meters=meters)
    store.open("mongodb://127.0.0.1:1/")
    with pytest.raises(StoreUnavailable):
        await store.users.by_id("x")
    await store.close()
    text, labelled = read(registry), {"collection": "users", "operation": "find"}
    assert value(text, "hydracore_store_failures_total", **labelled) == 1
    assert value(text, "hydracore_store_operation_duration_seconds_count", **labelled) == 1
    meters.close()
    assert read(registry) == ""


async def test_taken_address_is_no_failure(open_site: OpenSite) -> None:
    """A write that a unique index refuses has not failed."""
    site, registry = await measured(open_site)
    await site.register()
    refused(await site.post("register", RIGHT), 409, "email_taken")
    assert value(read(registry), "hydracore_store_failures_total", operation="insert_one") == 0


async def test_outbox(open_site: OpenSite, expected_logs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits in the outbox is told."""
    expected_logs.append("mail deferred")
    monkeypatch.setattr("hydracore.reporting._OUTBOX_EVERY", 0.05)
    site, registry = await measured(open_site)
    site.box.failure = ConnectionError("no")
    await site.register()
    async with asyncio.timeout(25):
        while value(read(registry), "hydracore_outbox_messages", state="waiting") != 1:  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.02)
    assert value(read(registry), "hydracore_outbox_messages", state="dead") == 0


async def test_outbox_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the database does not say what the outbox holds, nobody is told what it held."""
    monkeypatch.setattr("hydracore.reporting._OUTBOX_EVERY", 0.0)
    registry, away = CollectorRegistry(), False
    meters = PrometheusMeters(registry)
    meters.open()

    async def backlog() -> Backlog:
        await asyncio.sleep(0)
        if away:
            raise StoreUnavailable
        return Backlog(7, 1, 12.5)

    reporter = Reporter(meters, lambda: State(Load(0.25, 3, 2, 1), 66, {}), backlog)
    telling = asyncio.ensure_future(reporter.tell_outbox())
    await asyncio.sleep(0.01)
    known = read(registry)
    assert value(known, "hydracore_outbox_oldest_due_seconds") == 12.5
    assert value(known, "hydracore_outbox_messages") == 8
    away = True
    await asyncio.sleep(0.01)
    assert math.isnan(value(read(registry), "hydracore_outbox_oldest_due_seconds"))
    telling.cancel()


async def test_plugins(open_site: OpenSite) -> None:
    """Calls, failures and seconds of plugins are what HydraCore.plugin_times() says, by plugin and hook."""
    site, registry = await measured(open_site, extra={"letters": Lettered})
    calls = site.hydra.registry.calls
    for failed in (False, True):
        calls.note("box", "mail_transport", 0.25, failed=failed)
    await site.ask("GET", "/auth/letters/a")
    for _ in range(2):  # Told twice, counted once.
        site.hydra._reporter._meters.report(site.hydra._state())
    text, of_box = read(registry), {"plugin": "box", "hook": "mail_transport"}
    assert value(text, "hydracore_plugin_calls_total", **of_box) == 2
    assert value(text, "hydracore_plugin_failures_total", **of_box) == 1
    assert value(text, "hydracore_plugin_seconds_total", **of_box) == 0.5
    assert value(text, "hydracore_plugin_calls_total", plugin="letters", hook="route /letters/{name}") == 1
    for (plugin, hook), spent in site.hydra.plugin_times().items():
        assert value(text, "hydracore_plugin_calls_total", plugin=plugin, hook=hook) == spent.calls


def test_process() -> None:
    """How a process stands is told as it is; what it counts since its start only grows."""
    registry = CollectorRegistry()
    meters = PrometheusMeters(registry)
    meters.open()
    spent = {("acme", "hydracore_on_event"): Spent(3, 1, 0.5, 0.25)}
    meters.report(State(Load(0.25, 3, 2, 5), 66, spent))
    meters.report(State(Load(0.125, 2, 1, 6), 66, spent))
    text = read(registry)
    assert value(text, "hydracore_event_loop_lag_seconds") == 0.125
    assert value(text, "hydracore_http_requests_in_flight") == 2
    assert value(text, "hydracore_hashes_refused_total") == 6
    assert value(text, "hydracore_plugin_calls_total") == 3
    assert value(text, "hydracore_workers") == value(text, "hydracore_worker_starts_total") == 1


async def test_management(open_site: OpenSite) -> None:
    """The management application has the numbers, which a parser takes, and health; and nothing else."""
    site, registry = await measured(open_site, host=lambda hydra: hydra.management())
    answer = await site.ask("GET", "/metrics")
    assert (answer.code, answer.headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    text = answer.body.decode()
    assert {sample.name for sample in samples(text)} >= {"hydracore_workers", "hydracore_logins_total"}
    assert value(text, "hydracore_http_requests_in_flight") == 1  # Itself.
    assert (await site.ask("HEAD", "/metrics")).code == 200
    for path in ("/health/live", "/health/ready"):
        assert (await site.ask("GET", path)).code == 200
    for path in ("/auth/me", "/.well-known/jwks.json", "/"):  # Where it is there, that is 405.
        refused(await site.ask("POST", path, body={}), 404, "not_found")
    refused(await site.ask("POST", "/metrics", body={}), 405, "method_not_allowed")
    assert value(read(registry), "hydracore_http_requests_total", route="/metrics", status="2xx") == 2


async def test_public_listener(open_site: OpenSite) -> None:
    """The application for everybody has no numbers (ASVS 5.0, 13.4.5)."""
    site, _ = await measured(open_site)
    for path in ("/metrics", "/auth/metrics", "//metrics", "/metrics/"):
        refused(await site.ask("GET", path), 404, "not_found")


async def test_off(open_site: OpenSite) -> None:
    """Without a registry nothing is measured, and /metrics is not there."""
    site = await open_site(host=lambda hydra: hydra.management())
    refused(await site.ask("GET", "/metrics"), 404, "not_found")
    assert (await site.ask("GET", "/health/ready")).code == 200
    assert not site.hydra._meters.on


async def test_two_in_one_process(open_site: OpenSite) -> None:
    """Two HydraCores of one process count apart, each in a registry of its own; of one registry's two the second is
    refused, with the remedy, until the first is closed."""
    one, of_one = await measured(open_site)
    _, of_other = await measured(open_site, keep=True)
    await one.register()
    registered = {"route": "/auth/register", "status": "2xx"}
    assert value(read(of_one), "hydracore_http_requests_total", **registered) == 1
    assert value(read(of_other), "hydracore_http_requests_total", **registered) == 0
    config = load(environment={}, overrides={"store": {"driver": "memory"}, "password": {"profile": "testing"}})
    second = HydraCore(config, metrics=of_one)
    with pytest.raises(StartupError, match="a registry of its own"):
        await second.__aenter__()
    registry = CollectorRegistry()
    for _ in range(2):
        async with HydraCore(config, metrics=registry):
            assert value(read(registry), "hydracore_workers") == 1
        assert read(registry) == ""


def test_shared_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the workers write into is there before they are, whole on the disk; so it is again for who replaces one."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    sharing = sharing_of(configured(port=9464))
    sharing.open()
    [folder] = tmp_path.iterdir()
    files = {file.name: file.stat() for file in folder.iterdir()}
    assert all(0 < stat.st_size <= stat.st_blocks * 512 for stat in files.values())
    sharing.forget(0)
    again = {file.name: file.stat() for file in folder.iterdir()}
    assert {name: (stat.st_size, stat.st_blocks) for name, stat in again.items()} == {
        name: (stat.st_size, stat.st_blocks) for name, stat in files.items()
    }
    kept = {name for name, stat in again.items() if stat.st_ino == files[name].st_ino}
    assert {"counter_0.db", "histogram_0.db"} <= kept
    sharing.close()
    assert not list(tmp_path.iterdir())


def test_no_room_for_shared_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no room for what the workers share, the start is refused with the remedy."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nothing"))
    with pytest.raises(StartupError, match=r"nothing: No such file.*TMPDIR.*management\.port"):
        sharing_of(configured(port=9464)).open()


def configured(**management: Any) -> Config:
    return load(environment={}, overrides={"management": management})


def test_library_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """With management.port set and prometheus-client absent, the start is refused with the remedy; without the port
    it is not missed."""
    monkeypatch.delitem(sys.modules, "hydracore.sharing", raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(StartupError, match=r'management\.port.*pip install "hydracore\[metrics\]"'):
        sharing_of(configured(port=9464))
    sharing_of(configured()).open()


# -- words -----------------------------------------------------------------------------------------


def exposed() -> dict[str, Metric]:
    """The families there are, by the name that a query uses."""
    found = {}
    for metric in vars(Metrics()).values():
        [family] = metric.describe()
        found[f"{family.name}_total" if family.type == "counter" else family.name] = family
    return found


def named(text: str) -> set[str]:
    """The metrics that a text names, those of a histogram's series by the histogram's name."""
    names = set(re.findall(r"\bhydracore_\w+", text))
    return {re.sub(r"_(bucket|sum|count)$", "", name) if name not in exposed() else name for name in names}


def test_table() -> None:
    """docs/operations.md lists every metric, with its type and its labels, and no other."""
    told = re.findall(r"^\| `(hydracore_\w+)` \| (\w+) \| ([^|]*)\|", operations(), re.MULTILINE)
    there = {name: (family.type, set(_labels(family.name))) for name, family in exposed().items()}
    assert {name: (kind, set(re.findall(r"`(\w+)`", given))) for name, kind, given in told} == there


def _labels(name: str) -> tuple[str, ...]:
    [metric] = [metric for metric in vars(Metrics()).values() if metric._name == name]
    labels: tuple[str, ...] = metric._labelnames
    return labels


def operations() -> str:
    return (ROOT / "docs/operations.md").read_text("utf-8")


def test_alerts() -> None:
    """Every metric that the alerts and the words of docs/operations.md name is there."""
    assert named(operations()) <= set(exposed())


def test_dashboard() -> None:
    """The dashboard is JSON that Grafana takes, each panel asks for something, and every metric that it names is
    there; none is forgotten."""
    dashboard = json.loads((ROOT / "docs/grafana/hydracore.json").read_text("utf-8"))
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert dashboard["title"] == "HydraCore"
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    assert all(panel["targets"] for panel in panels)
    assert all(named(expression) for expression in asked)
    assert set().union(*map(named, asked)) == set(exposed())
    corners = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]]
    assert len(set(corners)) == len(corners)
