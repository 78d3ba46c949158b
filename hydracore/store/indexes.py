"""Which indexes there must be, and making sure of them from any number of nodes at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pymongo.errors import OperationFailure

from hydracore.errors import StartupError, StoreUnavailable
from hydracore.records import Collection, Index
from hydracore.store.documents import Duplicate, answer

# Documents stay a day past their end: expiry is in the queries, this is for space alone.
_DAY = 86_400
_LONGEST_WORDS = 300
_CONFLICTS = (85, 86)  # IndexOptionsConflict, IndexKeySpecsConflict
# What MongoDB says of an index or a name that it will never take, and of nothing that passes: BadValue, FailedToParse,
# TypeMismatch, InvalidLength, InvalidOptions, InvalidNamespace, CannotCreateIndex, CommandNotSupportedOnView,
# InvalidIndexSpecificationOption.
_UNFIT = (2, 9, 14, 16, 67, 72, 73, 166, 197)


@dataclass(frozen=True)
class _Partial(Index):
    """An index of those documents alone that match ``where``. A query uses it that can find no others."""

    where: Mapping[str, Any] = field(default_factory=dict)


OWN = (
    Collection(
        "users",
        [
            Index([("address_key", 1)], unique=True),
            Index([("created_at", 1), ("_id", 1)]),
            # Whatever is kept for an account is nobody else's: an address of before as much as its own.
            Index([("addresses.key", 1)], unique=True, sparse=True),
            Index([("addresses.digest", 1)], sparse=True),
            Index([("addresses.expires_at", 1)], sparse=True),
            Index([("closing.digest", 1)], sparse=True),
            Index([("closing.ends_at", 1)], sparse=True),
            Index([("imported.work", 1)], sparse=True),
            Index([("untold.at", 1)], sparse=True),
            # Most accounts have none: a sparse index would have an entry for each empty list.
            _Partial([("roles", 1), ("created_at", 1), ("_id", 1)], where={"roles": {"$gt": ""}}),
        ],
    ),
    Collection("sessions", [Index([("user_id", 1)]), Index([("expires_at", 1)], expire_after=_DAY)]),
    Collection(
        "codes",
        [
            Index([("user_id", 1)]),
            Index([("digest", 1), ("kind", 1)]),
            Index([("expires_at", 1)], expire_after=_DAY),
        ],
    ),
    Collection(
        "outbox",
        [
            Index([("dead", 1), ("due_at", 1)]),
            Index([("dead", 1), ("_id", 1)]),
            Index([("lease", 1)]),
            Index([("address_key", 1)]),
        ],
    ),
    Collection(
        "deliveries",
        [
            Index([("endpoint", 1), ("state", 1), ("due_at", 1)]),
            Index([("state", 1), ("_id", 1)]),
            Index([("user_id", 1)]),
            Index([("expires_at", 1)], expire_after=0),
        ],
    ),
    Collection("keys", [Index([("sequence", 1)], unique=True)]),
    Collection("secrets"),
    Collection(
        "admin_tokens",
        [
            Index([("digest", 1)], unique=True),
            Index([("created_at", -1), ("_id", -1)]),
            Index([("expires_at", 1)], expire_after=30 * _DAY),  # Listed for a while as what they were.
        ],
    ),
    Collection(
        "audit",
        [
            Index([("at", -1), ("_id", -1)]),
            Index([("user_id", 1), ("at", -1), ("_id", -1)]),
            Index([("expires_at", 1)], expire_after=0),
        ],
    ),
    Collection("refusals", [Index([("request_id", 1)]), Index([("expires_at", 1)], expire_after=0)], durable=False),
)


async def ensure(database: Any, collections: Sequence[Collection]) -> None:
    """Create what is missing. Creating what is there already does nothing, so nodes may race.

    Raises :class:`StartupError` for what an operator has to put right, :class:`StoreUnavailable`.
    """
    for collection in collections:
        for index in collection.indexes:
            try:
                await answer(database[collection.name].create_index(list(index.keys), **_options(index)))
            except Duplicate as error:
                raise StartupError(
                    f"The unique index {collection.name}.{_name(index)} cannot be made: the collection holds "
                    "documents with the same value. Remove all but one of them."
                ) from error
            except StoreUnavailable as error:
                code = getattr(error.__cause__, "code", None)
                if code in _UNFIT:
                    raise StartupError(
                        f"The index {_name(index)} of the collection {collection.name} cannot be made: the database "
                        f"says {_said(error.__cause__)!r}. {_remedy(collection)}"
                    ) from error
                if code not in _CONFLICTS:
                    raise
                if not await _expires_otherwise(database, collection.name, index):
                    raise StartupError(
                        f"The index {collection.name}.{_name(index)} is there with other options. "
                        "Drop it: it is made anew at the next start."
                    ) from error


def _said(cause: Any) -> str:
    """The server's own words, without the rest of its answer."""
    return str((cause.details or {}).get("errmsg") or f"code {cause.code}")[:_LONGEST_WORDS]


def _remedy(collection: Collection) -> str:
    plugin, dot, _ = collection.name.rpartition(".")
    return f"Correct what the plugin {plugin} registers." if dot else "Look at that collection in the database."


async def _expires_otherwise(database: Any, collection: str, index: Index) -> bool:
    """Whether only the time after which documents go was another; it is set to the new one."""
    if index.expire_after is None:
        return False
    change = {"keyPattern": dict(index.keys), "expireAfterSeconds": index.expire_after}
    try:
        await answer(database.command({"collMod": collection, "index": change}))
        await answer(database[collection].create_index(list(index.keys), **_options(index)))
    except StoreUnavailable as error:
        if isinstance(error.__cause__, OperationFailure):
            return False
        raise
    return True


async def missing(database: Any, collections: Sequence[Collection]) -> list[str]:
    """The names, collection.index, of those that should be there and are not."""
    absent = []
    for collection in collections:
        present = await answer(database[collection.name].index_information())
        absent += [f"{collection.name}.{_name(index)}" for index in collection.indexes if _name(index) not in present]
    return absent


def _name(index: Index) -> str:
    return "_".join(f"{key}_{direction}" for key, direction in index.keys)


def _options(index: Index) -> Mapping[str, Any]:
    options: dict[str, Any] = {"name": _name(index)}
    if index.unique:
        options["unique"] = True
    if index.sparse:
        options["sparse"] = True
    if index.expire_after is not None:
        options["expireAfterSeconds"] = index.expire_after
    if isinstance(index, _Partial):
        options["partialFilterExpression"] = index.where
    return options
