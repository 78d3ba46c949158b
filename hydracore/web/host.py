"""For handlers of an embedding application."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

from tornado.web import RequestHandler

from hydracore.errors import HydraError
from hydracore.models import CurrentUser
from hydracore.web.access import AsksWho, check_asked, roles_of
from hydracore.web.base import BEARER, Web, warn_of

if TYPE_CHECKING:
    _Base = RequestHandler
else:
    _Base = object


class CurrentUserMixin(AsksWho, _Base):
    """Put it before ``RequestHandler``: ``self.current_user`` is then a
    :class:`~hydracore.models.CurrentUser` before ``get`` or ``post`` runs.

    The application's ``settings["hydracore"]`` is the HydraCore. Who is not signed in gets 401, who
    has not proven the address 403 ``email_not_verified``, both as HydraCore's JSON, with an ``X-Request-Id`` that
    ``hydracore explain`` knows, and the method does not run. Opt out by name: ``allow_unverified = True``, or
    ``allow_anonymous = True``, with which ``current_user`` may be None. ``require_role("admin")`` on the class or on a
    method is for whoever has that role, 403 ``role_required`` for others, and nothing opts out of it. A ``prepare`` of
    your own calls ``await super().prepare()`` first and returns if ``self._finished``. Behind ``RequestHandler`` it
    would ask nobody: ``TypeError``.
    """

    allow_unverified = False
    allow_anonymous = False
    current_user: CurrentUser | None

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        order = cls.__mro__
        if RequestHandler in order and order.index(RequestHandler) < order.index(CurrentUserMixin):
            raise TypeError(f"{cls.__qualname__} has CurrentUserMixin behind RequestHandler: put it before")
        if "prepare" in vars(cls):
            cls.prepare = _that_asks(vars(cls)["prepare"])  # type: ignore[assignment]  # the same, and a look after it

    async def prepare(self) -> None:
        hydra: Any = self.settings["hydracore"]
        roles = roles_of(type(self), self.request.method or "")
        self.current_user = None
        try:
            self.current_user = await hydra.authenticate(
                self.request, allow_unverified=self.allow_unverified and not roles, roles=roles
            )
        except HydraError as error:
            if roles or not (self.allow_anonymous and error.status == 401):
                hydra.refuse(self, error)
                return
        finished = super().prepare()
        if finished is not None:
            await finished


def _that_asks(prepare: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A host's own ``prepare``: one that asked nobody opens nothing that requires a role."""

    @wraps(prepare)
    async def prepared(self: Any) -> None:
        finished = prepare(self)
        if inspect.isawaitable(finished):
            await finished
        roles = roles_of(type(self), self.request.method or "")
        if roles and not self._finished:
            check_asked(self, roles, type(self).__qualname__)

    return prepared


def refuse(web: Web, handler: RequestHandler, error: HydraError) -> None:
    """Answer a host's request with ``error``, as endpoints do, and keep why."""
    request_id = web.request_id(handler.request)
    web.note(handler.request, request_id, error)
    if error.status >= 500:
        warn_of(error, request_id)
    handler.set_status(error.status)
    for name, value in error.headers().items():
        handler.set_header(name, value)
    if error.status == 401:
        handler.set_header("WWW-Authenticate", BEARER)
    for name, value in {**web.headers, "X-Request-Id": request_id}.items():
        handler.set_header(name, value)
    handler.finish(error.public())
