"""Proof of an address by a mailed code of six digits."""

from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256

from hydracore.addresses import parse_address
from hydracore.errors import InvalidCode, StoreUnavailable
from hydracore.events import EmailVerified, MailRequested, VerificationFailed
from hydracore.flows.networks import remember_network
from hydracore.flows.services import Services
from hydracore.flows.session import holder, open_session, plan_session
from hydracore.limits import Spend
from hydracore.models import Address, Code, CurrentUser, Grant, MailKind, User

LIFE = timedelta(minutes=10)
MOST_TRIES = 5


async def verify_email(
    services: Services,
    email: str,
    code: str,
    access_token: str,
    network: str,
    *,
    language: str = "",
    device: str = "",
) -> Grant:
    """Redeem the code: once, only while the account is unverified. It signs in.

    A client that does not hold a session of the account (``access_token``) may be the first to
    prove that the address is theirs: sessions begun before the proof end (someone else may have
    registered the address). One that does has tries of its own, which strangers cannot use up.
    Raises :class:`InvalidCode` and :class:`TooManyRequests`.
    """
    address = parse_address(email)
    # Asked of the session alone, before any account is looked up: to all others every address is alike.
    caller = await holder(services, access_token)
    holds_session = caller is not None and parse_address(caller.email).key == address.key
    tried = *_budget(address, caller if holds_session else None), Spend("verify_network", (network,))
    async with services.limiter.turn(network, tried[0]), services.limiter.failures(network, InvalidCode, *tried):
        user = await _proven(services, address, code, network)
        await services.admit(user, network, "code")
        plan = await plan_session(services, replace(user, email_verified=True), network)
        theirs = caller is not None and caller.id == user.id
        # Of whoever registered it nothing is kept that another owner would be written to in.
        reads = language or (user.language if theirs else "")
        event = services.stamped(EmailVerified(user_id=user.id, network=network))
        verified = await services.store.users.mark_verified(
            user.id, user.epoch, end_sessions=not theirs, language=reads, untold=services.untold(event)
        )
        if verified is None:
            raise InvalidCode().because("another request with the same code was first", user=user.id)
    # Void already; this is tidying up, and no reason to tell the client that anything failed.
    with suppress(StoreUnavailable):
        await services.store.codes.drop_kind(user.id, "verification")
        await services.store.sessions.end_epochs_before(user.id, verified.epoch)
    services.announce(event)
    grant = await open_session(services, verified, plan, network, device)
    await remember_network(services, verified, network)
    return grant


def _budget(address: Address, caller: CurrentUser | None) -> tuple[Spend, ...]:
    """The tries that an address has: a third of them is kept for whoever holds a session of the account that has
    registered it, and others cannot use it up."""
    anyones = Spend("verify_address", (address.key,), binding=caller is None, share=2 / 3)
    if caller is None:
        return (anyones,)
    return (Spend("verify_address", ("session", caller.id), share=1 / 3), anyones)


async def _proven(services: Services, address: Address, code: str, network: str) -> User:
    user = await services.store.users.by_address(address.key)
    now = services.now()
    kept = await _count_try(services, address, now)
    right = services.secret.proves(kept.digest, *_proof(kept.user_id, kept.epoch, code))
    if (
        right
        and user is not None
        and (kept.user_id, kept.epoch) == (user.id, user.epoch)
        and not (user.email_verified or user.disabled)
        and kept.tries <= MOST_TRIES
        and kept.expires_at > now
    ):
        return user
    digest = services.address_digest(address.key)
    services.announce(VerificationFailed(address_digest=digest, network=network))
    raise InvalidCode().because(_why_not(user, kept, now, right=right), user=user.id if user else "")


async def _count_try(services: Services, address: Address, now: datetime) -> Code:
    """The code that is out for an address, one more try counted: before it is compared, and for every address, so that
    an unknown one costs the same writes."""
    digests = services.address_digests(address.key)
    tried = [await services.store.codes.count_try(_code_id(digest), now + LIFE) for digest in digests]
    # Each code lives as long: the one that ends last is the newest, whatever secret it was put in under.
    out = [code for code in tried if code.user_id]
    return max(out, key=lambda code: code.expires_at) if out else tried[0]


def _why_not(user: User | None, kept: Code, now: datetime, *, right: bool) -> str:
    if user is None:
        return "the address has no account"
    if user.disabled:
        return "the account is disabled"
    if user.email_verified:
        return "the address is proven already"
    if kept.expires_at <= now or kept.user_id != user.id or kept.epoch != user.epoch:
        return "no code is out: the last one has expired, or an event since made it void"
    if kept.tries > MOST_TRIES:
        return f"the code was tried more than {MOST_TRIES} times: another one is needed"
    return "another request with the same code was first" if right else "the code is wrong"


def new_code(services: Services, user: User) -> tuple[str, Code]:
    """Six digits, and what the store keeps of them."""
    digits = new_digits(services)
    return digits, Code(
        id=_code_id(services.address_digest(user.address_key)),
        kind="verification",
        user_id=user.id,
        epoch=user.epoch,
        digest=services.secret.mac(*_proof(user.id, user.epoch, digits)),
        expires_at=services.now() + LIFE,
    )


def new_digits(services: Services) -> str:
    # 256 random bits modulo a million: the bias is beyond measure.
    return f"{int.from_bytes(sha256(services.token(32).encode()).digest()) % 1_000_000:06d}"


def _code_id(address_digest: str) -> str:
    return f"verification:{address_digest}"


def _proof(user_id: str, epoch: int, code: str) -> tuple[str, ...]:
    return "verification-code", user_id, str(epoch), code


async def ask_for_mail(services: Services, kind: MailKind, email: str, network: str, language: str = "") -> None:
    """Have a mail sent that an account at that address may need.

    The same work for every address: counters, and one intent. Whether there is an account, and
    whether it needs that mail, is looked up when the mail is sent. Raises :class:`TooManyRequests`.
    """
    address = parse_address(email)
    hits = (
        Spend("mail_address", (kind, address.key)),
        Spend("mail_address_hourly", (kind, address.key)),
        Spend("mail_network", (network,)),
    )
    async with services.limiter.counted(network, *hits):
        await services.post(kind, address.key, language)
    digest = services.address_digest(address.key)
    services.announce(MailRequested(kind=kind, address_digest=digest, network=network))
