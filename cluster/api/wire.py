"""Rows as JSON: the Endpoint object that huggingface_hub reads, with Moorage's fields beside, and the smaller resources."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from cluster import adapters, control, grafana, log_store, model_control, planning, records, registry, state
from cluster.settings import Settings


def endpoint(row: records.Endpoint, status: state.Status, settings: Settings, newest: int | None = None) -> dict[str, Any]:
    """Hugging Face's Endpoint object. Secrets appear by name, with empty values. `newest`: a newer version of its model."""
    spec, _ = control.split_secrets(row.parsed)
    model = {"revision": None, "task": None, **spec["model"]}
    return {
        **{name: value for name, value in spec.items() if name != "model"},
        "id": row.id,
        "accountId": row.namespace,
        "namespace": row.namespace,
        "model": model,
        "healthRoute": "/health",
        "generation": row.generation,
        "source": row.source,
        "status": {**_status(row, status, settings), **_update(row, newest)},
    }


def adapter(found: adapters.Status) -> dict[str, Any]:
    """One adapter and what became of it."""
    return {
        "name": found.adapter.name,
        "repository": found.adapter.repository,
        "revision": found.adapter.revision or None,
        "state": found.state,
        "reason": found.reason or None,
        "message": found.message,
        "readyReplica": found.ready,
    }


def time(seconds: float | None) -> str | None:
    """Unix seconds as `2026-01-31T12:00:00.000Z`, the only form that the client accepts."""
    if seconds is None:
        return None
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03}Z"


def event(row: records.Event) -> dict[str, Any]:
    """One event."""
    return {
        "id": row.id,
        "at": time(row.at),
        "kind": row.kind,
        "level": row.level,
        "message": row.message,
        "revision": row.revision,
        "replica": row.replica or None,
        "reason": row.reason or None,
        "data": dict(row.data),
    }


def log_line(entry: log_store.LogEntry) -> dict[str, Any]:
    """One line of a server's output."""
    return {"at": time(entry.at), "level": entry.level, "replica": entry.replica, "text": entry.text}


def key(row: records.Key) -> dict[str, Any]:
    """A key without its secret."""
    return {
        "id": row.id,
        "description": row.description,
        "status": row.status,
        "first": row.first,
        "owner": row.owner,
        "requestsPerMinute": row.requests_per_minute,
        "concurrency": row.concurrency,
        "createdAt": time(row.created_at),
        "updatedAt": time(row.updated_at),
        "lastUsedAt": time(row.last_used_at),
    }


def endpoint_key(row: records.Key, status: str) -> dict[str, Any]:
    """A key of an endpoint, with its limits and what is derived of it."""
    return {
        **key(row),
        "status": status,
        "endpointId": row.endpoint_id,
        "tokensPerMinute": row.tokens_per_minute,
        "tokensPerDay": row.tokens_per_day,
        "budget": row.budget,
        "budgetPeriod": row.budget_period,
        "expiresAt": time(row.expires_at),
        "replacedBy": row.replaced_by or None,
    }


def revision(row: records.Revision, endpoint: records.Endpoint) -> dict[str, Any]:
    """A revision, with what became of it: serving, target, failed, or superseded by a later one."""
    outcome = "superseded"
    if row.number == endpoint.serving:
        outcome = "serving"
    elif row.failed_at is not None:
        outcome = "failed"
    elif row.number == endpoint.target:
        outcome = "target"
    return {
        "revision": row.number,
        "status": outcome,
        "reason": row.reason or None,
        "message": row.message or None,
        "createdAt": time(row.created_at),
        "createdBy": row.created_by,
        "liveAt": time(row.live_at),
        "failedAt": time(row.failed_at),
        "model": row.fields.get("model"),
        "compute": row.fields.get("compute"),
        "placement": row.fields.get("placement"),
    }


def model(item: model_control.Listed, used_by: list[str] | None = None) -> dict[str, Any]:
    """A model with its newest version; `used_by` are the endpoints that run it, where that was asked."""
    newest = item.newest
    return {
        "name": item.model.name,
        "namespace": item.model.namespace,
        "description": item.model.description,
        "owner": item.model.owner,
        "task": newest.task or None if newest else None,
        "architecture": newest.architecture or None if newest else None,
        "latestVersion": newest.version if newest else None,
        "versions": [row.version for row in item.versions],
        "repository": newest.repository if newest else None,
        "usedBy": used_by,
        "createdAt": time(item.model.created_at),
        "updatedAt": time(item.model.updated_at),
    }


def model_version(row: records.ModelVersion) -> dict[str, Any]:
    """One version of a model, with the words by which an endpoint names it."""
    return {
        "name": row.name,
        "namespace": row.namespace,
        "version": row.version,
        "address": registry.Address(row.namespace, row.name, row.version).text(row.namespace),
        "repository": row.repository,
        "revision": row.revision,
        "task": row.task or None,
        "architecture": row.architecture or None,
        "description": row.description,
        "owner": row.created_by,
        "createdAt": time(row.created_at),
    }


def plan(found: control.Plan) -> dict[str, Any]:
    """The answer of `dryRun=true`."""
    return {
        "dryRun": True,
        "endpoint": {**found.spec.wire(), "model": {**found.spec.model.wire(), "secrets": dict.fromkeys(found.spec.model.secrets, "")}},
        "placement": found.placement.model_dump(mode="json"),
        "members": {name: claim.model_dump(mode="json") for name, claim in found.members.items()},
        "newRevision": found.new_revision,
        "changes": list(found.changed),
        "fitsNow": found.fits_now,
        "warnings": list(found.warnings),
        "cost": dict(found.cost),
        "fit": planning.wire(found.foresight) if found.foresight and found.foresight.facts.known else None,
    }


def warnings(told: Sequence[str]) -> dict[str, Any]:
    """What the user of a change should know; no field where that is nothing."""
    return {"warnings": list(told)} if told else {}


def _update(row: records.Endpoint, newest: int | None) -> dict[str, Any]:
    """Whether a newer version of its registered model could be served, and how that would be written."""
    if newest is None:
        return {"updateAvailable": False, "update": None}
    address = dataclasses.replace(registry.parse(row.spec["model"]["repository"], row.namespace), version=newest)
    return {"updateAvailable": True, "update": {"model": address.text(row.namespace), "version": newest}}


def page(items: list[dict[str, Any]], cursor: str | None = None, **more: Any) -> Mapping[str, Any]:
    """A list; `cursor` asks for the next page, null after the last."""
    return {"items": items, "cursor": cursor, **more}


def _status(row: records.Endpoint, status: state.Status, settings: Settings) -> dict[str, Any]:
    return {
        "state": status.state,
        "reason": status.reason or None,
        "phase": status.phase or None,
        "message": status.message,
        "url": None if status.state == state.PAUSED else f"{settings.url}/endpoints/{row.path}",
        "readyReplica": status.ready,
        "targetReplica": status.target,
        "revision": status.revision,
        "targetRevision": row.target,
        "needs": status.needs.wire() if status.needs else None,
        "progress": dict(status.progress),
        "adapters": [adapter(found) for found in status.adapters],
        "members": [
            {"name": one.name, "state": one.state, "readyReplica": one.ready, "targetReplica": one.target} for one in status.members
        ],
        "expectedSeconds": row.load_seconds,
        "createdAt": time(row.created_at),
        "updatedAt": time(row.updated_at),
        "createdBy": {"id": row.created_by, "name": row.created_by},
        "updatedBy": {"id": row.updated_by, "name": row.updated_by},
        "private": None,
        "grafana": grafana.link(settings.grafana_url, row.path),
    }
