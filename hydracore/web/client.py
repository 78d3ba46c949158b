"""Whose request it is: the client's network behind proxies, and whether our own pages sent it."""

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from tornado.httputil import HTTPServerRequest

from hydracore.config import BY_UNIX_SOCKET
from hydracore.errors import CrossOriginRefused

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_LANGUAGE = re.compile(r"(?P<tag>[a-z]{2,8}(-[a-z0-9]{1,8}){0,3})(\s*;\s*q=(?P<weight>[01](\.[0-9]{0,3})?))?")
# Looked for in this order, for most say that they are some of those after them, too.
_PROGRAMS = (
    *(("Edg", "Edge"), ("OPR/", "Opera"), ("SamsungBrowser/", "Samsung Internet"), ("FxiOS/", "Firefox")),
    *(("Firefox/", "Firefox"), ("CriOS/", "Chrome"), ("Chrome/", "Chrome"), ("Safari/", "Safari")),
)
_SYSTEMS = (
    *(("iPhone", "iPhone"), ("iPad", "iPad"), ("Android", "Android"), ("Windows", "Windows")),
    *(("CrOS", "ChromeOS"), ("Mac OS X", "macOS"), ("Linux", "Linux")),
)
_FIRST_WORD = re.compile(r"[^\s/(]*")
_LONGEST_AGENT = 400
_LONGEST_DEVICE = 60
_UNIX_SOCKET = "0.0.0.0"  # noqa: S104  # what Tornado calls the peer of one; nothing is bound
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class Proxies:
    """The proxies whose forwarded headers count: ``trusted``, as the configuration has them."""

    def __init__(self, trusted: Sequence[str]) -> None:
        self._unix = BY_UNIX_SOCKET in trusted
        self._networks: list[Network] = [
            ip_network(network, strict=False) for network in trusted if network != BY_UNIX_SOCKET
        ]

    def trusts(self, peer: str) -> bool:
        """``peer`` is whoever has connected, as Tornado calls it."""
        return (self._unix and peer == _UNIX_SOCKET) or self._has(_parse(peer))

    def network(self, request: HTTPServerRequest) -> str:
        """The client's network: IPv4 /32, IPv6 /64. Behind trusted proxies the client is the
        right-most hop that is none of them; a header that cannot be parsed counts for nothing."""
        peer = request.remote_ip or ""
        client = None if peer == _UNIX_SOCKET else _parse(peer)
        if self.trusts(peer):
            for hop in reversed(request.headers.get("X-Forwarded-For", "").split(",")):
                parsed = _parse(hop.strip())
                if parsed is None:
                    break
                client = parsed
                if not self._has(parsed):
                    break
        return _network_of(client) if client is not None else "local"

    def _has(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._networks)


def languages(header: str) -> str:
    """The tags of an Accept-Language header (RFC 9110, section 12.5.4), the best first, five at most."""
    found = (_LANGUAGE.fullmatch(part.strip()) for part in header[:500].lower().split(","))
    weighted = [(float(match["weight"] or 1), match["tag"]) for match in found if match]
    wanted = [tag for weight, tag in sorted(weighted, key=lambda item: -item[0]) if weight > 0]
    return ",".join(wanted[:5])


def device_of(request: HTTPServerRequest) -> str:
    """What a User-Agent says of the device, in a few words: "Firefox on Linux", "curl". It is the client's own word,
    for its owner's eyes, and decides nothing."""
    agent = "".join(filter(str.isprintable, request.headers.get("User-Agent", "")[:_LONGEST_AGENT]))
    program = next((name for mark, name in _PROGRAMS if mark in agent), "") or _FIRST_WORD.match(agent)[0]  # type: ignore[index]  # it matches "" too
    system = next((name for mark, name in _SYSTEMS if mark in agent), "")
    return " on ".join(part for part in (program, system) if part)[:_LONGEST_DEVICE]


def check_origin(request: HTTPServerRequest, origins: Sequence[str]) -> None:
    """Refuse what a browser sends from another site's page (OWASP's Fetch Metadata policy, with
    Origin as the fall-back). What no browser sent has neither header and passes.

    ``origins`` are those that may call, our own first. Raises :class:`CrossOriginRefused`.
    """
    if request.method in _SAFE_METHODS:
        return
    site = request.headers.get("Sec-Fetch-Site", "")
    origin = request.headers.get("Origin", "").lower()
    if origin in origins:
        return
    if site in ("same-origin", "none"):
        return
    # The scheme is that of our own origin: behind a TLS proxy the request itself does not know it.
    ours = f"{origins[0].partition('://')[0]}://{request.host.lower()}"
    if site or origin not in ("", ours):
        raise CrossOriginRefused().because(origin=origin[:200], fetch_site=site[:200])


@lru_cache(maxsize=1024)  # A proxy's own is in every request.
def _parse(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _network_of(address: Address) -> str:
    if isinstance(address, IPv4Address):
        return str(address)
    return str(ip_network(f"{address.compressed.partition('%')[0]}/64", strict=False))
