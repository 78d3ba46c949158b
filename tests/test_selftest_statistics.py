"""The statistics behind ``hydracore selftest``."""

import random
from collections.abc import Mapping

import pytest

from hydracore.selftest import Comparison, Sample, TooShort, differences, interval, judge, made_up, mann_whitney, worst

# Permeability of the human chorioamnion at term and at 12 to 26 weeks: Hollander and Wolfe, Nonparametric Statistical
# Methods, 1973, page 69. U = 35, and R's wilcox.test(exact = FALSE) gives p = 0.1223 for one side.
TERM = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46]
WEEKS = [1.15, 0.88, 0.90, 0.74, 1.21]


@pytest.mark.parametrize(
    ("one", "other", "p"),
    [
        # U = 0, its mean 4.5, its spread the root of 9 * 7 / 12; z = 4 / 2.2913 with the continuity corrected.
        ([1, 2, 3], [4, 5, 6], 0.0809),
        # Ranks 1, 3, 3, 6 of ties of three each: U = 3, mean 8, variance 16 / 12 * (9 - 48 / 56); z = 4.5 / 3.2950.
        ([1, 2, 2, 3], [2, 3, 3, 4], 0.1720),
        (TERM, WEEKS, 2 * 0.1223),
        ([5, 5, 5], [5, 5, 5], 1.0),
        ([1, 4], [2, 3], 1.0),
        ([7, 8, 9], [7, 8, 9], 1.0),
    ],
)
def test_mann_whitney(one: list[float], other: list[float], p: float) -> None:
    """As worked out by hand or in the literature; which sample is which does not matter, nor do scale and order."""
    assert mann_whitney(one, other) == pytest.approx(p, abs=0.0002)
    assert mann_whitney(other, one) == pytest.approx(mann_whitney(one, other))
    assert mann_whitney([value * 3 - 40 for value in reversed(one)], [value * 3 - 40 for value in other]) == (
        pytest.approx(mann_whitney(one, other))
    )


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
    assert -3 < interval(other, one)[0] < interval(other, one)[1] < -1
    assert interval([4.0] * 30, [4.0] * 30) == (0, 0)


def samples(count: int, milliseconds: float, spread: float = 0.2, status: int = 401, **parts: str) -> list[Sample]:
    chance = random.Random(count)  # noqa: S311  # for statistics
    said: Mapping[str, str] = {"status": str(status), "body": "b'no'", **parts}
    return [Sample(status, said, chance.gauss(milliseconds, spread) / 1000) for _ in range(count)]


def test_times() -> None:
    """Medians that are apart by more than the tolerance differ; within it they are the same."""
    alike = judge("login", samples(40, 30), samples(41, 30), 40)
    assert (alike.verdict, alike.reason, alike.samples) == ("same", "", 40)
    slower = judge("login", samples(40, 40), samples(41, 30), 40)
    assert (slower.verdict, slower.reason) == ("different", "their times differ by more than 1.0 ms")
    assert 9 < slower.low < 10 < slower.high < 11
    assert judge("login", samples(40, 40), samples(41, 30), 40, tolerance_ms=20).verdict == "same"
    assert judge("login", samples(40, 30), samples(41, 40), 40).verdict == "different"
    # Two per cent of 200 ms are 4: 3 are within, 6 beyond.
    assert judge("login", samples(40, 203), samples(41, 200), 40).verdict == "same"
    assert judge("login", samples(40, 206), samples(41, 200), 40).verdict == "different"


def test_what_the_samples_cannot_tell() -> None:
    """Times that surely differ, by perhaps more and perhaps less than the tolerance, are unclear."""
    found = judge("login", samples(40, 40, 6), samples(41, 30, 6), 40, tolerance_ms=10)
    assert found.low < 10 < found.high
    assert found.p < 0.01
    assert (found.verdict, "ask more" in found.reason) == ("unclear", True)


def test_what_is_too_wide() -> None:
    """Times that differ by chance alone, as far as can be told, are the same only where all of the interval is within
    the tolerance: with a wider one they are unclear, until more is asked."""
    few = judge("login", samples(25, 30, 20), samples(26, 31, 20), 25, tolerance_ms=2)
    assert few.p > 0.01
    assert few.low < -2
    assert few.high > 2
    assert (few.verdict, "cannot tell whether their times differ by more than 2.0 ms: ask more" in few.reason) == (
        "unclear",
        True,
    )
    assert judge("login", samples(25, 30, 20), samples(26, 31, 20), 25, tolerance_ms=40).verdict == "same"
    assert judge("login", samples(2500, 30, 2), samples(2501, 30, 2), 2500, tolerance_ms=2).verdict == "same"
    # One end is enough.
    lopsided = judge("login", samples(40, 31, 3), samples(41, 30, 3), 40, tolerance_ms=2)
    assert lopsided.p > 0.01
    assert -2 < lopsided.low < 2 < lopsided.high
    assert lopsided.verdict == "unclear"


def test_limited() -> None:
    """What a limit answered is left out; what is left can show a difference, but never that all is the same."""
    limited = [*samples(5, 30), *samples(55, 1, status=429)]
    few = judge("login", limited, limited, 60)
    assert (few.verdict, few.samples) == ("unclear", 5)
    assert "5 of 60" in few.reason
    enough = judge("login", samples(40, 30), samples(41, 30), 60)
    assert (enough.verdict, "40 of 60" in enough.reason) == ("unclear", True)
    assert judge("login", samples(40, 40), samples(41, 30), 60).verdict == "different"
    assert judge("login", samples(3, 30), samples(3, 30, body="b'yes'"), 60).verdict == "different"
    assert judge("login", samples(10, 30), samples(10, 30), 10).reason == "10 are too few (it takes 20)"
    assert judge("login", [], [], 60).verdict == "unclear"


def test_what_is_not_this_api() -> None:
    """Answers that no wrong password gets say nothing, however alike they are."""
    found = judge("login", samples(40, 30, status=500), samples(40, 30, status=500), 40)
    assert (found.verdict, found.reason) == ("unclear", "both are answered 500, where this API says 401")
    assert judge("forgot-password", samples(40, 30, status=200), samples(40, 30, status=200), 40).verdict == "same"


def test_what_differs_is_named() -> None:
    """A part that one of them alone is answered is named with its side, its count and nothing unprintable."""
    telling = samples(3, 30, body="\x1b[31m\x9b\u202eyes", **{"header x-known": "yes"})
    assert differences(telling, samples(4, 30)) == [
        "body for the known: \\x1b[31m\\x9b\\u202eyes (3 of 3)",
        "body for the unknown: b'no' (4 of 4)",
        "header x-known for the known: yes (3 of 3)",
        "header x-known for the unknown: none (4 of 4)",
    ]
    once = [*samples(3, 30), *samples(1, 30, status=500)]
    assert differences(samples(4, 30), once) == ["status for the unknown: 500 (1 of 4)"]
    assert len(differences(samples(4, 30, body="x" * 9999), samples(4, 30))[0]) < 200


def test_what_is_always_another() -> None:
    """A header that no two answers share is a proxy's number, unless one of them alone has it; a body is compared."""

    def numbered(name: str, first: int) -> list[Sample]:
        return [sample for number in range(first, first + 9) for sample in samples(1, 30, **{name: str(number)})]

    assert differences(numbered("header cf-ray", 0), numbered("header cf-ray", 9)) == []
    assert len(differences(numbered("header cf-ray", 0), samples(9, 30))) == 2
    assert len(differences(numbered("body", 0), numbered("body", 9))) == 2


@pytest.mark.parametrize(
    "known", ["ada.lovelace@example.com", "0123456789@example.com", "zoëzoëzoë@example.com", f"{'x' * 64}@example.com"]
)
def test_made_up(known: str) -> None:
    """Made-up addresses are as many bytes as the known one, of its domain, never itself, and others each time."""
    made = {made_up(known) for _ in range(200)}
    assert known not in made
    assert {len(each.encode()) for each in made} == {len(known.encode())}
    assert {each.partition("@")[2] for each in made} == {"example.com"}
    assert len(made) == 200


@pytest.mark.parametrize("known", ["a@example.com", "bob@example.com", "123456789@example.com", "zoëzoë@example.com"])
def test_what_may_be_somebodys(known: str) -> None:
    """No address is made up that is so short that it may be somebody's."""
    with pytest.raises(TooShort, match="--unknown"):
        made_up(known)


def test_worst() -> None:
    """One difference is enough, and one that is unclear says so."""
    same, different, unclear = (Comparison("x", verdict, "", 1) for verdict in ("same", "different", "unclear"))
    assert worst([same, same]) == "same"
    assert worst([same, unclear]) == "unclear"
    assert worst([unclear, different, same]) == "different"
