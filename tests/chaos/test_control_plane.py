"""The platform's own processes die, and its database is locked, while requests flow: the bytes' path may not notice."""

import contextlib
import os
import random
import re
import signal
import sqlite3
import threading
import time

import httpx
import pytest
from support.load import Load, bad
from support.nemesis import small_disk
from support.platforms import until

NAME = "steady"


@pytest.fixture(scope="module")
def served(platform):
    platform.create(NAME, echo={"tag": "one", "tokensPerSecond": 100})
    yield platform
    platform.delete(NAME)


@contextlib.contextmanager
def load(platform, rate=20):
    """Requests of 50 ms, once twenty have been answered; at the end those that did not end well are in `load.bad`."""
    body = {"model": NAME, "messages": [{"role": "user", "content": "one two three"}], "max_tokens": 5}
    with Load(f"{platform.url}/endpoints/admin/{NAME}/v1/chat/completions", platform.token, rate=rate, body=body) as requests:
        until(lambda: len(requests.answers) > 20, what="requests flow")
        yield requests


def flows_on(requests, moment, seconds):
    """Until requests have been answered that began `seconds` after `moment`."""
    until(lambda: requests.since(moment + seconds), seconds + 30, what="requests flow on")


def outage(works, timeout=60):
    """Seconds until `works` is true, asked often."""
    began = time.monotonic()
    until(works, timeout, every=0.02)
    return time.monotonic() - began


def answers(platform, path):
    with contextlib.suppress(httpx.HTTPError):
        return platform.fetch(path).status_code == 200
    return False


@pytest.mark.full
def test_the_serve_controller_is_killed_during_an_update(served, record):
    """F4"""
    first = served.status(NAME)["revision"]
    with load(served) as requests:
        changed = {"model": {"image": {"echo": {"tag": "two", "tokensPerSecond": 100, "loadSeconds": 1}}}}
        assert served.manage("PUT", f"/{NAME}", changed).json()["status"]["state"] == "updating"
        served.kill("ray::ServeController")
        killed = time.monotonic()
        until(lambda: served.status(NAME)["revision"] == first + 1, 90, what="the update is complete")
        updated = time.monotonic() - killed
        flows_on(requests, killed, 20)
    record("F4 failed requests, Serve's controller killed", len(bad(requests.answers)), 0, note=f"of {len(requests.answers)}")
    record("F4 time until the update in flight is complete", updated, 30, unit="s")


def test_the_serve_proxy_is_killed(served, record):
    """F5"""
    with load(served) as requests:
        served.kill("ray::ProxyActor")
        killed = time.monotonic()
        away = outage(lambda: answers(served, "/manage/health"))
        flows_on(requests, killed, 10)
    note = f"of {len(requests.answers)}; the management API was away for {away:.1f} s"
    record("F5 failed requests, Serve's proxy killed", len(bad(requests.answers)), 0, note=note)


@pytest.mark.full
def test_the_manager_is_killed(served, record):
    """F7, the data plane's side"""
    with load(served) as requests:
        served.kill("ray::", "Manager")
        killed = time.monotonic()
        away = outage(lambda: answers(served, "/manage/health"))
        flows_on(requests, killed, 10)
    record("F7 failed requests, the manager killed", len(bad(requests.answers)), 0, note=f"of {len(requests.answers)}")
    record("F7 time until the manager answers again", away, 30, unit="s")


@pytest.mark.full
def test_the_gateway_is_killed_and_haproxy_serves_on(served, record):
    """F6. There is one gateway: what it answers itself (cold starts, the list of models) is away, what HAProxy carries is not."""
    with load(served) as requests:
        served.kill("ray::", "Gateway")
        killed = time.monotonic()
        until(lambda: not answers(served, "/v1/models"), 5, every=0.01, what="the slow path is gone")
        away = outage(lambda: answers(served, "/v1/models"))
        flows_on(requests, killed, 10)
    note = f"of {len(requests.answers)}; the gateway's own routes were away for {away:.1f} s, the start of a Serve replica"
    record("F6 failed requests, the gateway killed", len(bad(requests.answers)), 0, note=note)


@pytest.mark.full
def test_haproxy_itself_is_killed(served, record):
    """F6"""
    with load(served) as requests:
        served.kill("haproxy", "edge")
        killed = time.monotonic()
        away = outage(lambda: answers(served, "/health"))
        flows_on(requests, killed + away, 5)
    late = bad(requests.since(killed + away + 0.1))
    record("F6 time until HAProxy serves again", away, 3, unit="s")
    record("F6 failed requests after HAProxy is back", len(late), 0, note=f"{len(bad(requests.answers))} failed meanwhile; {late[:3]}")


@pytest.mark.full
def test_the_database_is_locked_for_half_a_minute(served, record):
    """F11"""
    statuses, over = [], threading.Event()

    def change():
        while not over.is_set():
            with contextlib.suppress(httpx.TransportError):
                statuses.append(served.manage("PUT", f"/{NAME}", {"tags": [f"n{len(statuses)}"]}).status_code)

    with load(served) as requests, contextlib.closing(sqlite3.connect(served.home / "moorage.db", timeout=10)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        locked = time.monotonic()
        writers = [threading.Thread(target=change, daemon=True) for _ in range(3)]
        for writer in writers:
            writer.start()
        flows_on(requests, locked, 30)
        holder.rollback()
        back = outage(lambda: served.manage("PUT", f"/{NAME}", {"tags": ["after"]}).status_code == 200)
        over.set()
        for writer in writers:
            writer.join(30)
    note = f"of {len(requests.answers)}"
    record("F11 failed requests, the database locked for 30 s", len(bad(requests.answers)), 0, note=note)
    while_locked = {status: statuses.count(status) for status in sorted(set(statuses))}
    assert 503 in while_locked
    record("F11 answers of the API other than 200 and 503", sum(status not in (200, 503) for status in statuses), 0, note=str(while_locked))
    record("F11 time until changes are taken again", back, 15, unit="s")


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_the_manager_is_killed_at_random_moments_of_changes(platform, record):
    """F7: MOORAGE_CHAOS_KILLS times. Each command's outcome is the one acknowledged, or either one where nobody was told."""
    points = int(os.environ.get("MOORAGE_CHAOS_KILLS", "20"))
    dice, known, lost, unknown = random.Random(7), dict.fromkeys(("alpha", "beta", "gamma")), [], 0
    for number in range(points):
        name = dice.choice(sorted(known))
        before, after = known[name], None if known[name] and dice.random() < 0.4 else f"text {number}"
        told = []
        changing = threading.Thread(
            target=lambda name=name, before=before, after=after, told=told: told.append(change(platform, name, before, after))
        )
        (manager, *_) = (pid for pid, line in platform.processes().items() if line.startswith("ray::") and "Manager" in line)
        changing.start()
        time.sleep(dice.random() * 0.03)  # the random moment: a command takes about as long
        os.kill(manager, signal.SIGKILL)
        changing.join()
        until(lambda: answers(platform, "/manage/health"), 60, what="the manager is back")
        found = platform.manage("GET", f"/{name}")
        known[name] = found.json()["description"] if found.status_code == 200 else None
        unknown += not told[0]
        if known[name] not in ({after} if told[0] else {before, after}):
            lost.append((name, before, after, told[0], known[name]))
    began = time.monotonic()
    for name in (name for name, text in known.items() if text):
        platform.wait(name, timeout=60)
    until(lambda: replicas(platform) == {name for name, text in known.items() if text}, 90, what="no application of what is gone")
    converged = time.monotonic() - began
    for name in (name for name, text in known.items() if text):
        platform.delete(name)
    note = f"{points} kills, {unknown} commands without an answer; {lost[:3]}"
    record("F7 changes lost or half made when the manager is killed", len(lost), 0, note=note)
    record("F7 time from the last kill until everything is as it was told", converged, 30, unit="s")


def change(platform, name, before, after):
    """Create, update or delete; whether that was acknowledged."""
    with contextlib.suppress(httpx.TransportError):
        if after is None:
            return platform.manage("DELETE", f"/{name}").status_code == 200
        if before is None:
            return platform.manage("POST", "", {"name": name, "description": after, "model": {"image": {"echo": {}}}}).status_code == 200
        update = {"description": after, "model": {"image": {"echo": {"tag": after}}}}
        return platform.manage("PUT", f"/{name}", update).status_code == 200
    return False


def replicas(platform):
    """Names of the endpoints that have a replica's process."""
    found = (re.search(r"ServeReplica:admin--(\w+)--r", line) for line in platform.processes().values())
    return {match[1] for match in found if match and match[1] in ("alpha", "beta", "gamma")}


@pytest.mark.full
def test_a_ruined_database_is_served_around_and_restored_from_its_backup(served, record):
    """F11"""
    backup, database = served.home / "backup.db", served.home / "moorage.db"
    with contextlib.closing(sqlite3.connect(database)) as source:
        source.execute("VACUUM INTO ?", (str(backup),))
        source.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with load(served) as requests:
        with database.open("r+b") as file:
            file.write(os.urandom(database.stat().st_size))
        ruined = time.monotonic()
        statuses = []
        while time.monotonic() < ruined + 20:
            statuses.append(served.manage("PUT", f"/{NAME}", {"tags": [str(len(statuses))]}).status_code)
            statuses.append(served.manage("GET", f"/{NAME}").status_code)
        flows_on(requests, ruined, 20)
    served.down()
    for leftover in served.home.glob("moorage.db*"):
        leftover.unlink()
    backup.rename(database)
    database.chmod(0o600)
    served.up()
    served.wait(NAME)
    assert served.chat(NAME).status_code == 200
    seen = {status: statuses.count(status) for status in sorted(set(statuses))}
    record("F11 failed requests, the database ruined", len(bad(requests.answers)), 0, note=f"of {len(requests.answers)}")
    other = sum(status not in (200, 503) for status in statuses)
    note = f"{seen}; 200 where SQLite had the page in memory"
    record("F11 answers of the API other than 200 and 503, the database ruined", other, 0, note=note)


@pytest.mark.full
def test_a_full_disk_under_the_database_refuses_changes_alone(new_platform, tmp_path, record):
    """F12"""
    folder = tmp_path / "small"
    with small_disk(folder, 8) as resize, new_platform(database_url=f"sqlite:///{folder}/moorage.db") as platform:
        platform.create(NAME, echo={"tokensPerSecond": 100})
        with load(platform) as requests:
            with contextlib.suppress(OSError), (folder / "filler").open("wb") as filler:
                while True:
                    filler.write(bytes(4096))
                    filler.flush()
            statuses = [platform.manage("PUT", f"/{NAME}", {"tags": [f"{number}" * 3000]}).status_code for number in range(20)]
            read = platform.manage("GET", f"/{NAME}").status_code
            resize(64)
            back = outage(lambda: platform.manage("PUT", f"/{NAME}", {"tags": ["after"]}).status_code == 200)
            flows_on(requests, time.monotonic(), 1)
        assert read == 200
        assert 503 in statuses
        other = [status for status in statuses if status not in (200, 503)]
        record("F12 failed requests, the database's disk full", len(bad(requests.answers)), 0, note=f"of {len(requests.answers)}")
        record("F12 answers of the API other than 200 and 503", len(other), 0, note=f"{statuses.count(503)} refused; {other[:3]}")
        record("F12 time until changes are taken once there is room", back, 10, unit="s")
