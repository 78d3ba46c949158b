"""Spans by OpenTelemetry.

A request is a span, and what it waits for are its children: operations on the database, and hashes. An operation that
several share is the child of the one that asked first. A mail that is sent is a span, too. Names and attributes are the
code's: routes, collections, codes of errors. Nothing that a client says or a document has is among them, nor the words
of an exception. docs/operations.md lists them.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version
from threading import Thread
from time import time_ns
from typing import Any, TypeVar, cast

from opentelemetry import context
from opentelemetry import trace as api
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from hydracore.errors import HydraError, StartupError
from hydracore.logs import logger
from hydracore.meters import Meters, Operation
from hydracore.tracing import Answering, Trace

log = logger("hydracore.tracing")

T = TypeVar("T")

_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
_LAST = 3.0
_W3C = TraceContextTextMapPropagator()


class SpanTracer:
    """Spans for ``provider``; where they go, and how many, is its business."""

    def __init__(self, provider: api.TracerProvider) -> None:
        self._tracer = provider.get_tracer("hydracore", version("hydracore"))

    def request(self, method: str, route: str, trace: Trace, request_id: str) -> Answering:
        about = {"http.request.method": method, "http.route": route, "hydracore.request_id": request_id}
        span = self._tracer.start_span(
            f"{method} {route}", _W3C.extract(trace(), context.get_current()), SpanKind.SERVER, about
        )
        # Not detached: the task that answers the request ends with it.
        context.attach(api.set_span_in_context(span))
        return _Request(span)

    @contextmanager
    def work(self, name: str, about: Mapping[str, str]) -> Iterator[None]:
        with self._within(name, SpanKind.CONSUMER, about, context.Context()):
            yield

    def meters(self, meters: Meters) -> Meters:
        return cast(Meters, _Traced(meters, self))

    def operation(self, collection: str, verb: str, operation: Operation) -> Operation:
        about = {"db.system.name": "mongodb", "db.operation.name": verb, "db.collection.name": collection}

        async def traced(work: Awaitable[T], /) -> T:
            # What nobody waits for, as a look whether there is mail, is no news.
            if not api.get_current_span().is_recording():
                return await operation(work)
            with self._within(f"{verb} {collection}", SpanKind.CLIENT, about):
                return await operation(work)

        return traced

    def hashed(self, waited: float, took: float) -> None:
        if not api.get_current_span().is_recording():
            return
        end = time_ns()
        about = {"hydracore.waited": waited}
        self._tracer.start_span("hash", attributes=about, start_time=end - int((waited + took) * 1e9)).end(end)

    @contextmanager
    def _within(
        self, name: str, kind: SpanKind, about: Mapping[str, str], parent: context.Context | None = None
    ) -> Iterator[None]:
        # An exception's words may be anyone's: what it is is told, and not what it says.
        with self._tracer.start_as_current_span(
            name, parent, kind, about, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            except HydraError as error:
                if error.status >= 500:
                    _failed(span, error.code)
                raise
            except Exception as error:
                _failed(span, type(error).__name__)
                raise


def _failed(span: Span, what: str) -> None:
    span.set_attribute("error.type", what)
    span.set_status(StatusCode.ERROR)


class _Request:
    def __init__(self, span: Span) -> None:
        self._span = span

    def end(self, status: int, code: str = "") -> None:
        if not self._span.is_recording():
            return
        if status:
            self._span.set_attribute("http.response.status_code", status)
        if status >= 500:
            _failed(self._span, code or str(status))
        elif code or not status:
            self._span.set_attribute("error.type", code or "client_gone")
        self._span.end()


class _Traced:
    """Meters, and a tracer that hears of some of what they are told."""

    def __init__(self, meters: Meters, tracer: SpanTracer) -> None:
        self._meters = meters
        self._tracer = tracer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._meters, name)

    def operation(self, collection: str, verb: str) -> Operation:
        return self._tracer.operation(collection, verb, self._meters.operation(collection, verb))

    def hashed(self, waited: float, took: float) -> None:
        self._meters.hashed(waited, took)
        self._tracer.hashed(waited, took)


# -- where they go ---------------------------------------------------------------------------------


def check_environment(environment: Mapping[str, str]) -> None:
    """Raises :class:`StartupError` for a protocol that is not spoken; OpenTelemetry would speak another."""
    for name in _PROTOCOLS:
        if environment.get(name, _PROTOCOL) != _PROTOCOL:
            raise StartupError(f"{name} is {environment[name]!r}: spans go by {_PROTOCOL} alone.")


@asynccontextmanager
async def exporting() -> AsyncIterator[TracerProvider]:
    """A provider whose spans go by OTLP to where the variables of OpenTelemetry (OTEL_...) say. It has a thread, so
    fork before."""
    said = OTELResourceDetector().detect().attributes
    about = {"service.name": "hydracore", "service.version": version("hydracore"), **said}
    provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    try:
        yield provider
    finally:
        # A daemon: a receiver that is away holds up no end.
        ending = Thread(target=provider.shutdown, name="hydracore-last-spans", daemon=True)
        ending.start()
        loop = asyncio.get_running_loop()
        ends = loop.time() + _LAST
        while ending.is_alive() and loop.time() < ends:  # noqa: ASYNC110  # threads set no event of the loop's
            await asyncio.sleep(0.01)
        if ending.is_alive():
            log.warning("the last spans are lost: nobody takes them", pid=os.getpid())
