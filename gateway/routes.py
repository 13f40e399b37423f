"""Which engine routes exist from outside (default deny), and which error dialect a path speaks.

Servers of the user's own (snapshot.Endpoint.own_routes) are the exception: all paths below their endpoint's URL are theirs.

HAProxy gets `ALLOWED` and `USUAL` as maps and `RESPONSES` as a regular expression; the slow path asks `dialect_of`. Who may call which
endpoint is decided elsewhere.
"""

from __future__ import annotations

OPENAI, HUGGING_FACE = "openai", "huggingface"

_SAME = (
    "chat/completions",
    "completions",
    "responses",
    "messages",
    "messages/count_tokens",
    "embeddings",
    "score",
    "rerank",
    "audio/transcriptions",
    "audio/translations",
    "audio/speech",
    "images/generations",
    "images/edits",
)
# vLLM has these at its root only; outside they live under /v1 with the others.
_AT_ROOT = ("classify", "pooling", "tokenize", "detokenize")

ALLOWED: dict[str, str] = {
    **{f"POST:/v1/{route}": f"/v1/{route}" for route in _SAME},
    **{f"POST:/v1/{route}": f"/{route}" for route in _AT_ROOT},
    "GET:/v1/models": "/v1/models",
    "GET:/v1/realtime": "/v1/realtime",
    "POST:/": "/",
    "POST:/generate": "/generate",
    "POST:/generate_stream": "/generate_stream",
    "GET:/info": "/info",
    "GET:/health": "/health",
}
"""`METHOD:path` as seen after the endpoint's prefix -> the engine's own path."""

USUAL = {route.removeprefix("POST:/"): to for route, to in ALLOWED.items() if route.startswith("POST:/v1/")}
"""The routes of POST below /v1, without their first slash -> the engine's own path."""

RESPONSES = r"^((GET|DELETE):/v1/responses/[A-Za-z0-9_-]{1,200}(/input_items)?|POST:/v1/responses/[A-Za-z0-9_-]{1,200}/cancel)$"
"""The routes with an id in them: same path at the engine."""

PREDICT = ("/predict", "/predictWithResponseStream")
"""OCI's routes: the engine route is the header `route`, else the endpoint's default route."""

HUGGING_FACE_ROUTES = ("", "generate", "generate_stream", "info", "health")
"""First segment after /endpoints/{ns}/{name}/ of the routes whose errors have Hugging Face's shape."""


def is_default_route(path: str) -> bool:
    """Whether an endpoint may name `path` as its default route."""
    return f"POST:{path}" in ALLOWED


def dialect_of(path: str) -> str:
    """OPENAI or HUGGING_FACE: the shape in which errors at this (whole) path are told."""
    if path == "/manage" or path.startswith("/manage/"):
        return HUGGING_FACE
    if not path.startswith("/endpoints/"):
        return OPENAI
    segment = (path.split("/", 5) + [""] * 5)[4].split("/")[0]
    return HUGGING_FACE if segment in HUGGING_FACE_ROUTES else OPENAI
