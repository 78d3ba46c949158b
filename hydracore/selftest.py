"""Does a deployment tell who has an account? Asked from outside, and judged by statistics."""

import json
import math
import random
import statistics
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from string import ascii_lowercase, digits
from typing import Literal
from urllib.parse import urlsplit

Verdict = Literal["same", "different", "unclear"]

_WRONG = "no such password, surely"
_VARYING = ("date", "x-request-id", "retry-after", "keep-alive")
_LIMITED = (429, 503)
_NOT_THERE = (301, 302, 303, 307, 308, 404, 405)
_LONGEST_PAUSE = 5.0
_PATIENCE = 60.0
_MOST_BYTES = 1 << 20
_MOST_QUOTED = 120
_FEWEST = 20
_WARM_UP = 2
_TRIES = 2000
_SHORTEST = 10
_CERTAIN = 0.01
_LEAST_MS = 1.0
_LEAST_SHARE = 0.02
_chance = random.SystemRandom()


class Unreachable(Exception):
    """Nothing answers there, or not this API."""


class TooShort(ValueError):
    """No address of that length is surely nobody's."""


@dataclass(frozen=True)
class Call:
    """How one call is asked for an address. ``expected`` is the status that every address is to get, ``mails``
    whether a known one gets mail by it."""

    ask: Callable[[str], tuple[bytes, Mapping[str, str]]]
    expected: int
    mails: bool = False


@dataclass(frozen=True)
class Sample:
    """One answer: its parts but for what always differs, by name, and how many seconds it took. ``pause`` is what
    Retry-After said, in seconds."""

    status: int
    parts: Mapping[str, str]
    seconds: float
    pause: float = math.inf


@dataclass(frozen=True)
class Comparison:
    """What one call showed. Times in milliseconds; ``low`` and ``high`` are the 95 % interval of the difference of the
    medians, known less unknown; ``p`` is the chance of such ranks if there were none."""

    call: str
    verdict: Verdict
    reason: str
    samples: int
    known_ms: float = 0.0
    unknown_ms: float = 0.0
    low: float = 0.0
    high: float = 0.0
    p: float = 1.0


# -- asking ----------------------------------------------------------------------------------------


def _json(**members: str) -> tuple[bytes, Mapping[str, str]]:
    return json.dumps(members, ensure_ascii=False).encode(), {"Content-Type": "application/json"}


def _basic(email: str) -> tuple[bytes, Mapping[str, str]]:
    return b"", {"Authorization": f"Basic {b64encode(f'{email}:{_WRONG}'.encode()).decode()}"}


CALLS: Mapping[str, Call] = {
    "login": Call(lambda email: _json(email=email, password=_WRONG), 401),
    "token": Call(_basic, 401),
    "verify-email": Call(lambda email: _json(email=email, code="000000"), 400),
    "resend-verification": Call(lambda email: _json(email=email), 200, mails=True),
    "forgot-password": Call(lambda email: _json(email=email), 200, mails=True),
}


class Prober:
    """Asks the calls under ``url``, or under ``prefix`` there if it has no path, over one connection. ``timeout`` in
    seconds. Raises :class:`Unreachable` for what is no such URL."""

    def __init__(self, url: str, prefix: str = "", timeout: float = 30) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
            (parts.path + parts.netloc).encode("ascii")
        except ValueError:
            host = port = None
        if not host or parts.scheme not in ("http", "https") or parts.query or "@" in parts.netloc:
            raise Unreachable(f"{url!a} is no address of a server: write https://id.example.com/auth.")
        self._path = parts.path.rstrip("/") or prefix
        self.url = f"{parts.scheme}://{parts.netloc}{self._path}"
        make = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._connection = make(host, port, timeout=timeout)

    def ask(self, call: str, email: str) -> Sample:
        """Raises :class:`Unreachable`."""
        fresh = self._connection.sock is None
        try:
            return self._ask(call, email)
        except (ConnectionError, HTTPException) as error:
            # A server may end a connection that idles; that says nothing of the address.
            self.close()
            if fresh:
                raise self._silent(error) from error
        except (OSError, UnicodeError) as error:
            raise self._silent(error) from error
        try:
            return self._ask(call, email)
        except (OSError, HTTPException) as error:
            raise self._silent(error) from error

    def _ask(self, call: str, email: str) -> Sample:
        body, headers = CALLS[call].ask(email)
        before = time.perf_counter()
        self._connection.request("POST", f"{self._path}/{call}", body, dict(headers))
        answer = self._connection.getresponse()
        text = answer.read(_MOST_BYTES)
        seconds = time.perf_counter() - before
        if not answer.isclosed() and answer.read(1):
            raise Unreachable(f"{self.url} answers more than this API ever does.")
        parts = {"status": str(answer.status), "body": repr(text)}
        for name in {name.lower() for name in answer.headers} - set(_VARYING):
            values = answer.headers.get_all(name, [])
            parts[f"header {name}"] = ", ".join(map(_lasting, values) if name == "set-cookie" else values)
        return Sample(answer.status, parts, seconds, _pause(answer.getheader("Retry-After")))

    def _silent(self, error: Exception) -> Unreachable:
        return Unreachable(f"{self.url} does not answer: {type(error).__name__}.")

    def close(self) -> None:
        self._connection.close()


def _lasting(cookie: str) -> str:
    """A cookie without its value, which is another each time; its name and attributes are not."""
    return f"{cookie.partition('=')[0]}=...;{cookie.partition(';')[2]}"


def _pause(value: str | None) -> float:
    return float(value) if value and value.isascii() and value.isdigit() and len(value) < 10 else math.inf


def made_up(known: str) -> str:
    """An address that nobody has: as many bytes as the other, of the same domain, for nothing else is to differ.

    Raises :class:`TooShort` where that leaves so few that one of them may be somebody's.
    """
    local, _, domain = known.rpartition("@")
    if len(local.encode()) < _SHORTEST:
        raise TooShort(
            f"An address as short as {known} cannot be made up: it may be somebody's, for whom attempts would fail and "
            "who would be mailed. Name one that has no account, of the same length and domain, by --unknown, or a "
            f"--known of {_SHORTEST} characters or more before the @."
        )
    while True:
        made = _chance.choice(ascii_lowercase) + "".join(
            _chance.choices(ascii_lowercase + digits, k=len(local.encode()) - 1)
        )
        if made != local.lower():
            return f"{made}@{domain}"


def compare(
    prober: Prober,
    call: str,
    known: str,
    unknown: str | None,
    samples: int,
    tolerance_ms: float = 0,
    sleep: Callable[[float], None] = time.sleep,
) -> Comparison:
    """Ask ``call`` for a known and an unknown address (another each time where it is None), in random order within
    each pair, and judge. A limit is waited for if it asks for a moment only, and ends the asking otherwise. Raises
    :class:`Unreachable`, and :class:`TooShort` where addresses are to be made up."""
    here: list[Sample] = []
    there: list[Sample] = []
    patience = _PATIENCE
    for number in range(samples + _WARM_UP):
        for side in _chance.sample((here, there), 2):
            email = known if side is here else unknown or made_up(known)
            sample = prober.ask(call, email)
            while sample.status in _LIMITED and sample.pause <= min(_LONGEST_PAUSE, patience):
                # Even "at once" costs patience: a server that says so for ever is not asked for ever.
                patience -= max(sample.pause, 0.5)
                sleep(sample.pause)
                sample = prober.ask(call, email)
            side.append(sample)
        if number == 0 and all(each.status in _NOT_THERE for each in (*here, *there)):
            raise Unreachable(
                f"There is no call {call} at {prober.url}, which answers {here[0].status}: are scheme and prefix right?"
            )
        if here[-1].status in _LIMITED or there[-1].status in _LIMITED:
            break
    return judge(call, here[_WARM_UP:], there[_WARM_UP:], samples, tolerance_ms)


# -- judging ---------------------------------------------------------------------------------------


def judge(
    call: str, known: Sequence[Sample], unknown: Sequence[Sample], wanted: int, tolerance_ms: float = 0
) -> Comparison:
    """What the answers show, of ``wanted`` for each address. Those that a limit or an outage gave are left out;
    ``tolerance_ms`` is the difference of the medians that nobody can use, a millisecond or two per cent where it is 0:
    times are the same where the whole interval is within it, for what a wide one does not show it does not rule out.
    """
    here, there = ([each for each in side if each.status not in _LIMITED] for side in (known, unknown))
    fewest, most = min(len(here), len(there)), max(len(here), len(there))
    expected = CALLS[call].expected
    if fewest and (told := differences(here, there)):
        return Comparison(call, "different", "; ".join(told), fewest)
    if most and all(each.status != expected for each in (*here, *there)):
        reason = f"both are answered {here[0].status if here else there[0].status}, where this API says {expected}"
        return Comparison(call, "unclear", reason, fewest)
    limited = fewest < wanted
    counted = f"{fewest} of {wanted} were judged: limits, or an outage" if limited else f"{fewest} are too few"
    if fewest < _FEWEST:
        return Comparison(call, "unclear", f"{counted} (it takes {_FEWEST})", fewest)
    times = [[each.seconds * 1000 for each in side] for side in (here, there)]
    medians = [statistics.median(side) for side in times]
    low, high = interval(*times)
    p = mann_whitney(*times)
    tolerance = tolerance_ms or max(_LEAST_MS, _LEAST_SHARE * max(medians))
    within = -tolerance <= low and high <= tolerance
    verdict: Verdict = "same"
    reason, by_more = "", f"by more than {tolerance:.1f} ms"
    if p < _CERTAIN and (low > tolerance or high < -tolerance):
        verdict, reason = "different", f"their times differ {by_more}"
    elif limited:
        verdict, reason = "unclear", counted
    elif p < _CERTAIN and not within:
        verdict, reason = "unclear", f"their times differ, but these samples cannot tell whether {by_more}: ask more"
    elif not within:
        verdict, reason = "unclear", f"these samples cannot tell whether their times differ {by_more}: ask more"
    return Comparison(call, verdict, reason, fewest, medians[0], medians[1], low, high, p)


def differences(known: Sequence[Sample], unknown: Sequence[Sample]) -> list[str]:
    """What is answered to one of them only, in ASCII that a terminal can be given."""
    told = []
    for name in sorted({name for each in (*known, *unknown) for name in each.parts}, key=_first_status):
        here, there = (Counter(each.parts.get(name) for each in side) for side in (known, unknown))
        if name.startswith("header ") and _always_another(here) and _always_another(there):
            continue  # Such as the number that a proxy gives to each answer.
        for who, one, other in (("known", here, there), ("unknown", there, here)):
            strange = {value: count for value, count in one.items() if value not in other}
            if strange:
                value = max(strange, key=lambda value: (strange[value], str(value)))
                what = "none" if value is None else ascii(value)[1:-1]
                what = what if len(what) <= _MOST_QUOTED else f"{what[:_MOST_QUOTED]}..."
                told.append(f"{ascii(name)[1:-1]} for the {who}: {what} ({strange[value]} of {one.total()})")
    return told


def _first_status(name: str) -> tuple[bool, str]:
    return name != "status", name


def _always_another(side: Counter[str | None]) -> bool:
    return None not in side and len(side) == side.total() > 1


def mann_whitney(one: Sequence[float], other: Sequence[float]) -> float:
    """The two-sided p of the Mann-Whitney U test: the normal approximation, with ties and continuity corrected."""
    ranked = sorted([(value, 0) for value in one] + [(value, 1) for value in other])
    ranks, ties = 0.0, 0.0
    for first, last in _runs([value for value, _ in ranked]):
        count = last - first
        ranks += (first + 1 + last) / 2 * sum(side == 0 for _, side in ranked[first:last])
        ties += count**3 - count
    n, m = len(one), len(other)
    total = n + m
    spread = n * m / 12 * (total + 1 - ties / (total * (total - 1)))
    if spread <= 0:
        return 1.0  # All are equal.
    distance = abs(ranks - n * (n + 1) / 2 - n * m / 2) - 0.5
    return min(1.0, math.erfc(max(0.0, distance) / math.sqrt(spread) / math.sqrt(2)))


def _runs(values: Sequence[float]) -> Iterator[tuple[int, int]]:
    """Where equal values begin and end."""
    first = 0
    for number in range(1, len(values) + 1):
        if number == len(values) or values[number] != values[first]:
            yield first, number
            first = number


def interval(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the difference of the medians, by bootstrap; the same for the same samples."""
    chance = random.Random(len(one))  # noqa: S311  # resampling is no secret
    differences = sorted(
        statistics.median(chance.choices(one, k=len(one))) - statistics.median(chance.choices(other, k=len(other)))
        for _ in range(_TRIES)
    )
    return differences[round(_TRIES * 0.025)], differences[round(_TRIES * 0.975) - 1]


def worst(comparisons: Sequence[Comparison]) -> Verdict:
    """Of all calls together."""
    verdicts = {comparison.verdict for comparison in comparisons}
    return "different" if "different" in verdicts else "unclear" if "unclear" in verdicts else "same"
