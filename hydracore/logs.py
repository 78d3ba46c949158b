"""Logs: structlog's events through the standard library's loggers.

A module asks :func:`logger` and never configures anything, so a host application's logging stays
its own. ``hydracore serve`` alone calls :func:`configure`. No password, code, token, cookie or
Authorization header is ever given to a logger.
"""

import logging
import sys
from datetime import datetime
from typing import Any, TextIO

import structlog


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """A structured logger over ``logging.getLogger(name)``: the event is the message, the rest are its extras."""
    bound: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.render_to_log_kwargs,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        context_class=dict,
    )
    return bound


def configure(level: str, style: str, stream: TextIO | None = None) -> None:
    """Send every log of this process to ``stream`` (standard error), as ``style`` says:
    ``text``, ``json``, or ``auto``, which is text on a terminal."""
    stream = stream or sys.stderr
    text = style == "text" or (style == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(text, colours=stream.isatty()))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    logging.getLogger("tornado.general").addFilter(_without_what_was_sent)
    # One line a request is ours (web.base); these say the same again, or each command of a driver.
    logging.getLogger("tornado.access").disabled = True
    for chatty in ("pymongo", "asyncio", "aiosmtplib"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _without_what_was_sent(record: logging.LogRecord) -> bool:
    # Tornado quotes the header that it could not read, which may hold a token.
    if record.msg.startswith("Malformed HTTP message") and isinstance(record.args, tuple):
        record.msg, record.args = "Malformed HTTP message from %s", record.args[:1]
    return True


def _formatter(text: bool, colours: bool) -> logging.Formatter:
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if text:
        last: list[Any] = [
            structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)
        ]
    else:
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=_plain)]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )


def _plain(value: object) -> str:
    """What JSON has no form for: a time as RFC 3339 has it, anything else as Python shows it."""
    return value.isoformat() if isinstance(value, datetime) else repr(value)
