"""Figures of the edge: what a request and a streamed event cost beside plain HAProxy and beside other gateways."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks import arms, ratios
from benchmarks.arms import Arm
from benchmarks.ratios import Figure
from benchmarks.report import Point
from gateway import config

RATE = 3000
"""Requests a second offered to every arm that can take them: the cost of one depends on how many there are."""
SECONDS = 2.0
DRIFT = 1.5
"""A round in which the floor moved by more than this factor says more about the neighbours than about us."""
SMALL_BODY = 512
STREAMS = 8000
MOST = 3

Rounds = dict[str, list[arms.Load]]


def unary(points: list[Arm], rounds: int, rate: float = RATE, size: Mapping[str, int] | None = None) -> Rounds:
    """Interleaved rounds of one load on every arm, the order turned round each time."""
    found: Rounds = {arm.name: [] for arm in points}
    for number in range(rounds + 1):  # the first one warms up
        for arm in points if number % 2 else reversed(points):
            raw = arm.request(size=(size or {}).get(arm.name, SMALL_BODY))
            load = arms.load(arm, raw, connections=16, seconds=SECONDS, rate=rate)
            if number:
                found[arm.name].append(load)
    return found


def decided(take: Callable[[], Rounds], judge: Callable[[Rounds], list[Figure]]) -> list[Figure]:
    """What `judge` makes of the rounds that `take` gives; while something is undecided there are more, at most MOST times as many."""
    found = take()
    for _ in range(MOST - 1):
        if not any(figure.verdict == "undecided" for figure in judge(found)):
            break
        for name, loads in take().items():
            found[name] += loads
    return judge(found)


def costs(found: Rounds, name: str) -> list[float]:
    """CPU microseconds per request, round by round."""
    return [load.per_request for load in found[name]]


def requests(floor: Arm, ours: Arm, peers: Sequence[Arm], slow_peers: Sequence[Arm], rounds: int) -> tuple[list[Figure], list[Point]]:
    """CPU per request of everybody."""
    body = arms.by_model(ours)
    fast = [floor, ours, body, *peers]
    found = unary(fast, rounds)
    for arm in slow_peers:  # they cannot take the others' rate: as fast as they can, which is to their advantage
        raw = arm.request(size=SMALL_BODY)
        arms.load(arm, raw, connections=4, seconds=10)  # first requests import and connect
        found[arm.name] = [arms.load(arm, raw, connections=4, seconds=SECONDS) for _ in range(rounds)]
    plain = costs(found, floor.name)
    figures = [
        ratios.ratio("edge CPU per request over plain HAProxy, endpoint in the path", costs(found, ours.name), plain, 2.5),
        ratios.ratio("edge CPU per request over plain HAProxy, model in the body", costs(found, body.name), plain, 3.0),
    ]
    for arm, bar in [(arm, 0.5 if arm.name == "vllm-router" else None) for arm in peers] + [
        (arm, 0.01 if arm.name == "LiteLLM" else None) for arm in slow_peers
    ]:
        figures.append(ratios.ratio(f"edge CPU per request over {arm.name}", costs(found, ours.name), costs(found, arm.name), bar))
    points = []
    for name, loads in found.items():
        cost = ratios.interval([load.per_request for load in loads])
        latency = statistics.median(load.seen["latency"]["p50"] for load in loads)
        points.append(
            Point(name, cost.value, latency * 1e3, statistics.median(load.seen["requests"] / load.seen["seconds"] for load in loads))
        )
    return figures, points


def saturated(floor: Arm, ours: Arm, rounds: int) -> list[Figure]:
    """The same with 16 clients that never wait: nobody sleeps, so that wake-ups, which both pay, do not hide the difference."""
    found = unary([floor, ours, arms.by_model(ours)], rounds, rate=0)
    names = ("endpoint in the path", ours.name), ("model in the body", arms.by_model(ours).name)
    return [
        ratios.ratio(f"edge CPU per request over plain HAProxy at saturation, {what}", costs(found, name), costs(found, floor.name), None)
        for what, name in names
    ]


def growth(engine: int, ours: Arm, rounds: int) -> list[Figure]:
    """The same request with more endpoints and more keys."""
    with arms.moorage([engine], 1, 10, name="one endpoint") as one, arms.moorage([engine], 1000, 10, name="ten keys") as ten:
        return decided(
            lambda: unary([one, ten, ours], rounds),
            lambda found: [
                ratios.ratio("edge CPU per request at 1,000 endpoints over 1", costs(found, ten.name), costs(found, one.name), 1.05),
                ratios.ratio("edge CPU per request at 100,000 keys over 10", costs(found, ours.name), costs(found, ten.name), 1.05),
            ],
        )


def events(floor: Arm, ours: Arm, rounds: int) -> list[Figure]:
    """CPU per streamed event, and how much later an event arrives: 32 streams of 100 events 10 ms apart."""
    return decided(lambda: streamed(floor, ours, rounds), lambda found: event_figures(floor, ours, found))


def streamed(floor: Arm, ours: Arm, rounds: int) -> Rounds:
    """Interleaved rounds of streams."""
    found: Rounds = {floor.name: [], ours.name: []}
    for number in range(rounds + 1):
        for arm in (floor, ours) if number % 2 else (ours, floor):
            raw = arm.request(stream=100, pace_ms=10)
            load = arms.load(arm, raw, connections=32, seconds=2.5)
            if number:
                found[arm.name].append(load)
    return found


def event_figures(floor: Arm, ours: Arm, found: Rounds) -> list[Figure]:
    """See `events`."""
    per_event = {name: [load.per_event for load in loads] for name, loads in found.items()}
    delay = {name: [load.seen["delay"]["p50"] for load in loads] for name, loads in found.items()}
    return [
        ratios.ratio("edge CPU per streamed event over plain HAProxy", per_event[ours.name], per_event[floor.name], 1.1),
        ratios.ratio("delay of an event, engine to client, over plain HAProxy", delay[ours.name], delay[floor.name], None),
    ]


def first_event(direct: Arm, floor: Arm, ours: Arm, rounds: int) -> list[Figure]:
    """What is added to the time to the first event, for a single client."""
    added = []
    for number in range(rounds):
        seen = {}
        for arm in (direct, floor, ours) if number % 2 else (ours, floor, direct):
            load = arms.load(arm, arm.request(stream=2), connections=1, seconds=1.5)
            seen[arm.name] = load.seen["first"]["p50"]
        added.append((seen[ours.name] - seen[direct.name], seen[floor.name] - seen[direct.name]))
    return [
        ratios.ratio(
            "time added to the first event over what plain HAProxy adds, one client",
            [mine for mine, _ in added], [other for _, other in added], 1.5,
            note=f"plain HAProxy adds {statistics.median(other for _, other in added) * 1e6:.0f} us",
        )
    ]  # fmt: skip


def open_streams(engine: int, retry_connections: int, bar: float | None, note: str) -> list[Figure]:
    """8,000 streams at once through one edge, an event a second each."""
    with arms.moorage([engine], name="Moorage, 8,000 streams", retry_connections=retry_connections) as arm:
        arms.load(arm, arm.request(stream=1), connections=8, seconds=1)
        before = arm.resident()
        with arms.held(arm, arm.request(stream=60, pace_ms=1000), STREAMS, seconds=12) as (opened, result):
            opened()
            during = arm.resident()
            seen = result()
    errors = seen["errors"] + STREAMS - seen["busy"]
    one = (during - before) / STREAMS / 1024
    return [
        Figure(f"{STREAMS:,} open streams, {note}: errors", errors, errors, errors, 0, unit="", note=seen["first_error"][:80]),
        Figure(f"{STREAMS:,} open streams, {note}: memory of one", one, one, one, bar, unit="KiB"),
    ]


def replicas(rounds: int) -> list[Figure]:
    """Throughput of 8 replicas over 8 times that of one; each takes 4 requests at once, of 50 ms."""
    found: dict[int, list[float]] = {1: [], 8: []}
    with arms.null_engine(8) as engine, contextlib.ExitStack() as stack:
        edges = {
            count: stack.enter_context(
                arms.moorage([engine.port + n for n in range(count)], 1, 10, name=f"{count} replicas", concurrency=4)
            )
            for count in found
        }
        for number in range(rounds + 1):
            for count, arm in edges.items():
                load = arms.load(arm, arm.request().replace("\r\n\r\n", "\r\nx-pace-ms: 50\r\n\r\n", 1), connections=6 * count, seconds=2)
                if number:
                    found[count].append(load.seen["requests"] / load.seen["seconds"])
    return [
        ratios.ratio("throughput of 8 simulated replicas over 8 times one", found[8], [8 * one for one in found[1]], 0.98, at_most=False)
    ]


@contextlib.contextmanager
def others(engine: int, python: Path | None) -> Iterator[tuple[list[Arm], list[Arm]]]:
    """(those that take our rate, those that do not). Without an environment of their own, only what Moorage itself needs."""
    with contextlib.ExitStack() as stack:
        fast = [stack.enter_context(arms.vllm_router(engine, python))] if python else []
        slow = [stack.enter_context(arms.litellm(engine, python))] if python else []
        slow.append(stack.enter_context(arms.ray_serve(engine)))
        yield fast, slow


def measure(rounds: int, python: Path | None) -> tuple[list[Figure], list[Point]]:
    """All of it, in about six minutes."""
    with arms.null_engine() as engine, arms.plain_haproxy(engine.port) as floor, arms.moorage([engine.port]) as ours:
        with others(engine.port, python) as (fast, slow):
            figures, points = requests(floor, ours, fast, slow, rounds)
        figures += saturated(floor, ours, rounds)
        figures += growth(engine.port, ours, rounds)
        figures += events(floor, ours, rounds)
        figures += first_event(engine, floor, ours, rounds)
    with arms.null_engine() as engine:
        default = config.EdgeConfig.retry_connections
        figures += open_streams(engine.port, default, 10, f"the first {default:,} of which could be tried again")
        figures += open_streams(engine.port, 0, None, "none of which could be tried again")
    return figures + replicas(max(3, rounds // 2)), points
