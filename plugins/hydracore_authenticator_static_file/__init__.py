"""Signs in the people of a file: for a handful of operators, a trial, or a way in while another directory is away.

::

    [login]
    authenticators = ["password", "static_file"]

    [plugins.authenticator_static_file]
    file = "/etc/hydracore/people"

The file has a person a line, ``ada@example.com:$argon2id$v=19$m=...``; blank lines and those that begin with ``#``
say nothing. An empty file will do to begin with: ``hydracore static-file hash ada@example.com`` asks for a password
and prints her line. Addresses are compared as those of accounts are, and count as verified. What a password must be is
between you and them: no policy sees it.

The file is looked at once a second at most, when someone signs in, and read again when it has changed. Replace it in
one step (``mv``), so that nobody meets half of it. While it is gone or has a flaw, what it said before stays in
force and the log says so once; at the start either stops HydraCore. Who is taken out can sign in no more; sessions that
have begun go on until ``hydracore sessions revoke``. Make hashes with ``password.*`` as it is: where theirs cost
something else, the time that a wrong password takes tells who is in the file, and the log warns of it.
"""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

from hydracore.plugin import (
    Authenticator,
    Command,
    Context,
    HealthCheck,
    Identity,
    StartupError,
    hookimpl,
    logger,
)
from hydracore_authenticator_static_file.hashing import static_file
from hydracore_authenticator_static_file.people import Flaw, read, state_of, with_other_cost

log = logger("hydracore.authenticator_static_file")

_KEY = "plugins.authenticator_static_file.file"
_LOOK_EVERY = timedelta(seconds=1)
_PATIENCE = 1.0


class AuthenticatorStaticFile:
    def __init__(self, context: Context) -> None:
        self._context = context
        if not context.config["file"]:
            raise StartupError(f"{_KEY} is not set: name the file of people, which may be empty to begin with.")
        self._file = Path(context.config["file"])
        try:
            self._state, self._people = read(self._file, context.address_key)
        except Flaw as flaw:
            raise StartupError(f"{_KEY}: {flaw}") from flaw
        self._warn_of_cost(self._people)
        self._looked_at: datetime = context.now()
        self._looking: asyncio.Task[None] | None = None

    @hookimpl
    def hydracore_register_authenticators(self) -> list[Authenticator]:
        return [Authenticator("static_file", self.authenticate)]

    @hookimpl
    def hydracore_register_commands(self) -> list[Command]:
        return [Command("static-file", static_file(self._context))]

    @hookimpl
    def hydracore_register_health_checks(self) -> list[HealthCheck]:
        return [HealthCheck("authenticator_static_file", self.check)]

    async def authenticate(self, email: str, password: str) -> Identity | None:
        """Whether the file has that password for the address. One hash is computed, whoever asks."""
        await self._look()
        right = await self._context.verify_password(self._hash_of(email), password)
        return Identity(email_verified=True) if right else None

    async def check(self) -> str:
        """What is wrong with the file as it is now."""
        try:
            await self._context.in_thread(read, self._file, self._context.address_key)
        except Flaw as flaw:
            return f"{_KEY}: {flaw}"
        return ""

    def _hash_of(self, email: str) -> str:
        try:
            return self._people.get(self._context.address_key(email), "")
        except ValueError:
            return ""  # No address, so nobody's.

    async def _look(self) -> None:
        """See whether the file has changed, if nobody has for a second. A disk that hangs holds up nobody for long,
        and one thread at most."""
        now = self._context.now()
        idle = self._looking is None or self._looking.done()
        if idle and abs(now - self._looked_at) >= _LOOK_EVERY:
            self._looked_at = now
            self._looking = asyncio.create_task(self._context.in_thread(self._read_again))
        if self._looking is not None and not self._looking.done():
            await asyncio.wait({self._looking}, timeout=_PATIENCE)

    def _read_again(self) -> None:
        state = state_of(self._file)
        if state == self._state:
            return
        # Before reading: a change that is never taken is told of once.
        self._state = state
        try:
            self._state, people = read(self._file, self._context.address_key)
        except Flaw as flaw:
            log.warning(f"{_KEY}: {flaw} Until then it counts as it was.")
            return
        self._people = people
        self._warn_of_cost(people)

    def _warn_of_cost(self, people: Mapping[str, str]) -> None:
        cost = self._context.settings.password
        if cost.profile == "standard" and (
            others := with_other_cost(people, cost.memory_kib, cost.time_cost, cost.parallelism)
        ):
            log.warning(
                f"{_KEY}: {self._file} has hashes of another cost than password.* asks for, so the time that a wrong "
                "password takes tells who is in it. Make them anew: hydracore static-file hash.",
                hashes=others,
            )
