"""All of it over both servers: Tornado's, and the one that reads by httptools."""

import pytest


@pytest.fixture(params=["tornado", "httptools"])
def http(request: pytest.FixtureRequest) -> str:
    return str(request.param)
