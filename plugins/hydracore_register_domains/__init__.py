"""Lets only addresses of certain domains register: ``[plugins.register_domains] domains = ["example.com"]``.

A domain means itself, not its subdomains. With none at all nobody may register. Nor may an account change to an address
of another domain; one that has such an address keeps it.
"""

import idna

from hydracore.plugin import ChangeRefused, Context, RegistrationRefused, StartupError, hookimpl


class RegisterDomains:
    def __init__(self, context: Context) -> None:
        self._domains = {_configured(domain) for domain in context.config["domains"]}

    @hookimpl
    async def hydracore_before_register(self, email: str) -> None:
        if not self._takes(email):
            raise RegistrationRefused

    @hookimpl
    async def hydracore_before_change_email(self, email: str) -> None:
        if not self._takes(email):
            raise ChangeRefused

    def _takes(self, email: str) -> bool:
        try:
            return _ascii(email.rpartition("@")[2]) in self._domains
        except UnicodeError:
            return False


def _configured(domain: str) -> str:
    try:
        return _ascii(domain)
    except UnicodeError as error:
        raise StartupError(
            f"plugins.register_domains.domains has {domain!r}, which is no domain's name: write them as example.com."
        ) from error


def _ascii(domain: str) -> str:
    # IDNA 2008, as the addresses are judged. Python's own codec is IDNA 2003, to which straße.de is
    # strasse.de, another owner's domain.
    return idna.encode(domain, uts46=True).decode("ascii")
