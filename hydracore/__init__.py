"""HydraCore: an identity server in Python on Tornado, over MongoDB, extended by plugins."""

from hydracore.config import Config, load
from hydracore.core import HydraCore
from hydracore.errors import EmailNotVerified, HydraError, NotAuthenticated, RoleRequired, StartupError
from hydracore.models import CurrentUser
from hydracore.web.access import require_role
from hydracore.web.host import CurrentUserMixin

__version__ = "0.1.0"

__all__ = [
    "Config",
    "CurrentUser",
    "CurrentUserMixin",
    "EmailNotVerified",
    "HydraCore",
    "HydraError",
    "NotAuthenticated",
    "RoleRequired",
    "StartupError",
    "load",
    "require_role",
]
