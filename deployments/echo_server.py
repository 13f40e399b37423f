"""The echo engine's server: OpenAI's routes, deterministic tokens, scripted delays and failures. No model, no GPU.

Tokens are the words of the last user message (or the prompt), repeated up to `max_tokens`. A request may script itself
with `"echo": {"delay_s": seconds, "status": code, "crash_after": tokens}`. Run: `python -m deployments.echo_server`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send

from deployments import adapter_names, echo_adapters, echo_protocol, echo_tally, engine_stats, guard, nap, usage
from deployments.dialects import inner
from deployments.echo_protocol import Completion, Refused

STREAM_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8")]


@dataclasses.dataclass(frozen=True)
class Settings:
    """cluster.images.EchoImage, without the import of pydantic: this server starts in a blink."""

    tokens_per_second: float = 0
    load_seconds: float = 0
    max_concurrency: int = 64
    wake_seconds: float = 0
    failure: str = "none"
    tag: str = ""
    lora: bool = False
    """Whether adapters can be loaded."""


@dataclasses.dataclass(frozen=True)
class Call:
    """One request, read whole, and where its answer goes."""

    body: bytes
    content_type: str
    smoke: bool
    """It is the supervisor's own."""
    send: Send
    id: str
    """For the tally; '' for what is not to be there."""

    def json(self) -> dict[str, Any]:
        """The request's object. Raises Refused."""
        return echo_protocol.parse(self.content_type, self.body)


class Server:
    """The ASGI application."""

    def __init__(self, model: str, settings: Settings, stats: engine_stats.EngineStats = engine_stats.CURRENT) -> None:
        self._model = model
        self._settings = settings
        self._stats = stats
        self._slots = asyncio.Semaphore(settings.max_concurrency)
        self._waiting = self._running = self._made = 0
        self._ready_at = time.monotonic() + settings.load_seconds
        self._routes = {
            ("GET", "/health"): self._health,
            ("GET", "/v1/models"): self._models,
            ("POST", "/v1/chat/completions"): self._chat,
            ("POST", "/v1/completions"): self._completions,
            ("POST", "/v1/embeddings"): self._embeddings,
            ("POST", "/tokenize"): self._tokenize,
        }
        if settings.lora:
            self._routes[("POST", "/v1/load_lora_adapter")] = self._load_adapter
            self._routes[("POST", "/v1/unload_lora_adapter")] = self._unload_adapter
        self._adapters = echo_adapters.Loaded()
        self._tally = echo_tally.Tally(model)
        stats.connected = True
        stats.unfinished = lambda: self._running + self._waiting
        stats.waiting = lambda: self._waiting
        stats.tasks = ("generate", "embed")
        stats.nap = nap.Nap(lambda: asyncio.sleep(0), lambda: asyncio.sleep(settings.wake_seconds))
        stats.max_concurrency = settings.max_concurrency

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry. An answer is cancelled at once when its client leaves."""
        if scope["type"] != "http":
            return
        handler = self._routes.get((scope["method"], scope["path"]))
        try:
            if handler is None:
                raise Refused(404, f"there is no {scope['method']} {scope['path']} here")
            body = await inner.read_body(receive)
            await _while_connected(handler(self._call(scope, body, send)), receive)
        except inner.ClientGone:
            return
        except inner.BodyTooLarge as exc:
            await inner.answer_json(send, 413, Refused(413, str(exc.__doc__)).body)
        except Refused as exc:
            await inner.answer_json(send, exc.status, exc.body)
        except adapter_names.Refused as exc:
            await inner.answer_json(send, 400, Refused(400, str(exc)).body)

    def _call(self, scope: Scope, body: bytes, send: Send) -> Call:
        content_type = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"content-type"), "")
        smoke = bool(scope.get(guard.INTERNAL))
        identity = "" if smoke or scope["method"] == "GET" else self._tally.asked(scope["headers"])
        return Call(body, content_type, smoke, send, identity)

    async def _health(self, call: Call) -> None:
        ready = time.monotonic() >= self._ready_at and self._settings.failure != "hang"
        await inner.answer_json(call.send, 200 if ready else 503, {"status": "ok" if ready else "loading"})

    async def _models(self, call: Call) -> None:
        model = {"id": self._model, "object": "model", "created": 0, "owned_by": "moorage", "max_model_len": echo_protocol.MAX_TOKENS}
        adapters = [{**model, "id": name, "parent": self._model} for name in adapter_names.CURRENT.listed()]
        await inner.answer_json(call.send, 200, {"object": "list", "data": [model, *adapters]})

    async def _chat(self, call: Call) -> None:
        request = call.json()
        await self._generate(call, echo_protocol.chat(request, self._model, self._adapter_of(request)))

    async def _completions(self, call: Call) -> None:
        request = call.json()
        await self._generate(call, echo_protocol.completion(request, self._model, self._adapter_of(request)))

    def _adapter_of(self, request: dict[str, Any]) -> str | None:
        """The adapter that is asked for, which is noted. Raises Refused, adapter_names.Refused."""
        model, account = request.get("model"), usage.ACCOUNT.get()
        if account is not None and isinstance(model, str):
            account.model = model
        adapter = self._adapters.of(request)
        if account is not None and adapter is not None:
            account.adapter = adapter
        return adapter

    async def _load_adapter(self, call: Call) -> None:
        await self._adapters.load(call.json())
        await inner.answer_json(call.send, 200, {})

    async def _unload_adapter(self, call: Call) -> None:
        self._adapters.unload(call.json())
        await inner.answer_json(call.send, 200, {})

    async def _embeddings(self, call: Call) -> None:
        request = call.json()
        self._adapter_of(request)
        async with self._slot(call) as number:
            vectors, count = echo_protocol.embeddings(request)
            self._tally.made("prompt", call.id, count)
            _count(prompt=count)
        answer = {"id": f"embd-echo-{number}", "object": "list", "created": int(time.time()), "model": request.get("model") or self._model}
        data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
        await inner.answer_json(call.send, 200, {**answer, "data": data, "usage": {"prompt_tokens": count, "total_tokens": count}})

    async def _tokenize(self, call: Call) -> None:
        request = call.json()
        prompt = request.get("prompt")
        words = echo_protocol.messages(request)[0] if not isinstance(prompt, str) else prompt.split()
        tokens = [echo_protocol.token_id(word) for word in words]
        await inner.answer_json(call.send, 200, {"count": len(words), "max_model_len": echo_protocol.MAX_TOKENS, "tokens": tokens})

    async def _generate(self, call: Call, completion: Completion) -> None:
        async with self._slot(call) as number:
            self._tally.made("prompt", call.id, completion.prompt_tokens)
            _count(prompt=completion.prompt_tokens)
            await asyncio.sleep(completion.delay_s)
            if completion.stream:
                await self._stream(completion, number, call)
                return
            async for _ in self._paced(completion, call):
                pass
        answer = {**completion.base(number, self._settings.tag), "choices": completion.whole(), "usage": completion.usage_body}
        await inner.answer_json(call.send, 200, answer)

    async def _stream(self, completion: Completion, number: int, call: Call) -> None:
        send = call.send
        base = completion.base(number, self._settings.tag, chunk=True)
        await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
        for choice in completion.opening():
            await _event(send, {**base, "choices": [choice]})
        async for token in self._paced(completion, call):
            for choice in completion.pieces(token):
                await _event(send, {**base, "choices": [choice]})
        for choice in completion.closing():
            await _event(send, {**base, "choices": [choice]})
        if completion.usage:
            await _event(send, {**base, "choices": [], "usage": completion.usage_body})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    async def _paced(self, completion: Completion, call: Call) -> AsyncIterator[str]:
        """The tokens at the pace set; each is a step of the engine, in all answers at once."""
        pace, began = self._settings.tokens_per_second, time.monotonic()
        for number, token in enumerate(completion.tokens):
            if completion.crash_after is not None and number >= completion.crash_after:
                _crash("told to crash in the middle of an answer")
            await asyncio.sleep(max(0.0, began + (number + 1) / pace - time.monotonic()) if pace else 0)
            self._stats.stepped_at = time.monotonic()
            self._tally.made("completion", call.id, completion.answers)
            _count(completion=completion.answers)
            yield token

    @contextlib.asynccontextmanager
    async def _slot(self, call: Call) -> AsyncIterator[int]:
        """One of the `max_concurrency` places, as the request's number; who has to wait for one is counted as waiting."""
        self._waiting += 1
        came = time.monotonic()
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        if (account := usage.ACCOUNT.get()) is not None:
            account.queue_s = time.monotonic() - came
        self._running += 1
        self._made += 1
        self._stats.stepped_at = time.monotonic()
        try:
            self._maybe_fail(call)
            yield self._made
        finally:
            self._running -= 1
            self._slots.release()

    def _maybe_fail(self, call: Call) -> None:
        if self._settings.failure == "crash" and not call.smoke:
            _crash("told to crash at the first request")
        if self._settings.failure == "smoke" and call.smoke:
            raise Refused(500, "told to fail the smoke request")


def _count(*, prompt: int = 0, completion: int = 0) -> None:
    """Into the request's account."""
    account = usage.ACCOUNT.get()
    if account is not None:
        account.prompt_tokens += prompt
        account.completion_tokens += completion
        if completion:
            account.first_token()


async def _while_connected(answer: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Runs `answer` to its end, or until the client leaves."""
    working = asyncio.ensure_future(answer)
    leaving = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        if not working.done():
            working.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await working
    if not working.cancelled():
        working.result()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _event(send: Send, body: dict[str, Any]) -> None:
    data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    await send({"type": "http.response.body", "body": b"data: " + data + b"\n\n", "more_body": True})


def _crash(why: str) -> None:
    sys.stderr.write(f"ERROR: {why}\n")
    sys.stderr.flush()
    os._exit(1)


async def _fail_load(settings: Settings) -> None:
    await asyncio.sleep(settings.load_seconds)
    _crash("told to fail while loading")


async def _serve(arguments: argparse.Namespace) -> None:
    settings = Settings(**json.loads(arguments.settings))
    app = guard.Guard(Server(arguments.model, settings))
    config = uvicorn.Config(app, arguments.host, arguments.port, access_log=False, lifespan="off", ws="none", log_level="info")
    failing = asyncio.create_task(_fail_load(settings)) if settings.failure == "load" else None
    try:
        await uvicorn.Server(config).serve()
    finally:
        if failing:
            failing.cancel()


def main() -> None:
    """The command line: --host, --port, --model and --settings (Settings as JSON)."""
    parser = argparse.ArgumentParser(description="Echo engine server")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--model", default="echo")
    parser.add_argument("--settings", default="{}")
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
