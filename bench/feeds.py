"""The requests that are sent, written beforehand: so the load costs little, and each contender is asked the same."""

import asyncio
import json
import math
import time
from base64 import b64encode
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from pymongo import MongoClient
from servers import SECRET, Running

from hydracore import HydraCore
from hydracore.config import load
from hydracore.flows.networks import remember_network
from hydracore.flows.registration import create_user
from hydracore.flows.session import start_session
from hydracore.models import Session, User

PASSWORD = "correct horse battery staple"  # noqa: S105  # of a benchmark
_PEOPLE = 200
_CLIENTS = 16
_SESSIONS = 12000
_number = count()


@dataclass(frozen=True)
class Feed:
    """A file of requests, and how :file:`wrk.lua` sends it. ``refused`` says that a refusal is what is asked for,
    ``used_up`` that each request is good once; there are ``most`` of these."""

    file: Path
    chained: bool = False
    refused: bool = False
    used_up: bool = False
    most: float = math.inf


def written(method: str, path: str, body: str = "", kind: str = "application/json", **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if method == "POST":
        lines += [f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def feed(file: Path, requests: list[bytes]) -> Feed:
    """Write them down, as :file:`wrk.lua` reads them."""
    file.write_bytes(b"".join(b"%d\n%b" % (len(request), request) for request in requests))
    return Feed(file)


def settle(uri: str, database: str = "bench") -> None:
    """Until the mail of the last call is out: nobody is measured beside another's."""
    with MongoClient[Any](uri) as client:
        while client[database]["outbox"].count_documents({}, limit=1):
            time.sleep(0.1)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


class Feeds:
    """Makes the people, and writes files into ``folder``."""

    def __init__(self, folder: Path, uri: str) -> None:
        self._folder = folder
        overrides = {"store": {"uri": uri, "database": "bench"}, "secret": SECRET, "mail": {"allow_undelivered": True}}
        self._config = load(environment={}, overrides=overrides)
        self._tokens: dict[str, list[str]] = {}
        self._users: list[User] = []

    def people(self, others: list[Running]) -> None:
        """Accounts here, and one at each of ``others``, with their tokens."""
        asyncio.run(self._make())
        for other in others:
            base = f"http://127.0.0.1:{other.port}"
            body = json.dumps({"email": "ada@example.com", "password": PASSWORD}).encode()
            _post(f"{base}/auth/register", body, "application/json")
            form = urlencode({"username": "ada@example.com", "password": PASSWORD}).encode()
            answer = _post(f"{base}/auth/jwt/login", form, "application/x-www-form-urlencoded")
            self._tokens[other.contender.name] = [json.loads(answer)["access_token"]]

    def of(self, running: Running, call: str, threads: int) -> Feed:
        """What to ask for ``call``."""
        path = running.contender.calls[call]
        name = running.contender.name
        if name.startswith("bare "):
            return self._file([written("POST" if call == "update" else "GET", path)])
        if name == "fastapi-users":
            return self._theirs(call, path)
        return self._ours(call, path, threads)

    def _ours(self, call: str, path: str, threads: int) -> Feed:
        if call == "me-new":
            return self._file([written("GET", path, **bearer(token)) for token in asyncio.run(self._new_tokens())])
        if call == "me":
            return self._file([written("GET", path, **bearer(token)) for token in self._tokens["hydracore"]])
        if call == "token":
            basic = b64encode(f"{self._users[0].email}:{PASSWORD}".encode()).decode()
            return self._file([written("POST", path, Authorization=f"Basic {basic}")])
        if call == "refresh":
            tokens = asyncio.run(self._sessions(threads))
            requests = [written("POST", path, json.dumps({"refresh_token": each})) for each in tokens]
            return replace(self._file(requests), chained=True, used_up=True)
        if call == "logout":
            tokens = asyncio.run(self._sessions(_SESSIONS))
            requests = [written("POST", path, json.dumps({"refresh_token": each})) for each in tokens]
            return replace(self._file(requests), used_up=True, most=len(requests))
        if call == "register":
            return self._register(path)
        path = path.replace("/wrong", "/login")
        password = PASSWORD if call == "login" else f"not {PASSWORD}"
        bodies = [json.dumps({"email": user.email, "password": password}) for user in self._users]
        return replace(self._file([written("POST", path, body) for body in bodies]), refused=call == "wrong")

    def _theirs(self, call: str, path: str) -> Feed:
        if call == "register":
            return self._register(path)
        if call == "me":
            return self._file([written("GET", path, **bearer(self._tokens["fastapi-users"][0]))])
        password = PASSWORD if call == "login" else f"not {PASSWORD}"
        form = urlencode({"username": "ada@example.com", "password": password})
        request = written("POST", path, form, "application/x-www-form-urlencoded")
        return replace(self._file([request]), refused=call == "wrong")

    def _register(self, path: str) -> Feed:
        bodies = [
            json.dumps({"email": f"new{next(_number)}@example.com", "password": PASSWORD})
            for _ in range(_SESSIONS // 4)
        ]
        requests = [written("POST", path, body) for body in bodies]
        return replace(self._file(requests), used_up=True, most=len(requests))

    def _file(self, requests: list[bytes]) -> Feed:
        return feed(self._folder / f"feed{next(_number)}", requests)

    async def _make(self) -> None:
        async with HydraCore(self._config, deliver_mail=False) as hydra:
            services, users = hydra.services, hydra.services.store.users
            first = await create_user(services, "p0@example.com", PASSWORD, verified=True)
            self._users = [first]
            for number in range(1, _PEOPLE):
                name = f"p{number}@example.com"
                other = User(f"user{number}", name, name, first.password_hash, services.now(), email_verified=True)
                await users.add(other)
                self._users.append(other)
            for user in self._users:  # Who signs in has been there before.
                await remember_network(services, user, "127.0.0.1")
            grants = [await start_session(services, user, "127.0.0.1") for user in self._users[:_CLIENTS]]
            self._tokens["hydracore"] = [grant.access_token for grant in grants]

    async def _new_tokens(self) -> list[str]:
        """More access tokens than a server remembers to have proven."""
        async with HydraCore(self._config, deliver_mail=False) as hydra:
            services = hydra.services
            grants = [await start_session(services, user, "127.0.0.1") for user in self._users[:_CLIENTS]]
            signed = [await services.access.verify(grant.access_token) for grant in grants]
            sessions = [await services.store.sessions.live(claims.session_id, services.now()) for claims in signed]
            pairs = [(user, session) for user, session in zip(self._users, sessions, strict=False) if session]
            return [services.access.issue(*pairs[number % len(pairs)], {}) for number in range(_SESSIONS)]

    async def _sessions(self, count: int) -> list[str]:
        """Refresh tokens of new sessions."""
        async with HydraCore(self._config, deliver_mail=False) as hydra:
            services = hydra.services
            now = services.now()
            ends = now + timedelta(days=14)
            sessions = [
                Session(services.token(18), self._users[number % _PEOPLE].id, 0, 1, now, now, ends, ends)
                for number in range(count)
            ]
            await services.store.sessions._sessions.add_all(sessions)
            return [services.refresh.issue(session.id, 1) for session in sessions]


def _post(url: str, body: bytes, kind: str) -> bytes:
    with urlopen(Request(url, body, {"Content-Type": kind}), timeout=30) as answer:  # noqa: S310  # our own server
        return bytes(answer.read())
