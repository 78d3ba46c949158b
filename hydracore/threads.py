"""Threads, each owner's apart and bounded: one that never comes back costs nobody else anything."""

import asyncio
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, ParamSpec, TypeVar

from hydracore.errors import Unavailable

T = TypeVar("T")
P = ParamSpec("P")

_NICENESS = 10
_NICEST = 19
_MOST_LOST = 100
_LOOKUPS = 16
_NETWORK = frozenset({"socket", "_socket", "ssl", "pymongo"})


def be_nice() -> None:
    """Lower the calling thread's priority, so that the event loop wins when both want a core."""
    # On Linux a priority belongs to a thread; elsewhere it would slow the whole process.
    if hasattr(os, "setpriority") and os.uname().sysname == "Linux":
        # From where the server was started: who was started nicer than this may not be told to be less nice.
        here = os.getpriority(os.PRIO_PROCESS, 0)
        with suppress(PermissionError):  # A sandbox may forbid it.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(here + _NICENESS, _NICEST))


class GiveWay:
    """Begins the threads of a pool that computes: the event loop must not wait for them.

    A thread that wakes takes the core of an idle-class one at once, and waits some milliseconds for a merely nice
    one. The first thread is nice, and no more, so that work goes on where other programs leave no core idle.
    """

    def __init__(self) -> None:
        self._begun = count()

    def __call__(self) -> None:
        be_nice()
        if next(self._begun) and hasattr(os, "SCHED_IDLE"):
            with suppress(OSError):  # A sandbox may forbid it.
                os.sched_setscheduler(threading.get_native_id(), os.SCHED_IDLE, os.sched_param(0))


def cores() -> int:
    """Those that this process may use, where that can be asked."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class _Job:
    work: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"
    begun: bool = False
    given_up: bool = False

    def finish(self, result: Any, error: Exception | None) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


class Threads:
    """A few daemon threads of one owner, ``name``, with a bounded queue in front. None is started before it is needed;
    ``nice`` ones have a lower priority than the event loop.

    Work that is given up while it runs keeps its thread, which ends when the work does; another takes
    its place, up to a hundred times.
    """

    def __init__(self, name: str, threads: int, waiting: int, *, nice: bool = False) -> None:
        self._name = name
        self._nice = nice
        self._threads = threads
        self._waiting = waiting
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._alive = 0
        self._lost = 0
        self._pending = 0

    async def run(self, work: Callable[[], T]) -> T:
        """What ``work`` returns or raises. Cancelling gives it up. Raises :class:`Unavailable` at once when too
        much waits, or too many threads are lost."""
        if self._pending >= self._threads + self._waiting or self._lost >= _MOST_LOST:
            raise Unavailable().because(
                "too much work for threads", threads=self._name, pending=self._pending, lost=self._lost
            )
        loop = asyncio.get_running_loop()
        job = _Job(work, loop, loop.create_future())
        self._pending += 1
        self._jobs.put(job)
        self._have_threads()
        try:
            result: T = await job.future
        except asyncio.CancelledError:
            self._give_up(job)
            raise
        finally:
            self._pending -= 1
        return result

    def close(self) -> None:
        """Let the idle threads end. Nothing waits for those that do not; work that comes later has new ones."""
        with self._lock:
            ending, self._alive = self._alive, 0
        for _ in range(ending):
            self._jobs.put(None)

    def _have_threads(self) -> None:
        with self._lock:
            if self._alive >= min(self._threads, self._pending):
                return
            self._alive += 1
        threading.Thread(target=self._serve, name=f"hydracore-{self._name}", daemon=True).start()

    def _give_up(self, job: _Job) -> None:
        with self._lock:
            job.given_up = True
            if job.begun:
                self._alive -= 1
                self._lost += 1
        self._have_threads()

    def _serve(self) -> None:
        if self._nice:
            be_nice()
        while (job := self._jobs.get()) is not None:
            with self._lock:
                if job.given_up:
                    continue
                job.begun = True
            result, error = _done(job.work)
            with self._lock:
                if job.given_up:
                    self._lost -= 1
                    return  # Another thread has its place.
                job.begun = False  # It is over: giving it up now costs no thread.
            try:
                job.loop.call_soon_threadsafe(job.finish, result, error)
            except RuntimeError:
                return  # The loop is closed: nobody waits any more.


class LoopExecutor(ThreadPoolExecutor):
    """An event loop's default executor, which plugins and libraries share. What libraries do about the network (looking
    names up, shaking hands) has threads of its own: those that a plugin keeps for ever keep nobody from the
    database or a mail server."""

    def __init__(self) -> None:
        super().__init__(thread_name_prefix="hydracore-shared")
        self._network = ThreadPoolExecutor(_LOOKUPS, "hydracore-network")
        self._under_way: set[Future[Any]] = set()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        about_the_network = _module(fn, args).partition(".")[0] in _NETWORK
        job = (self._network.submit if about_the_network else super().submit)(fn, *args, **kwargs)
        self._under_way.add(job)
        job.add_done_callback(self._under_way.discard)
        return job

    def end(self, timeout: float) -> int:
        """Begin nothing more, and give what runs ``timeout`` seconds; how much has not ended by then."""
        self.shutdown(wait=False, cancel_futures=True)
        self._network.shutdown(wait=False, cancel_futures=True)
        return len(wait(set(self._under_way), timeout).not_done)


def _module(function: Any, arguments: tuple[Any, ...]) -> str:
    """Where a function comes from, without what asyncio and libraries wrap around it."""
    while isinstance(function, partial):
        function, arguments = function.func, (*function.args, *arguments)
    if isinstance(getattr(function, "__self__", None), Context) and arguments:  # asyncio.to_thread's context.run
        return _module(arguments[0], arguments[1:])
    return str(getattr(function, "__module__", ""))


def _done(work: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return work(), None
    except StopIteration as error:  # No future takes one.
        return None, RuntimeError(repr(error))
    except Exception as error:
        return None, error
    except BaseException as error:  # A plugin that says exit() ends its own work, not the thread.
        return None, RuntimeError(repr(error))
