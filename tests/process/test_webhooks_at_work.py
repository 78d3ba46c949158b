"""Webhooks at work: the receiver that docs/webhooks.md shows, a server that is killed, the commands."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from processes import PASSWORD, StartServer, own, settings, until
from pymongo import MongoClient
from receivers import SECRET
from replicas import free_port
from test_readme import prints, steps

from hydracore.cli import main

DOCS = (Path(__file__).parent.parent.parent / "docs/webhooks.md").read_text("utf-8")


@dataclass
class Shown:
    """The receiver of the documents, as it is printed there."""

    folder: Path
    port: int

    @property
    def heard(self) -> str:
        return (self.folder / "heard").read_text()

    def configured(self, uri: str, database: str) -> dict[str, str]:
        (self.folder / "secret").write_text(f"{SECRET}\n")
        variable = "HYDRACORE_WEBHOOKS__ENDPOINTS__CRM__"
        crm = {
            f"{variable}URL": f"http://127.0.0.1:{self.port}/",
            f"{variable}SECRET_FILE": f"{self.folder / 'secret'}",
        }
        return own(uri, database, **crm)

    def answers(self, signature: str) -> int:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=15)
        try:
            head = {"webhook-id": "x", "webhook-timestamp": "1", "webhook-signature": signature}
            connection.request("POST", "/", b"{}", head)
            return connection.getresponse().status
        finally:
            connection.close()


@pytest.fixture
def shown(tmp_path: Path) -> Iterator[Shown]:
    port = free_port()
    [program] = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
    (tmp_path / "receiver.py").write_text(program.replace("9000", str(port)))
    with (tmp_path / "heard").open("wb") as heard:
        process = subprocess.Popen(
            [sys.executable, str(tmp_path / "receiver.py")],
            env=settings(WEBHOOK_SECRET=SECRET),
            stdout=heard,
            stderr=subprocess.DEVNULL,
        )
    yield Shown(tmp_path, port)
    process.kill()
    process.wait()


def test_killed_between_the_answer_and_the_webhook(shown: Shown, start: StartServer, mongod_uri: str) -> None:
    """What was acknowledged by a server that was killed at once is told by the next one, and what is not signed is
    refused."""
    configured = shown.configured(mongod_uri, "webhooks_killed")
    server = start(**configured)
    server.register()
    os.killpg(server.process.pid, signal.SIGKILL)
    server.process.wait()
    with MongoClient[dict[str, Any]](mongod_uri) as client:
        # What it was sending when it was killed is its own for webhooks.timeout and 30 s more: those are over.
        client["webhooks_killed"]["deliveries"].update_many({}, {"$set": {"due_at": datetime.now(UTC)}})
    start(**configured)
    assert until(lambda: "user.registered {'user_id': '" in shown.heard, 60)
    assert shown.heard.count("user.registered") == 1
    assert shown.answers("v1,c29tZXRoaW5nIGVsc2U=") == 401


def test_the_commands(shown: Shown, mongod_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands that docs/webhooks.md shows print what it shows; what the command line does is told by the server,
    and can be listed, sent again and replayed."""
    for name, value in {**shown.configured(mongod_uri, "webhooks_commands"), **settings()}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("hydracore.cli.data.configure", lambda *how: None)  # The logs are the tests'.

    def run(command: str, stdin: str = "") -> tuple[int, str]:
        done = CliRunner().invoke(main, shlex.split(command)[1:], input=stdin)
        return done.exit_code, done.output

    assert until(lambda: run("hydracore webhooks send-test crm")[0] == 0)
    assert "webhook.test {'webhook': 'crm'}" in shown.heard
    for block in re.findall(r"```console\n(.*?)```", DOCS, re.DOTALL):
        for command, text in steps(block):
            code, printed = run(command)
            assert code == 0
            assert prints(text, printed), command
    assert run("hydracore users create ada@example.com --password-stdin --verified", f"{PASSWORD}\n")[0] == 0
    [waiting] = json.loads(run("hydracore webhooks list --json")[1])
    assert (waiting["state"], waiting["type"], waiting["webhook"]) == ("waiting", "user.registered", "crm")
    assert run("hydracore webhooks list --webhook crm")[1].splitlines()[1].startswith(waiting["id"])
    assert run(f"hydracore webhooks retry {waiting['id']}") == (0, "1 due now.\n")
    assert run("hydracore webhooks retry --all --since 2100-01-01") == (0, "0 due now.\n")
    assert run("hydracore webhooks retry --all --webhook crm") == (0, "1 due now.\n")
    assert run("hydracore webhooks replay crm") == (0, "0 due now.\n")
    assert run("hydracore webhooks retry nothing")[0] == 1
    assert run("hydracore webhooks retry")[0] == 2
    assert run("hydracore webhooks retry x --webhook crm")[0] == 2
    assert "known: crm" in run("hydracore webhooks send-test nobody")[1]
    found = json.loads(run("hydracore admin audit --json")[1])
    done = [f"{entry['action']}:{entry['outcome']}" for entry in found if entry["action"].startswith("webhooks.")]
    assert list(reversed(done))[-7:] == [
        *("webhooks.list:done", "webhooks.list:done", "webhooks.retry:done", "webhooks.retry_all:done"),
        *("webhooks.retry_all:done", "webhooks.replay:done", "webhooks.retry:not_found"),
    ]
    assert "webhooks.send_test:done" in done
    assert run("hydracore check-config")[1].count("webhooks  crm\n") == 1
    monkeypatch.setenv("HYDRACORE_WEBHOOKS__ENDPOINTS__CRM__URL", "http://127.0.0.1:1/")
    code, printed = run("hydracore webhooks send-test crm")
    assert (code, "crm did not answer" in printed) == (1, True)
