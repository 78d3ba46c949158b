"""Signing keys: staged, shared, published, sealed."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import jwt
import pytest
from support import SECRET, Clock, OpenSite, Site, refused, tokens

from hydracore.errors import StartupError
from hydracore.events import Event, KeyRotated
from hydracore.keys import Keys
from hydracore.models import SigningKey
from hydracore.plugin import hookimpl
from hydracore.secret import ServerSecret
from hydracore.store import Store
from hydracore.threads import Threads

THREADS = Threads("keys", 2, 64)


class Heard:
    """What a listener hears of keys."""

    def __init__(self) -> None:
        self.events: list[KeyRotated] = []

    @hookimpl
    async def hydracore_on_event(self, event: Event) -> None:
        self.events += [event] if isinstance(event, KeyRotated) else []


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
    await one.hydra.rotate_keys()
    signed_in = tokens(
        await one.post("login", {"email": "ada@example.com", "password": "correct horse battery staple"})
    )
    two.clock.forward(seconds=5)  # It asks once a second, and may just have done so.
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


async def pair(open_site: OpenSite, database: str, **tokens: Any) -> tuple[Site, Site]:
    """Two nodes with one key, whose clocks go together."""
    one = await open_site(store={"database": database}, tokens=tokens)
    await fresh(one)
    two = await open_site(store={"database": database}, tokens=tokens, keep=True)
    two.clock.forward = one.clock.forward  # type: ignore[method-assign]
    two.hydra.services.keys._now = one.clock
    return one, two


async def published(site: Site) -> list[str]:
    return [key["kid"] for key in json.loads((await site.ask("GET", "/.well-known/jwks.json")).body)["keys"]]


async def test_emergency(open_site: OpenSite) -> None:
    """In an emergency every key of before, the next one included, ends on all nodes three seconds later: tokens under
    them are refused, the key set is the new key alone, and a refresh gives a token under that, for nobody is signed
    out."""
    one, two = await pair(open_site, "keys_emergency")
    login = await one.register()
    await one.hydra.rotate_keys()
    one.clock.forward(seconds=61)
    second = tokens(await one.post("refresh", {"refresh_token": login["refresh_token"]}))
    await two.hydra.rotate_keys()
    key = await one.hydra.rotate_keys(emergency=True)
    for node in (one, two):
        await node.hydra.services.keys.load()
        assert [state for _, state in node.hydra.services.keys.states()] == ["retired", "active", "next", "next"]
        assert (await node.me(login["access_token"])).code == 200  # Known everywhere before anything changes.
    one.clock.forward(seconds=3)
    for node in (one, two):
        for grant in (login, second):
            refused(await node.me(grant["access_token"]), 401, "not_authenticated")
        assert await published(node) == [key.kid]
    renewed = tokens(await two.post("refresh", {"refresh_token": second["refresh_token"]}))
    assert jwt.get_unverified_header(renewed["access_token"])["kid"] == key.kid
    for node in (one, two):
        assert (await node.me(renewed["access_token"])).code == 200
        await node.hydra.services.keys.load()
    assert [kept.kid for kept in await one.hydra._store.keys.all()] == [key.kid]


async def test_emergency_that_breaks_off(open_site: OpenSite) -> None:
    """Where whoever began an emergency dies once its key is added, any other node ends the keys of before."""
    one, two = await pair(open_site, "keys_broken_off")
    old = await one.register()
    assert await one.hydra._store.keys.add(one.hydra.services.keys._make(2, True))
    await two.hydra.services.keys.load()
    one.clock.forward(seconds=3)
    refused(await two.me(old["access_token"]), 401, "not_authenticated")
    await one.hydra.services.keys.load()
    refused(await one.me(old["access_token"]), 401, "not_authenticated")


async def test_emergencies_among_rotations(open_site: OpenSite) -> None:
    """Emergencies at the same time as rotations on other nodes come after those whose number they lost: no key of
    before is left without its end."""
    one, two = await pair(open_site, "keys_urgent", key_lead=600)
    ways = [(node, urgent) for node in (one, two) for urgent in (False, True)]
    made = await asyncio.gather(*(node.hydra.rotate_keys(emergency=urgent) for node, urgent in ways))
    for node in (one, two):
        await node.hydra.services.keys.load()
    latest = max(key.sequence for key in made if key.emergency)
    ring = await one.hydra._store.keys.all()
    [newest] = [key for key in ring if key.sequence == latest]
    assert all(key.expires_at and key.expires_at <= newest.active_from for key in ring if key.sequence < latest)
    one.clock.forward(seconds=4)
    grant = await one.register()
    assert jwt.get_unverified_header(grant["access_token"])["kid"] == newest.kid
    assert (await two.me(grant["access_token"])).code == 200


async def test_schedule(open_site: OpenSite) -> None:
    """A key that has signed for its time is followed by one that was published before; of two nodes one makes it, and
    tells so."""
    one, two = await pair(open_site, "keys_schedule", key_rotation=86_400, key_lead=600)
    [first] = one.hydra.services.keys.jwks()["keys"]

    async def made() -> list[SigningKey]:
        found = await asyncio.gather(*(node.hydra.services.keys.rotate_if_due() for node in (one, two)))
        for node in (one, two):
            await node.hydra.services.keys.load()
        return [key for key in found if key]

    one.clock.forward(seconds=86_400 - 600 - 60)
    assert await made() == []
    one.clock.forward(seconds=60)
    [key] = await made()
    assert await made() == []
    for node in (one, two):
        assert await published(node) == [first["kid"], key.kid]
        assert node.hydra.services.keys.signing()[0] == first["kid"]
    one.clock.forward(seconds=600)
    assert [node.hydra.services.keys.signing()[0] for node in (one, two)] == [key.kid, key.kid]


async def test_schedule_is_kept(open_site: OpenSite) -> None:
    """A running node keeps to the schedule by itself, and announces the new key; with 0 there is none."""
    heard = Heard()
    one = await open_site(
        store={"database": "keys_kept"}, tokens={"key_rotation": 0}, extra={"heard": lambda context: heard}
    )
    await fresh(one)
    one.clock.forward(days=3650)
    await one.hydra._tend_keys()
    assert len(one.hydra.services.keys.states()) == 1
    one.hydra.services.keys._rotation = timedelta(days=90)
    await one.hydra._tend_keys()
    assert [state for _, state in one.hydra.services.keys.states()] == ["active", "next"]
    await one.hydra.registry.settle()
    [event] = heard.events
    assert (event.kid, event.emergency) == (one.hydra.services.keys.states()[1][0].kid, False)


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
    """The key set is public and readable from any origin."""
    answer = await site.ask("GET", "/.well-known/jwks.json")
    assert answer.headers["Cache-Control"] == "public, max-age=30"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    [key] = json.loads(answer.body)["keys"][-1:]
    assert {"kty", "crv", "x", "y", "kid", "alg", "use"} == set(key)


@pytest.mark.parametrize(("lead", "kept"), [(0, 0), (2, 1), (30, 15), (60, 30), (86_400, 30)])
async def test_caching(open_site: OpenSite, lead: int, kept: int) -> None:
    """The key set may be kept for half of a key's lead, so that each key is known before it signs, and for half a
    minute at most, so that an emergency is soon over."""
    site = await open_site(driver="memory", tokens={"key_lead": lead})
    answer = await site.ask("GET", "/.well-known/jwks.json")
    assert answer.headers["Cache-Control"] == f"public, max-age={kept}"


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
