"""E-mail addresses: checked by email-validator, stored as written, unique by a canonical key."""

import unicodedata
from functools import lru_cache

from email_validator import EmailNotValidError, ValidatedEmail, validate_email

from hydracore.models import Address

MAX_LENGTH = 254  # RFC 5321, section 4.5.3.1.3, less the angle brackets


# The flow asks for what its body's schema has just been checked with. No more is kept: by the time that an address
# takes, nobody must find out who else has been asked for.
@lru_cache(maxsize=1)
def parse_address(text: str) -> Address:
    """The address that ``text`` is; raises ``ValueError`` with a public sentence.

    The key is NFKC-normalised and case-folded, with the domain in its ASCII (IDNA) form. No
    provider's habits (dots, plus signs) are folded: they are different addresses to most.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"An e-mail address has at most {MAX_LENGTH} characters.")
    try:
        parsed: ValidatedEmail = validate_email(text, check_deliverability=False, strict=True)
    except EmailNotValidError as error:
        raise ValueError(str(error)) from error
    domain = (parsed.ascii_domain or parsed.domain).lower()
    local = unicodedata.normalize("NFKC", parsed.local_part).casefold()
    return Address(parsed.normalized, f"{unicodedata.normalize('NFKC', local)}@{domain}")


def deliverable(address: Address) -> str:
    """The address as mail's headers take it: the domain as the key has it, in ASCII, so that only a local part
    beyond that needs more than plain SMTP."""
    return f"{address.email.rpartition('@')[0]}@{address.key.rpartition('@')[2]}"
