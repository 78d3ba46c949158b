"""Registration by invitation: the plugin that uses most of the door."""

import asyncio
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from processes import command
from support import PASSWORD, OpenSite, Site, refused, tokens

from hydracore.errors import StoreUnavailable

ADA, EVE = "ada@example.com", "eve@example.com"


async def opened(open_site: OpenSite, **section: Any) -> Site:
    return await open_site(plugins={"enabled": ["invites"], "invites": section})


def plugin(site: Site) -> Any:
    return site.hydra.registry.loaded["invites"].plugin


def registration(email: str = ADA, **members: Any) -> dict[str, Any]:
    return {"email": email, "password": PASSWORD, **members}


async def test_nobody_without(open_site: OpenSite) -> None:
    """Without a code, or with one that is none, nobody registers, and nothing is stored."""
    site = await opened(open_site)
    assert "invitation" in refused(await site.post("register", registration()), 403, "registration_refused")
    for code in ("nonsense", "$ne", "\0", "é" * 64):
        refused(await site.post("register", registration(invite_code=code)), 403, "registration_refused")
    for code in ("", "x" * 65, 7, {"$ne": ""}, ["a"]):
        refused(await site.post("register", registration(invite_code=code)), 422, "validation_failed")
    assert await site.hydra.services.store.users.page(None, 10) == []


async def test_once(open_site: OpenSite) -> None:
    """A code is good for one address, which may repeat its registration; it is kept in no document."""
    site = await opened(open_site)
    code = await plugin(site).invite()
    weak = {**registration(invite_code=code), "password": "password1"}
    refused(await site.post("register", weak), 422, "validation_failed")
    assert await plugin(site).is_good(code)  # A refused password uses up nothing.
    first = tokens(await site.post("register", registration(invite_code=code)), 201)
    refused(await site.post("register", registration(EVE, invite_code=code)), 403, "registration_refused")
    refused(await site.post("register", registration(invite_code=code)), 409, "email_taken")
    assert "profile" not in json.loads((await site.me(first["access_token"])).body)
    [kept] = [document async for document in site.hydra._store.collection("invites.invitations").find()]
    assert code not in str(kept)


async def test_raced(open_site: OpenSite) -> None:
    """Of fifty people with one code at once, one gets in."""
    site = await opened(open_site)
    code = await plugin(site).invite()
    bodies = [registration(f"user{number}@example.com", invite_code=code) for number in range(50)]
    answers = await asyncio.gather(*(site.post("register", body) for body in bodies))
    assert sorted(answer.code for answer in answers) == [201] + [403] * 49


async def test_for_one_address(open_site: OpenSite) -> None:
    """What was sent to an address is that address's, however its case is written; and it is mailed with its link."""
    site = await opened(open_site, page="https://app.example.com/join")
    code = await plugin(site).invite(ADA)
    letter = await site.box.letter(ADA, about="invited")
    assert code in letter
    assert f"https://app.example.com/join#invite={code}" in letter
    refused(await site.post("register", registration(EVE, invite_code=code)), 403, "registration_refused")
    tokens(await site.post("register", registration("ADA@example.com", invite_code=code)), 201)


async def test_it_ends(open_site: OpenSite) -> None:
    """After its days an invitation is no good, whether or not its document is still there."""
    site = await opened(open_site, days=2)
    code = await plugin(site).invite()
    site.clock.forward(days=2)
    assert json.loads((await site.post("invites/check", {"invite_code": code})).body) == {"good": False}
    refused(await site.post("register", registration(invite_code=code)), 403, "registration_refused")


async def test_optional(open_site: OpenSite) -> None:
    """Where it is not required a wrong code is refused, and none is fine."""
    site = await opened(open_site, required=False)
    refused(await site.post("register", registration(invite_code="nonsense")), 403, "registration_refused")
    await site.register()


async def test_users_invite(open_site: OpenSite) -> None:
    """Verified users may invite so many people, however many requests they make at once; others may not."""
    site = await opened(open_site, required=False, per_user=3)
    refused(await site.post("invites", {"email": EVE}), 401, "not_authenticated")
    first = await site.register()
    bearer = {"Authorization": f"Bearer {first['access_token']}"}
    refused(await site.post("invites", {"email": EVE}, **bearer), 403, "email_not_verified")
    body = {"email": ADA, "code": await site.box.code(ADA)}
    bearer = {"Authorization": f"Bearer {tokens(await site.post('verify-email', body, **bearer))['access_token']}"}
    [problem] = refused(await site.post("invites", {"email": "nobody"}, **bearer), 422, "validation_failed")
    assert problem["loc"] == ["body", "email"]
    bodies = [{"email": f"user{number}@example.com"} for number in range(20)]
    answers = await asyncio.gather(*(site.post("invites", body, **bearer) for body in bodies))
    assert sorted(answer.code for answer in answers) == [202] * 3 + [403] * 17
    for _ in range(500):
        if len([letter for letter in site.box.letters if "invited" in letter["Subject"]]) == 3:
            break
        await asyncio.sleep(0.01)
    assert len([letter for letter in site.box.letters if "invited" in letter["Subject"]]) == 3


async def test_only_operators(open_site: OpenSite) -> None:
    """With per_user = 0 users do not invite."""
    site = await opened(open_site, required=False)
    verified = await site.verified()
    bearer = {"Authorization": f"Bearer {verified['access_token']}"}
    refused(await site.post("invites", {"email": EVE}, **bearer), 403, "forbidden")


async def test_in_the_guests_language(open_site: OpenSite) -> None:
    """The mail is in the language of whoever invites, where there is a translation."""
    site = await opened(open_site, required=False, per_user=5)
    verified = await site.verified()
    bearer = {"Authorization": f"Bearer {verified['access_token']}"}
    for guest, language, subject in (
        ("de@example.com", "de-AT,en;q=0.5", "Einladung zu HydraCore"),
        ("en@example.com", "en,de;q=0.9", "You are invited to HydraCore"),
        ("fr@example.com", "fr,de;q=0.2", "Invitation à rejoindre HydraCore"),
        ("nl@example.com", "nl,de;q=0.2", "Einladung zu HydraCore"),
    ):
        await site.post("invites", {"email": guest}, Accept_Language=language, **bearer)
        await site.box.letter(guest, about=subject)


async def test_database_gone(open_site: OpenSite, expected_logs: list[str]) -> None:
    """Without the database the answer is 503, in the plugin's own calls too."""
    expected_logs += [
        "plugin has no database",
        "unavailable",
        "limit backend failed",
        "mail",
        "outbox",
        "does not answer",
    ]
    site = await opened(open_site)
    await site.hydra._store._close()
    refused(await site.post("invites/check", {"invite_code": "x"}), 503, "store_unavailable")
    refused(await site.post("register", registration(invite_code="x")), 503, "store_unavailable")


def test_the_commands(tmp_path: Path) -> None:
    """hydracore invites create, send, list and revoke, on the embedded database."""
    run = partial(command, tmp_path, HYDRACORE_PLUGINS__ENABLED='["invites"]')
    assert len(run("invites", "create")[1].strip()) == 22
    assert run("invites", "send", ADA)[1] == f"Invited {ADA}.\n"
    assert "Error" in run("invites", "send", "nobody")[2]
    lines = run("invites", "list")[1].splitlines()
    assert [line.split()[2] for line in lines] == ["anyone", ADA]
    assert run("invites", "revoke", lines[0].split()[0])[1] == "Revoked.\n"
    assert "No invitation" in run("invites", "revoke", lines[0].split()[0])[2]
    assert len(run("invites", "list")[1].splitlines()) == 1
    assert "invites" in run("--help")[1]
    assert [entry.name for entry in tmp_path.iterdir()] == ["hydracore-data"]


async def test_other_refusals_use_up_nothing(open_site: OpenSite) -> None:
    """A registration that another plugin refuses, or of an address that has an account, leaves the code to others."""
    site = await open_site(
        plugins={
            "enabled": ["invites", "register_domains"],
            "invites": {"required": False},
            "register_domains": {"domains": ["example.com"]},
        }
    )
    code = await plugin(site).invite()
    refused(await site.post("register", registration("ada@example.org", invite_code=code)), 403, "registration_refused")
    await site.register(ADA)
    refused(await site.post("register", registration(ADA, invite_code=code)), 409, "email_taken")
    assert await plugin(site).is_good(code)
    tokens(await site.post("register", registration(EVE, invite_code=code)), 201)


async def test_a_reservation_ends(
    open_site: OpenSite, expected_logs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A code whose registration came to nothing is another's after ten minutes, and of fifty then again one's."""
    expected_logs.append("unavailable")
    site = await opened(open_site)
    code = await plugin(site).invite()
    users = site.hydra.services.store.users

    async def away(user: object) -> bool:
        raise StoreUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(users, "add", away)
        refused(await site.post("register", registration(invite_code=code)), 503, "store_unavailable")
    refused(await site.post("register", registration(EVE, invite_code=code)), 403, "registration_refused")
    site.clock.forward(minutes=11)
    bodies = [registration(f"user{number}@example.com", invite_code=code) for number in range(50)]
    answers = await asyncio.gather(*(site.post("register", body) for body in bodies))
    assert sorted(answer.code for answer in answers) == [201] + [403] * 49
    site.clock.forward(minutes=11)
    refused(await site.post("register", registration(EVE, invite_code=code)), 403, "registration_refused")


async def test_spellings_of_the_guests_address(open_site: OpenSite) -> None:
    """An invitation is for an address, however its letters or its domain are written."""
    site = await opened(open_site)
    code = await plugin(site).invite("ada@xn--bcher-kva.example.com")
    tokens(await site.post("register", registration("Ada@b\u00fccher.example.com", invite_code=code)), 201)


async def test_an_invitation_that_cannot_be_mailed(
    open_site: OpenSite, expected_logs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the mail cannot be put in, nobody is invited, and it counts for nothing."""
    expected_logs.append("unavailable")
    site = await opened(open_site, required=False, per_user=1)
    verified = await site.verified()
    bearer = {"Authorization": f"Bearer {verified['access_token']}"}

    async def away(*arguments: object) -> bool:
        raise StoreUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(site.hydra.services.store.outbox, "add", away)
        refused(await site.post("invites", {"email": EVE}, **bearer), 503, "store_unavailable")
    assert await site.hydra._store.collection("invites.invitations").count_documents({}) == 0
    assert (await site.post("invites", {"email": EVE}, **bearer)).code == 202
    assert await site.box.letter(EVE, about="invited")
