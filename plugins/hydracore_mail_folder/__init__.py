"""Writes mail to ``<data_dir>/mail/*.eml``: for trying things out without a mail server."""

import asyncio
import os
import re
from email.message import EmailMessage
from pathlib import Path

from hydracore.plugin import Context, MailTransport, hookimpl, logger

log = logger("hydracore.mail.folder")


class MailFolder:
    def __init__(self, context: Context) -> None:
        self._folder = Path(context.data_dir) / "mail"
        self._now = context.now

    @hookimpl
    def hydracore_register_mail_transports(self) -> list[MailTransport]:
        return [MailTransport("folder", self.send, delivers=False)]

    async def send(self, message: EmailMessage, key: str) -> None:
        """One file a message: another try of the same key replaces it."""
        file = await asyncio.to_thread(self._write, message.as_bytes(), key)
        log.info("mail written", file=str(file))

    def _write(self, raw: bytes, key: str) -> Path:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = re.sub(r"[^A-Za-z0-9_-]", "_", key)
        earlier = next(self._folder.glob(f"*-{name}.eml"), None)
        file = earlier or self._folder / f"{self._now():%Y%m%dT%H%M%S%f}-{name}.eml"
        draft = file.with_suffix(".part")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
            stream.write(raw)
            stream.flush()
            os.fsync(stream.fileno())
        return draft.replace(file)
