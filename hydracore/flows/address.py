"""Another address for an account: a code proves the new one, and whoever reads the old one's mail can undo it."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from hydracore.addresses import parse_address
from hydracore.errors import InvalidCode, InvalidToken, StoreUnavailable, TooManyRequests
from hydracore.events import EmailChanged, EmailChangeRequested, EmailChangeUndone, VerificationFailed
from hydracore.flows import undo
from hydracore.flows.credentials import prove_password, tidy_up
from hydracore.flows.services import Services
from hydracore.flows.session import open_session, own_account, plan_session
from hydracore.flows.verification import MOST_TRIES, new_digits
from hydracore.limits import Spend
from hydracore.models import Address, Code, CurrentUser, Former, Grant, User

LIFE = timedelta(minutes=10)
# Addresses that one account keeps from others at a time. The oldest of them is never given up for a newer one: it is
# the owner's, if there was a thief.
MOST_FORMERS = 5
_UNDO = "email"
_TRIES = 5


async def change_email(
    services: Services, caller: CurrentUser, password: str, email: str, network: str, language: str = ""
) -> None:
    """Have a code mailed to the new address, which :func:`confirm_email` takes.

    The same work for every address: whether it can be had is looked up when the mail is sent, and its owner told where
    it cannot. Raises what :func:`prove_password` does, what a plugin refuses with, and :class:`TooManyRequests`.
    """
    user = await prove_password(services, caller, password, network)
    address = parse_address(email)
    _check_room(services, user)
    await services.registry.before_change_email(services.account(user), address.email, network)
    hits = (
        Spend("mail_address", ("change_email", address.key)),
        Spend("mail_address_hourly", ("change_email", address.key)),
        Spend("mail_address_hourly", ("change_email", "account", user.id)),
        Spend("mail_network", (network,)),
    )
    async with services.limiter.counted(network, *hits):
        await services.post(
            "change_email",
            user.address_key,
            language,
            user_id=user.id,
            email=address.email,
            after_epoch=user.epoch,
        )
    services.announce(EmailChangeRequested(user_id=user.id, network=network))


async def confirm_email(
    services: Services, caller: CurrentUser, code: str, network: str, *, language: str = "", device: str = ""
) -> Grant:
    """Give the account the address that the code proves, and begin the caller's session anew.

    The unique indexes decide who gets it. The account's epoch moves in the same atomic step, for that is what voids the
    reset tokens that wait in the old address's mail; so every other session ends too. Raises :class:`InvalidCode`,
    :class:`EmailTaken`, :class:`TooManyRequests`, and what a plugin refuses with: the code stays good then.
    """
    user = await own_account(services, caller)
    tried = Spend("verify_address", ("change-email", user.id)), Spend("verify_network", (network,))
    async with services.limiter.turn(network, tried[0]), services.limiter.failures(network, InvalidCode, *tried):
        address = await _proven(services, user, code, network)
        formers = [*_check_room(services, user), _former(services, user)]
        plan = await plan_session(services, replace(user, email=address.email), network)
        nonce = formers[-1].nonce
        event = services.stamped(EmailChanged(user_id=user.id, network=network))
        untold = services.untold(event)
        mail = services.mail_with("email_changed", address.key, language=language, user_id=user.id, nonce=nonce)
        async with mail:
            changed = await services.store.users.change_address(user, address, formers, untold)
            if changed is None:
                raise InvalidCode().because("another request with the same code was first", user=user.id)
    await tidy_up(services, changed)
    services.announce(event)
    return await open_session(services, changed, plan, network, device)


async def undo_email_change(services: Services, token: str, network: str, language: str = "") -> None:
    """Bring the address back where the token was mailed to, whatever happened to the account since.

    The addresses that it had later, and their tokens, are void with every session and code, and so is the password,
    which whoever changed the address knew: a reset is mailed to the address that is back. Raises
    :class:`InvalidToken`, :class:`TooManyRequests`, and :class:`EmailTaken` where the address was not kept: a node of
    an older version gave it to somebody.
    """
    tried = Spend("reset_network", (network,))
    async with services.limiter.turn(network, tried), services.limiter.failures(network, InvalidToken, tried):
        digests = undo.token_digests(services, _UNDO, token)
        owner, former, _ = await _undoable(services, digests)
        event = services.stamped(EmailChangeUndone(user_id=owner.id, network=network))
        async with services.mail_with("reset_password", former.key, language=language):
            user = await _bring_back(services, digests, event)
    await tidy_up(services, user)
    services.announce(event)


async def _bring_back(services: Services, digests: Sequence[str], event: EmailChangeUndone) -> User:
    for _ in range(_TRIES):
        # Looked at anew each time round: a thief may move the epoch as often as they like.
        user, former, older = await _undoable(services, digests)
        if back := await services.store.users.bring_back(user, former, older, services.untold(event)):
            return back
    raise StoreUnavailable


async def _undoable(services: Services, digests: Sequence[str]) -> tuple[User, Former, list[Former]]:
    """The account, the address that the token brings back, and those that it had before that one."""
    now = services.now()
    user = await services.store.users.by_former(digests, now)
    if user is None:
        raise InvalidToken().because("there is no such token, it has expired, or what it undoes was undone")
    if user.disabled and not user.closed:
        raise InvalidToken().because("the account is disabled", user=user.id)
    formers = user.formers(now)
    place = next(number for number, former in enumerate(formers) if former.digest in digests)
    return user, formers[place], formers[:place]


def _check_room(services: Services, user: User) -> list[Former]:
    """The addresses that are kept, if there may be one more."""
    now = services.now()
    formers = user.formers(now)
    if len(formers) >= MOST_FORMERS:
        over = min(former.expires_at for former in formers) - now
        raise TooManyRequests(over.total_seconds()).because("as many former addresses are kept as may be", user=user.id)
    return formers


def _former(services: Services, user: User) -> Former:
    nonce, digest = undo.new_token(services, _UNDO, user.id)
    kept_for = timedelta(seconds=services.settings.account.undo_ttl)
    return Former(user.email, user.address_key, nonce, digest, services.now() + kept_for)


def undo_token(services: Services, user: User, former: Former) -> str:
    """What the former address is mailed."""
    return undo.token_of(services, _UNDO, user.id, former.nonce, former.digest)


# -- the code ------------------------------------------------------------------------------------------


def new_code(services: Services, user: User, address: Address) -> tuple[str, Code]:
    """Six digits, and what the store keeps of them: they prove that address for that account alone."""
    digits = new_digits(services)
    return digits, Code(
        id=_code_id(user.id),
        kind="email_change",
        user_id=user.id,
        epoch=user.epoch,
        digest=services.secret.mac(*_proof(user, address.key, digits)),
        expires_at=services.now() + LIFE,
        email=address.email,
    )


async def _proven(services: Services, user: User, code: str, network: str) -> Address:
    now = services.now()
    # Counted before it is compared.
    kept = await services.store.codes.count_try(_code_id(user.id), now + LIFE, "email_change")
    address = parse_address(kept.email) if kept.email else Address("", "")
    right = services.secret.proves(kept.digest, *_proof(user, address.key, code))
    out = kept.epoch == user.epoch and kept.expires_at > now
    if right and out and kept.tries <= MOST_TRIES:
        return address
    services.announce(VerificationFailed(address_digest=services.address_digest(user.address_key), network=network))
    if not out:
        why = "no code is out: the last one has expired, or an event since made it void"
    else:
        why = "the code is wrong" if kept.tries <= MOST_TRIES else f"the code was tried more than {MOST_TRIES} times"
    raise InvalidCode().because(why, user=user.id)


def _code_id(user_id: str) -> str:
    return f"email_change:{user_id}"


def _proof(user: User, address_key: str, code: str) -> tuple[str, ...]:
    return "change-email-code", user.id, str(user.epoch), address_key, code
