"""Tokens that undo what was done to an account, for whoever reads the mail where they were sent.

A token is 256 bits under the server secret, made of a random nonce: the database holds that and the token's digest,
neither of which is of use without the secret. So it is there, with its end, from the same atomic step on as what it
undoes, each try of its mail says the same, and it outlives every epoch, which a thief may move.
"""

from hydracore.flows.services import Services


def new_nonce(services: Services) -> str:
    return services.token(32)


def token_of(services: Services, purpose: str, user_id: str, nonce: str) -> str:
    return services.secret.mac("undo-token", purpose, user_id, nonce)


def token_digest(services: Services, purpose: str, token: str) -> str:
    return services.secret.mac("undo-digest", purpose, token)
