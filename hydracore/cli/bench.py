"""Measurements of this machine."""

from dataclasses import replace
from pathlib import Path

import click

from hydracore.calibration import EQUIVALENTS, LEAST_MEMORY_KIB, Build, Measured, build, measure, sustaining
from hydracore.cli.output import Failed, says_why, show
from hydracore.config import load
from hydracore.passwords import HashCost
from hydracore.threads import cores

_BUILDS: dict[Build, str] = {
    "generic": "a generic build: one made for this machine is faster (docs/performance.md, make native)",
    "AVX2": "built for processors with AVX2",
    "unknown": "of a build that cannot be told",
}


@click.group()
def bench() -> None:
    """Measurements of this machine."""


@bench.command("hash")
@click.option("--seconds", type=click.FloatRange(0.1, 60), default=2, show_default=True, help="For each measurement.")
@click.option("--sustain", type=click.FloatRange(0.1), metavar="N", help="What to set for N sign-ins a second.")
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
@says_why
def bench_hash(file: Path | None, seconds: float, sustain: float | None, *, as_json: bool) -> None:
    """What a password's hash costs here, and what the machine can sustain.

    The first row is what [password] says; the others are as strong by OWASP's count. Measure while the machine does
    nothing else. A worker hashes in password.hash_threads threads, and all workers share the cores.
    """
    chosen = load(file).password
    threads = chosen.hash_threads or cores()
    configured = HashCost(chosen.memory_kib, chosen.time_cost, chosen.parallelism)
    if not as_json:
        click.echo(f"argon2id in {threads} threads, {_BUILDS[build()]}", err=True)
    others = [cost for cost in EQUIVALENTS if cost != configured]
    measured = [measure(cost, threads, seconds) for cost in (configured, *others)]
    show([_row(each, as_json=as_json) for each in measured], as_json)
    if sustain is not None:
        _advise(measure(EQUIVALENTS[1], threads, seconds), sustain, threads)


def _row(measured: Measured, *, as_json: bool) -> dict[str, object]:
    cost = measured.cost
    numbers = {"a hash, ms": measured.alone, "a second": measured.rate, "memory, MiB": measured.memory_mib}
    return {
        "memory_kib": cost.memory_kib,
        "time_cost": cost.time_cost,
        "parallelism": cost.parallelism,
        **{name: round(value, 1) for name, value in numbers.items()},
        **({"build": build()} if as_json else {}),
    }


def _advise(measured: Measured, rate: float, threads: int) -> None:
    memory = sustaining(measured, rate)
    if memory < LEAST_MEMORY_KIB:
        raise Failed(
            f"With the least that should be set (memory_kib = {LEAST_MEMORY_KIB}, time_cost = 2) this machine sustains "
            f"{measured.rate:.0f} sign-ins a second, not {rate:g}: add cores or nodes."
        )
    then = replace(measured.cost, memory_kib=memory)
    click.echo(
        f"For {rate:g} sign-ins a second: {_said(then)}, with {threads * memory / 1024:.0f} MiB a worker.", err=True
    )


def _said(cost: HashCost) -> str:
    return f"memory_kib = {cost.memory_kib}, time_cost = {cost.time_cost}, parallelism = {cost.parallelism}"
