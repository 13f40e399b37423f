"""The boundary's one table: error class -> HTTP status, and one renderer per dialect (OpenAI, Anthropic, management/Hugging Face)."""

from __future__ import annotations

import math
from typing import Any

from cluster import errors, routes

STATUS: dict[type[errors.MoorageError], int] = {
    errors.MoorageError: 500,
    errors.InvalidRequest: 400,
    errors.InvalidApiKey: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.BodyTimeout: 408,
    errors.TooLarge: 413,
    errors.HeadersTooLarge: 431,
    errors.RateLimitExceeded: 429,
    errors.ConcurrencyLimit: 429,
    errors.TokenLimit: 429,
    errors.BudgetExceeded: 429,
    errors.QueueFull: 429,
    errors.Unavailable: 503,
}

LONGEST_HEADER = 1000
OPENAI_TYPE = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    408: "invalid_request_error",
    409: "conflict_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
    503: "service_unavailable_error",
}

ANTHROPIC_TYPE = {404: "not_found_error", 413: "request_too_large", 500: "api_error", 503: "overloaded_error"}
"""Where Anthropic's word is not OpenAI's."""


NOT_BY_WAITING = (errors.TokenLimit, errors.BudgetExceeded)
"""Without a time to wait for, stock clients are told not to try again by themselves."""


def status_of(error: errors.MoorageError) -> int:
    """The HTTP status of the nearest class along the error's MRO."""
    return next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)


def openai_body(error: errors.MoorageError) -> dict[str, Any]:
    """`{"error": {"message", "type", "param", "code"}}`, as OpenAI's clients read it."""
    kind = OPENAI_TYPE.get(status_of(error), "server_error")
    return {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.code}}


def anthropic_body(error: errors.MoorageError) -> dict[str, Any]:
    """`{"type": "error", "error": {"message", "type", "param", "code"}}`, as Anthropic's clients read it."""
    body = openai_body(error)
    body["error"]["type"] = ANTHROPIC_TYPE.get(status_of(error), body["error"]["type"])
    return {"type": "error", **body}


def management_body(error: errors.MoorageError) -> dict[str, Any]:
    """`{"error": message, "error_type": slug, "param"?}`, as huggingface_hub reads it."""
    body: dict[str, Any] = {"error": error.message, "error_type": error.code}
    if error.param is not None:
        body["param"] = error.param
    return body


BODY_OF_DIALECT = {routes.OPENAI: openai_body, routes.HUGGING_FACE: management_body, routes.ANTHROPIC: anthropic_body}


def headers(error: errors.MoorageError) -> dict[str, str]:
    """Retry-After (whole seconds, at least 1) where waiting helps, and the headers huggingface_hub shows."""
    # Printable ASCII only: what a message repeats of an input may hold what no header may.
    text = "".join(character if " " <= character <= "~" else "?" for character in " ".join(error.message.split()))
    found = {"X-Error-Code": error.code, "X-Error-Message": text[:LONGEST_HEADER]}
    if error.retry_after is not None:
        found["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    elif isinstance(error, NOT_BY_WAITING):
        found["X-Should-Retry"] = "false"
    if isinstance(error, errors.TokenLimit) and error.most is not None:
        found |= {"X-RateLimit-Limit-Tokens": str(error.most), "X-RateLimit-Remaining-Tokens": "0"}
        found |= {"X-RateLimit-Reset-Tokens": f"{found['Retry-After']}s"} if "Retry-After" in found else {}
    return found
