"""The supervisor's side of a server's HTTP: health, the guard's control routes, and the smoke request."""

from __future__ import annotations

import dataclasses
import io
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

STATS_DEADLINE_S = 5.0
ADAPTER_DEADLINE_S = 600.0
"""For the engine to load an adapter: it waits for the engine's present step, and reads some hundred megabytes."""
PROMPTS_DEADLINE_S = 30.0
"""For a batch of prompts: what is to be struck out of them is struck out then."""


def _silence() -> bytes:
    """A tenth of a second of it, as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16_000)
        sound.writeframes(bytes(3_200))
    return file.getvalue()


MODEL_TASKS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "generate": ("/v1/completions", {"json": {"prompt": "Hello", "max_tokens": 1, "temperature": 0}}),
    "embed": ("/v1/embeddings", {"json": {"input": "Hello"}}),
    "classify": ("/classify", {"json": {"input": "Hello"}}),
    "image": ("/v1/images/generations", {"json": {"prompt": "Hello", "size": "256x256", "num_inference_steps": 1}}),
    "score": ("/score", {"json": {"text_1": "Hello", "text_2": "Hello"}}),
    "transcription": (
        "/v1/audio/transcriptions",
        {"files": {"file": ("silence.wav", _silence(), "audio/wav")}, "data": {"language": "en", "max_completion_tokens": "1"}},
    ),
}
"""Smoke requests by task, in order of preference: the path, and the body in httpx's words."""


class NoAnswer(Exception):
    """The server did not answer, or not in time."""


class Awake(Exception):
    """The engine does not go to sleep now: it has requests, or no sleep mode."""


class SmokeFailed(Exception):
    """The smoke request was answered with an error; the message is the server's."""


class NotLoaded(Exception):
    """The engine refused to load an adapter; the message is the engine's."""


@dataclasses.dataclass(frozen=True)
class Stats:
    """What the guard reports. `steps_at` is in seconds of the monotonic clock."""

    inflight: int
    running: int
    waiting: int
    steps_at: float
    connected: bool
    tasks: tuple[str, ...]
    max_concurrency: int
    idle_s: float = 0.0
    """Since the last request ended; 0 while there is one."""
    asleep: bool = False
    woke_in_s: float = 0.0
    """How long the last waking took."""

    @property
    def ongoing(self) -> int:
        """Running and waiting requests."""
        return self.running + self.waiting


class ServerClient:
    """One server. Every call raises NoAnswer when there is none."""

    def __init__(self, host: str, port: int, engine_secret: str, control_token: str) -> None:
        address = f"[{host}]" if ":" in host else host
        headers = {"x-engine-secret": engine_secret, "x-moorage-control": control_token}
        self._http = httpx.AsyncClient(base_url=f"http://{address}:{port}", headers=headers, trust_env=False, timeout=STATS_DEADLINE_S)

    async def ready(self) -> bool:
        """Whether /health says 200."""
        try:
            return (await self._http.get("/health")).status_code == 200
        except httpx.HTTPError:
            return False

    async def stats(self) -> Stats:
        """The guard's report."""
        return _stats(await self._request("GET", "/_moorage/stats"))

    async def drain(self) -> Stats:
        """From now on /health says 404; requests are still answered."""
        return _stats(await self._request("POST", "/_moorage/drain"))

    async def settle(self) -> None:
        """The server is about to be killed: it records what the requests have used that it is working on. Raises NoAnswer."""
        _stats(await self._request("POST", "/_moorage/settle"))

    async def sleep(self, timeout_s: float) -> Stats:
        """The engine sleeps when this returns; the next request wakes it. Raises Awake, NoAnswer."""
        answer = await self._request("POST", "/_moorage/sleep", timeout_s=timeout_s)
        if answer.status_code in (404, 409):
            raise Awake(_message(answer))
        return _stats(answer)

    async def smoke(self, tasks: tuple[str, ...], timeout_s: float) -> None:
        """Makes one small real request of the first task there is one for. Raises SmokeFailed, NoAnswer."""
        found = next((MODEL_TASKS[task] for task in MODEL_TASKS if task in tasks), None)
        if found is None:
            return  # a task that nothing is known about
        path, body = found
        answer = await self._request("POST", path, timeout_s=timeout_s, **body)
        if answer.status_code != 200:
            raise SmokeFailed(_message(answer))

    async def tell_adapters(self, adapters: Mapping[str, Mapping[str, str]], retired: tuple[str, ...]) -> None:
        """Which names are adapters and how far each is; see deployments.adapter_names.Names.tell."""
        _stats(await self._request("POST", "/_moorage/adapters", {"adapters": adapters, "retired": retired}))

    async def load_adapter(self, name: str, folder: Path) -> None:
        """By the engine's own route. Raises NotLoaded, NoAnswer."""
        body = {"lora_name": name, "lora_path": str(folder)}
        answer = await self._request("POST", "/v1/load_lora_adapter", body, ADAPTER_DEADLINE_S)
        if answer.status_code != 200:
            raise NotLoaded(_message(answer))

    async def unload_adapter(self, name: str) -> None:
        """By the engine's own route; one that is not loaded is no error. Answers under way go on. Raises NoAnswer."""
        await self._request("POST", "/v1/unload_lora_adapter", {"lora_name": name}, ADAPTER_DEADLINE_S)

    async def tell_prompts(self, policy: Mapping[str, Any]) -> None:
        """Which prompts are to be kept: cluster.messages.PromptPolicy's fields. Raises NoAnswer."""
        answer = await self._request("POST", "/_moorage/prompts", policy)
        if answer.status_code != 200:
            raise NoAnswer(f"control route: {answer.status_code}")

    async def prompts(self) -> list[dict[str, Any]]:
        """What was kept since the last call: fields of cluster.messages.Prompt. Raises NoAnswer."""
        answer = await self._request("GET", "/_moorage/prompts", timeout_s=PROMPTS_DEADLINE_S)
        if answer.status_code != 200:
            raise NoAnswer(f"control route: {answer.status_code}")
        found: list[dict[str, Any]] = answer.json()["prompts"]
        return found

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def _request(self, method: str, path: str, json: Any = None, timeout_s: float = STATS_DEADLINE_S, **form: Any) -> httpx.Response:
        """`form` is httpx's `files` and `data`."""
        try:
            return await self._http.request(method, path, json=json, timeout=timeout_s, **form)
        except httpx.HTTPError as exc:
            raise NoAnswer(f"{method} {path}: {type(exc).__name__}") from exc


def _stats(answer: httpx.Response) -> Stats:
    if answer.status_code != 200:
        raise NoAnswer(f"control route: {answer.status_code}")
    body = answer.json()
    return Stats(
        inflight=body["inflight"],
        running=body["running"],
        waiting=body["waiting"],
        steps_at=body["steps_at"],
        connected=body["connected"],
        tasks=tuple(body["tasks"]),
        max_concurrency=body["max_concurrency"],
        idle_s=body["idle_s"],
        asleep=body["asleep"],
        woke_in_s=body["woke_in_s"],
    )


def _message(answer: httpx.Response) -> str:
    try:
        error = answer.json()["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status_code}"
