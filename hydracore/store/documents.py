"""One collection: frozen models in and out, the driver's errors translated."""

from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from typing import Any, Generic, TypeVar

from pymongo import ReturnDocument
from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure, PyMongoError

from hydracore.errors import StoreUnavailable
from hydracore.store.drivers import aggregated

Model = TypeVar("Model")
Other = TypeVar("Other")
Result = TypeVar("Result")
Query = Mapping[str, Any]


_DUPLICATE = 11000
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
        if {failure["code"] for failure in error.details["writeErrors"]} == {_DUPLICATE}:
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


class Documents(Generic[Model]):
    """The documents of one model; the model's ``key`` field is their ``_id``."""

    def __init__(self, collection: Any, model: type[Model], key: str = "id") -> None:
        self._collection = collection
        self._model = model
        self._key = key
        self._fields = [item.name for item in fields(model) if item.name != key]  # type: ignore[arg-type]  # a dataclass

    async def add(self, value: Model) -> bool:
        """Insert; False when a unique index refuses."""
        try:
            await answer(self._collection.insert_one(self._document(value)))
        except Duplicate:
            return False
        return True

    async def add_all(self, values: Sequence[Model]) -> None:
        """Insert; what a unique index refuses is left out."""
        with suppress(Duplicate):
            await answer(self._collection.insert_many([self._document(value) for value in values], ordered=False))

    async def put(self, value: Model) -> None:
        """Insert, or replace what has the same key."""
        document = self._document(value)
        try:
            await answer(self._collection.replace_one({"_id": document["_id"]}, document, upsert=True))
        except Duplicate:
            # Two upserts at once: the loser finds the document now.
            await answer(self._collection.replace_one({"_id": document["_id"]}, document))

    async def one(self, query: Query) -> Model | None:
        return self._value(await answer(self._collection.find_one(query)))

    async def beside(
        self, key: str, query: Query, other: "Documents[Other]", other_key: str
    ) -> tuple[Model | None, Other | None]:
        """The document of ``key`` if it matches ``query`` too, and the one of ``other_key`` there: one round trip."""
        there = {"$unionWith": {"coll": other._collection.name, "pipeline": [{"$match": {"_id": other_key}}]}}
        pipeline = [{"$match": {"_id": key, **query}}, there]
        found = {document["_id"]: document for document in await answer(aggregated(self._collection, pipeline))}
        return self._value(found.get(key)), other._value(found.get(other_key))

    async def many(self, query: Query, sort: Sequence[tuple[str, int]], limit: int) -> list[Model]:
        found = await answer(self._collection.find(query, sort=list(sort), limit=limit).to_list(limit))
        return [value for document in found if (value := self._value(document))]

    async def change(
        self, query: Query, update: Mapping[str, Any], sort: Sequence[tuple[str, int]] | None = None
    ) -> Model | None:
        """Change the first match in one atomic step; the changed one, or None."""
        changed = self._collection.find_one_and_update(query, update, sort=sort, return_document=ReturnDocument.AFTER)
        return self._value(await answer(changed))

    async def change_or_add(self, query: Query, update: Mapping[str, Any]) -> Model:
        """Change the match in one atomic step, or insert what ``query`` and ``update`` say."""

        async def attempt() -> Mapping[str, Any]:
            found: Mapping[str, Any] = await answer(
                self._collection.find_one_and_update(query, update, upsert=True, return_document=ReturnDocument.AFTER)
            )
            return found

        try:
            return self._model_of(await attempt())
        except Duplicate:
            # Two inserts at once: the loser finds the document now.
            return self._model_of(await attempt())

    async def change_all(self, query: Query, update: Mapping[str, Any]) -> int:
        result = await answer(self._collection.update_many(query, update))
        return int(result.modified_count)

    async def take(self, query: Query) -> Model | None:
        """Delete one match in one atomic step; what it was, or None: only one caller gets it."""
        return self._value(await answer(self._collection.find_one_and_delete(query)))

    async def drop(self, query: Query) -> int:
        """Delete every match; how many they were."""
        result = await answer(self._collection.delete_many(query))
        return int(result.deleted_count)

    def _document(self, value: Model) -> dict[str, Any]:
        return {"_id": getattr(value, self._key), **{name: getattr(value, name) for name in self._fields}}

    def _value(self, document: Mapping[str, Any] | None) -> Model | None:
        return None if document is None else self._model_of(document)

    def _model_of(self, document: Mapping[str, Any]) -> Model:
        # Members that a newer version added are passed over: documents only expand.
        known = {name: document[name] for name in self._fields if name in document}
        return self._model(**{self._key: document["_id"]}, **known)
