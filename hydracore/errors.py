"""Every error that leaves HydraCore, for clients and for operators.

HydraError                      status  code
├── ValidationFailed             422    validation_failed
├── BadRequest                   400    bad_request
├── InvalidCode                  400    invalid_code
├── InvalidToken                 400    invalid_token
├── InvalidCursor                400    invalid_cursor
├── NotAuthenticated             401    not_authenticated
│   ├── InvalidAdminToken        401    invalid_admin_token
│   ├── InvalidCredentials       401    invalid_credentials
│   └── InvalidRefreshToken      401    invalid_refresh_token
├── Forbidden                    403    forbidden
│   ├── MissingScope             403    missing_scope
│   ├── EmailNotVerified         403    email_not_verified
│   ├── RoleRequired             403    role_required
│   ├── CrossOriginRefused       403    cross_origin
│   ├── RegistrationRefused      403    registration_refused
│   ├── LoginRefused             403    login_refused
│   ├── TokenRefused             403    token_refused
│   ├── ResetRefused             403    reset_refused
│   ├── ChangeRefused            403    change_refused
│   ├── InvalidPassword          403    invalid_password
│   └── PasswordElsewhere        403    password_elsewhere
├── NotFound                     404    not_found
├── MethodNotAllowed             405    method_not_allowed
├── EmailTaken                   409    email_taken
├── PayloadTooLarge              413    payload_too_large
├── UnsupportedMediaType         415    unsupported_media_type
├── TooManyRequests              429    too_many_requests
├── HeadersTooLarge              431    headers_too_large
└── Unavailable                  503    unavailable
    ├── StoreUnavailable         503    store_unavailable
    ├── Overloaded               503    overloaded
    │   └── HashingOverloaded    503    overloaded
    ├── KeysUnavailable          503    keys_unavailable
    └── NotReady                 503    not_ready

PasswordRefused     a policy's verdict; the flow that asked turns it into ValidationFailed
MailFailed          a transport could not hand a message over
├── MailDeferred    it may work later
└── MailRefused     it never will
StartupError        for the operator: one message, before anything runs; exit code 2
├── ConfigError         it is the configuration's
└── PluginError         it is a plugin's; ``plugin`` is its name

``detail`` is public. Causes travel as ``__cause__`` and stay in the process.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Self


class HydraError(Exception):
    """A refusal that a client may read: a status, a machine's name, a public sentence."""

    status = 500
    code = "internal_error"
    detail = "Something went wrong on our side."
    why: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, detail: str | None = None) -> None:
        if detail is not None:
            self.detail = detail
        super().__init__(self.detail)

    def because(self, reason: str = "", /, **facts: Any) -> Self:
        """Itself, with what the operator may be told of it (``hydracore explain``) and no client. No secrets."""
        self.why = {**self.why, **({"reason": reason} if reason else {}), **facts}
        return self

    def public(self) -> dict[str, Any]:
        """The JSON body."""
        return {"detail": self.detail, "code": self.code}

    def headers(self) -> Mapping[str, str]:
        """Headers that belong to this answer."""
        return {}


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a request: where, in words, and by its machine's name."""

    loc: tuple[str | int, ...]
    msg: str
    type: str


class ValidationFailed(HydraError):
    status = 422
    code = "validation_failed"
    detail = "The request is not valid."

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__()
        self.problems = tuple(problems)

    def public(self) -> dict[str, Any]:
        return {"detail": [asdict(problem) for problem in self.problems], "code": self.code}


class BadRequest(HydraError):
    """What the HTTP layer refuses before any endpoint sees it."""

    status = 400
    code = "bad_request"
    detail = "This is not a request that we understand."


class InvalidCode(HydraError):
    status = 400
    code = "invalid_code"
    detail = "The code is wrong or has expired."


class InvalidToken(HydraError):
    status = 400
    code = "invalid_token"
    detail = "The token is wrong, has expired or was used before."


class InvalidCursor(HydraError):
    """A page's ``next`` is good for the list and the filter that it came with, and as it came."""

    status = 400
    code = "invalid_cursor"
    detail = "The cursor is none that this list has given for this filter: begin without one."


class NotAuthenticated(HydraError):
    """Nobody that we know makes this request: no token, or none that is good."""

    status = 401
    code = "not_authenticated"
    detail = "Sign in first."


class InvalidAdminToken(NotAuthenticated):
    """Wrong, expired and revoked are one answer: ``hydracore explain`` tells them apart."""

    code = "invalid_admin_token"
    detail = "This takes an admin token that is good: hydracore admin tokens create makes one."


class InvalidCredentials(NotAuthenticated):
    code = "invalid_credentials"
    detail = "The e-mail address or the password is wrong."


class InvalidRefreshToken(NotAuthenticated):
    code = "invalid_refresh_token"
    detail = "The refresh token is wrong, has expired or was ended."


class Forbidden(HydraError):
    status = 403
    code = "forbidden"
    detail = "This is not allowed."


class MissingScope(Forbidden):
    """Carries the scope that the token lacks (RFC 6750, section 3.1)."""

    code = "missing_scope"
    detail = "The token lacks the scope that this takes."

    def __init__(self, scope: str) -> None:
        super().__init__(f"The token lacks the scope {scope}, which this takes.")
        self.scope = scope

    def headers(self) -> Mapping[str, str]:
        asked = f'Bearer realm="hydracore-admin", error="insufficient_scope", scope="{self.scope}"'
        return {"WWW-Authenticate": asked}


class EmailNotVerified(Forbidden):
    """Their token says that the address is not proven yet (``evf`` is false)."""

    code = "email_not_verified"
    detail = "Verify your e-mail address first."


class RoleRequired(Forbidden):
    """The account has none of the roles that this is for."""

    code = "role_required"
    detail = "This takes a role that your account does not have."


class CrossOriginRefused(Forbidden):
    code = "cross_origin"
    detail = "Requests with cookies are accepted from this site's own pages only."


class RegistrationRefused(Forbidden):
    """Raised by ``hydracore_before_register``; its sentence is shown to the client."""

    code = "registration_refused"
    detail = "Registration is not open to this address."


class LoginRefused(Forbidden):
    """Raised by ``hydracore_before_login`` and by authenticators; its sentence is shown to someone who has proven
    who they are."""

    code = "login_refused"
    detail = "You may not sign in here."


class TokenRefused(Forbidden):
    """Raised by ``hydracore_before_issue_token``; its sentence is shown to the client."""

    code = "token_refused"
    detail = "You may not go on here."


class ResetRefused(Forbidden):
    """Raised by ``hydracore_before_reset_password``; its sentence is shown to whoever has the mailed token, or the
    current password."""

    code = "reset_refused"
    detail = "The password of this account may not be set here."


class ChangeRefused(Forbidden):
    """Raised by ``hydracore_before_change_email``; its sentence is shown to someone who has given the password."""

    code = "change_refused"
    detail = "This account may not have that address."


class InvalidPassword(Forbidden):
    """Whoever is signed in gave another password than the account's. No 401: the session is as good as before, and
    clients would refresh their tokens, or sign out."""

    code = "invalid_password"
    detail = "The password is wrong."


class PasswordElsewhere(Forbidden):
    """The account belongs to an authenticator, and has no password here."""

    code = "password_elsewhere"
    detail = "This account has no password here. Change it where you sign in with it."


class NotFound(HydraError):
    status = 404
    code = "not_found"
    detail = "There is nothing here."


class MethodNotAllowed(HydraError):
    """Carries what the client may use instead (RFC 9110, section 15.5.6)."""

    status = 405
    code = "method_not_allowed"
    detail = "This method is not allowed here."

    def __init__(self, allow: Sequence[str]) -> None:
        super().__init__()
        self.allow = tuple(allow)

    def headers(self) -> Mapping[str, str]:
        return {"Allow": ", ".join(self.allow)}


class EmailTaken(HydraError):
    status = 409
    code = "email_taken"
    detail = "An account with this e-mail address exists already."


class PayloadTooLarge(HydraError):
    status = 413
    code = "payload_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The body is larger than {limit} bytes.")


class HeadersTooLarge(HydraError):
    """RFC 6585, section 5."""

    status = 431
    code = "headers_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The request's head is larger than {limit} bytes.")


class UnsupportedMediaType(HydraError):
    status = 415
    code = "unsupported_media_type"
    detail = (
        "Send JSON, and say so with the header Content-Type: application/json "
        "(curl: -H 'Content-Type: application/json')."
    )


class RetryLater(HydraError):
    """What 429 and 503 share: when to come back, in whole seconds (RFC 9110, section 10.2.3)."""

    def __init__(self, retry_after: float = 1, detail: str | None = None) -> None:
        super().__init__(detail)
        self.retry_after = max(1, -int(-retry_after // 1))

    def headers(self) -> Mapping[str, str]:
        return {"Retry-After": str(self.retry_after)}


class TooManyRequests(RetryLater):
    status = 429
    code = "too_many_requests"
    detail = "Too many attempts. Wait, then try again."


class Unavailable(RetryLater):
    status = 503
    code = "unavailable"
    detail = "This is not available right now. Try again shortly."


class StoreUnavailable(Unavailable):
    """The database did not answer, or its answer is unknown. Repeating the request is safe."""

    code = "store_unavailable"


class Overloaded(Unavailable):
    """More at once than this process takes on."""

    code = "overloaded"
    detail = "Too much at once. Try again shortly."


class HashingOverloaded(Overloaded):
    detail = "Too many sign-ins at once. Try again shortly."


class KeysUnavailable(Unavailable):
    code = "keys_unavailable"


class NotReady(Unavailable):
    """The process cannot serve; ``detail`` says why, for whoever watches it."""

    code = "not_ready"

    def __init__(self, detail: str) -> None:
        super().__init__(detail=detail)
        self.because(detail)

    def public(self) -> dict[str, Any]:
        return {"status": "not ready", **super().public()}


class PasswordRefused(Exception):
    """Raised by a password policy. Its message is a public sentence about the password."""


class MailFailed(Exception):
    """A message was not handed over. The text is for the operator and holds no secret."""


class MailDeferred(MailFailed):
    """It may work later: the worker tries again."""


class MailRefused(MailFailed):
    """It never will: the message goes to the dead letters."""


class StartupError(Exception):
    """One message for the operator: what is wrong, where, and the remedy."""


class ConfigError(StartupError):
    """The configuration is wrong: which file or variable, which key, which rule, and what was near."""


class PluginError(StartupError):
    """What a plugin brings does not fit. ``plugin`` is its name."""

    def __init__(self, plugin: str, message: str) -> None:
        self.plugin = plugin
        super().__init__(message)
