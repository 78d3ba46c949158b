"""Accounts that come from elsewhere, many at once: by an operator, without limits, policies, mail or events."""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from types import TracebackType

from hydracore.errors import HashingOverloaded, ValidationFailed
from hydracore.flows.services import Services
from hydracore.foreign import ForeignHash
from hydracore.models import User
from hydracore.moving.lines import Draft, Lines, problems_of
from hydracore.moving.sources import Mapped
from hydracore.passwords import Stored, price
from hydracore.threads import cores

# So many accounts are held in memory, looked up and inserted at once.
BATCH = 500

# A hash that was not in time is tried again: nobody waits for it, and the machine may be busy with others' work.
_TRIES = 30
_PAUSE = 1.0

_Placed = tuple[str, Draft]


@dataclass
class Report:
    """What became of how many. ``passwords`` counts the hashes by their schemes, ``left_out`` what no plugin takes into
    the profile, ``unknown_roles`` those that are kept, and count for nothing while ``roles.known`` lacks them."""

    read: int = 0
    imported: int = 0
    there: int = 0
    differing: int = 0
    refused: int = 0
    no_accounts: int = 0
    passwords: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    unknown_roles: Counter[str] = field(default_factory=Counter)

    @property
    def whole(self) -> bool:
        """Whether every account of the file is there, as the file has it."""
        return not (self.differing or self.refused)


class Import(AbstractContextManager["Import"]):
    """One run over a file. ``tell`` gets a sentence about each line that is not imported, with its place in front. What
    is there already is looked up before the work is done for nothing, but the unique indexes decide, whatever else
    goes on: a run that was broken off is run again. ``dry`` changes nothing."""

    def __init__(self, services: Services, tell: Callable[[str], None], *, dry: bool) -> None:
        self.report = Report()
        self._services = services
        self._lines = Lines(services.registry.members.values(), services.now, services.token)
        self._tell = tell
        self._dry = dry
        # Enough to keep the threads busy; what waits for them has a deadline, and there may be no room to wait in.
        enough = 2 * (services.settings.password.hash_threads or cores())
        self._turns = asyncio.Semaphore(min(enough, services.passwords.capacity))
        self._seen = _Seen()
        self._works: set[str] = set()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._seen.close()

    async def take(self, batch: Sequence[Mapped]) -> None:
        """The next :data:`BATCH` or fewer. Raises :class:`StoreUnavailable`, and :class:`HashingOverloaded` where the
        machine is too busy for half a minute: of this batch some may be there."""
        drafts = [(each.place, draft) for each in batch if (draft := self._draft(each))]
        new = await self._told_apart([each for each in drafts if self._is_first(*each)])
        if self._dry:
            self.report.imported += len(new)
            return
        users = await asyncio.gather(*(self._user(draft) for _, draft in new))
        refused = {user.id for user in await self._services.store.users.add_all(users)} if users else set()
        self.report.imported += len(users) - len(refused)
        # Somebody else was quicker.
        for place, _ in await self._told_apart([each for each in new if each[1].user.id in refused]):
            self._refuse(place, "Another account had the id or the address for a moment: run the import again.")

    def _draft(self, mapped: Mapped) -> Draft | None:
        self.report.read += 1
        self.report.left_out.update(mapped.leaves_out)
        if mapped.problem:
            self._refuse(mapped.place, mapped.problem)
            return None
        if mapped.no_account:
            self.report.no_accounts += 1
            return None
        try:
            return self._lines.draft(mapped.line)
        except ValidationFailed as error:
            self._refuse(mapped.place, *problems_of(error))
            return None

    def _is_first(self, place: str, draft: Draft) -> bool:
        """Whether no line before has the id, or one of the addresses."""
        claims = [f"id {draft.user.id}", *(f"address {key}" for key in draft.keys)]
        if earlier := self._seen.claim(place, claims):
            self._refuse(place, f"{earlier[1].partition(' ')[0]}: It is that of {earlier[0]}.")
        else:
            self.report.passwords[self._kind(draft)] += 1
            known = self._services.settings.roles.known
            self.report.unknown_roles.update(role for role in draft.user.roles if role not in known)
            self._works.add(self._work(draft))
        return not earlier

    async def _told_apart(self, drafts: Sequence[_Placed]) -> list[_Placed]:
        """Those of which nothing is there; the others are counted and told of."""
        if not drafts:
            return []
        keys = [key for _, draft in drafts for key in draft.keys]
        found = await self._services.store.users.taking(keys, [draft.user.id for _, draft in drafts])
        by_key = {user.address_key: user for user in found}
        kept = {entry["key"]: user for user in found for entry in user.addresses}
        ids = {user.id for user in found}
        new: list[_Placed] = []
        for place, draft in drafts:
            if there := by_key.get(draft.user.address_key):
                self._compare(place, draft, there)
            elif draft.user.id in ids:
                self._refuse(place, "id: Another account has it.")
            elif any(key in kept or key in by_key for key in draft.keys):
                self._refuse(place, "email: An address of it is kept for another account.")
            else:
                new.append((place, draft))
        return new

    def _compare(self, place: str, draft: Draft, there: User) -> None:
        self.report.there += 1
        if members := list(_differing(draft, there)):
            self.report.differing += 1
            self._tell(f"{place}: The account is there, and differs in {', '.join(members)}. It is left as it is.")

    async def price(self) -> float:
        """How many seconds longer every sign-in takes for what was taken, until its owners have signed in; no more than
        ``password.hash_timeout`` and a little is counted."""
        password = self._services.settings.password
        return await asyncio.to_thread(price, self._works, password.hash_timeout) if password.equalise else 0.0

    async def _user(self, draft: Draft) -> User:
        work = self._work(draft)
        user = replace(draft.user, imported={"work": work} if work else None)
        if draft.wrapped:
            return replace(user, password_hash=str(draft.wrapped))
        if draft.foreign is None:
            return user
        async with self._turns:
            return replace(user, password_hash=await self._wrapped(draft.foreign))

    def _work(self, draft: Draft) -> str:
        if draft.wrapped and draft.wrapped.foreign:
            return str(draft.wrapped.foreign.work)
        return self._services.passwords.work(draft.foreign) if draft.foreign else ""

    async def _wrapped(self, foreign: ForeignHash) -> str:
        for _ in range(_TRIES - 1):
            try:
                return await self._services.passwords.wrap(foreign)
            except HashingOverloaded:
                await asyncio.sleep(_PAUSE)
        return await self._services.passwords.wrap(foreign)

    def _kind(self, draft: Draft) -> str:
        if draft.wrapped and draft.wrapped.foreign:
            return f"{draft.wrapped.foreign.scheme}, wrapped already"
        if draft.foreign is None:
            return "none"
        return "argon2id, kept" if self._services.passwords.keeps(draft.foreign) else draft.foreign.foreign.scheme

    def _refuse(self, place: str, *problems: str) -> None:
        self.report.refused += 1
        for problem in problems:
            self._tell(f"{place}: {problem}")


def _differing(draft: Draft, there: User) -> Iterator[str]:
    """The members of the line that are otherwise in the account. Where it has been signed in from is no difference, and
    no password that was set, or hashed anew, since."""
    pairs = {
        "id": (draft.user.id, there.id),
        "email": (draft.user.email, there.email),
        "email_verified": (draft.user.email_verified, there.email_verified),
        "created_at": (draft.user.created_at, there.created_at),
        "disabled": (draft.user.disabled, there.disabled),
        "authenticator": (draft.user.authority, there.authority),
        "language": (draft.user.language, there.language),
        "profile": (dict(draft.user.profile), dict(there.profile)),
        "roles": (list(draft.user.roles), list(there.roles)),
    }
    yield from (name for name, (one, other) in pairs.items() if name in draft.given and one != other)
    if "password_hash" in draft.given and not _is_same_password(draft, there.password_hash):
        yield "password_hash"


def _is_same_password(draft: Draft, encoded: str) -> bool:
    wanted = draft.wrapped or (draft.foreign and Stored("", draft.foreign.foreign))
    if wanted is None:
        return not Stored.is_wrapped(encoded)
    if not Stored.is_wrapped(encoded):
        return bool(encoded)
    # The salt is part of it: another password would have another one.
    return Stored.parse(encoded).foreign == wanted.foreign


class _Seen:
    """Which lines have claimed what, in a private file that goes with it: memory does not grow with the import."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("")
        self._database.execute("CREATE TABLE claims (claim TEXT PRIMARY KEY, place TEXT) WITHOUT ROWID")

    def claim(self, place: str, claims: Sequence[str]) -> tuple[str, str] | None:
        """The place that has one of them already, and which; otherwise they are this one's."""
        for claim in claims:
            found = self._database.execute("SELECT place FROM claims WHERE claim = ?", (claim,)).fetchone()
            if found:
                return found[0], claim
        self._database.executemany("INSERT OR IGNORE INTO claims VALUES (?, ?)", [(claim, place) for claim in claims])
        return None

    def close(self) -> None:
        self._database.close()
