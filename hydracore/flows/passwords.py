"""Judging and hashing a password that is about to be set."""

from hydracore.errors import Problem, ValidationFailed
from hydracore.flows.services import Services
from hydracore.models import User
from hydracore.passwords import normalise
from hydracore.records import NewPassword


async def judge_new_password(
    services: Services, password: str, email: str, member: str, *, of: User | None = None
) -> None:
    """Ask the policies. ``member`` is the body's member that held the password, ``of`` whose it becomes, if there
    is an account already. Raises :class:`ValidationFailed` with every policy's objection."""
    known = (of.id, of.password_hash) if of else ("", "")
    objections = await services.registry.judge(NewPassword(normalise(password), email, *known))
    if objections:
        raise ValidationFailed([Problem(("body", member), objection, "value_error") for objection in objections])
