"""Does a password policy judge, and nothing else?"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence

from hydracore.chance import token
from hydracore.plugin import NewPassword, PasswordPolicy, PasswordRefused
from hydracore.testing.conformance.suite import NotConforming, Suite, expect

_EMAIL = "ada.lovelace@example.com"
_HOSTILE = (
    "x" * 128,
    "🐍" * 128,
    "\0" * 8,
    "a\u0308" * 64,
    "\u202eright to left\u202c",
    "' OR 1=1; --",
    "{{ 7 * 7 }}",
    "$where: 1",
    "\t\n\r\x0b\x0c\x1b[31m",
    "correct horse battery staple",
    "        ",
)
# A sentence may well use them.
_WORDS = ("password",)
_WEAK = (*_WORDS, "12345678", "qwertyuiop", "aaaaaaaa", _EMAIL, "iloveyou")


class PasswordPolicySuite(Suite[PasswordPolicy]):
    """For a :class:`~hydracore.plugin.PasswordPolicy`. It asks for verdicts, and sets no password."""

    async def check_long_random_ones(self, policy: PasswordPolicy) -> None:
        """A long random password is accepted: there are no rules of composition (NIST SP 800-63B-4)."""
        for _ in range(5):
            verdict = await _verdict(policy, token(32))
            expect(verdict == "", f"32 random bytes were refused: {verdict}")

    async def check_hostile_ones(self, policy: PasswordPolicy) -> None:
        """Whatever its characters, a password is judged: accepted or refused, and no other exception."""
        for password in _HOSTILE:
            await _verdict(policy, password)

    async def check_verdicts_are_the_same(self, policy: PasswordPolicy) -> None:
        """The same password gets the same verdict, alone and among others."""
        passwords = [*_HOSTILE, *_WEAK]
        first = [await _verdict(policy, password) for password in passwords]
        again: Sequence[str] = await asyncio.gather(*(_verdict(policy, password) for password in passwords))
        for password, one, other in zip(passwords, first, again, strict=True):
            expect(one == other, f"the verdict on {password!r} was {one!r} and then {other!r}")

    async def check_sentences(self, policy: PasswordPolicy) -> None:
        """What a refusal says is a sentence for the user, and does not repeat the password."""
        for password in (*_WEAK, *_HOSTILE, token(8)):
            verdict = await _verdict(policy, password)
            if verdict:
                expect(len(verdict) > 3 and verdict[-1] in ".!?", f"{verdict!r} is no sentence")
                expect(not _repeats(verdict, password), "the sentence repeats the password")


def _repeats(sentence: str, password: str) -> bool:
    word = password.strip().casefold()
    return bool(word) and word not in _WORDS and word in sentence.casefold()


async def _verdict(policy: PasswordPolicy, password: str) -> str:
    """The refusal's sentence; "" for an accepted one."""
    try:
        answer = await _judged(policy, password)
    except PasswordRefused as refusal:
        expect(bool(str(refusal)), "a refusal says nothing")
        return str(refusal)
    except Exception as error:
        raise NotConforming(f"instead of judging {password!r} it raised {type(error).__name__}") from error
    expect(answer is None, "its verdict is returned, which nobody looks at: a policy raises PasswordRefused")
    return ""


async def _judged(policy: PasswordPolicy, password: str) -> object:
    if policy.judge is not None:
        judge: Callable[[NewPassword], Awaitable[object]] = policy.judge
        return await judge(NewPassword(password, _EMAIL))
    if policy.check is None:
        raise NotConforming("it has neither a check nor a judge")
    check: Callable[[str, str], object] = policy.check
    answer = await asyncio.to_thread(check, password, _EMAIL)
    if inspect.iscoroutine(answer):
        answer.close()  # It was never awaited, nor would it be.
    return answer
