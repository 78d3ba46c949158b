"""Signing in to accounts that came from elsewhere."""

import asyncio
import time

from importing import BCRYPT, IMPORTED_PASSWORD, imported
from support import OpenSite, Site, refused, tokens

from hydracore.flows.account import delete_user

EMAIL = "ada@example.com"
LINE = {"email": EMAIL, "email_verified": True, "password_hash": BCRYPT}
LOGIN = {"email": EMAIL, "password": IMPORTED_PASSWORD}


async def test_the_first_sign_in(site: Site) -> None:
    """The password of before is right, no other is, and the first sign-in leaves a hash of our own in place of it."""
    report, told = await imported(site, LINE)
    assert (report.imported, told) == (1, [])
    refused(await site.post("login", {**LOGIN, "password": "U*U*U"}), 401, "invalid_credentials")
    users = site.hydra.services.store.users
    before = await users.by_address(EMAIL)
    assert before
    assert before.password_hash.startswith("$wrapped$bcrypt$5$")
    assert BCRYPT[-31:] not in before.password_hash
    grant = tokens(await site.post("login", LOGIN))
    assert (await site.me(grant["access_token"])).code == 200
    after = await users.by_address(EMAIL)
    assert after
    assert after.password_hash.startswith("$argon2id$")
    assert (after.imported, after.epoch) == (None, 0)
    tokens(await site.post("login", LOGIN))


async def test_first_sign_ins_at_once(site: Site) -> None:
    """Of ten first sign-ins at once all succeed, and one hash of ours is left."""
    await imported(site, LINE)
    await asyncio.gather(*(site.post("login", LOGIN) for _ in range(10)))
    assert [answer.code for answer in site.answers] == [200] * 10
    tokens(await site.post("login", LOGIN))


async def test_a_rehash_loses_to_a_new_password(site: Site) -> None:
    """The hash of a first sign-in does not undo a password that was set meanwhile, nor brings the old work back."""
    await imported(site, LINE)
    users = site.hydra.services.store.users
    old = await users.by_address(EMAIL)
    assert old
    assert await users.works() == ["bcrypt:32"]
    await users.reset_password(old.id, old.epoch, await site.hydra.services.passwords.hash("a new one"), "here")
    await users.rehash(old, await site.hydra.services.passwords.hash(IMPORTED_PASSWORD))
    refused(await site.post("login", LOGIN), 401, "invalid_credentials")
    tokens(await site.post("login", {**LOGIN, "password": "a new one"}))
    assert await users.works() == []


async def test_change_password(site: Site) -> None:
    """The password of before is the current one for whoever has a session."""
    await imported(site, LINE)
    user = await site.hydra.services.store.users.by_address(EMAIL)
    assert user
    grant = tokens(await site.post("login", LOGIN))
    # As where the first sign-in found no room for the hash.
    await site.hydra.services.store.users._users._collection.update_one(
        {"_id": user.id}, {"$set": {"password_hash": user.password_hash}}
    )
    held = {"Authorization": f"Bearer {grant['access_token']}"}
    change = {"current_password": IMPORTED_PASSWORD, "new_password": "an entirely new password"}
    refused(
        await site.post("change-password", {**change, "current_password": "other"}, **held), 403, "invalid_password"
    )
    tokens(await site.post("change-password", change, **held))
    tokens(await site.post("login", {**LOGIN, "password": "an entirely new password"}))


async def test_everybody_costs_as_much_while_there_are_such_accounts(site: Site) -> None:
    """A running server learns what imported accounts cost within a second, has everybody cost that, and forgets it when
    the last of them has signed in."""
    passwords = site.hydra.services.passwords

    async def learns(costs: dict[str, int]) -> None:
        deadline = time.monotonic() + 10
        while passwords._everybodys != costs and time.monotonic() < deadline:  # noqa: ASYNC110  # it is the server's own time
            await asyncio.sleep(0.02)
        assert passwords._everybodys == costs

    other = {**LINE, "email": "bob@example.com", "password_hash": BCRYPT.replace("$05$", "$04$")}
    await imported(site, LINE, other)
    await learns({"bcrypt": 32})
    tokens(await site.post("login", LOGIN))
    await learns({"bcrypt": 16})
    bob = await site.hydra.services.store.users.by_address("bob@example.com")
    assert bob
    await delete_user(site.hydra.services, bob)
    await learns({})


async def test_it_is_known_at_the_start(site: Site) -> None:
    """What is imported is known before the first request is answered."""
    await imported(site, LINE)
    site.hydra.services.passwords.equalise([])
    await site.hydra._prepare()
    assert site.hydra.services.passwords._everybodys == {"bcrypt": 32}


async def test_it_can_be_left_off(open_site: OpenSite) -> None:
    """With password.equalise off nobody pays for others."""
    site = await open_site(password={"equalise": False})
    await imported(site, LINE)
    await site.hydra._prepare()
    assert site.hydra.services.passwords._everybodys == {}
    tokens(await site.post("login", LOGIN))


async def test_a_version_of_before(site: Site) -> None:
    """A new password that a node of an older version has set is the one, and the next sign-in clears up behind it."""
    await imported(site, LINE)
    users = site.hydra.services.store.users
    user = await users.by_address(EMAIL)
    assert user
    theirs = {"$set": {"password_hash": await site.hydra.services.passwords.hash("a new one")}}
    await users._users._collection.update_one({"_id": user.id}, theirs)
    assert await users.works() == ["bcrypt:32"]
    tokens(await site.post("login", {**LOGIN, "password": "a new one"}))
    assert await users.works() == []
