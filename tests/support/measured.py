"""A management API whose endpoints have something to show: answers, usage, hardware and replicas."""

import time

from cluster import messages, observation, state

GPU = messages.Gpu("0", "NVIDIA H200", 0.75, 60 * 2**30, 140 * 2**30, 51.0, 420.5)
USED = messages.HardwareUse(0.0, 1.5, 2.0, 3 * 2**30, 2 * 2**30, (GPU,))


def fill(api, name="demo-chat", *, good=90, bad=10, seconds=0.2, replica="r1", hardware=USED):
    """Two hundred milliseconds each, one in ten a 500, two that wait, one replica with a GPU."""
    path = f"admin/{name}"
    ok = messages.Answers(path, replica, 200, good, {46: good}, good * seconds)
    broken, refused = messages.Answers(path, replica, 500, bad), messages.Answers(path, "", 429, 3)
    active, running = {path: 5}, {path: {replica: 3}}
    api.service.note_activity(messages.Activity("edge", time.time(), active=active, running=running, answers=(ok, broken, refused)))
    used = [messages.Usage(id=str(at), total_s=0.15, first_token_s=0.05, prompt_tokens=20, completion_tokens=8) for at in range(good)]
    api.service.note(path, replica, used)
    if hardware is not None:
        api.service.note_hardware(path, replica, hardware)
    seen = observation.Application("a", "running", replicas=(observation.Replica(replica, "running", "n1"),), target=2)
    api.timeline.see({row.path for row in api.store.endpoints()}, [(path, state.RevisionView(seen, frozenset({replica})))], time.time())
