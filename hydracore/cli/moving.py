"""Accounts out of files and into them."""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from tempfile import mkstemp
from typing import Any, TextIO

import click

from hydracore.cli.data import admin_of, with_hydra
from hydracore.cli.output import Failed, says_why
from hydracore.core import HydraCore
from hydracore.errors import HashingOverloaded, StoreUnavailable
from hydracore.flows.importing import BATCH, Import, Report
from hydracore.moving.formats import NotReadable
from hydracore.moving.lines import line_of
from hydracore.moving.sources import NAMES, HashConfig, Mapped, mapped, sources

_PAGE = 1000


@click.command("import")
@click.argument("source", metavar="FILE", type=click.File("rb"))
@click.option("--from", "origin", type=click.Choice(NAMES), default=None, help="Whose export it is, if not ours.")
@click.option("--hash-config", type=click.File("r"), help="A Firebase project's password hash parameters.")
@click.option("--verified", is_flag=True, help="Take all addresses for proven.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
@click.pass_obj
@says_why
def users_import(
    file: Path | None,
    source: BufferedReader,
    origin: str | None,
    hash_config: TextIO | None,
    *,
    verified: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Import accounts from a file of JSON lines, or from another's export.

    FILE may be - for standard input. What is there already is left as it is: after an interruption, run it again. Ends
    with 0 if every account of the file is there now, 1 if some are not, or differ.
    """
    parameters = _hash_config(hash_config)
    reports: list[Report] = []

    async def work(hydra: HydraCore) -> None:
        services = hydra.services
        kind = sources(services.now, parameters)[origin or ""]
        lines = mapped(kind.read(source), kind, services.registry.members, verified=verified)
        async with admin_of(hydra).doing("users.import", origin=origin or "ours", dry_run=dry_run) as told:
            with _bar(source) as bar, Import(services, _tell, dry=dry_run) as run:
                reports.append(run.report)
                await _take(run, lines, bar)
                _warn(await run.price(), services.settings.password.hash_timeout)
            told["imported"] = run.report.imported

    try:
        with_hydra(work, file)
    except NotReadable as error:
        done = reports[0].imported if reports else 0
        told = f" Before that: {done} imported." if done and not dry_run else ""
        raise Failed(f"{source.name}: {error}{told}") from error
    report = reports[0]
    _show(report, dry_run=dry_run, as_json=as_json)
    sys.exit(0 if report.whole else 1)


@click.command("export")
@click.argument("target", metavar="[FILE]", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.pass_obj
@says_why
def users_export(file: Path | None, target: Path | None) -> None:
    """Export all accounts as JSON lines, oldest first, with the hashes of their passwords.

    users import takes them back. FILE must not be there yet, and is for its owner alone; without one they go to
    standard output.
    """

    async def work(hydra: HydraCore) -> None:
        store, last, count = hydra.services.store.users, None, 0
        with _written(target) as out:
            async with admin_of(hydra).doing("users.export") as told:
                while page := await store.page(last, _PAGE):
                    out.writelines(line_of(user) + "\n" for user in page)
                    last, count = page[-1], count + len(page)
                told["exported"] = count
        click.echo(f"Exported {count}.", err=True)

    with_hydra(work, file)


def _hash_config(file: TextIO | None) -> HashConfig | None:
    try:
        return HashConfig.parse(file.read()) if file else None
    except ValueError as error:
        raise Failed(f"--hash-config: {error}") from error


async def _take(run: Import, lines: Iterable[Mapped], bar: Any) -> None:
    for batch in _batches(lines):
        try:
            await run.take(batch)
        except (StoreUnavailable, HashingOverloaded) as error:
            away = isinstance(error, StoreUnavailable)
            why = "The database does not answer." if away else "No hash is made within password.hash_timeout."
            raise Failed(f"{why} All before {batch[0].place} is done: run the import again.") from error
        bar.update(batch[-1].upto - bar.pos)


def _batches(lines: Iterable[Mapped]) -> Iterator[Sequence[Mapped]]:
    """Where the file breaks off in the middle of one, what was read of it comes first."""
    batch: list[Mapped] = []
    try:
        for line in lines:
            batch.append(line)
            if len(batch) == BATCH:
                yield batch
                batch = []
    except NotReadable:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _bar(source: BufferedReader) -> Any:
    """On a terminal, and where it is known how much there is."""
    size = os.fstat(source.fileno()).st_size if source.seekable() else 0
    return click.progressbar(length=size, file=sys.stderr, hidden=not (size and sys.stderr.isatty()))


def _tell(problem: str) -> None:
    click.echo(problem, err=True)


def _warn(price: float, timeout: int) -> None:
    if price > timeout / 4:
        longer = f"{price:.1f} s longer" if price < timeout else "longer than password.hash_timeout and is refused"
        _tell(f"Every sign-in takes {longer}, until the owners of these accounts have signed in: password.equalise.")


def _show(report: Report, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({**vars(report), "dry_run": dry_run}, indent=2, ensure_ascii=False))
        return
    told = {
        "read": report.read,
        "would be imported" if dry_run else "imported": report.imported,
        "there already": report.there,
        "of these differ": report.differing,
        "refused": report.refused,
    }
    if report.no_accounts:
        told["no accounts"] = report.no_accounts
    for name, number in told.items():
        click.echo(f"{name:17}  {number}")
    _count("password hashes", report.passwords)
    _count("left out", report.left_out)
    _count("unknown roles", report.unknown_roles)


def _count(what: str, counted: dict[str, int]) -> None:
    if counted:
        click.echo(f"{what:17}  {', '.join(f'{name} {number}' for name, number in sorted(counted.items()))}")


@contextmanager
def _written(target: Path | None) -> Iterator[TextIO]:
    if target is None:
        yield sys.stdout
        return
    try:
        # Its name is taken at once, and says nothing until all is there: half an export would pass for a whole one.
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise Failed(f"{target} cannot be written: {error.strerror}.") from error
    descriptor, draft = mkstemp(prefix=f"{target.name}.", dir=target.parent)  # For its owner alone.
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            yield out
            out.flush()
            os.fsync(descriptor)
        Path(draft).replace(target)
    except BaseException as error:
        Path(draft).unlink()
        target.unlink()
        if isinstance(error, OSError):
            raise Failed(f"{target} cannot be written: {error.strerror}.") from error
        raise
