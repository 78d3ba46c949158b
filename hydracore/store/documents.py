"""One collection: frozen models in and out, the driver's errors translated."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

from pymongo import ReturnDocument, UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure, PyMongoError
from pymongo.results import BulkWriteResult

from hydracore.errors import StoreUnavailable
from hydracore.meters import Meters, Operation
from hydracore.store.drivers import aggregated
from hydracore.store.loader import Keys, Loader
from hydracore.store.turns import Turns

Model = TypeVar("Model")
Other = TypeVar("Other")
Result = TypeVar("Result")
Query = Mapping[str, Any]
Found = list[Mapping[str, Any]]


FORMAT = 1
"""The version of our documents: each has the one that it was made in as ``format``, and none where it is older than
that. It is raised with the first change of a minor version. Readers do not ask for it, because changes only expand: it
is for whoever brings older documents up to date, to find them."""

_DUPLICATE = 11000
_JOINED = "joined"  # A member that no document has.
_REFUSALS = {13: "this user may not do that", 18: "the credentials in store.uri are wrong", 14031: "its disk is full"}


# What any driver raises: all of them speak PyMongo's errors.
DriverError = PyMongoError


class Duplicate(Exception):
    """A unique index refused a write."""


async def answer(operation: Awaitable[Result]) -> Result:
    """Await a driver's operation; raises :class:`Duplicate` or :class:`StoreUnavailable`."""
    try:
        return await operation
    except DuplicateKeyError as error:
        raise Duplicate from error
    except BulkWriteError as error:
        # Without the concern's word nobody knows whether what was not refused stays.
        codes = {failure["code"] for failure in error.details["writeErrors"]}
        if codes == {_DUPLICATE} and not error.details.get("writeConcernErrors"):
            raise Duplicate from error
        raise StoreUnavailable from error
    except PyMongoError as error:
        raise StoreUnavailable from error


def reason(error: StoreUnavailable) -> str:
    """Why, in words for an operator that hold nothing of the documents."""
    cause = error.__cause__
    if isinstance(cause, OperationFailure) and cause.code in _REFUSALS:
        return f"the database refuses ({_REFUSALS[cause.code]})"
    return "the database does not answer"


@dataclass(frozen=True)
class Source:
    """A driver's collection, and the turns that its operations take: writes wait for a majority of members, which must
    not keep what is read waiting."""

    collection: Any
    reads: Turns
    writes: Turns
    meters: Meters
    simple: bool = False
    """The driver knows neither ``$unionWith`` nor bulk writes: what they would do is done one by one."""


class Documents(Generic[Model]):
    """The documents of one model; the model's ``key`` field is their ``_id``."""

    def __init__(self, source: Source, model: type[Model], key: str = "id") -> None:
        self._source = source
        self._collection = source.collection
        self._model = model
        self._key = key
        self._measured = _Measured(source)
        self._by_key: Loader[str, Model] = Loader(self._all)
        self._fields = [item.name for item in fields(model) if item.name != key]  # type: ignore[arg-type]  # a dataclass

    async def add(self, value: Model) -> bool:
        """Insert; False when a unique index refuses."""
        try:
            await self._write("insert_one", lambda: self._collection.insert_one(self._document(value)))
        except Duplicate:
            return False
        return True

    async def add_all(self, values: Sequence[Model]) -> list[Model]:
        """Insert; what a unique index refuses is left out, and returned."""
        documents = [self._document(value) for value in values]
        try:
            await self._write("insert_many", lambda: self._collection.insert_many(documents, ordered=False))
        except Duplicate as error:
            refused: Any = error.__cause__
            return [values[failure["index"]] for failure in refused.details["writeErrors"]]
        return []

    async def put(self, value: Model) -> None:
        """Insert, or replace what has the same key."""
        document = self._document(value)
        same = {"_id": document["_id"]}
        try:
            await self._write("replace_one", lambda: self._collection.replace_one(same, document, upsert=True))
        except Duplicate:
            # Two upserts at once: the loser finds the document now.
            await self._write("replace_one", lambda: self._collection.replace_one(same, document))

    async def one(self, query: Query) -> Model | None:
        return self._value(await self._read("find_one", lambda: self._collection.find_one(query)))

    async def get(self, key: str) -> Model | None:
        """The document of ``key``; those who ask at once share an operation."""
        return await self._by_key.get(key) if _is_text(key) else None

    async def _all(self, keys: Keys[str]) -> Mapping[str, Model]:
        def look_up() -> Awaitable[Found]:
            wanted = keys()
            found: Awaitable[Found] = self._collection.find(_any_of(wanted), limit=len(wanted)).to_list(None)
            return found

        return {document["_id"]: self._model_of(document) for document in await self._read("find", look_up)}

    async def beside(
        self, asked: Callable[[], tuple[Sequence[str], Query, Sequence[str]]], other: "Documents[Other]"
    ) -> tuple[Mapping[str, Model], Mapping[str, Other]]:
        """By key, the documents that match the query too, and the other ones, whose keys come last: one operation.
        ``asked`` is called when its turn has come."""
        theirs: set[str] = set()

        def look_up() -> Awaitable[Found]:
            keys, query, other_keys = asked()
            theirs.update(other_keys)
            if self._source.simple:
                return self._one_by_one({**_any_of(keys), **query}, other, _any_of(other_keys))
            union = {"coll": other._collection.name, "pipeline": [{"$match": _any_of(other_keys)}]}
            return aggregated(self._collection, [{"$match": {**_any_of(keys), **query}}, {"$unionWith": union}])

        found = {document["_id"]: document for document in await self._read("aggregate", look_up)}
        here = {key: self._model_of(document) for key, document in found.items() if key not in theirs}
        return here, {key: other._model_of(document) for key, document in found.items() if key in theirs}

    async def _one_by_one(self, query: Query, other: "Documents[Other]", other_query: Query) -> Found:
        found = await self._collection.find(query).to_list(None)
        return [*found, *await other._collection.find(other_query).to_list(None)]

    async def joined(
        self, asked: Callable[[], tuple[Sequence[str], Query]], other: "Documents[Other]", member: str
    ) -> Mapping[str, tuple[Model, Other | None]]:
        """By key, the documents that match the query too, each with the one there whose key its ``member`` holds: one
        operation. ``asked`` is called when its turn has come."""

        def look_up() -> Awaitable[Found]:
            keys, query = asked()
            theirs = {"from": other._collection.name, "localField": member, "foreignField": "_id", "as": _JOINED}
            return aggregated(self._collection, [{"$match": {**_any_of(keys), **query}}, {"$lookup": theirs}])

        return {
            document["_id"]: (self._model_of(document), other._value(next(iter(document[_JOINED]), None)))
            for document in await self._read("aggregate", look_up)
        }

    async def many(self, query: Query, sort: Sequence[tuple[str, int]], limit: int) -> list[Model]:
        wanted = {"sort": list(sort), "limit": limit}
        found = await self._read("find", lambda: self._collection.find(query, **wanted).to_list(limit))
        return [value for document in found if (value := self._value(document))]

    async def distinct(self, member: str, query: Query) -> list[Any]:
        """The values that the member has in the documents that match."""
        found = await self._read("distinct", lambda: self._collection.distinct(member, query))
        return list(found)

    async def change(
        self, query: Query, update: Mapping[str, Any], sort: Sequence[tuple[str, int]] | None = None
    ) -> Model | None:
        """Change the first match in one atomic step; the changed one, or None."""
        how = {"sort": sort, "return_document": ReturnDocument.AFTER}
        return self._value(
            await self._write("find_one_and_update", lambda: self._collection.find_one_and_update(query, update, **how))
        )

    async def change_or_add(self, query: Query, update: Mapping[str, Any]) -> Model:
        """Change the match in one atomic step, or insert what ``query`` and ``update`` say."""
        made = {**update.get("$setOnInsert", {}), "format": FORMAT}

        def attempt() -> Awaitable[Mapping[str, Any]]:
            found: Awaitable[Mapping[str, Any]] = self._collection.find_one_and_update(
                query, {**update, "$setOnInsert": made}, upsert=True, return_document=ReturnDocument.AFTER
            )
            return found

        try:
            return self._model_of(await self._write("find_one_and_update", attempt))
        except Duplicate:
            # Two inserts at once: the loser finds the document now.
            return self._model_of(await self._write("find_one_and_update", attempt))

    async def change_each(self, changes: Callable[[], Sequence[tuple[Query, Mapping[str, Any]]]]) -> bool:
        """Change the match of each query in an atomic step of its own, all in one operation; whether each had one."""
        many: Sequence[tuple[Query, Mapping[str, Any]]] = ()

        async def attempt() -> int:
            nonlocal many
            many = changes()
            if self._source.simple:
                return sum([(await self._collection.update_one(*change)).matched_count for change in many])
            steps = [UpdateOne(*change) for change in many]
            result: BulkWriteResult = await self._collection.bulk_write(steps, ordered=False)
            return result.matched_count

        return await self._write("bulk_write", attempt) == len(many)

    async def change_all(self, query: Query, update: Mapping[str, Any]) -> int:
        result = await self._write("update_many", lambda: self._collection.update_many(query, update))
        return int(result.modified_count)

    async def take(self, query: Query) -> Model | None:
        """Delete one match in one atomic step; what it was, or None: only one caller gets it."""
        return self._value(
            await self._write("find_one_and_delete", lambda: self._collection.find_one_and_delete(query))
        )

    async def drop(self, query: Query) -> int:
        """Delete every match; how many they were."""
        result = await self._write("delete_many", lambda: self._collection.delete_many(query))
        return int(result.deleted_count)

    async def count(self, query: Query, most: int) -> int:
        """How many match; no more are counted than ``most``."""
        return int(await self._read("count_documents", lambda: self._collection.count_documents(query, limit=most)))

    async def _read(self, verb: str, operation: Callable[[], Awaitable[Result]]) -> Result:
        return await self._measured[verb](self._source.reads.take(lambda: answer(operation())))

    async def _write(self, verb: str, operation: Callable[[], Awaitable[Result]]) -> Result:
        return await self._measured[verb](self._source.writes.take(lambda: answer(operation())))

    def _document(self, value: Model) -> dict[str, Any]:
        members = {name: getattr(value, name) for name in self._fields}
        return {"_id": getattr(value, self._key), **members, "format": FORMAT}

    def _value(self, document: Mapping[str, Any] | None) -> Model | None:
        return None if document is None else self._model_of(document)

    def _model_of(self, document: Mapping[str, Any]) -> Model:
        # Members that a newer version added are passed over: documents only expand.
        known = {name: document[name] for name in self._fields if name in document}
        return self._model(**{self._key: document["_id"]}, **known)


def _is_text(key: str) -> bool:
    """Whether it can be asked for: those who ask at once must not fail for one of them."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


def _any_of(keys: Sequence[str]) -> dict[str, Any]:
    # One key alone has the database's shortest way.
    return {"_id": keys[0] if len(keys) == 1 else {"$in": list(keys)}}


class _Measured(dict[str, Operation]):
    """What measures the operations of a source, by verb; each is asked for when it is first needed."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source = source

    def __missing__(self, verb: str) -> Operation:
        operation = self[verb] = self._source.meters.operation(self._source.collection.name, verb)
        return operation
