"""What a request of the usual way costs, in counts that no busy neighbour can move: rules, Python calls, system calls."""

import asyncio
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHAT = "/v1/chat/completions"
REQUESTS = 200
MOST_RULES = 61
"""`http-request` and `http-response` rules that a usual request goes through; each costs 0.1 to 1 microsecond."""
MOST_PYTHON_CALLS = 0.5
MOST_SYSTEM_CALLS = 5.5
GATEWAY = str(Path(__file__).parent.parent.parent.parent / "gateway")


async def ask(world, key, count):
    for _ in range(count):
        async with world.post(f"/endpoints/acme/chat-one{CHAT}", key) as answer:
            assert answer.status == 200
            await answer.read()


def sections(configuration):
    """Name -> rules of each proxy."""
    found, name = {}, ""
    for line in configuration.splitlines():
        if match := re.match(r"(frontend|backend|defaults) (\S+)", line):
            name = match[2]
        elif re.match(r"    http-(request|response|after-response) ", line):
            found.setdefault(name, []).append(line.strip())
    return found


async def test_a_usual_request_goes_through_few_rules(world):
    rules = sections(world.settings.files.configuration.read_text())
    edge = rules["edge"]
    last = max(number for number, rule in enumerate(edge) if rule.startswith("http-request allow if unbound"))
    usual = edge[: last + 1] + [rule for rule in edge if "after-response" in rule] + rules["slots"]
    assert len(usual) <= MOST_RULES
    assert not [rule for rule in edge[: last + 1] if " return " in rule], "a refusal in the usual way costs those who are not refused"


async def test_a_usual_request_costs_hardly_any_python(world, engines, endpoint):
    await world.publish(endpoint("chat-one", await engines()))
    key = await world.key()
    await ask(world, key, 10)
    calls = 0

    def count(frame, event, _):
        nonlocal calls
        calls += event == "call" and frame.f_code.co_filename.startswith(GATEWAY)

    sys.setprofile(count)
    try:
        await ask(world, key, REQUESTS)
    finally:
        sys.setprofile(None)
    assert calls / REQUESTS < MOST_PYTHON_CALLS


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
async def test_a_usual_request_costs_few_system_calls(world, engines, endpoint, tmp_path):
    await world.publish(endpoint("chat-one", await engines()))
    key = await world.key()
    await ask(world, key, 10)
    master = world.edge._haproxy.pid
    (worker,) = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    told = tmp_path / "calls"
    command = ["strace", "-f", "-o", str(told), "-p", worker]
    tracer = await asyncio.to_thread(subprocess.Popen, command, stderr=subprocess.PIPE)
    assert b"attached" in await asyncio.to_thread(tracer.stderr.readline)
    try:
        await ask(world, key, REQUESTS)
    finally:
        tracer.terminate()
        await asyncio.to_thread(tracer.wait)
        tracer.stderr.close()
    # Of the request's own path: what is read and written. How often it sleeps in between is up to the others.
    calls = re.findall(r"^\d+ +(recvfrom|recvmsg|sendto|sendmsg|read|write|readv|writev)\(", told.read_text(), re.MULTILINE)
    assert len(calls) / REQUESTS < MOST_SYSTEM_CALLS
