"""The sockets that the server listens on: handed over by whoever started it, or bound here.

They are handed over as systemd does it, sd_listen_fds(3): descriptors from 3 up, counted and named by variables. Such
a socket is not the server's alone, so that who comes while the server is restarted waits in its queue, and is not
refused.
"""

import os
import socket
import stat
from collections.abc import Iterable, Iterator, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address

from tornado.netutil import bind_sockets

from hydracore.config import Admin, Config, Management
from hydracore.errors import StartupError

_FIRST = 3
_BACKLOG = 1024
_NOT_PUBLIC = ("management", "admin")
_LONGEST_COUNT = 4
_NO_FILE = "\0"
_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


@dataclass(frozen=True)
class Listeners:
    """Those of the server, at least one; and those of the management and the admin listener, none where there is
    none."""

    public: list[socket.socket]
    management: list[socket.socket]
    admin: list[socket.socket]

    def __iter__(self) -> Iterator[socket.socket]:
        yield from (*self.public, *self.management, *self.admin)

    @property
    def port(self) -> int:
        """The first one's that has a port; 0 where all are Unix sockets."""
        return next((each.getsockname()[1] for each in self.public if each.family != socket.AF_UNIX), 0)


def listen(config: Config, environment: MutableMapping[str, str]) -> Listeners:
    """Take what was handed over, and bind what was not, as ``config`` says. Raises :class:`StartupError`."""
    handed = handed_over(environment)
    _check(config, handed)
    public = [listener for name, listener in handed if name not in _NOT_PUBLIC]
    return Listeners(
        public or _bind("server", config.server.host, config.server.port),
        _not_public("management", config.management, handed),
        _not_public("admin", config.admin, handed),
    )


def handed_over(environment: MutableMapping[str, str]) -> list[tuple[str, socket.socket]]:
    """The sockets that this process was handed, by name. Their variables are taken out of ``environment``, for what it
    starts has none of them. Raises :class:`StartupError` for what nobody can connect to."""
    pid, count, names = (environment.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if pid != str(os.getpid()):
        return []  # They were another's, from which this process has the variables alone.
    if not (count.isdecimal() and len(count) <= _LONGEST_COUNT):
        raise StartupError(f"LISTEN_FDS is {count!r}, which is no number of sockets.")
    named = [*names.split(":"), *[""] * int(count)]
    return [(named[place], _taken(_FIRST + place, named[place])) for place in range(int(count))]


def _check(config: Config, handed: Iterable[tuple[str, socket.socket]]) -> None:
    ports = {"management": config.management.port, "admin": config.admin.port}
    for name, listener in handed:
        if name in _NOT_PUBLIC and not ports[name]:
            raise StartupError(
                f"A socket named {name} is handed over, and there is no {name} listener: set {name}.port."
            )
        if name == "admin" and not (config.admin.allow_remote or _is_near(listener)):
            raise StartupError(
                f"The socket named admin is handed over on {_url(listener)}, which is not this machine's own, and "
                "there is no TLS: have it listen on 127.0.0.1, or, where a TLS proxy or a private network is between, "
                "set admin.allow_remote."
            )


def _is_near(listener: socket.socket) -> bool:
    """Whether nobody on another machine reaches it."""
    return listener.family == socket.AF_UNIX or ip_address(listener.getsockname()[0]).is_loopback


def _not_public(
    section: str, settings: Management | Admin, handed: Iterable[tuple[str, socket.socket]]
) -> list[socket.socket]:
    """Those of a listener that is there if it has a port."""
    taken = [listener for name, listener in handed if name == section]
    return taken or (_bind(section, settings.host, settings.port) if settings.port else [])


def urls(sockets: Iterable[socket.socket]) -> list[str]:
    """Where they listen, for people."""
    return [_url(listener) for listener in sockets]


def _taken(descriptor: int, name: str) -> socket.socket:
    with suppress(OSError):  # What it is not may be asked of a socket alone, or of an open one.
        if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            listener = socket.socket(fileno=descriptor)
            listens = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            if listens and listener.type == socket.SOCK_STREAM and listener.family in _FAMILIES:
                listener.setblocking(False)
                listener.set_inheritable(False)
                return listener
            listener.detach()
    raise StartupError(
        f"Descriptor {descriptor}{f' ({name})' if name else ''}, which this server is handed to listen on, is no "
        "stream socket that listens, of IPv4, IPv6 or Unix. In a unit of systemd it is ListenStream= that makes one, "
        "with Accept=no."
    )


def _bind(section: str, host: str, port: int) -> list[socket.socket]:
    try:
        return bind_sockets(port, host, backlog=_BACKLOG)
    except OSError as error:
        raise StartupError(
            f"Cannot listen on {host} port {port}: {error.strerror or error}. "
            f"Stop what listens there, or choose another {section}.host or {section}.port."
        ) from error


def _url(listener: socket.socket) -> str:
    address = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"unix:{os.fsdecode(address).replace(_NO_FILE, '@', 1)}"
    host, port = address[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
