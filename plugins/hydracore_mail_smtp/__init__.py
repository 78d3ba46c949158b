"""Sends mail by SMTP (RFC 5321): ``mail.transport = "smtp"`` and a section ``[plugins.mail_smtp]``.

``host``, ``port``, ``security``, ``username``, ``password``, ``ca_file``, ``connections`` and ``timeout`` are
described in ``schemas/config.json``. A few connections are kept between messages. ``security`` fails closed:
with ``starttls`` a server that does not offer it gets nothing. What a later try may mend (4xx, no
connection, whatever the operator has to put right) defers; a 5xx about the recipient or the message refuses.
"""

import asyncio
import copy
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from email.headerregistry import Address
from email.message import EmailMessage
from pathlib import Path

import idna
from aiosmtplib import (
    SMTP,
    SMTPAuthenticationError,
    SMTPDataError,
    SMTPException,
    SMTPNotSupported,
    SMTPRecipientsRefused,
    SMTPResponseException,
    SMTPServerDisconnected,
)

from hydracore.plugin import Context, MailDeferred, MailFailed, MailRefused, MailTransport, StartupError, hookimpl

_KEPT_FOR = 30.0
_GOODBYE = 1.0
_LONGEST_LINE = 200
# "Authenticate first", and its relatives: about us, not about the recipient (RFC 4954, section 6).
_OUR_CREDENTIALS = (530, 534, 535, 538)


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
        message, recipient = _addressed(message)
        async with self._slots:
            try:
                await self._send(message, recipient)
            except SMTPRecipientsRefused as error:
                raise _judged(error.recipients[0]) from error
            except SMTPDataError as error:
                raise _judged(error) from error
            except SMTPAuthenticationError as error:
                # The code alone: what the server says may repeat what it was given.
                raise MailDeferred(
                    f"the mail server refuses the credentials ({error.code}): "
                    "look at plugins.mail_smtp.username and password"
                ) from error
            except SMTPResponseException as error:
                raise MailDeferred(_told(error)) from error
            except SMTPNotSupported as error:
                raise _beyond_ascii(recipient) from error
            except (SMTPException, OSError) as error:
                raise MailDeferred(f"no conversation with the mail server: {error}") from error

    async def close(self) -> None:
        """Say goodbye on every kept connection."""
        idle, self._idle = self._idle, []
        await asyncio.gather(*(self._quit(connection) for connection, _ in idle))

    async def _send(self, message: EmailMessage, recipient: str) -> None:
        async with self._connection() as connection:
            await connection.send_message(message, recipients=[recipient])

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[SMTP]:
        """A connection, kept again afterwards unless it has become useless."""
        connection = await self._kept() or await self._connected()
        try:
            yield connection
        except SMTPServerDisconnected:
            connection.close()
            raise
        except (SMTPResponseException, SMTPRecipientsRefused):
            self._keep(connection)  # A refusal, in order: the next one to use it begins with RSET.
            raise
        except BaseException:
            connection.close()
            raise
        self._keep(connection)

    def _keep(self, connection: SMTP) -> None:
        if connection.is_connected:
            self._idle.append((connection, asyncio.get_running_loop().time()))

    async def _kept(self) -> SMTP | None:
        """A kept connection that answers.

        It is asked before the message, so that a server that has hung up is found out while nothing is
        at stake: once DATA was sent, trying again might deliver twice.
        """
        while self._idle:
            connection, since = self._idle.pop()
            if asyncio.get_running_loop().time() - since >= _KEPT_FOR:
                await self._quit(connection)
                continue
            try:
                await connection.rset()
            except (SMTPException, OSError):
                connection.close()
            except BaseException:
                connection.close()
                raise
            else:
                return connection
        return None

    async def _connected(self) -> SMTP:
        config = self._config
        connection = SMTP(
            hostname=config["host"],
            port=config["port"],
            timeout=config["timeout"],
            use_tls=config["security"] == "tls",
            start_tls=False,
            tls_context=self._tls,
        )
        try:
            await connection.connect()
            if config["security"] == "starttls":
                await self._start_tls(connection)
            if config["username"]:
                await self._log_in(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    async def _start_tls(self, connection: SMTP) -> None:
        await connection.ehlo()
        if not connection.supports_extension("starttls"):
            raise MailDeferred(
                "the mail server does not offer STARTTLS, and nothing is sent in clear: set "
                "plugins.mail_smtp.security to tls (with its port, often 465), or to none if nobody can listen"
            )
        await connection.starttls()

    async def _log_in(self, connection: SMTP) -> None:
        await connection.ehlo()
        if not connection.supports_extension("auth"):
            raise MailDeferred(
                "the mail server takes no credentials here: look at plugins.mail_smtp.port and security, "
                "or empty plugins.mail_smtp.username"
            )
        await connection.login(self._config["username"], self._config["password"])

    async def _quit(self, connection: SMTP) -> None:
        try:
            with suppress(SMTPException, OSError):
                await connection.quit(timeout=_GOODBYE)
        finally:
            connection.close()


def _addressed(message: EmailMessage) -> tuple[EmailMessage, str]:
    """The message and its recipient as they travel: the domain in ASCII, so that only a local part
    beyond ASCII asks for SMTPUTF8. Raises ``MailRefused`` for what is not exactly one address."""
    try:
        [address] = message["To"].addresses
        domain = address.domain if address.domain.isascii() else idna.encode(address.domain, uts46=True).decode()
        address = Address(address.display_name, address.username, domain)
    except (ValueError, AttributeError):
        # Without the cause, whose words are the address.
        raise MailRefused("the message is not to exactly one address") from None
    if any("address-list" in str(defect) for defect in message["To"].defects):
        # The parser has dropped a part: what is left is someone else's address.
        raise MailRefused("the address was cut short in its header")
    recipient = str(address.addr_spec)
    if not address.username or not domain or re.search(r'[\s\x00-\x1f\x7f<>"]', recipient):
        raise MailRefused("the address cannot be written in SMTP")
    message = copy.copy(message)
    del message["To"]
    message["To"] = address
    return message, recipient


def _beyond_ascii(recipient: str) -> MailFailed:
    if recipient.isascii():
        return MailDeferred("the mail server cannot take mail.sender, which has characters beyond ASCII")
    return MailRefused("the mail server cannot take an address with characters beyond ASCII")


def _judged(error: SMTPResponseException) -> MailFailed:
    refused = 500 <= error.code < 600 and error.code not in _OUR_CREDENTIALS
    return (MailRefused if refused else MailDeferred)(_told(error))


def _told(error: SMTPResponseException) -> str:
    """The code and the first line of what the server said, for logs. A server may quote the message: words
    that could be an address, a code of digits or a token are left out."""
    line = re.sub(r"[^\x20-\x7e]+", " ", error.message.partition("\n")[0])
    line = re.sub(r"\S*(@|[0-9]{4}|[A-Za-z0-9_-]{16})\S*", "...", line)
    return f"the mail server answered {error.code}: {line[:_LONGEST_LINE]}".rstrip(": ")


def _tls_context(ca_file: str) -> ssl.SSLContext:
    if ca_file and not Path(ca_file).is_file():
        raise StartupError(f"plugins.mail_smtp.ca_file names {ca_file}, which is no file.")
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise StartupError(
            f"plugins.mail_smtp.ca_file: {ca_file} cannot be read or holds no certificate in PEM form."
        ) from error
