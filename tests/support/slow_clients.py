"""Many clients that dawdle, as a program of its own, so that they take no time from whoever measures.

`python slow_clients.py PORT COUNT BEGINNING [reopen|once] [drip|still]`: each of COUNT connections sends the file BEGINNING at once,
then a byte a second (`drip`) or nothing (`still`), and reads nothing. Says `ready` when all are open, then one JSON line a second
with what became of them: `ages` are the seconds after which the server closed a connection; `reopen` opens another in its place.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path


class Crowd:
    """All connections, and what became of them."""

    def __init__(self, port: int, beginning: bytes, *, drip: bool) -> None:
        self._port = port
        self._beginning = beginning
        self._drip = drip
        self.open: dict[int, float] = {}
        self.ages: list[float] = []
        self.refused = 0

    async def one(self, number: int, *, reopen: bool) -> None:
        """Dawdles until the server has had enough, again and again if it should `reopen`."""
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1024)
            except OSError:
                self.refused += 1
                await asyncio.sleep(1)
                continue
            self.open[number] = began = time.monotonic()
            try:
                await self._dawdle(reader, writer)
            except OSError:
                pass
            self.ages.append(round(time.monotonic() - began, 2))
            del self.open[number]
            writer.close()
            if not reopen:
                return

    async def _dawdle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._beginning)
        # No answer is read: the transport notices the end when it may not write any more, or is told that it was reset.
        writer.transport.pause_reading() if not self._drip else None  # type: ignore[attr-defined]
        while not writer.transport.is_closing() and not reader.at_eof():
            await asyncio.sleep(1)
            if self._drip:
                writer.write(b"x")

    def told(self) -> str:
        """What has become of them so far."""
        oldest = max((time.monotonic() - began for began in self.open.values()), default=0.0)
        return json.dumps({"open": len(self.open), "oldest": round(oldest, 2), "ages": self.ages, "refused": self.refused})


async def main(port: int, count: int, beginning: bytes, reopen: bool, drip: bool) -> None:
    """Until killed."""
    crowd = Crowd(port, beginning, drip=drip)
    tasks = [asyncio.create_task(crowd.one(number, reopen=reopen)) for number in range(count)]
    while len(crowd.open) + len(crowd.ages) < count:  # noqa: ASYNC110 - seldom asked, and soon over
        await asyncio.sleep(0.05)
    print("ready", flush=True)
    while True:
        await asyncio.sleep(1)
        print(crowd.told(), flush=True)
        if all(task.done() for task in tasks):
            return


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]).read_bytes(), sys.argv[4] == "reopen", sys.argv[5] == "drip"))
