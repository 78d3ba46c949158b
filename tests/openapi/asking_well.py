"""What schemathesis does not know by itself.

``format: email`` stands for addresses that may belong to somebody, and a name that is reserved (.test, .local) belongs
to nobody.
"""

import schemathesis
from hypothesis import strategies as st

from hydracore.addresses import parse_address


def somebodys(email: str) -> bool:
    try:
        return bool(parse_address(email))
    except ValueError:
        return False


schemathesis.openapi.format("email", st.emails().filter(somebodys))


@schemathesis.hook
def filter_headers(context: object, headers: dict[str, str] | None) -> bool:
    """What frames a message is the connection's: one that is framed wrongly is no call of any path, and gets a bare 400
    before it has one."""
    return not {name.lower() for name in headers or ()} & {"content-length", "host", "transfer-encoding"}
