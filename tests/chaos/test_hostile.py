"""Long runs and unkind surroundings: calls inside Ray that fail or dawdle, clocks that jump, kills again and again."""

import os
import random
import time
from pathlib import Path

import pytest
from support.load import Load, bad
from support.platforms import until

NAME = "steady"
DAWDLING = {
    # Milliseconds are added to the handlers of these calls, at random.
    "RAY_testing_asio_delay_us": "CoreWorkerService.grpc_server.PushTask=0:20000,NodeManagerService.grpc_server.RequestWorkerLease=0:50000",
}


def load(platform, rate=20, **fields):
    body = {"model": NAME, "messages": [{"role": "user", "content": "one two three"}], "max_tokens": 5, **fields}
    return Load(f"{platform.url}/endpoints/admin/{NAME}/v1/chat/completions", platform.token, rate=rate, body=body)


def create(platform):
    platform.create(NAME, echo={"tag": "one", "tokensPerSecond": 100}, scaling={"minReplica": 2, "maxReplica": 2})
    until(lambda: whole(platform), what="two replicas")


def whole(platform):
    status = platform.status(NAME)
    return status["state"] == "running" and status["readyReplica"] == 2


@pytest.mark.full
def test_with_slow_calls_inside_ray_kills_and_updates_still_fail_no_request(new_platform, record):
    """F25: F1, F4 and F17 where Ray's own calls are delayed."""
    with new_platform(DAWDLING) as platform:
        create(platform)
        with load(platform) as requests:
            until(lambda: len(requests.answers) > 20, what="requests flow")
            platform.kill(f"ServeReplica:admin--{NAME}--r1", most=1)
            until(lambda: platform.status(NAME)["readyReplica"] < 2, 30, what="the loss is seen")
            until(lambda: whole(platform), 90, what="the replica is replaced")
            assert (
                platform.manage("PUT", f"/{NAME}", {"model": {"image": {"echo": {"tag": "two", "tokensPerSecond": 100}}}}).status_code
                == 200
            )
            platform.kill("ray::ServeController")
            killed = time.monotonic()
            until(lambda: platform.status(NAME)["revision"] == 2, 120, what="the update is complete")
            updated = time.monotonic() - killed
            until(lambda: requests.since(killed + updated + 2), what="requests flow on")
    record(
        "F25 failed requests with slow calls inside Ray",
        len(bad(requests.answers)),
        0,
        note=f"of {len(requests.answers)}; {bad(requests.answers)[:3]}",
    )
    record("F25 time until an update is complete after the controller's death", updated, 30, unit="s")


@pytest.mark.full
def test_a_clock_that_jumps_an_hour_changes_nothing(new_platform, tmp_path, record):
    """F23: every process of the platform sees the clock go an hour ahead, then to an hour behind."""
    faked = pytest.importorskip("libfaketime")
    library = next(Path(faked.__file__).parent.rglob("libfaketime.so.1"))
    ahead, next_ahead = tmp_path / "ahead", tmp_path / "next"
    ahead.write_text("+0")
    variables = {"LD_PRELOAD": library, "FAKETIME_TIMESTAMP_FILE": ahead, "FAKETIME_CACHE_DURATION": 1, "DONT_FAKE_MONOTONIC": 1}
    with new_platform({name: str(value) for name, value in variables.items()}) as platform:
        create(platform)
        platform.create("idle", scaling={"minReplica": 0, "scaleToZeroTimeout": 30})
        wrong = []
        with load(platform) as requests:
            for number, jump in enumerate(("+3600", "-3600"), start=2):
                until(lambda: len(requests.answers) > 20, what="requests flow")
                next_ahead.write_text(jump)
                next_ahead.replace(ahead)  # never seen half written
                jumped = time.monotonic()
                platform.create(f"brief-{number}", scaling={"minReplica": 0, "scaleToZeroTimeout": 0.05})
                changed = {"model": {"image": {"echo": {"tag": jump, "tokensPerSecond": 100}}}}
                assert platform.manage("PUT", f"/{NAME}", changed).status_code == 200
                until(lambda number=number: platform.status(NAME)["revision"] == number, 60, what="the update is complete")
                platform.wait(f"brief-{number}", "scaledToZero", timeout=30)
                until(lambda jumped=jumped: requests.since(jumped + 15), 30, what="requests flow on")
                wrong += [(jump, platform.status("idle")["state"])] if platform.status("idle")["state"] != "running" else []
    record("F23 failed requests when the clock jumps", len(bad(requests.answers)), 0, note=f"of {len(requests.answers)}")
    record("F23 endpoints put to zero by a jump of the clock", len(wrong), 0, note=f"{wrong}")


VICTIMS = ("ServeController", "ProxyActor", "Manager", "Gateway", f"ServeReplica:admin--{NAME}--r")


def resident(platform):
    """Bytes in memory of the platform's processes, and their open files: both counted per kind of process."""
    memory, files = 0, 0
    for pid in platform.processes():
        try:
            memory += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            files += len(os.listdir(f"/proc/{pid}/fd"))
        except OSError:
            continue
    return memory, files


def engines(platform):
    return [line for line in platform.processes().values() if "deployments.echo_server" in line and "lifeline" not in line]


def zombies(platform):
    """Dead children that nobody has taken note of, below the platform's processes."""
    known, found = platform.processes(), 0
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                status = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            found += status[0] == "Z" and int(status[1]) in known
    return found


@pytest.mark.full
@pytest.mark.timeout(9000)
def test_a_soak_with_a_kill_every_so_often_leaks_nothing(platform, record):
    """F24: for MOORAGE_SOAK_MINUTES, a part is killed every half minute under mixed requests."""
    minutes, dice = float(os.environ.get("MOORAGE_SOAK_MINUTES", "3")), random.Random(24)
    create(platform)
    for victim in VICTIMS:  # every part has been replaced once before anything is compared
        platform.kill("ray::", victim, most=1)
    until(lambda: settled(platform), 90, what="everything is back")
    memory, files = resident(platform)
    end, kills = time.monotonic() + 60 * minutes, 0
    with load(platform, rate=4) as requests, load(platform, rate=1, stream=True, max_tokens=200) as streams:
        while time.monotonic() < end:
            platform.kill("ray::", dice.choice(VICTIMS), most=1)
            kills += 1
            began = time.monotonic()
            until(lambda began=began: time.monotonic() > began + 30, 40, every=1, what="half a minute")
    until(lambda: settled(platform), 90, what="everything is back")
    later_memory, later_files = resident(platform)
    left, dead = len(engines(platform)), zombies(platform)
    platform.delete(NAME)
    note = f"{minutes:g} min, {kills} kills, {len(requests.answers)} requests, {len(streams.answers)} streams"
    record("F24 failed requests in a soak", len(bad(requests.answers)), 0, note=f"{note}; {bad(requests.answers)[:2]}")
    record("F24 memory after over before", later_memory / memory, 1.1, unit="x", note=f"{memory >> 20} MiB before")
    record("F24 open files after over before", later_files / files, 1.1, unit="x", note=f"{files} before")
    record("F24 engines beyond the two wanted", left - 2, 0)
    record("F24 dead children that are left", dead, 0)


def settled(platform):
    """Every part answers, both replicas serve, and no engine is left of a dead one."""
    paths = ("/manage/health", "/v1/models")
    return all(platform.fetch(path).status_code == 200 for path in paths) and whole(platform) and len(engines(platform)) == 2
