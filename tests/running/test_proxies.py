"""HydraCore behind a proxy that ends TLS, as docs/running configures it."""

import json
import os
import re
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from http.client import HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
import trustme
from processes import LOGIN, Server, StartServer, own, program, until
from replicas import free_port

from hydracore.config import load

RUNNING = Path(__file__).parent.parent.parent / "docs/running"
HOST = "id.example.com"
CLIENT = "127.0.0.2"  # Which is not where the proxy is.

WHOLE = """
daemon off;
master_process off;
pid nginx.pid;
error_log error.log;
events {}
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include hydracore.conf;
}
"""

# Beside what the page shows: everything in this folder, and nothing on ports of others.
GLOBAL = """
{
    admin off
    auto_https disable_redirects
    storage file_system data
}
"""


class Visitor(HTTPSConnection):
    """A client of the proxy, at an address of its own."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        super().__init__(HOST, context=context, timeout=15)
        self._at, self._tls = port, context

    def connect(self) -> None:
        plain = socket.create_connection(("127.0.0.1", self._at), self.timeout, (CLIENT, 0))
        self.sock = self._tls.wrap_socket(plain, server_hostname=HOST)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[HTTPResponse, Any]:
        raw = None if body is None else json.dumps(body)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        self.request(method, path, raw, {"Content-Type": "application/json", **given})
        answer = self.getresponse()
        text = answer.read()
        return answer, json.loads(text) if text else None


def nginx(folder: Path, port: int, upstream: str) -> list[str]:
    """How nginx is started with the configuration of docs/running."""
    text = _shown(
        "nginx.conf",
        {
            "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
            "listen [::]:443 ssl": f"listen [::1]:{port} ssl",
            "/etc/ssl/id.example.com.pem": "cert.pem",
            "/etc/ssl/id.example.com.key": "key.pem",
            "server 127.0.0.1:8000": f"server {upstream}",
        },
    )
    (folder / "hydracore.conf").write_text(text)
    (folder / "nginx.conf").write_text(WHOLE)
    return [program("nginx"), "-p", f"{folder}/", "-c", "nginx.conf", "-e", "error.log"]


def caddy(folder: Path, port: int, upstream: str) -> list[str]:
    """How Caddy is; the certificate that it would get is given to it."""
    text = _shown(
        "Caddyfile",
        {
            f"{HOST} {{": f"https://{HOST}:{port} {{\n\tbind 127.0.0.1\n\ttls cert.pem key.pem",
            "reverse_proxy 127.0.0.1:8000": f"reverse_proxy {upstream.replace('unix:', 'unix/')}",
        },
    )
    (folder / "Caddyfile").write_text(GLOBAL + text)
    return [program("caddy"), "run", "--config", "Caddyfile", "--adapter", "caddyfile"]


def _shown(name: str, here: dict[str, str]) -> str:
    """A configuration of docs/running, with what is another's here."""
    text = (RUNNING / name).read_text("utf-8")
    for shown, instead in here.items():
        assert shown in text
        text = text.replace(shown, instead)
    return text


Proxy = Callable[[Path, int, str], list[str]]


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[Callable[[Proxy, str], Visitor]]:
    """Starts a proxy before a server that listens there."""
    authority = trustme.CA()
    certificate = authority.issue_cert(HOST)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    started: list[subprocess.Popen[bytes]] = []

    def start(proxy: Proxy, upstream: str) -> Visitor:
        folder, port = tmp_path / "proxy", free_port()
        folder.mkdir()
        certificate.private_key_pem.write_to_path(folder / "key.pem")
        certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
        command, home = proxy(folder, port, upstream), {**os.environ, "HOME": str(folder)}
        with (folder / "said").open("wb") as said:
            process = subprocess.Popen(command, cwd=folder, env=home, stderr=said)
        started.append(process)
        assert until(lambda: _listens(port) or process.poll() is not None)
        assert process.poll() is None, (folder / "said").read_text()
        return Visitor(port, context)

    yield start
    for process in started:
        process.terminate()
        process.wait(30)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("way", ["tcp", "unix"])
@pytest.mark.parametrize("proxy", [nginx, caddy])
def test_behind(
    start: StartServer,
    behind: Callable[[Proxy, str], Visitor],
    tmp_path: Path,
    mongod_uri: str,
    proxy: Proxy,
    way: str,
) -> None:
    """By TCP or a Unix socket: a client's address is its own, whatever it says in X-Forwarded-For, and a request's id
    is the proxy's; cookies are Secure and have __Host- names, and work; our own page's requests are taken, and others'
    are not."""
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(tmp_path / "hydracore.sock"))
    unix.listen(100)
    trusted = {"tcp": "127.0.0.1", "unix": "unix"}[way]
    with socket.create_server(("127.0.0.1", 0)) as tcp, unix:
        server: Server = start(
            handed=[("", tcp), ("", unix)],
            **own(mongod_uri, f"behind_{proxy.__name__}_{way}"),
            HYDRACORE_PUBLIC_URL=f"https://{HOST}",
            HYDRACORE_SERVER__TRUSTED_PROXIES=json.dumps([trusted]),
        )
        upstream = {"tcp": f"127.0.0.1:{server.port}", "unix": f"unix:{unix.getsockname()}"}[way]
        visitor = behind(proxy, upstream)
        lies = {"X_Forwarded_For": "203.0.113.9, 198.51.100.7", "X_Request_Id": "mine", "X_Real_IP": "203.0.113.9"}
        answer, _ = visitor.ask("POST", "/auth/register", LOGIN, Origin=f"https://{HOST}", **lies)
        assert answer.status == 201
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Request-Id"].replace("-", ""))
        cookies = answer.headers.get_all("Set-Cookie")
        assert all(re.match(r"__Host-\w+=[^;]+;.*\bSecure\b", cookie) for cookie in cookies)
        assert all("domain" not in cookie.lower() for cookie in cookies)
        jar = "; ".join(cookie.partition(";")[0] for cookie in cookies)
        proof = {"email": LOGIN["email"], "code": server.code()}
        answer, _ = visitor.ask("POST", "/auth/verify-email", proof, Cookie=jar, Origin=f"https://{HOST}")
        assert answer.status == 200
        jar = "; ".join(cookie.partition(";")[0] for cookie in answer.headers.get_all("Set-Cookie"))
        answer, body = visitor.ask("GET", "/auth/sessions", Cookie=jar, **lies)
        assert (answer.status, {each["network"] for each in body["sessions"]}) == (200, {CLIENT})
        answer, body = visitor.ask("POST", "/auth/refresh", {}, Cookie=jar, Origin="https://other.example.com")
        assert (answer.status, body["code"]) == (403, "cross_origin")
        visitor.close()


def test_who_closes_first() -> None:
    """A proxy gives up its idle connections to the server before the server does: who sends a request as the server
    closes would get a 502. nginx does so after 60 s of its own accord."""
    keepalive = re.search(r"^\s*keepalive (\d+)s$", (RUNNING / "Caddyfile").read_text("utf-8"), re.MULTILINE)
    assert keepalive
    assert "keepalive_timeout" not in (RUNNING / "nginx.conf").read_text("utf-8")
    assert max(60, int(keepalive[1])) < load(environment={}).server.idle_timeout
