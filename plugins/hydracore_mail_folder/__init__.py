"""Writes mail to ``<data_dir>/mail/*.eml``: for trying things out without a mail server. No configuration.

The files sort by time. They hold codes and tokens, so the folder and they are their owner's alone.
"""

import os
import tempfile
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import quote

from hydracore.plugin import Context, MailTransport, hookimpl, logger

log = logger("hydracore.mail.folder")

_TIME = "%Y%m%dT%H%M%S%f"
_ANY_TIME = "?" * 21


class MailFolder:
    def __init__(self, context: Context) -> None:
        self._folder = Path(context.data_dir) / "mail"
        self._now = context.now
        self._in_thread = context.in_thread

    @hookimpl
    def hydracore_register_mail_transports(self) -> list[MailTransport]:
        return [MailTransport("folder", self.send, delivers=False)]

    async def send(self, message: EmailMessage, key: str) -> None:
        """One file a message: another try of the same key replaces it. It is on disk on return."""
        file = await self._in_thread(self._write, message.as_bytes(), key)
        log.info("mail written", file=str(file))

    def _write(self, raw: bytes, key: str) -> Path:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Percent-encoded: no path, no pattern, and never the same name for two keys.
        name = quote(key, safe="")
        earlier = next(self._folder.glob(f"{_ANY_TIME}-{name}.eml"), None)
        file = earlier or self._folder / f"{self._now():{_TIME}}-{name}.eml"
        draft, path = tempfile.mkstemp(suffix=".part", dir=self._folder)
        try:
            with os.fdopen(draft, "wb") as stream:
                stream.write(raw)
                stream.flush()
                os.fsync(stream.fileno())
            Path(path).replace(file)
        except BaseException:
            Path(path).unlink(missing_ok=True)
            raise
        _sync(self._folder)
        return file


def _sync(folder: Path) -> None:
    """Put the folder's entries on disk: until then the new name may be lost with the power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
