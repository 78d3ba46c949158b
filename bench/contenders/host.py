"""HydraCore embedded: a Tornado application of somebody else with HydraCore mounted in it.

``python host.py PORT WORKERS``; HydraCore takes its configuration from the environment.
"""

import asyncio
import sys
from typing import Any

import uvloop
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.process import fork_processes
from tornado.web import Application, RequestHandler

from hydracore import CurrentUserMixin, HydraCore


class Notes(CurrentUserMixin, RequestHandler):
    def get(self) -> None:
        self.write({"notes": []})


async def serve(sockets: list[Any]) -> None:
    async with HydraCore() as hydra:
        rules = [*hydra.routes("/auth"), *hydra.service_routes(), ("/notes", Notes)]
        HTTPServer(Application(rules, hydracore=hydra)).add_sockets(sockets)
        await asyncio.Event().wait()


def main() -> None:
    sockets = bind_sockets(int(sys.argv[1]), "127.0.0.1", backlog=1024)
    if int(sys.argv[2]) > 1:
        fork_processes(int(sys.argv[2]))
    uvloop.run(serve(sockets))


if __name__ == "__main__":
    main()
