"""Sends mail through Resend: ``mail.transport = "resend"`` and ``[plugins.mail_resend] api_key``.

Each try of one message carries the same idempotency key, so a repeated one is delivered once. What a
later try may mend (429, 5xx, no connection, a key that the operator has to put right) defers; any other
4xx refuses.
"""

import json as jsonlib
from collections.abc import Mapping
from email.message import EmailMessage
from typing import Any

import resend
from resend.exceptions import ResendError
from resend.http_client_async import AsyncHTTPClient as ResendClient
from tornado.httpclient import AsyncHTTPClient

from hydracore.plugin import Context, MailDeferred, MailRefused, MailTransport, StartupError, hookimpl

_MENDABLE = (401, 403, 408, 409, 425, 429)


class MailResend:
    def __init__(self, context: Context) -> None:
        self._key: str = context.config["api_key"]
        self._url: str = context.config["api_url"].rstrip("/")
        self._client = _Client(context.config["timeout"])
        if not self._key:
            raise StartupError(
                "mail.transport is resend, which needs plugins.mail_resend.api_key: "
                "set HYDRACORE_PLUGINS__MAIL_RESEND__API_KEY, or …_FILE."
            )

    @hookimpl
    def hydracore_register_mail_transports(self) -> list[MailTransport]:
        return [MailTransport("resend", self.send)]

    async def send(self, message: EmailMessage, key: str) -> None:
        # The library keeps these in its module and reads them before it first awaits: set right
        # here, two HydraCores on one event loop do not meet.
        resend.api_key = self._key
        resend.api_url = self._url
        resend.default_async_http_client = self._client
        try:
            await resend.Emails.send_async(_params(message), {"idempotency_key": key})
        except ResendError as error:
            raise _judged(error) from error


class _Client(ResendClient):
    """Tornado's client in the shape that the library asks for."""

    def __init__(self, timeout: int) -> None:
        self._timeout = timeout

    async def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        json: Any = None,
        files: Any = None,
        data: Any = None,
    ) -> tuple[bytes, int, Mapping[str, str]]:
        answer = await AsyncHTTPClient().fetch(
            url,
            method=method.upper(),
            headers={**headers, "Content-Type": "application/json"},
            body=jsonlib.dumps(json),
            connect_timeout=self._timeout,
            request_timeout=self._timeout,
            follow_redirects=False,
            raise_error=False,
        )
        if answer.code == 599:
            raise ConnectionError("no answer")
        return answer.body, answer.code, dict(answer.headers)


def _params(message: EmailMessage) -> resend.Emails.SendParams:
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    return {
        "from": str(message["From"]),
        "to": [str(message["To"])],
        "subject": str(message["Subject"]),
        "text": text.get_content() if text else "",
        "html": html.get_content() if html else "",
        "headers": {"Auto-Submitted": str(message["Auto-Submitted"])},
    }


def _judged(error: ResendError) -> Exception:
    """The code and its name alone: the API's words may quote the message."""
    code = int(error.code)
    reason = f"Resend answered {code} ({error.error_type})"
    return MailRefused(reason) if 400 <= code < 500 and code not in _MENDABLE else MailDeferred(reason)
