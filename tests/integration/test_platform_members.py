"""An endpoint of two models on a real platform: each answers under its name and scales on its own. The order of the tests is the story."""

import httpx
import pytest
from support.platforms import until

NAME = "team"


def members(scaling=None, **small):
    """`scaling` and `small` are of the second member."""
    return [
        {"name": "big", "image": {"echo": {"tag": "big"}}},
        {"name": "small", "image": {"echo": {"tag": "small", **small}}, "scaling": scaling or {}},
    ]


@pytest.fixture(scope="module")
def team(platform):
    answer = platform.manage("POST", "", {"name": NAME, "model": {"members": members()}, "compute": {"scaling": {"minReplica": 0}}})
    assert answer.status_code < 300, answer.text
    yield platform
    if platform.manage("GET", f"/{NAME}").status_code == 200:
        platform.delete(NAME)


def seen(platform):
    return {one["name"]: (one["state"], one["readyReplica"], one["targetReplica"]) for one in platform.status(NAME)["members"]}


def replicas(platform, member):
    return {pid for pid, line in platform.processes().items() if f"ServeReplica:admin--{NAME}" in line and f":engine-{member}" in line}


def answered_by(platform, model, **fields):
    """Which member answers on the endpoint's own URL and on the shared one."""
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], **fields}
    found = set()
    for path, asked in ((f"/endpoints/admin/{NAME}/v1/chat/completions", model), ("/v1/chat/completions", f"{NAME}:{model}")):
        answer = platform.fetch(path, "POST", {**body, "model": asked})
        assert answer.status_code == 200, answer.text
        assert answer.json()["model"] == asked
        found.add(answer.json()["system_fingerprint"])
    return found


def update(platform, rows):
    answer = platform.manage("PUT", f"/{NAME}", {"model": {"members": rows}})
    assert answer.status_code == 200, answer.text


def test_each_member_answers_under_its_name(team):
    team.wait(NAME)
    assert seen(team) == {"big": ("running", 1, 1), "small": ("running", 1, 1)}
    assert [answered_by(team, model) for model in ("big", "small")] == [{"big"}, {"small"}]
    assert team.chat(NAME).json()["system_fingerprint"] == "big"
    assert team.chat(NAME, select_expert="small").json()["system_fingerprint"] == "small"
    assert team.fetch("/v1/chat/completions", "POST", {"model": f"{NAME}:none", "messages": []}).status_code == 404
    listed = {row["id"] for row in team.fetch("/v1/models").json()["data"]}
    assert {NAME, f"{NAME}:big", f"{NAME}:small"} <= listed


def test_events_logs_and_the_command_line_name_the_member(team):
    events = team.manage("GET", f"/{NAME}/events").json()["items"]
    ready = {event["data"]["member"]: event for event in events if event["kind"] == "ready"}
    assert set(ready) == {"big", "small"}
    assert ready["small"]["message"].startswith("Member small: ") and ready["small"]["replica"].startswith("small:")
    lines = until(lambda: team.manage("GET", f"/{NAME}/logs", params={"tail": 1000}).json()["items"], what="log lines")
    assert {line["replica"].partition(":")[0] for line in lines} <= {"big", "small"}
    assert "running 1/1, primary, echo" in team.command("endpoints", "describe", NAME).stdout


def test_a_member_scales_on_its_own_and_restarts_nobody(team):
    before, revision = {member: replicas(team, member) for member in ("big", "small")}, team.status(NAME)["revision"]
    assert [len(pids) for pids in before.values()] == [1, 1]
    update(team, members({"minReplica": 2, "maxReplica": 2}))
    until(lambda: seen(team).get("small") == ("running", 2, 2), what="a second replica of one member")
    assert replicas(team, "big") == before["big"]
    assert replicas(team, "small") > before["small"]
    assert team.status(NAME)["revision"] == revision
    assert len(team.manage("GET", f"/{NAME}/metrics").json()["replicas"]) == 3


def test_a_members_broken_update_fails_the_revision_and_leaves_what_runs(team):
    before = {member: replicas(team, member) for member in ("big", "small")}
    update(team, members({"minReplica": 2, "maxReplica": 2}, failure="load"))
    status = team.wait(NAME, "updateFailed")
    assert status["message"].startswith("Member small: ") and status["revision"] == 1
    assert [answered_by(team, model) for model in ("big", "small")] == [{"big"}, {"small"}]
    until(lambda: {member: replicas(team, member) for member in before} == before, what="the failed revision gone")
    assert team.manage("POST", f"/{NAME}/rollback", {}).status_code == 200
    team.wait(NAME)


def test_zero_takes_all_and_a_request_for_one_member_brings_all_back(team):
    assert team.manage("POST", f"/{NAME}/scale-to-zero").status_code == 200
    team.wait(NAME, "scaledToZero")
    until(lambda: not replicas(team, "big") | replicas(team, "small"), what="no replica")
    answer = httpx.post(
        f"{team.url}/v1/chat/completions",
        json={"model": f"{NAME}:small", "messages": [{"role": "user", "content": "wake"}]},
        headers={"authorization": f"Bearer {team.token}"},
        timeout=90,
    )
    assert (answer.status_code, answer.json()["system_fingerprint"]) == (200, "small")
    team.wait(NAME)
    assert seen(team)["small"][1:] == (2, 2) or until(lambda: seen(team)["small"][1] == 2, what="both replicas")


def test_a_deleted_endpoint_leaves_no_replica_of_any_member(team):
    team.delete(NAME)
    until(lambda: not replicas(team, "big") | replicas(team, "small"), what="no replica")
    assert team.fetch("/v1/chat/completions", "POST", {"model": f"{NAME}:big", "messages": []}).status_code == 404
