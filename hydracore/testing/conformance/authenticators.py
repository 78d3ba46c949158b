"""Does an authenticator vouch for the right people, and tell nobody who they are?"""

import asyncio

from hydracore.chance import token
from hydracore.plugin import Authenticator, Identity
from hydracore.testing.conformance.suite import Inapplicable, NotConforming, Suite, expect

_MANY = 50
# Addresses that the core lets through, odd as they are.
_STRANGERS = ("{0}", "*", "{0}*", "*{0}", "o'{0}", "${{ne}}|{0}", "{0}=a/b", "grüße.{0}", "{0:x>64}")
_HOSTILE = ("x" * 128, "🐍" * 128, "\0", "*", "*)(uid=*", "' OR '1'='1", "$ne", "a:b:c", "\t\r\n", " ")


class AuthenticatorSuite(Suite[Authenticator]):
    """For an :class:`~hydracore.plugin.Authenticator`. It tries addresses that nobody has and passwords that are wrong;
    where :meth:`right` knows someone, right ones too."""

    def right(self) -> tuple[str, str] | None:
        """An address and its password; None where nobody can know."""
        return None

    def work(self) -> int | None:
        """How often the costly part (a hash, a bind) was done so far; None where nobody counts."""
        return None

    async def check_vouches(self, authenticator: Authenticator) -> None:
        """The right password gets an Identity, however the address's case is written."""
        email, password = self._right()
        for written in (email, email.upper(), email.title()):
            identity = await _asked(authenticator, written, password)
            kind = type(identity).__name__
            expect(isinstance(identity, Identity), f"for {written} and the right password it returned {kind}")
            proof = getattr(identity, "email_verified", None)
            expect(isinstance(proof, bool), f"email_verified is {proof!r}, and neither True nor False")

    async def check_wrong_passwords(self, authenticator: Authenticator) -> None:
        """A password that is nearly right, or hostile, gets None."""
        email, password = self._right()
        near = (password[:-1], password + " ", " " + password, password.swapcase(), password + "\0", "")
        for wrong in (*near, *_HOSTILE):
            if wrong != password:
                await _nobody(authenticator, email, wrong)

    async def check_unknown_addresses(self, authenticator: Authenticator) -> None:
        """An address that nobody has gets None, whatever the password."""
        for password in (token(16), "", *_HOSTILE):
            await _nobody(authenticator, _stranger(), password)
        for form in _STRANGERS:
            await _nobody(authenticator, _stranger(form), token(16))

    async def check_many_at_once(self, authenticator: Authenticator) -> None:
        """Fifty at once are judged each by itself."""
        strangers = [_nobody(authenticator, _stranger(), token(16)) for _ in range(_MANY)]
        known = self.right()
        friends = [_asked(authenticator, *known) for _ in range(10)] if known else []
        # In turns, so that none of them has the first or the last word.
        identities = await asyncio.gather(*strangers[::2], *friends, *strangers[1::2])
        for identity in identities[len(strangers[::2]) :][: len(friends)]:
            expect(isinstance(identity, Identity), "among strangers the right password was refused")

    async def check_the_same_work(self, authenticator: Authenticator) -> None:
        """A known address with a wrong password and an unknown one cost the same."""
        email, _ = self._right()
        costs = []
        for who in (email, _stranger()):
            before = self.work()
            await _nobody(authenticator, who, token(16))
            after = self.work()
            if before is None or after is None:
                raise Inapplicable("nobody counts the work")
            costs.append(after - before)
        expect(costs[0] == costs[1], f"a known address costs {costs[0]}, an unknown one {costs[1]}: the time tells")

    def _right(self) -> tuple[str, str]:
        known = self.right()
        if known is None:
            raise Inapplicable("no address and password were given")
        return known


def _stranger(form: str = "{0}") -> str:
    # An address's case does not count, and a local part has 64 characters at most.
    return f"{form.format(_word(12))}@{_word(6)}.example"


def _word(size: int) -> str:
    return "".join(sign for sign in token(2 * size).lower() if sign.isalnum())[:size]


async def _nobody(authenticator: Authenticator, email: str, password: str) -> None:
    identity = await _asked(authenticator, email, password)
    expect(identity is None, f"for {email} and a wrong password it returned {type(identity).__name__}")


async def _asked(authenticator: Authenticator, email: str, password: str) -> object:
    try:
        return await authenticator.authenticate(email, password)
    except Exception as error:
        raise NotConforming(f"instead of judging {email} it raised {type(error).__name__}") from error
