"""A quick HTTP client for benchmarks, and the server that they ask."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

BODY = '{"email": "ada@example.com", "password": "correct horse battery staple"}'


class Server:
    """``hydracore serve`` on a port, over a database that is there, without limits and mail."""

    def __init__(self, folder: Path, uri: str, database: str, port: int, **environment: str) -> None:
        self.port = port
        settings = {
            **os.environ,
            "HYDRACORE_STORE__URI": uri,
            "HYDRACORE_STORE__DATABASE": database,
            "HYDRACORE_SECRET": "a-secret-of-the-benchmark-that-is-long-enough",
            "HYDRACORE_MAIL__ALLOW_UNDELIVERED": "true",
            "HYDRACORE_DATA_DIR": str(folder / database),
            "HYDRACORE_LIMITS__ENABLED": "false",
            "HYDRACORE_LOG__LEVEL": "error",
            **environment,
        }
        command = [sys.executable, "-m", "hydracore", "serve", "--port", str(port)]
        self.process = subprocess.Popen(command, env=settings, cwd=folder)  # noqa: S603  # our own server

    async def ready(self) -> None:
        for _ in range(200):
            try:
                status, _ = await ask(self.port, "GET", "/health/ready")
            except OSError:
                status = 0
            if status == 200:
                return
            await asyncio.sleep(0.05)
        raise SystemExit("the server does not start")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


async def ask(port: int, method: str, path: str, body: str = "", token: str = "") -> tuple[int, bytes]:
    """One request on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(written(method, path, body, token))
    status, answer = await read(reader)
    writer.close()
    return status, answer


def written(method: str, path: str, body: str = "", token: str = "") -> bytes:
    bearer = f"Authorization: Bearer {token}\r\n" if token else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{bearer}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


async def read(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    return int(head.split(b" ", 2)[1]), await reader.readexactly(int(length.partition(b":")[2]))
