"""What every call shares: body, origin, caller, answer; and the one place where errors become JSON."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from json import JSONEncoder
from types import TracebackType
from typing import Any

from tornado.httputil import HTTPServerRequest
from tornado.web import Finish, HTTPError, RequestHandler, stream_request_body

from hydracore.config import Config
from hydracore.errors import (
    BadRequest,
    HeadersTooLarge,
    HydraError,
    MethodNotAllowed,
    NotAuthenticated,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    StoreUnavailable,
    Unavailable,
    UnsupportedMediaType,
)
from hydracore.fitting import check_nothing
from hydracore.flows.services import Services
from hydracore.flows.session import authenticate, log_out
from hydracore.logs import logger
from hydracore.meters import Answered
from hydracore.models import CurrentUser, Grant, Refusal
from hydracore.refusals import Refusals
from hydracore.tracing import UNANSWERED, UNTRACED, Answering, Tracer
from hydracore.validation import Schemas, parse_json
from hydracore.web.access import AsksWho, Door, always_public, door_of, public
from hydracore.web.client import Proxies, check_origin, languages
from hydracore.web.cookies import Cookies
from hydracore.web.described import description_of

log = logger("hydracore.web")
_OF_REQUESTS = logging.getLogger("hydracore.web")

# A body that is too large is read to its end and thrown away, so that the client gets to read the 413; past
# this it is cut off.
_MAX_DISCARDED = 16 * 1024 * 1024
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TRACE = ("traceparent", "tracestate")
_EXPLAINED = (401, 403, 409, 429, 503)
_JSON = JSONEncoder(allow_nan=False)
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

BEARER = 'Bearer realm="hydracore"'
BASIC = 'Basic realm="hydracore", charset="UTF-8"'


@dataclass(frozen=True)
class Web:
    """What endpoints work with; under ``settings["hydracore_web"]`` of the nested application."""

    services: Services
    schemas: Schemas
    proxies: Proxies
    cookies: Cookies
    origins: tuple[str, ...]
    """Those whose pages may send what changes something, our own first."""
    allowed_origins: tuple[str, ...]
    """Those whose pages may read answers (CORS)."""
    not_ready: Callable[[], Awaitable[str]]
    refusals: Refusals
    headers: Mapping[str, str]
    """Those that every answer has."""
    exposition: Callable[[], Awaitable[tuple[bytes, str]]]
    """What was measured, as a monitoring system reads it, and its media type."""
    tracer: Tracer = UNTRACED
    plugins: "tuple[tuple[type[Endpoint], Origin], ...]" = ()
    receiving: set["Endpoint"] = field(default_factory=set)
    """Requests whose head is there, and whose body is on its way."""
    in_flight: set["Endpoint"] = field(default_factory=set)
    """Those that are whole and are being answered: as many as ``server.max_requests``."""

    def request_id(self, request: HTTPServerRequest) -> str:
        """A trusted proxy's, or a new one of ours."""
        given = request.headers.get("X-Request-Id", "")
        believed = _REQUEST_ID.fullmatch(given) and self.proxies.trusts(request.remote_ip or "")
        return given if believed else self.services.token(12)

    def trace_of(self, request: HTTPServerRequest) -> Mapping[str, str]:
        """Anyone may send a traceparent (W3C Trace Context): a trusted proxy's is believed."""
        headers = request.headers if self.proxies.trusts(request.remote_ip or "") else {}
        return {name: headers[name] for name in _TRACE if name in headers}

    def note(self, request: HTTPServerRequest, request_id: str, error: HydraError) -> None:
        """Leave to the operator why (``hydracore explain``): the client gets the same sentence for many reasons."""
        if error.status not in _EXPLAINED and not error.why:
            return
        refusal = Refusal(
            id=self.services.token(12),
            request_id=request_id,
            at=self.services.now(),
            call=f"{request.method} {request.path[:200]}",
            status=error.status,
            code=error.code,
            network=self.proxies.network(request),
            why=_reasons(error),
        )
        self.refusals.note(refusal)


def headers_of(settings: Config) -> Mapping[str, str]:
    """The headers that every answer has."""
    always = {
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; base-uri 'none'; frame-ancestors 'none'",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "Vary": "Origin",
    }
    if settings.base_url.startswith("https://"):
        always["Strict-Transport-Security"] = "max-age=31536000"
    return always


@dataclass(frozen=True)
class Origin:
    """Where a plugin's endpoint comes from."""

    name: str
    plugin: object
    path: str
    schemas: Schemas


def bearer_token(request: HTTPServerRequest) -> str:
    """The token of an ``Authorization: Bearer`` header (RFC 6750, section 2.1); "" for none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


async def current_user(
    web: Web, request: HTTPServerRequest, *, allow_unverified: bool = False, roles: Sequence[str] = ()
) -> CurrentUser:
    """Who makes the request, by bearer token or by cookie. A request that changes something and
    comes with a cookie must come from our own pages.

    Raises :class:`NotAuthenticated`, :class:`EmailNotVerified`, :class:`RoleRequired` for who has none of ``roles``,
    :class:`CrossOriginRefused`.
    """
    token = bearer_token(request)
    if not token:
        token = web.cookies.access_token(request.cookies)
        if token:
            check_origin(request, web.origins)
    if not token:
        raise NotAuthenticated().because("no access token came")
    return await authenticate(web.services, token, allow_unverified=allow_unverified, roles=roles)


def _checked_status(status: Any) -> int:
    """One that ends a request. Raises ``ValueError`` for what is none."""
    if not isinstance(status, int) or not 200 <= status < 600:
        raise ValueError(f"{status!r} is no status of an answer: 200 to 599")
    return status


def _head_size(request: HTTPServerRequest) -> int:
    lines = sum(len(name) + len(value) + 4 for name, value in request.headers.get_all())
    return lines + len(request.method or "") + len(request.uri or "")


def _reasons(error: HydraError) -> Mapping[str, Any]:
    """What the operator may be told of it."""
    if error.why or error.__cause__ is None:
        return error.why
    return {"cause": type(error.__cause__).__name__}


def warn_of(error: HydraError, request_id: str) -> None:
    """Say in the log that something could not be answered for now."""
    log.warning("unavailable", request_id=request_id, code=error.code, **_reasons(error))


async def _in_time(deadline: float, work: Callable[[], Awaitable[None]]) -> None:
    """Do ``work``. Raises :class:`Unavailable` where the loop's clock passes ``deadline`` meanwhile."""
    try:
        async with asyncio.timeout_at(deadline) as limit:
            await work()
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise Unavailable().because("not done within server.request_timeout") from error


@stream_request_body
class Endpoint(AsksWho, RequestHandler):
    """One call: its methods are coroutine functions named after HTTP's.

    Whom it answers is said by ``public``, ``unverified``, ``verified`` or ``require_role``; silence means verified, and
    stops the start.
    In a method there are ``self.caller`` (a :class:`CurrentUser`), ``self.network``, ``self.body(schema)`` and
    ``self.reply(value, status)``; a ``HydraError`` that it raises is answered as such. ``self.plugin`` is the plugin
    that registered it. All else that it has is HydraCore's own, and stops the start in a plugin's endpoint; ``always``
    says that it is answered however many requests there are.
    """

    challenge = BEARER
    always = False
    caller: CurrentUser
    plugin: Any = None
    _of: "Origin | None" = None
    _answered: Answered
    _traced: Answering = UNANSWERED

    # -- before the call ---------------------------------------------------------------------

    def initialize(self, answered: Answered, route: str, of: "Origin | None" = None) -> None:
        self._answered = answered
        self._route = route
        if of is not None:
            self._of, self.plugin = of, of.plugin

    def set_default_headers(self) -> None:
        self.web: Web = self.application.settings["hydracore_web"]
        self._chunks: list[bytes] = []
        self._received = 0
        self.clear_header("Server")
        self.set_header("X-Request-Id", self.request_id)
        for name, value in self.web.headers.items():
            self.set_header(name, value)
        self._allow_origin()

    @property
    def request_id(self) -> str:
        """A trusted proxy's, or ours."""
        if not hasattr(self, "_request_id"):
            self._request_id = self.web.request_id(self.request)
        return self._request_id

    @cached_property
    def network(self) -> str:
        """The client's network, as limits and events know it."""
        return self.web.proxies.network(self.request)

    @property
    def language(self) -> str:
        """What the client would like to read: the tags of its Accept-Language, the best first, parted by commas."""
        return languages(self.request.headers.get("Accept-Language", ""))

    def prepare(self) -> None:
        self.web.receiving.add(self)
        if self._implements(self.request.method or ""):
            trace = partial(self.web.trace_of, self.request)
            self._traced = self.web.tracer.request(self.request.method or "", self._route, trace, self.request_id)
            self._guard(self._of)
        else:
            # That comes before 401 and 403. Not left to Tornado, which calls whatever the method is named after.
            self._refuse(MethodNotAllowed(self.allowed()))

    def _begin(self) -> None:
        """The request is whole, and counts from now on: bodies that never end must not keep others out.

        Raises :class:`Overloaded`, :class:`HeadersTooLarge`.
        """
        web, server = self.web, self.web.services.settings.server
        self._deadline = asyncio.get_running_loop().time() + server.request_timeout
        web.receiving.discard(self)
        web.in_flight.add(self)
        if len(web.in_flight) > server.max_requests and not self.always:
            raise Overloaded().because("server.max_requests are in flight")
        if _head_size(self.request) > server.max_header:
            raise HeadersTooLarge(server.max_header)

    async def _admit(self) -> None:
        check_origin(self.request, self.web.origins)
        door = door_of(type(self), self.request.method or "") or Door("verified")
        if door.access != "public":
            unverified = door.access == "unverified"
            self.caller = await current_user(self.web, self.request, allow_unverified=unverified, roles=door.roles)

    def _guard(self, of: "Origin | None") -> None:
        """Let the method begin, in its time, for those whom it answers; put a plugin's failures down to the plugin."""
        name = (self.request.method or "").lower()
        method = getattr(self, name)

        async def guarded(*args: str, **kwargs: str) -> None:
            self._begin()
            work = partial(method, *args, **kwargs)
            await _in_time(self._deadline, partial(self._answer, of, work))

        setattr(self, name, guarded)

    async def _answer(self, of: "Origin | None", work: Callable[[], Awaitable[Any]]) -> None:
        await self._admit()
        if of is None:
            await work()
        else:
            call, work = self.web.services.registry.calls.call, partial(self._complete, work)
            await call(of.name, f"route {of.path}", work, passing=(HTTPError,), otherwise=HydraError)

    async def _complete(self, work: Callable[[], Awaitable[Any]]) -> None:
        """A plugin's method with the end of its answer: what cannot be sent is the plugin's failure too."""
        rest: tuple[Any, ...] = ()
        try:
            answer = await work()
            if not self._finished:
                check_nothing("a method", answer, "answers by self.reply")
        except Finish as end:
            rest = end.args
        except HTTPError as error:
            if _checked_status(error.status_code) >= 500:
                raise RuntimeError("a plugin has no 500 of its own") from error
            raise
        if not self._finished:
            _checked_status(self.get_status())
            self.finish(*rest)

    def _refuse(self, error: HydraError) -> None:
        """Answer with ``error`` once the body has been read: an answer before that would close the
        connection under a client that is still sending."""

        def refuse(*args: str, **kwargs: str) -> None:
            raise error

        setattr(self, (self.request.method or "").lower(), refuse)

    def data_received(self, chunk: bytes) -> None:
        most = self.web.services.settings.server.max_body
        self._received += len(chunk)
        if self._received <= most:
            self._chunks.append(chunk)
        elif self._received <= most + _MAX_DISCARDED:
            self._chunks.clear()
            self._refuse(PayloadTooLarge(most))
        elif not self._finished:
            self._answer_error(PayloadTooLarge(most))
            self.finish()

    # -- in the call -------------------------------------------------------------------------

    def body(self, schema: str = "") -> Mapping[str, Any]:
        """The JSON body, held against ``schemas/<schema>.json`` (a plugin's own), with its defaults and without what it
        does not know; without a name, against the one that the method's description says it takes. Raises
        :class:`UnsupportedMediaType`, :class:`ValidationFailed`."""
        if not schema and (said := description_of(type(self), self.request.method or "")) is not None:
            schema = said.takes
        schemas = self._of.schemas if self._of is not None else self.web.schemas
        return schemas.check(schema, self.json())

    def json(self) -> Any:
        """The JSON body as it came, strictly read. Raises as :meth:`body` does."""
        media_type = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise UnsupportedMediaType
        return parse_json(b"".join(self._chunks))

    def reply(self, value: Mapping[str, Any], status: int = 200) -> None:
        """Answer with ``value`` as JSON; {} where the status is one without a body (204). Raises ``ValueError`` or
        ``TypeError`` for what is no JSON, and for a status that ends no request."""
        self.set_status(_checked_status(status))
        if not value and self._should_not_send_content(status):
            return
        # As Tornado writes JSON, but for NaN and its like, which are none.
        self.set_header("Content-Type", "application/json; charset=UTF-8")
        self.write(_JSON.encode(dict(value)).replace("</", "<\\/"))

    def sign_in(self, grant: Grant, status: int = 200) -> None:
        """Answer a grant to a client that may be a browser: cookies, and the tokens in the body
        unless ``cookies.tokens_in_body`` is off."""
        self.web.cookies.set(self, grant)
        public = grant.public()
        if not self.web.services.settings.cookies.tokens_in_body:
            public = {key: value for key, value in public.items() if key not in ("access_token", "refresh_token")}
        self.reply(public, status)

    async def leave_session(self) -> None:
        """End the session that came along: whoever signs in anew has no use for it (ASVS 5.0, 7.2.4)."""
        cookies, jar = self.web.cookies, self.request.cookies
        refresh_tokens = [token for token in (cookies.refresh_token(jar),) if token]
        access_token = bearer_token(self.request) or cookies.access_token(jar)
        with suppress(StoreUnavailable):  # They are signed in: it runs out by itself.
            await log_out(self.web.services, refresh_tokens, access_token, self.network)

    @always_public
    async def options(self, *args: str, **kwargs: str) -> None:
        self.set_status(204)
        self.set_header("Allow", ", ".join(self.allowed()))

    # -- after the call ------------------------------------------------------------------------

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        cause = kwargs["exc_info"][1] if "exc_info" in kwargs else None
        self._answer_error(self._as_error(cause, status_code))
        self.finish()

    def _answer_error(self, error: HydraError) -> None:
        self.error_code = error.code
        self.web.note(self.request, self.request_id, error)
        self.set_status(error.status)
        for name, value in error.headers().items():
            self.set_header(name, value)
        if error.status == 401:
            self.set_header("WWW-Authenticate", self.challenge)
        self.write(error.public())

    def _as_error(self, cause: BaseException | None, status: int) -> HydraError:
        if isinstance(cause, HydraError):
            return cause
        if isinstance(cause, HTTPError):
            status = cause.status_code
        if status == 404:
            return NotFound()
        if status == 405:
            return MethodNotAllowed(self.allowed())
        return BadRequest() if 400 <= status < 500 else HydraError()

    def log_exception(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        error = self._as_error(value, 500)
        if error.status < 500:
            return
        if isinstance(value, HydraError):
            warn_of(value, self.request_id)
        else:
            log.error("request failed", request_id=self.request_id, exc_info=value)

    def on_finish(self) -> None:
        self.web.receiving.discard(self)
        self.web.in_flight.discard(self)

    def on_connection_close(self) -> None:
        self._traced.end(0)
        self.on_finish()
        super().on_connection_close()  # Or who waits for the body would wait for ever.

    def compute_etag(self) -> None:
        return None

    def check_etag_header(self) -> bool:
        # Tornado looks through an empty header too, at the end of every GET.
        return "If-None-Match" in self.request.headers and super().check_etag_header()

    # -- what it is ------------------------------------------------------------------------------

    @classmethod
    def allowed(cls) -> list[str]:
        """The HTTP methods that it has."""
        return [method for method in _METHODS if cls._implements(method)]

    @classmethod
    def _implements(cls, method: str) -> bool:
        name = method.lower()
        return method in _METHODS and getattr(cls, name) is not getattr(RequestHandler, name)

    def _allow_origin(self) -> None:
        """CORS for the configured origins, and for them alone."""
        origin = self.request.headers.get("Origin", "").lower()
        if origin in self.web.allowed_origins:
            self.set_header("Access-Control-Allow-Origin", origin)
            self.set_header("Access-Control-Allow-Credentials", "true")
            self.set_header("Access-Control-Allow-Headers", "Authorization, Content-Type")
            self.set_header("Access-Control-Allow-Methods", ", ".join(self.allowed()))
            self.set_header("Access-Control-Expose-Headers", "Retry-After, X-Request-Id")


@public
class NothingHere(Endpoint):
    """Paths that lead nowhere."""

    async def _nothing(self, *args: str, **kwargs: str) -> None:
        raise NotFound

    get = head = post = put = patch = delete = options = _nothing


def finished(handler: RequestHandler) -> None:
    """What is done when an answer is on its way."""
    if isinstance(handler, Endpoint):
        handler._answered(handler.get_status(), handler.request.request_time())
        handler._traced.end(handler.get_status(), getattr(handler, "error_code", ""))
    log_request(handler)


def log_request(handler: RequestHandler) -> None:
    """One line a request: no query, no header, no body."""
    if not _OF_REQUESTS.isEnabledFor(logging.INFO):
        return  # Nothing is put together that nobody reads.
    request = handler.request
    fields: dict[str, Any] = {
        "method": request.method,
        "path": request.path[:200],
        "status": handler.get_status(),
        "ms": round(request.request_time() * 1000, 1),
    }
    if isinstance(handler, Endpoint):
        fields |= {"request_id": handler.request_id, "client": handler.network}
        if code := getattr(handler, "error_code", ""):
            fields["code"] = code
    log.info("request", **fields)
