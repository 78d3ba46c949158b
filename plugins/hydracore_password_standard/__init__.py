"""The policies that are always on: long enough, not the address or this service's name, not a common one.

There are no composition rules (NIST SP 800-63B-4, 3.1.1.2; OWASP ASVS 5.0, 6.2.5). ``password.min_length``
sets the length.
"""

import gzip
from importlib import resources

from hydracore.plugin import Context, PasswordPolicy, PasswordRefused, hookimpl

_SHORTEST_PART = 4
_AROUND = "0123456789!?.-_ "


class PasswordStandard:
    def __init__(self, context: Context) -> None:
        self._min_length: int = context.settings.password.min_length
        product = context.settings.mail.product.casefold()
        self._names = _cores("hydracore", product, product.replace(" ", ""))
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
        folded, address = password.casefold(), email.casefold()
        local, _, domain = address.rpartition("@")
        core = folded.strip(_AROUND)
        if address in folded or folded == local or core in _cores(local, domain, domain.partition(".")[0]):
            raise PasswordRefused("This is too much like your e-mail address. Choose another.")
        if core in self._names:
            raise PasswordRefused("This is too much like the name of this service. Choose another.")

    def refuse_common(self, password: str, email: str) -> None:
        if password.casefold() in self._common:
            raise PasswordRefused("This is among the most common passwords. Choose another.")


def _cores(*names: str) -> frozenset[str]:
    """The names without digits and signs around, those that are long enough to be told from chance."""
    return frozenset(core for name in names if len(core := name.strip(_AROUND)) >= _SHORTEST_PART)


def _load(min_length: int) -> frozenset[str]:
    packed = (resources.files(__package__ or __name__) / "common_passwords.txt.gz").read_bytes()
    lines = gzip.decompress(packed).decode("utf-8").splitlines()
    return frozenset(line for line in lines if len(line) >= min_length)
