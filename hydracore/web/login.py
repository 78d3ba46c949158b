"""Signing in: by JSON for browsers and apps, by Basic for tools."""

import re
from base64 import b64decode

from hydracore.errors import InvalidCredentials, LoginRefused, TokenRefused, TooManyRequests
from hydracore.flows.login import check_room, log_in
from hydracore.web.access import public
from hydracore.web.base import BASIC, Endpoint
from hydracore.web.client import device_of
from hydracore.web.described import described

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MAX_PASSWORD = 128
_REFUSES = (InvalidCredentials, LoginRefused, TokenRefused, TooManyRequests)


@public
class Login(Endpoint):
    @described("Log in", takes="login", gives={200: "tokens"}, refuses=_REFUSES, sets_cookies=True)
    async def post(self) -> None:
        services, language = self.web.services, self.language
        check_room(services, self.network)
        body, device = self.body(), device_of(self.request)
        grant = await log_in(services, body["email"], body["password"], self.network, language=language, device=device)
        await self.leave_session()
        self.sign_in(grant)


@public
class Token(Endpoint):
    """For first-party tools: the tokens in the body and never a cookie."""

    challenge = BASIC

    @described(
        "Tokens for a program",
        "For first-party command lines and tools: the tokens are in the body, and there is never a cookie.",
        gives={200: "tokens"},
        refuses=_REFUSES,
        by=("basic",),
    )
    async def post(self) -> None:
        services, device = self.web.services, device_of(self.request)
        check_room(services, self.network)
        email, password = basic_credentials(self.request.headers.get("Authorization", ""))
        grant = await log_in(services, email, password, self.network, language=self.language, device=device)
        self.reply(grant.public())


def basic_credentials(header: str) -> tuple[str, str]:
    """The user-id and password of a Basic header (RFC 7617): UTF-8, split at the first colon,
    without control characters. Raises :class:`InvalidCredentials` for anything else."""
    scheme, _, encoded = header.partition(" ")
    try:
        # Tornado reads headers as Latin-1, so this is the text's own bytes again.
        text = b64decode(encoded.strip().encode("latin-1"), validate=True).decode("utf-8")
    except ValueError as error:
        raise InvalidCredentials().because("the Authorization header is no Basic one") from error
    email, colon, password = text.partition(":")
    malformed = scheme.lower() != "basic" or not colon or _CONTROL.search(text)
    if malformed or not 1 <= len(password) <= _MAX_PASSWORD:
        raise InvalidCredentials().because("the Authorization header is no Basic one")
    return email, password
