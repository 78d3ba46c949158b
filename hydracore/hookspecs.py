"""Every hook: its contract, an example, and since when.

Two kinds. ``hydracore_register_<plural>`` is asked once, when a HydraCore is made, and returns
records. Moments are asynchronous: ``hydracore_before_<verb>`` may refuse by raising,
``hydracore_on_event`` listens. Arguments only ever grow; an implementation names those it wants.
"""

from collections.abc import Sequence

import pluggy

from hydracore.events import Event
from hydracore.records import Collection, LimitBackend, MailTransport, PasswordPolicy

hookspec = pluggy.HookspecMarker("hydracore")
hookimpl = pluggy.HookimplMarker("hydracore")


@hookspec
def hydracore_register_mail_transports() -> Sequence[MailTransport]:  # type: ignore[empty-body]
    """Ways to send mail; ``mail.transport`` chooses one by its name. Since 0.1.

    Example (``hydracore_mail_console``)::

        @hookimpl
        def hydracore_register_mail_transports(self):
            return [MailTransport("console", self.send, delivers=False)]
    """


@hookspec
def hydracore_register_password_policies() -> Sequence[PasswordPolicy]:  # type: ignore[empty-body]
    """Judges of new passwords; all of them are asked, in the plugins' order. Since 0.1.

    Example (``hydracore_password_standard``)::

        @hookimpl
        def hydracore_register_password_policies(self):
            return [PasswordPolicy("common", self.refuse_common)]
    """


@hookspec
def hydracore_register_limit_backends() -> Sequence[LimitBackend]:  # type: ignore[empty-body]
    """Places to count attempts; ``limits.backend`` chooses one by its name. Since 0.1.

    Example (``hydracore_limits_memory``)::

        @hookimpl
        def hydracore_register_limit_backends(self):
            return [LimitBackend("memory", self.hit)]
    """


@hookspec
def hydracore_register_collections() -> Sequence[Collection]:  # type: ignore[empty-body]
    """Collections that the plugin owns, with their indexes. Since 0.1.

    Example (``hydracore_limits_mongodb``)::

        @hookimpl
        def hydracore_register_collections(self):
            return [Collection("limits", [Index([("ends", 1)], expire_after=60)], durable=False)]
    """


@hookspec
async def hydracore_before_register(email: str, network: str) -> None:
    """Someone is about to register. Raise ``RegistrationRefused`` to refuse. Since 0.1.

    ``email`` is the address as it would be stored, ``network`` the client's. It is asked for known
    and unknown addresses alike and must not tell them apart. It has ``plugins.timeout`` seconds; a
    late or failing one refuses with 503.

    Example (``hydracore_register_domains``)::

        @hookimpl
        async def hydracore_before_register(self, email):
            if email.rpartition("@")[2] not in self.domains:
                raise RegistrationRefused
    """


@hookspec
async def hydracore_on_event(event: Event) -> None:
    """Something happened (see ``hydracore.events``). Since 0.1.

    A listener cannot refuse: its failure is logged and harms nobody. It has ``plugins.timeout``
    seconds and runs beside the request that it tells of.

    Example (``hydracore_event_log``)::

        @hookimpl
        async def hydracore_on_event(self, event):
            log.info(type(event).__name__)
    """
