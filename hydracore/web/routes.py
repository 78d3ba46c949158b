"""The table of calls."""

import re

from tornado.routing import PathMatches, Rule
from tornado.web import Application

from hydracore.web import login, recovery, registration, service, session, verification
from hydracore.web.base import Endpoint, Web, nested

AUTH: dict[str, type[Endpoint]] = {
    "/register": registration.Register,
    "/login": login.Login,
    "/token": login.Token,
    "/refresh": session.Refresh,
    "/logout": session.Logout,
    "/verify-email": verification.VerifyEmail,
    "/resend-verification": verification.ResendVerification,
    "/forgot-password": recovery.ForgotPassword,
    "/reset-password": recovery.ResetPassword,
    "/me": session.Me,
}

SERVICE: dict[str, type[Endpoint]] = {
    "/health/live": service.Live,
    "/health/ready": service.Ready,
    "/.well-known/jwks.json": service.Jwks,
}


def auth_rules(web: Web, prefix: str) -> list[Rule]:
    """The auth API under ``prefix``, for the rules of any Tornado application."""
    table = [Rule(PathMatches(re.escape(prefix + path) + "$"), handler) for path, handler in AUTH.items()]
    return [Rule(PathMatches(re.escape(prefix) + "(?:/.*)?$"), nested(web, table))]


def service_rules(web: Web) -> list[Rule]:
    """Health and published keys, at the root."""
    application = nested(web, [Rule(PathMatches(re.escape(path) + "$"), handler) for path, handler in SERVICE.items()])
    return [Rule(PathMatches(re.escape(path) + "$"), application) for path in SERVICE]


def standalone(web: Web, prefix: str) -> Application:
    """All of it, with our 404 for every other path."""
    return nested(web, [*auth_rules(web, prefix), *service_rules(web)])
