"""What the calls of the Admin API share: whoever asks has an admin token, and no cookie and no other origin counts."""

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from hydracore.errors import NotFound
from hydracore.flows.admin_tokens import admit
from hydracore.flows.audit import Admin
from hydracore.models import Page
from hydracore.web.access import access_of, scope_of
from hydracore.web.base import Endpoint, bearer_token
from hydracore.web.client import check_origin
from hydracore.web.described import query_of

Item = TypeVar("Item")

# What an id may be: a stranger's word for one goes into the audit.
_ID = re.compile(r"[!-~]{1,128}")
_CHALLENGE = 'Bearer realm="hydracore-admin"'


class AdminEndpoint(Endpoint):
    """One call of the Admin API. In a method there is ``self.admin``, who asks. It is answered however many requests
    there are: in a storm above all."""

    challenge = _CHALLENGE
    always = True
    admin: Admin

    async def _admit(self) -> None:
        request, method = self.request, self.request.method or ""
        check_origin(request, self.web.origins)
        if access_of(type(self), method) == "public":
            return
        if (scope := scope_of(type(self), method)) is None:
            raise NotFound  # Silence means closed; the table is looked through at the start.
        if token := bearer_token(request):
            self.challenge = f'{_CHALLENGE}, error="invalid_token"'
        call = f"{method} {request.path[:200]}"
        self.admin = await admit(self.web.services, token, scope, call, self.network, self.request_id)
        if not all(map(_ID.fullmatch, self.path_kwargs.values())):
            raise NotFound

    def query(self) -> Mapping[str, Any]:
        """What is asked for, held against the schema that the method names (``asks``). Raises
        :class:`ValidationFailed`."""
        return self.web.schemas.check_query(
            query_of(type(self), self.request.method or ""), self.request.query_arguments
        )

    def reply_page(self, name: str, page: Page[Item], view: Callable[[Item], Mapping[str, Any]]) -> None:
        self.reply({name: [view(item) for item in page.items], "next": page.next or None})
