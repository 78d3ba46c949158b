"""The public door: all that a plugin imports.

A plugin is a class named by an entry point in the group ``hydracore``; the entry point's name
is the plugin's. It is made once for each HydraCore, with a :class:`Context`, and its methods that
are marked :data:`hookimpl` and named after a hook in ``hydracore.hookspecs`` are called.
"""

from hydracore import events
from hydracore.errors import (
    ChangeRefused,
    Forbidden,
    HashingOverloaded,
    HydraError,
    InvalidCredentials,
    LoginRefused,
    MailDeferred,
    MailFailed,
    MailRefused,
    NotFound,
    PasswordRefused,
    RegistrationRefused,
    ResetRefused,
    RoleRequired,
    StartupError,
    StoreUnavailable,
    TokenRefused,
    TooManyRequests,
    Unavailable,
)
from hydracore.hookspecs import API_VERSION, hookimpl
from hydracore.logs import logger
from hydracore.models import Account, CurrentUser
from hydracore.records import (
    Authenticator,
    Collection,
    Command,
    Context,
    Count,
    EventListener,
    HealthCheck,
    Identity,
    Index,
    LimitBackend,
    MailTransport,
    NewPassword,
    PasswordPolicy,
    ProfileMember,
    Route,
)
from hydracore.web.access import public, require_role, unverified, verified
from hydracore.web.base import Endpoint
from hydracore.web.described import described

__all__ = [
    "API_VERSION",
    "Account",
    "Authenticator",
    "ChangeRefused",
    "Collection",
    "Command",
    "Context",
    "Count",
    "CurrentUser",
    "Endpoint",
    "EventListener",
    "Forbidden",
    "HashingOverloaded",
    "HealthCheck",
    "HydraError",
    "Identity",
    "Index",
    "InvalidCredentials",
    "LimitBackend",
    "LoginRefused",
    "MailDeferred",
    "MailFailed",
    "MailRefused",
    "MailTransport",
    "NewPassword",
    "NotFound",
    "PasswordPolicy",
    "PasswordRefused",
    "ProfileMember",
    "RegistrationRefused",
    "ResetRefused",
    "RoleRequired",
    "Route",
    "StartupError",
    "StoreUnavailable",
    "TokenRefused",
    "TooManyRequests",
    "Unavailable",
    "described",
    "events",
    "hookimpl",
    "logger",
    "public",
    "require_role",
    "unverified",
    "verified",
]
