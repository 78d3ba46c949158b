"""Sends mail by SMTP (RFC 5321): ``mail.transport = "smtp"`` and a section ``[plugins.mail_smtp]``.

A few connections are kept between messages. ``security`` fails closed: with ``starttls`` a server that
does not offer it gets nothing. What a later try may mend (4xx, no connection, credentials that the
operator has to put right) defers; a 5xx about the message or its recipient refuses.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from email.message import EmailMessage
from pathlib import Path

from aiosmtplib import (
    SMTP,
    SMTPAuthenticationError,
    SMTPException,
    SMTPNotSupported,
    SMTPRecipientsRefused,
    SMTPResponseException,
    SMTPServerDisconnected,
)

from hydracore.plugin import Context, MailDeferred, MailRefused, MailTransport, StartupError, hookimpl

_KEPT_FOR = 30.0


class MailSmtp:
    def __init__(self, context: Context) -> None:
        self._config = context.config
        self._tls = _tls_context(self._config["ca_file"])
        self._slots = asyncio.Semaphore(self._config["connections"])
        self._idle: list[tuple[SMTP, float]] = []

    @hookimpl
    def hydracore_register_mail_transports(self) -> list[MailTransport]:
        return [MailTransport("smtp", self.send, self.close)]

    async def send(self, message: EmailMessage, key: str) -> None:
        """Hand the message over, on a kept connection or a new one. SMTP knows no duplicates by ``key``."""
        async with self._slots:
            try:
                await self._send(message)
            except SMTPRecipientsRefused as error:
                raise _judged(error.recipients[0]) from error
            except SMTPAuthenticationError as error:
                raise MailDeferred(f"the mail server refuses the credentials: {error.code}") from error
            except SMTPResponseException as error:
                raise _judged(error) from error
            except SMTPNotSupported as error:
                raise _not_supported(error) from error
            except (SMTPException, OSError, TimeoutError) as error:
                raise MailDeferred(f"no conversation with the mail server: {type(error).__name__}") from error

    async def close(self) -> None:
        """Say goodbye on every kept connection."""
        idle, self._idle = self._idle, []
        for connection, _ in idle:
            await self._quit(connection)

    async def _send(self, message: EmailMessage) -> None:
        kept = await self._kept()
        if kept is not None:
            try:
                # Before the message, so that a server that has hung up is found out while nothing is
                # at stake: once DATA was sent, trying again might deliver twice.
                await kept.noop()
            except (SMTPException, OSError):
                kept.close()
            else:
                await self._send_on(kept, message)
                return
        await self._send_on(await self._connected(), message)

    async def _send_on(self, connection: SMTP, message: EmailMessage) -> None:
        async with self._giving_back(connection):
            await connection.send_message(message)

    @asynccontextmanager
    async def _giving_back(self, connection: SMTP) -> AsyncIterator[None]:
        try:
            yield
        except SMTPServerDisconnected:
            connection.close()
            raise
        except (SMTPResponseException, SMTPRecipientsRefused):
            self._keep(connection)  # A refusal, in order: aiosmtplib has sent RSET.
            raise
        except BaseException:
            connection.close()
            raise
        self._keep(connection)

    def _keep(self, connection: SMTP) -> None:
        if connection.is_connected:
            self._idle.append((connection, asyncio.get_running_loop().time()))

    async def _kept(self) -> SMTP | None:
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection, since = self._idle.pop()
            if now - since < _KEPT_FOR and connection.is_connected:
                return connection
            await self._quit(connection)
        return None

    async def _connected(self) -> SMTP:
        config = self._config
        connection = SMTP(
            hostname=config["host"],
            port=config["port"],
            username=config["username"] or None,
            password=config["password"] or None,
            timeout=config["timeout"],
            use_tls=config["security"] == "tls",
            start_tls=config["security"] == "starttls",
            tls_context=self._tls,
        )
        try:
            await connection.connect()
        except BaseException:
            connection.close()
            raise
        return connection

    async def _quit(self, connection: SMTP) -> None:
        with suppress(SMTPException, OSError):
            await connection.quit()
        connection.close()


def _judged(error: SMTPResponseException) -> Exception:
    """The code alone: a server's words may quote the message."""
    kind = MailRefused if 500 <= error.code < 600 else MailDeferred
    return kind(f"the mail server answered {error.code} ({type(error).__name__.removeprefix('SMTP')})")


def _not_supported(error: SMTPNotSupported) -> Exception:
    if "UTF8" in str(error):
        return MailRefused("the mail server cannot take an address with characters beyond ASCII")
    return MailDeferred(
        "the mail server lacks what is asked of it (STARTTLS or AUTH): look at plugins.mail_smtp.security and username"
    )


def _tls_context(ca_file: str) -> ssl.SSLContext:
    if ca_file and not Path(ca_file).is_file():
        raise StartupError(f"plugins.mail_smtp.ca_file names {ca_file}, which is no file.")
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except ssl.SSLError as error:
        raise StartupError(f"plugins.mail_smtp.ca_file: {ca_file} holds no certificate in PEM form.") from error
