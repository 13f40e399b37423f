"""Figures of the control plane, on a whole platform with 1,000 endpoints at zero: how soon a change holds, and what idling costs."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from benchmarks import arms, cpu, ratios
from benchmarks.arms import Arm
from benchmarks.ratios import Figure
from benchmarks.whole import Platform, running, until
from cluster import home

ENDPOINTS = 1000
WARM = 100
"""Endpoints that are made before memory is looked at: the first ones bring along what there is but once."""
TIMES = 30
IDLE_S = 20.0
QUIET_S = 2.0
UNWATCHED_S = 0.3
"""In which nobody asks what is measured, since to answer takes time from it."""
OF_IDLE = "1,000 idle endpoints: CPU of manager, gateway and HAProxy, of one core"
PAUSE_S = 0.15
LOOK_S = 0.002
"""Between two looks for what changed."""
LOAD = 200
"""Requests a second while routes change."""
ECHO: dict[str, Any] = {"image": {"echo": {}}}
OURS = ("ray::ServeReplica:manager", "ray::ServeReplica:gateway", "haproxy")
CHAT = {"messages": [{"role": "user", "content": "hello"}]}
ONE_TOKEN = json.dumps({**CHAT, "max_tokens": 1})


def measure() -> list[Figure]:
    """All of it, in about four minutes."""
    with running() as platform, platform.client() as client:
        until(lambda: platform.of("ray::IDLE"))  # the node's spare worker
        processes, nothing = set(platform.processes()), idle_share(platform)
        for number in range(WARM):
            at_zero(platform, client, f"warm-{number:04}", client)
        memory = settled_memory(platform)
        with platform.client() as other:
            created = [at_zero(platform, client, f"row-{number:04}", other) for number in range(ENDPOINTS)]
        figures = [worst("endpoint at zero created -> routable, p99 of 1,000", created, 100)]
        figures += idle(platform, processes, memory, nothing)
        platform.create(client, "awake", ECHO, minReplica=1)
        platform.wait(client, "awake")
        figures += keys(platform, client)
        figures += changes(platform, client)
        return [*figures, wake(platform, client)]


def at_zero(platform: Platform, client: httpx.Client, name: str, other: httpx.Client) -> float:
    """Creates an endpoint at zero; seconds until the edge, which `other` asks, knows it."""
    return timed(
        lambda: platform.create(client, name, ECHO, minReplica=0, maxReplica=1, startAtZero=True),
        lambda: ask(other, name, "/health").status_code != httpx.codes.NOT_FOUND,
    )


def timed(change: Callable[[], Any], holds: Callable[[], bool]) -> float:
    """Seconds from the request for `change`, whose answer may wait for the gateways, to the first request that finds it.

    It is looked for all the time, in a thread: it may hold before the answer says so.
    """
    asked = time.perf_counter()
    with ThreadPoolExecutor(1) as others:
        found = others.submit(first_time, holds, asked + 10)
        change()
        return found.result() - asked


def first_time(holds: Callable[[], bool], deadline: float) -> float:
    """When the first look began that found it so. Raises TimeoutError."""
    while (began := time.perf_counter()) < deadline:
        if holds():
            return began
        time.sleep(LOOK_S)
    raise TimeoutError("a change did not take effect within 10 s")


def answers(client: http.client.HTTPConnection, status: int, key: str = "") -> bool:
    """Whether the endpoint `awake` answers this key, or none, with `status`.

    Asked as cheaply as can be: what looks all the time shares two cores with what it looks at.
    """
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    client.request("POST", "/endpoints/admin/awake/v1/chat/completions", ONE_TOKEN, headers)
    answer = client.getresponse()
    answer.read()
    return answer.status == status


def looking(platform: Platform) -> contextlib.closing[http.client.HTTPConnection]:
    """For `answers`."""
    return contextlib.closing(http.client.HTTPConnection("127.0.0.1", platform.port, timeout=10))


def worst(figure: str, seconds: list[float], bar_ms: float, note: str = "") -> Figure:
    """The 99th percentile in milliseconds, with the median and the maximum as its spread."""
    values = [value * 1e3 for value in seconds]
    return Figure(
        figure,
        ratios.percentile(values, 0.99),
        ratios.percentile(values, 0.99),
        max(values),
        bar_ms,
        unit="ms",
        note=note or spread(values),
    )


def spread(values: list[float]) -> str:
    """For the reader."""
    return f"median {ratios.percentile(values, 0.5):.1f} ms"


def ask(client: httpx.Client, name: str, path: str = "/v1/chat/completions") -> httpx.Response:
    """One request of an endpoint: GET of its health, or a chat."""
    url = f"/endpoints/admin/{name}{path}"
    return client.get(url) if path == "/health" else client.post(url, json=CHAT)


def idle_share(platform: Platform) -> float:
    """CPU of our processes while nobody asks anything, in percent of a core."""
    pids = platform.of(*OURS)
    began, used = time.monotonic(), cpu.seconds(pids)
    time.sleep(IDLE_S)
    return (cpu.seconds(pids) - used) / (time.monotonic() - began) * 100


def idle(platform: Platform, before: set[int], memory: int, nothing: float) -> list[Figure]:
    """What 1,000 endpoints at zero cost; `nothing` is the CPU share without any."""
    until(lambda: len(platform.processes()) <= len(before), 60)
    share = idle_share(platform)
    grown = (settled_memory(platform) - memory) / ENDPOINTS / 1024
    added = share - nothing
    more = len(set(platform.processes())) - len(before)
    return [
        Figure("an idle endpoint: memory, all processes", grown, grown, grown, 20, unit="KiB"),
        Figure("1,000 idle endpoints: processes more", more, more, more, 0),
        Figure(OF_IDLE, share, share, share, 1, unit="%"),
        Figure(f"{OF_IDLE}, more than with no endpoint", added, added, added, None, unit="%"),
    ]


def settled_memory(platform: Platform) -> int:
    """Resident memory of everything, once it has stopped moving."""
    last = 0
    for _ in range(20):
        now = cpu.resident(platform.processes())
        if abs(now - last) < 1 << 20:
            break
        last = now
        time.sleep(1)
    return now


def keys(platform: Platform, client: httpx.Client) -> list[Figure]:
    """How soon a new key works, and how soon a revoked one does not."""
    created, revoked = [], []
    path = "/manage/v2/endpoint/admin/awake/keys"
    made: dict[str, str] = {}
    with looking(platform) as other:
        for _ in range(TIMES):
            made.clear()
            created.append(
                timed(
                    lambda: made.update(client.post(path, json={}).raise_for_status().json()),
                    lambda: "key" in made and answers(other, 200, made["key"]),
                )
            )
            revoked.append(
                timed(lambda: client.delete(f"{path}/{made['id']}").raise_for_status(), lambda: answers(other, 401, made["key"]))
            )
    return [worst("key created -> accepted, p99", created, 50), worst("key revoked -> refused, p99", revoked, 50)]


def changes(platform: Platform, client: httpx.Client) -> list[Figure]:
    """Changes of a route under load: how soon each is visible, and what they cost the requests of others."""
    workers = haproxy_workers(platform)
    arm = Arm("awake", platform.port, [], "/endpoints/admin/awake/v1/chat/completions", "awake", platform.key)
    asked = {"host": "127.0.0.1", "port": arm.port, "raw": arm.request(), "connections": 8, "rate": LOAD, "seconds": TIMES * PAUSE_S * 2}
    seconds = []
    # In a process of its own: a client that shares this one's interpreter would slow the look at what changed.
    with arms.process([sys.executable, "-m", "benchmarks.load"], {0, 1}, stdin=json.dumps(asked)) as load, looking(platform) as nobody:
        for number in range(TIMES):
            kind, expected = ("public", 200) if number % 2 == 0 else ("protected", 401)
            change = functools.partial(client.put, "/manage/v2/endpoint/admin/awake", json={"type": kind})
            seconds.append(timed(change, functools.partial(answers, nobody, expected)))
            time.sleep(PAUSE_S)
        seen = json.loads(arms.first_line(load))
    failed, reloads = seen["errors"], len(haproxy_workers(platform) - workers)
    return [
        worst("route changed -> visible, p99", seconds, 10),
        Figure(f"requests dropped by {TIMES} changes under load", failed, failed, failed, 0, note=f"of {seen['requests']}"),
        Figure("reloads of HAProxy by 1,000 new endpoints, keys and changes", reloads, reloads, reloads, 0),
    ]


def haproxy_workers(platform: Platform) -> set[int]:
    """HAProxy's processes: a reload makes a new one."""
    return platform.of("haproxy")


def wake(platform: Platform, client: httpx.Client) -> Figure:
    """From a request for an endpoint at zero to the moment at which Serve's controller takes its start, by the controller's own word."""
    seconds = []
    for number in range(10):
        name = f"row-{number:04}"
        with platform.client() as other:
            other.get("/health")  # connected
            began = time.time()
            other.post(f"/endpoints/admin/{name}/v1/chat/completions", json=CHAT, headers={"X-Scale-Up-Timeout": "0"})

        time.sleep(UNWATCHED_S)
        until(functools.partial(told, platform, name), 10)
        seconds.append(told(platform, name) - began)
        client.delete(f"/manage/v2/endpoint/admin/{name}").raise_for_status()
        until(lambda: not platform.of("ServeReplica:admin--row"), 60)  # a replica that starts or ends takes both cores
        time.sleep(QUIET_S)
    return worst("request seen at zero -> engine told to start, p99 of 10", seconds, 20)


def told(platform: Platform, name: str) -> float:
    """When Serve was told of the endpoint's application, in Unix seconds; 0 = not yet."""
    url = f"http://127.0.0.1:{platform.environment['MOORAGE_DASHBOARD_PORT']}/api/serve/applications/"
    token = home.Home(platform.home).ray_token.read_text().strip()
    seen = httpx.get(url, headers={"authorization": f"Bearer {token}"}).raise_for_status().json()["applications"]
    return max((row["last_deployed_time_s"] for found, row in seen.items() if found.startswith(f"admin--{name}--")), default=0.0)
