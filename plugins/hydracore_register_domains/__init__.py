"""Lets only addresses of certain domains register: ``[plugins.register_domains] domains = ["example.com"]``."""

from hydracore.plugin import Context, RegistrationRefused, StartupError, hookimpl


class RegisterDomains:
    def __init__(self, context: Context) -> None:
        try:
            self._domains = {_ascii(domain) for domain in context.config["domains"]}
        except UnicodeError as error:
            raise StartupError(f"plugins.register_domains.domains: not a domain's name ({error}).") from error

    @hookimpl
    async def hydracore_before_register(self, email: str) -> None:
        if _ascii(email.rpartition("@")[2]) not in self._domains:
            raise RegistrationRefused


def _ascii(domain: str) -> str:
    return domain.lower().encode("idna").decode("ascii")
