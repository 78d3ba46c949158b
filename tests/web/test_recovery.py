"""Forgotten passwords and proof of addresses: what ends what."""

import json
from email.message import EmailMessage

import pytest
from support import PASSWORD, OpenSite, Site, refused, tokens

EMAIL = "ada@example.com"
NEW = "an entirely new password"


async def forgotten(site: Site, nth: int = 1) -> str:
    assert (await site.post("forgot-password", {"email": EMAIL})).code == 200
    return await site.box.reset_token(EMAIL, nth)


async def reset(site: Site, token: str, password: str = NEW) -> object:
    return (await site.post("reset-password", {"token": token, "new_password": password})).code


async def test_tokens_expire(site: Site) -> None:
    """A reset token lives 30 minutes, by the query, however late the database deletes it."""
    await site.register()
    token = await forgotten(site)
    site.clock.forward(minutes=30, seconds=1)
    assert await reset(site, token) == 400


async def test_codes_expire(site: Site) -> None:
    """A code lives 10 minutes."""
    await site.register()
    code = await site.box.code(EMAIL)
    site.clock.forward(minutes=10, seconds=1)
    refused(await site.post("verify-email", {"email": EMAIL, "code": code}), 400, "invalid_code")


async def test_a_new_code_ends_the_old(site: Site) -> None:
    """After a resend only the newer code works."""
    await site.register()
    old = await site.box.code(EMAIL)
    await site.post("resend-verification", {"email": EMAIL})
    new = await site.box.code(EMAIL, 2)
    if old != new:
        refused(await site.post("verify-email", {"email": EMAIL, "code": old}), 400, "invalid_code")
    tokens(await site.post("verify-email", {"email": EMAIL, "code": new}))


async def test_a_reset_ends_all_that_was(site: Site) -> None:
    """Every session, code and other reset token of before is void, and the address is proven."""
    first = await site.register()
    second = tokens(await site.post("login", {"email": EMAIL, "password": PASSWORD}))
    code = await site.box.code(EMAIL)
    older, newer = await forgotten(site), await forgotten(site, 2)
    assert await reset(site, newer) == 200
    assert await reset(site, older) == 400
    refused(await site.post("verify-email", {"email": EMAIL, "code": code}), 400, "invalid_code")
    for session in (first, second):
        refused(await site.me(session["access_token"]), 401, "not_authenticated")
        refused(await site.post("refresh", {"refresh_token": session["refresh_token"]}), 401, "invalid_refresh_token")
    signed_in = tokens(await site.post("login", {"email": EMAIL, "password": NEW}))
    assert signed_in["email_verified"] is True


async def test_a_refused_password_leaves_the_token(site: Site) -> None:
    """A password that a policy refuses is 422, and the token still works."""
    await site.register()
    token = await forgotten(site)
    for weak in ("password1", EMAIL, "hydracore1"):
        answer = await site.post("reset-password", {"token": token, "new_password": weak})
        problems = refused(answer, 422, "validation_failed")
        assert problems[0]["loc"] == ["body", "new_password"]
    assert await reset(site, token) == 200


@pytest.mark.parametrize("token", ["x", "x" * 43, "x" * 256, "\x00", "é" * 43, "$ne", "reset:x"])
async def test_tokens_that_are_none(site: Site, token: str) -> None:
    """What is no token of ours is 400."""
    await site.register()
    await forgotten(site)
    refused(await site.post("reset-password", {"token": token, "new_password": NEW}), 400, "invalid_token")


async def test_kinds_do_not_mix(site: Site) -> None:
    """A verification code resets nothing, and a reset token belongs to its own user alone."""
    await site.register()
    code = await site.box.code(EMAIL)
    assert await reset(site, code) == 400
    await site.register("eve@example.com", "eves own password")
    assert await reset(site, await forgotten(site)) == 200
    tokens(await site.post("login", {"email": "eve@example.com", "password": "eves own password"}))


async def test_someone_else_registered_first(site: Site) -> None:
    """Who proves the address without holding the registering session ends that session."""
    stranger = await site.register()
    owner = tokens(await site.post("verify-email", {"email": EMAIL, "code": await site.box.code(EMAIL)}))
    refused(await site.me(stranger["access_token"]), 401, "not_authenticated")
    refused(await site.post("refresh", {"refresh_token": stranger["refresh_token"]}), 401, "invalid_refresh_token")
    assert (await site.me(owner["access_token"])).code == 200


async def test_the_registering_session_is_kept(site: Site) -> None:
    """Who proves the address from the registering session keeps it; another account's session is no such thing."""
    first = await site.register()
    eve = await site.register("eve@example.com")
    body = {"email": EMAIL, "code": await site.box.code(EMAIL)}
    tokens(await site.post("verify-email", body, Authorization=f"Bearer {first['access_token']}"))
    me = await site.me(first["access_token"])
    assert json.loads(me.body)["email_verified"] is True
    body = {"email": "eve@example.com", "code": await site.box.code("eve@example.com")}
    tokens(await site.post("verify-email", body, Authorization=f"Bearer {first['access_token']}"))
    refused(await site.me(eve["access_token"]), 401, "not_authenticated")


async def test_verified_accounts_take_no_code(site: Site) -> None:
    """A code works only while the account is unverified, and a verified one gets no more codes."""
    await site.verified()
    await site.post("resend-verification", {"email": EMAIL})
    await site.post("forgot-password", {"email": EMAIL})
    await site.box.reset_token(EMAIL)
    assert sum("verification" in letter["Subject"] for letter in site.box.letters) == 1


async def test_links_come_from_the_configuration(open_site: OpenSite) -> None:
    """Links are built from public_url, whatever Host and forwarded headers say."""
    site = await open_site(public_url="https://id.example.com")
    await site.register()
    evil = {"Host": "evil.example", "X_Forwarded_Host": "evil.example", "Forwarded": "host=evil.example"}
    await site.post("forgot-password", {"email": EMAIL}, **evil)
    letter = await site.box.letter(EMAIL, about="Set a new")
    assert "https://id.example.com/reset-password#token=" in letter
    assert all("evil" not in item.as_string() for item in site.box.letters)


async def test_mail_goes_to_the_account(site: Site) -> None:
    """A look-alike of an address reaches its account, and the mail goes where the account says."""
    await site.register("Ada@example.com")
    await site.post("forgot-password", {"email": "\uff21DA@EXAMPLE.COM"})
    await site.box.reset_token("ada@example.com")
    assert {letter["To"] for letter in site.box.letters} == {"Ada@example.com"}


async def test_what_letters_look_like(site: Site) -> None:
    """Both parts are there, the code is on a line of its own, and nothing replies to a machine."""
    await site.register()
    code = await site.box.code(EMAIL)
    letter: EmailMessage = site.box.letters[0]
    assert letter["Auto-Submitted"] == "auto-generated"
    assert letter["Message-ID"]
    html = letter.get_body(("html",))
    assert html
    assert code in html.get_content()
    assert code not in letter["Subject"]
    assert f"\n{code}\n" in letter.as_string().replace("\r\n", "\n")


async def test_owner_is_told_of_a_reset(site: Site) -> None:
    """After a reset the owner gets a notice, and nobody is signed in by it."""
    await site.register()
    answer = await site.post("reset-password", {"token": await forgotten(site), "new_password": NEW})
    assert set(json.loads(answer.body)) == {"message"}
    assert "Set-Cookie" not in answer.headers
    assert "signed out" in await site.box.letter(EMAIL, about="was changed")


async def test_stored_secrets(site: Site) -> None:
    """The database holds no code, token or password that could be used, sealed mail included."""
    first = await site.register()
    code, token = await site.box.code(EMAIL), await forgotten(site)
    stored = ""
    for name in await site.hydra._store._database.list_collection_names():
        stored += "".join([repr(document) async for document in site.hydra._store._database[name].find({})])
    for secret in (PASSWORD, code, token, first["refresh_token"].split(".")[-1], first["access_token"]):
        assert secret not in stored
    assert "$argon2id$" in stored


async def test_old_hashes_are_renewed(open_site: OpenSite) -> None:
    """A hash with other parameters is replaced at the next sign-in, and the password still works."""
    weak = await open_site()
    await weak.register()
    strong = await open_site(keep=True, password={"profile": "standard"})
    before = (await strong.hydra.services.store.users.by_address(EMAIL)).password_hash
    for _ in range(2):
        tokens(await strong.post("login", {"email": EMAIL, "password": PASSWORD}))
    after = (await strong.hydra.services.store.users.by_address(EMAIL)).password_hash
    assert "m=8," in before
    assert "m=19456,t=2,p=1" in after
