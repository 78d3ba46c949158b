"""Published keys of every algorithm, held against the standards' own examples and against the tokens."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import jwt
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from support import OpenSite, Site, refused, tokens

from hydracore.jwk import generate, public_jwk, thumbprint

MEMBERS = {
    "ES256": {"kty": "EC", "crv": "P-256"},
    "EdDSA": {"kty": "OKP", "crv": "Ed25519"},
    "RS256": {"kty": "RSA"},
}
ALGORITHMS = sorted(MEMBERS)


def octets(text: str) -> bytes:
    assert "=" not in text
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def prove(key: dict[str, Any], token: str) -> None:
    """By the members of a published key alone, as RFC 7518 and RFC 8037 have them; raises ``InvalidSignature``."""
    signed, _, last = token.rpartition(".")
    signature, number = octets(last), {name: int.from_bytes(octets(key[name])) for name in "xyne" if name in key}
    if key["alg"] == "ES256":
        assert len(octets(key["x"])) == len(octets(key["y"])) == 32  # RFC 7518, 6.2.1.2: never shortened.
        assert len(signature) == 64
        halves = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
        public = ec.EllipticCurvePublicNumbers(number["x"], number["y"], ec.SECP256R1()).public_key()
        public.verify(encode_dss_signature(*halves), signed.encode(), ec.ECDSA(SHA256()))
    elif key["alg"] == "EdDSA":
        ed25519.Ed25519PublicKey.from_public_bytes(octets(key["x"])).verify(signature, signed.encode())
    else:
        assert octets(key["n"])[0] != 0  # RFC 7518, 6.3.1.1: no leading zero.
        assert number["n"].bit_length() == 2048
        public_rsa = rsa.RSAPublicNumbers(number["e"], number["n"]).public_key()
        public_rsa.verify(signature, signed.encode(), padding.PKCS1v15(), SHA256())


async def published(site: Site) -> list[dict[str, Any]]:
    keys: list[dict[str, Any]] = json.loads((await site.ask("GET", "/.well-known/jwks.json")).body)["keys"]
    return keys


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_each_algorithm(open_site: OpenSite, algorithm: str) -> None:
    """By configuration each algorithm signs, its key is published with what the RFCs ask for and no more, and proves
    the token; one bit of another message and it does not."""
    site = await open_site(driver="memory", tokens={"algorithm": algorithm})
    token = (await site.register())["access_token"]
    [key] = await published(site)
    header = jwt.get_unverified_header(token)
    assert (header["alg"], header["kid"], header["typ"]) == (algorithm, key["kid"], "at+jwt")
    assert MEMBERS[algorithm].items() <= key.items()
    assert set(key) == {"kty", "kid", "alg", "use", *{"ES256": "xy", "EdDSA": "x", "RS256": "ne"}[algorithm]} | (
        set(MEMBERS[algorithm])
    )
    assert (key["alg"], key["use"]) == (algorithm, "sig")
    prove(key, token)
    head, body, signature = token.split(".")
    with pytest.raises(InvalidSignature):
        prove(key, f"{head}.{body[:-1]}{'A' if body[-1] != 'A' else 'B'}.{signature}")
    assert (await site.me(token)).code == 200


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_the_algorithm_is_the_keys(open_site: OpenSite, algorithm: str) -> None:
    """A token that names another algorithm than its key's is refused, whichever that is, though the signature is as
    it should be for what the key does."""
    site = await open_site(driver="memory", tokens={"algorithm": algorithm})
    token = (await site.register())["access_token"]
    head, body, _ = token.split(".")
    header = json.loads(octets(head))
    kid, _, private = site.hydra.services.keys.signing()
    assert header["kid"] == kid
    signer = jwt.get_algorithm_by_name(algorithm)

    def naming(named: str) -> str:
        renamed = urlsafe_b64encode(json.dumps({**header, "alg": named}).encode()).rstrip(b"=").decode()
        signature = urlsafe_b64encode(signer.sign(f"{renamed}.{body}".encode(), private)).rstrip(b"=").decode()
        return f"{renamed}.{body}.{signature}"

    assert (await site.me(naming(algorithm))).code == 200
    for other in {*ALGORITHMS, "HS256", "none", "PS256", "ES384"} - {algorithm}:
        refused(await site.me(naming(other)), 401, "not_authenticated")


async def test_from_one_to_the_next(open_site: OpenSite) -> None:
    """ES256, RS256, EdDSA, ES256, one configured after the other: each is published before it signs, the tokens of
    before are taken, and the sessions go on."""
    site = await open_site(store={"database": "keys_algorithms"})
    await site.hydra.services.store.collection("keys").delete_many({})
    await site.hydra._prepare()
    grants = [await site.register()]
    for algorithm in ("RS256", "EdDSA", "ES256"):
        site.hydra.services.keys._algorithm = algorithm  # As after a restart with another configuration.
        await site.hydra._prepare()
        refresh = {"refresh_token": grants[-1]["refresh_token"]}
        grants.append(tokens(await site.post("refresh", refresh)))
        assert (await published(site))[-1]["alg"] == algorithm
        assert jwt.get_unverified_header(grants[-1]["access_token"])["alg"] != algorithm  # It is only published yet.
        site.clock.forward(seconds=61)
        refresh = {"refresh_token": grants[-1]["refresh_token"]}
        grants.append(tokens(await site.post("refresh", refresh)))
        assert jwt.get_unverified_header(grants[-1]["access_token"])["alg"] == algorithm
        for grant in grants:
            kid = jwt.get_unverified_header(grant["access_token"])["kid"]
            prove(next(key for key in await published(site) if key["kid"] == kid), grant["access_token"])
            assert (await site.me(grant["access_token"])).code == 200


def test_thumbprints() -> None:
    """A key's name is its thumbprint: the examples of RFC 7638, section 3.1, and RFC 8037, appendix A.3."""
    modulus = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknj"
        "hMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQ"
        "vRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzK"
        "nqDKgw"
    )
    assert thumbprint({"kty": "RSA", "n": modulus, "e": "AQAB"}) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    assert thumbprint({"kty": "OKP", "crv": "Ed25519", "x": x}) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_coordinates_keep_their_length() -> None:
    """Of a few hundred ES256 keys, one in 128 with a coordinate that begins with a zero, each is published with
    coordinates of 32 octets."""
    keys = [public_jwk(generate("ES256")) for _ in range(600)]
    assert {len(octets(key[name])) for key in keys for name in "xy"} == {32}
