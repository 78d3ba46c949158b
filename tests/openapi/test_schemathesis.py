"""What schemathesis finds: nothing."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path
from typing import Any

import pytest
from support import OpenSite

from hydracore.plugin import events, hookimpl

HERE = Path(__file__).parent
# Wrong passwords at an owner's calls count as those at sign-ins, and it signs in again once its session has ended.
LIMITS = {"enabled": True, "login_address_network": "1000/300", "register_network": "3/3600"}


class Listener:
    """Hears whether a limit was reached."""

    def __init__(self) -> None:
        self.heard: set[type[events.Event]] = set()

    def plugin(self, context: Any) -> Any:
        return self

    @hookimpl
    async def hydracore_on_event(self, event: events.Event) -> None:
        self.heard.add(type(event))


@pytest.mark.gen_test(timeout=600)
@pytest.mark.parametrize(
    ("limits", "phases", "examples"), [(False, "examples,coverage,fuzzing", 10), (True, "fuzzing", 5)]
)
async def test_schemathesis(open_site: OpenSite, tmp_path: Path, limits: bool, phases: str, examples: int) -> None:
    """Every check of schemathesis holds for every call, those of a plugin too, with limits and without."""
    listener = Listener()
    site = await open_site(
        extra={"listener": listener.plugin},
        plugins={"enabled": ["invites"], "invites": {"required": False, "per_user": 1000}},
        limits=LIMITS if limits else {"enabled": False},
    )
    await site.verified("grace@example.com")
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml")]
    options = ["--checks", "all", "--phases", phases, "--max-examples", str(examples), "--continue-on-failure"]
    asking = await asyncio.create_subprocess_exec(
        *command,
        "run",
        f"{site.url}/openapi.json",
        *options,
        "--no-color",
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(HERE)},
        stdout=PIPE,
        stderr=STDOUT,
    )
    told, _ = await asking.communicate()
    assert asking.returncode == 0, told.decode()
    assert "25 selected / 25 total" in told.decode()
    assert (events.Limited in listener.heard) == limits
