"""Receivers of webhooks: a real socket, and whatever a receiver may answer."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from standardwebhooks import Webhook

Answering = Callable[[asyncio.StreamWriter], Awaitable[None]]
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass(frozen=True)
class Post:
    """A request that came."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def type(self) -> str:
        return str(self.json["type"])

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def proven(self, secret: str = SECRET) -> Any:
        """Its payload, the signature checked by the standard's own library. Raises where it is not good."""
        return Webhook(secret).verify(self.body, self.headers)


def says(status: int, *headers: str, body: bytes = b"") -> Answering:
    """Answer with that status."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        head = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", "Connection: close", *headers]
        writer.write("\r\n".join([*head, "", ""]).encode() + body)
        await writer.drain()

    return answer


async def closes(writer: asyncio.StreamWriter) -> None:
    """Close the connection without a word."""


async def hangs(writer: asyncio.StreamWriter) -> None:
    """Never answer."""
    await asyncio.sleep(60)


async def drips(writer: asyncio.StreamWriter) -> None:
    """Say yes, and never come to the end."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        writer.write(b".")
        await writer.drain()
        await asyncio.sleep(0.05)


@dataclass
class Receiver:
    """Takes posts at ``url``; ``answers`` are for the next ones, then ``then``."""

    url: str = ""
    posts: list[Post] = field(default_factory=list)
    answers: list[Answering] = field(default_factory=list)
    then: Answering = field(default_factory=lambda: says(204))

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
            body = await reader.readexactly(int(headers["content-length"]))
            self.posts.append(Post(head[0], headers, body))
            await (self.answers.pop(0) if self.answers else self.then)(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    @property
    def types(self) -> list[str]:
        return [post.type for post in self.posts]

    async def had(self, number: int) -> list[Post]:
        """The posts, once there are so many."""
        await until(lambda: len(self.posts) >= number)
        return self.posts


async def until(condition: Callable[[], Any]) -> None:
    """Until that is so, or what it gives to await is."""
    for _ in range(1000):
        found = condition()
        if await found if asyncio.iscoroutine(found) else found:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not in time")


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    taking: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(receiver.take(reader, writer))
        taking[task] = writer
        task.add_done_callback(taking.pop)

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hooks/a-secret-path"
    try:
        yield receiver
    finally:
        server.close()
        for task, writer in taking.items():
            task.cancel()
            writer.close()  # One that has not begun comes to no end of its own.
        await asyncio.gather(*taking, return_exceptions=True)
