"""`moorage endpoints`, `keys`, `hardware` and `apply` against the real management API, in this process."""

import re

import pytest
from support.cli import runner
from support.management import Management

from cluster import messages, state

ECHO = ("--engine", "echo")
FILE = """
name: from-file
model: {image: {echo: {}}}
compute: {scaling: {maxReplica: 2}}
---
name: other-file
model: {image: {echo: {}}, env: {A: b}}
"""


@pytest.fixture
def api(tmp_path):
    return Management(tmp_path)


@pytest.fixture
def moorage(api, monkeypatch, tmp_path):
    """Runs a command; fails unless it ends with `code`. Returns standard output, parsed when --json is among the words."""
    return runner(api, monkeypatch, tmp_path)


def create(moorage, name="demo-chat", *words):
    return moorage("endpoints", "create", name, *ECHO, "--json", *words)


def test_create_sends_what_was_given_and_shows_the_endpoint(moorage, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "hidden")
    made = create(moorage, "demo-chat", "--max-replica", "3", "--tag", "a", "--secret", "MY_TOKEN")
    assert made["name"] == "demo-chat" and made["compute"]["scaling"]["maxReplica"] == 3 and made["tags"] == ["a"]
    assert made["model"]["secrets"] == {"MY_TOKEN": ""}
    assert made["apiKey"]["key"].startswith("moor_e_")


def test_the_first_key_is_shown_beside_the_result_and_not_in_it(moorage):
    done = moorage.all("endpoints", "create", "demo-chat", *ECHO)
    assert "moor_e_" in done.stderr and "moor_e_" not in done.stdout
    assert "name\tdemo-chat" in done.stdout and "state\trunning" in done.stdout


def test_a_name_is_made_from_the_model_when_none_is_given(moorage):
    made = moorage("endpoints", "create", "--model", "org/My_Model", *ECHO, "--json")
    assert made["name"] == "my-model"


def test_create_and_wait_shows_the_phases(moorage, api, monkeypatch):
    monkeypatch.setattr("cluster.cli.follow.POLL_S", 0)
    loading = state.Status(state.INITIALIZING, "Loading", "weights", "loading")
    api.states["demo-chat"] = [state.Status(state.PENDING, message="queued"), loading, state.Status(state.RUNNING, ready=1)]
    done = moorage.all("endpoints", "create", "demo-chat", *ECHO, "--wait")
    assert done.exit_code == 0
    assert done.stderr.index("initializing loading: weights") < done.stderr.index("running")


def test_a_failure_while_waiting_is_an_exit_code_and_a_reason(moorage, api):
    api.states["demo-chat"] = [state.Status(state.FAILED, "GatedRepository", "Ask for access.", "failed")]
    assert "GatedRepository): Ask for access" in moorage("endpoints", "create", "demo-chat", *ECHO, "--wait", code=1)


def test_a_dry_run_shows_the_plan_and_creates_nothing(moorage):
    plan = moorage("endpoints", "create", "demo-chat", *ECHO, "--instance-type", "nvidia-h200", "--dry-run")
    assert "one replica\t1 H200" in plan and "fits now\tyes" in plan
    assert moorage("endpoints", "ls", "--json") == []


def test_ls_shows_a_line_for_each_and_filters(moorage):
    create(moorage, "demo-one")
    create(moorage, "demo-two")
    moorage("endpoints", "pause", "demo-two")
    lines = moorage("endpoints", "ls").splitlines()
    assert [line.split("\t")[:2] for line in lines] == [["NAME", "STATE"], ["demo-one", "running"], ["demo-two", "paused"]]
    assert [item["name"] for item in moorage("endpoints", "ls", "--state", "paused", "--json")] == ["demo-two"]
    assert [item["name"] for item in moorage("endpoints", "ls", "--search", "one", "--json")] == ["demo-one"]


def test_update_changes_what_is_given_and_leaves_the_rest(moorage):
    create(moorage, "demo-chat", "--description", "before", "--max-replica", "2")
    changed = moorage("endpoints", "update", "demo-chat", "--max-replica", "4", "--json")
    assert changed["compute"]["scaling"]["maxReplica"] == 4 and changed["description"] == "before"
    plan = moorage("endpoints", "update", "demo-chat", "--env", "A=b", "--dry-run")
    assert "new replicas" in plan and "model.env" in plan
    assert "nothing changes" in moorage("endpoints", "update", "demo-chat", "--max-replica", "4", "--dry-run")


@pytest.mark.parametrize(("verb", "expected"), [("pause", "paused"), ("scale-to-zero", "scaledToZero"), ("restart", "running")])
def test_each_command_shows_the_state_it_leads_to(moorage, verb, expected):
    create(moorage, "demo-chat", "--min-replica", "0")
    assert moorage("endpoints", verb, "demo-chat", "--json")["status"]["state"] == expected


def test_resume_of_a_running_one_is_the_servers_sentence(moorage):
    create(moorage)
    assert "already running" in moorage("endpoints", "resume", "demo-chat", code=1)


def test_describe_takes_a_name_with_its_namespace(moorage):
    create(moorage)
    assert moorage("endpoints", "describe", "admin/demo-chat", "--json")["name"] == "demo-chat"
    assert "no endpoint 'nothing'" in moorage("endpoints", "describe", "nothing", code=1)


def test_delete_asks_and_takes_no_for_an_answer(moorage):
    create(moorage)
    moorage("endpoints", "delete", "demo-chat", code=1, input="n\n")
    assert moorage("endpoints", "describe", "demo-chat", "--json")
    assert moorage("endpoints", "delete", "demo-chat", "--yes", "--json") == {"deleted": "demo-chat"}
    assert moorage("endpoints", "ls", "--json") == []


def test_events_and_revisions_are_shown(moorage):
    create(moorage)
    moorage("endpoints", "update", "demo-chat", "--env", "A=b")
    assert [event["kind"] for event in moorage("endpoints", "events", "demo-chat", "--json")] == ["create", "update"]
    assert "Updated by admin: model.env" in moorage("endpoints", "events", "demo-chat")
    assert [row["revision"] for row in moorage("endpoints", "revisions", "demo-chat", "--json")] == [1, 2]
    assert moorage("endpoints", "revisions", "demo-chat").splitlines()[0].startswith("REVISION\tSTATUS")


def test_rollback_goes_to_the_revision_that_is_named(moorage):
    create(moorage)
    moorage("endpoints", "update", "demo-chat", "--env", "A=b")
    assert moorage("endpoints", "rollback", "demo-chat", "--to", "1", "--json")["model"]["env"] == {}


def test_logs_are_lines_and_json_is_objects(moorage, api):
    create(moorage)
    api.logs.append(
        "admin", "demo-chat", "replica-1", [messages.LogLine(1767225600.0, "info", "ready"), messages.LogLine(1767225601.0, "error", "bad")]
    )
    assert moorage("endpoints", "logs", "demo-chat").splitlines() == [
        "2026-01-01T00:00:00.000Z eplica-1 INFO    ready",
        "2026-01-01T00:00:01.000Z eplica-1 ERROR   bad",
    ]
    assert [line["text"] for line in moorage("endpoints", "logs", "demo-chat", "--level", "error", "--json")] == ["bad"]


def test_keys_are_made_listed_edited_and_revoked(moorage):
    create(moorage)
    made = moorage("keys", "create", "demo-chat", "-d", "for tests", "--concurrency", "2", "--json")
    assert made["key"].startswith("moor_e_") and made["concurrency"] == 2
    assert [key["description"] for key in moorage("keys", "ls", "demo-chat", "--json")] == ["First Key", "for tests"]
    assert moorage("keys", "edit", "demo-chat", made["id"], "-d", "renamed", "--json")["description"] == "renamed"
    assert moorage("keys", "describe", "demo-chat", made["id"], "--json")["description"] == "renamed"
    moorage("keys", "revoke", "demo-chat", made["id"])
    assert moorage("keys", "ls", "demo-chat", "--json")[1]["status"] == "revoked"


def test_a_new_key_alone_is_on_standard_output(moorage):
    create(moorage)
    key = moorage("keys", "create", "demo-chat")
    assert key.startswith("moor_e_") and len(key.splitlines()) == 1


def test_the_first_key_cannot_be_revoked_and_the_server_says_so(moorage):
    create(moorage)
    first = moorage("keys", "ls", "demo-chat", "--json")[0]["id"]
    assert "First Key" in moorage("keys", "revoke", "demo-chat", first, code=1)


def test_hardware_shows_what_is_free(moorage):
    lines = moorage("hardware").splitlines()
    assert lines[0].startswith("TYPE\tSIZE")
    assert any(line.startswith("nvidia-h200\tx2") for line in lines)
    assert {row["instanceType"] for row in moorage("hardware", "--json")} == {"local-cpu", "nvidia-h200"}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "endpoints.yaml"
    path.write_text(FILE)
    return path


def test_apply_shows_the_plan_creates_and_then_has_nothing_to_do(moorage, file):
    done = moorage("apply", "-f", file, "--yes")
    assert "from-file\tcreate\tone replica takes 1 CPU" in done and "other-file is running" in done
    again = moorage("apply", "-f", file, "--yes", "--json")
    assert [step["action"] for step in again["plan"]] == ["none", "none"] and again["endpoints"] == []


def test_apply_changes_only_what_differs(moorage, file):
    moorage("apply", "-f", file, "--yes")
    file.write_text(FILE.replace("A: b", "A: c"))
    done = moorage("apply", "-f", file, "--yes", "--json")
    assert [step["action"] for step in done["plan"]] == ["none", "update"]
    assert done["plan"][1]["plan"]["newRevision"] is True
    assert moorage("endpoints", "describe", "other-file", "--json")["model"]["env"] == {"A": "c"}


def test_apply_dry_run_changes_nothing(moorage, file):
    assert "from-file\tcreate" in moorage("apply", "-f", file, "--dry-run")
    assert moorage("endpoints", "ls", "--json") == []


def test_apply_without_anybody_to_ask_is_refused(moorage, file):
    assert "say --yes" in moorage("apply", "-f", file, code=1)
    assert moorage("endpoints", "ls", "--json") == []


def test_a_secret_in_the_file_is_written_again(moorage, tmp_path):
    path = tmp_path / "one.yaml"
    path.write_text("name: with-secret\nmodel: {image: {echo: {}}, secrets: {TOKEN: one}}\n")
    moorage("apply", "-f", path, "--yes")
    path.write_text("name: with-secret\nmodel: {image: {echo: {}}, secrets: {TOKEN: two}}\n")
    assert moorage("apply", "-f", path, "--yes", "--json")["plan"][0]["action"] == "update"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [", "is not YAML"),
        ("just words", "Document 1 of .* is not an endpoint"),
        ("name: good\n---\nmodel: {}", "Document 2"),
        ("name: twice\n---\nname: twice", "declares twice twice"),
        ("", "declares nothing"),
    ],
)
def test_a_file_that_declares_no_endpoints_says_what_is_wrong(moorage, tmp_path, text, sentence):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    refused = moorage("apply", "-f", path, "--yes", code=1)
    assert re.search(sentence, refused), refused


def test_what_the_server_refuses_stops_apply_before_anything_is_changed(moorage, tmp_path):
    path = tmp_path / "mixed.yaml"
    path.write_text("name: good-one\nmodel: {image: {echo: {}}}\n---\nname: bad-one\nnonsense: 1\n")
    assert "nonsense" in moorage("apply", "-f", path, "--yes", code=1)
    assert moorage("endpoints", "ls", "--json") == []


def test_members_are_shown_each_with_its_state_and_model(moorage, api):
    two = ("--member", "chat=,engine=echo", "--member", "code=,engine=echo,primary")
    plan = moorage("endpoints", "create", "team", *two, "--dry-run")
    assert re.search(r"member code\s+0.5 CPU", plan)
    moorage("endpoints", "create", "team", *two)
    seen = (state.MemberStatus("code", "running", 1, 1), state.MemberStatus("chat", "pending", 0, 1))
    api.states["team"] = [state.Status("running", members=seen)]
    shown = moorage("endpoints", "describe", "team")
    assert "2 members: chat, code" in shown
    assert re.search(r"member code\s+running 1/1, primary, echo", shown)
    assert re.search(r"member chat\s+pending 0/1, echo", shown)
    assert "2 members: chat, code" in moorage("endpoints", "ls")
