"""What the service manager is told of the server's state: sd_notify(3), a datagram to the socket that it names.

systemd speaks it, and so do others that took it over. Started by none of them, nobody is told.
"""

import os
import socket
from collections.abc import MutableMapping

from hydracore.logs import logger

log = logger("hydracore.notify")

_LONGEST_WAIT = 1.0


class ServiceManager:
    """It is named by variables that are taken out of ``environment``: what this process starts has nothing to tell."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        address = environment.pop("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        watched, patience = (environment.pop(name, "") for name in ("WATCHDOG_PID", "WATCHDOG_USEC"))
        mine = watched in ("", str(os.getpid())) and patience.isdecimal()
        self._every = int(patience) / 1_000_000 / 2 if mine else 0.0
        self._due = 0.0

    def ready(self, status: str) -> None:
        """The server serves. ``status`` is a line for people."""
        self._tell("READY=1", f"STATUS={status}")

    def stopping(self) -> None:
        self._tell("STOPPING=1", "STATUS=Stopping: answering what is on its way")

    def alive(self, now: float) -> None:
        """To be said all the time: twice in the time after which the service manager takes the server for dead, it is
        told. ``now`` is of any clock that goes forward."""
        if self._every and now >= self._due:
            self._due = now + self._every
            self._tell("WATCHDOG=1")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as telling:
                telling.settimeout(_LONGEST_WAIT)
                telling.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            log.warning("the service manager could not be told", what=lines[0], reason=str(error))
