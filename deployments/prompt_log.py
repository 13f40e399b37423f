"""ASGI middleware: keeps what clients send and get where the endpoint asks for it, until the supervisor fetches it.

Off, it passes requests on untouched. On, it keeps bounded copies while the bytes go by, and redacts them in a thread when they
are fetched. Nothing of them is written to this machine's disk.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import json
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster import messages
from deployments import prompt_texts
from deployments.dialects import inner

ROUTE = "/_moorage/prompts"
REQUEST_BYTES = 2 * 2**20
"""Of one body; of a larger one nothing is kept but that it was too large. Streams have a frame of some hundred bytes round a word."""
HELD_BYTES = 32 * 2**20
"""Of all bodies that wait to be fetched; beyond it the oldest go."""
BATCH = 200


@dataclasses.dataclass(frozen=True)
class Captured:
    """One request's bodies, as they were; `answer` None = not asked for."""

    id: str
    at: float
    route: str
    body: bytes = dataclasses.field(repr=False)
    answer: bytes | None = dataclasses.field(repr=False)

    @property
    def size(self) -> int:
        """Bytes held."""
        return len(self.body) + len(self.answer or b"")


class PromptLog:
    """Wraps `app`. `control` is the supervisor's door: GET takes what was kept, POST tells the policy."""

    def __init__(self, app: ASGIApp, clock: Callable[[], float] = time.time) -> None:
        self._app = app
        self._clock = clock
        self._policy = messages.PromptPolicy()
        self._held: collections.deque[Captured] = collections.deque()
        self._size = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry."""
        if not self._policy.prompts or scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        identity = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), "")
        if not identity:  # the supervisor's own request
            await self._app(scope, receive, send)
            return
        asked, said = _Copy(), _Copy() if self._policy.answers else None

        async def copied_receive() -> Message:
            message = await receive()
            asked.add(message.get("body", b""))
            return message

        async def copied_send(message: Message) -> None:
            await send(message)
            if said is not None:
                said.add(message.get("body", b""))

        try:
            await self._app(scope, copied_receive, copied_send)
        finally:
            self._hold(Captured(identity, self._clock(), scope["path"], asked.whole(), said.whole() if said is not None else None))

    async def control(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The guard's control route; only the supervisor comes here."""
        if scope["method"] == "POST":
            self.tell(messages.PromptPolicy(**json.loads(await inner.read_body(receive))))
            await inner.answer_json(send, 200, {})
            return
        found = await self.take()
        await inner.answer_json(send, 200, {"prompts": [dataclasses.asdict(prompt) for prompt in found], "more": bool(self._held)})

    def tell(self, policy: messages.PromptPolicy) -> None:
        """From now on; what was kept under a policy that is over is dropped."""
        self._policy = messages.PromptPolicy(policy.prompts, policy.answers, tuple(policy.redact), policy.max_bytes)
        if not policy.prompts:
            self._held.clear()
            self._size = 0

    async def take(self) -> list[messages.Prompt]:
        """What was kept and not taken yet, redacted, at most BATCH of it."""
        batch: list[Captured] = []
        while self._held and len(batch) < BATCH:
            batch.append(self._held.popleft())
            self._size -= batch[-1].size
        return await asyncio.to_thread(_redacted, batch, self._policy) if batch else []

    def _hold(self, captured: Captured) -> None:
        if not self._policy.prompts:
            return  # switched off meanwhile
        self._held.append(captured)
        self._size += captured.size
        while self._size > HELD_BYTES:
            self._size -= self._held.popleft().size


class _Copy:
    """The parts of a body as they go by; of a body over the limit nothing."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, part: bytes) -> None:
        if not part:
            return
        self._size += len(part)
        if self._size > REQUEST_BYTES:
            self._parts.clear()
        else:
            self._parts.append(part)

    def whole(self) -> bytes:
        return b"".join(self._parts)


def _redacted(batch: list[Captured], policy: messages.PromptPolicy) -> list[messages.Prompt]:
    found = (prompt_texts.kept(one.id, one.at, one.route, (one.body, one.answer), policy) for one in batch)
    return [prompt for prompt in found if prompt is not None]
