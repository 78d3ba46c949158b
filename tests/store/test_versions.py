"""Two versions beside one another on one database: each reads what the other writes."""

import asyncio
from dataclasses import MISSING, fields
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import former
import pytest
from processes import LOGIN
from support import PASSWORD, Site, refused, tokens

from hydracore import models
from hydracore.store.documents import FORMAT

FORMER = {
    "users": former.User,
    "sessions": former.Session,
    "codes": former.Code,
    "outbox": former.MailIntent,
    "keys": former.SigningKey,
    "refusals": former.Refusal,
}
KEYS = {"keys": "kid"}


def read(collection: str, document: dict[str, Any]) -> Any:
    """The document as the version before reads it: members that it does not know are passed over."""
    model, key = FORMER[collection], KEYS.get(collection, "id")
    known = {item.name for item in fields(model)}
    return model(**{key: document["_id"]}, **{name: document[name] for name in document if name in known})


def written(collection: str, value: Any) -> dict[str, Any]:
    """The document as the version before writes it."""
    key = KEYS.get(collection, "id")
    members = {item.name: getattr(value, item.name) for item in fields(value) if item.name != key}
    return {"_id": getattr(value, key), **members}


def fits(value: Any, hint: Any) -> bool:
    """Whether a member's value is of the type that it had before."""
    if hint is Any:
        return True
    if isinstance(hint, UnionType):
        return any(fits(value, each) for each in get_args(hint))
    kind = get_origin(hint) or hint
    return isinstance(value, (list, tuple) if kind.__name__ == "Sequence" else kind) and not (
        kind is int and isinstance(value, bool)
    )


async def everything(site: Site) -> dict[str, list[dict[str, Any]]]:
    store = site.hydra._store
    return {name: await store.collection(name).find({}).to_list(1000) for name in FORMER}


async def a_little_of_everything(site: Site) -> dict[str, Any]:
    """Ada, proven and signed in; Bob, whose code is out; a reset that is asked for; a mail that waits; a refusal."""
    site.box.failure = None
    ada = await site.verified()
    await site.register("bob@example.com")
    await site.box.code("bob@example.com")
    assert (await site.post("forgot-password", {"email": "ada@example.com"})).code == 200
    await site.box.reset_token("ada@example.com")
    refused(await site.post("login", {**LOGIN, "password": "a wrong password"}), 401, "invalid_credentials")
    await site.hydra._mail.stop(5)  # From here on mail waits.
    await site.register("eve@example.com")
    for _ in range(1000):  # Refusals are kept beside the requests.
        if await site.hydra._store.collection("refusals").find_one({}):
            break
        await asyncio.sleep(0.01)
    return ada


async def test_what_the_version_before_wrote(site: Site) -> None:
    """Every document as a node of the version before writes it serves here: sessions go on, codes and links are taken,
    keys sign, and mail that waits goes out."""
    ada = await a_little_of_everything(site)
    store = site.hydra._store
    for name, documents in (await everything(site)).items():
        assert documents, name
        for document in documents:
            await store.collection(name).replace_one({"_id": document["_id"]}, written(name, read(name, document)))
    assert (await site.me(ada["access_token"])).code == 200
    again = tokens(await site.post("refresh", {"refresh_token": ada["refresh_token"]}))
    assert (await site.me(again["access_token"])).code == 200
    code = {"email": "bob@example.com", "code": await site.box.code("bob@example.com")}
    assert tokens(await site.post("verify-email", code))["email_verified"]
    reset = {"token": await site.box.reset_token("ada@example.com"), "new_password": f"{PASSWORD} too"}
    assert (await site.post("reset-password", reset)).code == 200
    tokens(await site.post("login", {"email": "ada@example.com", "password": f"{PASSWORD} too"}))
    site.hydra._mail.start()
    assert await site.box.code("eve@example.com")


async def test_what_the_version_before_reads(site: Site) -> None:
    """Every document that is written here has, for a node of the version before, each member that it needs, of the type
    that it knows; and says which version of the documents it is of."""
    newest = await site.hydra.rotate_keys()
    await a_little_of_everything(site)
    there = await everything(site)
    # Keys stay from test to test, and those of before may be the version before's.
    there["keys"] = [document for document in there["keys"] if document["_id"] == newest.kid]
    for name, documents in there.items():
        hints = get_type_hints(FORMER[name])
        assert documents, name
        for document in documents:
            assert document["format"] == FORMAT
            value = read(name, document)
            for item in fields(value):
                assert fits(getattr(value, item.name), hints[item.name]), (name, item.name)


@pytest.mark.parametrize("name", FORMER)
def test_changes_only_expand(name: str) -> None:
    """No member that the version before has is gone or of another type, and what is new may be missing."""
    now_model = getattr(models, FORMER[name].__name__)
    before, now = get_type_hints(FORMER[name]), get_type_hints(now_model)
    for member, hint in before.items():
        assert member in now, f"{name}.{member} is gone"
        # Kinds are narrower in the code than in the documents: texts.
        assert now[member] == hint or hint is str, f"{name}.{member} was {hint} and is {now[member]}"
    for item in fields(now_model):
        may_miss = (item.default, item.default_factory) != (MISSING, MISSING)
        assert item.name in before or may_miss, f"{name}.{item.name} is new: let it have a default"
