"""An account that its owner closes: at once for everybody, and for good when its grace is over."""

from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256

from hydracore.errors import InvalidToken, NotAuthenticated, StoreUnavailable
from hydracore.events import DeletionRequested, DeletionUndone, UserDeleted
from hydracore.flows import undo
from hydracore.flows.credentials import prove_password, tidy_up
from hydracore.flows.services import Services
from hydracore.limits import Spend
from hydracore.models import Closing, CurrentUser, User

_UNDO = "deletion"
_AT_A_TIME = 100


async def close_account(
    services: Services, caller: CurrentUser, password: str, network: str, language: str = ""
) -> datetime:
    """Close the caller's account, and say when it is deleted for good.

    Its sessions, codes and tokens end with its epoch in the same atomic step, its address stays taken, and a mail says
    how to open it again. Raises what :func:`prove_password` does, of which an authenticator's accounts give the
    authenticator's password; and :class:`NotAuthenticated` where another request ended the session first.
    """
    user = await prove_password(services, caller, password, network, elsewhere=True)
    closing = _closing(services, user)
    mail = services.mail_with(
        "account_closed",
        user.address_key,
        language=user.reads(language),  # Where the account is gone by then, nobody knows any more.
        user_id=user.id,
        email=user.email,
        nonce=closing.nonce,
    )
    event = services.stamped(DeletionRequested(user_id=user.id, network=network))
    async with mail:
        closed = await services.store.users.close(user, closing, services.untold(event))
        if closed is None:
            raise NotAuthenticated().because("all sessions were ended meanwhile", user=user.id)
    await tidy_up(services, closed)
    services.announce(event)
    if closing.ends_at <= services.now():
        with suppress(StoreUnavailable):  # The sweep comes by.
            await delete_over(services, closed)
    return closing.ends_at


async def undo_deletion(services: Services, token: str, network: str) -> None:
    """Open the account again that its owner closed. It signs nobody in: the password does. Raises
    :class:`InvalidToken` and :class:`TooManyRequests`."""
    tried = Spend("reset_network", (network,))
    async with services.limiter.turn(network, tried), services.limiter.failures(network, InvalidToken, tried):
        digests, users = undo.token_digests(services, _UNDO, token), services.store.users
        user = await users.by_closing(digests, services.now())
        if user is None or user.closed is None:
            raise InvalidToken().because("there is no such token, or the account is open, or deleted")
        event = services.stamped(DeletionUndone(user_id=user.id, network=network))
        if await users.reopen(user.id, user.closed.digest, services.now(), services.untold(event)) is None:
            raise InvalidToken().because("another request was first", user=user.id)
    services.announce(event)


async def delete_closed(services: Services) -> None:
    """Delete for good what is over. On any number of nodes at once: of each account one has it."""
    while over := await services.store.users.over(services.now(), _AT_A_TIME):
        for user in over:
            await delete_over(services, user)


async def delete_over(services: Services, user: User) -> None:
    """Delete a closed account that is over, with its sessions and codes."""
    # The account last: where this ends half-way, another one finds it again, and does the rest.
    await services.store.sessions.end_all(user.id)
    await services.store.codes.drop_all(user.id)
    event = replace(services.stamped(UserDeleted(user_id=user.id)), id=_end_of(user))
    users, told = services.store.users, services.relay.on
    if told and (over := await users.say_over(user.id, services.now(), services.untold(event))):
        # What is not told yet would be gone with the account that holds it.
        await services.relay.tell([over])
    if await users.delete_closed(user.id, services.now(), told=told):
        services.announce(event)


def _end_of(user: User) -> str:
    """What names the end of an account, whoever tells of it: two nodes may, of which one makes things under another
    server secret, and one where it ended half-way. An account that is imported again under its id has another end."""
    ends_at = user.closed.ends_at.isoformat(timespec="milliseconds") if user.closed else ""
    return sha256(f"{user.id} {ends_at}".encode()).hexdigest()[:32]


def undo_token(services: Services, user: User, closing: Closing) -> str:
    """What the owner is mailed."""
    return undo.token_of(services, _UNDO, user.id, closing.nonce, closing.digest)


def _closing(services: Services, user: User) -> Closing:
    nonce, digest = undo.new_token(services, _UNDO, user.id)
    return Closing(nonce, digest, services.now() + timedelta(seconds=services.settings.account.deletion_grace))
