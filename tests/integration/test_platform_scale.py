"""A thousand endpoints: creating stays fast, and those at zero are rows, not processes."""

import statistics
import time

from support.platforms import until


def test_a_thousand_endpoints_at_zero_cost_no_process_and_creating_stays_fast(new_platform):
    with new_platform() as platform:
        platform.create("awake-one")
        # the first one's start has used up the node's spare worker: it is there again before anything is counted
        until(lambda: [line for line in platform.processes().values() if line.startswith("ray::IDLE")], 60, what="a spare worker")
        processes = len(platform.processes())
        seconds = []
        with platform.client() as client:
            for number in range(1000):
                scaling = {"minReplica": 0, "maxReplica": 1, "startAtZero": True}
                body = {"name": f"row-{number:04}", "model": {"image": {"echo": {}}}, "compute": {"scaling": scaling}}
                began = time.perf_counter()
                answer = client.post("/manage/v2/endpoint/admin", json=body)
                seconds.append(time.perf_counter() - began)
                assert answer.status_code < 300, answer.text
                assert answer.json()["status"]["state"] == "scaledToZero"
            listed = client.get("/manage/v2/endpoint/admin?limit=2000").json()["items"]
        assert len(listed) == 1001
        assert statistics.median(seconds[-200:]) < 0.1
        until(lambda: len(platform.processes()) <= processes, 30, what="no process more")
        assert not [line for line in platform.processes().values() if "row-" in line]
        # one of them wakes as fast as if it were alone, and the awake one never stopped
        assert platform.chat("row-0500").status_code == 200
        assert platform.chat("awake-one").status_code == 200
