"""Judging and hashing a password that is about to be set."""

import asyncio
from collections.abc import Callable
from functools import partial

from hydracore.errors import HydraError, PasswordRefused, Problem, Unavailable, ValidationFailed
from hydracore.flows.services import Services
from hydracore.logs import logger
from hydracore.passwords import normalise

log = logger("hydracore.plugins")


async def hash_new_password(services: Services, password: str, email: str, member: str) -> str:
    """The hash, once no policy objects. ``member`` is the body's member that held the password.

    Raises :class:`ValidationFailed` with every policy's objection.
    """
    normal = normalise(password)
    problems = []
    for policy in services.registry.policies.values():
        try:
            await _ask(services, policy.name, partial(policy.check, normal, email))
        except PasswordRefused as refusal:
            problems.append(Problem(("body", member), str(refusal), "value_error"))
    if problems:
        raise ValidationFailed(problems)
    return await services.passwords.hash(password)


async def _ask(services: Services, name: str, check: Callable[[], None]) -> None:
    try:
        async with asyncio.timeout(services.settings.plugins.timeout):
            await services.passwords.in_pool(check)
    except (PasswordRefused, HydraError):
        raise
    except Exception as error:
        # A judge that cannot judge does not let anything through.
        log.error("password policy failed", policy=name, exc_info=True)
        raise Unavailable from error
