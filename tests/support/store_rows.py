"""Rows that the tests of the store write; keyword arguments override columns."""

from __future__ import annotations

from typing import Any

from cluster import records

SPEC = {"name": "demo-chat", "model": {"repository": "Qwen/Qwen3-0.6B", "env": {"A": "1"}}, "tags": ["a", "b"]}
FIELDS = {"model": {"repository": "Qwen/Qwen3-0.6B"}, "compute": {"accelerator": "cpu"}}


def endpoint(identity: str = "ep-1", name: str = "demo-chat", namespace: str = "acme", **fields: Any) -> records.Endpoint:
    return records.Endpoint(identity, namespace, name, SPEC, 0, **{"created_at": 10.5, "created_by": "ann", **fields})


def key(identity: str = "key-1", endpoint_id: str | None = "ep-1", **fields: Any) -> records.Key:
    return records.Key(identity, fields.pop("digest", f"digest of {identity}"), "e", "acme", endpoint_id=endpoint_id, **fields)


def event(kind: str = "created", endpoint_id: str = "ep-1", at: float = 1.0, **fields: Any) -> records.Event:
    return records.Event(endpoint_id, at, kind, **fields)


def replica(identity: str = "r-1", endpoint_id: str = "ep-1", **fields: Any) -> records.Replica:
    return records.Replica(identity, "acme--demo-chat--r1", endpoint_id, 1, "127.0.0.1", 4711, 8, ("chat", "stream"), 2.5, **fields)


def kinds(events: list[records.Event]) -> list[str]:
    return [one.kind for one in events]
