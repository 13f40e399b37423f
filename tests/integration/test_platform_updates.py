"""Changes of a running endpoint that need no load to be judged; those under load are cases of tests/chaos."""

import pytest
from support.platforms import until

NAME = "changing"


@pytest.fixture
def changing(platform):
    platform.create(NAME, echo={"tag": "one", "tokensPerSecond": 50})
    yield platform
    platform.delete(NAME)


def update(platform, **changes):
    answer = platform.manage("PUT", f"/{NAME}", changes)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_change_of_scaling_restarts_no_replica(changing):
    def replicas():
        return {pid for pid, line in changing.processes().items() if f"ServeReplica:admin--{NAME}" in line}

    before, revision = replicas(), changing.status(NAME)["revision"]
    update(changing, compute={"scaling": {"minReplica": 2, "maxReplica": 3}})
    until(lambda: changing.status(NAME)["readyReplica"] == 2, what="a second replica")
    assert before < replicas()
    assert changing.status(NAME)["revision"] == revision


def test_recreate_stops_the_old_revision_first(changing):
    update(changing, strategy="recreate")
    update(changing, model={"image": {"echo": {"tag": "two", "loadSeconds": 1}}})
    changing.wait(NAME)
    assert changing.chat(NAME).json()["system_fingerprint"] == "two"
