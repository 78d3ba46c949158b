"""Which language an account's owner is written to in: their own where it is known, whoever asks for the mail."""

import json
import re

import pytest
from support import PASSWORD, OpenSite, Site, tokens

from hydracore.plugin import Authenticator, Context, Identity, hookimpl

EMAIL = "ada@example.com"
NEW = "an entirely new password"


async def last(site: Site, nth: int, to: str = EMAIL) -> tuple[str, str]:
    """The language and the text of the nth mail."""
    text = await site.box.letter(to, nth)
    sent = [letter for letter in site.box.letters if letter["To"] == to]
    return sent[nth - 1]["Content-Language"], text


async def registered(site: Site, language: str, **headers: str) -> dict[str, str]:
    body = {"email": EMAIL, "password": PASSWORD}
    return tokens(await site.post("register", body, Accept_Language=language, **headers), 201)


async def verified(site: Site, language: str, nth: int = 1, **headers: str) -> None:
    code = re.search(r"^([0-9]{6})\s*$", (await last(site, nth))[1], re.MULTILINE)
    assert code
    body = {"email": EMAIL, "code": code[1]}
    tokens(await site.post("verify-email", body, Accept_Language=language, **headers))


async def forgot(site: Site, language: str) -> None:
    await site.post("forgot-password", {"email": EMAIL}, Accept_Language=language)


async def reset(site: Site, language: str, nth: int) -> None:
    token = re.search(r"#token=([\w-]{43})\s", (await last(site, nth))[1])
    assert token
    body = {"token": token[1], "new_password": NEW}
    assert (await site.post("reset-password", body, Accept_Language=language)).code == 200


async def test_strangers_do_not_choose(site: Site) -> None:
    """Once an owner is known, neither who asks for a reset, nor who does one, nor who signs in changes the language of
    what they are sent: a notice that they cannot read is none."""
    first = await registered(site, "de-AT,en;q=0.5")
    assert (await last(site, 1))[0] == "de"
    await verified(site, "de-AT", Authorization=f"Bearer {first['access_token']}")
    await site.post("login", {"email": EMAIL, "password": PASSWORD}, Accept_Language="zh")
    await forgot(site, "zh")
    assert (await last(site, 2))[0] == "de"
    await reset(site, "zh", 2)
    assert (await last(site, 3))[0] == "de"
    await forgot(site, "fr")
    assert (await last(site, 4))[0] == "de"


async def test_who_registered_may_be_a_stranger(site: Site) -> None:
    """Until the address is proven, whoever asks for a mail is written to in their own language; whoever proves it is
    the owner, and of a stranger who registered it nothing is left."""
    await registered(site, "zh")
    await forgot(site, "es")
    assert (await last(site, 2))[0] == "es"
    await reset(site, "es", 2)
    assert (await last(site, 3))[0] == "es"
    await forgot(site, "zh")
    assert (await last(site, 4))[0] == "es"


async def test_an_owner_who_says_nothing(site: Site) -> None:
    """Who proves an address without saying what they read is not written to in the language of who registered it."""
    await registered(site, "zh")
    await verified(site, "")  # Without the session that registered it.
    await forgot(site, "")
    assert (await last(site, 2))[0] == "en"
    await reset(site, "fr", 2)
    assert (await last(site, 3))[0] == "fr"


async def test_a_reset_that_says_nothing(site: Site) -> None:
    """The same goes for a reset of an account that nobody had proven."""
    await registered(site, "zh")
    await forgot(site, "")
    assert (await last(site, 2))[0] == "zh"  # It is all that is known, yet.
    await reset(site, "", 2)
    assert (await last(site, 3))[0] == "en"


async def test_a_registrant_who_says_it_once(site: Site) -> None:
    """Who registers and then proves the address need not say what they read again."""
    first = await registered(site, "fr")
    await verified(site, "", Authorization=f"Bearer {first['access_token']}")
    await forgot(site, "zh")
    assert (await last(site, 2))[0] == "fr"


async def test_a_second_registration(open_site: OpenSite) -> None:
    """Where register tells nothing, the owner hears in their own language that someone tried to sign up."""
    site = await open_site(registration={"reveal_existing": False})
    body = {"email": EMAIL, "password": PASSWORD}
    for language in ("de", "zh"):
        assert (await site.post("register", body, Accept_Language=language)).code == 202
        if language == "de":
            await verified(site, "de")
    language, text = await last(site, 2)
    assert language == "de"
    assert "bereits ein Konto" in text


async def test_accounts_of_before(site: Site) -> None:
    """An account without a language, as older versions left it, is written to in that of who asks."""
    first = await registered(site, "de")
    await verified(site, "de", Authorization=f"Bearer {first['access_token']}")
    users = site.hydra._store._database["users"]
    await users.update_one({"email": EMAIL}, {"$unset": {"language": ""}})
    await forgot(site, "fr")
    assert (await last(site, 2))[0] == "fr"
    await reset(site, "es", 2)
    assert (await last(site, 3))[0] == "es"


async def test_what_owners_do(site: Site, expected_logs: list[str]) -> None:
    """An owner who changes or closes the account is written to in the account's language at either address, whatever
    the client asks for, and still is when the address is back; who has the address that they wanted reads their own."""
    await site.verified("eve@example.com")
    first = await registered(site, "de")
    await verified(site, "de", Authorization=f"Bearer {first['access_token']}")
    grant = tokens(await site.post("login", {"email": EMAIL, "password": PASSWORD}))
    held = {"Authorization": f"Bearer {grant['access_token']}", "Accept_Language": "zh"}
    wanted = {"password": PASSWORD, "email": "eve@example.com"}
    assert (await site.post("change-email", wanted, **held)).code == 200
    # What Eve reads is not known, so it is what the client asks for.
    assert (await last(site, 2, "eve@example.com"))[0] == "zh"
    assert (await site.post("change-email", {**wanted, "email": "ada@example.org"}, **held)).code == 200
    language, text = await last(site, 1, "ada@example.org")
    code = re.search(r"^([0-9]{6})\s*$", text, re.MULTILINE)
    assert code
    assert language == "de"
    tokens(await site.post("confirm-email", {"code": code[1]}, **held))
    language, text = await last(site, 2)
    token = re.search(r"#token=([\w-]{43})\s", text)
    assert token
    assert language == "de"
    expected_logs.append("EmailChangeUndone")
    assert (await site.post("undo-email-change", {"token": token[1]}, Accept_Language="zh")).code == 200
    assert (await last(site, 3))[0] == "de"
    await reset(site, "zh", 3)
    assert (await last(site, 4))[0] == "de"


@pytest.mark.parametrize("grace", [0, 3600])
async def test_a_closed_account(open_site: OpenSite, grace: int) -> None:
    """The owner of an account that is closed reads it in their own language, even where the account is gone by then."""
    site = await open_site(account={"deletion_grace": grace})
    first = await registered(site, "de")
    await verified(site, "de", Authorization=f"Bearer {first['access_token']}")
    grant = tokens(await site.post("login", {"email": EMAIL, "password": PASSWORD}))
    held = {"Authorization": f"Bearer {grant['access_token']}", "Accept_Language": "zh"}
    assert (await site.ask("DELETE", "/auth/me", body={"password": PASSWORD}, **held)).code == 200
    assert (await last(site, 2))[0] == "de"


class Directory:
    """Vouches for everyone, and says whether their address is proven."""

    def __init__(self, context: Context) -> None:
        self.context = context

    @hookimpl
    def hydracore_register_authenticators(self) -> list[Authenticator]:
        return [Authenticator("directory", self.authenticate)]

    async def authenticate(self, email: str, password: str) -> Identity | None:
        return Identity(email_verified=True) if password == NEW else None


async def test_accounts_of_a_directory(open_site: OpenSite) -> None:
    """An account that a sign-in makes, or takes from a stranger who had registered it, is in that sign-in's language,
    and later ones leave it so."""
    order = ["password", "directory"]
    site = await open_site(extra={"directory": Directory}, login={"authenticators": order})
    await registered(site, "zh")
    for email in (EMAIL, "eve@example.com"):
        for language in ("de", "fr"):
            tokens(await site.post("login", {"email": email, "password": NEW}, Accept_Language=language))
        user = await site.hydra.services.store.users.by_address(email)
        assert user is not None
        assert (user.authority, user.language) == ("directory", "de")


async def test_a_plugins_mail(open_site: OpenSite) -> None:
    """What a plugin sends to an account's owner is in the owner's language, and to anyone else in that of who asks."""
    site = await open_site(plugins={"enabled": ["invites"], "invites": {"required": False, "per_user": 9}})
    first = await registered(site, "de")
    await verified(site, "de", Authorization=f"Bearer {first['access_token']}")
    signed_in = tokens(await site.post("login", {"email": EMAIL, "password": PASSWORD}))
    bearer = {"Authorization": f"Bearer {signed_in['access_token']}", "Accept_Language": "es"}
    for guest, nth, language in (("eve@example.com", 1, "es"), (EMAIL, 2, "de")):
        answer = await site.post("invites", {"email": guest}, **bearer)
        assert json.loads(answer.body) == {"message": "An invitation is on its way."}
        assert (await last(site, nth, guest))[0] == language
