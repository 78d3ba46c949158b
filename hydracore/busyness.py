"""How much one process has on its hands."""

import asyncio
from collections import deque
from dataclasses import dataclass

_EVERY = 0.1
_KEPT = 100


@dataclass(frozen=True)
class Load:
    """``loop_lag``: how much later than asked the event loop got to something, in seconds, at worst in the last ten
    seconds. ``requests`` are being answered; ``hashes`` run, wait, or have a place kept; ``hashes_refused`` found no
    room, or no time, since the start."""

    loop_lag: float
    requests: int
    hashes: int
    hashes_refused: int


class LoopLag:
    """Measures the running loop's lag, by sleeping."""

    def __init__(self) -> None:
        self._late: deque[float] = deque(maxlen=_KEPT)

    @property
    def longest(self) -> float:
        """Of the last ten seconds, in seconds."""
        return max(self._late, default=0.0)

    async def measure(self) -> None:
        """Until cancelled."""
        time = asyncio.get_running_loop().time
        while True:
            due = time() + _EVERY
            await asyncio.sleep(_EVERY)
            self._late.append(max(0.0, time() - due))
