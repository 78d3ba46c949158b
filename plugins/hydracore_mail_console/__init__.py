"""Prints mail to standard output, codes and all: for looking at it while developing. No configuration."""

import asyncio
from email.message import EmailMessage

from hydracore.plugin import Context, MailTransport, hookimpl


class MailConsole:
    def __init__(self, context: Context) -> None:
        pass

    @hookimpl
    def hydracore_register_mail_transports(self) -> list[MailTransport]:
        return [MailTransport("console", self.send, delivers=False)]

    async def send(self, message: EmailMessage, key: str) -> None:
        await asyncio.to_thread(print, _shown(message), flush=True)


def _shown(message: EmailMessage) -> str:
    headers = "\n".join(f"{name}: {message[name]}" for name in ("From", "To", "Subject"))
    body = message.get_body(("plain",))
    return f"\n{headers}\n\n{body.get_content() if body else ''}"
