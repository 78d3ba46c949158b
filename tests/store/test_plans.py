"""What the database does for each call: it looks documents up, and never through a whole collection."""

import asyncio
import json
from base64 import b64encode
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from administering import Desk, both
from support import PASSWORD, OpenSite, Site, tokens

from hydracore.flows.sweep import sweep
from hydracore.models import Delivery, User
from hydracore.webhooks.courier import Courier
from hydracore.webhooks.notices import KINDS
from hydracore.webhooks.relay import Relay

EMAIL, OTHER, NEW = "ada@example.com", "countess@example.com", "an entirely new password"


async def test_no_call_scans_a_collection(open_site: OpenSite, mongod_uri: str, expected_logs: list[str]) -> None:
    """mongod's own profile of every operation that all calls, the mail and the explanations of refusals make: each
    finds its documents by an index, and reads no more of them than it needs."""
    expected_logs.append("webhook deferred")
    crm = {
        "url": "http://127.0.0.1:1/",
        "secret": f"whsec_{'c2Vj' * 10}",
        "events": [kind.name for kind in KINDS.values()],
    }
    site = await open_site(limits={"enabled": True}, webhooks={"endpoints": {"crm": crm}})
    database = site.hydra.services.store._database
    # Strangers, who a scan would have to pass.
    for number in range(30):
        await site.hydra.services.store.users._users._collection.insert_one(
            {"_id": f"stranger{number}", "address_key": f"stranger{number}"}
        )
    for one, other in (("x", "y"), ({"$in": ["x", "z"]}, {"$in": ["y", "w"]})):
        both = [{"$match": {"_id": one}}, {"$unionWith": {"coll": "users", "pipeline": [{"$match": {"_id": other}}]}}]
        plan = await database.command("explain", {"aggregate": "sessions", "pipeline": both, "cursor": {}})
        assert str(plan).count("IDHACK") + str(plan).count("'_id_'") >= 2, plan
        assert "COLLSCAN" not in str(plan)
    await database.command("profile", 2)
    try:
        grant = await site.verified(EMAIL)
        assert (await site.me(grant["access_token"])).code == 200
        grant = tokens(await site.post("refresh", {"refresh_token": grant["refresh_token"]}))
        # Those who ask at once share an operation.
        those = await asyncio.gather(*(site.me(grant["access_token"]) for _ in range(5)))
        assert [each.code for each in those] == [200] * 5
        again = [site.post("refresh", {"refresh_token": grant["refresh_token"]}) for _ in range(5)]
        grant = tokens((await asyncio.gather(*again))[0])
        assert (await site.post("login", {"email": EMAIL, "password": "something else"})).code == 401
        tokens(await site.post("login", {"email": EMAIL, "password": PASSWORD}))
        basic = b64encode(f"{EMAIL}:{PASSWORD}".encode()).decode()
        tokens(await site.ask("POST", "/auth/token", Authorization=f"Basic {basic}"))
        for call in ("resend-verification", "forgot-password"):
            assert (await site.post(call, {"email": EMAIL})).code in (200, 429)
        held = {"Authorization": f"Bearer {grant['access_token']}"}
        sessions = json.loads((await site.ask("GET", "/auth/sessions", **held)).body)["sessions"]
        assert (await site.ask("DELETE", f"/auth/sessions/{sessions[0]['id']}", **held)).code == 204
        assert (await site.post("sessions/revoke-others", **held)).code == 200
        grant = tokens(await site.post("login", {"email": EMAIL, "password": PASSWORD}))
        held = {"Authorization": f"Bearer {grant['access_token']}"}
        change = {"current_password": PASSWORD, "new_password": NEW}
        grant = tokens(await site.post("change-password", change, **held))
        held = {"Authorization": f"Bearer {grant['access_token']}"}
        assert (await site.post("change-email", {"password": NEW, "email": OTHER}, **held)).code == 200
        tokens(await site.post("confirm-email", {"code": await site.box.change_code(OTHER)}, **held))
        undo = {"token": await site.box.undo_token(EMAIL)}
        expected_logs.append("EmailChangeUndone")
        assert (await site.post("undo-email-change", undo)).code == 200
        reset = {"token": await site.box.reset_token(EMAIL, 2), "new_password": "an entirely new one"}
        assert (await site.post("reset-password", reset)).code == 200
        assert (await site.post("logout", {"refresh_token": grant["refresh_token"]})).code == 204
        grant = tokens(await site.post("login", {"email": EMAIL, "password": "an entirely new one"}))
        held = {"Authorization": f"Bearer {grant['access_token']}"}
        assert (await site.ask("GET", "/auth/me/export", **held)).code == 200
        close = {"body": {"password": "an entirely new one"}, **held}
        assert (await site.ask("DELETE", "/auth/me", **close)).code == 200
        reopen = {"token": await site.box.undo_token(EMAIL, about="account is closed")}
        assert (await site.post("undo-deletion", reopen)).code == 200
        grant = tokens(await site.post("login", {"email": EMAIL, "password": "an entirely new one"}))
        close["Authorization"] = f"Bearer {grant['access_token']}"
        assert (await site.ask("DELETE", "/auth/me", **close)).code == 200
        site.clock.forward(days=8)
        await sweep(site.hydra.services)
        await site.hydra._relay.settle()
        await site.hydra._relay._look()
        await site.hydra._webhook_backlog("crm")
        await site.hydra._refusals.flush()
        await site.hydra.services.keys.load()
        await site.hydra._equalise()
        assert await site.hydra.services.store.users.page(None, 1, "admin") == []
        assert len(await site.hydra.services.store.users.taking([EMAIL, OTHER, "x"], ["y"])) <= 1
    finally:
        await database.command("profile", 0)
    seen: dict[str, set[str]] = {}
    async for entry in database["system.profile"].find({"ns": {"$not": {"$regex": "system"}}}):
        collection, plan = entry["ns"].partition(".")[2], entry.get("planSummary", "")
        seen.setdefault(collection, set()).add(plan)
        assert "COLLSCAN" not in plan, _told(entry)
        # A few more for what sorts or counts, and the ring of keys, which is read whole.
        assert entry.get("docsExamined", 0) <= max(10, 2 * entry.get("nreturned", 0)), _told(entry)
    assert {"users", "sessions", "codes", "outbox", "deliveries", "keys", "refusals"} <= set(seen)


async def test_administering_is_by_an_index(open_site: OpenSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking for accounts by a prefix, page after page, reads one range of the index on addresses and no more of it
    than the page has; every other call of the Admin API finds what it reads by an index, too."""
    for worker in (Courier, Relay):  # What they ask meanwhile is not the Admin API's.
        monkeypatch.setattr(worker, "start", lambda self: None)
    crm = {"url": "http://127.0.0.1:1/", "secret": f"whsec_{'c2Vj' * 10}", "events": ["user.deletion_undone"]}
    desk = Desk(await open_site(both, driver="pymongo", webhooks={"endpoints": {"crm": crm}}))
    services = desk.site.hydra.services
    names = [(f"s{number:04}", f"s{number:04}@example.com") for number in range(2000)]
    await services.store.users.add_all([User(name, email, email, "", desk.clock()) for name, email in names])
    await desk.site.register()
    now, body = desk.clock(), ("user.registered", "{}", "")
    for state in ("waiting", "dead", "delivered"):
        told = [(f"{state}{number}.{name}", name) for number in range(100) for name in ("crm", "gone")]
        later = now + timedelta(days=1)
        await services.store.deliveries.add_all(
            [Delivery(each, name, each, *body, now, later, later, state) for each, name in told]
        )
    database = services.store._database
    user = await desk.user()
    await database.drop_collection("system.profile")  # What another test has left.
    await database.command("profile", 2)
    try:
        found = await services.store.users.search("s1", "s1200@example.com", 21)
        assert [each.id for each in found] == [f"s{number}" for number in range(1201, 1222)]
        for path in (
            *("/users?email=ada", "/users?limit=1", f"/users/{user.id}", f"/users/{user.id}/sessions", "/mail"),
            *("/mail?state=dead", "/mail?state=waiting", "/tokens", "/audit", f"/audit?user_id={user.id}", "/keys"),
            *("/webhooks", "/webhooks?state=dead", "/webhooks?webhook=crm", "/webhooks?state=dead&webhook=crm"),
        ):
            page = await desk.get(path)
            if page.get("next"):
                await desk.get(f"{path}{'&' if '?' in path else '?'}cursor={page['next']}")
        for action in ("disable", "enable", "mark-verified", "force-reset"):
            await desk.post(f"/users/{user.id}/{action}")
        await desk.delete(f"/users/{user.id}/sessions")
        await desk.post("/mail/retry")
        for path in ("/webhooks/replay", "/webhooks/retry"):
            await desk.post(path, {"webhook": "crm"})
        await desk.post("/webhooks/retry", {})
        await desk.delete(f"/users/{user.id}")
        assert (await desk.ask("GET", "/keys", token=f"hca1.{'A' * 43}")).code == 401
    finally:
        await database.command("profile", 0)
    entries = await database["system.profile"].find({"ns": {"$not": {"$regex": "system"}}}).to_list(1000)
    for entry in entries:
        assert "COLLSCAN" not in entry.get("planSummary", ""), _told(entry)
        assert not entry.get("hasSortStage") or "sessions" in entry["ns"], _told(entry)
    assert {"users", "sessions", "outbox", "deliveries", "audit", "admin_tokens"} <= {
        each["ns"].partition(".")[2] for each in entries
    }
    [searched] = [each for each in entries if "s1200@example.com" in str(each["command"].get("filter"))]
    asked = {name: searched["command"][name] for name in ("find", "filter", "sort", "limit")}
    told = await database.command({"explain": asked, "verbosity": "executionStats"})
    plan, stats = told["queryPlanner"]["winningPlan"], told["executionStats"]
    assert (plan["stage"], plan["inputStage"]["stage"], plan["inputStage"]["inputStage"]["stage"]) == (
        *("LIMIT", "FETCH", "IXSCAN"),
    )
    range_ = plan["inputStage"]["inputStage"]
    assert range_["indexName"] == "address_key_1"
    assert range_["indexBounds"] == {"address_key": ['("s1200@example.com", "s1\U0010ffff")']}
    assert (stats["totalKeysExamined"], stats["totalDocsExamined"]) == (21, 21)


async def test_roles_cost_those_who_have_some(site: Site) -> None:
    """The index of roles has an entry for each role that someone has, and none for accounts without; a page of those
    that have one is read from it in its order, from where the last one ended, and nobody else is looked at."""
    store, now = site.hydra.services.store, site.clock()
    admin = User("a0", "a0@example.com", "a0@example.com", "", now, roles=["admin", "beta"])
    for number in range(30):
        named = {"id": f"a{number}", "email": f"a{number}@example.com", "address_key": f"a{number}@example.com"}
        at = now + timedelta(seconds=number // 2)  # Some are of one moment.
        assert await store.users.add(replace(admin, **named, created_at=at))
        nobody = {name: value.replace("a", "s", 1) for name, value in named.items()}
        assert await store.users.add(replace(admin, **nobody, created_at=at, roles=[]))
    await store.users.set_roles("a29", ["admin", "beta"], [])
    counted = await store._database.command("validate", "users")
    [entries] = [count for name, count in counted["keysPerIndex"].items() if name.startswith("roles")]
    assert entries == 2 * 29
    profile = store._database["system.profile"]
    await profile.drop()
    await store._database.command("profile", 2)
    try:
        last, found = None, []
        while page := await store.users.page(last, 7, "admin"):
            found += page
            last = page[-1]
    finally:
        await store._database.command("profile", 0)
    assert found == sorted(found, key=lambda user: (user.created_at, user.id))
    assert {user.id for user in found} == {f"a{number}" for number in range(29)}
    pages = await profile.find({"command.find": "users"}).to_list(100)
    assert len(pages) == 6
    for page in pages:
        assert page["planSummary"].startswith("IXSCAN { roles"), page
        assert "hasSortStage" not in page, page
        assert page["docsExamined"] <= page["nreturned"] + 2, page  # Those of the moment that it begins with.


def _told(entry: dict[str, Any]) -> str:
    return f"{entry['ns']} {entry.get('planSummary')} {entry.get('command')}"
