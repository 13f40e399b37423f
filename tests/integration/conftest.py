"""Servers that integration tests talk to: a Hub, an object store, and a proxy that breaks connections."""

from __future__ import annotations

import importlib.util
import json
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from moto.server import ThreadedMotoServer
from support.replicas import Replicas

SERVERS = Path(__file__).parent.parent / "servers"


def _load(name: str) -> ModuleType:
    """A module of tests/servers, which is no package."""
    qualified = f"moorage_test_servers_{name}"
    if qualified not in sys.modules:
        spec = importlib.util.spec_from_file_location(qualified, SERVERS / f"{name}.py")
        assert spec and spec.loader
        sys.modules[qualified] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[qualified])
    return sys.modules[qualified]


@pytest.fixture(scope="session")
def load_server() -> Any:
    """`load_server("hub")` -> the module tests/servers/hub.py."""
    return _load


@pytest.fixture
def hub_server() -> Iterator[Any]:
    """`tests/servers/hub.py`: HubServer, empty."""
    with _load("hub").HubServer() as server:
        yield server


@pytest.fixture(scope="session")
def _moto() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_server(_moto: str) -> str:
    """The address of an empty object store."""
    urllib.request.urlopen(urllib.request.Request(f"{_moto}/moto-api/reset", method="POST")).close()
    return _moto


@pytest.fixture
def fault_proxy() -> Iterator[Any]:
    """Makes a FaultProxy of `tests/servers/proxy.py` before a port: `fault_proxy(port)`."""
    opened = []

    def make(port: int) -> Any:
        opened.append(_load("proxy").FaultProxy(port).__enter__())
        return opened[-1]

    yield make
    for proxy in opened:
        proxy.__exit__(None, None, None)


@pytest.fixture
def model_files() -> Any:
    """Makes the files of a small model: `model_files(weights=8_000_000)` -> {path: content}."""

    def make(weights: int = 2_000_000, seed: int = 1, **more: bytes) -> dict[str, bytes]:
        header = json.dumps({"w": {"dtype": "U8", "shape": [weights], "data_offsets": [0, weights]}}).encode()
        body = bytes((seed + 7 * i) % 251 for i in range(1000)) * (weights // 1000)
        return {
            "config.json": b'{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}',
            "tokenizer.json": b'{"version": "1.0"}',
            "model.safetensors": len(header).to_bytes(8, "little") + header + body,
            **more,
        }

    return make


@pytest.fixture
async def replicas(tmp_path: Path) -> AsyncIterator[Any]:
    """Makes replicas of the echo engine, and ends them: `support.replicas.Replicas`."""
    made = Replicas(tmp_path / "home")
    yield made
    await made.end()
