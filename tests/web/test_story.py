"""The whole story over real sockets, in every host."""

import json

import pytest
from support import HOSTS, PASSWORD, OpenSite, refused, tokens


@pytest.mark.parametrize("host", HOSTS)
async def test_story(open_site: OpenSite, host: str) -> None:
    """Sign up, prove the address, refresh, forget the password, sign out: in whatever application it is mounted."""
    site = await open_site(HOSTS[host])
    ada = {"email": "Ada@Example.com", "password": PASSWORD}

    first = tokens(await site.post("register", ada), 201)
    assert first["email_verified"] is False
    me = json.loads((await site.me(first["access_token"])).body)
    assert (me["email"], me["email_verified"]) == ("Ada@example.com", False)
    refused(await site.post("register", {**ada, "email": "ada@example.com"}), 409, "email_taken")

    code = await site.box.code("ada@example.com")
    wrong = "000000" if code != "000000" else "111111"
    refused(await site.post("verify-email", {"email": ada["email"], "code": wrong}), 400, "invalid_code")
    bearer = {"Authorization": f"Bearer {first['access_token']}"}
    second = tokens(await site.post("verify-email", {"email": ada["email"], "code": code}, **bearer))
    assert second["email_verified"] is True
    refused(await site.post("verify-email", {"email": ada["email"], "code": code}, **bearer), 400, "invalid_code")

    third = tokens(await site.post("refresh", {"refresh_token": second["refresh_token"]}))
    assert third["email_verified"] is True

    forgotten = await site.post("forgot-password", {"email": ada["email"]})
    assert forgotten.code == 200
    token = await site.box.reset_token("ada@example.com")
    reset = {"token": token, "new_password": "another long password"}
    assert (await site.post("reset-password", reset)).code == 200
    refused(await site.post("reset-password", reset), 400, "invalid_token")
    refused(await site.me(third["access_token"]), 401, "not_authenticated")
    refused(await site.post("refresh", {"refresh_token": third["refresh_token"]}), 401, "invalid_refresh_token")
    refused(await site.post("login", ada), 401, "invalid_credentials")
    assert "was changed" in (await site.box.letter("ada@example.com", about="was changed"))

    fourth = tokens(await site.post("login", {**ada, "password": "another long password"}))
    gone = await site.post("logout", {"refresh_token": fourth["refresh_token"]})
    assert (gone.code, gone.body) == (204, b"")
    refused(await site.me(fourth["access_token"]), 401, "not_authenticated")
    assert (await site.post("logout", {"refresh_token": fourth["refresh_token"]})).code == 204
