"""`moorage keys`, `secrets` and `integrations` against the real management API, in this process: values never on a command line."""

import datetime

import pytest
from support.cli import runner
from support.management import Management

from cluster.cli import limits
from cluster.errors import InvalidRequest

TOKEN = "hf_a-token-that-nobody-may-see"


@pytest.fixture
def api(tmp_path):
    return Management(tmp_path)


@pytest.fixture
def moorage(api, monkeypatch, tmp_path):
    run = runner(api, monkeypatch, tmp_path)
    monkeypatch.setenv("MY_TOKEN", TOKEN)
    return run


def test_a_key_is_made_with_limits_and_an_expiry_and_shown_on_a_line_of_its_own(moorage):
    moorage("endpoints", "create", "demo-chat", "--engine", "echo")
    done = moorage.all("keys", "create", "demo-chat", "--rpm", "60", "--tpd", "5000", "--budget", "12.5", "--expires", "30d")
    assert done.stdout.startswith("moor_e_") and done.stdout.count("\n") == 1 and "moor_e_" not in done.stderr
    made = moorage("keys", "ls", "demo-chat", "--json")[1]
    ends = datetime.datetime.fromisoformat(made["expiresAt"]) - datetime.datetime.fromisoformat(made["createdAt"])
    assert ends.days == 30
    assert "60/min, 5000 tok/day, 12.5 a month" in moorage("keys", "ls", "demo-chat")
    edited = moorage("keys", "edit", "demo-chat", made["id"], "--rpm", "0", "--concurrency", "2", "--expires", "never", "--json")
    assert (edited["requestsPerMinute"], edited["concurrency"], edited["budget"], edited["expiresAt"]) == (0, 2, 12.5, None)
    assert "Say what to change" in moorage("keys", "edit", "demo-chat", made["id"], code=1)


def test_a_key_is_rotated_with_an_overlap(moorage):
    moorage("endpoints", "create", "demo-chat", "--engine", "echo")
    made = moorage("keys", "create", "demo-chat", "--json")
    done = moorage.all("keys", "rotate", "demo-chat", made["id"], "--overlap", "24h")
    assert done.stdout.startswith("moor_e_") and "works for 24h more" in done.stderr
    old = moorage("keys", "describe", "demo-chat", made["id"], "--json")
    assert old["replacedBy"] and old["status"] == "active"
    assert "not 'soon'" in moorage("keys", "rotate", "demo-chat", made["id"], "--overlap", "soon", code=1)


@pytest.mark.parametrize(
    ("text", "body"),
    [
        (None, {}),
        ("never", {"expiresAt": None}),
        ("90m", {"expiresInSeconds": 5400}),
        ("2w", {"expiresInSeconds": 1_209_600}),
        ("2027-01-31", {"expiresAt": "2027-02-01T00:00:00Z"}),
        ("2027-01-31T12:00:00Z", {"expiresAt": "2027-01-31T12:00:00Z"}),
        ("2027-01-31T12:00:00+02:00", {"expiresAt": "2027-01-31T10:00:00Z"}),
    ],
)
def test_an_expiry_is_a_time_from_now_a_date_that_is_over_with_its_day_or_never(text, body):
    assert limits.expiry(text) == body


def test_an_expiry_that_cannot_be_read_is_refused():
    with pytest.raises(InvalidRequest, match="not 'tomorrow'"):
        limits.expiry("tomorrow")


def test_the_limits_of_an_endpoint_have_options(moorage):
    words = ("--rpm", "100", "--concurrency", "8", "--tokens-per-minute", "2000", "--budget", "5", "--budget-period", "day")
    made = moorage("endpoints", "create", "demo-chat", "--engine", "echo", *words, "--json")
    assert made["limits"] == {
        "requestsPerMinute": 100,
        "tokensPerMinute": 2000,
        "tokensPerDay": 0,
        "concurrency": 8,
        "budget": 5.0,
        "budgetPeriod": "day",
    }
    assert "100/min, 2000 tok/min, 8 at once, 5 a day" in moorage("endpoints", "describe", "demo-chat")


def test_a_secret_comes_from_a_variable_a_file_or_standard_input_and_is_never_shown(moorage, api, tmp_path):
    (tmp_path / "value").write_text("from the file\n")
    shown = moorage("secrets", "create", "one", "--from", "MY_TOKEN")
    moorage("secrets", "create", "two", "--from", f"@{tmp_path / 'value'}")
    moorage("secrets", "create", "three", input="from the pipe\n")
    opened = {row.name: api.control.unseal(row.fields["value"]) for row in api.store.credentials("admin")}
    assert opened == {"one": TOKEN, "two": "from the file", "three": "from the pipe"}
    assert TOKEN not in shown + moorage("secrets", "ls") + moorage("secrets", "describe", "one")
    moorage("secrets", "update", "one", input="another")
    assert api.control.unseal(api.store.credential("admin", "secret", "one").fields["value"]) == "another"
    moorage("secrets", "update", "one", "-d", "what it is for")
    assert moorage("secrets", "describe", "one", "--json")["description"] == "what it is for"
    moorage("secrets", "delete", "one", "--yes")
    assert [item["name"] for item in moorage("secrets", "ls", "--json")] == ["three", "two"]


def test_a_value_given_where_its_source_should_be_is_not_repeated(moorage):
    for words in (("secrets", "create", "one", "--from"), ("integrations", "create", "hub", "--kind", "huggingface", "--from")):
        said = moorage(*words, f"token={TOKEN}" if "hub" in words else TOKEN, code=1)
        assert TOKEN not in said and "no variable" in said
    said = moorage("integrations", "create", "hub", "--kind", "huggingface", "--field", f"token={TOKEN}", code=1)
    assert TOKEN not in said and "--from token=" in said


def test_an_integration_is_made_used_changed_and_deleted(moorage, api):
    moorage("integrations", "create", "hub", "--kind", "huggingface", "--from", "token=MY_TOKEN", "--field", "endpoint=https://hub.example")
    moorage("secrets", "create", "mine", "--from", "MY_TOKEN")
    made = moorage(
        *("endpoints", "create", "demo-chat", "--engine", "vLLM", "--model", "org/model", "--json"),
        *("--integration", "hub", "--secret-ref", "MY_NAME=mine"),
    )
    assert (made["model"]["integration"], made["model"]["secretRefs"]) == ("hub", {"MY_NAME": "mine"})
    moorage("adapters", "add", "demo-chat", "style", "org/style", "--integration", "hub")
    assert api.store.endpoint("admin", "demo-chat").spec["model"]["adapters"][0]["integration"] == "hub"
    listed = moorage("integrations", "ls")
    assert "endpoint, token" in listed and "admin/demo-chat" in listed and TOKEN not in listed
    assert "admin/demo-chat" in moorage("integrations", "delete", "hub", "--yes", code=1)
    changed = moorage("integrations", "update", "hub", "--from", "token=MY_TOKEN", "--unset", "endpoint", "--json")
    assert changed["fields"] == ["token"]
    moorage("endpoints", "delete", "demo-chat", "--yes")
    moorage("integrations", "delete", "hub", "--yes")
    assert moorage("integrations", "ls", "--json") == []


def test_what_is_missing_of_an_integration_is_asked_for(moorage, api):
    moorage("integrations", "create", "hub", "--kind", "huggingface", input=f"{TOKEN}\n")
    assert api.control.unseal(api.store.credential("admin", "integration", "hub").fields["token"]) == TOKEN
    assert "username and password are missing" in moorage(
        "integrations", "create", "ghcr", "--kind", "registry", "--field", "server=ghcr.io", code=1
    )


def test_the_operator_reseals(moorage):
    moorage("secrets", "create", "one", "--from", "MY_TOKEN")
    assert moorage("secrets", "reseal") == "1 values are sealed under the newest key.\n"
