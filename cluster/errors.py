"""Every error a user can do something about. No HTTP here: `cluster.http_errors` maps classes to statuses and bodies.

A class's docstring is its default message and `code` its stable slug.
"""

from __future__ import annotations


class MoorageError(Exception):
    """Something went wrong inside Moorage; the request id finds it in the logs."""

    code = "internal_error"

    def __init__(self, message: str | None = None, *, param: str | None = None, retry_after: float | None = None) -> None:
        """`param` names the offending field (dotted path); `retry_after` is in seconds, where waiting helps."""
        self.message = message or (type(self).__doc__ or "").strip()
        self.param = param
        self.retry_after = retry_after
        super().__init__(self.message)


class InvalidRequest(MoorageError):
    """The request is not valid."""

    code = "invalid_request"


class AlreadyRunning(InvalidRequest):
    """The endpoint is already running."""

    code = "already_running"


class InvalidApiKey(MoorageError):
    """No valid API key was given: send `Authorization: Bearer <key>`."""

    code = "invalid_api_key"


class Forbidden(MoorageError):
    """This key may not do that."""

    code = "forbidden"


class NotFound(MoorageError):
    """There is no such thing."""

    code = "not_found"


class ModelNotFound(NotFound):
    """There is no such model, or this key may not call it: GET /v1/models lists what it may call."""

    code = "model_not_found"


class Conflict(MoorageError):
    """That cannot be done in the present state."""

    code = "conflict"


class AlreadyExists(Conflict):
    """Something of that name exists already."""

    code = "already_exists"


class StaleGeneration(Conflict):
    """The resource has changed since it was read: read it again and repeat the change."""

    code = "stale_generation"


class IdempotencyMismatch(Conflict):
    """This Idempotency-Key was used before with another request body: use a new key."""

    code = "idempotency_mismatch"


class NotResumable(Conflict):
    """Only a paused, failed or scaled-to-zero endpoint can be resumed."""

    code = "not_resumable"


class ReadOnly(Conflict):
    """This endpoint is declared in a Serve configuration file: change the file and run `serve deploy` again."""

    code = "read_only"


class TooLarge(MoorageError):
    """The request body is over the limit."""

    code = "too_large"


class BodyTimeout(MoorageError):
    """The request body did not arrive in time."""

    code = "body_timeout"


class HeadersTooLarge(MoorageError):
    """The request headers are over the limit."""

    code = "headers_too_large"


class RateLimitExceeded(MoorageError):
    """Too many requests this minute."""

    code = "rate_limit_exceeded"


class ConcurrencyLimit(MoorageError):
    """Too many requests at the same time."""

    code = "concurrency_limit"


class TokenLimit(MoorageError):
    """The limit of tokens is used up."""

    code = "token_limit"

    def __init__(self, message: str | None = None, *, retry_after: float | None = None, most: int | None = None) -> None:
        """`most` is the limit, in tokens; `retry_after` None = until somebody changes the limit."""
        super().__init__(message, retry_after=retry_after)
        self.most = most


class BudgetExceeded(MoorageError):
    """The budget is used up."""

    code = "budget_exceeded"


class QueueFull(MoorageError):
    """Too many requests are waiting for this endpoint already."""

    code = "queue_full"


class Unavailable(MoorageError):
    """The endpoint cannot answer right now."""

    code = "unavailable"


class Starting(Unavailable):
    """The endpoint is starting."""

    code = "starting"


class Paused(Unavailable):
    """The endpoint is paused: resume it to use it again."""

    code = "paused"


class AwaitingResources(Unavailable):
    """The endpoint waits for hardware that the cluster does not have free."""

    code = "awaiting_resources"


class Failed(Unavailable):
    """The endpoint failed to deploy."""

    code = "failed"
