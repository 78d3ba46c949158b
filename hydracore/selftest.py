"""Does a deployment tell who has an account? Asked from outside, and judged by statistics."""

import json
import math
import random
import statistics
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from string import ascii_lowercase
from typing import Any, Literal
from urllib.parse import urlsplit

Verdict = Literal["same", "different", "unclear"]

_WRONG = "no such password, surely"
_VARYING = {"date", "x-request-id", "retry-after"}
_LIMITED = (429, 503)
_FEWEST = 20
_WARM_UP = 2
_TRIES = 2000
_CERTAIN = 0.01
_LEAST_MS = 1.0
_LEAST_SHARE = 0.05
_chance = random.SystemRandom()


class Unreachable(Exception):
    """Nothing answers there, or no HTTP."""


@dataclass(frozen=True)
class Sample:
    """One answer: ``what`` it is but for what always differs, and how many seconds it took."""

    status: int
    what: str
    seconds: float


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


def _json(**members: str) -> tuple[str, Mapping[str, str]]:
    return json.dumps(members), {"Content-Type": "application/json"}


def _basic(email: str) -> tuple[str, Mapping[str, str]]:
    return "", {"Authorization": f"Basic {b64encode(f'{email}:{_WRONG}'.encode()).decode()}"}


CALLS: Mapping[str, Callable[[str], tuple[str, Mapping[str, str]]]] = {
    "login": lambda email: _json(email=email, password=_WRONG),
    "token": _basic,
    "verify-email": lambda email: _json(email=email, code="000000"),
}
MAILING: Mapping[str, Callable[[str], tuple[str, Mapping[str, str]]]] = {
    "resend-verification": lambda email: _json(email=email),
    "forgot-password": lambda email: _json(email=email),
}


class Prober:
    """Asks the calls under ``url``, the prefix included, over one connection. ``timeout`` in seconds."""

    def __init__(self, url: str, timeout: float = 30) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Unreachable(f"{url} is no address of a server: write https://id.example.com/auth.")
        self._url = url
        self._path = parts.path.rstrip("/")
        make = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._connection = make(parts.hostname, parts.port, timeout=timeout)

    def ask(self, call: str, email: str) -> Sample:
        """Raises :class:`Unreachable`."""
        body, headers = {**CALLS, **MAILING}[call](email)
        before = time.perf_counter()
        try:
            self._connection.request("POST", f"{self._path}/{call}", body, dict(headers))
            answer = self._connection.getresponse()
            text = answer.read()
        except (OSError, HTTPException) as error:
            raise Unreachable(f"{self._url} does not answer: {type(error).__name__}.") from error
        seconds = time.perf_counter() - before
        if answer.status == 404:
            raise Unreachable(f"There is no call {call} at {self._url}: is the prefix right?")
        told = sorted(
            (name.lower(), _without_value(name, value))
            for name, value in answer.getheaders()
            if name.lower() not in _VARYING
        )
        return Sample(answer.status, f"{answer.status} {told} {text!r}", seconds)

    def close(self) -> None:
        self._connection.close()


def _without_value(name: str, value: str) -> str:
    """A cookie's value is another each time; its name and attributes are not."""
    return value.partition("=")[0] + value.partition(";")[2] if name.lower() == "set-cookie" else value


def made_up(known: str) -> str:
    """An address that nobody has: as long as the other, of the same domain, for nothing else is to differ."""
    local, _, domain = known.rpartition("@")
    return f"{''.join(_chance.choice(ascii_lowercase) for _ in local)}@{domain}"


def compare(prober: Prober, call: str, known: str, unknown: str, samples: int, tolerance_ms: float = 0) -> Comparison:
    """Ask ``call`` for both addresses alternately, in random order, and judge. Raises :class:`Unreachable`."""
    answers: dict[str, list[Sample]] = {known: [], unknown: []}
    for number in range(samples + _WARM_UP):
        for email in _chance.sample((known, unknown), 2):
            sample = prober.ask(call, email)
            if number >= _WARM_UP:
                answers[email].append(sample)
    return judge(call, answers[known], answers[unknown], tolerance_ms)


# -- judging ---------------------------------------------------------------------------------------


def judge(call: str, known: Sequence[Sample], unknown: Sequence[Sample], tolerance_ms: float = 0) -> Comparison:
    """What the answers show. Those that a limit or an outage gave are left out; ``tolerance_ms`` is the difference of
    the medians that nobody can use, a millisecond or five per cent where it is 0."""
    here, there = ([each for each in side if each.status not in _LIMITED] for side in (known, unknown))
    fewest = min(len(here), len(there))
    for one, other in ((here, there), (there, here)):
        if other and (strange := {each.what for each in one} - {each.what for each in other}):
            return Comparison(call, "different", f"only one of them is answered {min(strange)[:300]}", fewest)
    if fewest < _FEWEST:
        most = max(len(known), len(unknown))
        reason = f"{fewest} of {most} were judged: limits, or too few samples (it takes {_FEWEST})"
        return Comparison(call, "unclear", reason, fewest)
    times = [[each.seconds * 1000 for each in side] for side in (here, there)]
    medians = [statistics.median(side) for side in times]
    low, high = interval(*times)
    p = mann_whitney(*times)
    tolerance = tolerance_ms or max(_LEAST_MS, _LEAST_SHARE * max(medians))
    differs = p < _CERTAIN and (low > tolerance or high < -tolerance)
    reason = f"their times differ by more than {tolerance:.1f} ms" if differs else ""
    verdict: Verdict = "different" if differs else "same"
    return Comparison(call, verdict, reason, fewest, medians[0], medians[1], low, high, p)


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
    verdicts: list[Any] = [comparison.verdict for comparison in comparisons]
    return "different" if "different" in verdicts else "unclear" if "unclear" in verdicts else "same"
