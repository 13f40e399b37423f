"""Fixtures of every kind of test. Shared code lies in tests/support and is imported as `support.<module>`."""

import pytest
from support.platforms import running_platform


@pytest.fixture(scope="session")
def platform():
    """One platform shared by all tests that leave it as they found it."""
    with running_platform() as up:
        yield up


@pytest.fixture(scope="session")
def new_platform():
    """For tests that break their platform: `with new_platform(**settings) as platform`."""
    return running_platform
