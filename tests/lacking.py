"""What a test takes that not every machine has."""

import os
from typing import NoReturn

import pytest


def lacking(what: str) -> NoReturn:
    """Skip the test, whose machine cannot give what it takes; in CI every machine must."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)
