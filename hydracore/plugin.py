"""The public door: all that a plugin imports.

A plugin is a class named by an entry point in the group ``hydracore``; the entry point's name
is the plugin's. It is made once for each HydraCore, with a :class:`Context`, and its methods that
are marked :data:`hookimpl` and named after a hook in ``hydracore.hookspecs`` are called.
"""

from hydracore import events
from hydracore.errors import (
    MailDeferred,
    MailFailed,
    MailRefused,
    PasswordRefused,
    RegistrationRefused,
    StartupError,
)
from hydracore.hookspecs import hookimpl
from hydracore.logs import logger
from hydracore.records import (
    Collection,
    Context,
    Count,
    Index,
    LimitBackend,
    MailTransport,
    PasswordPolicy,
)

__all__ = [
    "Collection",
    "Context",
    "Count",
    "Index",
    "LimitBackend",
    "MailDeferred",
    "MailFailed",
    "MailRefused",
    "MailTransport",
    "PasswordPolicy",
    "PasswordRefused",
    "RegistrationRefused",
    "StartupError",
    "events",
    "hookimpl",
    "logger",
]
