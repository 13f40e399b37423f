"""A real edge with engines that record what reaches them, for tests: `World`, `Engine`, `until`."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import json
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp import web

from cluster import keys, snapshot
from gateway import config, control, edge

SECRET = "engine-secret-1"


class Engine:
    """An engine server: refuses without the secret, answers what it saw, streams ticks, and can die."""

    def __init__(self, name: str = "engine", secret: str = SECRET) -> None:
        self.name = name
        self.secret = secret
        self.seen: list[web.Request] = []
        self.bodies: list[bytes] = []
        self.active = 0
        self.peak = 0
        self.cancelled = 0
        self.closed: list[int | None] = []
        """How its websockets ended."""
        self.sockets = True
        self.health = 200
        self.ticks = 5
        self.pause = 0.02
        self.filler = b""
        self.work = 0.0
        self.port = 0
        self.extra_headers: dict[str, str] = {}
        self._transports: set[Any] = set()
        self._runner: web.ServerRunner | None = None

    async def start(self) -> Engine:
        self._runner = web.ServerRunner(web.Server(self._handle, handler_cancellation=True))
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr,attr-defined]
        return self

    async def stop(self) -> None:
        if self._runner is not None:
            self.abort()
            await self._runner.cleanup()
            self._runner = None

    async def kill(self) -> None:
        """What a SIGKILL of the server process looks like from outside: connections reset, port refused."""
        self.abort()
        await self.stop()

    def abort(self) -> None:
        for transport in list(self._transports):
            transport.abort()

    def replica(self, **changes: Any) -> snapshot.Replica:
        fields = {"id": f"{self.name}-1", "revision": 1, "host": "127.0.0.1", "port": self.port, "max_concurrency": 64, **changes}
        return snapshot.Replica(**fields)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.getall("X-Engine-Secret", []) != [self.secret]:
            return web.Response(status=403)
        if request.path == "/health" and request.method == "GET" and request.headers.get("Host") == "engine":
            return web.Response(status=self.health)
        self._transports.add(request.transport)
        self.seen.append(request)  # type: ignore[arg-type]
        self.active += 1
        self.peak = max(self.peak, self.active)
        try:
            return await self._answer(request)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.active -= 1
            self._transports.discard(request.transport)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._websocket(request)
        body = await request.content.read()
        self.bodies.append(body)
        asked = json.loads(body) if body[:1] == b"{" else {}
        await asyncio.sleep(self.work)
        if not asked.get("stream"):
            answer = {"engine": self.name, "path": request.path, "query": request.rel_url.raw_query_string, "method": request.method}
            return web.json_response(answer | {"model": asked.get("model")}, headers=self.extra_headers)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for tick in range(self.ticks):
            await response.write(b"data: %d%s\n\n" % (tick, self.filler))
            await asyncio.sleep(self.pause)
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _websocket(self, request: web.BaseRequest) -> web.WebSocketResponse:
        if not self.sockets:
            return web.json_response({"error": "no socket here"}, status=404)
        response = web.WebSocketResponse(protocols=("spoken",))
        await response.prepare(request)
        try:
            async for message in response:
                if message.data.startswith("close "):
                    await response.close(code=int(message.data.split()[1]), message=message.data.encode())
                    break
                await response.send_str(f"{self.name}: {message.data}")
        finally:
            self.closed.append(response.close_code)
        return response


@dataclasses.dataclass
class World:
    """An edge, its manager and a client; `key` returns a new key and publishes it."""

    settings: config.EdgeConfig
    manager: control.ControlTwin
    edge: edge.Edge
    client: aiohttp.ClientSession
    url: str
    running: asyncio.Task[None] | None = None

    async def publish(self, *endpoints: snapshot.Endpoint, keys: dict[str, snapshot.Key] | None = None, gone: tuple[str, ...] = ()) -> None:
        """The manager's next version: these endpoints changed, these keys are all there are (None = as before)."""
        now = self.manager.now
        rows = {**now.endpoints, **{row.path: row for row in endpoints}}
        for path in gone:
            rows.pop(path)
        await self.change(endpoints=rows, keys=now.keys if keys is None else keys)

    async def change(self, **fields: Any) -> None:
        """The manager's next version, with these fields of the snapshot as given."""
        now = self.manager.now
        self.manager.publish(dataclasses.replace(now, version=now.version + 1, **fields))
        await self.caught_up()

    async def edit_key(self, key: str, **fields: Any) -> None:
        """Changes the row of a key."""
        digest = keys.digest(key)
        await self.change(keys={**self.manager.now.keys, digest: dataclasses.replace(self.manager.now.keys[digest], **fields)})

    async def key(self, kind: str = keys.PLATFORM, namespace: str = "acme", **fields: Any) -> str:
        minted = keys.mint(kind)
        row = snapshot.Key(minted.id, kind, namespace, **fields)
        await self.publish(keys={**self.manager.now.keys, minted.digest: row})
        return minted.key

    async def revoke(self, key: str) -> None:
        await self.publish(keys={digest: row for digest, row in self.manager.now.keys.items() if digest != keys.digest(key)})

    async def caught_up(self) -> None:
        await until(lambda: self.edge.version == self.manager.now.version)

    def post(self, path: str, key: str | None = None, body: Any = None, **options: Any) -> Any:
        headers = {**({"Authorization": f"Bearer {key}"} if key else {}), **options.pop("headers", {})}
        return self.client.post(self.url + path, json={"messages": []} if body is None else body, headers=headers, **options)

    def get(self, path: str, key: str | None = None, **options: Any) -> Any:
        headers = {**({"Authorization": f"Bearer {key}"} if key else {}), **options.pop("headers", {})}
        return self.client.get(self.url + path, headers=headers, **options)


async def until(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """What `condition` (plain or async) returns, as soon as that is true. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if inspect.isawaitable(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.01)
