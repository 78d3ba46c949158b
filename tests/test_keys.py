"""Signing keys: staged, shared, published, sealed."""

import asyncio
import json
from datetime import timedelta

import jwt
import pytest
from support import SECRET, Clock, OpenSite, Site, refused, tokens

from hydracore.errors import StartupError
from hydracore.keys import Keys
from hydracore.secret import ServerSecret
from hydracore.store import Store
from hydracore.threads import Threads

THREADS = Threads("keys", 2, 64)


async def fresh(site: Site) -> None:
    """No keys but one made now."""
    await site.hydra._store.collection("keys").delete_many({})
    await site.hydra.services.keys.load()
    await site.hydra.services.keys.ensure()


async def test_stages(open_site: OpenSite) -> None:
    """A new key is published first, signs after its lead, and the old one stays until its last token has expired."""
    site = await open_site(store={"database": "keys_stages"})
    await fresh(site)
    keys = site.hydra.services.keys
    first = await site.register()
    await site.hydra.rotate_keys()
    assert [state for _, state in keys.states()] == ["active", "next"]
    assert len(keys.jwks()["keys"]) == 2
    site.clock.forward(seconds=61)
    assert [state for _, state in keys.states()] == ["retired", "active"]
    second = tokens(await site.post("refresh", {"refresh_token": first["refresh_token"]}))
    kids = [jwt.get_unverified_header(token["access_token"])["kid"] for token in (first, second)]
    assert kids[0] != kids[1]
    assert (await site.me(first["access_token"])).code == 200
    site.clock.forward(seconds=1800 + 120 + 1)
    await keys.load()
    assert [state for _, state in keys.states()] == ["active"]
    assert [key["kid"] for key in keys.jwks()["keys"]] == [kids[1]]


async def test_other_nodes_see_a_new_key(open_site: OpenSite) -> None:
    """A token under a key that another node has just made is accepted at once."""
    one = await open_site(store={"database": "keys_nodes"}, tokens={"key_lead": 0})
    two = await open_site(store={"database": "keys_nodes"}, tokens={"key_lead": 0}, keep=True)
    await one.register()
    two.clock.forward(seconds=5)
    await one.hydra.rotate_keys()
    signed_in = tokens(
        await one.post("login", {"email": "ada@example.com", "password": "correct horse battery staple"})
    )
    assert (await two.me(signed_in["access_token"])).code == 200


async def test_rotating_at_once(mongod_uri: str) -> None:
    """Ten nodes that rotate at once make one key and all return it."""
    stores, rings = [], []
    for _ in range(10):
        store = Store(driver="pymongo", database="keys_race", timeout=10)
        store.open(mongod_uri)
        stores.append(store)
        rings.append(
            Keys(store.keys, ServerSecret(SECRET), THREADS, algorithm="ES256", access_ttl=60, lead=0, now=Clock())
        )
    await stores[0].ensure()
    await stores[0].collection("keys").delete_many({})
    await asyncio.gather(*(ring.ensure() for ring in rings))
    assert len(await stores[0].keys.all()) == 1
    made = await asyncio.gather(*(ring.rotate() for ring in rings))
    assert {key.sequence for key in made} <= {2, 3}
    assert len({key.kid for key in made if key.sequence == 2}) <= 1
    for store in stores:
        await store.close()


async def test_private_keys_are_sealed(site: Site) -> None:
    """The database holds no private key in the clear, and another secret does not open it."""
    stored = await site.hydra._store.collection("keys").find_one({})
    assert b"PRIVATE" not in stored["sealed_private"]
    assert "d" not in stored["public_jwk"]
    stranger = Keys(
        site.hydra._store.keys, ServerSecret("x" * 32), THREADS, algorithm="ES256", access_ttl=1, lead=0, now=site.clock
    )
    with pytest.raises(StartupError, match="secret"):
        await stranger.load()


async def test_published_keys(site: Site) -> None:
    """The key set is public, cacheable for less than a key's lead, and readable from any origin."""
    answer = await site.ask("GET", "/.well-known/jwks.json")
    assert answer.headers["Cache-Control"] == "public, max-age=30"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    [key] = json.loads(answer.body)["keys"][-1:]
    assert {"kty", "crv", "x", "y", "kid", "alg", "use"} == set(key)


async def test_changing_the_algorithm(open_site: OpenSite) -> None:
    """With another algorithm configured a new key is made; until it signs, the old one does, and both prove."""
    old = await open_site(store={"database": "keys_algorithm"})
    await fresh(old)
    first = await old.register()
    new = await open_site(store={"database": "keys_algorithm"}, tokens={"algorithm": "EdDSA"}, keep=True)
    login = {"email": "ada@example.com", "password": "correct horse battery staple"}
    during = tokens(await new.post("login", login))
    new.clock.forward(seconds=61)
    after = tokens(await new.post("login", login))
    algorithms = [jwt.get_unverified_header(token["access_token"])["alg"] for token in (first, during, after)]
    assert algorithms == ["ES256", "ES256", "EdDSA"]
    for token in (first, during, after):
        assert (await new.me(token["access_token"])).code == 200


async def test_floods_of_invented_kids(site: Site) -> None:
    """Tokens under invented keys cost a look at the database once a second at most."""
    loads = 0
    keys = site.hydra.services.keys
    load = keys.load

    async def counted() -> None:
        nonlocal loads
        loads += 1
        await load()

    keys.load = counted
    header = {"typ": "at+jwt", "kid": "invented"}
    forged = jwt.encode({"sub": "x"}, "k" * 32, algorithm="HS256", headers=header)
    for _ in range(20):
        refused(await site.me(forged), 401, "not_authenticated")
    assert loads <= 3


async def test_a_clock_that_jumps_back(site: Site) -> None:
    """When the clock stands before a key's beginning, the oldest key signs rather than none."""
    site.clock.forward(days=-1)
    first = await site.register()
    assert (await site.me(first["access_token"])).code == 200
    site.clock._ahead = timedelta()
