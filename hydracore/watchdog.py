"""Notices an event loop that no longer turns: whatever blocks it, a plugin as a rule, blocks everyone."""

import asyncio
import os
import sys
import threading
import traceback
from collections.abc import Callable
from types import FrameType

from hydracore.logs import logger

log = logger("hydracore.watchdog")

_TICK = 0.25
_COMPLAIN_AFTER = 2.0


class Watchdog:
    """A thread beside a loop's. When the loop has stood still for two seconds the log says where, and whose code that
    is; after ``patience`` seconds (0: never) the process ends, for its parent to start another.

    It counts its own ticks, not the clock: a process that was stopped as a whole has not stood still.
    """

    def __init__(self, patience: float, blame: Callable[[FrameType], str]) -> None:
        self._patience = patience
        self._blame = blame
        self._loop = asyncio.get_running_loop()
        self._watched = threading.get_ident()
        self._turned = threading.Event()
        self._ended = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._watch, name="hydracore-watchdog", daemon=True).start()

    def stop(self) -> None:
        self._ended.set()

    def _watch(self) -> None:
        still = 0
        while not self._ended.is_set():
            self._turned.clear()
            try:
                self._loop.call_soon_threadsafe(self._turned.set)
            except RuntimeError:
                return  # The loop is closed.
            while not self._turned.wait(_TICK) and not self._ended.is_set():
                still += 1
                self._judge(still)
            still = 0
            self._ended.wait(_TICK)

    def _judge(self, still: int) -> None:
        seconds = still * _TICK
        if seconds == _COMPLAIN_AFTER:
            self._complain(seconds)
        if self._patience and seconds >= self._patience:
            log.critical("the event loop stands still, this worker ends", seconds=seconds, pid=os.getpid())
            sys.stderr.flush()
            os._exit(1)

    def _complain(self, seconds: float) -> None:
        frame = sys._current_frames().get(self._watched)
        if frame is None:
            return
        where = [f"{step.filename}:{step.lineno} {step.name}" for step in traceback.extract_stack(frame)[-8:]]
        log.error("the event loop stands still", seconds=seconds, plugin=self._blame(frame), where=where)
