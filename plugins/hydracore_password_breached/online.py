"""Asking a service for all hashes that begin alike, so that it does not learn which one was meant."""

import re
from urllib.parse import urlsplit

from tornado.httpclient import HTTPRequest
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from hydracore.plugin import StartupError
from hydracore_password_breached.rest import NotTold

_PREFIX = 5
# A padded range has some 40 KiB.
_LARGEST = 512 * 1024
_LINE = re.compile(rb"([0-9A-Fa-f]{35}):([0-9]{1,12})")


class Online:
    """The ranges at ``url``. Raises ``StartupError`` for what is no address."""

    def __init__(self, url: str) -> None:
        self._url = f"{url.rstrip('/')}/"
        try:
            sound = bool(urlsplit(url).hostname) and urlsplit(url).port != 0
        except ValueError:
            sound = False
        if not sound:
            raise StartupError(
                "plugins.password_breached.url is not the address of a service: write https://HOST/range/."
            )

    async def seen(self, digest: str, timeout: float) -> int:  # the client's own deadline
        """Raises ``NotTold`` for an answer that is no range, and what the client does."""
        # One each: this client keeps no connections, and nobody tells a policy when to close another. Not the
        # process's own, which the host may have configured with other limits.
        client = SimpleAsyncHTTPClient(force_instance=True, max_body_size=_LARGEST, max_buffer_size=_LARGEST)
        request = HTTPRequest(
            self._url + digest[:_PREFIX],
            headers={"Add-Padding": "true"},
            user_agent="hydracore",
            connect_timeout=timeout,
            request_timeout=timeout,
            follow_redirects=False,
            decompress_response=False,  # What unpacks to more than it is would not be bounded.
        )
        try:
            answer = await client.fetch(request, raise_error=False)
        finally:
            client.close()
        if answer.code == 599 and answer.error:
            raise answer.error
        if answer.code != 200:
            raise NotTold(f"plugins.password_breached.url answered {answer.code}")
        return _counted(answer.body, digest[_PREFIX:].encode())


def _counted(body: bytes, rest: bytes) -> int:
    """How often; padding has a count of 0, which is never often enough."""
    lines = [_LINE.fullmatch(line) for line in body.splitlines()]
    if not lines:
        # There is no range without hashes: this is someone else's answer.
        raise NotTold("plugins.password_breached.url answered nothing")
    seen = 0
    for line in lines:
        if line is None:
            raise NotTold("what plugins.password_breached.url answered is no range")
        if line[1].upper() == rest:
            seen = max(seen, int(line[2]))
    return seen
