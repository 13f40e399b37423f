"""Which engine routes exist from outside (default deny), and which error dialect a path speaks.

Servers of the user's own (snapshot.Endpoint.own_routes) are the exception: all paths below their endpoint's URL are theirs.

HAProxy gets `ALLOWED` and `USUAL` as maps, `RESPONSES` and `ELSEWHERE` as regular expressions; the slow path asks `dialect_of`. Who may
call which endpoint is decided elsewhere.
"""

from __future__ import annotations

OPENAI, HUGGING_FACE, ANTHROPIC = "openai", "huggingface", "anthropic"

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

PREDICTION = tuple(f"/api/{version}predict/generic{end}" for version in ("", "v2/") for end in ("", "/stream"))
"""SambaStudio's routes."""

ALLOWED: dict[str, str] = {
    **{f"POST:/v1/{route}": f"/v1/{route}" for route in _SAME},
    **{f"POST:/v1/{route}": f"/{route}" for route in _AT_ROOT},
    "GET:/v1/models": "/v1/models",
    "GET:/v1/realtime": "/v1/realtime",
    "POST:/": "/",
    "POST:/generate": "/generate",
    "POST:/generate_stream": "/generate_stream",
    **{f"POST:{route}": route for route in PREDICTION},
    "GET:/info": "/info",
    "GET:/health": "/health",
}
"""`METHOD:path` as seen after the endpoint's prefix -> the engine's own path."""

MESSAGES = ("/v1/messages", "/v1/messages/count_tokens")
"""Anthropic's routes: their errors have its shape."""

UNUSUAL = {"/v1/responses", *MESSAGES}
"""Routes that HAProxy has to look at more closely than at others."""

USUAL = {route.removeprefix("POST:/"): to for route, to in ALLOWED.items() if route.startswith("POST:/v1/") and to not in UNUSUAL}
"""The other routes of POST below /v1, without their first slash -> the engine's own path."""

ELSEWHERE = {
    r"^/api/(v2/)?predict/generic(/stream)?/([^/]+)/([^/]+)$": r"/endpoints/\3/\4/api/\1predict/generic\2",
    r"^/openai/v1/([^/]+)/([^/]+)/(.+)$": r"/endpoints/\1/\2/v1/\3",
}
"""SambaStudio's URLs of an endpoint -> the same route below the endpoint's own URL."""

RESPONSES = r"^((GET|DELETE):/v1/responses/[A-Za-z0-9_-]{1,200}(/input_items)?|POST:/v1/responses/[A-Za-z0-9_-]{1,200}/cancel)$"
"""The routes with an id in them: same path at the engine."""

KEPT = r"^resp_[A-Za-z0-9.:-]{1,100}_[0-9a-f]{32}$"
"""An id of a response that a replica keeps: `resp_{name of its server in HAProxy}_{random}`."""

PREDICT = ("/predict", "/predictWithResponseStream")
"""OCI's routes: the engine route is the header `route`, else the endpoint's default route."""

PREDICT_VARIABLE = "MODEL_DEPLOY_PREDICT_ENDPOINT"
"""OCI's name for the default route, in the environment of an endpoint's model."""

HUGGING_FACE_ROUTES = ("", "generate", "generate_stream", "info", "health")
"""First segment after /endpoints/{ns}/{name}/ of the routes whose errors have Hugging Face's shape."""


def is_default_route(path: str) -> bool:
    """Whether an endpoint may name `path` as its default route."""
    return f"POST:{path}" in ALLOWED


def dialect_of_engine(path: str) -> str:
    """The same for an engine's own route."""
    return dialect_of(f"/endpoints/n/e{path}")


def dialect_of(path: str) -> str:
    """OPENAI, HUGGING_FACE or ANTHROPIC: the shape in which errors at this (whole) path are told."""
    if path == "/manage" or path.startswith("/manage/"):
        return HUGGING_FACE
    if path.endswith(MESSAGES):
        return ANTHROPIC
    if not path.startswith("/endpoints/"):
        return OPENAI
    segment = (path.split("/", 5) + [""] * 5)[4].split("/")[0]
    return HUGGING_FACE if segment in HUGGING_FACE_ROUTES else OPENAI
