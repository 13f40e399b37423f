"""Clients of every kind at a steady rate, on several endpoints with several keys; each request and what its client saw is written down."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp

WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog")
KINDS: Mapping[str, int] = {
    "chat": 30,
    "completion": 15,
    "several answers": 10,
    "stream": 20,
    "long stream": 5,
    "leaves": 8,
    "bad": 4,
    "fails": 2,
    "stranger": 3,
    "limited": 3,
}
"""What a client does -> how many of a hundred do."""
TRIES = 3
"""Of a request that got no answer or was told to come back, as clients of OpenAI make them."""


@dataclasses.dataclass
class Seen:
    """One try of a request."""

    kind: str
    endpoint: str
    key: str
    """Its name among the keys given."""
    answers: int = 1
    """That were asked for."""
    id: str = ""
    status: int = 0
    """0 = no answer."""
    whole: bool = False
    tokens: tuple[int, int] | None = None
    """Prompt and completion, as the answer says."""
    ended: float = 0.0
    """Unix seconds."""


class MixedLoad:
    """`run` makes `count` requests, `rate` a second."""

    def __init__(
        self,
        url: str,
        keys: Mapping[tuple[str, str], str],
        limited: Mapping[tuple[str, str], str],
        *,
        seed: int,
        kinds: Mapping[str, int] = KINDS,
    ) -> None:
        """`keys` and `limited`: (endpoint, the key's name) -> the key; those that are `limited` are used by one kind alone."""
        self._url = url
        self._keys, self._limited, self._kinds = dict(keys), dict(limited), dict(kinds)
        self._random = random.Random(seed)
        self.begun = 0
        self.tries: list[Seen] = []

    async def run(self, count: int, rate: float) -> None:
        """Until all have ended."""
        timeout = aiohttp.ClientTimeout(total=120)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session, asyncio.TaskGroup() as all_:
            start = time.monotonic()
            while self.begun < count:
                kind = self._random.choices(list(self._kinds), list(self._kinds.values()))[0]
                all_.create_task(self._request(session, kind))
                self.begun += 1
                await asyncio.sleep(max(0.0, start + self.begun / rate - time.monotonic()))

    async def _request(self, session: aiohttp.ClientSession, kind: str) -> None:
        keys = self._limited if kind == "limited" else self._keys
        (endpoint, name), key = self._random.choice(sorted(keys.items()))
        body = self._body(kind, endpoint)
        for _ in range(TRIES):
            seen = Seen(kind, endpoint, name, answers=body.get("n", 1))
            self.tries.append(seen)
            # A connection that breaks, or a body that is none, is what the client saw of it.
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError, ValueError):
                await self._try(session, seen, "nonsense" if kind == "stranger" else key, body)
            seen.ended = time.time()
            if seen.status not in (0, 503):
                return

    def _body(self, kind: str, endpoint: str) -> dict[str, Any]:
        words = " ".join(self._random.choices(WORDS, k=self._random.randint(1, 9)))
        body: dict[str, Any] = {"model": endpoint, "max_tokens": self._random.randint(1, 12)}
        body |= {"prompt": words} if kind == "completion" else {"messages": [{"role": "user", "content": words}]}
        if kind in ("stream", "long stream", "leaves"):
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        if kind == "long stream":
            body["max_tokens"] = 200
        if kind == "leaves":
            body["max_tokens"] = 400
        if kind == "several answers":
            body |= {"n": self._random.randint(2, 4), "stream": self._random.random() < 0.5, "stream_options": {"include_usage": True}}
        if kind == "bad":
            body["max_tokens"] = 0
        if kind == "fails":
            body["echo"] = {"status": self._random.choice((400, 500))}
        return body

    async def _try(self, session: aiohttp.ClientSession, seen: Seen, key: str, body: dict[str, Any]) -> None:
        path = "completions" if "prompt" in body else "chat/completions"
        url = f"{self._url}/endpoints/admin/{seen.endpoint}/v1/{path}"
        async with session.post(url, json=body, headers={"authorization": f"Bearer {key}"}) as answer:
            seen.id, seen.status = answer.headers.get("x-request-id", ""), answer.status
            if seen.kind == "leaves" and answer.status == 200:
                for _ in range(self._random.randint(1, 5)):
                    await answer.content.readline()
                answer.close()
                return
            text = (await answer.read()).decode()
        said = _last_event(text) if body.get("stream") and seen.status == 200 else [json.loads(text)]
        seen.whole = bool(said)
        if seen.status == 200 and seen.whole:
            seen.tokens = (said[0]["usage"]["prompt_tokens"], said[0]["usage"]["completion_tokens"])


def _last_event(text: str) -> Sequence[dict[str, Any]]:
    """The one before `[DONE]`; none where the stream did not end."""
    events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(events[-2])] if len(events) > 1 and events[-1] == "[DONE]" else []
