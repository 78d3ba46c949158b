"""Accounts of elsewhere, and a way in for them."""

from collections.abc import Mapping
from typing import Any

from support import Site

from hydracore.flows.importing import Import, Report
from hydracore.moving.sources import Mapped

# The one that Openwall publishes with its bcrypt.
IMPORTED_PASSWORD = "U*U"
BCRYPT = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"


async def imported(site: Site, *lines: Mapping[str, Any], dry: bool = False) -> tuple[Report, list[str]]:
    """What became of the lines, and what was told of them."""
    told: list[str] = []
    with Import(site.hydra.services, told.append, dry=dry) as run:
        await run.take([Mapped(f"line {number}", line) for number, line in enumerate(lines, 1)])
    return run.report, told
