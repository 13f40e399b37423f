"""Fixtures of every kind of test. Shared code lies in tests/support and is imported as `support.<module>`."""

import os
import subprocess
import sys

import pytest
from support import containers, postgres
from support.platforms import ROOT, running_platform


def pytest_collection_modifyitems(items):
    """Tests of real vLLM come last: its platform and servers, which they share to the end, would weigh on the others."""
    items.sort(key=lambda item: item.path.is_relative_to(ROOT / "tests" / "e2e"))


@pytest.fixture(scope="session")
def platform():
    """One platform shared by all tests that leave it as they found it."""
    with running_platform() as up:
        yield up


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
