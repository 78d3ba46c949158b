"""A fault that a crowd suffers, and what it is held against."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from findings import Row
from ledger import Ledger
from post import Letters
from processes import Server


@dataclass(frozen=True)
class Bounds:
    """What a fault may do at most.

    ``within`` seconds after its end everybody in the crowd has had an answer that was none of 503, without a restart;
    ``mail_within`` seconds after the last request all mail is there. ``cut`` says that connections may break, ``twice``
    how many messages may come twice, ``repeats`` that they may be written anew for it, ``unanswered`` how long the
    whole crowd together may be without an answer, ``jumps`` that access tokens may be over before their time.
    """

    within: float
    mail_within: float = 60
    cut: bool = False
    twice: int = 0
    repeats: bool = False
    jumps: bool = False
    unanswered: float | None = None


class Suffer:
    """Lets a crowd use servers while a fault happens and ends, and holds the servers to their ledger."""

    def __init__(self, name: str, letters: Letters, keep: Callable[[Row], None]) -> None:
        self._name, self._letters, self._keep = name, letters, keep

    def __call__(
        self,
        servers: list[Server],
        fault: Callable[[], Any],
        bounds: Bounds,
        *,
        people: int = 8,
        before: float = 2.0,
        after: float = 3.0,
        loyal: bool = False,
        mend: Callable[[], Any] = lambda: None,
    ) -> Ledger:
        """``fault`` returns when it has ended; ``mend`` is what an operator does before the mail is counted."""
        known: dict[Server, int] = {}

        def ports() -> list[int]:
            # Of those that have begun to listen: a test may put another one in a dead one's place.
            for server in set(servers) - set(known):
                known[server] = server.port
            return [known[server] for server in servers]

        how = {"cut": bounds.cut, "repeats": bounds.repeats, "jumps": bounds.jumps, "loyal": loyal}
        ledger = Ledger(self._name, ports, self._letters, **how)
        ledger.start(people)
        try:
            time.sleep(before)
            fault()
            ended = time.monotonic()
            while ledger.first_after(ended) > bounds.within and time.monotonic() < ended + bounds.within:
                time.sleep(0.05)
            time.sleep(after)
        finally:
            ledger.stop()
        recovered = ledger.first_after(ended)
        acknowledged, unknown, gap = ledger.acknowledged, ledger.unknown, ledger.longest_gap()
        mend()
        lost = ledger.check(mail_within=bounds.mail_within)
        self._keep(Row(self._name, acknowledged, unknown, len(lost), recovered, self._letters.twice))
        for what, found in (("wrong", ledger.wrong), ("lost", lost)):
            assert not found, "\n".join([f"{len(found)} {what}", *found[:10]])
        assert recovered <= bounds.within
        assert self._letters.twice <= bounds.twice
        assert bounds.unanswered is None or gap <= bounds.unanswered
        for server in servers:
            calm(server)
        return ledger


def calm(server: Server) -> None:
    """Nothing in the log that nobody foresaw."""
    assert server.lines("request failed") == []
    assert "Traceback" not in server.log.read_text()
