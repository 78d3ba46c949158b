"""Nobody takes one of their last passwords again."""

import asyncio
import threading
from datetime import UTC, datetime
from typing import Any

import pytest
from support import DRIVERS, PASSWORD, OpenSite, Site, refused, tokens

from hydracore.flows.account import delete_user, find_user
from hydracore.plugin import (
    Account,
    HashingOverloaded,
    NewPassword,
    PasswordPolicy,
    PasswordRefused,
    StartupError,
    StoreUnavailable,
)
from hydracore.testing import PasswordPolicySuite

ADA, EVE = "ada@example.com", "eve@example.com"
OTHERS = [f"nine frozen lakes and {number} swans" for number in range(30)]


async def opened(open_site: OpenSite, *, driver: str = "pymongo", **section: Any) -> Site:
    settings = {"enabled": ["password_history"], "password_history": section}
    # Room for a hundred judgements at once.
    costs = {"profile": "testing", "hash_queue": 1000}
    return await open_site(driver=driver, plugins=settings, password=costs)


async def kept(site: Site) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await collection(site).find({}).to_list(None)
    return found


def collection(site: Site) -> Any:
    return site.hydra.services.store.collection("password_history.passwords")


def plugin(site: Site) -> Any:
    return site.hydra.registry.loaded["password_history"].plugin


async def user_of(site: Site, email: str = ADA) -> Any:
    user = await find_user(site.hydra.services, email)
    assert user
    return user


class Resets:
    """Resets of one address, one after the other; each asks for its own token, unless it still has a good one."""

    def __init__(self, site: Site, email: str = ADA) -> None:
        self._site, self._email = site, email
        self._mails = 0
        self._token = ""

    async def accepted(self, password: str) -> None:
        assert (await self.answer(password)).code == 200
        self._token = ""

    async def refused(self, password: str) -> None:
        [problem] = refused(await self.answer(password), 422, "validation_failed")
        sentence = "You have used this password before. Choose another."
        assert problem == {"loc": ["body", "new_password"], "msg": sentence, "type": "value_error"}

    async def answer(self, password: str) -> Any:
        reset = {"token": await self.token(), "new_password": password}
        return await self._site.post("reset-password", reset)

    async def token(self) -> str:
        if not self._token:
            await self._site.post("forgot-password", {"email": self._email})
            self._mails += 1
            self._token = await self._site.box.reset_token(self._email, self._mails)
        return self._token


class Hashing:
    """Hashes that are the passwords, and one collection: the plugin by itself."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.kept: Any = None

    def collection(self, name: str) -> Any:
        assert name == "password_history.passwords"
        return self.kept

    async def verify_password(self, encoded: str, password: str) -> bool:
        self.asked.append(encoded)
        return encoded == password

    async def find_account(self, email: str) -> Account:
        return Account("user1", email, True, datetime.now(UTC))


class TestThePolicy(PasswordPolicySuite):
    """It keeps the contract of a password policy."""

    @pytest.fixture(autouse=True)
    def plugin(self, make: Any) -> None:
        self._plugin = make("password_history", surroundings=Hashing())

    def make(self) -> PasswordPolicy:
        [policy] = self._plugin.hydracore_register_password_policies()
        assert isinstance(policy, PasswordPolicy)
        return policy


@pytest.mark.parametrize("driver", DRIVERS)
async def test_the_story(open_site: OpenSite, driver: str) -> None:
    """Neither the current password nor one before it is taken again, and a refusal leaves the token good."""
    site = await opened(open_site, driver=driver)
    await site.register(ADA)
    resets = Resets(site)
    await resets.refused(PASSWORD)
    await resets.accepted(OTHERS[0])
    await resets.refused(PASSWORD)
    await resets.refused(OTHERS[0])
    await resets.accepted(OTHERS[1])
    tokens(await site.post("login", {"email": ADA, "password": OTHERS[1]}))


async def test_the_oldest_comes_back(open_site: OpenSite) -> None:
    """So many are remembered, the current one included, and the one before them is accepted again."""
    site = await opened(open_site, remembered=3)
    await site.register(ADA)
    resets = Resets(site)
    for password in OTHERS[:2]:
        await resets.accepted(password)
    for password in (PASSWORD, *OTHERS[:2]):
        await resets.refused(password)
    await resets.accepted(OTHERS[2])
    for password in OTHERS[:3]:
        await resets.refused(password)
    await resets.accepted(PASSWORD)
    [document] = await kept(site)
    assert len(document["hashes"]) == 3


async def test_only_the_current_one(open_site: OpenSite) -> None:
    """With remembered = 1 two passwords may take turns."""
    site = await opened(open_site, remembered=1)
    await site.register(ADA)
    resets = Resets(site)
    for password, current in ((OTHERS[0], PASSWORD), (PASSWORD, OTHERS[0]), (OTHERS[0], PASSWORD)):
        await resets.refused(current)
        await resets.accepted(password)


async def test_whose_history(open_site: OpenSite) -> None:
    """A history is its user's alone, registration has none, and no password is in the database."""
    site = await opened(open_site)
    for email in (ADA, EVE):
        await site.register(email)
    assert await kept(site) == []
    await Resets(site).accepted(OTHERS[0])
    await Resets(site, EVE).accepted(OTHERS[0])
    documents = await kept(site)
    assert {document["_id"] for document in documents} == {(await user_of(site, email)).id for email in (ADA, EVE)}
    assert all(encoded.startswith("$argon2id$") for document in documents for encoded in document["hashes"])
    assert PASSWORD not in str(documents)


async def test_another_form_of_the_same(open_site: OpenSite) -> None:
    """A password that another keyboard writes with other code points is the same password."""
    site = await opened(open_site)
    await site.register(ADA, "Lo\u0308wenzahn und Sauerampfer")
    resets = Resets(site)
    await resets.refused("L\u00f6wenzahn und Sauerampfer")
    await resets.accepted(OTHERS[0])
    await resets.refused("L\u00f6wenzahn und Sauerampfer")


@pytest.mark.parametrize(("before", "after", "known"), [(5, 2, 2), (2, 5, 3)])
async def test_another_number(open_site: OpenSite, before: int, after: int, known: int) -> None:
    """After another ``remembered`` so many count as there are and may be."""
    site = await opened(open_site, remembered=before)
    await site.register(ADA)
    resets = Resets(site)
    for password in OTHERS[:4]:
        await resets.accepted(password)
    plugin(site)._remembered = after
    passwords = [PASSWORD, *OTHERS[:4]]
    for password in passwords[-known:]:
        await resets.refused(password)
    await resets.accepted(passwords[-known - 1])
    [document] = await kept(site)
    assert len(document["hashes"]) <= after


async def test_tries_that_race(open_site: OpenSite) -> None:
    """Fifty resets at once: one is made, and the history has what was current then, once."""
    site = await opened(open_site)
    await site.register(ADA)
    was = (await user_of(site)).password_hash
    token = await Resets(site).token()
    bodies = [{"token": token, "new_password": f"{OTHERS[0]} {number}"} for number in range(50)]
    answers = await asyncio.gather(*(site.post("reset-password", body) for body in bodies))
    assert sorted(answer.code for answer in answers) == [200] + [400] * 49
    assert await kept(site) == [{"_id": (await user_of(site)).id, "hashes": [was]}]


@pytest.mark.parametrize("driver", DRIVERS)
async def test_judgements_that_race(open_site: OpenSite, driver: str) -> None:
    """A hundred judgements of one user at once, on an empty and on a full history, keep the current hash once."""
    site = await opened(open_site, driver=driver, remembered=2)
    await site.register(ADA)
    user = await user_of(site)
    hash_password = site.hydra.services.passwords.hash
    hashes = [await hash_password(password) for password in OTHERS[:3]]
    for encoded in hashes:
        new = NewPassword(PASSWORD, ADA, user.id, encoded)
        await asyncio.gather(*(plugin(site).judge(new) for _ in range(100)))
    assert await kept(site) == [{"_id": user.id, "hashes": hashes[1:]}]


async def test_who_has_no_password(open_site: OpenSite) -> None:
    """An account without a password, and one that is being made, is judged without a trace."""
    site = await opened(open_site)
    for user_id, current in (("", ""), ("user1", ""), ("", "$argon2id$")):
        await plugin(site).judge(NewPassword(PASSWORD, ADA, user_id, current))
    assert await kept(site) == []


async def test_a_deleted_user(open_site: OpenSite) -> None:
    """The history goes with the account, and nobody else's does."""
    site = await opened(open_site)
    for email in (ADA, EVE):
        await site.register(email)
        await Resets(site, email).accepted(OTHERS[0])
    await delete_user(site.hydra.services, await user_of(site))
    await site.hydra.registry.settle()
    assert [document["_id"] for document in await kept(site)] == [(await user_of(site, EVE)).id]


async def test_a_user_who_is_deleted_meanwhile(open_site: OpenSite) -> None:
    """Judged after its account and its history were deleted, a password leaves no history behind; nor where the
    address has a new owner."""
    site = await opened(open_site)
    await site.register(ADA)
    user = await user_of(site)
    late = NewPassword(OTHERS[0], ADA, user.id, user.password_hash)
    await delete_user(site.hydra.services, user)
    await site.hydra.registry.settle()
    await plugin(site).judge(late)
    assert await kept(site) == []
    await site.register(ADA)
    await plugin(site).judge(late)
    assert await kept(site) == []


async def test_no_room_to_hash(open_site: OpenSite, expected_logs: list[str]) -> None:
    """Where the hashing pool is full there is no verdict, the answer is 503, and the token stays good."""
    expected_logs += ["unavailable"]
    site = await opened(open_site)
    await site.register(ADA)
    resets = Resets(site)
    await resets.token()
    pool, release = site.hydra.services.passwords._pool, threading.Event()
    jobs = [asyncio.ensure_future(pool.run(release.wait)) for _ in range(pool._bound)]
    await asyncio.sleep(0)
    user = await user_of(site)
    try:
        refused(await resets.answer(OTHERS[0]), 503, "overloaded")
        with pytest.raises(HashingOverloaded):
            await site.hydra.registry.judge(NewPassword(OTHERS[0], ADA, user.id, user.password_hash))
    finally:
        release.set()
        await asyncio.gather(*jobs)
    await resets.accepted(OTHERS[0])


async def test_a_hash_that_is_none(open_site: OpenSite) -> None:
    """A document that someone has spoiled refuses nobody by accident."""
    site = await opened(open_site)
    await site.register(ADA)
    await collection(site).insert_one({"_id": (await user_of(site)).id, "hashes": ["", "nonsense"]})
    resets = Resets(site)
    await resets.refused(PASSWORD)
    await resets.accepted(OTHERS[0])


async def test_database_gone(open_site: OpenSite, expected_logs: list[str]) -> None:
    """Without the database there is no verdict, and the answer is 503."""
    expected_logs += ["plugin has no database", "unavailable", "limit backend failed", "mail", "outbox", "answer"]
    site = await opened(open_site)
    await site.register(ADA)
    user = await user_of(site)
    reset = {"token": await Resets(site).token(), "new_password": OTHERS[0]}
    await site.hydra._store._close()
    refused(await site.post("reset-password", reset), 503, "store_unavailable")
    new = NewPassword(OTHERS[0], ADA, user.id, user.password_hash)
    with pytest.raises(StoreUnavailable):
        await site.hydra.registry.judge(new)


@pytest.mark.parametrize("number", [0, 25, 1.5, "5"])
def test_no_such_number(make: Any, number: Any) -> None:
    """A number out of bounds stops the start, and the message names the key."""
    with pytest.raises(StartupError, match=r"password_history\.remembered"):
        make("password_history", remembered=number)


class Kept:
    """A user's document, as the collection gives it."""

    def __init__(self, hashes: list[str]) -> None:
        self._hashes = hashes

    async def find_one_and_update(self, *what: Any, **how: Any) -> Any:
        return {"hashes": self._hashes}


async def test_the_work_is_bounded(make: Any) -> None:
    """The current one is compared first, then the newest; a match ends it, and no more are compared than may be."""
    hashing = Hashing()
    hashing.kept = Kept([f"hash{number}" for number in range(24)])
    judge = make("password_history", surroundings=hashing, remembered=3).judge
    await judge(NewPassword("new", ADA, "user1", "hash23"))
    assert hashing.asked == ["hash23", "hash22", "hash21"]
    hashing.asked.clear()
    with pytest.raises(PasswordRefused):
        await judge(NewPassword("hash22", ADA, "user1", "hash23"))
    assert hashing.asked == ["hash23", "hash22"]
