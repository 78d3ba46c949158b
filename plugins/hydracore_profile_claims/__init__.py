"""Puts members of an account's profile into its access tokens, for services that read tokens alone.

::

    [plugins]
    enabled = ["profile_claims"]

    [plugins.profile_claims]
    namespace = "https://example.com/claims/"
    members = ["display_name", "team"]

A claim is named by ``namespace`` and the member: ``https://example.com/claims/team``, or ``profile_claims:team``
without a namespace of yours. A member that the account does not have gives no claim. Each refresh reads the profile
anew, so a change is in the tokens after ``tokens.access_ttl`` at the latest.

Tokens travel in a cookie: all claims of all plugins have 2,048 bytes together, and an account with more is not made, or
cannot be signed in to (503, and the log says so). Choose members whose schema has a maxLength. Whoever has the token
can read them. It depends on nothing.
"""

from typing import Any
from urllib.parse import urlsplit

from hydracore.plugin import Account, Context, StartupError, hookimpl

_OWN = "profile_claims:"


class ProfileClaims:
    def __init__(self, context: Context) -> None:
        self._namespace: str = context.config["namespace"]
        if not (self._namespace.startswith(_OWN) or _is_url(self._namespace)):
            raise StartupError(
                f"plugins.profile_claims.namespace is {self._namespace!r}, where a claim of HydraCore's or of another "
                f'plugin might be meant: begin it with "{_OWN}", or write a URL of yours, "https://example.com/claims/".'
            )
        self._claims = {member: self._namespace + member for member in context.config["members"]}

    @hookimpl
    async def hydracore_before_issue_token(self, account: Account) -> dict[str, Any]:
        return {claim: account.profile[member] for member, claim in self._claims.items() if member in account.profile}


def _is_url(text: str) -> bool:
    if not text.startswith(("https://", "http://")) or not text.isprintable() or " " in text:
        return False
    try:
        return bool(urlsplit(text).hostname)
    except ValueError:
        return False
