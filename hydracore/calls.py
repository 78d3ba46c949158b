"""Calling plugins: each call with its deadline, its time measured, its failure put down to the plugin's name."""

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, TypeVar

from hydracore.errors import HydraError, StoreUnavailable, Unavailable
from hydracore.logs import logger

log = logger("hydracore.plugins")

T = TypeVar("T")

# One that will not be cancelled is left to itself; this many of each plugin may be.
_MOST_LEFT = 1000
_FULL = "too many calls of the plugin never ended"
# RFC 9110, sections 5.1 and 5.5.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
# Those that say what the body is: it is ours.
_OF_THE_BODY = frozenset({"content-encoding", "content-length", "content-type", "transfer-encoding"})


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

    def join(self, other: "Spent") -> None:
        self.calls += other.calls
        self.failures += other.failures
        self.seconds += other.seconds
        self.longest = max(self.longest, other.longest)


class Calls:
    """Calls into plugins. ``timeout`` is what each may take, in seconds; ``outages`` are the database's errors, which
    are nobody's failure."""

    def __init__(self, timeout: float, outages: tuple[type[Exception], ...] = ()) -> None:
        self.timeout = timeout
        self._outages = outages
        self.spent: dict[tuple[str, str], Spent] = {}
        self._left: defaultdict[str, set[asyncio.Future[Any]]] = defaultdict(set)

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
            result = await self._in_time(plugin, work, self.timeout)
            failed = False
        except passing:
            failed = False
            raise
        except HydraError as error:
            # A refusal, or what the core itself told the plugin. A plugin has no 500 of its own.
            flaw = _flaw(error)
            failed = bool(flaw)
            if not failed:
                HydraError.because(error, plugin=plugin, hook=hook)
                raise
            self._blame(plugin, hook, error)
            raise otherwise().because(flaw, plugin=plugin, hook=hook) from error
        except _Late as error:
            log.error("plugin is late", plugin=plugin, hook=hook, seconds=self.timeout)  # noqa: TRY400  # a trace says nothing
            raise Unavailable().because("the plugin is late", plugin=plugin, hook=hook) from error
        except _Full as error:
            raise Unavailable().because(_FULL, plugin=plugin, hook=hook) from error
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
        overdue = False

        def give_up() -> None:
            # Told here, not when it ends: one that catches its cancellation may end well, or never.
            nonlocal overdue
            if not task.done():
                overdue = True
                self.note(plugin, hook, perf_counter() - started, failed=True)
                log.error("plugin is late", plugin=plugin, hook=hook, seconds=self.timeout)
                task.cancel()

        late = loop.call_later(self.timeout, give_up)

        def ended(task: "asyncio.Task[None]") -> None:
            late.cancel()
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            if overdue:
                return  # It has been told of; its error is seen now, or asyncio would complain.
            self.note(plugin, hook, perf_counter() - started, failed=error is not None)
            if isinstance(error, self._outages):
                log.warning("plugin has no database", plugin=plugin, hook=hook, cause=type(error).__name__)
            elif error is not None:
                self._blame(plugin, hook, error)

        task.add_done_callback(ended)
        return task

    def measured(
        self, plugin: str, hook: str, function: Callable[..., Awaitable[T]], timeout: float | None = None
    ) -> Callable[..., Awaitable[T]]:
        """``function`` with its time put down to the plugin; with ``timeout`` it is left alone after so many seconds,
        whatever it does about being cancelled. Raises ``TimeoutError``, :class:`Unavailable` where too many calls
        of the plugin never ended, and what it raises."""

        async def called(*arguments: Any) -> T:
            failed, started = True, perf_counter()
            try:
                work = partial(function, *arguments)
                result = await (_guarded(work) if timeout is None else self._in_time(plugin, work, timeout))
                failed = False
            except _Late as error:
                raise TimeoutError(f"no answer within {timeout} s") from error
            except _Full as error:
                raise Unavailable().because(_FULL, plugin=plugin, hook=hook) from error
            finally:
                self.note(plugin, hook, perf_counter() - started, failed=failed)
            return result

        return called

    def note(self, plugin: str, hook: str, seconds: float, *, failed: bool) -> None:
        spent = self.spent.get((plugin, hook))
        if spent is None:
            spent = self.spent[plugin, hook] = Spent()
        spent.add(seconds, failed=failed)

    def by_plugin(self) -> Mapping[str, Spent]:
        """What the calls into each plugin have cost, all hooks together; not what it took to start."""
        together: dict[str, Spent] = {}
        for (plugin, hook), spent in self.spent.items():
            if hook != "start":
                together.setdefault(plugin, Spent()).join(spent)
        return together

    async def _in_time(self, plugin: str, work: Callable[[], Awaitable[T]], timeout: float) -> T:
        """As a task of its own: one that refuses to be cancelled must not hold up its caller."""
        if len(self._left[plugin]) >= _MOST_LEFT:
            raise _Full
        task = asyncio.get_running_loop().create_task(_guarded(work))
        try:
            done, _ = await asyncio.wait({task}, timeout=timeout)
        except asyncio.CancelledError:
            self._leave(plugin, task)
            raise
        if not done:
            self._leave(plugin, task)
            raise _Late
        if task.cancelled() or isinstance(task.exception(), GeneratorExit):
            raise RuntimeError("ended itself")
        return task.result()

    def _leave(self, plugin: str, task: "asyncio.Future[Any]") -> None:
        task.cancel()
        left = self._left[plugin]
        left.add(task)
        if len(left) == _MOST_LEFT:
            log.error("plugin is asked no more until calls of it end", plugin=plugin, calls=len(left))
        task.add_done_callback(partial(self._forget, plugin))

    def _forget(self, plugin: str, task: "asyncio.Future[Any]") -> None:
        self._left[plugin].discard(task)
        if not task.cancelled():
            task.exception()  # Seen: asyncio would complain otherwise.

    @staticmethod
    def _blame(plugin: str, hook: str, error: BaseException) -> None:
        log.error("plugin failed", plugin=plugin, hook=hook, cause=type(error).__name__, exc_info=error)


class _Late(Exception):
    """The deadline has passed."""


class _Full(Exception):
    """Too many calls of that plugin never ended for another one."""


def _flaw(error: HydraError) -> str:
    """Why a refusal cannot be answered in the one shape of errors; "" where it can. A subclass may say anything, or
    fail to, and by the time when it is written nobody would know whose it was."""
    try:
        body, status, headers = error.public(), error.status, error.headers()
        json.dumps([body, error.code, dict(error.why)], allow_nan=False, ensure_ascii=False).encode()
        if not (isinstance(status, int) and 400 <= status < (600 if isinstance(error, Unavailable) else 500)):
            return "a plugin refuses with a status from 400 to 499, or Unavailable"
        if not (isinstance(body, dict) and set(body) == {"detail", "code"} and _are_texts(body["code"], error.code)):
            return "a refusal has a detail and a code, and nothing else"
        if not isinstance(body["detail"], list if status == 422 else str):
            return "the detail of a refusal is a sentence, and with 422 a list"
        names = {name.lower() for name in headers}
        if not _are_headers(headers) or (status in (429, 503) and "retry-after" not in names):
            return "the headers of a refusal are texts that HTTP takes, and 429 and 503 have Retry-After"
    except Exception as cause:
        return f"its refusal cannot be written: {type(cause).__name__}"
    return ""


def _are_texts(*values: Any) -> bool:
    return all(isinstance(value, str) for value in values)


def _are_headers(headers: Mapping[str, str]) -> bool:
    return all(
        _HEADER_NAME.fullmatch(name) and name.lower() not in _OF_THE_BODY and _HEADER_VALUE.fullmatch(value)
        for name, value in headers.items()
    )


async def _guarded(work: Callable[[], Awaitable[T]]) -> T:
    """What a plugin raises is an ``Exception``, whatever it is: the others would end the process, or the answer."""
    try:
        return await work()
    except (Exception, asyncio.CancelledError, GeneratorExit):
        raise
    except BaseException as error:
        raise RuntimeError(type(error).__name__) from error
