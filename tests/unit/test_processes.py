"""Processes as /proc shows them: real ones, started here."""

import os
import signal
import subprocess
import sys
import uuid

import pytest

from cluster import processes

MARK = "MOORAGE_TEST_MARK"
STUBBORN = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
OBEDIENT = "import time; print('ready', flush=True); time.sleep(600)"


@pytest.fixture
def start():
    """Starts Python code with a mark; waits until it says it is ready."""
    started = []

    def begin(code, mark):
        child = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {MARK: mark}, stdout=subprocess.PIPE)
        started.append(child)
        assert child.stdout.readline() == b"ready\n"
        return child

    yield begin
    for child in started:
        child.kill()
        child.wait()
        child.stdout.close()


@pytest.fixture
def mark():
    return uuid.uuid4().hex


def test_marked_processes_are_found_and_others_are_not(start, mark):
    child = start(OBEDIENT, mark)
    start(OBEDIENT, mark + "other")
    assert [process.pid for process in processes.marked(MARK, mark)] == [child.pid]


def test_the_one_that_asks_is_not_among_them(mark):
    code = f"from cluster import processes; print([p.pid for p in processes.marked({MARK!r}, {mark!r})])"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {MARK: mark}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_obedient_process_ends_when_asked(start, mark):
    child = start(OBEDIENT, mark)
    assert processes.end(processes.marked(MARK, mark), grace_s=10) == []
    assert child.wait() == -signal.SIGTERM


def test_a_stubborn_process_is_killed_after_the_grace(start, mark):
    child = start(STUBBORN, mark)
    assert processes.end(processes.marked(MARK, mark), grace_s=0.2) == []
    assert child.wait() == -signal.SIGKILL


def test_a_zombie_counts_as_gone(start, mark):
    child = start(OBEDIENT, mark)
    found = processes.find(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead and not yet collected
    assert found is not None and not processes.alive(found)


def test_a_process_id_that_was_used_again_is_left_alone(start, mark):
    child = start(OBEDIENT, mark)
    found = processes.find(child.pid)
    assert found is not None
    stranger = processes.Process(found.pid, found.started - 1, found.title)
    assert processes.end([stranger], grace_s=0.1) == []
    assert child.poll() is None
