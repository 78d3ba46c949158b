"""The range query: which hashes begin with these five characters?"""

import re

from tornado.httpclient import HTTPClientError
from tornado.simple_httpclient import SimpleAsyncHTTPClient

_MOST_BYTES = 1024 * 1024
_SIDE_BY_SIDE = 16
_PREFIX = 5
_LINE = re.compile(r"([0-9A-F]{35}):([0-9]{1,15})")


class Failed(Exception):
    """The service did not answer, or not as it should. It holds nothing of the password."""


class Ranges:
    """Asks a service of the k-anonymity kind."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._client: SimpleAsyncHTTPClient | None = None

    async def count(self, digest: str, timeout: float) -> int:
        """How often the password of that SHA-1 (40 hexadecimal digits, upper case) was seen; ``timeout`` is in seconds,
        waiting for a turn included. Raises :class:`Failed`."""
        body = await self._fetch(digest[:_PREFIX], timeout)
        try:
            lines = body.decode("ascii").splitlines()
        except UnicodeDecodeError as error:
            raise Failed("the answer is not text") from error
        found = [_LINE.fullmatch(line.strip().upper()) for line in lines if line.strip()]
        counts = {match[1]: int(match[2]) for match in found if match}
        # No range is empty: this is another server's page.
        if not counts or len(counts) < len(found):
            raise Failed("the answer is no range")
        return counts.get(digest[_PREFIX:], 0)  # Padding has a count of 0.

    async def _fetch(self, prefix: str, timeout: float) -> bytes:
        if self._client is None:  # Of the event loop that it is first used in.
            self._client = SimpleAsyncHTTPClient(
                force_instance=True, max_clients=_SIDE_BY_SIDE, max_body_size=_MOST_BYTES, max_buffer_size=_MOST_BYTES
            )
        try:
            answer = await self._client.fetch(
                f"{self._url}/{prefix}",
                headers={"Add-Padding": "true", "User-Agent": "hydracore"},
                connect_timeout=timeout,
                request_timeout=timeout,
                follow_redirects=False,
                raise_error=False,
            )
        except (HTTPClientError, OSError, ValueError) as error:
            raise Failed("no answer") from error
        if answer.code != 200:
            raise Failed(f"it answered {answer.code}")
        return answer.body
