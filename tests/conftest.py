"""Fixtures of every kind of test. Shared code lies in tests/support and is imported as `support.<module>`."""

import contextlib
import os
import subprocess
import sys

import pytest
from support import containers, postgres
from support.platforms import ROOT, running_platform

ORDER = ("unit", "contract", "integration", "chaos", "gpu", "e2e")
OF_TESTS = ("MOORAGE_TEST_", "MOORAGE_CHAOS_", "MOORAGE_SOAK_")
SHARED = pytest.StashKey[contextlib.ExitStack]()


def pytest_collection_modifyitems(items):
    """What is fast comes first, real vLLM last: its platform and servers, which its tests share, would weigh on the others."""
    items.sort(key=lambda item: ORDER.index(kind(item)))


def pytest_configure(config):
    """What a developer's shell says to Moorage and Ray is not for the tests."""
    for name in [name for name in os.environ if name.startswith(("MOORAGE_", "RAY_")) and not name.startswith(OF_TESTS)]:
        del os.environ[name]
    config.stash[SHARED] = contextlib.ExitStack()
    config.add_cleanup(config.stash[SHARED].close)


def kind(item):
    """The folder of tests/ that it is in."""
    return item.path.relative_to(ROOT / "tests").parts[0]


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    """Platforms that tests of one kind share end before those of another: idle ones would take a fifth of a core from the others."""
    if nextitem is None or kind(nextitem) != kind(item):
        item.config.stash[SHARED].close()


@pytest.fixture(scope="session")
def shared_platform(request):
    """`shared_platform(**settings)`: a platform up to the end of the tests of this kind."""
    return lambda **settings: request.config.stash[SHARED].enter_context(running_platform(**settings))


@pytest.fixture(scope="session")
def platform(shared_platform):
    """One platform shared by all tests that leave it as they found it."""
    return shared_platform()


@pytest.fixture(scope="session")
def new_platform():
    """For tests that break their platform: `with new_platform(**settings) as platform`."""
    return running_platform


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Builds a tiny model once per kind: `models("llama")` -> folder. All lie in one folder."""
    built, base = {}, tmp_path_factory.mktemp("models")

    def build(kind):
        if kind not in built:
            folder = base / kind
            line = [sys.executable, "-m", "deployments.tiny_models", kind, str(folder)]
            subprocess.run(line, cwd=ROOT, check=True, capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
            built[kind] = folder
        return built[kind]

    return build


@pytest.fixture(scope="session")
def postgresql():
    """URL of a server's `postgres` database."""
    yield from postgres.served()


@pytest.fixture(scope="session")
def podman(tmp_path_factory):
    """A podman that runs containers on this machine, with the image `support.containers.IMAGE`; else the test is skipped."""
    return containers.made(tmp_path_factory.mktemp("podman"))
