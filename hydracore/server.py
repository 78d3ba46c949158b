"""The process model: one parent that supervises, workers that serve, one mongod if it is ours.

The parent has no event loop and no threads. It has the sockets, starts the embedded mongod, forks,
and then waits for signals: a child that ended is replaced, SIGTERM, SIGINT and SIGHUP drain.
Whatever ends the parent, even kill -9, ends its children. A service manager hears of it all from the parent.
"""

import asyncio
import gc
import mmap
import os
import re
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from math import ceil
from types import FrameType
from typing import Any
from urllib.parse import unquote

from tornado.web import Application

from hydracore.chance import token
from hydracore.config import Config
from hydracore.config import Server as ServerSettings
from hydracore.connections import Listening, TornadoServer
from hydracore.core import HydraCore, server_secret
from hydracore.errors import StartupError
from hydracore.logs import configure, logger
from hydracore.meters import NothingShared, Sharing
from hydracore.notify import ServiceManager
from hydracore.sockets import Listeners, listen, urls
from hydracore.store.embedded import Mongod, end_with_parent
from hydracore.threads import LoopExecutor, cores
from hydracore.watchdog import Watchdog

log = logger("hydracore.server")

STARTUP_FAILED = 2
# Started by nohup it is to outlive its terminal.
_HANGUP = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
_STOP = (signal.SIGTERM, signal.SIGINT, *_HANGUP)
_HASTEN = (signal.SIGTERM, signal.SIGINT)  # A closing terminal hangs up more than once.
_SIGNALS = {*_STOP, signal.SIGCHLD}
_GRACE = 5
_MOST_MANAGING = 64
_LONGEST_PAUSE = 10.0
_YOUNG = 10.0
_TURN = 0.5
_TURN_AT_START = 0.05  # Whoever waits for the server to be ready does not wait for a turn.


def serve(config: Config) -> int:
    """Run until a signal says stop; the exit code: 0, or 2 for what the operator has to put right.

    Raises :class:`StartupError` for that before anything has started.
    """
    configure(config.log.level, config.log.format)
    HydraCore(config)  # Configuration and plugins fit together, or this says why not.
    _loop_factory(config.server.loop)
    _is_httptools(config.server.http)
    sharing, tracing = sharing_of(config), tracing_of(config, os.environ)
    manager, listeners = ServiceManager(os.environ), listen(config, os.environ)
    # Port 0 took a free one, or it is another that was handed over; our own pages' origin names it.
    server = replace(config.server, port=listeners.port or config.server.port)
    config = replace(config, server=server, password=replace(config.password, hash_threads=_hash_threads(config)))
    _open_more_files()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # Ignored, as some starters leave it, children vanish unseen.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    mongod = Mongod(config.data_dir, cache_mb=config.store.cache_mb) if config.embedded else None
    sharing.open()
    try:
        if mongod is not None:
            server_secret(config, token)  # Before there is a database that it belongs to.
            mongod.start()
            mongod.wait_ready()
        _announce(config, listeners)
        serving = mmap.mmap(-1, config.server.workers)
        return _Supervisor(_Given(config, listeners, mongod, sharing, tracing, serving), manager).run()
    finally:
        if mongod is not None:
            mongod.stop()
        sharing.close()


def _hash_threads(config: Config) -> int:
    """A worker's: all of them together have one a core, and no fewer than one each. More would share the cores as well,
    with as much memory each, and those of the idle class would wait for the others for as long as these have work."""
    return config.password.hash_threads or ceil(cores() / config.server.workers)


@dataclass(frozen=True)
class _Given:
    """What the parent has made, and each worker works with."""

    config: Config
    listeners: Listeners
    mongod: Mongod | None
    sharing: Sharing
    tracing: "Tracing"
    serving: mmap.mmap
    """A byte for each place, which its worker makes 1 once it serves."""


@dataclass(frozen=True)
class _Worker:
    place: int
    """From 0 up; whoever replaces it has the same."""
    began: float


class _Supervisor:
    def __init__(self, given: _Given, manager: ServiceManager) -> None:
        self._given = given
        self._manager = manager
        self._ready = False
        self._config = given.config
        self._mongod = given.mongod
        self._workers: dict[int, _Worker] = {}
        self._first: frozenset[int] = frozenset()
        self._mongod_due = 0.0
        self._pauses: dict[str, float] = {}
        self._due: list[float] = []
        self._failed = 0

    def run(self) -> int:
        gc.freeze()  # What is there now stays shared between the workers.
        self._due = [0.0] * self._config.server.workers
        while not self._failed:
            self._fork_what_is_due()
            self._tend_mongod()
            self._tell_manager()
            received = signal.sigtimedwait(_SIGNALS, _TURN if self._ready else _TURN_AT_START)
            if received is not None and received.si_signo in _STOP:
                log.info("stopping", signal=signal.Signals(received.si_signo).name)
                break
            self._reap()
        self._stop()
        return self._failed

    def _fork_what_is_due(self) -> None:
        now = time.monotonic()
        due = [moment for moment in self._due if moment <= now]
        self._due = [moment for moment in self._due if moment > now]
        for _ in due:
            taken = {worker.place for worker in self._workers.values()}
            place = next(place for place in range(self._config.server.workers) if place not in taken)
            self._workers[_fork(self._given, place)] = _Worker(place, now)
        self._first = self._first or frozenset(self._workers)

    def _reap(self) -> None:
        for pid in list(self._workers):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                continue
            code = os.waitstatus_to_exitcode(status)
            worker = self._workers.pop(pid)
            self._given.sharing.forget(worker.place)
            age = time.monotonic() - worker.began
            if code == STARTUP_FAILED and pid in self._first:
                self._failed = code
                return  # What a later one cannot start for may pass, and the others serve.
            pause = self._pause("worker", age)
            log.error("worker ended, it is replaced", pid=pid, code=code, pause=pause)
            self._due.append(time.monotonic() + pause)

    def _tend_mongod(self) -> None:
        if self._mongod is None or (code := self._mongod.poll()) is None:
            return
        if not self._mongod_due:
            pause = self._pause("mongod", self._mongod.age)
            log.error("the embedded mongod ended, it is started again", code=code, pause=pause)
            self._mongod_due = time.monotonic() + pause
        if time.monotonic() < self._mongod_due:
            return
        try:
            self._mongod.restart()
            self._mongod_due = 0.0
        except (StartupError, OSError) as error:
            pause = self._pause("mongod", 0)
            log.error("the embedded mongod cannot be started", reason=str(error), pause=pause)  # noqa: TRY400  # the message is for the operator
            self._mongod_due = time.monotonic() + pause

    def _tell_manager(self) -> None:
        self._manager.alive(time.monotonic())
        if not self._ready and all(self._given.serving[:]):
            self._ready = True
            self._manager.ready(f"Serving on {', '.join(urls(self._given.listeners.public))}")

    def _pause(self, what: str, age: float) -> float:
        """Seconds to wait: none for what ran a while; for what dies young, longer each time."""
        before = self._pauses.get(what, 0.0)
        self._pauses[what] = min(before * 2 + 0.25, _LONGEST_PAUSE) if age < _YOUNG else 0.0
        return before if age < _YOUNG else 0.0

    def _stop(self) -> None:
        self._manager.stopping()
        for listener in self._given.listeners:
            listener.close()
        self._tell_all(signal.SIGTERM)
        deadline = time.monotonic() + self._config.server.drain_timeout + _GRACE
        while self._workers and time.monotonic() < deadline:
            received = signal.sigtimedwait(_SIGNALS, 0.1)
            if received is not None and received.si_signo in _HASTEN:
                break  # Asked twice: no more patience.
            self._collect()
        self._tell_all(signal.SIGKILL)
        while self._workers:
            self._collect()
            time.sleep(0.01)

    def _collect(self) -> None:
        for pid in list(self._workers):
            if os.waitpid(pid, os.WNOHANG)[0]:
                del self._workers[pid]

    def _tell_all(self, number: signal.Signals) -> None:
        for pid in self._workers:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


# -- a worker --------------------------------------------------------------------------------------


def _fork(given: _Given, place: int) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        # At once, not in order: whoever starts the server anew needs its port and its data folder.
        end_with_parent(parent, signal.SIGKILL)
        if given.mongod is not None:
            given.mongod.leave()
        stopping = _Stopping()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        # Not asyncio.run, whose end waits for whatever plugins have left behind, for ever; the process ends anyway.
        loop = (_loop_factory(given.config.server.loop) or asyncio.new_event_loop)()
        loop.run_until_complete(_work(given, place, stopping))
        code = 0
    except StartupError as error:
        print(f"hydracore: {error}", file=sys.stderr)
        code = STARTUP_FAILED
    except Exception:
        log.exception("worker failed")
    finally:
        sys.stderr.flush()
        # Not sys.exit: the parent's frames, with their own clean-up, are below this one.
        os._exit(code)


def _loop_factory(chosen: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, or None for Python's own. Raises :class:`StartupError` where it was asked for and is not there."""
    if chosen == "asyncio":
        return None
    # Optional dependency: imported only when it may be used.
    try:
        from uvloop import new_event_loop
    except ImportError as error:
        if chosen == "auto":
            return None
        raise StartupError('server.loop is uvloop, which is not installed: pip install "hydracore[fast]".') from error
    # It looks names up in threads of libuv's: as many as Python's loop has for that here.
    os.environ.setdefault("UV_THREADPOOL_SIZE", "16")
    factory: Callable[[], asyncio.AbstractEventLoop] = new_event_loop
    return factory


def _is_httptools(chosen: str) -> bool:
    """Whether requests are read by httptools. Raises :class:`StartupError` where it was asked for and is not there."""
    if chosen != "tornado" and find_spec("httptools") is not None:
        return True
    if chosen == "httptools":
        raise StartupError('server.http is httptools, which is not installed: pip install "hydracore[fast]".')
    return False


class _Stopping:
    """Remembers a signal that came before there was a loop to tell."""

    def __init__(self) -> None:
        self.asked = False
        for number in _STOP:
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def listen(self, event: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        for number in _STOP:
            loop.add_signal_handler(number, event.set)
        if self.asked:
            event.set()

    def close(self) -> None:
        """Nothing more to remember: a loop that is being closed must not be told."""
        for number in _STOP:
            asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)


async def _work(given: _Given, place: int, stopping: _Stopping) -> None:
    config, uri = given.config, given.mongod.uri if given.mongod else None
    stop, executor, loop = asyncio.Event(), LoopExecutor(), asyncio.get_running_loop()
    loop.set_default_executor(executor)
    stopping.listen(stop)
    metrics, listeners = given.sharing.begin(place), given.listeners
    try:
        async with (
            given.tracing() as spans,
            HydraCore(config, uri=uri, metrics=metrics, tracer_provider=spans) as hydra,
        ):
            few = _for_few(config.server)
            servers = [await _listening(hydra, hydra.application(), config.server, listeners.public)]
            if listeners.management:
                servers.append(await _listening(hydra, hydra.management(), few, listeners.management))
            if listeners.admin:
                servers.append(await _listening(hydra, hydra.administration(), few, listeners.admin))
            watchdog = Watchdog(config.server.stall_timeout, hydra.registry.loaded.blame)
            watchdog.start()
            closing = [asyncio.create_task(server.connections.close_late()) for server in servers]
            if problem := await hydra.not_ready():
                log.warning("not ready yet", pid=os.getpid(), reason=problem)
            else:
                log.info("ready", pid=os.getpid())
            gc.freeze()  # What stays is not looked through again and again: each time, the loop stood still for it.
            given.serving[place] = 1
            await stop.wait()
            deadline = loop.time() + config.server.drain_timeout
            watchdog.stop()
            await _drain(servers, hydra, config.server.drain_timeout)
            for task in closing:
                task.cancel()
        await _leave(executor, deadline)
    finally:
        stopping.close()


async def _listening(
    hydra: HydraCore, application: Application, settings: ServerSettings, sockets: Iterable[socket.socket]
) -> Listening:
    server: Listening
    if _is_httptools(settings.http):
        # Optional dependency: imported only when it is used.
        from hydracore.httptools_server import HttptoolsServer

        server = HttptoolsServer(application, settings=settings)
    else:
        server = TornadoServer(
            application,
            settings=settings,
            in_flight=lambda: hydra.in_flight,
            receiving=lambda: hydra.receiving,
        )
    await server.listen(sockets)
    return server


def _for_few(settings: ServerSettings) -> ServerSettings:
    """The same bounds for the operator's listeners, but for connections: those are for clients."""
    return replace(settings, max_connections=_MOST_MANAGING)


async def _drain(servers: Iterable[Listening], hydra: HydraCore, timeout: int) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    for server in servers:
        server.stop()
    closing = [asyncio.create_task(server.connections.close_idle()) for server in servers]
    await hydra.drain(timeout)
    for server in servers:
        server.connections.close_idle_now()
    # By a connection that was idle a moment ago another request may have come: it is answered, too.
    while hydra.in_flight and loop.time() < deadline:  # noqa: ASYNC110  # simpler than an event
        await asyncio.sleep(0.02)
    if hydra.in_flight:
        log.warning("requests cut off at shutdown", count=len(hydra.in_flight))
    for task in closing:
        task.cancel()
    for server in servers:
        await server.close_all_connections()


async def _leave(executor: LoopExecutor, deadline: float) -> None:
    """What plugins have begun and not ended has what is left of the time."""
    loop = asyncio.get_running_loop()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        _, tasks = await asyncio.wait(tasks, timeout=max(0.0, deadline - loop.time()))
    threads = executor.end(max(0.0, deadline - loop.time()))
    if tasks or threads:
        log.warning("work of plugins cut off at shutdown", tasks=len(tasks), threads=threads)


# -- at the start ------------------------------------------------------------------------------------


def sharing_of(config: Config) -> Sharing:
    """What the workers are to count together. Raises :class:`StartupError` where that cannot be."""
    if not config.management.port:
        return NothingShared()
    # Optional dependency: imported only when metrics are on.
    try:
        from hydracore.sharing import SharedNumbers
    except ImportError as error:
        raise StartupError(
            "management.port is set, and /metrics needs prometheus-client, which is not installed: "
            'pip install "hydracore[metrics]".'
        ) from error
    return SharedNumbers(config.server.workers)


Tracing = Callable[[], AbstractAsyncContextManager[Any]]
"""What a worker's spans go to; None where there are none."""


def tracing_of(config: Config, environment: Mapping[str, str]) -> Tracing:
    """Raises :class:`StartupError`."""
    if not config.tracing.enabled:
        return nullcontext
    # Optional dependency: imported only when spans are sent.
    try:
        from hydracore.spans import check_environment, exporting
    except ImportError as error:
        raise StartupError(
            'tracing.enabled is set, and OpenTelemetry is not installed: pip install "hydracore[tracing]".'
        ) from error
    check_environment(environment)
    return exporting


def _open_more_files() -> None:
    """Connections are files: take as many as the system lets this process have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _announce(config: Config, listeners: Listeners) -> None:
    log.info(
        "serving",
        addresses=urls(listeners.public),
        pid=os.getpid(),
        workers=config.server.workers,
        loop="asyncio" if _loop_factory(config.server.loop) is None else "uvloop",
        database=database_of(config),
        mail=config.mail.transport,
    )
    if listeners.management:
        log.info("managing", addresses=urls(listeners.management))
    if listeners.admin:
        log.info("administering", addresses=urls(listeners.admin))


def database_of(config: Config) -> str:
    """Where the data is, in words, without credentials."""
    if config.embedded:
        return f"embedded in {config.data_dir}"
    if config.store.driver == "memory":
        return "memory: nothing is kept"
    # By the last @, not by the rules: a password that should have been escaped must not show either.
    return unquote(re.split("[/?]", config.store.uri.partition("://")[2].rpartition("@")[2])[0])
