"""Opens registration, sign-in and the setting of a mailed password to some networks, or closes them to others.

::

    [plugins]
    enabled = ["networks"]

    [plugins.networks]
    allow = ["10.0.0.0/8", "2001:db8::/32"]
    deny = ["10.9.0.0/16"]
    for = ["register", "login"]

``allow`` names who may, and with none everyone may; ``deny`` names who may not, and wins; ``for`` names what is
guarded. A client with IPv6 is known by its /64, as in the limits: it is denied when any part of that is denied, and
allowed only when all of it is allowed. A client that comes over a Unix socket has no address and counts as 127.0.0.1.
Behind proxies ``server.trusted_proxies`` decides whose address is looked at.

Who is signed in already stays so. A sign-in is judged once the credentials are right, so this is no means against
guessing: the limits are. It depends on nothing.
"""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network

from hydracore.plugin import Context, LoginRefused, RegistrationRefused, ResetRefused, StartupError, hookimpl

Network = IPv4Network | IPv6Network

_MAPPED = IPv6Network("::ffff:0:0/96")
_CLIENT_PREFIX = 64
_LOOPBACK = IPv4Network("127.0.0.1")
# A Unix socket's client, in HydraCore's word and in Tornado's. Nobody's packets come from the latter.
_NO_ADDRESS = ("local", "0.0.0.0")  # noqa: S104  # nothing listens here


class Networks:
    def __init__(self, context: Context) -> None:
        self._denied = [_configured("deny", entry) for entry in context.config["deny"]]
        self._allowed = [_allowed(entry) for entry in context.config["allow"]]
        self._guarded = frozenset(context.config["for"])

    @hookimpl
    async def hydracore_before_register(self, network: str) -> None:
        if self._refuses("register", network):
            raise RegistrationRefused("Registration is not open to your network.")

    @hookimpl
    async def hydracore_before_login(self, network: str) -> None:
        if self._refuses("login", network):
            raise LoginRefused("Signing in is not open to your network.")

    @hookimpl
    async def hydracore_before_reset_password(self, network: str) -> None:
        if self._refuses("reset", network):
            raise ResetRefused("Setting a password is not open to your network.")

    def _refuses(self, moment: str, network: str) -> bool:
        if moment not in self._guarded:
            return False
        client = _LOOPBACK if network in _NO_ADDRESS else ip_network(network)
        if any(client.overlaps(denied) for denied in self._denied):
            return True
        return bool(self._allowed) and not _within(client, self._allowed)


def _within(client: Network, networks: Sequence[Network]) -> bool:
    # subnet_of() takes no network of the other version.
    return any(
        client.version == network.version and client.prefixlen >= network.prefixlen and client.overlaps(network)
        for network in networks
    )


def _allowed(entry: str) -> Network:
    network = _configured("allow", entry)
    if network.version == 6 and network.prefixlen > _CLIENT_PREFIX:
        whole = network.supernet(new_prefix=_CLIENT_PREFIX)
        raise StartupError(
            f"plugins.networks.allow has {entry!r}, which would let nobody in: clients with IPv6 are known by their "
            f"/64 alone. Write {str(whole)!r}."
        )
    return network


def _configured(key: str, entry: str) -> Network:
    try:
        # A zone ("%eth0") is a machine's own affair, and no client has one.
        network = ip_network(entry.replace("%", " "), strict=False)
    except ValueError as error:
        raise StartupError(
            f"plugins.networks.{key} has {entry!r}, which is neither an address nor a network: "
            'write them as "203.0.113.7", "203.0.113.0/24" or "2001:db8::/32".'
        ) from error
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        # An IPv4 client is known by its IPv4 address, however its connection came.
        mapped = network.network_address.ipv4_mapped
        return IPv4Network(f"{mapped}/{network.prefixlen - _MAPPED.prefixlen}")
    return network
