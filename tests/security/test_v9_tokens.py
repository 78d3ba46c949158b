"""ASVS 5.0, V9: self-contained tokens."""

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from typing import Any

import jwt
import pytest
from asking import EMAIL, bearer, claims, forgotten, refresh, reset
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm
from support import PASSWORD, OpenSite, Site, refused, tokens


def part(value: Any) -> str:
    return urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def signed(site: Site, said: dict[str, Any], **header: Any) -> str:
    """A token that the server's own key signed, whatever it says."""
    kid, algorithm, key = site.hydra.services.keys.signing()
    return jwt.encode(said, key, algorithm=algorithm, headers={"typ": "at+jwt", "kid": kid, **header})


async def turned_away(site: Site, token: str) -> None:
    refused(await site.me(token), 401, "not_authenticated")


async def test_v9_1_1_altered_tokens(site: Site) -> None:
    """A token whose header, claims or signature were altered is refused; so is one without a signature."""
    token = (await site.register())["access_token"]
    head, body, signature = token.split(".")
    altered = part({**claims(token), "evf": True})
    await turned_away(site, f"{head}.{altered}.{signature}")
    await turned_away(site, f"{part({**jwt.get_unverified_header(token), 'more': 1})}.{body}.{signature}")
    await turned_away(site, f"{head}.{body}.{signature[::-1]}")
    await turned_away(site, f"{head}.{body}.")
    assert (await site.me(token)).code == 200


async def test_v9_1_1_refresh_tokens(site: Site) -> None:
    """A refresh token whose session, generation or MAC was altered is refused, and the session goes on."""
    first = await site.register()
    prefix, session, generation, mac = first["refresh_token"].split(".")
    for forged in (
        f"{prefix}.{session[::-1]}.{generation}.{mac}",
        f"{prefix}.{session}.{int(generation) + 1}.{mac}",
        f"{prefix}.{session}.{generation}.{mac[::-1]}",
        f"{prefix}.{session}.{generation}.",
    ):
        refused(await refresh(site, forged), 401, "invalid_refresh_token")
    tokens(await refresh(site, first["refresh_token"]))


async def test_v9_1_2_algorithms(site: Site) -> None:
    """Tokens are signed with ES256, the algorithm of the published key, and none of any other is taken: none, an HMAC
    keyed with the public key, or another curve."""
    token = (await site.register())["access_token"]
    _, body, signature = token.split(".")
    header = jwt.get_unverified_header(token)
    [published] = json.loads((await site.ask("GET", "/.well-known/jwks.json")).body)["keys"]
    assert header["alg"] == published["alg"] == "ES256"
    for spelling in ("none", "None", "NONE", "nOnE", ""):
        await turned_away(site, f"{part({**header, 'alg': spelling})}.{body}.")
        await turned_away(site, f"{part({**header, 'alg': spelling})}.{body}.{signature}")
    public = site.hydra.services.keys.signing()[2].public_key()
    for secret in (
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(published).encode(),
        b"",
    ):
        mac_head = part({**header, "alg": "HS256"})
        mac = hmac.new(secret, f"{mac_head}.{body}".encode(), hashlib.sha256).digest()
        await turned_away(site, f"{mac_head}.{body}.{urlsafe_b64encode(mac).rstrip(b'=').decode()}")
    other = ec.generate_private_key(ec.SECP384R1())
    await turned_away(site, jwt.encode(claims(token), other, algorithm="ES384", headers=header | {"alg": "ES384"}))


@pytest.mark.parametrize("named", ["jwk", "jku", "x5u", "x5c", "kid"])
async def test_v9_1_3_keys_of_the_token(site: Site, named: str) -> None:
    """A key that the token itself brings or points to proves nothing."""
    token = (await site.register())["access_token"]
    mine = ec.generate_private_key(ec.SECP256R1())
    key = json.loads(ECAlgorithm.to_jwk(mine.public_key()))
    header = {"typ": "at+jwt", "kid": jwt.get_unverified_header(token)["kid"]}
    header |= {
        "jwk": {"jwk": key},
        "jku": {"jku": f"{site.url}/.well-known/jwks.json"},
        "x5u": {"x5u": "https://evil.example/cert.pem"},
        "x5c": {"x5c": ["MIIB"]},
        "kid": {"kid": "../../dev/null"},
    }[named]
    await turned_away(site, jwt.encode(claims(token), mine, algorithm="ES256", headers=header))


async def test_v9_1_3_published_keys(site: Site) -> None:
    """The published key is the one that proves tokens, and its private half is not published."""
    token = (await site.register())["access_token"]
    published = json.loads((await site.ask("GET", "/.well-known/jwks.json")).body)
    for key in published["keys"]:
        assert not {"d", "p", "q", "dp", "dq", "qi", "k"} & set(key)
    key = jwt.PyJWKSet.from_dict(published)[jwt.get_unverified_header(token)["kid"]]
    assert jwt.decode(token, key, algorithms=["ES256"], audience="hydracore")["sub"] == claims(token)["sub"]


async def test_v9_2_1_expiry(site: Site) -> None:
    """A token is taken until its exp and no second longer, and one without exp, or with no number there, is not."""
    token = (await site.register())["access_token"]
    said = claims(token)
    assert said["exp"] - said["iat"] == 1800
    for exp in (said["iat"] - 1, str(said["exp"]), None, True, 1e300):
        await turned_away(site, signed(site, {**said, "exp": exp}))
    await turned_away(site, signed(site, {name: value for name, value in said.items() if name != "exp"}))
    assert (await site.me(signed(site, said))).code == 200
    site.clock.forward(seconds=1790)
    assert (await site.me(token)).code == 200
    site.clock.forward(seconds=11)
    await turned_away(site, token)


async def test_v9_2_2_types(site: Site) -> None:
    """An access token says that it is one (RFC 9068), and nothing else is taken for one, though the same key signed."""
    token = (await site.register())["access_token"]
    said = claims(token)
    assert jwt.get_unverified_header(token)["typ"] == "at+jwt"
    for typ in ("JWT", "jwt", "id+jwt", "logout+jwt", "at+JWT+x", None, ["at+jwt"]):
        await turned_away(site, signed(site, said, typ=typ))
    # What another kind of token would lack.
    for claim in ("sid", "sub", "jti", "evf"):
        await turned_away(site, signed(site, {name: value for name, value in said.items() if name != claim}))


async def test_v9_2_2_purposes(site: Site) -> None:
    """Refresh token, access token, reset token and code: none does another's work."""
    first = await site.register()
    code, token = await site.box.code(EMAIL), await forgotten(site)
    access, again = first["access_token"], first["refresh_token"]
    for other in (again, token, code):
        await turned_away(site, other)
    for other in (access, token, code):
        refused(await refresh(site, other), 401, "invalid_refresh_token")
    for other in (again, code, claims(access)["sid"]):
        refused(await reset(site, other), 400, "invalid_token")
    refused(await site.ask("POST", "/auth/token", raw=b"", **bearer(access)), 401, "invalid_credentials")
    assert (await site.me(access)).code == 200
    assert (await reset(site, token)).code == 200


async def test_v9_2_3_audience(open_site: OpenSite) -> None:
    """A token for another audience is refused, though key, account and session are the same."""
    one = await open_site(tokens={"audience": "one"})
    two = await open_site(keep=True, tokens={"audience": "two"})
    first = await one.register()
    assert (await one.me(first["access_token"])).code == 200
    await turned_away(two, first["access_token"])
    said = claims(first["access_token"])
    for audience in (None, "", "on", "one ", ["two"], {"one": 1}):
        await turned_away(one, signed(one, {**said, "aud": audience}))
    await turned_away(one, signed(one, {**said, "iss": said["iss"] + ".evil.example"}))
    # The session is shared: what the second one issues it takes.
    again = tokens(await refresh(two, first["refresh_token"]))
    assert (await two.me(again["access_token"])).code == 200
    await turned_away(one, again["access_token"])


async def test_v9_2_4_issued_for_one_audience(open_site: OpenSite) -> None:
    """Every token that is issued names its issuer and the one configured audience, and no client chooses another."""
    site = await open_site(public_url="https://id.example.com", tokens={"audience": "https://api.example.com"})
    await site.register("eve@example.com")
    wish = {"aud": "https://other.example", "audience": "https://other.example", "resource": "https://other.example"}
    body = {"email": EMAIL, "password": "correct horse battery staple"}
    first = tokens(await site.post("register", {**body, **wish}), 201)
    second = tokens(await site.post("login?audience=https://other.example", {**body, **wish}))
    third = tokens(await site.post("refresh", {"refresh_token": first["refresh_token"], **wish}))
    for grant in (first, second, third):
        said = claims(grant["access_token"])
        assert (said["aud"], said["iss"]) == ("https://api.example.com", "https://id.example.com")


async def test_v9_2_1_not_before(site: Site) -> None:
    """A token is refused before its nbf, and with an nbf that is no number."""
    said = claims((await site.register())["access_token"])
    assert (await site.me(signed(site, {**said, "nbf": said["iat"]}))).code == 200
    await turned_away(site, signed(site, {**said, "nbf": said["exp"]}))
    await turned_away(site, signed(site, {**said, "nbf": "soon"}))


async def test_v9_1_1_proven_before(site: Site) -> None:
    """A token whose signature was proven once is refused once it has expired, and once its key is none of ours; and the
    same claims under another signature are not taken for it."""
    grant = await site.verified()
    token, keys = grant["access_token"], site.hydra.services.keys
    assert (await site.me(token)).code == 200
    altered = token[:-2] + ("AA" if token[-2:] != "AA" else "BB")
    await turned_away(site, altered)
    assert (await site.me(token)).code == 200
    kept = [document async for document in site.hydra._store.collection("keys").find()]
    await site.hydra._store.collection("keys").delete_many({})
    await keys.load()
    await turned_away(site, token)
    await site.hydra._store.collection("keys").insert_many(kept)
    await keys.load()
    assert (await site.me(token)).code == 200
    site.clock.forward(seconds=1801)
    await turned_away(site, token)


async def test_v9_1_1_few_are_remembered(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was proven is kept for some thousands of tokens, those that were used last; others are proven again."""
    monkeypatch.setattr("hydracore.tokens._MOST_PROVEN", 2)
    grants = [await site.verified()] + [
        tokens(await site.post("login", {"email": "ada@example.com", "password": PASSWORD})) for _ in range(3)
    ]
    for number in (0, 1, 2, 3, 0, 1, 0, 2):
        assert (await site.me(grants[number]["access_token"])).code == 200
    used = [hashlib.sha256(grants[number]["access_token"].encode()).digest() for number in (0, 2)]
    assert list(site.hydra.services.access._proofs) == used
