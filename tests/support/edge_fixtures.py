"""Fixtures round a real edge: HAProxy, engines that record what reaches them, a manager in memory. For conftest files to import."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.edges import SECRET, Engine, World
from support.ports import free_port

from cluster import snapshot
from gateway import config, control, edge, haproxy


@pytest.fixture
def home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="moor-"))
    yield folder
    haproxy.stop_running(config.EdgeFiles(folder), grace=0)
    shutil.rmtree(folder)


@pytest.fixture
async def engines() -> AsyncIterator[Callable[..., Awaitable[Engine]]]:
    """Starts engines; stops them in the end."""
    started: list[Engine] = []

    async def start(*args: Any, **options: Any) -> Engine:
        started.append(await Engine(*args, **options).start())
        return started[-1]

    yield start
    for engine in started:
        await engine.stop()


@pytest.fixture
async def worlds(home: Path) -> AsyncIterator[Callable[..., Awaitable[World]]]:
    """Starts an edge with changed settings; ends it with the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(manager: control.ControlTwin | None = None, **changes: Any) -> World:
            fields = {"home": home, "host": "127.0.0.1", "port": free_port(), "slots": 8, "threads": 1, "report_every": 0.1, **changes}
            settings = config.EdgeConfig(**fields)
            manager = manager or control.ControlTwin(snapshot.Snapshot(1))
            client = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)))
            world = World(settings, manager, edge.Edge(settings, manager), client, f"http://127.0.0.1:{settings.port}")
            stack.push_async_callback(end, world)
            await world.edge.start()
            world.running = asyncio.create_task(world.edge.run())
            await world.caught_up()
            return world

        async def end(world: World) -> None:
            if world.running is not None:
                world.running.cancel()
                await asyncio.gather(world.running, return_exceptions=True)
            await world.edge.stop(grace=0)

        yield start


@pytest.fixture
async def world(worlds: Callable[..., Awaitable[World]]) -> World:
    return await worlds()


@pytest.fixture
def endpoint() -> Callable[..., snapshot.Endpoint]:
    """An endpoint of namespace acme with these engines as replicas."""

    def make(name: str, *engines: Engine, **changes: Any) -> snapshot.Endpoint:
        replicas = tuple(engine.replica() for engine in engines)
        fields = {
            "id": f"id-{name}",
            "namespace": "acme",
            "name": name,
            "state": "running" if engines else "scaledToZero",
            "engine_secret": SECRET,
            "replicas": replicas,
            **changes,
        }
        return snapshot.Endpoint(**fields)

    return make
