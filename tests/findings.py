"""What the faults of a run have shown, and the table of it."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import pytest

_NAME = "fault"


@dataclass(frozen=True)
class Row:
    """What one fault has shown."""

    fault: str
    acknowledged: int
    unknown: int
    lost: int
    recovered: float
    twice: int


def keep(test: pytest.Item, row: Row) -> None:
    """With the test's report, which reaches the end of the run from whichever process it ran in."""
    test.user_properties.append((_NAME, asdict(row)))


def kept(reports: Iterable[Any]) -> list[Row]:
    """What the tests have shown that were reported."""
    called = (report for report in reports if isinstance(report, pytest.TestReport) and report.when == "call")
    return [Row(**value) for report in called for name, value in report.user_properties if name == _NAME]


def table(rows: list[Row]) -> Iterator[str]:
    """The lines to show."""
    width = max(len(row.fault) for row in rows)
    yield f"{'fault':{width}}  acknowledged  unknown  lost  recovered  mails twice"
    for row in sorted(rows, key=lambda row: row.fault):
        counts = f"{row.acknowledged:12}  {row.unknown:7}  {row.lost:4}"
        yield f"{row.fault:{width}}  {counts}  {row.recovered:7.1f} s  {row.twice:11}"
    together = [sum(getattr(row, name) for row in rows) for name in ("acknowledged", "unknown", "lost")]
    yield f"{'together':{width}}  {together[0]:12}  {together[1]:7}  {together[2]:4}"
