"""K3: whoever has the whole database, the logs, the audit log and every answer finds no key and no secret value in them."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from support.api import ECHO, Api
from support.changes import CHANGES, prepared

from cluster.store import Store, open_store

ENDPOINTS, KEYS_EACH, PLATFORM_KEYS = 10, 3, 10


@pytest.fixture
def database(database_url: str) -> Iterator[Store]:
    store = open_store(database_url)
    store.migrate()
    yield store
    store.close()


def dump(url: str, folder: Path) -> bytes:
    """Everything that is kept: each table of PostgreSQL as text, and every file in the platform's folder."""
    found = [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()]
    if url.startswith("postgresql"):
        with psycopg.connect(url) as connection:
            tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
            assert len(tables) > 8
            for (table,) in tables:
                with connection.cursor().copy(sql.SQL("COPY {} TO STDOUT").format(sql.Identifier(table))) as rows:
                    found += [bytes(row) for row in rows]
    return b"\n".join(found)


def test_fifty_keys_and_their_secrets_are_nowhere(
    database: Store, database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.WARNING, "httpx2")  # the test's own client, which says what it asks for
    api = Api(tmp_path, store=database)
    answers: list[str] = []
    plain = api._http.request

    def noted(*given: object, **named: object) -> object:
        answer = plain(*given, **named)  # type: ignore[arg-type]
        answers.append(f"{answer.headers} {answer.text}")
        return answer

    api._http.request = noted  # type: ignore[method-assign, assignment]
    secrets = [f"hush-{number}-0123456789" for number in range(2 * ENDPOINTS)]
    keys = [api.token]
    for number in range(ENDPOINTS):
        name = f"held-{number}"
        keys.append(api.create(name, model={"image": {"echo": {}}, "secrets": {"HF_TOKEN": secrets[2 * number]}})["apiKey"]["key"])
        made = [
            api.call("POST", f"/{name}/keys", {"description": str(one)}, headers={"idempotency-key": str(one)}) for one in range(KEYS_EACH)
        ]
        keys += [answer.json()["key"] for answer in made]
        change = {"description": "changed", "model": {"secrets": {"HF_TOKEN": secrets[2 * number + 1]}}}
        assert api.call("PUT", f"/{name}", change).status_code == 200
        assert api.call("GET", f"/{name}/keys/{keys[-1]}").status_code == 200
        assert api.call("PATCH", f"/{name}/keys/{keys[-1]}", {"description": "edited"}).status_code == 200
    keys += [api.call("POST", "/manage/v2/keys", {"description": str(number)}).json()["key"] for number in range(PLATFORM_KEYS - 1)]
    assert len(keys) == len(set(keys)) == 50
    for route in CHANGES:
        method, url, body = prepared(api, route)
        assert api.call(method, url, body).status_code == 200, route
    refusals(api, keys, secrets)
    for _, path, url in api.routes():
        api.call("GET", url)
        assert path
    whole = "\n".join(answers)
    shown_twice = [key for key in keys if whole.count(key) > (key != api.token)]
    assert shown_twice == []
    assert [value for value in secrets if value in whole] == []
    kept = dump(database_url, tmp_path) + caplog.text.encode()
    assert b"held-1" in kept and b"endpoint.update" in kept  # so the search sees what is there
    assert [text for text in itertools.chain(keys, secrets) if text.encode() in kept] == []
    assert [text[-32:] for text in keys if text[-32:].encode() in kept] == []


def refusals(api: Api, keys: list[str], secrets: list[str]) -> None:
    """Wrong requests that hold keys and secrets where a right one has none, or has them rightly."""
    wrong = [
        ("POST", "", {**ECHO, "name": "held-0", "model": {"image": {"echo": {}}, "secrets": {"TOKEN": secrets[0]}}}, 409),
        ("POST", "", {**ECHO, "name": "X", "model": {"image": {"echo": {}}, "secrets": {"TOKEN": secrets[1]}}}, 400),
        ("PUT", "/held-0", {"model": {"secrets": {"bad name": secrets[2]}}}, 400),
        ("PUT", "/held-0", {"model": {"secrets": {"TOKEN": [secrets[3]]}}}, 400),
        ("PUT", "/held-0", {"unknown": {"secrets": {"TOKEN": secrets[4]}}}, 400),
        ("DELETE", f"/held-0/keys/{keys[1]}", None, 409),
        ("POST", "/manage/v2/models/admin", {"name": "x y", "repository": "a/b", "secrets": {"HF_TOKEN": secrets[5]}}, 400),
    ]
    for method, path, body, status in wrong:
        answer = api.call(method, path, body)
        assert answer.status_code == status, answer.text
    for key in keys[1:]:
        assert api.call("DELETE", "/held-1", key=key).status_code in (200, 401, 403, 404)
