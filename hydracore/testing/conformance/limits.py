"""Does a limit backend count, exactly and for everyone?"""

import asyncio
from collections.abc import Sequence

from hydracore.chance import token
from hydracore.plugin import Count, LimitBackend
from hydracore.testing.conformance.suite import Inapplicable, Suite, closed, expect, in_a_loop

_MANY = 200
_WINDOW = 60
# A machine that is too slow for the first may be quick enough for the second.
_WINDOWS = (2, 10)
# What is left of a window may be told in whole seconds, and by callers who read their clocks at different moments.
_INEXACT = 1


class LimitBackendSuite(Suite[LimitBackend]):
    """For a :class:`~hydracore.plugin.LimitBackend`. Its keys are random and its windows short, so that it may run over
    a backend that is in use. Where the backend's time can be moved, override :meth:`wait`; it sleeps otherwise."""

    async def wait(self, seconds: float) -> None:
        """Let ``seconds`` pass for the backend."""
        await asyncio.sleep(seconds)

    async def check_counts(self, backend: LimitBackend) -> None:
        """Of 200 hits at once each sees another number, 1 to 200, in one window."""
        counts = await _many(backend, token(12), _WINDOW)
        expect(_hits(counts) == list(range(1, _MANY + 1)), f"200 hits at once were counted as {_hits(counts)}")
        for count in counts:
            within = 0 < count.resets_in < _WINDOW + _INEXACT
            expect(within, f"a window of {_WINDOW} s resets in {count.resets_in} s")

    async def check_costs(self, backend: LimitBackend) -> None:
        """A hit may cost more than one."""
        key = token(12)
        expect((await backend.hit(key, _WINDOW, 5)).hits == 5, "a hit that costs five is not counted as five")
        expect((await backend.hit(key, _WINDOW, 2)).hits == 7, "five and two are not seven")

    async def check_windows_start_with_the_first_hit(self, backend: LimitBackend) -> None:
        """A window starts with its first hit, is not made longer by later ones, and ends."""
        for window in _WINDOWS:
            if await self._in_time(backend, token(12), window):
                return
        raise Inapplicable("this machine is too slow to tell")

    async def check_restarts(self, backend: LimitBackend) -> None:
        """When a window is over, 200 hits at once start one new window together."""
        key = token(12)
        for _ in range(3):
            await backend.hit(key, 1, 1)
        await self.wait(1.2)
        counts = await _many(backend, key, _WINDOW)
        expect(_hits(counts) == list(range(1, _MANY + 1)), f"after a window's end 200 hits counted {_hits(counts)}")

    async def check_giving_back(self, backend: LimitBackend) -> None:
        """What is given back is not counted, hits and gifts at once add up, and the window stays."""
        key = token(12)
        await backend.hit(key, _WINDOW, 100)
        await asyncio.gather(*(backend.hit(key, _WINDOW, cost) for cost in [1, -1] * 50))
        count = await backend.hit(key, _WINDOW, 1)
        expect(count.hits == 101, f"100 hits, 50 more and 50 given back, and one more are {count.hits}")
        await self.wait(2)
        count = await backend.hit(key, _WINDOW, -1)
        expect(count.hits == 100, f"101 hits and one given back are {count.hits}")
        moved = count.resets_in > _WINDOW - 2 + _INEXACT
        expect(not moved, f"giving back moved the window's end to {count.resets_in} s from then")

    async def check_never_below_zero(self, backend: LimitBackend) -> None:
        """Giving back more than was counted gives nobody credit."""
        key = token(12)
        await backend.hit(key, _WINDOW, 1)
        counts = [await backend.hit(key, _WINDOW, -1) for _ in range(3)]
        counts += await asyncio.gather(*(backend.hit(key, _WINDOW, -5) for _ in range(20)))
        for count in counts:
            expect(count.hits == 0, f"given back beyond zero it stands at {count.hits}")
        expect((await backend.hit(key, _WINDOW, 1)).hits == 1, "giving back too much left credit")

    async def check_giving_back_starts_nothing(self, backend: LimitBackend) -> None:
        """Giving back where there is no window starts none."""
        key = token(12)
        expect((await backend.hit(key, 2, -1)).hits == 0, "giving back to nothing counts something")
        await self.wait(1.5)
        count = await backend.hit(key, 2, 1)
        expect(count.hits == 1, f"after giving back to nothing the first hit is counted as {count.hits}")
        expect(count.resets_in >= 1, "giving back to nothing started a window")

    async def check_giving_back_to_many(self, backend: LimitBackend) -> None:
        """Where the backend gives back to many keys at once, it does so exactly: to each of them one, to no other, to
        none below zero, and where there is no window it starts none."""
        if backend.give_back is None:
            raise Inapplicable("it gives back to one key at a time")
        mark = token(6)
        keys = [f"{mark}{number}" for number in range(100)]
        for cost, key in enumerate(keys[:-1]):
            await backend.hit(key, _WINDOW, cost + 1)
        await backend.hit(keys[0], _WINDOW, -1)
        await asyncio.gather(*(backend.give_back(keys[:-2]) for _ in range(2)), backend.give_back([keys[-1]]))
        counts = [await backend.hit(key, _WINDOW, 1) for key in keys]
        right = [1, 1, *range(2, 98), 100, 1]
        hits = [count.hits for count in counts]
        expect(hits == right, f"given back to many keys, the next hits are {hits} and not {right}")

    async def check_keys_are_apart(self, backend: LimitBackend) -> None:
        """Each key has its own counter, whatever characters it has."""
        mark = token(6)
        odd = ("", "a", "A", "a:1", "a.b", "$a", "a b", "a\0b", "ä", "a*", "{a}", "a" * 150, "a" * 150 + "b")
        keys = [mark + key for key in odd]
        for cost, key in enumerate(keys, 1):
            await backend.hit(key, _WINDOW, cost)
        for cost, key in enumerate(keys, 1):
            count = await backend.hit(key, _WINDOW, 1)
            expect(count.hits == cost + 1, f"the key {key!r} shares its counter with another")

    async def check_cancelled(self, backend: LimitBackend) -> None:
        """Hits that are cancelled on their way leave the backend usable, and are counted once at most."""
        key = token(12)
        hits = [asyncio.ensure_future(backend.hit(key, _WINDOW, 1)) for _ in range(20)]
        for number, hit in enumerate(hits):
            # A few at a time: at the start, and in the middle of what they do.
            await asyncio.sleep(0.0005 * (number % 4 == 0))
            hit.cancel()
        answers = await asyncio.gather(*hits, return_exceptions=True)
        answered = [answer.hits for answer in answers if isinstance(answer, Count)]
        count = await backend.hit(key, _WINDOW, 1)
        expect(len(set(answered)) == len(answered), f"hits among cancelled ones were counted as {answered}")
        expect(
            len(answered) < count.hits <= len(hits) + 1,
            f"after 20 hits, of which {len(answered)} were answered, one more is counted as {count.hits}",
        )
        expect((await backend.hit(key, _WINDOW, 1)).hits == count.hits + 1, "it goes on counting what was cancelled")

    async def check_other_loops(self, backend: LimitBackend) -> None:
        """Closed and made again in another event loop it counts: nothing of the first loop's is held on to."""
        for _ in range(2):
            await asyncio.to_thread(in_a_loop, self._once())

    async def _once(self) -> None:
        backend, key = self.another(), token(12)
        try:
            await asyncio.gather(*(backend.hit(key, _WINDOW, 1) for _ in range(20)))
            count = await backend.hit(key, _WINDOW, 1)
            expect(count.hits == 21, f"in an event loop of its own, 21 hits are counted as {count.hits}")
        finally:
            await closed(backend)

    async def _in_time(self, backend: LimitBackend, key: str, window: int) -> bool:
        """Look at one window; False where this machine stood still for so long that nothing follows from it."""
        loop = asyncio.get_running_loop()
        began, early = loop.time(), 0.6 * window
        await backend.hit(key, window, 1)
        await self.wait(early)
        count = await backend.hit(key, window, 1)
        passed = loop.time() - began + (0 if type(self).wait is LimitBackendSuite.wait else early)
        if count.hits != 2 and passed >= window:
            return False
        expect(count.hits == 2, f"within the window the second hit is counted as {count.hits}")
        moved = count.resets_in > window - early + _INEXACT
        expect(not moved, f"a later hit moved the window's end to {count.resets_in} s from then")
        await self.wait(window - early + 0.2)
        count = await backend.hit(key, window, 1)
        expect(count.hits == 1, f"after the window's end a hit is counted as {count.hits}")
        return True


async def _many(backend: LimitBackend, key: str, window: int) -> Sequence[Count]:
    counts = await asyncio.gather(*(backend.hit(key, window, 1) for _ in range(_MANY)))
    for count in counts:
        expect(isinstance(count, Count), f"a hit returned {count!r}, which is no Count")
    return counts


def _hits(counts: Sequence[Count]) -> list[int]:
    return sorted(count.hits for count in counts)
