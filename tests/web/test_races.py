"""Many at once: what one atomic operation promises, asked over real sockets."""

import asyncio
from collections import Counter

import pytest
from support import PASSWORD, OpenSite, Site, refused, tokens

EMAIL = "ada@example.com"


async def test_parallel_refreshes_have_one_successor(site: Site) -> None:
    """200 parallel refreshes of one token all get the same successor, and it works."""
    first = await site.register()
    answers = await asyncio.gather(
        *(site.post("refresh", {"refresh_token": first["refresh_token"]}) for _ in range(200))
    )
    successors = {tokens(answer)["refresh_token"] for answer in answers}
    assert len(successors) == 1
    tokens(await site.post("refresh", {"refresh_token": successors.pop()}))


async def test_parallel_guesses_are_counted(site: Site) -> None:
    """Of 50 parallel wrong guesses exactly 5 are compared; after them the right code is refused too."""
    await site.register()
    code = await site.box.code(EMAIL)
    wrong = f"{(int(code) + 1) % 1_000_000:06d}"
    answers = await asyncio.gather(*(site.post("verify-email", {"email": EMAIL, "code": wrong}) for _ in range(50)))
    assert Counter(answer.code for answer in answers) == {400: 50}
    refused(await site.post("verify-email", {"email": EMAIL, "code": code}), 400, "invalid_code")


async def test_five_guesses_are_allowed(site: Site) -> None:
    """Four wrong guesses leave a fifth try, which may be right."""
    await site.register()
    code = await site.box.code(EMAIL)
    wrong = f"{(int(code) + 1) % 1_000_000:06d}"
    await asyncio.gather(*(site.post("verify-email", {"email": EMAIL, "code": wrong}) for _ in range(4)))
    tokens(await site.post("verify-email", {"email": EMAIL, "code": code}))


async def test_parallel_right_codes(site: Site) -> None:
    """The right code sent five times at once verifies once."""
    await site.register()
    body = {"email": EMAIL, "code": await site.box.code(EMAIL)}
    answers = await asyncio.gather(*(site.post("verify-email", body) for _ in range(5)))
    assert Counter(answer.code for answer in answers) == {200: 1, 400: 4}


async def test_parallel_resets(site: Site) -> None:
    """50 parallel resets with one token: one sets its password, and that one signs in."""
    await site.register()
    await site.post("forgot-password", {"email": EMAIL})
    token = await site.box.reset_token(EMAIL)
    answers = await asyncio.gather(
        *(
            site.post("reset-password", {"token": token, "new_password": f"new long password {number}"})
            for number in range(50)
        )
    )
    assert Counter(answer.code for answer in answers) == {200: 1, 400: 49}
    winner = next(number for number, answer in enumerate(answers) if answer.code == 200)
    tokens(await site.post("login", {"email": EMAIL, "password": f"new long password {winner}"}))


async def test_parallel_resets_with_two_tokens(site: Site) -> None:
    """Two live reset tokens used at once: one wins, for it ends the other."""
    await site.register()
    await site.post("forgot-password", {"email": EMAIL})
    await site.post("forgot-password", {"email": EMAIL})
    both = [await site.box.reset_token(EMAIL, 1), await site.box.reset_token(EMAIL, 2)]
    answers = await asyncio.gather(
        *(site.post("reset-password", {"token": token, "new_password": "new long password"}) for token in both * 5)
    )
    assert Counter(answer.code for answer in answers) == {200: 1, 400: 9}


@pytest.mark.parametrize("reveal", [True, False])
async def test_parallel_registrations(open_site: OpenSite, reveal: bool) -> None:
    """50 parallel registrations of one address create one user."""
    site = await open_site(registration={"reveal_existing": reveal})
    body = {"email": EMAIL, "password": PASSWORD}
    spellings = [EMAIL, EMAIL.upper(), "Ada@Example.com"]
    answers = await asyncio.gather(
        *(site.post("register", {**body, "email": spellings[number % 3]}) for number in range(50))
    )
    assert Counter(answer.code for answer in answers) == ({201: 1, 409: 49} if reveal else {202: 50})
    assert len(await site.hydra.services.store.users.page(None, 100)) == 1


async def test_login_against_reset(site: Site) -> None:
    """A sign-in that checked the old password while a reset went through holds no live session."""
    await site.register()
    await site.post("forgot-password", {"email": EMAIL})
    token = await site.box.reset_token(EMAIL)
    old = {"email": EMAIL, "password": PASSWORD}
    reset = {"token": token, "new_password": "new long password"}
    logins = [site.post("login", old) for _ in range(20)]
    answers = await asyncio.gather(*logins[:10], site.post("reset-password", reset), *logins[10:])
    assert answers[10].code == 200
    for answer in (*answers[:10], *answers[11:]):
        if answer.code == 200:
            refused(await site.me(tokens(answer)["access_token"]), 401, "not_authenticated")
            refused(
                await site.post("refresh", {"refresh_token": tokens(answer)["refresh_token"]}),
                401,
                "invalid_refresh_token",
            )


async def test_refresh_against_logout(site: Site) -> None:
    """Whatever the order, after a logout no refresh token of the session works."""
    first = await site.register()
    body = {"refresh_token": first["refresh_token"]}
    answers = await asyncio.gather(
        *(site.post("refresh", body) for _ in range(10)),
        site.post("logout", body),
        *(site.post("refresh", body) for _ in range(10)),
    )
    for answer in answers:
        if answer.code == 200:
            later = {"refresh_token": tokens(answer)["refresh_token"]}
            refused(await site.post("refresh", later), 401, "invalid_refresh_token")
