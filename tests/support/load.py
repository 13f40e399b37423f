"""An open-loop load generator: requests start on schedule whatever becomes of the earlier ones, and each is written down."""

import asyncio
import contextlib
import dataclasses
import json
import re
import threading
import time

import aiohttp

TAG = re.compile(r'"system_fingerprint": ?"([^"]*)"')


@dataclasses.dataclass
class Answer:
    """What became of one request. `whole`: the body ended rightly (a stream: with [DONE] and a clean end)."""

    began: float
    status: int = 0
    seconds: float = 0.0
    whole: bool = False
    error: str = ""
    text: str = ""
    tag: str = ""
    """`system_fingerprint` of the answer; of a stream all that its chunks carry, joined by `+`."""
    retry_after: str = ""

    @property
    def good(self):
        return self.status == 200 and self.whole and not self.error

    @property
    def ended(self):
        return self.began + self.seconds

    @property
    def told(self):
        """Refused in a way that a client can act upon: 429 or 503 with Retry-After."""
        return self.status in (429, 503) and bool(self.retry_after) and not self.error


class Load:
    """`with Load(url, key, rate=20, body={...}) as load: ...; load.answers` - a POST to `url` every 1/rate seconds."""

    def __init__(self, url, key, *, rate, body, timeout=60):
        self.url, self.rate, self.body, self.timeout = url, rate, body, timeout
        self.headers = {"authorization": f"Bearer {key}"}
        self.answers = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """No new requests; waits for those under way."""
        self._stopping.set()
        self._thread.join()

    def since(self, moment):
        """Answers to requests begun at or after `moment` (time.monotonic)."""
        return [answer for answer in self.answers if answer.began >= moment]

    async def _run(self):
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, headers=self.headers) as session:
            start, number, running = time.monotonic(), 0, set()
            while not self._stopping.is_set():
                task = asyncio.create_task(self._one(session))
                running.add(task)
                task.add_done_callback(running.discard)
                number += 1
                await asyncio.sleep(max(0.0, start + number / self.rate - time.monotonic()))
            await asyncio.gather(*running)

    async def _one(self, session):
        answer = Answer(time.monotonic())
        try:
            async with session.post(self.url, json=self.body, timeout=aiohttp.ClientTimeout(total=self.timeout)) as response:
                answer.status = response.status
                answer.retry_after = response.headers.get("retry-after", "")
                async for piece in response.content.iter_any():
                    answer.text += piece.decode(errors="replace")
                answer.whole = self._ended_rightly(answer)
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            answer.error = f"{type(exc).__name__}: {exc}"
        answer.seconds = time.monotonic() - answer.began
        self.answers.append(answer)

    def _ended_rightly(self, answer):
        answer.tag = "+".join(sorted(set(TAG.findall(answer.text))))
        if self.body.get("stream"):
            return answer.text.rstrip().endswith("data: [DONE]")
        with contextlib.suppress(ValueError):
            return isinstance(json.loads(answer.text), dict)
        return False


def bad(answers):
    """A short account of the answers that were not good, for assertion messages."""
    return [(answer.status, answer.error, answer.text[-200:], round(answer.seconds, 2)) for answer in answers if not answer.good]


def latency(answers, share):
    """Seconds within which `share` of the good answers came."""
    ordered = sorted(answer.seconds for answer in answers if answer.good)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
