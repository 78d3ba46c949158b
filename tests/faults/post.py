"""Where mail goes to: an SMTP server and an API by HTTP, which can be slow, refuse, vanish and lie."""

import asyncio
import json
import re
import threading
import time
from collections import Counter
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.smtp import SMTP
from loops import Loop
from replicas import free_port

HOST = "127.0.0.1"


class Letters:
    """What has arrived. ``taken`` counts each message by the intent that it is of."""

    def __init__(self) -> None:
        self.texts: dict[str, list[str]] = {}
        self.taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    def take(self, to: str, key: str, text: str) -> None:
        with self._lock:
            self.taken[key] += 1
            self.texts.setdefault(to.lower(), []).append(text)

    @property
    def twice(self) -> int:
        """How many messages more than once."""
        with self._lock:
            return sum(count - 1 for count in self.taken.values())

    @property
    def most(self) -> int:
        """How often the one came that came most often."""
        with self._lock:
            return max(self.taken.values(), default=0)

    def all(self, to: str, pattern: str) -> list[str]:
        """What ``pattern`` finds in each letter to someone."""
        found = (re.search(pattern, text, re.MULTILINE) for text in list(self.texts.get(to, [])))
        return [match[1] for match in found if match]

    def find(self, to: str, pattern: str, within: float = 0, *, after: int = 0) -> str:
        """What ``pattern`` finds in the latest letter to someone that has it, past the first ``after`` of them; ""
        for none."""
        deadline = time.monotonic() + within
        while True:
            if len(found := self.all(to, pattern)) > after:
                return found[-1]
            if time.monotonic() >= deadline:
                return ""
            time.sleep(0.02)


class PostOffice(Letters):
    """An SMTP server. ``answer`` is what it says to a whole message instead of 250, after ``delay`` seconds; ``cut``
    hangs up within one; ``deaf`` takes it and hangs up before it says so."""

    def __init__(self) -> None:
        super().__init__()
        self.answer, self.delay, self.cut, self.deaf = "", 0.0, False, False
        self.port = free_port()
        self._loop = Loop()
        self._protocols: set[SMTP] = set()
        self._server: asyncio.Server | None = None
        self.open()

    def open(self) -> None:
        self._server = self._loop.run(self._listen())

    async def _listen(self) -> asyncio.Server:
        return await asyncio.get_running_loop().create_server(self._protocol, HOST, self.port)

    def vanish(self) -> None:
        """Nobody listens any more, and who was connected is not."""

        async def end() -> None:
            assert self._server
            self._server.close()
            for protocol in list(self._protocols):
                if protocol.transport is not None:
                    protocol.transport.abort()
            self._protocols.clear()

        self._loop.run(end())

    def _protocol(self) -> SMTP:
        protocol = _Clerk(self, hostname="mail.example.org")
        self._protocols.add(protocol)
        return protocol

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        await asyncio.sleep(self.delay)
        if self.answer:
            return self.answer
        letter = message_from_bytes(envelope.content, policy=policy.default)
        part = letter.get_body(("plain",))
        # The Message-ID is intent.time@domain: prepared anew it is the same letter all the same.
        self.take(envelope.rcpt_tos[0], letter["Message-ID"].partition(".")[0], part.get_content() if part else "")
        if self.deaf:
            server.transport.abort()
        return "250 OK"

    def close(self) -> None:
        self.vanish()
        self._loop.close()


class _Clerk(SMTP):
    def __init__(self, office: PostOffice, **options: Any) -> None:
        self._office = office
        super().__init__(office, **options)

    async def smtp_DATA(self, arg: str) -> None:
        if self._office.cut:
            await self.push("354 go on")
            await self._reader.readline()
            self.transport.abort()
            await self._reader.read()  # What else has come is the letter's, and no command.
            return
        await super().smtp_DATA(arg)


class Api(Letters):
    """What Resend is to its clients: an idempotency key that it has seen is answered as before, and sends nothing.

    ``answer`` is a status to answer instead, with ``headers``; ``delay`` are seconds before any answer. With ``late``
    the message is taken before that.
    """

    def __init__(self) -> None:
        super().__init__()
        self.answer, self.delay, self.late = 0, 0.0, False
        self.headers: dict[str, str] = {}
        self.asked: Counter[str] = Counter()
        self.changed = 0
        """Messages that were not what they were, under a key that was known."""
        self._bodies: dict[str, Any] = {}
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                api.answered(self, self.headers["Idempotency-Key"], body)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://{HOST}:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answered(self, handler: BaseHTTPRequestHandler, key: str, body: Any) -> None:
        status, late = self.answer or 200, self.late
        if late or status == 200:
            self._deliver(key, body)
        time.sleep(self.delay)
        text = json.dumps({"id": key} if status == 200 else {"statusCode": status, "name": "a_name", "message": "no"})
        try:
            handler.send_response(status)
            for name, value in self.headers.items():
                handler.send_header(name, value)
            handler.send_header("Content-Type", "application/json")
            handler.send_header("Content-Length", str(len(text)))
            handler.end_headers()
            handler.wfile.write(text.encode())
        except OSError:
            pass  # The client has given up, as it should.

    def _deliver(self, key: str, body: Any) -> None:
        with self._lock:
            self.asked[key] += 1
            known = self._bodies.setdefault(key, body) is not body
            self.changed += self._bodies[key] != body
        if not known:
            self.take(body["to"][0], key, body["text"])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
