"""Requests as JSON: what the edge saw, which replica it was, and what its engine counted."""

from __future__ import annotations

from typing import Any

from cluster import messages, replica_book, request_line
from cluster.api import wire
from cluster.request_line import Request


def request(request: Request, replica: replica_book.Born | None, usage: messages.Usage | None) -> dict[str, Any]:
    """`replica` and `usage` as far as they are known."""
    outcome = request_line.with_engine(request.outcome, usage)
    return {
        "id": request.id,
        "at": wire.time(request.at),
        "client": request.client,
        "key": request.key or None,
        "tenant": request.tenant or None,
        "endpoint": request.endpoint or None,
        "member": request.member or None,
        "revision": replica.revision if replica else None,
        "replica": replica.label if replica else request.server or None,
        "method": request.method,
        "path": request.path,
        "status": request.status,
        "code": request.code or None,
        "outcome": outcome,
        "ended": request_line.OUTCOMES[outcome],
        "tries": request.tries,
        "queueSeconds": request.queue_s,
        "firstByteSeconds": request.first_byte_s,
        "totalSeconds": request.total_s,
        "bytesIn": request.bytes_in,
        "bytesOut": request.bytes_out,
        "tokens": _tokens(usage) if usage else None,
        "engine": _engine(usage) if usage else None,
    }


def _tokens(usage: messages.Usage) -> dict[str, Any]:
    return {"prompt": usage.prompt_tokens, "completion": usage.completion_tokens, "cached": usage.cached_tokens}


def _engine(usage: messages.Usage) -> dict[str, Any]:
    return {
        "outcome": usage.outcome,
        "model": usage.model,
        "adapter": usage.adapter or None,
        "queueSeconds": usage.queue_s,
        "firstTokenSeconds": usage.first_token_s,
        "totalSeconds": usage.total_s,
    }
