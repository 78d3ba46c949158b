"""Checks of a deployment, from outside."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from hydracore.addresses import parse_address
from hydracore.cli.output import NotStarted, says_why, show
from hydracore.config import load
from hydracore.selftest import CALLS, MAILING, Comparison, Prober, Unreachable, compare, made_up, worst

_EXIT = {"same": 0, "different": 1, "unclear": 3}


@click.group()
def selftest() -> None:
    """Checks of a running deployment."""


@selftest.command()
@click.argument("url", required=False)
@click.option("--known", required=True, metavar="EMAIL", help="An address that has an account.")
@click.option("--unknown", metavar="EMAIL", help="One that has none; made up unless given.")
@click.option("--mail", is_flag=True, help="Ask resend-verification and forgot-password too: they mail --known.")
@click.option("--samples", type=click.IntRange(1, 100_000), default=60, show_default=True, help="Of each address.")
@click.option("--tolerance-ms", type=click.FloatRange(min=0), default=0, help="A difference that nobody can use.")
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
@says_why
def enumeration(
    file: Path | None,
    url: str | None,
    known: str,
    unknown: str | None,
    *,
    mail: bool,
    samples: int,
    tolerance_ms: float,
    as_json: bool,
) -> None:
    """Whether public calls tell who has an account.

    URL is that of the auth API, https://id.example.com/auth; without one, the configuration's. Each call is asked for
    both addresses in turn, with wrong passwords and codes: that counts as failed attempts, and where limits.* stop them
    too few are left to judge. Ask from a network, or a node, whose limits are wide.

    Ends with 0 where all answers and times are the same, 1 where some differ, 3 where it cannot say.
    """
    config = load(file)
    url = url or f"http://{config.server.host}:{config.server.port}{config.server.prefix}"
    try:
        known = parse_address(known).email
        unknown = parse_address(unknown or made_up(known)).email
        prober = Prober(url)
    except (ValueError, Unreachable) as error:
        raise NotStarted(str(error)) from error
    calls = [*CALLS, *(MAILING if mail else ())]
    click.echo(f"Asking {url} {samples} times for each address and each of {', '.join(calls)} …", err=True)
    try:
        found = [compare(prober, call, known, unknown, samples, tolerance_ms) for call in calls]
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
                click.echo(f"{each.call}: {json.dumps(each.reason)[1:-1]}")
    sys.exit(_EXIT[worst(found)])


def _row(found: Comparison) -> dict[str, object]:
    return {
        "call": found.call,
        "verdict": found.verdict,
        "samples": found.samples,
        "known": f"{found.known_ms:.2f} ms",
        "unknown": f"{found.unknown_ms:.2f} ms",
        "difference": f"{found.low:+.2f} to {found.high:+.2f} ms",
        "p": f"{found.p:.3f}",
    }
