"""The meters as Prometheus reads them.

In ``hydracore serve`` the workers share the numbers (sharing.py): counters and histograms add up, gauges say by their
mode how those of live workers become one. Names and labels are in docs/operations.md, and relied on.
"""

import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import TypeVar, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.multiprocess import MultiProcessCollector

from hydracore import events
from hydracore.errors import StartupError, StoreUnavailable
from hydracore.events import Event
from hydracore.meters import OUTCOMES, Answered, Decided, Operation, Registry, State, outcome_of
from hydracore.models import Backlog

T = TypeVar("T")
Key = TypeVar("Key")
Made = TypeVar("Made")

_DECISIONS = ("allowed", "refused", "crowded")
_EVENTS = [
    kind
    for kind in vars(events).values()
    if isinstance(kind, type) and issubclass(kind, Event) and not kind.__subclasses__()
]
_UNKNOWN = float("nan")

_counter, _gauge, _histogram = (
    partial(Counter, registry=None),
    partial(Gauge, registry=None),
    partial(Histogram, registry=None),
)
_sum, _worst, _latest = (partial(_gauge, multiprocess_mode=mode) for mode in ("livesum", "livemax", "livemostrecent"))
_request_seconds = partial(_histogram, buckets=(0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30))
_store_seconds = partial(
    _histogram, buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
)
_hash_seconds = partial(_histogram, buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5))


class Metrics:
    """Every metric there is."""

    def __init__(self) -> None:
        route, operation, plugin = ["route"], ["collection", "operation"], ["plugin", "hook"]
        self.requests = _counter("hydracore_http_requests", "Requests that were answered.", [*route, "status"])
        self.request_seconds = _request_seconds(
            "hydracore_http_request_duration_seconds", "Seconds from a request's head to its answer.", route
        )
        self.in_flight = _sum("hydracore_http_requests_in_flight", "Requests that are being answered.")
        self.logins = _counter("hydracore_logins", "Sign-ins that were tried.", ["outcome"])
        self.decisions = _counter("hydracore_limit_decisions", "Hits on the rules of limits.", ["rule", "decision"])
        self.fallbacks = _counter("hydracore_limit_fallbacks", "Hits that the backend of limits did not count.")
        self.hashes_pending = _sum("hydracore_hashes_pending", "Hashes that run or wait.")
        self.hashes_capacity = _sum("hydracore_hashes_capacity", "Hashes that may run or wait.")
        self.hashes_refused = _counter("hydracore_hashes_refused", "Hashes that found no room, or no time.")
        self.hash_wait = _hash_seconds("hydracore_hash_wait_seconds", "Seconds that a hash waited for a thread.")
        self.hash_seconds = _hash_seconds("hydracore_hash_duration_seconds", "Seconds that a hash took in its thread.")
        self.store_seconds = _store_seconds(
            "hydracore_store_operation_duration_seconds", "Seconds of a database operation.", operation
        )
        self.store_failures = _counter("hydracore_store_failures", "Operations not done, or nobody knows.", operation)
        self.outbox = _latest("hydracore_outbox_messages", "Messages in the outbox.", ["state"])
        self.outbox_age = _latest(
            "hydracore_outbox_oldest_due_seconds", "Seconds since the oldest message that is due was due."
        )
        self.webhooks = _latest(
            "hydracore_webhook_deliveries", "Events in the outbox of webhooks.", ["webhook", "state"]
        )
        self.webhook_age = _latest(
            "hydracore_webhook_oldest_due_seconds", "Seconds since the oldest event that is due was due.", ["webhook"]
        )
        self.lag = _worst("hydracore_event_loop_lag_seconds", "How late the event loop came, at worst in ten seconds.")
        self.plugin_calls = _counter("hydracore_plugin_calls", "Calls into plugins that ended.", plugin)
        self.plugin_failures = _counter(
            "hydracore_plugin_failures", "Calls into plugins that failed or were late.", plugin
        )
        self.plugin_seconds = _counter("hydracore_plugin_seconds", "Seconds of calls into plugins.", plugin)
        self.events = _counter("hydracore_events", "Events that were announced.", ["event"])
        self.workers = _sum("hydracore_workers", "Processes that serve.")
        self.starts = _counter("hydracore_worker_starts", "Processes that began to serve.")


class PrometheusMeters:
    """Counts for ``registry``, which has the metrics from :meth:`open` to :meth:`close`."""

    on = True

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._metrics = metrics = Metrics()
        self._outcomes = {outcome: metrics.logins.labels(outcome) for outcome in OUTCOMES}
        self._events = _Lazily[type[Event], Counter](lambda kind: metrics.events.labels(kind.__name__))
        # There from the start: what a counter has as it comes is no increase() for Prometheus.
        self._events.update({kind: metrics.events.labels(kind.__name__) for kind in _EVENTS})
        plugins = metrics.plugin_calls, metrics.plugin_failures, metrics.plugin_seconds
        self._plugins = _Lazily[tuple[str, str], list[_Follower]](
            lambda key: [_Follower(each.labels(*key)) for each in plugins]
        )
        self._hashes_refused = _Follower(metrics.hashes_refused)

    def open(self) -> None:
        """Raises :class:`StartupError` where the registry has metrics of these names."""
        registered: list[object] = []
        try:
            for metric in vars(self._metrics).values():
                self._registry.register(metric)
                registered.append(metric)
        except ValueError as error:
            for metric in registered:
                self._registry.unregister(metric)
            raise StartupError(
                "The registry that HydraCore(metrics=...) was given has HydraCore's metrics already, another one's: "
                "give each HydraCore of a process a registry of its own."
            ) from error
        self._metrics.workers.set(1)
        self._metrics.starts.inc()

    def close(self) -> None:
        for metric in vars(self._metrics).values():
            self._registry.unregister(metric)

    # -- in requests -------------------------------------------------------------------------------

    def route(self, name: str) -> Answered:
        by_class = {kind: self._metrics.requests.labels(name, f"{kind}xx") for kind in range(2, 6)}
        took = self._metrics.request_seconds.labels(name)

        def answered(status: int, seconds: float) -> None:
            by_class.get(status // 100, by_class[5]).inc()  # A plugin may have answered with what is no status.
            took.observe(seconds)

        return answered

    def operation(self, collection: str, verb: str) -> Operation:
        took = self._metrics.store_seconds.labels(collection, verb)
        failures = self._metrics.store_failures.labels(collection, verb)

        async def timed(work: Awaitable[T], /) -> T:
            started = perf_counter()
            try:
                return await work
            except StoreUnavailable:
                failures.inc()
                raise
            finally:
                took.observe(perf_counter() - started)

        return timed

    def rule(self, name: str) -> Decided:
        by_decision = {decision: self._metrics.decisions.labels(name, decision) for decision in _DECISIONS}
        return lambda decision: by_decision[decision].inc()

    def fell_back(self) -> None:
        self._metrics.fallbacks.inc()

    def hashed(self, waited: float, took: float) -> None:
        self._metrics.hash_wait.observe(waited)
        self._metrics.hash_seconds.observe(took)

    @contextmanager
    def login(self) -> Iterator[None]:
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._outcomes[outcome_of(error)].inc()

    def happened(self, event: Event) -> None:
        self._events[type(event)].inc()

    # -- beside them -------------------------------------------------------------------------------

    def report(self, state: State) -> None:
        metrics = self._metrics
        metrics.lag.set(state.load.loop_lag)
        metrics.in_flight.set(state.load.requests)
        metrics.hashes_pending.set(state.load.hashes)
        metrics.hashes_capacity.set(state.hashes)
        self._hashes_refused.follow(state.load.hashes_refused)
        for key, spent in state.spent.items():
            calls, failures, seconds = self._plugins[key]
            calls.follow(spent.calls)
            failures.follow(spent.failures)
            seconds.follow(spent.seconds)

    def outbox(self, backlog: Backlog | None) -> None:
        metrics = self._metrics
        metrics.outbox.labels("waiting").set(_UNKNOWN if backlog is None else backlog.waiting)
        metrics.outbox.labels("dead").set(_UNKNOWN if backlog is None else backlog.dead)
        metrics.outbox_age.set(_UNKNOWN if backlog is None else backlog.late)

    def webhook(self, name: str, backlog: Backlog | None) -> None:
        metrics = self._metrics
        metrics.webhooks.labels(name, "waiting").set(_UNKNOWN if backlog is None else backlog.waiting)
        metrics.webhooks.labels(name, "dead").set(_UNKNOWN if backlog is None else backlog.dead)
        metrics.webhook_age.labels(name).set(_UNKNOWN if backlog is None else backlog.late)

    def exposition(self) -> tuple[bytes, str]:
        registry = cast(CollectorRegistry, self._registry)
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:  # As the library decides: what is in memory is a part.
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # no types there
        return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


class _Follower:
    """A counter that goes after a number which is counted already."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._seen = 0.0

    def follow(self, number: float) -> None:
        if number > self._seen:
            self._counter.inc(number - self._seen)
            self._seen = number


class _Lazily(dict[Key, Made]):
    """Each made when it is first asked for."""

    def __init__(self, make: Callable[[Key], Made]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: Key) -> Made:
        made = self[key] = self._make(key)
        return made
