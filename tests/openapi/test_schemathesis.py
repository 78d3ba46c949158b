"""What schemathesis finds: nothing."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path
from typing import Any

import pytest
from administering import OWN, Desk, both
from support import OpenSite, Site

from hydracore.plugin import events, hookimpl

HERE = Path(__file__).parent
# Wrong passwords at an owner's calls count as those at sign-ins, and it signs in again once its session has ended.
LIMITS = {"enabled": True, "login_address_network": "1000/300", "register_network": "1/3600"}


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
    told = await asked_by(site, tmp_path, "/openapi.json", "schemathesis.toml", phases, examples)
    assert "25 selected / 25 total" in told
    assert (events.Limited in listener.heard) == limits


@pytest.mark.gen_test(timeout=600)
async def test_the_admin_api(open_site: OpenSite, tmp_path: Path) -> None:
    """Every check holds for every call of the Admin API, too, by a token that may do all."""
    desk = Desk(await open_site(both, store=OWN))
    token = await desk.make_token()
    phases, environment = "examples,coverage,fuzzing", {"ADMIN_TOKEN": token}
    told = await asked_by(desk.site, tmp_path, "/admin/openapi.json", "admin.toml", phases, 5, **environment)
    assert "25 selected / 25 total" in told
    assert {entry.action for entry in await desk.entries()} >= {"users.create", "users.search", "keys.rotate"}


async def asked_by(
    site: Site, folder: Path, document: str, config: str, phases: str, examples: int, **environment: str
) -> str:
    """What schemathesis tells, which has found nothing."""
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / config)]
    options = ["--checks", "all", "--phases", phases, "--max-examples", str(examples), "--continue-on-failure"]
    asking = await asyncio.create_subprocess_exec(
        *command,
        "run",
        f"{site.url}{document}",
        *options,
        "--no-color",
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(HERE), **environment},
        stdout=PIPE,
        stderr=STDOUT,
    )
    told, _ = await asking.communicate()
    assert asking.returncode == 0, told.decode()
    return told.decode()
