"""The statistics behind ``hydracore selftest``."""

import random

import pytest

from hydracore.selftest import Comparison, Sample, interval, judge, mann_whitney, worst


@pytest.mark.parametrize(
    ("one", "other", "p"),
    [
        # U = 0, its mean 4.5, its spread the root of 9 * 7 / 12; z = 4 / 2.2913 with the continuity corrected.
        ([1, 2, 3], [4, 5, 6], 0.0809),
        # Ranks 1, 3, 3, 6 of ties of three each: U = 3, mean 8, variance 16 / 12 * (9 - 48 / 56); z = 4.5 / 3.2950.
        ([1, 2, 2, 3], [2, 3, 3, 4], 0.1720),
        ([5, 5, 5], [5, 5, 5], 1.0),
        ([1, 4], [2, 3], 1.0),
    ],
)
def test_mann_whitney(one: list[float], other: list[float], p: float) -> None:
    """As worked out by hand; which sample is which does not matter."""
    assert mann_whitney(one, other) == pytest.approx(p, abs=0.0002)
    assert mann_whitney(other, one) == pytest.approx(mann_whitney(one, other))


def test_it_is_fair() -> None:
    """Of five hundred pairs of samples from one source about one in a hundred has a p below 0.01."""
    chance = random.Random(1)  # noqa: S311  # for statistics
    below = sum(
        mann_whitney(*([chance.lognormvariate(1, 0.5) for _ in range(30)] for _ in range(2))) < 0.01 for _ in range(500)
    )
    assert below <= 15


def test_interval() -> None:
    """The interval holds the difference, is the same each time, and turns with the sides."""
    chance = random.Random(2)  # noqa: S311  # for statistics
    one = [chance.gauss(12, 1) for _ in range(80)]
    other = [chance.gauss(10, 1) for _ in range(80)]
    low, high = interval(one, other)
    assert 1 < low < high < 3
    assert interval(one, other) == (low, high)
    assert interval(other, one)[0] < -1


def samples(count: int, milliseconds: float, what: str = "401", status: int = 401) -> list[Sample]:
    chance = random.Random(count)  # noqa: S311  # for statistics
    return [Sample(status, what, chance.gauss(milliseconds, 0.2) / 1000) for _ in range(count)]


def test_verdicts() -> None:
    """Answers first, then times; what a limit answered is left out, and too little is unclear."""
    alike = judge("login", samples(40, 30), samples(41, 30))
    assert (alike.verdict, alike.reason) == ("same", "")
    slower = judge("login", samples(40, 40), samples(41, 30))
    assert slower.verdict == "different"
    assert 9 < slower.low < 10 < slower.high < 11
    assert judge("login", samples(40, 40), samples(41, 30), tolerance_ms=20).verdict == "same"
    assert judge("login", samples(40, 30), samples(41, 40)).verdict == "different"
    other = judge("login", samples(40, 30), samples(41, 30, "401 other"))
    assert (other.verdict, "401 other" in other.reason or "401" in other.reason) == ("different", True)
    limited = [*samples(5, 30), *samples(55, 1, "429", 429)]
    few = judge("login", limited, limited)
    assert (few.verdict, few.samples) == ("unclear", 5)
    assert "5 of 60" in few.reason
    assert judge("login", [], []).verdict == "unclear"


def test_worst() -> None:
    """One difference is enough, and one that is unclear says so."""
    same, different, unclear = (Comparison("x", verdict, "", 1) for verdict in ("same", "different", "unclear"))
    assert worst([same, same]) == "same"
    assert worst([same, unclear]) == "unclear"
    assert worst([unclear, different, same]) == "different"
