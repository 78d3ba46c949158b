"""Calling plugins: each call with its deadline, its time measured, its failure put down to the plugin's name."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, TypeVar

from hydracore.errors import HydraError, StoreUnavailable, Unavailable
from hydracore.logs import logger

log = logger("hydracore.plugins")

T = TypeVar("T")

# One that will not be cancelled is left to itself; this many may be.
_MOST_LEFT = 1000


@dataclass
class Spent:
    """What one plugin's part in one hook has cost this process. Times in seconds."""

    calls: int = 0
    failures: int = 0
    seconds: float = 0.0
    longest: float = 0.0

    def add(self, seconds: float, *, failed: bool) -> None:
        self.calls += 1
        self.failures += failed
        self.seconds += seconds
        self.longest = max(self.longest, seconds)


class Calls:
    """Calls into plugins. ``timeout`` is what each may take, in seconds; ``outages`` are the database's errors, which
    are nobody's failure."""

    def __init__(self, timeout: float, outages: tuple[type[Exception], ...] = ()) -> None:
        self.timeout = timeout
        self._outages = outages
        self.spent: dict[tuple[str, str], Spent] = {}
        self._left: set[asyncio.Future[Any]] = set()

    async def call(
        self,
        plugin: str,
        hook: str,
        work: Callable[[], Awaitable[T]],
        *,
        passing: tuple[type[BaseException], ...] = (),
        otherwise: type[HydraError] = Unavailable,
    ) -> T:
        """What ``work`` returns. A refusal that it raises, and whatever is of ``passing``, passes through; lateness is
        :class:`Unavailable`, any other failure ``otherwise``, and the log names the plugin."""
        failed, started = True, perf_counter()
        try:
            result = await self._in_time(work, self.timeout)
            failed = False
        except passing:
            failed = False
            raise
        except HydraError as error:
            # A refusal, or what the core itself told the plugin. A plugin has no 500 of its own.
            failed = not (400 <= error.status < 500 or isinstance(error, Unavailable))
            error.because(plugin=plugin, hook=hook)
            if not failed:
                raise
            self._blame(plugin, hook, error)
            raise otherwise().because(plugin=plugin, hook=hook) from error
        except _Late as error:
            log.error("plugin is late", plugin=plugin, hook=hook, seconds=self.timeout)  # noqa: TRY400  # a trace says nothing
            raise Unavailable().because("the plugin is late", plugin=plugin, hook=hook) from error
        except self._outages as error:
            log.warning("plugin has no database", plugin=plugin, hook=hook, cause=type(error).__name__)
            raise StoreUnavailable().because(plugin=plugin, hook=hook) from error
        except Exception as error:
            self._blame(plugin, hook, error)
            failure = otherwise().because("the plugin failed", plugin=plugin, hook=hook, cause=type(error).__name__)
            raise failure from error
        finally:
            self.note(plugin, hook, perf_counter() - started, failed=failed)
        return result

    def begin(self, plugin: str, hook: str, work: Callable[[], Awaitable[None]]) -> "asyncio.Task[None]":
        """Start ``work`` beside the caller, with the deadline of :meth:`call` and nobody to tell but the log."""
        loop, started = asyncio.get_running_loop(), perf_counter()
        task = loop.create_task(_guarded(work))
        late = loop.call_later(self.timeout, task.cancel)

        def ended(task: "asyncio.Task[None]") -> None:
            late.cancel()
            error = None if task.cancelled() else task.exception()
            self.note(plugin, hook, perf_counter() - started, failed=task.cancelled() or error is not None)
            if task.cancelled():
                log.error("plugin is late", plugin=plugin, hook=hook, seconds=self.timeout)
            elif isinstance(error, self._outages):
                log.warning("plugin has no database", plugin=plugin, hook=hook, cause=type(error).__name__)
            elif error is not None:
                self._blame(plugin, hook, error)

        task.add_done_callback(ended)
        return task

    def measured(
        self, plugin: str, hook: str, function: Callable[..., Awaitable[T]], timeout: float | None = None
    ) -> Callable[..., Awaitable[T]]:
        """``function`` with its time put down to the plugin; with ``timeout`` it is left alone after so many seconds,
        whatever it does about being cancelled. Raises ``TimeoutError``, and what it raises."""

        async def called(*arguments: Any) -> T:
            failed, started = True, perf_counter()
            try:
                work = partial(function, *arguments)
                result = await (_guarded(work) if timeout is None else self._in_time(work, timeout))
                failed = False
            except _Late as error:
                raise TimeoutError(f"no answer within {timeout} s") from error
            finally:
                self.note(plugin, hook, perf_counter() - started, failed=failed)
            return result

        return called

    def note(self, plugin: str, hook: str, seconds: float, *, failed: bool) -> None:
        spent = self.spent.get((plugin, hook))
        if spent is None:
            spent = self.spent[plugin, hook] = Spent()
        spent.add(seconds, failed=failed)

    async def _in_time(self, work: Callable[[], Awaitable[T]], timeout: float) -> T:
        """As a task of its own: one that refuses to be cancelled must not hold up its caller."""
        if len(self._left) >= _MOST_LEFT:
            raise Unavailable().because("too many calls into plugins never ended")
        task = asyncio.get_running_loop().create_task(_guarded(work))
        try:
            done, _ = await asyncio.wait({task}, timeout=timeout)
        except asyncio.CancelledError:
            self._leave(task)
            raise
        if not done:
            self._leave(task)
            raise _Late
        if task.cancelled() or isinstance(task.exception(), GeneratorExit):
            raise RuntimeError("ended itself")
        return task.result()

    def _leave(self, task: "asyncio.Future[Any]") -> None:
        task.cancel()
        self._left.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: "asyncio.Future[Any]") -> None:
        self._left.discard(task)
        if not task.cancelled():
            task.exception()  # Seen: asyncio would complain otherwise.

    @staticmethod
    def _blame(plugin: str, hook: str, error: BaseException) -> None:
        log.error("plugin failed", plugin=plugin, hook=hook, cause=type(error).__name__, exc_info=error)


class _Late(Exception):
    """The deadline has passed."""


async def _guarded(work: Callable[[], Awaitable[T]]) -> T:
    """What a plugin raises is an ``Exception``, whatever it is: the others would end the process, or the answer."""
    try:
        return await work()
    except (Exception, asyncio.CancelledError, GeneratorExit):
        raise
    except BaseException as error:
        raise RuntimeError(type(error).__name__) from error
