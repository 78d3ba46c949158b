"""A forgotten password: a mailed token sets a new one, ends everything older, and proves the address."""

from contextlib import suppress
from datetime import timedelta

from hydracore.errors import InvalidToken, StoreUnavailable
from hydracore.events import PasswordReset
from hydracore.flows.networks import network_digest
from hydracore.flows.passwords import judge_new_password
from hydracore.flows.services import Services
from hydracore.limits import Spend
from hydracore.models import Code, User

LIFE = timedelta(minutes=30)
_TOKEN = "reset-token"  # noqa: S105  # what it is for, no token


async def reset_password(services: Services, token: str, new_password: str, network: str, language: str = "") -> None:
    """Set the password.

    The account's epoch moves in the same atomic step as the password is set, so the token works
    once, and every session, code and token of before is void. Raises :class:`InvalidToken`, :class:`TooManyRequests`,
    and, the token staying good, :class:`ValidationFailed` for a refused password and what a plugin refuses with.
    """
    tried = Spend("reset_network", (network,))
    async with services.limiter.turn(network, tried), services.limiter.failures(network, InvalidToken, tried):
        kept = await services.store.codes.reset(services.secret.macs(_TOKEN, token), services.now())
        user = await services.store.users.by_id(kept.user_id) if kept else None
        if kept is None or user is None or user.epoch != kept.epoch:
            void = "the token is of before another reset" if kept else "there is no such token, or it has expired"
            raise InvalidToken().because(void)
        await services.registry.before_reset_password(services.account(user), network)
        await judge_new_password(services, new_password, user.email, "new_password", of=user)
        password_hash = await services.passwords.hash(new_password)
        event = services.stamped(PasswordReset(user_id=user.id, network=network))
        untold = services.untold(event)
        mail = services.mail_with("password_changed", user.address_key, language=language, after_epoch=kept.epoch)
        async with mail:
            here = network_digest(services, user.id, network)
            # A known owner goes on being told in their own language: this may be someone else who reads their mail.
            # What was kept before the address was proven may be a stranger's.
            reads = None if user.email_verified and user.language else language
            changed = await services.store.users.reset_password(user.id, kept.epoch, password_hash, here, reads, untold)
            if changed is None:
                raise InvalidToken().because("another request with the same token was first", user=user.id)
    # Void already; this is tidying up, and no reason to tell the client that anything failed.
    with suppress(StoreUnavailable):
        await services.store.sessions.end_epochs_before(user.id, changed.epoch)
        await services.store.codes.drop_epochs_before(user.id, changed.epoch)
    services.announce(event)


def new_token(services: Services, user: User) -> tuple[str, Code]:
    """256 random bits, and what the store keeps of them."""
    token = services.token(32)
    digest = services.secret.mac(_TOKEN, token)
    return token, Code(
        id=f"reset:{digest}",
        kind="reset",
        user_id=user.id,
        epoch=user.epoch,
        digest=digest,
        expires_at=services.now() + LIFE,
    )
