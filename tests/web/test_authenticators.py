"""Signing in with someone else's word for it."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from support import PASSWORD, OpenSite, Site, refused, tokens

from hydracore.errors import HashingOverloaded, StoreUnavailable
from hydracore.events import LoginFailed
from hydracore.flows.account import disable_user, find_user
from hydracore.plugin import Authenticator, Context, Identity, LoginRefused, hookimpl

EMAIL, OTHER = "ada@example.com", "eve@example.com"
THEIRS = "what the directory knows"


class Directory:
    """Knows people; is away, slow or odd when told to."""

    def __init__(self, context: Context) -> None:
        self.people: dict[str, str] = {EMAIL: THEIRS}
        self.identity: Any = Identity(profile={"team": "engines"})
        self.failure: Exception | None = None
        self.asked = 0

    @hookimpl
    def hydracore_register_authenticators(self) -> list[Authenticator]:
        return [Authenticator("directory", self.authenticate)]

    async def authenticate(self, email: str, password: str) -> Any:
        self.asked += 1
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        return self.identity if self.people.get(email.lower()) == password else None


class Heard:
    """Counts the sign-ins that are said to have failed."""

    failed = 0

    @hookimpl
    async def hydracore_on_event(self, event: Any) -> None:
        self.failed += isinstance(event, LoginFailed)


async def opened(open_site: OpenSite, order: tuple[str, ...] = ("password", "directory"), **settings: Any) -> Site:
    return await open_site(extra={"directory": Directory}, login={"authenticators": list(order)}, **settings)


def directory(site: Site) -> Any:
    return site.hydra.registry.loaded["directory"].plugin


async def login(site: Site, password: str = THEIRS, email: str = EMAIL) -> Any:
    return await site.post("login", {"email": email, "password": password})


async def account(site: Site) -> Any:
    return await find_user(site.hydra.services, EMAIL)


async def test_the_first_time_makes_an_account(open_site: OpenSite) -> None:
    """The first sign-in makes a proven account with its profile and no password; later ones find it."""
    site = await opened(open_site)
    first = tokens(await login(site))
    assert first["email_verified"] is True
    made = await account(site)
    assert (made.authority, made.password_hash, made.profile) == ("directory", "", {"team": "engines"})
    tokens(await login(site, email="ADA@example.com"))
    assert (await account(site)).id == made.id
    refused(await login(site, "wrong"), 401, "invalid_credentials")
    refused(await login(site, ""), 422, "validation_failed")
    assert await site.hydra.services.store.outbox.list(10) == []  # Nothing to prove, so nothing to mail.


async def test_a_hundred_at_once_make_one(open_site: OpenSite) -> None:
    """A hundred first sign-ins at once make one account, and all of them have it."""
    site = await opened(open_site, password={"hash_queue": 100})
    answers = await asyncio.gather(*(login(site) for _ in range(100)))
    subjects = {(await site.hydra.services.access.verify(tokens(answer)["access_token"])).user_id for answer in answers}
    assert subjects == {(await account(site)).id}
    assert len(await site.hydra.services.store.users.page(None, 10)) == 1


async def test_no_reset_mail(open_site: OpenSite) -> None:
    """Whoever belongs to an authenticator comes to no password by mail: the answer is the same, nothing goes out."""
    site = await opened(open_site)
    tokens(await login(site))
    await site.register(OTHER)
    answers = [await site.post("forgot-password", {"email": email}) for email in (EMAIL, OTHER)]
    assert answers[0].body == answers[1].body
    await site.box.reset_token(OTHER)
    assert [letter["To"] for letter in site.box.letters if "Set a new" in letter["Subject"]] == [OTHER]


async def test_an_account_that_is_there(open_site: OpenSite) -> None:
    """A proven account with a password is signed in to by either, and stays as it is."""
    site = await opened(open_site)
    await site.verified()
    before = await account(site)
    tokens(await login(site))
    tokens(await login(site, PASSWORD))
    assert await account(site) == before


async def test_a_stranger_was_first(open_site: OpenSite) -> None:
    """An account that was registered with the address and never proven is taken over: the stranger's sessions,
    code and password are void."""
    site = await opened(open_site)
    strangers = await site.register(password="the stranger's own password")
    code = await site.box.code(EMAIL)
    tokens(await login(site))
    refused(await site.me(strangers["access_token"]), 401, "not_authenticated")
    refused(await site.post("refresh", {"refresh_token": strangers["refresh_token"]}), 401, "invalid_refresh_token")
    refused(await login(site, "the stranger's own password"), 401, "invalid_credentials")
    refused(await site.post("verify-email", {"email": EMAIL, "code": code}), 400, "invalid_code")
    assert (await account(site)).authority == "directory"


async def test_what_is_not_proven_takes_nothing_over(open_site: OpenSite) -> None:
    """An authenticator that does not vouch for the address makes an unproven account, and gets into no other."""
    site = await opened(open_site)
    directory(site).identity = Identity(email_verified=False)
    directory(site).people[OTHER] = THEIRS
    await site.register(OTHER)
    refused(await login(site, THEIRS, OTHER), 401, "invalid_credentials")
    first = tokens(await login(site))
    assert first["email_verified"] is False
    refused(await site.post("register", {"email": EMAIL, "password": PASSWORD}), 409, "email_taken")
    body = {"email": EMAIL, "code": await site.box.code(EMAIL)}
    assert tokens(await site.post("verify-email", body))["email_verified"] is True


async def test_disabled(open_site: OpenSite) -> None:
    """A disabled account stays closed, whoever vouches."""
    site = await opened(open_site)
    tokens(await login(site))
    await disable_user(site.hydra.services, await account(site))
    refused(await login(site), 401, "invalid_credentials")


async def test_another_authority(open_site: OpenSite) -> None:
    """An account of one authenticator is not another's."""

    class Rival(Directory):
        @hookimpl
        def hydracore_register_authenticators(self) -> list[Authenticator]:
            return [Authenticator("rival", self.authenticate)]

    site = await open_site(
        extra={"directory": Directory, "rival": Rival}, login={"authenticators": ["directory", "rival"]}
    )
    tokens(await login(site))
    directory(site).people.clear()
    refused(await login(site), 401, "invalid_credentials")


async def test_only_the_directory(open_site: OpenSite) -> None:
    """Where password is not among the authenticators, a password of one's own signs nobody in."""
    site = await opened(open_site, ("directory",))
    await site.verified(OTHER)
    refused(await login(site, PASSWORD, OTHER), 401, "invalid_credentials")
    tokens(await login(site))


@pytest.mark.parametrize("failure", [OSError("away"), KeyError("odd")])
async def test_away(open_site: OpenSite, expected_logs: list[str], failure: Exception) -> None:
    """While it is away passwords of our own go on, and what it alone could know is 503."""
    expected_logs += ["plugin failed", "unavailable"]
    site = await opened(open_site)
    await site.verified(OTHER)
    directory(site).failure = failure
    tokens(await login(site, PASSWORD, OTHER))
    for _ in range(4):
        refused(await login(site), 503, "unavailable")
    directory(site).failure = None
    tokens(await login(site))


@pytest.mark.parametrize("order", [("password", "directory"), ("directory", "password")])
async def test_guesses_while_it_is_away(open_site: OpenSite, expected_logs: list[str], order: tuple[str, ...]) -> None:
    """While it is away, passwords that are not ours are answered 503 and count all the same, for known and unknown
    addresses alike; ours count nowhere."""
    expected_logs += ["plugin failed", "unavailable"]
    events = Heard()
    site = await open_site(
        extra={"directory": Directory, "heard": lambda context: events},
        login={"authenticators": list(order)},
        limits={"enabled": True},
    )
    await site.verified(OTHER)
    directory(site).failure = OSError("away")
    for email in (OTHER, "nobody@example.com"):
        if email == OTHER:
            tokens(await login(site, PASSWORD, OTHER))
        answers = [await login(site, f"wrong {number}", email) for number in range(7)]
        assert [answer.code for answer in answers] == [503] * 5 + [429] * 2
    await site.hydra.registry.settle()
    assert events.failed == 10


async def test_what_nobody_judged(open_site: OpenSite, expected_logs: list[str]) -> None:
    """Where it is the only one, and away, nobody has judged a password, and no try counts; nor does a right one whose
    account the database could not give."""
    expected_logs += ["plugin failed", "unavailable"]
    site = await opened(open_site, ("directory",), limits={"enabled": True, "login_address_network": "2/300"})
    directory(site).failure = OSError("away")
    for _ in range(4):
        refused(await login(site), 503, "unavailable")
    directory(site).failure = None
    tokens(await login(site))


@pytest.mark.parametrize("order", [("password", "directory"), ("directory", "password")])
async def test_right_but_no_database(
    open_site: OpenSite, expected_logs: list[str], monkeypatch: pytest.MonkeyPatch, order: tuple[str, ...]
) -> None:
    """Who is vouched for, while the database cannot give the account, has not failed."""
    expected_logs.append("unavailable")
    site = await opened(open_site, order, limits={"enabled": True, "login_address_network": "2/300"})

    async def gone(*args: Any) -> Any:
        raise StoreUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(site.hydra.services.store.users, "add", gone)
        for _ in range(4):
            refused(await login(site), 503, "store_unavailable")
    tokens(await login(site))


async def test_guesses_while_hashing_is_overloaded(open_site: OpenSite, expected_logs: list[str]) -> None:
    """One that judges a password wrong is not guessed at for nothing because the next one has no room to hash."""
    expected_logs.append("unavailable")
    site = await opened(open_site, limits={"enabled": True})
    directory(site).failure = HashingOverloaded()
    answers = [(await login(site, f"wrong {number}")).code for number in range(7)]
    assert answers == [503] * 5 + [429] * 2


async def test_its_own_refusal(open_site: OpenSite) -> None:
    """An authenticator may refuse someone it knows, in its own words."""
    site = await opened(open_site)
    directory(site).failure = LoginRefused("Your account is locked in the directory.")
    assert "locked" in refused(await login(site), 403, "login_refused")


async def test_odd_answers(open_site: OpenSite, expected_logs: list[str]) -> None:
    """True is no identity, what passes for True proves no address, and no account holds just anything: nobody is signed
    in by mistake."""
    expected_logs += ["plugin failed", "unavailable"]
    site = await opened(open_site)
    proofs = ("FALSE", "true", 1, None)
    profiles = (
        {"much": "x" * 17_000_000},
        {"many": ["x"] * 20_000},
        {"$where": 1},
        {"a.b": 1},
        {"n": 2**70},
        {"when": site.clock()},
        {"ratio": float("nan")},
        {"x": "\ud800"},
        7,
    )
    identities = [Identity(proof) for proof in proofs] + [Identity(profile=profile) for profile in profiles]  # type: ignore[arg-type]
    for odd in (True, {"email": EMAIL}, EMAIL, *identities):
        directory(site).identity = odd
        refused(await login(site), 503, "unavailable")
    assert await account(site) is None


async def test_the_same_work_for_everyone(open_site: OpenSite) -> None:
    """A known address, an unknown one and one of the directory cost one hash and one question each when the
    password is wrong, and are answered alike."""
    site = await opened(open_site)
    await site.verified(OTHER)
    tokens(await login(site))
    hashes = 0
    verify = site.hydra.services.passwords._verify

    def counted(encoded: str, password: str, everybodys: Mapping[str, int]) -> bool:
        nonlocal hashes
        hashes += 1
        return verify(encoded, password, everybodys)

    site.hydra.services.passwords._verify = counted  # type: ignore[method-assign]
    seen = set()
    for email in (EMAIL, OTHER, "nobody@example.com"):
        hashes, directory(site).asked = 0, 0
        answer = await login(site, "wrong password", email)
        seen.add((answer.code, answer.body, hashes, directory(site).asked))
    [(code, _, *work)] = seen
    assert (code, work) == (401, [1, 1])


async def test_it_counts_like_any_other(open_site: OpenSite) -> None:
    """Guessing at the directory is limited like guessing at passwords."""
    site = await opened(open_site, limits={"enabled": True})
    answers = [(await login(site, f"wrong {number}")).code for number in range(7)]
    assert answers == [401] * 5 + [429] * 2


async def test_where_nobody_is_told(open_site: OpenSite) -> None:
    """With reveal_existing off, a proven identity signs in and one that is not proven does not."""
    site = await opened(open_site, registration={"reveal_existing": False})
    tokens(await login(site))
    directory(site).people[OTHER] = THEIRS
    directory(site).identity = Identity(email_verified=False)
    refused(await login(site, THEIRS, OTHER), 401, "invalid_credentials")
