"""Who may do what from where."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from support import PASSWORD, OpenSite, refused, tokens
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_unix_socket

from hydracore.plugin import LoginRefused, RegistrationRefused, ResetRefused, StartupError

EMAIL = "ada@example.com"
CREDENTIALS = {"email": EMAIL, "password": PASSWORD}


async def passes(plugin: Any, network: str) -> bool:
    try:
        await plugin.hydracore_before_register(network)
    except RegistrationRefused:
        return False
    return True


@pytest.mark.parametrize(
    ("allow", "deny", "network", "may"),
    [
        ([], [], "203.0.113.7", True),
        ([], [], "2001:db8::/64", True),
        ([], [], "local", True),
        (["203.0.113.7"], [], "203.0.113.7", True),
        (["203.0.113.7"], [], "203.0.113.8", False),
        (["203.0.113.0/24"], [], "203.0.113.255", True),
        (["203.0.113.0/24"], [], "203.0.114.0", False),
        (["203.0.113.9/24"], [], "203.0.113.200", True),
        (["203.0.113.0/24", "198.51.100.0/24"], [], "198.51.100.1", True),
        (["203.0.113.0/24"], [], "2001:db8::/64", False),
        (["0.0.0.0/0"], [], "2001:db8::/64", False),
        (["::/0"], [], "203.0.113.7", False),
        (["2001:db8::/32"], [], "2001:db8:ffff:ffff::/64", True),
        (["2001:db8::/64"], [], "2001:db8::/64", True),
        (["2001:db8::/64"], [], "2001:db8:0:1::/64", False),
        (["::ffff:203.0.113.0/120"], [], "203.0.113.7", True),
        (["::ffff:0:0/96"], [], "203.0.113.7", True),
        ([], ["203.0.113.0/24"], "203.0.113.7", False),
        ([], ["203.0.113.0/24"], "203.0.112.7", True),
        ([], ["203.0.113.0/24"], "2001:db8::/64", True),
        ([], ["2001:db8::/32"], "2001:db8:1:2::/64", False),
        ([], ["2001:db8::bad"], "2001:db8::/64", False),
        ([], ["2001:db8::bad"], "2001:db8:0:1::/64", True),
        ([], ["::ffff:203.0.113.7"], "203.0.113.7", False),
        (["10.0.0.0/8"], ["10.9.0.0/16"], "10.9.1.1", False),
        (["10.0.0.0/8"], ["10.9.0.0/16"], "10.8.1.1", True),
        (["10.9.1.1"], ["10.0.0.0/8"], "10.9.1.1", False),
        (["127.0.0.1"], [], "local", True),
        (["10.0.0.0/8"], [], "local", False),
        ([], ["127.0.0.0/8"], "local", False),
        (["::/64"], [], "local", False),
        ([], ["127.0.0.1"], "0.0.0.0", False),  # noqa: S104  # nothing listens there
    ],
)
async def test_who_may(make: Any, allow: list[str], deny: list[str], network: str, may: bool) -> None:
    """Denied is denied, then who is not allowed is refused; versions do not meet; a Unix socket is 127.0.0.1."""
    assert await passes(make("networks", allow=allow, deny=deny), network) is may


@pytest.mark.parametrize("key", ["allow", "deny"])
@pytest.mark.parametrize(
    "entry",
    ["example.com", "203.0.113", "203.0.113.7/33", "203.0.113.07", " 203.0.113.7", "local", "fe80::1%eth0", "/"],
)
def test_what_is_no_network_stops_the_start(make: Any, key: str, entry: str) -> None:
    """An entry that is no network is told to the operator, with the key and the entry."""
    with pytest.raises(StartupError, match=rf"plugins\.networks\.{key} ") as raised:
        make("networks", **{key: ["10.0.0.0/8", entry]})
    assert repr(entry) in str(raised.value)


def test_what_would_let_nobody_in_stops_the_start(make: Any) -> None:
    """An allowed part of a /64 could never be the client's network: the message says what to write."""
    with pytest.raises(StartupError, match=r"plugins\.networks\.allow .*'2001:db8::1'.*'2001:db8::/64'"):
        make("networks", allow=["2001:db8::1"])


@pytest.mark.parametrize("wrong", [{"for": ["refresh"]}, {"allow": "10.0.0.0/8"}, {"deny": [10]}, {"permit": []}])
def test_wrong_keys_stop_the_start(make: Any, wrong: dict[str, Any]) -> None:
    """The section is checked: unknown moments, types and keys."""
    with pytest.raises(StartupError, match=r"plugins\.networks"):
        make("networks", **wrong)


@pytest.mark.parametrize("network", ["", "unknown", "2001:db8::1/64", "1.2.3.4, 5.6.7.8"])
async def test_what_cannot_be_judged_does_not_pass(make: Any, network: str) -> None:
    """A network that is none is a failure, which the core answers with 503, and never a yes."""
    with pytest.raises(ValueError, match=r"network|host bits"):
        await passes(make("networks", deny=["10.0.0.0/8"]), network)


@pytest.mark.parametrize("guarded", [[], ["register"], ["login"], ["reset"], ["login", "reset"]])
async def test_only_what_is_named_is_guarded(make: Any, guarded: list[str]) -> None:
    """``for`` says which moments are guarded, and the others are open to a denied network."""
    plugin = make("networks", deny=["0.0.0.0/0"], **{"for": guarded})
    moments = {
        "register": (plugin.hydracore_before_register, RegistrationRefused),
        "login": (plugin.hydracore_before_login, LoginRefused),
        "reset": (plugin.hydracore_before_reset_password, ResetRefused),
    }
    for name, (ask, refusal) in moments.items():
        if name in guarded:
            with pytest.raises(refusal):
                await ask("203.0.113.7")
        else:
            await ask("203.0.113.7")


async def test_a_denied_client(open_site: OpenSite) -> None:
    """A denied network is refused at each moment with one sentence, the mailed token stays good, others go on."""
    networks = {"deny": ["2001:db8:bad::/48"]}
    site = await open_site(
        server={"trusted_proxies": ["127.0.0.1"]}, plugins={"enabled": ["networks"], "networks": networks}
    )
    await site.verified()
    denied, welcome = {"X_Forwarded_For": "2001:db8:bad:1::7"}, {"X_Forwarded_For": "2001:db8:900d::7"}
    told = {
        refused(
            await site.post("register", {"email": who, "password": PASSWORD}, **denied), 403, "registration_refused"
        )
        for who in (EMAIL, "new@example.com")
    }
    assert told == {"Registration is not open to your network."}
    said = refused(await site.post("login", CREDENTIALS, **denied), 403, "login_refused")
    assert said == "Signing in is not open to your network."
    wrong = {**CREDENTIALS, "password": "another password"}
    refused(await site.post("login", wrong, **denied), 401, "invalid_credentials")
    tokens(await site.post("login", CREDENTIALS, **welcome))
    await site.post("forgot-password", {"email": EMAIL}, **denied)
    body = {"token": await site.box.reset_token(EMAIL), "new_password": "a new and much longer one"}
    said = refused(await site.post("reset-password", body, **denied), 403, "reset_refused")
    assert said == "Setting a password is not open to your network."
    assert (await site.post("reset-password", body, **welcome)).code == 200


async def test_who_is_signed_in_stays_so(open_site: OpenSite) -> None:
    """A session goes on where signing in is denied."""
    networks = {"allow": ["10.0.0.0/8"], "for": ["login"]}
    site = await open_site(
        server={"trusted_proxies": ["127.0.0.1"]}, plugins={"enabled": ["networks"], "networks": networks}
    )
    first = await site.register()
    tokens(await site.post("refresh", {"refresh_token": first["refresh_token"]}))
    refused(await site.post("login", CREDENTIALS), 403, "login_refused")
    tokens(await site.post("login", CREDENTIALS, X_Forwarded_For="10.1.2.3"))


@pytest.mark.parametrize(("deny", "status"), [(["127.0.0.1"], 403), (["10.0.0.0/8"], 201)])
async def test_over_a_unix_socket(open_site: OpenSite, tmp_path: Path, deny: list[str], status: int) -> None:
    """Who comes over a Unix socket is judged as 127.0.0.1."""
    site = await open_site(plugins={"enabled": ["networks"], "networks": {"deny": deny}})
    server = HTTPServer(site.hydra.application())
    server.add_socket(bind_unix_socket(str(tmp_path / "socket")))
    body = json.dumps(CREDENTIALS).encode()
    head = f"POST /auth/register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    reader, writer = await asyncio.open_unix_connection(tmp_path / "socket")
    try:
        writer.write(head.encode() + b"\r\n\r\n" + body)
        line = await reader.readline()
    finally:
        writer.close()
        await writer.wait_closed()
        server.stop()
        await server.close_all_connections()
    assert line.split()[1:2] == [str(status).encode()]
