"""Refresh tokens, access tokens, and the end of sessions."""

import asyncio
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support import PASSWORD, OpenSite, Site, refused, tokens

from hydracore.events import Event, RefreshReused
from hydracore.flows.account import find_user
from hydracore.plugin import Context, hookimpl

EMAIL = "ada@example.com"


async def test_repeat_within_the_grace(site: Site) -> None:
    """A refresh token presented again within 30 s yields the same successor."""
    first = await site.register()
    body = {"refresh_token": first["refresh_token"]}
    once = tokens(await site.post("refresh", body))
    site.clock.forward(seconds=29)
    assert tokens(await site.post("refresh", body))["refresh_token"] == once["refresh_token"]


async def test_repeat_after_the_grace_is_theft(site: Site, expected_logs: list[str]) -> None:
    """Presented after the grace it ends its session, the newest token included, and no other session."""
    expected_logs.append("RefreshReused")
    first = await site.register()
    other = tokens(await site.post("login", {"email": EMAIL, "password": PASSWORD}))
    second = tokens(await site.post("refresh", {"refresh_token": first["refresh_token"]}))
    site.clock.forward(seconds=31)
    refused(await site.post("refresh", {"refresh_token": first["refresh_token"]}), 401, "invalid_refresh_token")
    refused(await site.post("refresh", {"refresh_token": second["refresh_token"]}), 401, "invalid_refresh_token")
    refused(await site.me(second["access_token"]), 401, "not_authenticated")
    assert (await site.me(other["access_token"])).code == 200


async def test_an_older_generation_is_theft(site: Site, expected_logs: list[str]) -> None:
    """A token two generations old ends the session even within the grace."""
    expected_logs.append("RefreshReused")
    first = await site.register()
    second = tokens(await site.post("refresh", {"refresh_token": first["refresh_token"]}))
    third = tokens(await site.post("refresh", {"refresh_token": second["refresh_token"]}))
    refused(await site.post("refresh", {"refresh_token": first["refresh_token"]}), 401, "invalid_refresh_token")
    refused(await site.post("refresh", {"refresh_token": third["refresh_token"]}), 401, "invalid_refresh_token")


async def test_strict_refresh(open_site: OpenSite, expected_logs: list[str]) -> None:
    """With tokens.refresh_grace = 0 the second presentation is theft at once."""
    expected_logs.append("RefreshReused")
    site = await open_site(tokens={"refresh_grace": 0})
    first = await site.register()
    second = tokens(await site.post("refresh", {"refresh_token": first["refresh_token"]}))
    refused(await site.post("refresh", {"refresh_token": first["refresh_token"]}), 401, "invalid_refresh_token")
    refused(await site.post("refresh", {"refresh_token": second["refresh_token"]}), 401, "invalid_refresh_token")


async def test_strict_refresh_at_once(open_site: OpenSite, expected_logs: list[str]) -> None:
    """With tokens.refresh_grace = 0 at most one of many at once has a successor, and as the others are theft, it is
    worth nothing."""
    expected_logs.append("RefreshReused")
    site = await open_site(tokens={"refresh_grace": 0})
    body = {"refresh_token": (await site.register())["refresh_token"]}
    answers = await asyncio.gather(*(site.post("refresh", body) for _ in range(20)))
    successors = [tokens(answer) for answer in answers if answer.code == 200]
    assert len(successors) <= 1
    for grant in successors:
        refused(await site.post("refresh", {"refresh_token": grant["refresh_token"]}), 401, "invalid_refresh_token")
    assert {answer.code for answer in answers} <= {200, 401}


async def test_a_look_that_is_older(site: Site, monkeypatch: pytest.MonkeyPatch, expected_logs: list[str]) -> None:
    """Where the database shows what was before the refresh, nobody is taken for a thief."""
    expected_logs.append("unavailable")
    first = await site.register()
    sessions = site.hydra.services.store.sessions

    async def none_moved(*steps: Any) -> Any:
        return b"another's mark"

    with monkeypatch.context() as patch:
        patch.setattr(sessions._steps, "get", none_moved)
        answer = await site.post("refresh", {"refresh_token": first["refresh_token"]})
        refused(answer, 503, "store_unavailable")
    tokens(await site.post("refresh", {"refresh_token": first["refresh_token"]}))


async def test_refreshing_beside_others(site: Site, expected_logs: list[str]) -> None:
    """Those who refresh at the same time as thieves, and as those who sign out, have their own successors."""
    expected_logs.append("RefreshReused")
    people = [await site.verified(f"p{number}@example.com") for number in range(12)]
    for grant in people[:4]:  # Stolen: two generations have passed.
        newer = tokens(await site.post("refresh", {"refresh_token": grant["refresh_token"]}))
        await site.post("refresh", {"refresh_token": newer["refresh_token"]})
    closed = await find_user(site.hydra.services, "p4@example.com")
    assert closed
    await site.hydra.services.store.users.disable(closed.id)
    answers = await asyncio.gather(
        *(site.post("refresh", {"refresh_token": grant["refresh_token"]}) for grant in people),
        *(site.post("logout", {"refresh_token": grant["refresh_token"]}) for grant in people[10:]),
    )
    assert [answer.code for answer in answers[:10]] == [401] * 5 + [200] * 5
    for number, answer in enumerate(answers[5:10], 5):
        me = json.loads((await site.me(tokens(answer)["access_token"])).body)
        assert me["email"] == f"p{number}@example.com"


async def test_theft_is_announced_once(site: Site, expected_logs: list[str]) -> None:
    """Listeners hear of one theft once, however often the old token comes."""
    expected_logs.append("RefreshReused")
    heard: list[Event] = []

    class Ear:
        def __init__(self, context: Context) -> None:
            pass

        @hookimpl
        async def hydracore_on_event(self, event: Event) -> None:
            heard.append(event)

    site.hydra.registry.loaded.register("ear", Ear(None))
    first = await site.register()
    await site.post("refresh", {"refresh_token": first["refresh_token"]})
    site.clock.forward(seconds=31)
    for _ in range(3):
        await site.post("refresh", {"refresh_token": first["refresh_token"]})
    await site.hydra.registry.settle()
    assert [type(event) for event in heard].count(RefreshReused) == 1


async def test_sessions_end(site: Site) -> None:
    """A session ends when it is idle for two weeks, and after 30 days however busy it is."""
    idle = await site.register()
    site.clock.forward(days=14, seconds=1)
    refused(await site.post("refresh", {"refresh_token": idle["refresh_token"]}), 401, "invalid_refresh_token")
    busy = tokens(await site.post("login", {"email": EMAIL, "password": PASSWORD}))
    for _ in range(2):
        site.clock.forward(days=13)
        busy = tokens(await site.post("refresh", {"refresh_token": busy["refresh_token"]}))
    site.clock.forward(days=4, seconds=1)
    refused(await site.post("refresh", {"refresh_token": busy["refresh_token"]}), 401, "invalid_refresh_token")


async def test_access_tokens_expire(site: Site) -> None:
    """An access token is refused once its half hour is over."""
    first = await site.register()
    site.clock.forward(seconds=1799)
    assert (await site.me(first["access_token"])).code == 200
    site.clock.forward(seconds=2)
    refused(await site.me(first["access_token"]), 401, "not_authenticated")


async def test_access_token_is_rfc_9068(site: Site) -> None:
    """Its header and claims are those of RFC 9068, proven by the published key alone."""
    first = await site.register()
    keys = jwt.PyJWKSet.from_dict(site.hydra.services.keys.jwks())
    header = jwt.get_unverified_header(first["access_token"])
    assert (header["typ"], header["alg"]) == ("at+jwt", "ES256")
    claims = jwt.decode(
        first["access_token"],
        keys[header["kid"]].key,
        algorithms=["ES256"],
        audience="hydracore",
        issuer=site.hydra.config.issuer,
    )
    assert claims["exp"] - claims["iat"] == 1800
    assert claims["evf"] is False
    assert {"sub", "sid", "jti"} <= set(claims)


def _segment(value: Any) -> str:
    return urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def _forgeries(site: Site, token: str) -> dict[str, str]:
    head, body, signature = token.split(".")
    header = json.loads(urlsafe_b64decode(head + "=="))
    claims = json.loads(urlsafe_b64decode(body + "=="))
    stranger = ec.generate_private_key(ec.SECP256R1())
    kid, key = site.hydra.services.keys.signing()[0], site.hydra.services.keys.signing()[-1]
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    typed = {"typ": "at+jwt", "kid": kid}

    def signed(changed: dict[str, Any] | None = None, **head: Any) -> str:
        return jwt.encode({**claims, **(changed or {})}, key, algorithm="ES256", headers={**typed, **head})

    def without(claim: str) -> str:
        rest = {name: value for name, value in claims.items() if name != claim}
        return jwt.encode(rest, key, algorithm="ES256", headers=typed)

    hmac_head = _segment({**header, "alg": "HS256"})
    import hashlib
    import hmac

    mac = hmac.new(public, f"{hmac_head}.{body}".encode(), hashlib.sha256).digest()
    return {
        "alg none": f"{_segment({**header, 'alg': 'none'})}.{body}.",
        "alg None": f"{_segment({**header, 'alg': 'None'})}.{body}.",
        "public key as HMAC secret": f"{hmac_head}.{body}.{urlsafe_b64encode(mac).rstrip(b'=').decode()}",
        "a stranger's key": jwt.encode(claims, stranger, algorithm="ES256", headers=typed),
        "another kid": signed(kid="nobody"),
        "kid of another type": f"{_segment({**header, 'kid': {'$ne': None}})}.{body}.{signature}",
        "no kid": signed(kid=""),
        "typ JWT": signed(typ="JWT"),
        "unknown crit": signed(crit=["exp"], exp=1),
        "altered body": f"{head}.{_segment({**claims, 'evf': True})}.{signature}",
        "another issuer": signed({"iss": "https://evil.example"}),
        "part of the issuer": signed({"iss": claims["iss"][:-1]}),
        "another audience": signed({"aud": "other"}),
        "expired": signed({"exp": claims["iat"] - 1}),
        "exp a string": signed({"exp": "9999999999"}),
        "exp infinite": f"{head}.{_segment(claims)[:-1]}.{signature}",
        "evf a string": signed({"evf": "true"}),
        "sub an operator": signed({"sub": {"$ne": None}}),
        "sid of another type": signed({"sid": ["x"]}),
        "another user's session": signed({"sid": "x" * 24}),
        **{f"no {claim}": without(claim) for claim in ("exp", "iat", "iss", "aud", "sub", "sid", "jti", "evf")},
        "no signature": f"{head}.{body}.",
        "two parts": f"{head}.{body}",
        "rubbish": "rubbish",
        "dots": "..",
        "very long": "a" * 5000,
        "not ASCII": "\u00e9\u00e9.\u00e9.\u00e9",
        "embedded jwk": signed(jwk={"kty": "EC"}),
    }


async def test_forged_access_tokens(site: Site) -> None:
    """Forged, expired, wrongly signed and unsigned tokens get 401, whatever they hold."""
    first = await site.register()
    forgeries = _forgeries(site, first["access_token"])
    forgeries.pop("embedded jwk")  # Rightly signed: the header's key is merely not looked at.
    for name, forged in forgeries.items():
        answer = await site.ask("GET", "/auth/me", Authorization=f"Bearer {forged}")
        assert refused(answer, 401, "not_authenticated"), name


async def test_forged_refresh_tokens(site: Site) -> None:
    """Forged refresh tokens get 401, and none of them ends the session."""
    first = await site.register()
    prefix, session_id, generation, mac = first["refresh_token"].split(".")
    for forged in (
        f"{prefix}.{session_id}.2.{mac}",
        f"{prefix}.{session_id}.0.{mac}",
        f"{prefix}.{session_id}.01.{mac}",
        f"{prefix}.{session_id}.{generation}.{mac[:-1]}A" if mac[-1] != "A" else f"{prefix}.{session_id}.1.{mac[:-1]}B",
        f"{prefix}.{session_id}.{generation}.",
        f"{prefix}.{'x' * 24}.{generation}.{mac}",
        f"hcr2.{session_id}.{generation}.{mac}",
        "rubbish",
        "....",
        "\u00e9",
        "\x00",
        first["access_token"],
    ):
        refused(await site.post("refresh", {"refresh_token": forged}), 401, "invalid_refresh_token")
    tokens(await site.post("refresh", {"refresh_token": first["refresh_token"]}))


async def test_refresh_from_nothing(site: Site) -> None:
    """Without a token in body or cookie, 401."""
    refused(await site.post("refresh"), 401, "invalid_refresh_token")
    refused(await site.post("refresh", {"refresh_token": ""}), 401, "invalid_refresh_token")


async def test_logout_takes_any_token_of_the_session(site: Site) -> None:
    """Logging out by access token alone, or by an older refresh token, ends the session; anything else is 204 too."""
    one = await site.register()
    assert (await site.post("logout", Authorization=f"Bearer {one['access_token']}")).code == 204
    refused(await site.me(one["access_token"]), 401, "not_authenticated")
    two = tokens(await site.post("login", {"email": EMAIL, "password": PASSWORD}))
    newer = tokens(await site.post("refresh", {"refresh_token": two["refresh_token"]}))
    assert (await site.post("logout", {"refresh_token": two["refresh_token"]})).code == 204
    refused(await site.post("refresh", {"refresh_token": newer["refresh_token"]}), 401, "invalid_refresh_token")
    assert (await site.post("logout")).code == 204
    assert (await site.post("logout", {"refresh_token": "rubbish"})).code == 204


async def test_disabled_users(site: Site) -> None:
    """Disabling ends every session at once and lets nobody in, with the same words as a wrong password."""
    from hydracore.flows.account import disable_user, enable_user, find_user

    first = await site.verified()
    services = site.hydra.services
    user = await find_user(services, EMAIL)
    assert user
    await disable_user(services, user)
    refused(await site.me(first["access_token"]), 401, "not_authenticated")
    refused(await site.post("refresh", {"refresh_token": first["refresh_token"]}), 401, "invalid_refresh_token")
    refused(await site.post("login", {"email": EMAIL, "password": PASSWORD}), 401, "invalid_credentials")
    await site.post("forgot-password", {"email": EMAIL})
    await enable_user(services, user)
    refused(await site.me(first["access_token"]), 401, "not_authenticated")
    tokens(await site.post("login", {"email": EMAIL, "password": PASSWORD}))


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "RS256"])
async def test_algorithms(open_site: OpenSite, algorithm: str) -> None:
    """Each configurable algorithm signs, proves and publishes."""
    site = await open_site(tokens={"algorithm": algorithm}, store={"database": f"hydracore_{algorithm}"})
    first = await site.register()
    assert jwt.get_unverified_header(first["access_token"])["alg"] == algorithm
    assert (await site.me(first["access_token"])).code == 200
    published = json.loads((await site.ask("GET", "/.well-known/jwks.json")).body)["keys"]
    assert [key["alg"] for key in published] == [algorithm]
    assert not {"d", "p", "q"} & set(published[0])
