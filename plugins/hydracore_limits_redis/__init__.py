"""Counts attempts in Redis or Valkey, so that limits hold across workers and nodes: ``limits.backend = "redis"``.

``url``, ``prefix``, ``timeout`` and ``connections`` of ``[plugins.limits_redis]`` are described in
``schemas/config.json``. It needs the library redis (``pip install "hydracore[redis]"``) and a Redis 5 or any Valkey.

A hit is one script on one key, in one round trip. A window is the key's time to live, which the server alone keeps:
however far the nodes' clocks are apart, they agree when it ends, and what is over takes no memory. So this plugin
never asks what time it is. A user of its own needs no more than
``~hydracore:* +evalsha +eval +pttl +get +set +incrby +ping``, and ``+select`` with a database other than 0.

While the server is away, or slower than ``timeout``, each process counts for itself, as with every backend; what was
not answered is not repeated, for it may have been counted. A conversation that went wrong begins anew on a new
connection, so a restart or a fail-over needs no restart here. Counters that a fail-over loses begin from zero. Of a
Redis Cluster it needs an address that routes by itself: being sent elsewhere (``MOVED``) is a failure here.
"""

import asyncio
import hashlib
from contextlib import suppress
from typing import Any
from urllib.parse import SplitResult, urlsplit

from hydracore.plugin import Context, Count, HealthCheck, LimitBackend, StartupError, hookimpl

try:
    from redis.asyncio import ConnectionPool, Redis, SSLConnection
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import NoScriptError, RedisError
except ImportError as error:
    raise StartupError(
        'The plugin limits_redis needs the library redis, which is not installed: pip install "hydracore[redis]".'
    ) from error

# A key that is not there has -2 ms left, and one without an end, which none of ours is, -1: a window starts.
_HIT = """
local cost, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local left = redis.call('PTTL', KEYS[1])
if left <= 0 then
  if cost < 0 then return {0, 0} end
  redis.call('SET', KEYS[1], cost, 'PX', window)
  return {cost, window}
end
if cost < 0 then
  cost = math.max(cost, -tonumber(redis.call('GET', KEYS[1])))
end
return {redis.call('INCRBY', KEYS[1], cost), left}
"""
_DIGEST = hashlib.sha1(_HIT.encode(), usedforsecurity=False).hexdigest()
_OUTAGES = (RedisError, OSError)
# For the end of connections, TLS's included; with the longest timeout still within the core's second.
_GOODBYE = 0.05


class LimitsRedis:
    def __init__(self, context: Context) -> None:
        config = context.config
        self._url: str = config["url"]
        self._prefix: str = config["prefix"]
        self._timeout: float = config["timeout"]
        self._tls = _checked(self._url)
        self._slots = asyncio.Semaphore(config["connections"])
        self._opened: _Pool | None = None

    @hookimpl
    def hydracore_register_limit_backends(self) -> list[LimitBackend]:
        return [LimitBackend("redis", self.hit, self.close)]

    @hookimpl
    def hydracore_register_health_checks(self) -> list[HealthCheck]:
        return [HealthCheck("redis", self.check)]

    async def hit(self, key: str, window: int, cost: int) -> Count:
        answer = await self._conversation(_hit, f"{self._prefix}{key}", cost, window * 1000)
        match answer:
            case [int(hits), int(left)]:
                return Count(hits, left / 1000)
        raise ValueError("whatever answers at plugins.limits_redis.url, it is no Redis")

    async def check(self) -> str:
        try:
            said = "" if await self._conversation(Redis.ping) else "another answer"
        except _OUTAGES as error:
            said = type(error).__name__  # Its kind alone: a server that knows no AUTH repeats the password.
        if said:
            said = f"no PONG from plugins.limits_redis.url ({said}): while hits fail, each process counts for itself"
        return said

    async def close(self) -> None:
        """End every connection."""
        pool, self._opened = self._opened, None
        if pool is not None:
            await _hang_up(pool, in_use=True)

    async def _conversation(self, talk: Any, *arguments: Any) -> Any:
        """What ``talk`` gets for an answer, in time: waiting for a connection and making it are part of it."""
        pool = self._pool()
        try:
            async with asyncio.timeout(self._timeout), self._slots:
                return await talk(Redis(connection_pool=pool), *arguments)
        except _OUTAGES:
            # The idle ones too: after a fail-over they lead to a server that is silent, or takes no hits any more.
            await _hang_up(pool, in_use=False)
            raise

    def _pool(self) -> "_Pool":
        # Not before the first hit: it belongs to the event loop, and the process forks after plugins are made.
        if self._opened is None:
            # No retries: the hit may have been counted although its answer was lost.
            self._opened = _Pool.from_url(self._url, retry=Retry(NoBackoff(), 0))
            self._opened.tls = self._tls
        return self._opened


class _Pool(ConnectionPool):
    """Its connections share one TLS context: each would read the authorities' files again, in the event loop."""

    tls: Any = None

    def make_connection(self) -> Any:
        connection: Any = super().make_connection()  # type: ignore[no-untyped-call]  # the library's has no types
        if self.tls is not None:
            connection.ssl_context = self.tls
        return connection


async def _hang_up(pool: _Pool, *, in_use: bool) -> None:
    with suppress(*_OUTAGES):
        async with asyncio.timeout(_GOODBYE):
            await pool.disconnect(inuse_connections=in_use)


async def _hit(client: Any, key: str, cost: int, window: int) -> Any:
    try:
        return await client.evalsha(_DIGEST, 1, key, cost, window)
    except NoScriptError:  # A new server, or one whose scripts were flushed. It keeps what EVAL brings.
        return await client.eval(_HIT, 1, key, cost, window)


def _checked(url: str) -> Any:
    """The library's TLS context for ``rediss://``, else None. Raises ``StartupError`` for a URL that is none."""
    try:
        # No socket yet. A wrong option is found out only here.
        connection = _Pool.from_url(url).make_connection()
        sound = _sound(urlsplit(url))
    except (RedisError, TypeError, ValueError):
        sound = False
    if not sound:
        # Without the cause, whose words may be a part of the password.
        raise StartupError(
            "plugins.limits_redis.url is not the address of a Redis or Valkey: write "
            "redis://USER:PASSWORD@HOST:PORT/NUMBER (rediss:// for TLS) or unix:///PATH?db=NUMBER, "
            "with / ? # : @ and % in a password percent-encoded."
        )
    if not isinstance(connection, SSLConnection):
        return None
    try:
        connection.ssl_context.get()
    except (OSError, ValueError):
        raise StartupError(
            "plugins.limits_redis.url has ssl_ options that do not work: look at the files and values they name."
        ) from None
    return connection.ssl_context


def _sound(url: SplitResult) -> bool:
    """Whether nothing is where it would be passed over: the rest of a password whose # or / is not encoded
    would be taken for something else."""
    if url.scheme == "unix":
        return url.hostname is None and len(url.path) > 1 and not url.fragment
    database = url.path.removeprefix("/")
    return bool(url.hostname) and (not database or database.isdecimal()) and not url.fragment
