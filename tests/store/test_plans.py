"""What the database does for each call: it looks documents up, and never through a whole collection."""

from base64 import b64encode
from typing import Any

from support import PASSWORD, OpenSite, tokens

EMAIL = "ada@example.com"


async def test_no_call_scans_a_collection(open_site: OpenSite, mongod_uri: str) -> None:
    """mongod's own profile of every operation that all ten calls, the mail and the explanations of refusals make: each
    finds its documents by an index, and reads no more of them than it needs."""
    site = await open_site(limits={"enabled": True})
    database = site.hydra.services.store._database
    # Strangers, who a scan would have to pass.
    for number in range(30):
        await site.hydra.services.store.users._users._collection.insert_one(
            {"_id": f"stranger{number}", "address_key": f"stranger{number}"}
        )
    both = [{"$match": {"_id": "x"}}, {"$unionWith": {"coll": "users", "pipeline": [{"$match": {"_id": "y"}}]}}]
    plan = await database.command("explain", {"aggregate": "sessions", "pipeline": both, "cursor": {}})
    assert str(plan).count("IDHACK") + str(plan).count("'_id_'") >= 2, plan
    assert "COLLSCAN" not in str(plan)
    await database.command("profile", 2)
    try:
        grant = await site.verified(EMAIL)
        assert (await site.me(grant["access_token"])).code == 200
        grant = tokens(await site.post("refresh", {"refresh_token": grant["refresh_token"]}))
        assert (await site.post("login", {"email": EMAIL, "password": "something else"})).code == 401
        tokens(await site.post("login", {"email": EMAIL, "password": PASSWORD}))
        basic = b64encode(f"{EMAIL}:{PASSWORD}".encode()).decode()
        tokens(await site.ask("POST", "/auth/token", Authorization=f"Basic {basic}"))
        for call in ("resend-verification", "forgot-password"):
            assert (await site.post(call, {"email": EMAIL})).code in (200, 429)
        reset = {"token": await site.box.reset_token(EMAIL), "new_password": "an entirely new one"}
        assert (await site.post("reset-password", reset)).code == 200
        assert (await site.post("logout", {"refresh_token": grant["refresh_token"]})).code == 204
        await site.hydra._refusals.flush()
        await site.hydra.services.keys.load()
    finally:
        await database.command("profile", 0)
    seen: dict[str, set[str]] = {}
    async for entry in database["system.profile"].find({"ns": {"$not": {"$regex": "system"}}}):
        collection, plan = entry["ns"].partition(".")[2], entry.get("planSummary", "")
        seen.setdefault(collection, set()).add(plan)
        assert "COLLSCAN" not in plan, _told(entry)
        # A few more for what sorts or counts, and the ring of keys, which is read whole.
        assert entry.get("docsExamined", 0) <= max(10, 2 * entry.get("nreturned", 0)), _told(entry)
    assert {"users", "sessions", "codes", "outbox", "keys", "refusals"} <= set(seen)


def _told(entry: dict[str, Any]) -> str:
    return f"{entry['ns']} {entry.get('planSummary')} {entry.get('command')}"
