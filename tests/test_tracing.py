"""Spans of requests, and where they go."""

import asyncio
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from processes import StartServer, own
from support import PASSWORD, OpenSite, Site, refused, tokens

from hydracore import spans
from hydracore.config import load
from hydracore.errors import StartupError
from hydracore.server import tracing_of
from hydracore.tracing import UNTRACED

EMAIL = "ada@example.com"
RIGHT = {"email": EMAIL, "password": PASSWORD}
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
BEHIND = {"server": {"trusted_proxies": ["127.0.0.1"]}}


class Kept(InMemorySpanExporter):
    def of(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.get_finished_spans() if span.name == name]

    async def wait(self, name: str) -> list[ReadableSpan]:
        while not (found := self.of(name)):  # noqa: ASYNC110  # exporters set no events
            await asyncio.sleep(0.01)
        return found

    def within(self, parent: ReadableSpan) -> list[ReadableSpan]:
        return [
            span for span in self.get_finished_spans() if span.parent and span.parent.span_id == parent.context.span_id
        ]


async def traced(open_site: OpenSite, **settings: Any) -> tuple[Site, Kept, TracerProvider]:
    kept, provider = Kept(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    return await open_site(tracer_provider=provider, **settings), kept, provider


async def test_a_sign_in(open_site: OpenSite) -> None:
    """A request is a span, by the table's row; what it waits for are its children: the database, by collection and
    verb, and the hash. The next request on the same connection is another trace."""
    site, kept, _ = await traced(open_site)
    await site.register()
    kept.clear()
    for _ in range(2):
        answer = await site.post("login", RIGHT)
        tokens(answer)
    first, second = kept.of("POST /auth/login")
    assert first.parent is second.parent is None
    assert first.context.trace_id != second.context.trace_id
    assert second.kind is SpanKind.SERVER
    assert dict(second.attributes) == {
        "http.request.method": "POST",
        "http.route": "/auth/login",
        "http.response.status_code": 200,
        "hydracore.request_id": answer.headers["X-Request-Id"],
    }
    children = {span.name: span for span in kept.within(second)}
    assert {"hash", "find_one users", "insert_one sessions"} <= set(children)
    about = {"db.system.name": "mongodb", "db.operation.name": "insert_one", "db.collection.name": "sessions"}
    assert dict(children["insert_one sessions"].attributes) == about
    assert children["insert_one sessions"].kind is SpanKind.CLIENT
    for child in children.values():
        assert child.context.trace_id == second.context.trace_id
        assert second.start_time <= child.start_time <= child.end_time <= second.end_time


async def test_mail(open_site: OpenSite) -> None:
    """A mail that is sent is a trace of its own, with its kind, and the database below it; one that is not fails."""
    site, kept, _ = await traced(open_site)
    await site.register()
    await site.box.code(EMAIL)
    [mail] = await kept.wait("mail")
    assert (mail.parent, mail.status.status_code) == (None, StatusCode.UNSET)
    assert dict(mail.attributes) == {"hydracore.mail.kind": "verify_email", "hydracore.mail.transport": "box"}
    assert "find_one users" in {span.name for span in kept.within(mail)}


async def test_mail_that_fails(open_site: OpenSite, expected_logs: list[str]) -> None:
    """A mail that cannot be sent is a span that failed, with the name of the error, and not its words."""
    expected_logs.append("mail deferred")
    site, kept, _ = await traced(open_site)
    site.box.failure = ConnectionError(f"no such mailbox: {EMAIL}")
    await site.register()
    mail, *_ = await kept.wait("mail")
    assert (mail.status.status_code, mail.attributes["error.type"]) == (StatusCode.ERROR, "ConnectionError")
    assert EMAIL not in mail.to_json()


async def test_nothing_of_anybody(open_site: OpenSite) -> None:
    """No address, password, token, account, session or network is in any span, nor what a client makes up."""
    site, kept, _ = await traced(open_site, **BEHIND)
    grant = await site.verified()
    made_up = {"User_Agent": "Tracker/1.0", "X_Forwarded_For": "203.0.113.9", "baggage": "user=lovelace"}
    me = await site.ask("GET", "/auth/me?email=lovelace", Authorization=f"Bearer {grant['access_token']}", **made_up)
    assert me.code == 200
    refused(await site.post("login", {**RIGHT, "password": "guessed wrong"}), 401, "invalid_credentials")
    await site.ask("GET", "/auth/secret-path", **made_up)
    user = await site.hydra.services.store.users.by_address(EMAIL)
    assert user
    text = "".join(span.to_json() for span in kept.get_finished_spans())
    sessions = await site.hydra.services.store.sessions.of_user(user.id, user.epoch, site.clock(), 10)
    secrets = (user.id, PASSWORD, "guessed wrong", "203.0.113.9", "127.0.0.1", "Tracker", "lovelace", "ada@", "secret-")
    for secret in (*secrets, *(each.id for each in sessions), grant["access_token"], grant["refresh_token"]):
        assert secret not in text


async def test_whose_trace_it_is(open_site: OpenSite) -> None:
    """A trusted proxy's traceparent is gone on with, whether it says to record or not; a stranger's and a broken one
    are not."""
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1"}
    site, kept, _ = await traced(open_site, **BEHIND)
    await site.ask("GET", "/health/live", **headers)
    [span] = kept.of("GET /health/live")
    assert f"{span.context.trace_id:032x}" == TRACE
    assert span.parent
    assert f"{span.parent.span_id:016x}" == SPAN
    kept.clear()
    await site.ask("GET", "/health/live", traceparent=f"00-{TRACE}-{SPAN}-00")
    assert kept.get_finished_spans() == ()
    for broken in ("00-", f"00-{TRACE}", f"00-{'0' * 32}-{SPAN}-01", f"ff-{TRACE}-{SPAN}-01", "\xe4" * 60):
        await site.ask("GET", "/health/live", traceparent=broken)
    assert [span.parent for span in kept.of("GET /health/live")] == [None] * 5
    stranger, kept, _ = await traced(open_site)
    await stranger.ask("GET", "/health/live", **headers)
    [span] = kept.of("GET /health/live")
    assert span.parent is None


async def test_what_is_refused(open_site: OpenSite, expected_logs: list[str]) -> None:
    """A refusal has its code, a failure of the server is one of the span too, and who does not wait is told apart."""
    site, kept, _ = await traced(open_site)
    refused(await site.post("login", {**RIGHT, "password": "guessed wrong"}), 401, "invalid_credentials")
    [span] = kept.of("POST /auth/login")
    assert (span.attributes["error.type"], span.status.status_code) == ("invalid_credentials", StatusCode.UNSET)
    refused(await site.ask("GET", "/auth/nowhere"), 404, "not_found")
    assert kept.of("GET none")[0].attributes["http.response.status_code"] == 404
    kept.clear()
    _, writer = await asyncio.open_connection(*site.url.removeprefix("http://").split(":"))
    writer.write(
        b"POST /auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
    )
    await writer.drain()
    while not site.hydra._web.receiving:  # noqa: ASYNC110  # the server tells nobody
        await asyncio.sleep(0.01)
    writer.close()
    [gone] = await kept.wait("POST /auth/login")
    assert gone.attributes["error.type"] == "client_gone"
    assert "http.response.status_code" not in gone.attributes
    expected_logs += ["unavailable", "store"]
    kept.clear()
    await site.hydra._store.close()
    assert (await site.post("login", RIGHT)).code == 503
    [span] = kept.of("POST /auth/login")
    assert (span.attributes["error.type"], span.status.status_code) == ("store_unavailable", StatusCode.ERROR)
    assert {each.status.status_code for each in kept.within(span) if each.name.endswith(" users")} == {StatusCode.ERROR}


async def test_in_a_host_that_traces(open_site: OpenSite) -> None:
    """What a host's handler asks for is below the host's own span."""
    site, kept, provider = await traced(open_site)
    grant = await site.verified()
    kept.clear()
    request: Any = type("Request", (), {"headers": {"Authorization": f"Bearer {grant['access_token']}"}, "cookies": {}})
    with provider.get_tracer("host").start_as_current_span("page"):
        await site.hydra.authenticate(request)
    [page] = kept.of("page")
    assert {span.name for span in kept.within(page)} == {"aggregate sessions"}


async def test_nobody_traces(site: Site) -> None:
    """Without a provider nothing stands between a request and the database."""
    assert site.hydra._tracer is UNTRACED
    assert site.hydra._meters is UNTRACED.meters(site.hydra._meters)
    assert site.hydra._web.tracer is UNTRACED


# -- where they go -------------------------------------------------------------------------------------


class Receiver(BaseHTTPRequestHandler):
    """Takes what comes by OTLP."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, self.headers, ExportTraceServiceRequest.FromString(body)))  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *words: object) -> None:
        """Nothing is said of it."""


@pytest.fixture
def receiver() -> Iterator[Any]:
    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        server.got = []  # type: ignore[attr-defined]
        taking = threading.Thread(target=server.serve_forever, args=[0.01])
        taking.start()
        yield server
        server.shutdown()
        taking.join()


async def test_by_otlp(receiver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans go to where OpenTelemetry's own variables say, under the name that they give, and the last ones before the
    end."""
    config = load(environment={}, overrides={"tracing": {"enabled": True}})
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{receiver.server_port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=ids")
    for named in ("hydracore", "sign-in"):
        receiver.got.clear()
        async with tracing_of(config, {})() as provider:
            provider.get_tracer("test").start_span("a request").end()
        [(path, headers, sent)] = receiver.got
        assert (path, headers["x-team"]) == ("/v1/traces", "ids")
        [resource] = sent.resource_spans
        about = {each.key: each.value.string_value for each in resource.resource.attributes}
        assert about["service.name"] == named
        assert [span.name for scope in resource.scope_spans for span in scope.spans] == ["a request"]
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=sign-in")


async def test_nobody_takes_them(monkeypatch: pytest.MonkeyPatch, expected_logs: list[str]) -> None:
    """A receiver that takes a connection and says nothing holds up the end for a moment only."""
    expected_logs.append("the last spans are lost")
    monkeypatch.setattr(spans, "_LAST", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        loop = asyncio.get_running_loop()
        async with spans.exporting() as provider:
            provider.get_tracer("test").start_span("a request").end()
            began = loop.time()
        assert loop.time() - began < 10
        for thread in threading.enumerate():
            if thread.name == "hydracore-last-spans":
                silent.close()
                await loop.run_in_executor(None, thread.join)
    expected_logs.append("opentelemetry")


def test_of_a_server(start: StartServer, mongod_uri: str, receiver: Any) -> None:
    """hydracore serve sends the spans of its workers, the last ones when it is stopped."""
    told = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{receiver.server_port}"}
    server = start(**own(mongod_uri, "traced", HYDRACORE_TRACING__ENABLED="true", **told))
    server.register()
    assert server.stop() == 0
    sent = [
        span.name
        for _, _, batch in receiver.got
        for resource in batch.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert {"POST /auth/register", "hash", "insert_one users"} <= set(sent)


def test_what_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A protocol that is not spoken, and a library that is missing, are told before anything starts."""
    config = load(environment={}, overrides={"tracing": {"enabled": True}})
    with pytest.raises(
        StartupError, match=r"^OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc': spans go by http/protobuf alone\."
    ):
        tracing_of(config, {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    monkeypatch.setitem(sys.modules, "hydracore.spans", None)
    with pytest.raises(StartupError, match=r'pip install "hydracore\[tracing\]"'):
        tracing_of(config, {})
    assert load(environment={}).tracing.enabled is False
