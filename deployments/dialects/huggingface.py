"""Hugging Face's inference protocol over the engine's OpenAI routes: POST /, /generate, /generate_stream, GET /info.

Everything else passes through untouched, but for one thing that huggingface_hub's client does to chat requests (`_chat`).
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from deployments import engine_stats
from deployments.dialects import generation, inner, pooling, speech

ERROR_TYPES = {
    400: (422, "validation"),
    422: (422, "validation"),
    404: (404, "not_found"),
    429: (429, "overloaded"),
    503: (503, "overloaded"),
}


@dataclasses.dataclass(frozen=True)
class Served:
    """What this server serves, as GET /info tells it."""

    model: str = ""
    revision: str | None = None
    task: str = "text-generation"
    endpoint: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Served:
        """Reads what the supervisor said (MOORAGE_MODEL_ID, MOORAGE_MODEL_REVISION, MOORAGE_TASK)."""
        return cls(
            environment.get("MOORAGE_MODEL_ID", ""),
            environment.get("MOORAGE_MODEL_REVISION") or None,
            environment.get("MOORAGE_TASK") or "text-generation",
            environment.get("MOORAGE_ENDPOINT", ""),
        )


class Dialect:
    """ASGI application in front of `app`, the engine's own."""

    def __init__(self, app: ASGIApp, served: Served | None = None, stats: engine_stats.EngineStats = engine_stats.CURRENT) -> None:
        self._app = app
        self._served = served or Served.from_environment(os.environ)
        self._stats = stats
        self._routes = {
            ("POST", "/"): self._root,
            ("POST", "/generate"): self._generate,
            ("POST", "/generate_stream"): self._generate_stream,
            ("GET", "/info"): self._info,
            ("POST", "/v1/chat/completions"): self._chat,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry."""
        handler = self._routes.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if handler is None:
            await self._app(scope, receive, send)
            return
        try:
            await handler(scope, receive, send)
        except inner.ClientGone:
            return
        except inner.BodyTooLarge as exc:
            await inner.answer_json(send, 413, {"error": str(exc.__doc__), "error_type": "validation"})
        except generation.Invalid as exc:
            await inner.answer_json(send, 422, {"error": str(exc), "error_type": "validation"})

    async def _root(self, scope: Scope, receive: Receive, send: Send) -> None:
        content = await inner.read_body(receive)
        if self._served.task in speech.TASKS:
            await self._hear(content, scope, receive, send)
            return
        body = _parse(content)
        if self._served.task in pooling.TASKS:
            await self._look(body, scope, receive, send)
        elif body.get("stream"):
            await self._stream(body, scope, receive, send)
        else:
            await self._complete(body, scope, receive, send, as_list=True)

    async def _generate(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._complete(_parse(await inner.read_body(receive)), scope, receive, send, as_list=False)

    async def _generate_stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._stream(_parse(await inner.read_body(receive)), scope, receive, send)

    async def _complete(self, body: dict[str, Any], scope: Scope, receive: Receive, send: Send, *, as_list: bool) -> None:
        request, wanted = generation.to_completions(body.get("inputs"), body.get("parameters"), stream=False)
        self._name_adapter(request)
        answer = await self._ask("POST", "/v1/completions", request, scope, receive)
        if not answer.complete:
            return  # the client left
        if answer.status != 200:
            await _fail(send, answer)
            return
        results = generation.from_completions(json.loads(answer.body), wanted)
        await inner.answer_json(send, 200, results if as_list or len(results) > 1 else results[0])

    async def _stream(self, body: dict[str, Any], scope: Scope, receive: Receive, send: Send) -> None:
        request, wanted = generation.to_completions(body.get("inputs"), body.get("parameters"), stream=True)
        self._name_adapter(request)
        content = json.dumps(request).encode()
        relay = _EventRelay(send, generation.Stream(wanted))
        await self._app(inner.request(scope, "POST", "/v1/completions", content), inner.replay(content, receive), relay)
        await relay.finish()

    def _name_adapter(self, request: dict[str, Any]) -> None:
        """`adapter_id` never means the base model, which any unknown bare name does."""
        if self._served.endpoint and isinstance(request.get("model"), str):
            request["model"] = f"{self._served.endpoint}:{request['model']}"

    async def _look(self, body: dict[str, Any], scope: Scope, receive: Receive, send: Send) -> None:
        asked = pooling.translate(body, self._served.task, self._stats.labels)
        answer = await self._ask("POST", asked.route, dict(asked.body), scope, receive)
        if not answer.complete:
            return  # the client left
        if answer.status != 200:
            await _fail(send, answer)
            return
        await inner.answer_json(send, 200, asked.read(json.loads(answer.body)))

    async def _hear(self, content: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        asked = speech.translate(content)
        form, kind = asked.form()
        answer = inner.Answer()
        await self._app(inner.request(scope, "POST", asked.route, form, kind), inner.replay(form, receive), answer)
        if not answer.complete:
            return  # the client left
        if answer.status != 200:
            await _fail(send, answer)
            return
        await inner.answer_json(send, 200, asked.read(json.loads(answer.body)))

    async def _info(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await self._ask("GET", "/v1/models", None, scope, receive)
        models = json.loads(answer.body)["data"] if answer.status == 200 else []
        body: dict[str, Any] = {
            "model_id": self._served.model or (models[0]["id"] if models else ""),
            "model_sha": self._served.revision,
            "model_pipeline_tag": self._served.task,
        }
        if models and models[0].get("max_model_len"):
            body["max_total_tokens"] = models[0]["max_model_len"]
        await inner.answer_json(send, 200, body)

    async def _chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Undoes what InferenceClient makes of `response_format`: {"type": "json_object", "value": <schema>} would not bind the output."""
        body = await inner.read_body(receive)
        if b'"value"' in body and b'"json_object"' in body:
            body = _restore_schema(body)
            headers = [header for header in scope["headers"] if header[0] not in (b"content-length", b"transfer-encoding")]
            scope = {**scope, "headers": [*headers, (b"content-length", str(len(body)).encode())]}
        await self._app(scope, inner.replay(body, receive), send)

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None, scope: Scope, receive: Receive) -> inner.Answer:
        content = b"" if body is None else json.dumps(body).encode()
        answer = inner.Answer()
        await self._app(inner.request(scope, method, path, content), inner.replay(content, receive), answer)
        return answer


class _EventRelay(inner.Events):
    """Sends Hugging Face's events; an answer that is no stream is kept for `finish`."""

    def __init__(self, send: Send, stream: generation.Stream) -> None:
        super().__init__(send)
        self._stream = stream

    def translate(self, data: Any) -> bytes:
        """The events that one of the engine's is good for."""
        found = self._stream.feed(data)
        return b"".join(b"data:" + json.dumps(item, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n" for item in found)

    async def finish(self) -> None:
        """To be called when the engine's application has returned."""
        if self.error is not None and self.error.complete:
            await _fail(self._send, self.error)


def _parse(body: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise generation.Invalid("the body is not valid JSON") from exc
    if not isinstance(parsed, dict) or "inputs" not in parsed:
        raise generation.Invalid('the body must be a JSON object with "inputs"')
    return parsed


def _restore_schema(body: bytes) -> bytes:
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return body  # the engine says what is wrong with it
    wanted = parsed.get("response_format") if isinstance(parsed, dict) else None
    if not isinstance(wanted, dict) or wanted.get("type") != "json_object" or not isinstance(wanted.get("value"), dict):
        return body
    parsed["response_format"] = {"type": "json_schema", "json_schema": {"name": "response", "schema": wanted["value"]}}
    return json.dumps(parsed, ensure_ascii=False).encode()


async def _fail(send: Send, answer: inner.Answer) -> None:
    """The engine's error in Hugging Face's shape."""
    status, kind = ERROR_TYPES.get(answer.status, (answer.status, "generation"))
    try:
        error = json.loads(answer.body)["error"]
        message = error["message"] if isinstance(error, dict) else str(error)
    except (ValueError, KeyError, TypeError):
        message = "the engine refused the request"
    kept = [header for header in answer.headers if header[0] == b"retry-after"]
    await inner.answer_json(send, status, {"error": message, "error_type": kind}, kept)
