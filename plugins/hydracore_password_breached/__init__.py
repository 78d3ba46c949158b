"""Refuses passwords that are known from breaches: asked online, or searched in a list of your own.

::

    [plugins]
    enabled = ["password_breached"]

    [plugins.password_breached]
    source = "online"
    on_failure = "open"

``online`` asks ``url`` for a range: the first five characters of the password's SHA-1 go out, a few hundred hashes that
begin so come back padded, and the rest is compared here. ``file`` searches the list at ``file``: lines ``SHA1:COUNT``,
sorted by hash. It may be replaced while HydraCore runs, by renaming another over it. ``min_count`` is how often a
password must have been seen, ``timeout`` the seconds that finding out may take.

While nobody can tell (no answer, another answer than a range, no list), ``on_failure`` decides: with ``open`` passwords
pass, with ``closed`` setting one is answered 503. The log warns either way. After three failures in a row nobody waits
any more: for ten seconds each password is taken for a failure at once, then a single one tries again.
"""

import asyncio
import hashlib
from typing import Protocol

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
from hydracore_password_breached.listed import Listed
from hydracore_password_breached.online import Online
from hydracore_password_breached.rest import NotTold, Rest

log = logger("hydracore.password_breached")

_AT_ONCE = 16
# A disk that hangs keeps the threads; no more than half of this plugin's.
_THREADS = 2


class Source(Protocol):
    """``seen`` counts how often the password of that SHA-1 (40 upper-case hex digits) was seen, within ``timeout``
    seconds. It raises whatever there is."""

    async def seen(self, digest: str, timeout: float) -> int: ...


class PasswordBreached:
    def __init__(self, context: Context) -> None:
        config = context.config
        self._timeout: float = config["timeout"]
        self._min_count: int = config["min_count"]
        self._open: bool = config["on_failure"] == "open"
        if self._timeout >= context.settings.plugins.timeout:
            raise StartupError(
                f"plugins.password_breached.timeout is {self._timeout}, and plugins.timeout is "
                f"{context.settings.plugins.timeout}: the former must be less, or on_failure never decides."
            )
        online = config["source"] == "online"
        self._source: Source = Online(config["url"]) if online else Listed(config["file"], context.in_thread)
        self._slots = asyncio.Semaphore(_AT_ONCE if online else _THREADS)
        self._under_way: set[asyncio.Task[int]] = set()
        self._rest = Rest(context.now)

    @hookimpl
    def hydracore_register_password_policies(self) -> list[PasswordPolicy]:
        return [PasswordPolicy("breached", judge=self.judge)]

    async def judge(self, new_password: NewPassword) -> None:
        """Raises ``PasswordRefused``, and ``Unavailable`` where nobody can tell and ``on_failure`` is closed."""
        digest = hashlib.sha1(new_password.password.encode(), usedforsecurity=False).hexdigest().upper()
        if left := self._rest.begin():
            return self._undecided(left)
        try:
            seen = await self._seen(digest)
        except Exception as error:
            left = self._rest.failed()
            # Words where they are ours: a library's may hold what was asked.
            reason = str(error) if isinstance(error, NotTold) else type(error).__name__
            log.warning(
                "breached passwords cannot be told", reason=reason, on_failure="open" if self._open else "closed"
            )
            return self._undecided(left)
        self._rest.succeeded()
        if seen >= self._min_count:
            raise PasswordRefused("This is known from a data breach. Choose another.")
        return None

    def _undecided(self, left: float) -> None:
        if not self._open:
            raise Unavailable(left)

    async def _seen(self, digest: str) -> int:
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._timeout
        async with asyncio.timeout_at(ends):
            await self._slots.acquire()
            task = loop.create_task(self._source.seen(digest, ends - loop.time()))
            self._under_way.add(task)
            task.add_done_callback(self._ended)
            # Left to its own end, its slot kept: neither a thread nor a request that is out can be called back.
            return await asyncio.shield(task)

    def _ended(self, task: "asyncio.Task[int]") -> None:
        self._under_way.discard(task)
        self._slots.release()
        if not task.cancelled():
            task.exception()  # Seen: whoever waited may have gone.
