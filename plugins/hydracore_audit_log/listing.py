"""``hydracore audit list``: what was kept, newest first, as a table or as a line of JSON each."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click
from pymongo.errors import PyMongoError

from hydracore.plugin import Context, NotFound, StoreUnavailable
from hydracore_audit_log.names import EVENTS, meant

Document = Mapping[str, Any]

_COLUMNS = ("at", "event", "user_id", "session_id", "network")


def audit(context: Context) -> click.Group:
    """The command group."""

    async def show(user: str, event: str, since: datetime | None, limit: int, as_json: bool) -> None:
        query: dict[str, Any] = {"expires_at": {"$gt": context.now()}}
        if user:
            query["user_id"] = await _user_id(context, user)
        if event:
            query["event"] = {"$in": [name for name, kind in EVENTS.items() if issubclass(kind, EVENTS[event])]}
        if since is not None:
            query["at"] = {"$gte": since}
        found = await _newest(context, query, limit)
        for line in _json_lines(found) if as_json else _table(found):
            click.echo(line)

    words = "Events that were kept, newest first."
    return click.Group(
        "audit",
        help="What happened.",
        commands=[click.Command("list", callback=show, params=_options(), help=words)],
    )


def _options() -> list[click.Parameter]:
    return [
        click.Option(["--user"], metavar="EMAIL", default="", help="Of this account; its id will do, too."),
        click.Option(["--event"], metavar="NAME", default="", callback=_event, help="Of this kind, as LoggedIn."),
        click.Option(["--since"], metavar="TIME", callback=_time, help="Not before 2026-01-31T12:00 (UTC)."),
        click.Option(["--limit"], type=click.IntRange(1, 10_000), default=100, show_default=True),
        click.Option(["--json", "as_json"], is_flag=True, help="A line of JSON each."),
    ]


def _event(context: click.Context, option: click.Parameter, name: str) -> str:
    if name and name not in EVENTS:
        raise click.BadParameter(f"there is no event {name!r}{meant(name)}", context, option)
    return name


def _time(context: click.Context, option: click.Parameter, text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        message = f"{text!r} is no time: write it as 2026-01-31, or 2026-01-31T12:00:00+01:00."
        raise click.BadParameter(message, context, option) from None


async def _user_id(context: Context, user: str) -> str:
    if "@" not in user:
        return user  # Of an account that was deleted nothing but its id is left.
    account = await context.find_account(user)
    if account is None:
        raise NotFound(f"No account has the address {user}.")
    return account.id


async def _newest(context: Context, query: Mapping[str, Any], limit: int) -> Sequence[Document]:
    try:
        cursor = context.collection("events").find(query, sort=[("at", -1)], limit=limit)
        found: Sequence[Document] = await cursor.to_list(limit)
    except PyMongoError as error:
        raise StoreUnavailable from error
    return found


def _json_lines(found: Iterable[Document]) -> Iterable[str]:
    for document in found:
        fields = {name: value for name, value in document.items() if name not in ("_id", "expires_at")}
        # Not as letters where they are not ASCII: a terminal might take them for its commands.
        yield json.dumps({"id": document["_id"], **fields}, default=_json)


def _json(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _table(found: Sequence[Document]) -> Iterable[str]:
    if not found:
        return
    rows = [(*_COLUMNS, "details"), *(_row(document) for document in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _row(document: Document) -> tuple[str, ...]:
    others = sorted(set(document) - {*_COLUMNS, "_id", "expires_at"})
    cells = [
        document["at"].isoformat(timespec="seconds"),
        *(str(document.get(column, "")) for column in _COLUMNS[1:]),
        " ".join(f"{name}={document[name]}" for name in others),
    ]
    return tuple("".join(letter if letter.isprintable() else "?" for letter in cell) for cell in cells)
