"""What every command shares: sentences and exit codes for what goes wrong, tables for what is listed."""

import json
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any, ParamSpec

import click

from hydracore.errors import HydraError, StartupError, ValidationFailed
from hydracore.server import STARTUP_FAILED

P = ParamSpec("P")


class Failed(click.ClickException):
    """A sentence on standard error, and exit code 1."""

    def show(self, file: Any = None) -> None:
        click.echo(f"hydracore: {self.message}", err=True)


class NotStarted(Failed):
    """What the operator has to put right first."""

    exit_code = STARTUP_FAILED


def says_why(command: Callable[P, None]) -> Callable[P, None]:
    """Turn what a command raises into a sentence and an exit code."""

    @wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except StartupError as error:
            raise NotStarted(str(error)) from error
        except ValidationFailed as error:
            raise Failed(" ".join(problem.msg for problem in error.problems)) from error
        except HydraError as error:
            raise Failed(error.detail) from error

    return guarded


def show(rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    """Rows as JSON, or as a table for people."""
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    elif rows:
        _table(list(rows[0]), ([_cell(value) for value in row.values()] for row in rows))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(value) if isinstance(value, list) else str(value)
