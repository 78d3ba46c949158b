"""Members of the profile in access tokens."""

import json
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest
from support import PASSWORD, OpenSite, Site, refused, tokens

from hydracore.plugin import Account, ProfileMember, StartupError, hookimpl

URL = "https://example.com/claims/"
EMAIL = "ada@example.com"
TEAM = {"type": "string", "maxLength": 4000}


def account(**profile: Any) -> Account:
    return Account("user1", EMAIL, email_verified=True, created_at=datetime.now(UTC), profile=profile)


@pytest.mark.parametrize(
    ("namespace", "claim"),
    [
        ("profile_claims:", "profile_claims:team"),
        ("profile_claims:of_ours/", "profile_claims:of_ours/team"),
        (URL, "https://example.com/claims/team"),
        ("http://localhost:8000/#", "http://localhost:8000/#team"),
    ],
)
async def test_members_become_claims(make: Any, namespace: str, claim: str) -> None:
    """A member that the account has is a claim under the namespace, with its value as it is."""
    plugin = make("profile_claims", namespace=namespace, members=["team", "absent"])
    for value in ("engines", 7, True, None, ["a", "b"], {"deep": [1]}, ""):
        assert await plugin.hydracore_before_issue_token(account(team=value, other="kept back")) == {claim: value}


async def test_nothing_by_default(make: Any) -> None:
    """Without members, and for an account without a profile, there are no claims."""
    assert await make("profile_claims").hydracore_before_issue_token(account(team="engines")) == {}
    assert await make("profile_claims", members=["team"]).hydracore_before_issue_token(account()) == {}


@pytest.mark.parametrize(
    "namespace",
    [
        "claims:",
        "profile_claims",
        "urn:example:",
        "ftp://example.com/",
        "https:",
        "https://",
        "https:///claims/",
        "HTTPS://example.com/",
        "https://exa mple.com/",
        "https://example.com/\n",
        "https://[::1/",
        "sub",
    ],
)
def test_a_namespace_of_nobodys_stops_the_start(make: Any, namespace: str) -> None:
    """A namespace that is neither the plugin's nor a URL is told, with the key, the value and the remedy."""
    with pytest.raises(
        StartupError, match=r"plugins\.profile_claims\.namespace .*https://example\.com/claims/"
    ) as told:
        make("profile_claims", namespace=namespace)
    assert repr(namespace) in str(told.value)


@pytest.mark.parametrize(
    "wrong", [{"members": ["team", "team"]}, {"members": "team"}, {"members": [""]}, {"namespace": ""}, {"member": []}]
)
def test_wrong_keys_stop_the_start(make: Any, wrong: dict[str, Any]) -> None:
    """The section is checked: types, doubles and keys."""
    with pytest.raises(StartupError, match=r"plugins\.profile_claims"):
        make("profile_claims", **wrong)


class Members:
    """A plugin that has register take members."""

    def __init__(self, context: Any) -> None:
        pass

    @hookimpl
    def hydracore_register_profile_members(self) -> list[ProfileMember]:
        return [ProfileMember(name, TEAM) for name in ("team", "motto")]


async def opened(open_site: OpenSite, **section: Any) -> Site:
    plugins = {"enabled": ["profile_claims"], "profile_claims": section}
    return await open_site(extra={"members": Members}, plugins=plugins)


def claims_of(granted: dict[str, Any]) -> dict[str, Any]:
    claims = jwt.decode(granted["access_token"], options={"verify_signature": False})
    return {name: value for name, value in claims.items() if ":" in name}


async def test_claims_in_tokens(open_site: OpenSite) -> None:
    """What was sent at register is in the first token, after a refresh, and after signing in; handlers see it too."""
    site = await opened(open_site, namespace=URL, members=["team"])
    body = {"email": EMAIL, "password": PASSWORD, "team": "engines", "motto": "kept back"}
    first = tokens(await site.post("register", body), 201)
    second = tokens(await site.post("refresh", {"refresh_token": first["refresh_token"]}))
    third = tokens(await site.post("login", {"email": EMAIL, "password": PASSWORD}))
    assert [claims_of(granted) for granted in (first, second, third)] == [{URL + "team": "engines"}] * 3
    assert json.loads((await site.me(second["access_token"])).body)["profile"] == {
        "team": "engines",
        "motto": "kept back",
    }


async def test_a_refresh_reads_anew(open_site: OpenSite) -> None:
    """A changed profile is in the token after the next refresh, and a member that went is not."""
    site = await opened(open_site, members=["team", "motto"])
    body = {"email": EMAIL, "password": PASSWORD, "team": "engines", "motto": "on"}
    first = tokens(await site.post("register", body), 201)
    users = site.hydra.services.store.collection("users")
    await users.update_one({"email": EMAIL}, {"$set": {"profile.team": "looms"}, "$unset": {"profile.motto": ""}})
    second = tokens(await site.post("refresh", {"refresh_token": first["refresh_token"]}))
    assert claims_of(second) == {"profile_claims:team": "looms"}


async def test_an_account_without_the_member(open_site: OpenSite) -> None:
    """Who has no such member signs in all the same, without the claim."""
    site = await opened(open_site, members=["team"])
    assert claims_of(await site.register()) == {}


async def test_too_much_for_a_token(open_site: OpenSite, expected_logs: list[str]) -> None:
    """More than a token may hold is answered 503, the log names the plugin, and the refresh token stays good."""
    expected_logs += ["plugin failed", "unavailable"]
    site = await opened(open_site, members=["team"])
    body = {"email": EMAIL, "password": PASSWORD, "team": "x" * 3000}
    refused(await site.post("register", body), 503, "unavailable")
    first = tokens(await site.post("register", {**body, "team": "engines"}), 201)
    users = site.hydra.services.store.collection("users")
    await users.update_one({"email": EMAIL}, {"$set": {"profile.team": "x" * 3000}})
    refused(await site.post("login", {"email": EMAIL, "password": PASSWORD}), 503, "unavailable")
    refused(await site.post("refresh", {"refresh_token": first["refresh_token"]}), 503, "unavailable")
    await users.update_one({"email": EMAIL}, {"$set": {"profile.team": "looms"}})
    second = tokens(await site.post("refresh", {"refresh_token": first["refresh_token"]}))
    assert claims_of(second) == {"profile_claims:team": "looms"}
    await site.register("eve@example.com")
