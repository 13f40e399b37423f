"""Real vLLM on a tiny model: bare, and behind a whole platform. Parity per token, and cold starts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from benchmarks import arms, cpu, ratios
from benchmarks.arms import Arm
from benchmarks.ratios import Figure
from benchmarks.whole import Platform, running, until
from deployments import vllm_api
from deployments.engine import Launch
from deployments.launcher import Launcher
from deployments.server_process import ServerProcess

TOKENS = 128
CLIENTS = 8
SECONDS = 6.0
STARTS = 10
LIMIT_S = 300.0
SERVING = ("moorage: ", "VLLM::", "haproxy")
"""Titles of the processes that a token passes. The rest of the platform costs what the clock makes it cost."""
FLAGS = ("--kv-cache-memory-bytes", "128M", "--max-num-seqs", "16", "--enforce-eager", "--max-model-len", "1024")


def measure(rounds: int) -> Iterator[list[Figure]]:
    """All of it, in about fifteen minutes; each part as soon as it is known."""
    folder = Path(tempfile.mkdtemp(prefix="mv"))
    try:
        model = folder / "models" / "llama"
        subprocess.run(
            [sys.executable, "-m", "deployments.tiny_models", "llama", str(model)], check=True, capture_output=True, cwd=arms.ROOT
        )
        with running(model_paths=model.parent, num_cpus=8) as platform:
            yield parity(platform, folder, model, 2 * rounds)
            yield from_zero(platform, model)
        yield asyncio.run(cold_starts(folder, model))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def environment(folder: Path) -> dict[str, str]:
    """What the platform gives an engine, without what is the platform's own."""
    cache = folder / "cache"
    cache.mkdir(exist_ok=True)
    ours = {"VLLM_CACHE_ROOT": str(cache), "OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_HOST_IP": "127.0.0.1"}
    ours |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "PYTHONUNBUFFERED": "1", "VLLM_PLUGINS": ""}
    return {**os.environ, **ours}


def arguments(model: Path, port: int) -> list[str]:
    """Of a bare server."""
    words = ["--model", str(model), "--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(port)]
    words += ["--distributed-executor-backend", vllm_api.UNIPROC_EXECUTOR, "--disable-uvicorn-access-log", "--runner", "generate"]
    return [*words, "--enable-prompt-tokens-details", *FLAGS]


def request(arm: Arm) -> str:
    """A stream of TOKENS tokens."""
    text = arm.request(stream=TOKENS)
    head, _, body = text.partition("\r\n\r\n")
    body = json.dumps({**json.loads(body), "ignore_eos": True, "temperature": 0})
    lines = [line for line in head.split("\r\n") if not line.startswith("content-length")]
    return "\r\n".join([*lines, f"content-length: {len(body)}"]) + f"\r\n\r\n{body}"


@contextlib.contextmanager
def bare(folder: Path, model: Path) -> Iterator[Arm]:
    """vLLM's own server."""
    port = arms.free_port()
    command = [sys.executable, "-m", vllm_api.SERVER, *arguments(model, port)]
    log = folder / "bare.log"
    with arms.process(command, {0, 1}, environment=environment(folder), log=log) as process:
        arms.answers(f"http://127.0.0.1:{port}/health", process, limit_s=LIMIT_S)
        yield Arm("bare vLLM", port, [process.pid], model="tiny")


def parity(platform: Platform, folder: Path, model: Path, rounds: int) -> list[Figure]:
    """Per token beside bare vLLM: CPU, throughput, and when tokens come."""
    with platform.client() as client, bare(folder, model) as alone:
        create(platform, client, "tiny", model, minReplica=1)
        platform.wait(client, "tiny", limit_s=LIMIT_S)
        behind = Arm("vLLM behind Moorage", platform.port, [], "/endpoints/admin/tiny/v1/chat/completions", "tiny", platform.key)
        found: dict[str, list[arms.Load]] = {alone.name: [], behind.name: []}
        own: list[float] = []
        for number in range(rounds + 1):
            for arm in (alone, behind) if number % 2 else (behind, alone):
                pids = cpu.tree(alone.roots) if arm is alone else platform.processes()
                before = cpu.seconds(platform.of(*SERVING))
                load = arms.load(arm, request(arm), pids=pids, connections=CLIENTS, seconds=SECONDS, stamped=False)
                if number:
                    found[arm.name].append(load)
                if number and arm is behind:
                    own.append((cpu.seconds(platform.of(*SERVING)) - before) / load.seen["events"])
    mine, theirs = found[behind.name], found[alone.name]
    per_event = [load.per_event for load in theirs]
    return [
        ratios.ratio(
            "CPU per streamed token over bare vLLM, the processes it passes", [value * 1e6 for value in own], per_event, None
        ),
        ratios.ratio(
            "CPU per streamed token over bare vLLM, whole platform with Ray", [load.per_event for load in mine], per_event, 1.03
        ),
        ratios.ratio(
            "throughput over bare vLLM at saturation", [rate(load) for load in mine], [rate(load) for load in theirs], 0.99, at_most=False
        ),
        *(
            ratios.ratio(
                f"time between tokens over bare vLLM, {name}",
                [load.seen["gaps"][name] for load in mine],
                [load.seen["gaps"][name] for load in theirs],
                1.03,
            )
            for name in ("p50", "p99")
        ),
        ratios.measured(
            "share of bunched tokens more than bare vLLM",
            [(one.seen["gaps"]["bunched"] - other.seen["gaps"]["bunched"]) * 100 for one, other in zip(mine, theirs, strict=True)],
            0,
            "%",
        ),
    ]  # fmt: skip


def rate(load: arms.Load) -> float:
    """Tokens a second."""
    return float(load.seen["events"] / load.seen["seconds"])


def create(platform: Platform, client: httpx.Client, name: str, model: Path, **scaling: Any) -> None:
    """An endpoint of the tiny model."""
    settings = {"repository": str(model), "image": {"vLLM": {}}, "task": "text-generation", "args": list(FLAGS)}
    platform.create(client, name, settings, **scaling)


def from_zero(platform: Platform, model: Path) -> list[Figure]:
    """A request for an endpoint at zero, to its first token, with the node's launcher there; and where the time goes."""
    seconds, shares = [], []
    with platform.client() as client:
        client.delete("/manage/v2/endpoint/admin/tiny").raise_for_status()
        for number in range(5):
            name = f"zero-{number}"
            create(platform, client, name, model, minReplica=0, maxReplica=1, startAtZero=True)
            until(lambda: platform.of("ray::IDLE"), 60)  # the node is at rest, with its spare worker
            began = time.monotonic()
            body = {"prompt": "hello", "stream": True, "max_tokens": 4, "ignore_eos": True}
            with client.stream("POST", f"/endpoints/admin/{name}/v1/completions", json=body) as answer:
                first = next(answer.iter_lines(), "")
            seconds.append(time.monotonic() - began)
            if answer.status_code != httpx.codes.OK or not first.startswith("data: {"):
                raise RuntimeError(f"{name} answered {answer.status_code}: {first}")
            until(lambda name=name: ready(client, name), 10)  # type: ignore[misc]
            shares.append(ready(client, name))
            client.delete(f"/manage/v2/endpoint/admin/{name}").raise_for_status()
    replica = statistics.median(share["seconds"] for share in shares)
    names = ("starting", "importing", "loading", "warming", "smoke_test")
    parts = {name: statistics.median(share.get(name, 0.0) for share in shares) for name in names}
    note = f"Serve and its actor {statistics.median(seconds) - replica:.1f} s, " + ", ".join(
        f"{name} {value:.1f}" for name, value in parts.items()
    )
    return [ratios.measured("from zero to the first token through the whole platform, tiny model", seconds, 6, "s", note=note)]


def ready(client: httpx.Client, name: str) -> Mapping[str, float]:
    """The seconds of each phase of an endpoint's start; empty before it is ready."""
    rows = client.get(f"/manage/v2/endpoint/admin/{name}/events").raise_for_status().json()["items"]
    return next((row["data"] for row in rows if row["kind"] == "ready"), {})


async def cold_starts(folder: Path, model: Path) -> list[Figure]:
    """Start to first token, bare and forked by the launcher, in turn."""
    home = folder / "home"
    home.mkdir()
    launcher = Launcher(home / "launchers", os.environ, raylet=os.getpid())
    found: dict[bool, list[float]] = {True: [], False: []}
    await first_token(folder, model, launcher)  # the launcher is there, and so are both sides' caches
    for _ in range(STARTS):
        for launched in (False, True):
            found[launched].append(await first_token(folder, model, launcher if launched else None))
    note = f"bare {statistics.median(found[False]):.1f} s, forked {statistics.median(found[True]):.1f} s"
    return [ratios.ratio("cold start to first token over bare vLLM's", found[True], found[False], 0.08, note=note)]


async def first_token(folder: Path, model: Path, launcher: Launcher | None) -> float:
    """Seconds from the start call to the first token."""
    port = arms.free_port()
    words = arguments(model, port)
    given = {name: value for name, value in environment(folder).items() if not name.startswith("MOORAGE_")}
    command = (sys.executable, "-m", vllm_api.SERVER, *words)
    began = time.monotonic()
    if launcher is None:
        process = ServerProcess.start(command, given, lambda _: None, folder)
    else:
        process = await launcher.start(Launch(command, forked_by=vllm_api.__name__), given, (), lambda _: None, folder)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            body = {"model": "tiny", "prompt": "hello", "max_tokens": 1}
            while not process.exited.is_set() and time.monotonic() - began < LIMIT_S:
                with contextlib.suppress(httpx.TransportError):
                    if (await client.post("/v1/completions", json=body)).status_code == httpx.codes.OK:
                        return time.monotonic() - began
                await asyncio.sleep(0.02)
        raise RuntimeError("the server did not come up")
    finally:
        await process.kill()
