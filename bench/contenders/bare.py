"""The limits: a Tornado handler that does nothing, one that reads a document, and one that changes a document.

``python bare.py PORT WORKERS URI HTTP`` serves ``/nothing``, ``/find`` and ``/update``, with uvloop, as HydraCore does;
on Tornado's own server, or on HydraCore's, which reads by httptools.
"""

import asyncio
import random
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import uvloop
from pymongo import AsyncMongoClient, WriteConcern
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.process import fork_processes
from tornado.web import Application, RequestHandler

DOCUMENTS = 1000


class Nothing(RequestHandler):
    async def get(self) -> None:
        self.write({"id": "nobody", "email": "nobody@example.com"})


class Find(RequestHandler):
    async def get(self) -> None:
        now = datetime.now(UTC)
        query = {"_id": _any(), "expires_at": {"$gt": now}, "ends_at": {"$gt": now}}
        document = await self.settings["documents"].find_one(query)
        self.write({"id": document["user_id"], "email": "nobody@example.com"})


class Update(RequestHandler):
    async def post(self) -> None:
        now = datetime.now(UTC)
        query = {"_id": _any(), "expires_at": {"$gt": now}, "ends_at": {"$gt": now}}
        update = {"$inc": {"generation": 1}, "$set": {"rotated_at": now, "expires_at": now + timedelta(days=14)}}
        document = await self.settings["documents"].find_one_and_update(query, update)
        self.write({"id": document["user_id"], "email": "nobody@example.com"})


def _any() -> str:
    return f"bare{random.randrange(DOCUMENTS)}"  # noqa: S311  # any will do


async def serve(sockets: list[Any], uri: str, http: str) -> None:
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(uri, tz_aware=True)
    documents = client["bench_bare"].get_collection("documents", write_concern=WriteConcern("majority", j=True))
    now = datetime.now(UTC)
    later = now + timedelta(days=14)
    for number in range(DOCUMENTS):
        document = {"user_id": f"user{number}", "epoch": 0, "generation": 1, "created_at": now, "rotated_at": now}
        ends = {"ends_at": later, "expires_at": later}
        await documents.update_one({"_id": f"bare{number}"}, {"$setOnInsert": {**document, **ends}}, upsert=True)
    rules = [("/nothing", Nothing), ("/find", Find), ("/update", Update)]
    application = Application(rules, documents=documents, log_function=lambda handler: None)
    if http == "httptools":
        # Imported where it is used, or the others' memory would count it.
        from hydracore.config import load
        from hydracore.httptools_server import HttptoolsServer

        await HttptoolsServer(application, settings=load(environment={}).server).listen(sockets)
    else:
        HTTPServer(application).add_sockets(sockets)
    await asyncio.Event().wait()


def main() -> None:
    sockets = bind_sockets(int(sys.argv[1]), "127.0.0.1", backlog=1024)
    if int(sys.argv[2]) > 1:
        fork_processes(int(sys.argv[2]))
    uvloop.run(serve(sockets, *sys.argv[3:]))


if __name__ == "__main__":
    main()
