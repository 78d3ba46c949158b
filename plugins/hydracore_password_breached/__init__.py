"""Refuses passwords that are known from breaches: ``plugins.enabled = [..., "password_breached"]``.

``[plugins.password_breached] source = "online"`` asks a service for a range (``url``, that of Pwned Passwords by
default): five characters of the password's SHA-1 leave this process, and padding hides how many came back.
``source = "file"`` looks it up in ``file``, a list of ``HASH:COUNT`` lines in the order of the hashes, as the
service's own downloader writes it. ``min_count`` is how often a password must have been seen.

When the service does not answer within ``timeout`` seconds, or the file is gone, ``on_failure`` decides: ``open`` lets
the password pass with a line in the log, ``closed`` answers 503. After a failure the service is left alone for ten
seconds, so that a crowd does not wait for each of its timeouts.
"""

import asyncio
from datetime import datetime, timedelta
from hashlib import sha1
from pathlib import Path

from hydracore.plugin import (
    Context,
    NewPassword,
    PasswordPolicy,
    PasswordRefused,
    StartupError,
    Unavailable,
    hookimpl,
    logger,
)
from hydracore_password_breached.ranges import Failed, Ranges
from hydracore_password_breached.sorted_file import count_in, looks_right

log = logger("hydracore.passwords.breached")

_REST = timedelta(seconds=10)


class PasswordBreached:
    def __init__(self, context: Context) -> None:
        section = context.config
        self._now = context.now
        self._min_count: int = section["min_count"]
        self._open: bool = section["on_failure"] == "open"
        self._timeout: float = section["timeout"]
        self._file = Path(section["file"]) if section["source"] == "file" else None
        self._ranges = Ranges(section["url"])
        self._rests_until: datetime | None = None
        if self._file is not None:
            _check(self._file)
        if self._timeout >= context.settings.plugins.timeout:
            raise StartupError(
                f"plugins.password_breached.timeout is {self._timeout}, and the policy as a whole has plugins.timeout, "
                f"{context.settings.plugins.timeout}: make the first one smaller."
            )

    @hookimpl
    def hydracore_register_password_policies(self) -> list[PasswordPolicy]:
        return [PasswordPolicy("breached", judge=self.judge)]

    async def judge(self, new_password: NewPassword) -> None:
        digest = sha1(new_password.password.encode(), usedforsecurity=False).hexdigest().upper()
        try:
            seen = await self._seen(digest)
        except (Failed, OSError, TimeoutError, ValueError) as error:
            # The kind alone: the words may hold what was asked for.
            log.warning("breached passwords cannot be looked up", cause=type(error).__name__, lets_pass=self._open)
            if not self._open:
                raise Unavailable from error
            return
        if seen >= self._min_count:
            raise PasswordRefused("This password is known from a data breach. Choose another.")

    async def _seen(self, digest: str) -> int:
        if self._file is not None:
            async with asyncio.timeout(self._timeout):
                return await asyncio.to_thread(count_in, self._file, digest)
        if self._rests_until is not None and self._now() < self._rests_until:
            raise Failed("it rests")
        try:
            seen = await self._ranges.count(digest, self._timeout)
        except (Failed, OSError, TimeoutError):
            self._rests_until = self._now() + _REST
            raise
        self._rests_until = None
        return seen


def _check(file: Path) -> None:
    try:
        right = looks_right(file)
    except OSError as error:
        raise StartupError(
            f"plugins.password_breached.file is {str(file)!r}, which cannot be read ({error.strerror}). Put the list "
            "there, or set plugins.password_breached.source to online."
        ) from error
    if not right:
        raise StartupError(
            f"plugins.password_breached.file is {str(file)!r}, which does not begin with lines of 40 hexadecimal "
            "digits, a colon and a number, in the order of the hashes. Name a list as the downloader of Pwned "
            "Passwords writes it."
        )
