"""Sends mail through Resend: ``mail.transport = "resend"`` and ``[plugins.mail_resend] api_key``.

``api_url`` and ``timeout`` are the section's other keys. Each try of one message carries the same idempotency
key, so a repeated one is delivered once. What a later try may mend (429, 5xx, no connection, a key that the
operator has to put right) defers; any other 4xx refuses.
"""

import json as jsonlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from email.message import EmailMessage
from typing import Any

import idna
from tornado.httpclient import AsyncHTTPClient, HTTPClientError

from hydracore.plugin import Context, MailDeferred, MailFailed, MailRefused, MailTransport, StartupError, hookimpl

try:
    import resend
    from resend.exceptions import NoContentError, ResendError
    from resend.http_client_async import AsyncHTTPClient as ResendClient
except ImportError as error:
    raise StartupError(
        'The plugin mail_resend needs the library resend, which is not installed: pip install "hydracore[resend]".'
    ) from error

_MENDABLE = (401, 403, 408, 409, 425, 429)
_KEY_IS_WRONG = (401, 403)
# Reentrant: should the library ever await earlier than it does, calls may mix, but none may hang.
_LIBRARY = threading.RLock()


class MailResend:
    def __init__(self, context: Context) -> None:
        self._key: str = context.config["api_key"]
        self._url: str = context.config["api_url"].rstrip("/")
        self._timeout: int = context.config["timeout"]
        if not self._key:
            raise StartupError(
                "The plugin mail_resend needs the key of your Resend account: set plugins.mail_resend.api_key, "
                "HYDRACORE_PLUGINS__MAIL_RESEND__API_KEY or HYDRACORE_PLUGINS__MAIL_RESEND__API_KEY_FILE."
            )

    @hookimpl
    def hydracore_register_mail_transports(self) -> list[MailTransport]:
        return [MailTransport("resend", self.send)]

    async def send(self, message: EmailMessage, key: str) -> None:
        params = _params(message)
        with ExitStack() as stack:
            client = _Client(self._timeout, stack.close)
            stack.enter_context(_set_up(self._key, self._url, client))
            try:
                answer: Any = await resend.Emails.send_async(params, {"idempotency_key": key})
            except ResendError as error:
                raise _judged(error) from error
            except NoContentError as error:
                raise MailDeferred("Resend answered without a word") from error
        # The library takes whatever is no error for a yes, a redirect or a portal's page too.
        if not (isinstance(answer, Mapping) and answer.get("id")):
            raise MailDeferred("what answered is not Resend: look at plugins.mail_resend.api_url")


@contextmanager
def _set_up(key: str, url: str, client: ResendClient) -> Iterator[None]:
    """The library keeps these in its module alone, where another HydraCore or the host has its own. It has
    read them all when it calls the client, before it first awaits: they are ours until then, no longer."""
    with _LIBRARY:
        before = resend.api_key, resend.api_url, resend.default_async_http_client
        resend.api_key, resend.api_url, resend.default_async_http_client = key, url, client
        try:
            yield
        finally:
            resend.api_key, resend.api_url, resend.default_async_http_client = before


# Of the message's headers: what Resend does not write by itself.
_KEPT = ("Auto-Submitted", "Content-Language")


class _Client(ResendClient):
    """Tornado's client in the shape that the library asks for, for one call."""

    def __init__(self, timeout: int, called: Callable[[], None]) -> None:
        self._timeout = timeout
        self._called = called

    async def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        json: Any = None,
        files: Any = None,
        data: Any = None,
    ) -> tuple[bytes, int, Mapping[str, str]]:
        self._called()
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
        return answer.body, answer.code, dict(answer.headers)


def _params(message: EmailMessage) -> resend.Emails.SendParams:
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    return {
        "from": str(message["From"]),
        "to": [_recipient(message)],
        "subject": str(message["Subject"]),
        "text": text.get_content() if text else "",
        "html": html.get_content() if html else "",
        "headers": {"Auto-Submitted": "auto-generated"}
        | {name: str(message[name]) for name in _KEPT if name in message},
    }


def _recipient(message: EmailMessage) -> str:
    try:
        [address] = message["To"].addresses
        domain = address.domain if address.domain.isascii() else idna.encode(address.domain, uts46=True).decode()
    except (ValueError, AttributeError):
        # Without the cause, whose words are the address.
        raise MailRefused("the message is not to exactly one address") from None
    if any("address-list" in str(defect) for defect in message["To"].defects):
        # The parser has dropped a part: what is left is someone else's address.
        raise MailRefused("the address was cut short in its header")
    return f"{address.username}@{domain}"


def _judged(error: ResendError) -> MailFailed:
    """The code and its name alone: the API's words may quote the message."""
    if isinstance(error.__context__, (HTTPClientError, OSError)):
        return MailDeferred(f"no answer from Resend: {error.__context__}")
    code, name = str(error.code), str(error.error_type)
    reason = f"Resend answered {code} ({name})" if re.fullmatch("[A-Za-z_]{1,60}", name) else f"Resend answered {code}"
    if not re.fullmatch("4[0-9][0-9]", code):
        return MailDeferred(reason)
    if int(code) in _KEY_IS_WRONG:
        return MailDeferred(f"{reason}: look at plugins.mail_resend.api_key and mail.sender")
    return MailDeferred(reason) if int(code) in _MENDABLE else MailRefused(reason)
