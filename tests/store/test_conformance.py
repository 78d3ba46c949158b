"""One suite for every driver; the real mongod is the judge."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support import DRIVERS
from tornado.ioloop import IOLoop

from hydracore.errors import EmailTaken, StartupError, StoreUnavailable
from hydracore.models import (
    Address,
    AdminToken,
    AuditEntry,
    Backlog,
    Closing,
    Code,
    Former,
    MailIntent,
    Session,
    SigningKey,
    User,
)
from hydracore.records import Collection, Index
from hydracore.store import Store

# Ahead of the clock: mongomock hides at once what its TTL index would delete.
NOW = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
LATER = NOW + timedelta(hours=1)


@pytest.fixture(params=DRIVERS)
def store(io_loop: IOLoop, request: pytest.FixtureRequest) -> Iterator[Store]:
    driver: str = request.param
    uri = "" if driver == "memory" else request.getfixturevalue("mongod_uri")
    opened = Store(driver=driver, database=f"conformance_{driver}", timeout=10)

    async def start() -> None:
        opened.open(uri)
        await opened.ensure()
        for name in ("users", "sessions", "codes", "outbox", "keys", "admin_tokens", "audit"):
            await opened.collection(name).delete_many({})

    io_loop.run_sync(start)
    yield opened
    io_loop.run_sync(opened.close)


def user(number: int = 1, **changes: Any) -> User:
    values = {"address_key": f"u{number}@example.com", "email": f"u{number}@example.com"} | changes
    return User(id=f"user{number}", password_hash="hash", created_at=NOW + timedelta(seconds=number), **values)


def session(number: int = 1, **changes: Any) -> Session:
    values = {"epoch": 0, "generation": 1, "ends_at": LATER, "expires_at": LATER} | changes
    return Session(id=f"s{number}", user_id="user1", created_at=NOW, rotated_at=NOW, **values)


async def test_users_come_back_as_they_went(store: Store) -> None:
    """A user is read as it was written, by id and by address."""
    assert await store.users.add(user())
    assert await store.users.by_id("user1") == user()
    assert await store.users.by_address("u1@example.com") == user()
    assert await store.users.by_id("nobody") is None


async def test_roles_build_upon_what_was_read(store: Store) -> None:
    """Of 20 changes that were all made of one reading, one is done; a document without the member counts as one without
    roles."""
    assert await store.users.add(user())
    done = await asyncio.gather(*(store.users.set_roles("user1", [], [f"r{number}"]) for number in range(20)))
    [changed] = [each for each in done if each]
    assert await store.users.set_roles("user1", changed.roles, []) == user()
    await store.collection("users").update_one({"_id": "user1"}, {"$unset": {"roles": ""}})
    assert await store.users.by_id("user1") == user()
    assert await store.users.set_roles("user1", ["r"], ["q"]) is None
    assert await store.users.set_roles("user1", [], ["q", "r"]) == user(roles=["q", "r"])
    assert await store.users.add(user(2, roles=["r"]))
    assert [each.id for each in await store.users.page(None, 10, "r")] == ["user1", "user2"]
    assert [each.id for each in await store.users.page(user(), 10, "r")] == ["user2"]
    assert await store.users.page(None, 10, "x") == []


async def test_one_user_an_address(store: Store) -> None:
    """Of 50 users with one address at once, one is added: the unique index decides."""
    added = await asyncio.gather(*(store.users.add(user(n, address_key="same@example.com")) for n in range(50)))
    assert Counter(added) == {True: 1, False: 49}


async def test_pages(store: Store) -> None:
    """Pages follow each other without gap or overlap, in the order of creation."""
    for number in range(7):
        await store.users.add(user(number))
    seen: list[str] = []
    last = None
    while page := await store.users.page(last, 3):
        seen += [found.id for found in page]
        last = page[-1]
    assert seen == [f"user{number}" for number in range(7)]


async def test_epoch_guards(store: Store) -> None:
    """Of 50 resets of one epoch at once, one goes through; one of an older epoch never does."""
    await store.users.add(user())
    done = await asyncio.gather(*(store.users.reset_password("user1", 0, f"hash{n}", "here") for n in range(50)))
    winners = [found for found in done if found]
    assert len(winners) == 1
    now = await store.users.by_id("user1")
    assert now == winners[0]
    assert (now.epoch, now.email_verified) == (1, True)
    assert await store.users.reset_password("user1", 0, "late", "here") is None


async def test_verified_once(store: Store) -> None:
    """Of 50 verifications at once, one goes through."""
    await store.users.add(user())
    done = await asyncio.gather(*(store.users.mark_verified("user1", 0, end_sessions=True) for _ in range(50)))
    assert [found.epoch for found in done if found] == [1]


async def test_disabled_users_change_nothing(store: Store) -> None:
    """A disabled account is neither verified nor reset; disabling and enabling move the epoch once."""
    await store.users.add(user())
    await store.users.disable("user1")
    assert await store.users.mark_verified("user1", 1, end_sessions=False) is None
    assert await store.users.reset_password("user1", 1, "new", "here") is None
    enabled = await store.users.enable("user1")
    assert enabled
    assert (enabled.epoch, enabled.disabled) == (1, False)
    assert await store.users.condemn("user1", NOW)
    assert await store.users.delete_closed("user1", NOW)
    assert await store.users.delete_closed("user1", NOW) is None


async def test_rehash_loses_to_a_new_password(store: Store) -> None:
    """A rehash of the old password does not undo a reset."""
    old = user()
    await store.users.add(old)
    await store.users.reset_password("user1", 0, "new", "here")
    await store.users.rehash(old, "old, dearer")
    now = await store.users.by_id("user1")
    assert now
    assert now.password_hash == "new"


async def test_many_users_at_once(store: Store) -> None:
    """Of many users those are told that were not added, for their address or their id, and the others are there; who
    has what is found by addresses and ids."""
    await store.users.add(user(1))
    same_address, same_id = user(2, address_key="u1@example.com"), user(1, address_key="u4@example.com")
    added = [user(number) for number in (3, 5)]
    refused = await store.users.add_all([added[0], same_address, added[1]])
    assert refused == [same_address]
    assert await store.users.add_all([same_id]) == [same_id]
    found = await store.users.taking(["u3@example.com", "u4@example.com"], ["user1", "nobody"])
    assert sorted(found, key=lambda one: one.id) == [user(1), added[0]]


async def test_work_of_imported_hashes(store: Store) -> None:
    """What imported hashes cost is told, each cost once, until the last of them is replaced by whatever sets another
    password."""
    imported = [replace(user(number), imported={"work": f"bcrypt:{number % 2}"}) for number in range(5)]
    assert await store.users.add_all(imported) == []
    await store.users.add(user(7))
    assert sorted(await store.users.works()) == ["bcrypt:0", "bcrypt:1"]
    await store.users.rehash(imported[0], "new")
    await store.users.reset_password("user2", 0, "new", "here")
    await store.users.change_password("user4", 0, "new", "here")
    assert await store.users.works() == ["bcrypt:1"]
    await store.users.take_over("user1", 0, "directory")
    changed = await store.users.change_address(imported[3], Address("new@example.com", "new@example.com"), [former(1)])
    assert changed
    assert await store.users.bring_back(changed, former(1), ())
    assert await store.users.works() == []


def former(number: int, ends: datetime = LATER) -> Former:
    return Former(f"old{number}@example.com", f"old{number}@example.com", "nonce", f"digest{number}", ends)


async def test_condemned(store: Store) -> None:
    """An account that an operator deletes is closed first, and over at once: nobody opens it, by no token of before,
    and what is not told yet keeps it."""
    notice = {"id": "n1", "at": NOW, "type": "user.disabled", "data": {"user_id": "user1"}}
    await store.users.add(user())
    await store.users.change_address(user(), Address("new@example.com", "new@example.com"), [former(1)])
    assert await store.users.by_former(["digest1"], NOW)
    assert await store.users.condemn("user1", NOW)
    assert await store.users.by_former(["digest1"], NOW) is None
    assert await store.users.reopen("user1", "", NOW) is None
    again = await store.users.condemn("user1", LATER)
    assert again
    assert again.closed == Closing("", "", NOW)
    told = await store.users.say_over("user1", NOW, [notice])
    assert told
    assert [each.type for each in told.notices] == ["user.disabled"]
    assert await store.users.delete_closed("user1", NOW, told=True) is None
    assert [each.id for each in await store.users.untold(NOW, 10)] == ["user1"]
    await store.users.told(["user1"], ["n1"])
    assert await store.users.untold(NOW, 10) == []
    assert await store.users.delete_closed("user1", NOW, told=True)
    assert await store.users.condemn("user1", NOW) is None


async def test_addresses_change_once(store: Store) -> None:
    """Of 50 changes of one epoch at once, one goes through; and of 50 that bring the address back, one."""
    await store.users.add(user())
    new = [Address(f"new{number}@example.com", f"new{number}@example.com") for number in range(50)]
    done = await asyncio.gather(*(store.users.change_address(user(), address, [former(1)]) for address in new))
    [changed] = [found for found in done if found]
    assert (changed.epoch, changed.formers(NOW)) == (1, [former(1)])
    assert await store.users.by_former(["digest1"], NOW) == changed
    assert await store.users.by_former(["digest1"], LATER) is None
    done = await asyncio.gather(*(store.users.bring_back(changed, former(1), ()) for _ in range(50)))
    [back] = [found for found in done if found]
    assert (back.email, back.epoch, back.password_hash, back.formers(NOW)) == ("old1@example.com", 2, "", [])


async def test_addresses_are_of_one_account(store: Store) -> None:
    """An account changes to none that another has. Where the server has unique indexes over lists, which mongomock has
    not, it is added with none, and changes to none, that is kept for another, until that is let go of."""
    for number in (1, 2):
        await store.users.add(user(number))
    with pytest.raises(EmailTaken):
        await store.users.change_address(user(), Address("u2@example.com", "u2@example.com"), [])
    await store.users.change_address(user(), Address("new@example.com", "new@example.com"), [former(1)])
    kept = Address(former(1).email, former(1).key)
    if store._driver != "memory":
        assert not await store.users.add(user(3, address_key=kept.key))
        with pytest.raises(EmailTaken):
            await store.users.change_address(user(2), kept, [])
    found = await store.users.holding(kept.key)
    assert found
    assert found.id == "user1"
    assert await store.users.release(NOW) == 0
    assert await store.users.release(LATER) == 1
    assert await store.users.holding(kept.key) is None
    assert await store.users.change_address(user(2), kept, [])


async def test_closed_accounts(store: Store) -> None:
    """Of 50 closings at once one goes through; until the end one of 50 opens the account again, and from the end on
    none does, and one deletes it. An operator's word ends it."""
    closing = Closing("nonce", "digest", LATER)
    await store.users.add(user())
    done = await asyncio.gather(*(store.users.close(user(), closing) for _ in range(50)))
    [closed] = [found for found in done if found]
    assert (closed.disabled, closed.closed, closed.epoch) == (True, closing, 1)
    assert await store.users.by_closing(["digest"], NOW) == closed
    assert await store.users.delete_closed("user1", NOW) is None
    done = await asyncio.gather(*(store.users.reopen("user1", "digest", NOW) for _ in range(50)))
    [opened] = [found for found in done if found]
    assert (opened.disabled, opened.closed) == (False, None)
    assert await store.users.close(opened, closing)
    assert await store.users.by_closing(["digest"], LATER) is None
    assert await store.users.reopen("user1", "digest", LATER) is None
    assert await store.users.over(NOW, 10) == []
    assert [found.id for found in await store.users.over(LATER, 10)] == ["user1"]
    for word, disabled in ((store.users.enable, False), (store.users.disable, True)):
        said = await word("user1")
        assert said
        assert (said.disabled, said.closed) == (disabled, None)
        assert await store.users.delete_closed("user1", LATER) is None
        again = await store.users.enable("user1")
        assert again
        assert await store.users.close(again, closing)
    done = await asyncio.gather(*(store.users.delete_closed("user1", LATER) for _ in range(50)))
    assert len([found for found in done if found]) == 1


async def test_own_sessions(store: Store) -> None:
    """Those of an account and an epoch that are live are found, the latest used first, and ended one by one or but
    for one; others' are not."""
    for number, moved in enumerate((0, 30, 10)):
        await store.sessions.add(replace(session(number), rotated_at=NOW + timedelta(seconds=moved)))
    await store.sessions.add(session(3, epoch=1))
    await store.sessions.add(session(4, ends_at=NOW))
    await store.sessions.add(replace(session(5), user_id="user2"))
    assert [found.id for found in await store.sessions.of_user("user1", 0, NOW, 10)] == ["s1", "s2", "s0"]
    assert [found.id for found in await store.sessions.of_user("user1", 0, NOW, 2)] == ["s1", "s2"]
    for number in (3, 4, 5):
        assert await store.sessions.end_own(f"s{number}", "user1", 0, NOW) is None
    done = await asyncio.gather(*(store.sessions.end_own("s0", "user1", 0, NOW) for _ in range(50)))
    assert len([found for found in done if found]) == 1
    assert await store.sessions.end_others("s1", "user1", 0, NOW) == 1
    assert await store.sessions.live("s1", NOW)
    assert await store.sessions.live("s5", NOW)


async def test_sessions_advance_once(store: Store) -> None:
    """Of 50 advances from one generation at once, one moves the session; all find it as it is then, with its user."""
    await store.users.add(user())
    await store.sessions.add(session())
    done = await asyncio.gather(*(store.sessions.advance("s1", 1, NOW, LATER) for _ in range(50)))
    assert [found.moved for found in done].count(True) == 1
    assert [(found.session and found.session.generation, found.user) for found in done] == [(2, user())] * 50
    found = await store.sessions.advance("s1", 1, NOW, LATER)
    assert found.session
    assert (found.session.generation, found.moved) == (2, False)


async def test_what_is_no_text(store: Store) -> None:
    """Nothing has a key that cannot be written, and who asks for it fails nobody else."""
    await store.users.add(user())
    found = await asyncio.gather(*(store.users.by_id(key) for key in ("user1", "\ud800")))
    assert found == [user(), None]


async def test_sessions_advance_beside_others(store: Store) -> None:
    """Who asks at once shares an operation, and nothing else: each has their own session moved, from where and with
    what they are, and those that are too late, ended or nobody's are told so."""
    await store.users.add(user())
    for number in range(1, 5):
        ends = NOW if number == 4 else LATER
        await store.sessions.add(replace(session(number, ends_at=ends), generation=number))
    asked = [("s1", 1), ("s2", 2), ("s3", 2), ("s4", 4), ("s9", 1), ("s1", 2), ("s2", 2)]
    done = await asyncio.gather(
        *(store.sessions.advance(key, generation, NOW, LATER, f"n{at}") for at, (key, generation) in enumerate(asked))
    )
    assert done[0].moved
    assert [found.session and found.session.id for found in done] == ["s1", "s2", "s3", None, None, "s1", "s2"]
    assert [done[at].moved for at in (2, 3, 4)] == [False, False, False]
    # Two steps of one session in a row, in whatever order they came; two that are the same step.
    assert done[5].moved or not done[5].session or done[5].session.generation == 2
    assert [done[1].moved, done[6].moved].count(True) == 1
    assert [await store.sessions.live(f"s{number}", NOW) for number in (3, 4)] == [
        replace(session(3), generation=3),
        None,
    ]
    for at in (1, 6):
        if done[at].moved:
            kept = await store.sessions.live("s2", NOW)
            assert kept
            assert (kept.generation, kept.network, kept.rotated_at, kept.expires_at) == (3, f"n{at}", NOW, LATER)


@pytest.mark.parametrize("others", [(), (("s2", 7), ("s9", 1))], ids=["alone", "beside who is too late"])
async def test_sessions_advance_who_moved(
    store: Store, others: Sequence[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has moved a session knows it, also where others have moved it on before it was looked at again."""
    await store.users.add(user())
    for number in (1, 2):
        await store.sessions.add(session(number))
    look = store.sessions.with_user

    async def later(session_id: str, now: datetime) -> Any:
        if session_id == "s1":
            monkeypatch.undo()
            for generation in (2, 3):
                assert (await store.sessions.advance("s1", generation, NOW, LATER)).moved
        return await look(session_id, now)

    monkeypatch.setattr(store.sessions, "with_user", later)
    asked = [("s1", 1), *others]
    done = await asyncio.gather(*(store.sessions.advance(*each, NOW, LATER) for each in asked))
    assert done[0].session
    assert (done[0].moved, done[0].session.generation) == (True, 2)
    assert not any(found.moved for found in done[1:])
    kept = await store.sessions.live("s1", NOW)
    assert kept
    assert (kept.generation, len(kept.marks)) == (4, 3)


async def test_sessions_end(store: Store) -> None:
    """A session past either of its ends is gone for every query, deleted or not; one caller ends a live one."""
    await store.sessions.add(session(1, expires_at=NOW))
    await store.sessions.add(session(2, ends_at=NOW))
    await store.sessions.add(session(3))
    for number in (1, 2):
        assert await store.sessions.live(f"s{number}", NOW) is None
        assert await store.sessions.advance(f"s{number}", 1, NOW, LATER) == (None, None, False)
    assert await store.sessions.live("s3", NOW) == session(3)
    done = await asyncio.gather(*(store.sessions.end("s3") for _ in range(50)))
    assert len([found for found in done if found]) == 1
    await store.sessions.add(session(4, epoch=1))
    assert await store.sessions.end_epochs_before("user1", 1) == 2
    assert await store.sessions.end_all("user1") == 1


async def test_a_session_with_its_user(store: Store) -> None:
    """Both come together, and neither waits for the other; a session that has ended is none."""
    await store.users.add(user())
    for number, ends in ((1, 0), (2, 60)):
        end = NOW + timedelta(seconds=ends)
        await store.sessions.add(session(number, expires_at=end))
    assert await store.sessions.live_with_user("s2", "user1", NOW) == (session(2, expires_at=end), user())
    assert await store.sessions.live_with_user("s1", "user1", NOW) == (None, user())
    assert (await store.sessions.live_with_user("s2", "nobody", NOW))[1] is None
    assert await store.sessions.live_with_user("s9", "nobody", NOW) == (None, None)
    assert await store.sessions.with_user("s2", NOW) == (session(2, expires_at=end), user())
    assert await store.sessions.with_user("s1", NOW) == (None, None)
    await store.sessions.add(replace(session(3), user_id="nobody"))
    assert await store.sessions.with_user("s3", NOW) == (replace(session(3), user_id="nobody"), None)


async def test_sessions_with_their_users_at_once(store: Store) -> None:
    """Of many who ask at once each gets their own, whatever the others get, and at their own time or a later one."""
    people = [replace(user(), id=f"user{number}", address_key=f"{number}@x.test") for number in range(40)]
    assert await store.users.add_all(people) == []
    for number in range(40):
        ends = NOW + timedelta(seconds=number)
        await store.sessions.add(replace(session(number, expires_at=ends), user_id=f"user{number}"))
    now = NOW + timedelta(seconds=9)
    both = await asyncio.gather(
        *(store.sessions.live_with_user(f"s{number}", f"user{number}", now) for number in range(40)),
        store.sessions.live_with_user("s20", "user30", now),
    )
    for number, (found, whose) in enumerate(both[:40]):
        assert (found.id if found else None) == (f"s{number}" if number > 9 else None)
        assert whose
        assert whose.id == f"user{number}"
    assert [each and each.id for each in both[40]] == ["s20", "user30"]
    alone = await asyncio.gather(*(store.sessions.with_user(f"s{number}", now) for number in range(40)))
    for number, (found, whose) in enumerate(alone):
        assert (found and found.id, whose and whose.id) == (
            (f"s{number}", f"user{number}") if number > 9 else (None, None)
        )
    found_users = await asyncio.gather(*(store.users.by_id(f"user{number}") for number in range(60)))
    assert [each.id if each else None for each in found_users] == [f"user{n}" if n < 40 else None for n in range(60)]


def code(**changes: Any) -> Code:
    values: dict[str, Any] = {"id": "verification:x", "kind": "verification", "digest": "d", "expires_at": LATER}
    return Code(user_id="user1", epoch=0, **{**values, **changes})


async def test_tries_are_counted(store: Store) -> None:
    """Fifty tries at once are counted one to fifty, on a code that is there and on none; a new code starts anew."""
    await store.codes.put(code())
    for name in ("verification:x", "verification:nobody"):
        tries = await asyncio.gather(*(store.codes.count_try(name, LATER) for _ in range(50)))
        assert sorted(found.tries for found in tries) == list(range(1, 51))
    assert tries[0].digest == ""
    await store.codes.put(code(digest="new"))
    assert (await store.codes.count_try("verification:x", LATER)).tries == 1


async def test_parallel_puts(store: Store) -> None:
    """Twenty new codes at once leave one."""
    await asyncio.gather(*(store.codes.put(code(digest=str(n))) for n in range(20)))
    assert await store.collection("codes").count_documents({}) == 1


async def test_resets_are_found_by_kind_and_time(store: Store) -> None:
    """A reset token is found while it lives, and no code of another kind ever is."""
    await store.codes.put(code(id="reset:d", kind="reset"))
    await store.codes.put(code(id="verification:e", digest="e"))
    assert await store.codes.reset(["d"], NOW) == code(id="reset:d", kind="reset")
    assert await store.codes.reset(["d"], LATER) is None
    assert await store.codes.reset(["e"], NOW) is None
    assert await store.codes.drop_kind("user1", "reset") == 1
    assert await store.codes.drop_all("user1") == 1


def intent(number: int = 1, **changes: Any) -> MailIntent:
    values: dict[str, Any] = {"created_at": NOW, "due_at": NOW + timedelta(seconds=number)}
    return MailIntent(f"i{number}", "verify_email", "u@example.com", **{**values, **changes})


async def test_leases(store: Store) -> None:
    """Of 50 workers at once, one leases an intent; when its lease ends it is due again, and the first has lost it."""
    await store.outbox.add(intent())
    leases = await asyncio.gather(*(store.outbox.lease(f"w{n}", LATER, LATER + timedelta(1)) for n in range(50)))
    first = next(found for found in leases if found)
    assert len([found for found in leases if found]) == 1
    assert first.attempts == 1
    second = await store.outbox.lease("again", LATER + timedelta(1), LATER + timedelta(2))
    assert second
    assert second.attempts == 2
    assert not await store.outbox.seal(first, b"sealed", LATER)
    await store.outbox.done(first)
    assert await store.outbox.seal(second, b"sealed", LATER)
    [kept] = await store.outbox.list(10)
    assert (kept.sealed, kept.sealed_until) == (b"sealed", LATER)
    await store.outbox.done(second)
    assert await store.outbox.list(10) == []


async def test_leases_come_in_order(store: Store) -> None:
    """What is due longest goes first, and what is not due waits."""
    for number in (3, 1, 2):
        await store.outbox.add(intent(number))
    now = NOW + timedelta(seconds=2)
    taken = [await store.outbox.lease("w", now, LATER) for _ in range(3)]
    assert [found.id if found else None for found in taken] == ["i1", "i2", None]


async def test_dead_letters(store: Store) -> None:
    """A dead letter holds no secret, is not leased, and is due again when it is revived."""
    await store.outbox.add(intent())
    leased = await store.outbox.lease("w", LATER, LATER + timedelta(1))
    assert leased
    await store.outbox.seal(leased, b"secret", LATER)
    await store.outbox.bury(leased, "550")
    assert await store.outbox.lease("w", LATER + timedelta(9), LATER + timedelta(10)) is None
    [dead] = await store.outbox.list(10)
    assert (dead.dead, dead.error, dead.sealed) == (True, "550", None)
    assert await store.outbox.revive("nothing", LATER) == 0
    assert await store.outbox.revive(None, LATER) == 1
    again = await store.outbox.lease("w", LATER, LATER + timedelta(1))
    assert again
    assert again.attempts == 1


async def test_backlog(store: Store) -> None:
    """The backlog is what waits, due or not, what is dead, and how late the latest is that nobody has leased."""
    assert await store.outbox.backlog(NOW) == Backlog(0, 0, 0.0)
    for number in range(1, 6):
        await store.outbox.add(intent(number))
    taken = await store.outbox.lease("w", LATER, LATER + timedelta(1))
    assert taken
    assert await store.outbox.backlog(NOW + timedelta(seconds=12)) == Backlog(5, 0, 10.0)
    await store.outbox.bury(taken, "550")
    assert await store.outbox.backlog(NOW) == Backlog(4, 1, 0.0)


async def test_released_leases_do_not_count(store: Store) -> None:
    """An attempt that was given back unused is none."""
    await store.outbox.add(intent())
    leased = await store.outbox.lease("w", LATER, LATER + timedelta(1))
    assert leased
    await store.outbox.release(leased, LATER)
    again = await store.outbox.lease("w", LATER, LATER + timedelta(1))
    assert again
    assert again.attempts == 1
    await store.outbox.defer(again, LATER + timedelta(1), "later")
    assert await store.outbox.lease("w", LATER, LATER + timedelta(1)) is None


async def test_one_key_a_sequence(store: Store) -> None:
    """Of ten nodes that add a key of one sequence number at once, one does."""
    keys = [SigningKey(f"kid{n}", 1, "ES256", {"kty": "EC"}, b"sealed", NOW, NOW) for n in range(10)]
    added = await asyncio.gather(*(store.keys.add(key) for key in keys))
    assert Counter(added) == {True: 1, False: 9}
    await store.keys.add(SigningKey("second", 2, "ES256", {}, b"", NOW, NOW))
    await store.keys.retire(2, LATER)
    await store.keys.retire(2, LATER + timedelta(1))
    assert [key.expires_at for key in await store.keys.all()] == [LATER, None]
    await store.keys.purge(LATER)
    assert [key.kid for key in await store.keys.all()] == ["second"]


async def test_keys_that_are_cut_short(store: Store) -> None:
    """Keys of before end at the moment given, those without an end and those with a later one; earlier ends stay."""
    for sequence, end in enumerate((NOW, LATER + timedelta(1), None, None), 1):
        await store.keys.add(SigningKey(f"kid{sequence}", sequence, "ES256", {}, b"", NOW, NOW, end))
    await store.keys.cut_short(4, LATER)
    assert [key.expires_at for key in await store.keys.all()] == [NOW, LATER, LATER, None]


async def test_ensuring_is_repeatable(store: Store) -> None:
    """Many nodes may ensure the indexes at once and again, and then the store is ready."""
    await asyncio.gather(*(store.ensure() for _ in range(5)))
    assert await store.not_ready() == ""


async def test_unknown_members_of_documents(store: Store) -> None:
    """A document of a newer version, with members that this one does not know, is read."""
    await store.users.add(user())
    await store.collection("users").update_one({"_id": "user1"}, {"$set": {"new_member": 1}})
    assert await store.users.by_id("user1") == user()


@pytest.mark.parametrize("driver", ["pymongo", "motor"])
async def test_two_nodes_on_an_empty_database(mongod_uri: str, driver: str) -> None:
    """Two nodes that start at once on an empty database both find it whole."""
    stores = [Store(driver=driver, database=f"empty_{driver}", timeout=10) for _ in range(2)]
    for opened in stores:
        opened.open(mongod_uri)
    await asyncio.gather(*(opened.ensure() for opened in stores))
    assert [await opened.not_ready() for opened in stores] == ["", ""]
    for opened in stores:
        await opened.close()


@pytest.mark.parametrize("driver", ["pymongo", "motor"])
async def test_database_gone(driver: str, tmp_path: Any) -> None:
    """Without a database every verb is StoreUnavailable, within the deadline."""
    gone = Store(driver=driver, database="x", timeout=1)
    gone.open(f"mongodb://{str(tmp_path / 'no.sock').replace('/', '%2F')}")
    for attempt in (gone.users.by_id("x"), gone.users.add(user()), gone.sessions.end("x"), gone.ensure()):
        with pytest.raises(StoreUnavailable):
            await asyncio.wait_for(attempt, 5)
    assert await gone.not_ready() == "the database does not answer"
    await gone.close()


async def test_writes_are_durable(mongod_uri: str) -> None:
    """What a client is told is acknowledged by most members, from their journals."""
    store = Store(driver="pymongo", database="durable", timeout=5)
    store.open(mongod_uri)
    for name in ("users", "sessions", "codes", "outbox", "keys", "admin_tokens", "audit"):
        assert store.collection(name).write_concern.document == {"w": "majority", "j": True}
    await store.close()


def test_plugins_cannot_take_our_collections() -> None:
    """A plugin's collection with a name of ours stops the start and is named."""
    with pytest.raises(StartupError, match="users"):
        Store(driver="memory", database="x", timeout=1, collections=[Collection("users", [Index([("x", 1)])])])


async def test_plans_use_indexes(mongod_uri: str) -> None:
    """No query of a call scans a collection."""
    store = Store(driver="pymongo", database="plans", timeout=10)
    store.open(mongod_uri)
    await store.ensure()
    queries: dict[str, list[dict[str, Any]]] = {
        "users": [{"_id": "x"}, {"address_key": "x"}],
        "sessions": [{"_id": "x", "expires_at": {"$gt": NOW}, "ends_at": {"$gt": NOW}}, {"user_id": "x"}],
        "codes": [{"_id": "x"}, {"digest": "x", "kind": "reset", "expires_at": {"$gt": NOW}}, {"user_id": "x"}],
        "outbox": [{"dead": False, "due_at": {"$lte": NOW}}, {"dead": True}, {"_id": "x", "lease": "y"}],
        "refusals": [{"request_id": "x", "expires_at": {"$gt": NOW}}],
    }
    for name, filters in queries.items():
        for query in filters:
            plan = await store._database.command("explain", {"find": name, "filter": query})
            assert "COLLSCAN" not in str(plan["queryPlanner"]["winningPlan"]), (name, query)
    await store.close()


async def test_another_time_to_expire(mongod_uri: str) -> None:
    """An index whose documents are to go after another time is changed in place, by many nodes at once too."""

    def opened(days: int) -> Store:
        index = Index([("at", 1)], expire_after=days)
        store = Store(driver="pymongo", database="retention", timeout=10, collections=[Collection("a.log", [index])])
        store.open(mongod_uri)
        return store

    stores = [opened(30), *(opened(31) for _ in range(5))]
    await stores[0].ensure()
    await asyncio.gather(*(store.ensure() for store in stores[1:]))
    indexes = await stores[0].collection("a.log").index_information()
    assert indexes["at_1"]["expireAfterSeconds"] == 31
    await stores[0].drop()
    for store in stores:
        await store.close()


async def test_searches(store: Store) -> None:
    """Accounts are found by what their key begins with, beyond the one that the page before ended with."""
    for number, key in enumerate(("a@x.org", "ab@x.org", "ab\U0001f600@x.org", "b@x.org", "ä@x.org")):
        await store.users.add(user(number, address_key=key))
    assert [found.id for found in await store.users.search("ab", "", 10)] == ["user1", "user2"]
    assert [found.id for found in await store.users.search("a", "a@x.org", 1)] == ["user1"]
    assert [found.id for found in await store.users.search("", "b@x.org", 10)] == ["user4"]
    assert len(await store.users.search("", "", 10)) == 5
    assert await store.users.search("c", "", 10) == []


async def test_an_operators_word(store: Store) -> None:
    """Of 20 that vouch for an address at once one does it; a voided password begins a new epoch, and an authenticator's
    account has none to void."""
    await store.users.add(user())
    await store.users.add(user(2, authority="ldap"))
    vouched = await asyncio.gather(*(store.users.vouch("user1") for _ in range(20)))
    assert len([each for each in vouched if each and each.email_verified]) == 1
    voided = await store.users.void_password("user1")
    assert voided
    assert (voided.password_hash, voided.epoch) == ("", 1)
    assert await store.users.void_password("user2") is None
    assert await store.users.void_password("nobody") is None


async def test_admin_tokens(store: Store) -> None:
    """A token is found by its digest until its end, and by none of two that are one; of 20 that revoke it at once one
    does; when it was last used only moves on."""
    token = AdminToken("t1", "desk", "digest", ["users:read"], NOW, LATER)
    assert await store.admin_tokens.add(token)
    assert not await store.admin_tokens.add(replace(token, id="t2"))
    assert await store.admin_tokens.live("digest", NOW) == token
    assert await store.admin_tokens.live("digest", LATER) is None
    assert await store.admin_tokens.live("another", NOW) is None
    for moment in (LATER, NOW):
        await store.admin_tokens.used("t1", moment)
    [used] = await store.admin_tokens.page(None, 10)
    assert used.last_used_at == LATER
    revoked = await asyncio.gather(*(store.admin_tokens.revoke("t1", LATER) for _ in range(20)))
    assert Counter(bool(each) for each in revoked) == {True: 1, False: 19}
    assert await store.admin_tokens.live("digest", NOW) is None
    assert await store.admin_tokens.by_digest("digest") == replace(token, revoked_at=LATER, last_used_at=LATER)


async def test_pages_of_admin_tokens(store: Store) -> None:
    """Tokens come the latest first, page after page, those of one moment by their ids."""
    for number in range(4):
        made = NOW + timedelta(seconds=number // 2)
        await store.admin_tokens.add(AdminToken(f"t{number}", "desk", f"digest{number}", [], made, LATER))
    page = await store.admin_tokens.page(None, 3)
    assert [token.id for token in page] == ["t3", "t2", "t1"]
    assert [token.id for token in await store.admin_tokens.page((page[-1].created_at, "t1"), 3)] == ["t0"]


async def test_deleted_by_an_operator(store: Store) -> None:
    """An account that an operator has deleted is on its way out, whatever another one says meanwhile."""
    await store.users.add(user())
    assert await store.users.disable("user1")
    assert await store.users.enable("user1")
    assert await store.users.condemn("user1", NOW)
    assert await store.users.enable("user1") is None
    assert await store.users.disable("user1") is None
    assert await store.users.delete_closed("user1", NOW)


async def test_audit(store: Store) -> None:
    """Entries come the latest first, page after page, of one account where it is named, until their time is over; one
    is concluded once."""
    actor = {"kind": "cli", "id": "0", "name": "root", "network": "", "request_id": ""}
    for number in range(4):
        at = NOW + timedelta(seconds=number // 2)
        entry = AuditEntry(f"e{number}", at, "x", actor, f"user{number % 2}", {"a": 1}, "begun", LATER)
        assert await store.audit.add(entry)
    page = await store.audit.page("", None, NOW, 3)
    assert [entry.id for entry in page] == ["e3", "e2", "e1"]
    assert [entry.id for entry in await store.audit.page("", (page[-1].at, "e1"), NOW, 3)] == ["e0"]
    assert [entry.id for entry in await store.audit.page("user1", None, NOW, 3)] == ["e3", "e1"]
    assert await store.audit.page("", None, LATER, 3) == []
    for outcome in ("done", "rewritten"):
        await store.audit.conclude("e3", outcome, {"b": outcome})
    [last] = await store.audit.page("", None, NOW, 1)
    assert (last.outcome, last.details) == ("done", {"a": 1, "b": "done"})


async def test_pages_of_the_outbox(store: Store) -> None:
    """Mail is listed by its ids, dead or waiting alone where that is asked, and dropped unless it is being sent."""
    for number in range(4):
        dead = number % 2 == 1
        await store.outbox.add(MailIntent(f"m{number}", "reset_password", "x", NOW, dead=dead, due_at=NOW))
    assert [intent.id for intent in await store.outbox.page(None, "", 3)] == ["m0", "m1", "m2"]
    assert [intent.id for intent in await store.outbox.page(None, "m2", 3)] == ["m3"]
    assert [intent.id for intent in await store.outbox.page(True, "", 3)] == ["m1", "m3"]
    assert [intent.id for intent in await store.outbox.page(False, "m0", 3)] == ["m2"]
    leased = await store.outbox.lease("mine", NOW, LATER)
    assert leased
    assert not await store.outbox.drop(leased.id)
    assert await store.outbox.drop("m1")
    assert not await store.outbox.drop("m1")
