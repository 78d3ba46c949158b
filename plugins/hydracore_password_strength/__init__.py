"""Refuses passwords that are easy to guess, by the estimate of zxcvbn: words, names, dates, rows of keys, repeats.

::

    [plugins]
    enabled = ["password_strength"]

    [plugins.password_strength]
    min_score = 3

It needs the library zxcvbn-rs-py (``pip install "hydracore[strength]"``) and asks no service. The score goes from 0 to
4; the address, its parts and this service's name count as words that anyone would try. The sentence says what makes
the password weak and what would help.

The library holds Python's lock while it computes, so a thread alone would not spare the others. It reads 100
characters itself, in some milliseconds; but each further kind of sign that can stand for a letter, as ``@`` for ``a``,
multiplies its work. A password with many kinds is judged by its beginning alone. That lets no weak one through that
matters: who guesses the whole has guessed the beginning.
"""

import re

from hydracore.plugin import Context, PasswordPolicy, PasswordRefused, StartupError, hookimpl
from hydracore_password_strength.sentences import sentences

try:
    from zxcvbn_rs_py import zxcvbn
except ImportError as error:
    raise StartupError(
        "The plugin password_strength needs the library zxcvbn-rs-py, which is not installed: "
        'pip install "hydracore[strength]".'
    ) from error

_PARTS = re.compile(r"[\W_]+")
# Shorter ones are in many good passwords by chance.
_SHORTEST_NAME = 3
# Measured: with so many kinds 100 characters take 20 ms, and so does a beginning with all of them.
_MANY_KINDS = 6
_BEGINNING = 24
_LONGEST = 100
_STANDING_FOR_LETTERS = frozenset("4@8({[<369!1|70$5+%2")


class PasswordStrength:
    def __init__(self, context: Context) -> None:
        self._min_score: int = context.config["min_score"]
        product: str = context.settings.mail.product
        self._names = ["hydracore", product, product.replace(" ", ""), *_PARTS.split(product)]

    @hookimpl
    def hydracore_register_password_policies(self) -> list[PasswordPolicy]:
        return [PasswordPolicy("strength", self.check)]

    def check(self, password: str, email: str) -> None:
        local, _, domain = email.rpartition("@")
        names = [email, local, domain, domain.partition(".")[0], *_PARTS.split(email), *self._names]
        estimate = zxcvbn(_bounded(password), [name for name in names if len(name) >= _SHORTEST_NAME])
        if int(estimate.score) < self._min_score:
            raise PasswordRefused(" ".join(["This is too easy to guess.", *sentences(estimate.feedback)]))


def _bounded(password: str) -> str:
    kinds = len(_STANDING_FOR_LETTERS.intersection(password))
    return password[: _LONGEST if kinds <= _MANY_KINDS else _BEGINNING]
