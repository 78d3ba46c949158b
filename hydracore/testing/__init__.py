"""What authors of plugins and embedders test with. Everything here is synchronous: the server runs in a thread.

fixtures.py     pytest's: ``hydracore_server``, ``hydracore_client``, ``hydracore_mongod``
served.py       Served: a HydraCore behind a real socket
client.py       Client: what a browser or an app would do
outbox.py       Outbox: the mail that was sent
clock.py        Clock: the time, to be moved
conformance/    suites for limit backends, mail transports, password policies, authenticators
"""

from hydracore.testing.client import PASSWORD, Client, Response
from hydracore.testing.clock import Clock
from hydracore.testing.conformance import (
    AuthenticatorSuite,
    LimitBackendSuite,
    MailTransportSuite,
    PasswordPolicySuite,
)
from hydracore.testing.outbox import Outbox
from hydracore.testing.served import Served

__all__ = [
    "PASSWORD",
    "AuthenticatorSuite",
    "Client",
    "Clock",
    "LimitBackendSuite",
    "MailTransportSuite",
    "Outbox",
    "PasswordPolicySuite",
    "Response",
    "Served",
]
