"""A Tornado application with HydraCore mounted in it: sign-up and sign-in under /auth, a page of its own.

Run it with ``python docs/examples/embedded.py``; it keeps its data in ``hydracore-data``.
"""

import asyncio
import os

from tornado.web import Application, RequestHandler

from hydracore import CurrentUserMixin, HydraCore


class Notes(CurrentUserMixin, RequestHandler):
    """For verified users: who is not signed in gets 401, who has not proven the address 403."""

    def initialize(self, notes: dict[str, list[str]]) -> None:
        self.notes = notes

    def get(self) -> None:
        self.write({"notes": self.notes.get(self.current_user.id, [])})

    def post(self) -> None:
        self.notes.setdefault(self.current_user.id, []).append(self.get_argument("note"))
        self.set_status(201)


class Hello(CurrentUserMixin, RequestHandler):
    """For everyone; it knows who is there."""

    allow_anonymous = True
    allow_unverified = True

    def get(self) -> None:
        self.write(f"Hello {self.current_user.email if self.current_user else 'stranger'}!\n")


async def main() -> None:
    async with HydraCore() as hydra:
        app = Application([*hydra.routes("/auth"), ("/", Hello), ("/notes", Notes, {"notes": {}})], hydracore=hydra)
        app.listen(int(os.environ.get("PORT", "8888")), "127.0.0.1")
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
