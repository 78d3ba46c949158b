"""Prints mail to standard output, codes and all: for looking at it while developing. No configuration."""

from email.message import EmailMessage
from functools import partial

from hydracore.plugin import Context, MailTransport, hookimpl


class MailConsole:
    def __init__(self, context: Context) -> None:
        self._in_thread = context.in_thread

    @hookimpl
    def hydracore_register_mail_transports(self) -> list[MailTransport]:
        return [MailTransport("console", self.send, delivers=False)]

    async def send(self, message: EmailMessage, key: str) -> None:
        await self._in_thread(partial(print, _shown(message), flush=True))


def _shown(message: EmailMessage) -> str:
    headers = "\n".join(f"{name}: {message[name]}" for name in ("From", "To", "Subject"))
    body = message.get_body(("plain",))
    return f"\n{headers}\n\n{body.get_content() if body else ''}"
