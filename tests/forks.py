"""Processes of ``hydracore …`` that start at once: one that has imported it waits, and each is a fork of that.

From ``python -m hydracore …`` they differ in nothing else. Environment, folder, streams, session, signals and exit code
are their own, and it is the interpreter that ends them.
"""

import atexit
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

_LONGEST, _NUMBER = 1 << 17, 20


class Forked:
    """``hydracore …`` at work, with what :class:`subprocess.Popen` has. ``streams`` are descriptors: its input, its
    output, its errors."""

    def __init__(
        self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str], streams: Sequence[int]
    ) -> None:
        self.returncode: int | None = None
        self._report, report = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request = {"arguments": list(arguments), "folder": str(folder), "environment": dict(environment)}
        with report:
            socket.send_fds(_waiting(), [json.dumps(request).encode()], [report.fileno(), *streams])
        self.pid = int(self._report.recv(_NUMBER))

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._report.settimeout(timeout)
            try:
                self.returncode = int(self._report.recv(_NUMBER))
            except (TimeoutError, BlockingIOError) as error:
                raise subprocess.TimeoutExpired("hydracore", timeout or 0) from error
            self._report.close()
        return self.returncode

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@cache
def _waiting() -> socket.socket:
    """Where to ask the process that waits; it ends with this one."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        process = subprocess.Popen(
            [sys.executable, __file__, str(its.fileno())],
            pass_fds=[its.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


# -- the process that waits ------------------------------------------------------------------------


def wait(asked: socket.socket) -> None:
    """Returns in each fork that is to be ``hydracore``, and in no other process."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        request, descriptors, _, _ = socket.recv_fds(asked, _LONGEST, 4)
        if not request:
            os._exit(0)
        report, *streams = descriptors
        if os.fork() == 0:
            asked.close()
            _attended(report, streams)
            _become(json.loads(request), streams)
            return
        for descriptor in descriptors:
            os.close(descriptor)


def _attended(report: int, streams: Sequence[int]) -> None:
    """Returns in a child; its parent tells its pid, and its exit code when it has ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        os.close(report)
        return
    for stream in streams:
        os.close(stream)
    os.write(report, str(child).encode())
    _, status = os.waitpid(child, 0)
    os.write(report, str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _become(request: Mapping[str, Any], streams: Sequence[int]) -> None:
    os.setsid()
    os.chdir(request["folder"])
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path[0], sys.argv[1:] = request["folder"], request["arguments"]


if __name__ == "__main__":
    import hydracore.cli.bench
    import hydracore.cli.plugins
    import hydracore.cli.selftest  # noqa: F401  # with the others, what all commands need

    gc.freeze()
    wait(socket.socket(fileno=int(sys.argv[1])))
    runpy.run_module("hydracore", run_name="__main__", alter_sys=True)
