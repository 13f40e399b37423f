"""The three kinds of store, and an endpoint in each."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from support.store_rows import FIELDS, endpoint, event, key, replica

from cluster import records
from cluster.store import Store, open_store


@pytest.fixture
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Makes the URL of an empty store of a kind: memory, sqlite or postgresql."""
    made: list[str] = []

    def make(kind: str) -> str:
        if kind == "memory":
            return "memory://"
        if kind == "sqlite":
            return f"sqlite:///{tmp_path / 'moorage.db'}"
        server, name = request.getfixturevalue("postgresql"), f"test_{secrets.token_hex(6)}"
        _administer(server, f"CREATE DATABASE {name}")
        made.append(name)
        return str(server.removesuffix("/postgres") + f"/{name}")

    yield make
    for name in made:
        _administer(request.getfixturevalue("postgresql"), f"DROP DATABASE {name} WITH (FORCE)")


def _administer(server: str, statement: str) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(statement.encode())


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, new_url: Callable[[str], str]) -> Iterator[Store]:
    """An empty store of every kind."""
    opened = open_store(new_url(request.param))
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture
def created(store: Store) -> records.Endpoint:
    """An endpoint with everything that may belong to one."""
    made = store.create_endpoint(endpoint(), FIELDS, key(first=True), {"HF_TOKEN": "sealed"}, [event(data={"by": "ann"})])
    store.put_replica(replica())
    return made


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, new_url: Callable[[str], str]) -> str:
    """The URL of an empty database of both kinds, without a schema."""
    return new_url(request.param)
