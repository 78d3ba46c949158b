"""The policies that are always on: long enough, not the address or this service's name, not a common one.

There are no composition rules (NIST SP 800-63B-4, 3.1.1.2; OWASP ASVS 5.0, 6.2.5). ``password.min_length``
sets the length.
"""

import gzip
from importlib import resources

from hydracore.plugin import Context, PasswordPolicy, PasswordRefused, hookimpl

_SHORTEST_PART = 4


class PasswordStandard:
    def __init__(self, context: Context) -> None:
        self._min_length: int = context.settings.password.min_length
        self._product: str = context.settings.mail.product.casefold()
        self._common = _load(self._min_length)

    @hookimpl
    def hydracore_register_password_policies(self) -> list[PasswordPolicy]:
        return [
            PasswordPolicy("length", self.refuse_short),
            PasswordPolicy("context", self.refuse_context),
            PasswordPolicy("common", self.refuse_common),
        ]

    def refuse_short(self, password: str, email: str) -> None:
        """Counted in code points, once normalised."""
        if len(password) < self._min_length:
            raise PasswordRefused(f"This should have at least {self._min_length} characters.")

    def refuse_context(self, password: str, email: str) -> None:
        """What anyone would try first: the address, its parts, this service's name, with digits or signs around."""
        core = password.casefold().strip("0123456789!?.-_ ")
        local, _, domain = email.casefold().rpartition("@")
        obvious = {part for part in (local, domain, domain.partition(".")[0]) if len(part) >= _SHORTEST_PART}
        if email.casefold() in password.casefold() or core in obvious:
            raise PasswordRefused("This is too much like your e-mail address. Choose another.")
        if core in {self._product, "hydracore"}:
            raise PasswordRefused("This is too much like the name of this service. Choose another.")

    def refuse_common(self, password: str, email: str) -> None:
        if password.casefold() in self._common:
            raise PasswordRefused("This is among the most common passwords. Choose another.")


def _load(min_length: int) -> frozenset[str]:
    packed = (resources.files(__package__ or __name__) / "common_passwords.txt.gz").read_bytes()
    lines = gzip.decompress(packed).decode("utf-8").splitlines()
    return frozenset(line for line in lines if len(line) >= min_length)
