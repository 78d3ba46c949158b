"""Does a mail transport take messages over, or say so?"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8

from hydracore.chance import token
from hydracore.plugin import MailRefused, MailTransport
from hydracore.testing.conformance.suite import Inapplicable, NotConforming, Suite, closed, expect

_SIDE_BY_SIDE = 20
_ON_THEIR_WAY = (0, 0.001, 0.01, 0.05)


class MailTransportSuite(Suite[MailTransport]):
    """For a :class:`~hydracore.plugin.MailTransport`. It sends to ``recipient``; without one it sends nothing, and
    looks at the record alone. Override :meth:`arrived` where what was sent can be seen, and :meth:`failing` where there
    is a transport that cannot send. ``recipient_beyond_ascii`` is an address like grüße@example.com. ``timeout`` is
    how many seconds one message may take, as ``mail.timeout``."""

    recipient = ""
    recipient_beyond_ascii = ""
    sender = "hydracore@example.com"
    timeout: float = 30

    async def arrived(self, subject: str) -> int | None:
        """How many messages with that subject have arrived; None where nobody can know."""
        return None

    def failing(self) -> MailTransport | None:
        """A transport whose server is away, silent or refuses everything; None where there is none."""
        return None

    async def check_is_one(self, transport: MailTransport) -> None:
        """Its name can be a setting's value, and its functions are coroutine functions."""
        expect(transport.name.isidentifier(), f"its name, {transport.name!r}, is none that a setting takes")
        for function in (transport.send, transport.close):
            expect(_is_asynchronous(function), f"{function!r} is no coroutine function")
        expect(transport.name not in transport.over, "it hands over to itself")

    async def check_sends(self, transport: MailTransport) -> None:
        """A message is taken over: nothing is raised or returned, and it arrives as it was."""
        message = self._message("one message")
        await self._send(transport, message)
        await self._expect(message, 1)

    async def check_side_by_side(self, transport: MailTransport) -> None:
        """Twenty messages at once are taken over, each once."""
        messages = [self._message(f"number {number}") for number in range(_SIDE_BY_SIDE)]
        await asyncio.gather(*(self._send(transport, message) for message in messages))
        for message in messages:
            await self._expect(message, 1)

    async def check_the_same_key(self, transport: MailTransport) -> None:
        """A second try under the same key is no error, and the message arrives once or twice."""
        message, key = self._message("tried twice"), token(12)
        await self._send(transport, message, key)
        await self._send(transport, message, key)
        await self._expect(message, 1, 2)

    async def check_any_text(self, transport: MailTransport) -> None:
        """Subjects, senders' names and texts of any language, and lines that begin with a full stop, arrive."""
        message = self._message("Grüße, 你好, שלום", "Grüße\n.\n..\n.hidden\n你好\n" + "x" * 900 + "\n")
        message.replace_header("From", f"Grüße von HydraCore <{self.sender}>")
        await self._send(transport, message)
        await self._expect(message, 1)

    async def check_any_address(self, transport: MailTransport) -> None:
        """A message to an address beyond ASCII is taken over, or refused for good: it is not tried for ever."""
        message = self._message("to an international address", to=self.recipient_beyond_ascii)
        try:
            await self._send(transport, message)
        except MailRefused:
            return
        except Exception as error:
            raise NotConforming(f"it raised {type(error).__name__}, which counts as deferred") from error
        await self._expect(message, 1)

    async def check_failures(self, transport: MailTransport) -> None:
        """One that cannot send says so, in time, by raising; its words do not repeat the message."""
        secret = token(12)
        message, failing = self._message("to nobody", f"{secret}\n"), self.failing()
        if failing is None:
            raise Inapplicable("no transport that fails was given")
        try:
            await self._send(failing, message)
        except NotConforming:
            raise
        except Exception as error:
            expect(secret not in str(error), "what it says of the failure repeats the message")
            expect(str(message["To"]) not in str(error), "what it says of the failure repeats the address")
        else:
            raise NotConforming("it cannot send, and says that it did")
        finally:
            await closed(failing)

    async def check_cancelled(self, transport: MailTransport) -> None:
        """A message that is cancelled on its way leaves the transport usable."""
        for seconds in _ON_THEIR_WAY:
            sending = asyncio.ensure_future(transport.send(self._message("cancelled"), token(12)))
            await asyncio.sleep(seconds)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            await self.check_sends(transport)

    async def check_closes(self, transport: MailTransport) -> None:
        """It can be closed, used or not, and closed again."""
        for used in (False, True):
            another = self.another()
            if used and self.recipient:
                await self._send(another, self._message("before the end"))
            for _ in range(2):
                await closed(another)

    async def _send(self, transport: MailTransport, message: EmailMessage, key: str = "") -> None:
        send: Callable[[EmailMessage, str], Awaitable[object]] = transport.send
        try:
            async with asyncio.timeout(self.timeout) as deadline:
                answer = await send(message, key or token(12))
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise NotConforming(f"no answer for {self.timeout} s") from error
        expect(answer is None, f"it returned {answer!r}, and so the message counts as not taken over")

    def _message(self, subject: str, text: str = "Hello.\n", to: str | None = None) -> EmailMessage:
        to = self.recipient if to is None else to
        if not self.recipient or not to:
            raise Inapplicable("no recipient was given" if not self.recipient else "none beyond ASCII was given")
        message = EmailMessage(policy=SMTP if to.isascii() else SMTPUTF8)
        message["From"], message["To"] = self.sender, to
        message["Subject"] = f"{subject} {token(6)}"
        message["Message-ID"] = f"<{token(12)}@example.com>"
        message.set_content(text)
        message.add_alternative(f"<p>{text}</p>", subtype="html")
        return message

    async def _expect(self, message: EmailMessage, *times: int) -> None:
        arrived = await self.arrived(str(message["Subject"]))
        expect(arrived in (None, *times), f"{message['Subject']!r} arrived {arrived} times")


def _is_asynchronous(function: Callable[..., object]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
