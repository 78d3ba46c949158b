"""What others may import, exactly; additions are decided here."""

from types import ModuleType

import hydracore
import hydracore.plugin


def test_public_names() -> None:
    """The package's names."""
    assert sorted(hydracore.__all__) == [
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
    for name in hydracore.__all__:
        assert getattr(hydracore, name).__doc__, name
        # A module of the same name would take its place.
        assert not isinstance(getattr(hydracore, name), ModuleType), name


def test_plugin_names() -> None:
    """The public door's names."""
    assert sorted(hydracore.plugin.__all__) == [
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
    for name in hydracore.plugin.__all__:
        assert getattr(hydracore.plugin, name) is not None
