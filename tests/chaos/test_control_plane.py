"""The platform's own processes die, and its database is locked, while requests flow: the bytes' path may not notice."""

import contextlib
import sqlite3
import threading
import time

import httpx
import pytest
from support.load import Load, bad
from support.platforms import until

NAME = "steady"


@pytest.fixture(scope="module")
def served(platform):
    platform.create(NAME, echo={"tag": "one", "tokensPerSecond": 100})
    return platform


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
