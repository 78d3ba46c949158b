"""Checks of a deployment, from outside."""

import sys
from dataclasses import asdict
from pathlib import Path

import click

from hydracore.addresses import parse_address
from hydracore.cli.output import NotStarted, says_why, show
from hydracore.config import load
from hydracore.selftest import CALLS, Comparison, Prober, TooShort, Unreachable, compare, made_up, worst

_EXIT = {"same": 0, "different": 1, "unclear": 3}


@click.group()
def selftest() -> None:
    """Checks of a running deployment."""


def _named(context: click.Context, option: click.Parameter, value: str | None) -> list[str]:
    names = [name.strip() for name in (value or "").split(",") if name.strip()]
    if strange := [name for name in names if name not in CALLS]:
        raise click.BadParameter(f"{', '.join(strange)}: the calls are {', '.join(CALLS)}.")
    return list(dict.fromkeys(names))


@selftest.command()
@click.argument("url", required=False)
@click.option("--known", required=True, metavar="EMAIL", help="An address that has an account.")
@click.option(
    "--unknown",
    metavar="EMAIL",
    help="One that has none, best as long as the other; others are made up each time unless given.",
)
@click.option(
    "--calls", metavar="CALL,…", callback=_named, help=f"Of {', '.join(CALLS)}; those that mail none unless given."
)
@click.option("--mail", is_flag=True, help="Ask resend-verification and forgot-password too: they mail --known.")
@click.option("--samples", type=click.IntRange(1, 100_000), default=60, show_default=True, help="Of each address.")
@click.option(
    "--tolerance-ms",
    type=click.FloatRange(min=0),
    default=0,
    help="A difference that nobody can use; 2 % of the median or 1 ms, whichever is more, unless given.",
)
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
@says_why
def enumeration(
    file: Path | None,
    url: str | None,
    known: str,
    unknown: str | None,
    calls: list[str],
    *,
    mail: bool,
    samples: int,
    tolerance_ms: float,
    as_json: bool,
) -> None:
    """Whether public calls tell who has an account.

    URL is that of the auth API, https://id.example.com/auth; without a path the configuration's prefix is added, and
    without a URL it is the configuration's. Each call is asked for both addresses in turn, with wrong passwords and
    codes.

    That causes failed attempts for the known address, and uses up a code that it waits for; forgot-password and
    resend-verification mail it. Where limits.* answer 429 too few are left to judge: ask from a network that they
    leave alone, or a node whose limits are wide.

    Made-up addresses are random, as long as the known one and of its domain. One that is short may be somebody's, so a
    known one with fewer than 10 characters before the @ demands --unknown.

    Ends with 0 where all answers and times are the same, 1 where some differ, 2 where there is something to put right
    first, 3 where it cannot say.
    """
    config = load(file)
    host = f"[{config.server.host}]" if ":" in config.server.host else config.server.host
    try:
        asked = parse_address(known)
        other = parse_address(unknown) if unknown else None
        prober = Prober(url or f"http://{host}:{config.server.port}", config.server.prefix)
    except (ValueError, Unreachable) as error:
        raise NotStarted(str(error)) from error
    if other and other.key == asked.key:
        raise NotStarted("--known and --unknown are the same address.")
    if other is None:
        _can_be_made_up(asked.email)
    calls = calls or [name for name, call in CALLS.items() if mail or not call.mails]
    _say_beforehand(prober.url, asked.email, calls, samples)
    try:
        stranger = other.email if other else None
        found = [compare(prober, call, asked.email, stranger, samples, tolerance_ms) for call in calls]
    except Unreachable as error:
        raise NotStarted(str(error)) from error
    finally:
        prober.close()
    if as_json:
        show([asdict(each) for each in found], as_json=True)
    else:
        show([_row(each) for each in found], as_json=False)
        for each in found:
            if each.reason:
                click.echo(f"{each.call}: {each.reason}.")
    sys.exit(_EXIT[worst(found)])


def _can_be_made_up(known: str) -> None:
    try:
        made_up(known)
    except TooShort as error:
        raise NotStarted(str(error)) from error


def _say_beforehand(url: str, known: str, calls: list[str], samples: int) -> None:
    click.echo(f"Asking {url} {samples} times for each address and each of {', '.join(calls)} …", err=True)
    if any(not CALLS[call].mails for call in calls):
        click.echo(f"This causes failed attempts for {known}, and uses up a code that it waits for.", err=True)
    if mailing := [call for call in calls if CALLS[call].mails]:
        click.echo(f"{' and '.join(mailing)} will mail {known}, as often as limits.* allow.", err=True)


def _row(found: Comparison) -> dict[str, object]:
    timed = found.known_ms > 0
    return {
        "call": found.call,
        "verdict": found.verdict,
        "samples": found.samples,
        "known": f"{found.known_ms:.2f} ms" if timed else "-",
        "unknown": f"{found.unknown_ms:.2f} ms" if timed else "-",
        "difference": f"{found.low:+.2f} to {found.high:+.2f} ms" if timed else "-",
        "p": f"{found.p:.3f}" if timed else "-",
    }
