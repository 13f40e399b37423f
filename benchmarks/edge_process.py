"""A real edge without a cluster: the gateway and its HAProxy, fed by a manager in memory.

`python -m benchmarks.edge_process` reads one JSON line `{"home", "port", "endpoints", "keys", "engines": [ports], "concurrency",
"connections", "retry_connections"}` and prints `{"key": ..., "haproxy": pid}` when HAProxy is programmed. The first endpoint of
namespace `bench`, `e0`, has one replica per engine; the others are at zero. The key has a rate limit and a concurrency limit that
are never reached. Ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import uvloop

from cluster import keys, snapshot
from gateway import config, control, edge

NEVER_REACHED = 1_000_000_000


def compile_snapshot(asked: dict[str, Any]) -> tuple[str, snapshot.Snapshot]:
    """(a key, what the manager knows)."""
    replicas = tuple(snapshot.Replica(f"r{port}", 1, "127.0.0.1", port, asked["concurrency"]) for port in asked["engines"])
    rows = {}
    for number in range(asked["endpoints"]):
        row = snapshot.Endpoint(
            id=f"id{number}",
            namespace="bench",
            name=f"e{number}",
            state="scaledToZero" if number else "running",
            engine_secret="unused",  # noqa: S106 - the null engine checks nothing
            max_concurrency=100_000,
            replicas=() if number else replicas,
        )
        rows[row.path] = row
    known = {}
    for number in range(asked["keys"] - 1):
        known[keys.digest(f"other key {number}")] = snapshot.Key(f"k{number:011d}", keys.PLATFORM, "bench")
    minted = keys.mint(keys.PLATFORM)
    known[minted.digest] = snapshot.Key(minted.id, keys.PLATFORM, "bench", "", NEVER_REACHED, NEVER_REACHED)
    return minted.key, snapshot.Snapshot(1, rows, known)


async def main() -> None:
    """Serves until standard input ends."""
    asked = json.loads(sys.stdin.readline())
    key, now = compile_snapshot(asked)
    settings = config.EdgeConfig(
        home=Path(asked["home"]),
        port=asked["port"],
        host="127.0.0.1",
        threads=1,
        max_connections=asked["connections"],
        retry_connections=asked["retry_connections"],
    )
    gateway = edge.Edge(settings, control.ControlTwin(now))
    await gateway.start()
    running = asyncio.create_task(gateway.run())
    while gateway.version != now.version:  # noqa: ASYNC110 - the edge has no event for it
        await asyncio.sleep(0.05)
    sys.stdout.write(json.dumps({"key": key, "haproxy": int(settings.files.pid.read_text().split()[0])}) + "\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await gateway.stop(grace=0)


if __name__ == "__main__":
    uvloop.run(main())
