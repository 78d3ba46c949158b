"""What differs between the drivers: making a client and closing it, and how an aggregation is begun. The other verbs of
their collections are the same."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from inspect import isawaitable
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

from hydracore.errors import StartupError

Client = tuple[Any, Callable[[], Awaitable[None]]]

# mongomock knows no $unionWith, and PyMongo's bulk writes only as they were.
SIMPLE = ("memory",)


def connect(driver: str, uri: str, timeout: int) -> Client:
    """A client of the running event loop, and what closes it. Every operation has ``timeout``
    seconds in all, of which finding a server may take half."""
    options: dict[str, Any] = {
        # A little less than what others wait for it, who would cancel it: see store/turns.py.
        "timeoutMS": timeout * 900,
        "serverSelectionTimeoutMS": timeout * 500,
        "connectTimeoutMS": timeout * 500,
        "tz_aware": True,
        "appname": "hydracore",
        **_retrying(uri),
    }
    try:
        return _CONNECT[driver](uri, options)
    except (PyMongoError, ValueError) as error:
        # Not in the driver's words, which may quote a password.
        raise StartupError(
            f"store.uri is not a connection string that the driver takes ({type(error).__name__}). "
            "In user names and passwords, : / ? # [ ] @ and % must be percent-encoded."
        ) from error


def _retrying(uri: str) -> dict[str, Any]:
    """A single mongod takes no retryable writes. PyMongo (4.20) finds that out when it has a connection for the second
    attempt, raises the first one's error there, and takes it for the new connection's: all connections end, and the
    server counts as unknown. After an outage one of many writers is always the next to do that, and nobody is served
    any more."""
    before, _, options = uri.lower().partition("?")
    several = uri.startswith("mongodb+srv:") or "," in before.rpartition("@")[2] or "replicaset=" in options
    return {} if several or "retrywrites=" in options else {"retryWrites": False}


async def aggregated(collection: Any, pipeline: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What the pipeline yields."""
    cursor = collection.aggregate(pipeline)
    if isawaitable(cursor):  # PyMongo's verb is a coroutine function, Motor's is none.
        cursor = await cursor
    found: list[Mapping[str, Any]] = await cursor.to_list(None)
    return found


def _pymongo(uri: str, options: dict[str, Any]) -> Client:
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(uri, **options)
    return client, client.close


def _motor(uri: str, options: dict[str, Any]) -> Client:
    # Optional dependency: imported only when chosen.
    try:
        from motor.motor_asyncio import AsyncIOMotorClient
    except ImportError as error:
        raise StartupError('store.driver is motor, which is not installed: pip install "hydracore[motor]".') from error
    client: Any = AsyncIOMotorClient(uri, **options)

    async def close() -> None:
        client.close()

    return client, close


def _memory(uri: str, options: dict[str, Any]) -> Client:
    # Optional dependency: imported only when chosen.
    try:
        from mongomock_motor import AsyncMongoMockClient
    except ImportError as error:
        raise StartupError(
            'store.driver is memory, which needs mongomock-motor: pip install "hydracore[memory]". '
            "It forgets everything and is for tests."
        ) from error

    async def close() -> None:
        pass

    return AsyncMongoMockClient(tz_aware=True), close


_CONNECT: dict[str, Callable[[str, dict[str, Any]], Client]] = {
    "pymongo": _pymongo,
    "motor": _motor,
    "memory": _memory,
}
