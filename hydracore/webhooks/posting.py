"""One try: the request to a webhook, and what its answer says."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from tornado.httpclient import HTTPRequest
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from hydracore.config import Endpoint
from hydracore.signing import signature

_LONGEST_ANSWER = 64 * 1024
_LONGEST_WORDS = 200


class NoAnswer(Exception):
    """The receiver cannot be reached, or said nothing in time. The words never hold its URL, which may be a secret."""


@dataclass
class Answer:
    """The status of an answer to what was ``asked_at`` then, and the seconds until its ``Retry-After``, 0 for none."""

    asked_at: datetime = field(repr=False)
    status: int = 0
    retry_after: int = 0
    whole: bool = field(default=False, repr=False)

    def read(self, line: str) -> None:
        """Take a line of its head."""
        if line.startswith("HTTP/"):
            self.status, self.retry_after, self.whole = int(line.split(" ", 2)[1]), 0, False
        elif not line.strip():
            self.whole = self.status >= 200  # Others go before another one.
        elif line.lower().startswith("retry-after:"):
            self.retry_after = _seconds(line.partition(":")[2].strip(), self.asked_at)


def _seconds(text: str, now: datetime) -> int:
    """RFC 9110, section 10.2.3: seconds, or a date; 0 for what is neither, and for a date that is over."""
    if text.isascii() and text.isdigit():
        return int(text[:9])
    try:
        until = parsedate_to_datetime(text)
        return max(0, int((until if until.tzinfo else until.replace(tzinfo=UTC)).timestamp() - now.timestamp()))
    except (ValueError, OverflowError):
        return 0


async def post(endpoint: Endpoint, message_id: str, body: str, now: datetime) -> Answer:
    """Post ``body``, signed as of ``now``, and give the answer's head: it is what counts, its body is passed over,
    and a redirect is an answer like any other. Raises :class:`NoAnswer` within ``endpoint.timeout`` seconds."""
    answer, sent, timestamp = Answer(now), body.encode(), int(now.timestamp())
    # One each: this client keeps no connections. Not the process's own, which the host may have configured otherwise.
    client = SimpleAsyncHTTPClient(force_instance=True, max_body_size=_LONGEST_ANSWER, max_buffer_size=_LONGEST_ANSWER)
    request = HTTPRequest(
        endpoint.url,
        method="POST",
        headers={
            "Content-Type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(endpoint.keys, message_id, timestamp, sent),
        },
        body=sent,
        user_agent="HydraCore",
        connect_timeout=endpoint.timeout,
        request_timeout=endpoint.timeout,
        follow_redirects=False,
        decompress_response=False,
        header_callback=answer.read,
        streaming_callback=_pass_over,
    )
    answering = client.fetch(request, raise_error=False)
    # Not cancelled with its caller: the client would log what it comes to all the same.
    answering.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        await asyncio.wait({answering})
        answering.result()
    except Exception as error:
        if not answer.whole:
            raise NoAnswer(_words(error, endpoint)) from error
    finally:
        client.close()
    return answer


def _pass_over(chunk: bytes) -> None:
    pass


def _words(error: Exception, endpoint: Endpoint) -> str:
    said = f"{type(error).__name__}: {error}".encode("utf-8", "replace").decode()
    url = urlsplit(endpoint.url)
    for hidden in (endpoint.url, url.query, url.path, url.netloc, url.hostname or ""):
        said = said.replace(hidden, "…") if len(hidden) > 1 else said
    return said[:_LONGEST_WORDS]
