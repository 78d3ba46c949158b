"""A HydraCore behind a real socket, in a thread of its own."""

import asyncio
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Literal, Self, TypeVar

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from hydracore.chance import token
from hydracore.config import load
from hydracore.core import HydraCore
from hydracore.errors import StoreUnavailable
from hydracore.flows.account import find_user
from hydracore.flows.roles import change_roles
from hydracore.logs import logger
from hydracore.plugin import Context, events, hookimpl
from hydracore.store import Store
from hydracore.testing.client import Client
from hydracore.testing.clock import Clock
from hydracore.testing.outbox import NAME, Outbox

log = logger("hydracore.testing")

T = TypeVar("T")
Event = TypeVar("Event", bound=events.Event)

_PATIENCE = 60
# As in a real server: endpoints bound their bodies themselves, with an answer.
_ANY_BODY = 1 << 40


class Served:
    """A running server: ``url``, its ``outbox``, its ``clock``, the ``events`` that it announced.

    ``enabled`` are the plugins to load, ``settings`` the configuration as config.toml nests it, ``plugins`` classes by
    name that need no entry point. The store is in memory, or, with ``store="real"``, a database of its own at ``uri``,
    which is dropped at the end; one that ``settings`` names stays. Hashing costs next to nothing, limits are off, mail
    goes to the outbox.

    Close it, or use it in ``with``. Raises :class:`~hydracore.errors.StartupError` for what does not fit together.
    """

    def __init__(
        self,
        enabled: Sequence[str] = (),
        *,
        settings: Mapping[str, Any] | None = None,
        plugins: Mapping[str, Callable[[Context], object]] | None = None,
        store: Literal["memory", "real"] = "memory",
        uri: str = "",
    ) -> None:
        if store == "real" and not uri:
            raise ValueError("a real store needs the uri of a database server")
        self.outbox, self.clock = Outbox(), Clock()
        self.events: list[events.Event] = []
        self._uri = uri if store == "real" else ""
        self._database = f"testing_{token(9)}".replace("-", "_") if self._uri else ""
        self._folder = tempfile.TemporaryDirectory(prefix="hydracore-", ignore_cleanup_errors=True)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hydracore-served", daemon=True)
        self._hydra: HydraCore | None = None
        self._closing = AsyncExitStack()
        try:
            config = load(environment={}, overrides=_merged(self._defaults(enabled), settings or {}))
            extra = {NAME: self.outbox.plugin, "testing_listener": self._listener, **(plugins or {})}
            hydra = HydraCore(config, plugins=extra, uri=self._uri or None, now=self.clock)
            self._thread.start()
            self.run(self._open(hydra))
        except BaseException:
            self.close()
            raise

    # -- use -----------------------------------------------------------------------------------

    @property
    def hydra(self) -> HydraCore:
        """The HydraCore itself; what it does asynchronously goes through :meth:`run`."""
        if self._hydra is None:
            raise RuntimeError("it is closed")
        return self._hydra

    def run(self, work: Coroutine[Any, Any, T], timeout: float = _PATIENCE) -> T:
        """Await ``work`` in the server's event loop. Raises ``TimeoutError`` after ``timeout`` seconds, when it is
        cancelled, and whatever ``work`` raises."""
        if self._loop.is_closed() or threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("it is closed, or this is its event loop already: await it here")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout)
        except TimeoutError:
            if future.done():
                raise  # The work's own.
            future.cancel()
            raise TimeoutError(f"it took more than {timeout} s") from None

    def plugin(self, name: str) -> Any:
        """The loaded plugin, as its class made it. Raises ``KeyError``."""
        return self.hydra.registry.loaded[name].plugin

    def client(self, *, cookies: bool = False) -> Client:
        """A new client, which is nobody yet."""
        return Client(self.url, prefix=self.hydra.config.server.prefix, cookies=cookies)

    def signed_in(self, email: str = "ada@example.com", *, verified: bool = True, **members: Any) -> Client:
        """A client that has registered, and, unless told otherwise, proven its address."""
        client = self.client()
        answers = [client.register(email, **members)]
        if verified and answers[0].status == 201:
            answers.append(client.verify(email, self.outbox.code(email)))
        if answers[-1].status not in (200, 201):
            raise AssertionError(f"{email} cannot sign in: {answers[-1].status} {answers[-1].text}")
        return client

    def give_roles(self, email: str, *roles: str) -> None:
        """Give an account roles of ``roles.known``, as ``hydracore users roles`` does."""

        async def given() -> None:
            services = self.hydra.services
            user = await find_user(services, email)
            if user is None:
                raise AssertionError(f"no account has the address {email}")
            await change_roles(services, user.id, add=roles)

        self.run(given())

    def wait_event(self, kind: type[Event], timeout: float = 10, *, nth: int = 1) -> Event:
        """The nth event of a kind, once it was announced. Raises ``AssertionError`` after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while len(found := [event for event in list(self.events) if isinstance(event, kind)]) < nth:
            if time.monotonic() >= deadline:
                there = [type(event).__name__ for event in list(self.events)]
                raise AssertionError(f"no {kind.__name__}, the {nth}. of them; there were {there or 'none'}")
            time.sleep(0.01)
        return found[nth - 1]

    # -- life ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop, and leave nothing: no thread, no socket, no database."""
        try:
            if self._hydra is not None:
                self.run(self._closing.aclose())
        finally:
            self._hydra = None
            self._end()

    def _end(self) -> None:
        try:
            if self._thread.is_alive():
                self.run(self._last_of_the_loop())
        finally:
            if self._thread.is_alive():
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._thread.join(_PATIENCE)
            if not self._loop.is_running():
                self._loop.close()
            self._folder.cleanup()

    async def _last_of_the_loop(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:  # A plugin's, that it has forgotten; one that will not end is not waited for.
            await asyncio.wait(others, timeout=1)
        await self._loop.shutdown_asyncgens()
        await self._loop.shutdown_default_executor()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def _open(self, hydra: HydraCore) -> None:
        async with AsyncExitStack() as closing:
            if hydra.config.store.database == self._database:
                # After all else: what listeners write at the end would make it again.
                closing.push_async_callback(self._drop, hydra.config.store.driver, hydra.config.store.timeout)
            await closing.enter_async_context(hydra)
            server = HTTPServer(hydra.application(), max_body_size=_ANY_BODY)
            closing.push_async_callback(server.close_all_connections)
            closing.callback(server.stop)
            sockets = bind_sockets(0, "127.0.0.1")
            server.add_sockets(sockets)
            self.url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
            self._closing = closing.pop_all()
        self._hydra = hydra

    async def _drop(self, driver: str, timeout: int) -> None:
        store = Store(driver=driver, database=self._database, timeout=timeout)
        store.open(self._uri)
        try:
            await store.drop()
        except StoreUnavailable:
            log.warning("a database of the tests is left, its server does not answer", database=self._database)
        finally:
            await store.close()

    def _defaults(self, enabled: Sequence[str]) -> dict[str, Any]:
        return {
            "secret": token(32),
            "data_dir": self._folder.name,
            "store": {"database": self._database} if self._database else {"driver": "memory"},
            "mail": {"transport": NAME},
            "password": {"profile": "testing"},
            "limits": {"enabled": False},
            "plugins": {"enabled": list(enabled)},
        }

    def _listener(self, context: Context) -> object:
        return _Listener(self.events)


class _Listener:
    def __init__(self, heard: list[events.Event]) -> None:
        self._heard = heard

    @hookimpl
    async def hydracore_on_event(self, event: events.Event) -> None:
        self._heard.append(event)


def _merged(into: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in values.items():
        into[key] = _merged(dict(into.get(key, {})), value) if isinstance(value, Mapping) else value
    return into
