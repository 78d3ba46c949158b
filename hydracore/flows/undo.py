"""Tokens that undo what was done to an account, for whoever reads the mail where they were sent.

A token is 256 bits under the server secret, made of a random nonce: the database holds that and the token's digest,
neither of which is of use without the secret. So it is there, with its end, from the same atomic step on as what it
undoes, each try of its mail says the same, and it outlives every epoch, which a thief may move.
"""

from hydracore.errors import MailRefused
from hydracore.flows.services import Services
from hydracore.mail import SEALED_ELSEWHERE


def new_token(services: Services, purpose: str, user_id: str) -> tuple[str, str]:
    """The nonce of a new token, and the token's digest."""
    nonce = services.token(32)
    token = services.secret.mac("undo-token", purpose, user_id, nonce)
    return nonce, services.secret.mac("undo-digest", purpose, token)


def token_of(services: Services, purpose: str, user_id: str, nonce: str, digest: str) -> str:
    """The token of that nonce and digest, under whichever server secret it was made. Raises :class:`MailRefused`
    where that one is not known."""
    for token in services.secret.macs("undo-token", purpose, user_id, nonce):
        if digest in token_digests(services, purpose, token):
            return token
    raise MailRefused(SEALED_ELSEWHERE)


def token_digests(services: Services, purpose: str, token: str) -> tuple[str, ...]:
    """What a token may be kept by."""
    return services.secret.macs("undo-digest", purpose, token)
