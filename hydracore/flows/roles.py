"""What accounts may be allowed: operators give roles, and take them."""

from collections.abc import Collection, Iterator
from difflib import get_close_matches

from hydracore.errors import NotFound, Problem, StoreUnavailable, ValidationFailed
from hydracore.events import RolesChanged
from hydracore.flows.services import Services
from hydracore.models import User

MOST = 32
"""So many has an account at most: they are written into its access tokens, which have a bound."""

_TRIES = 20


async def change_roles(
    services: Services, user_id: str, *, add: Collection[str] = (), remove: Collection[str] = ()
) -> User:
    """Give an account roles and take some, all in one step. What it has already, or has not, is no error.

    Whatever asks the database knows at once; access tokens say it from the next one on. Raises
    :class:`ValidationFailed` for a role that is not known and for too many, :class:`NotFound` where there is no such
    account, and :class:`StoreUnavailable`: repeating it is safe.
    """
    for _ in range(_TRIES):
        user = await services.store.users.by_id(user_id)
        if user is None:
            raise NotFound("No account has this id.")
        had = set(user.roles)
        wanted = (had | set(add)) - set(remove)
        if problems := list(_problems(services, had, wanted, add, remove)):
            raise ValidationFailed(problems)
        if wanted == had:
            return user
        added, removed = tuple(sorted(wanted - had)), tuple(sorted(had - wanted))
        event = services.stamped(RolesChanged(user_id=user.id, added=added, removed=removed))
        untold = services.untold(event)
        # Built upon what was read: where that is not so any more, it is looked at anew.
        if changed := await services.store.users.set_roles(user.id, user.roles, sorted(wanted), untold):
            services.announce(event)
            return changed
    raise StoreUnavailable


def _problems(
    services: Services, had: Collection[str], wanted: Collection[str], add: Collection[str], remove: Collection[str]
) -> Iterator[Problem]:
    known = services.settings.roles.known
    for role in add:
        if role not in known:
            yield Problem(("body", "add"), f"The role {role} is not in roles.known{_meant(role, known)}", "value_error")
        elif role in remove:
            yield Problem(("body", "add"), f"The role {role} is both given and taken.", "value_error")
    for role in remove:
        # One that is known no longer can be taken from whoever has it still.
        if role not in known and role not in had:
            yield Problem(("body", "remove"), f"There is no role {role}{_meant(role, {*known, *had})}", "value_error")
    if len(wanted) > MOST:
        yield Problem(("body", "add"), f"An account has at most {MOST} roles.", "too_long")


def _meant(role: str, known: Collection[str]) -> str:
    near = get_close_matches(role, known, 1)
    return f"; did you mean {near[0]}?" if near else "."
