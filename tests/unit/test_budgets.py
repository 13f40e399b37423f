"""Budgets where nothing has a price: whoever sets one is told that it never blocks, and what to set."""

import pytest
from support.cli import runner

from cluster import instance_types

PRICED = "instanceTypes: [{name: local-cpu, pricePerHour: {x1: 0, x2: 0.5}}, {name: other, pricePerHour: 0}]"


@pytest.fixture
def priced(api):
    """Switches the operator's prices on and off."""

    def switch(on):
        api.control.types = lambda: instance_types.parse(PRICED) if on else instance_types.NONE

    return switch


def told(answer, key="warnings"):
    assert answer.status_code == 200, answer.text
    return [warning for warning in answer.json().get(key) or () if "budget" in warning]


def changes(api):
    """What each way to set a budget on local-cpu x1 answers."""
    name = f"chat-{len(api.store.endpoints()):04}"
    created = api.call("POST", "", {"name": name, "model": {"image": {"echo": {}}}, "limits": {"budget": 5}})
    key = api.call("POST", f"/{name}/keys", {"budget": 5})
    return {
        "create": created,
        "dry run": api.call("PUT", f"/{name}?dryRun=true", {"limits": {"budget": 6}}),
        "update": api.call("PUT", f"/{name}", {"limits": {"budget": 6}}),
        "key": key,
        "key edit": api.call("PATCH", f"/{name}/keys/{key.json()['id']}", {"budget": 6}),
        "key rotation": api.call("POST", f"/{name}/keys/{key.json()['id']}/rotate"),
    }


@pytest.mark.parametrize("on", [False, True])
def test_a_budget_on_an_instance_without_a_price_is_set_with_a_warning(api, priced, on):
    priced(on)
    for way, answer in changes(api).items():
        (warning,) = told(answer)
        assert warning.startswith("This budget never blocks: local-cpu x1 has no price"), way
        assert "pricePerHour" in warning and "instance-types.yaml" in warning and "tokensPerDay" in warning


def test_where_the_instance_has_a_price_nothing_is_said(api, priced):
    priced(True)
    compute = {"compute": {"instanceType": "local-cpu", "instanceSize": "x2"}}
    assert told(api.call("POST", "", {"name": "chat-big", "model": {"image": {"echo": {}}}, "limits": {"budget": 5}, **compute})) == []
    key = api.call("POST", "/chat-big/keys", {"budget": 5})
    assert "warnings" not in key.json()
    assert "warnings" not in api.call("PATCH", f"/chat-big/keys/{key.json()['id']}", {"budget": 6}).json()


def test_without_a_budget_nothing_is_said(api):
    api.create(limits={"tokensPerDay": 5})
    key = api.call("POST", "/demo-chat/keys", {"tokensPerDay": 5}).json()
    assert "warnings" not in key and "warnings" not in api.call("GET", f"/demo-chat/keys/{key['id']}").json()
    assert "warnings" not in api.call("POST", "/manage/v2/keys", {"requestsPerMinute": 5}).json()


def test_a_platform_keys_budget_needs_any_price_at_all(api, priced):
    key = api.call("POST", "/manage/v2/keys", {"budget": 5})
    (warning,) = told(key)
    assert warning.startswith("This budget never blocks: no instance type has a price") and "pricePerHour" in warning
    path = f"/manage/v2/keys/{key.json()['id']}"
    assert told(api.call("PATCH", path, {"budget": 6})) and "warnings" not in api.call("GET", path).json()
    priced(True)
    assert told(api.call("PATCH", path, {"budget": 7})) == []
    assert told(api.call("POST", f"{path}/rotate")) == []


def test_commands_say_it_to_people_and_not_into_what_is_piped(api, monkeypatch, tmp_path):
    run = runner(api, monkeypatch, tmp_path)
    api.create()
    for words in (
        ["keys", "create", "demo-chat", "--budget", "5"],
        ["platform-keys", "create", "--budget", "5"],
        ["endpoints", "create", "chat-two", "--engine", "echo", "--budget", "5"],
        ["endpoints", "update", "demo-chat", "--budget", "5"],
    ):
        done = run.all(*words)
        assert done.exit_code == 0, done.output
        assert "never blocks" in done.stderr and "never blocks" not in done.stdout, words
