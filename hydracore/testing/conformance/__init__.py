"""Suites that say whether a record keeps its contract, its races included.

An author subclasses one and says how the record is made; pytest finds the tests::

    class TestMine(LimitBackendSuite):
        def make(self):
            return LimitBackend("mine", Mine().hit)

``hydracore plugins check`` runs the same suites over what is enabled. They need no pytest: :func:`run` returns what
became of each check.
"""

from hydracore.testing.conformance.authenticators import AuthenticatorSuite
from hydracore.testing.conformance.limits import LimitBackendSuite
from hydracore.testing.conformance.mail import MailTransportSuite
from hydracore.testing.conformance.passwords import PasswordPolicySuite
from hydracore.testing.conformance.suite import Inapplicable, NotConforming, Outcome, Suite, run

__all__ = [
    "AuthenticatorSuite",
    "Inapplicable",
    "LimitBackendSuite",
    "MailTransportSuite",
    "NotConforming",
    "Outcome",
    "PasswordPolicySuite",
    "Suite",
    "run",
]
