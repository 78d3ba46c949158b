"""Registration for some domains only."""

from typing import Any

import pytest

from hydracore.plugin import ChangeRefused, RegistrationRefused, StartupError


@pytest.mark.parametrize("email", ["ada@example.com", "ada@EXAMPLE.com", "ada@exämple.org", "ada@xn--exmple-cua.org"])
async def test_its_domains_may_register(make: Any, email: str) -> None:
    """Addresses of the configured domains pass, in any case and in either form of an international name."""
    plugin = make("register_domains", domains=["Example.COM", "EXÄMPLE.org"])
    await plugin.hydracore_before_register(email)
    await plugin.hydracore_before_change_email(email)


@pytest.mark.parametrize(
    "email",
    [
        "ada@example.org",
        "ada@sub.example.com",
        "ada@notexample.com",
        "ada@example.com.evil.org",
        "example.com@evil.org",
        "ada@straße.de",
        "ada@",
        "ada",
        "",
    ],
)
async def test_others_may_not(make: Any, email: str) -> None:
    """Any other domain is refused: subdomains, look-alikes, and what only an older standard took for the same."""
    plugin = make("register_domains", domains=["example.com", "strasse.de"])
    with pytest.raises(RegistrationRefused):
        await plugin.hydracore_before_register(email)
    with pytest.raises(ChangeRefused):
        await plugin.hydracore_before_change_email(email)


async def test_no_domain_nobody(make: Any) -> None:
    """Without a domain nobody may register: it fails closed."""
    with pytest.raises(RegistrationRefused):
        await make("register_domains").hydracore_before_register("ada@example.com")


@pytest.mark.parametrize("domain", ["@example.com", "*.example.com", "exam ple.com", "."])
def test_what_is_no_domain_stops_the_start(make: Any, domain: str) -> None:
    """A value that is no domain's name is told to the operator, with the key's name and the value."""
    with pytest.raises(StartupError, match=r"plugins\.register_domains\.domains") as raised:
        make("register_domains", domains=["example.com", domain])
    assert repr(domain) in str(raised.value)


async def test_it_is_asked(open_site: Any) -> None:
    """Enabled in a HydraCore, it answers 403 registration_refused to other domains, and lets its own in."""
    site = await open_site(plugins={"enabled": ["register_domains"], "register_domains": {"domains": ["example.com"]}})
    await site.register("ada@example.com")
    answer = await site.post("register", {"email": "eve@example.org", "password": "correct horse battery"})
    assert answer.code == 403
    assert b"registration_refused" in answer.body


async def test_nor_by_a_change(open_site: Any) -> None:
    """Nobody changes to an address of another domain."""
    site = await open_site(plugins={"enabled": ["register_domains"], "register_domains": {"domains": ["example.com"]}})
    held = {"Authorization": f"Bearer {(await site.verified())['access_token']}"}
    body = {"password": "correct horse battery staple", "email": "ada@example.org"}
    answer = await site.post("change-email", body, **held)
    assert (answer.code, b"change_refused" in answer.body) == (403, True)
    assert (await site.post("change-email", {**body, "email": "countess@example.com"}, **held)).code == 200
