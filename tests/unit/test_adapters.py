"""An endpoint's adapters: what may be written, what becomes of revisions and states, and how they are added and removed."""

import pytest
from support.adapters import write_adapter
from support.api import refused

from cluster import adapters, admission, errors, messages, observation
from cluster import spec as specs
from cluster.settings import Settings

STYLE = {"name": "style", "repository": "org/style"}
TONE = {"name": "tone", "repository": "s3://bucket/tone"}
NODES = (observation.Node("n1", "127.0.0.1", 8, 8),)


def admit(root, *listed, **model):
    wire = {"name": "some-name", "model": {"repository": "org/base", "adapters": list(listed), **model}}
    settings = Settings(home="/srv/moorage", model_paths=str(root))
    return admission.admit(admission.read(wire), observation.Cluster(nodes=NODES), settings)


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        ([{**STYLE, "name": "a b"}], "letters, digits, dots"),
        ([{**STYLE, "name": ".."}], "the first a letter or digit"),
        ([{**STYLE, "name": "x" * 33}], "at most 32"),
        ([{**STYLE, "name": "some-name"}], "the endpoint's own name"),
        ([{**STYLE, "name": "odsc-llm"}], "the endpoint's own model"),
        ([STYLE, {**TONE, "name": "style"}], "two adapters called 'style'"),
        ([{"name": "style"}], "repository is missing"),
        ([{**STYLE, "rank": 8}], "not a known field"),
    ],
)
def test_a_name_that_cannot_be_is_refused(tmp_path, listed, words):
    with pytest.raises(errors.InvalidRequest, match=words):
        admit(tmp_path, *listed)


@pytest.mark.parametrize("repository", ["/etc/style", "not an id", "s3://", "model://x"])
def test_an_adapters_repository_is_judged_as_a_models(tmp_path, repository):
    with pytest.raises(errors.InvalidRequest) as refusal:
        admit(tmp_path, STYLE, {**TONE, "repository": repository})
    assert refusal.value.param == "model.adapters.1.repository"


def test_an_adapter_in_an_allowed_folder_is_looked_into_before_anything_starts(tmp_path):
    write_adapter(tmp_path / "big", rank=64)
    big = {"name": "big", "repository": str(tmp_path / "big")}
    with pytest.raises(errors.InvalidRequest, match="maxLoraRank to 64") as refusal:
        admit(tmp_path, big)
    assert refusal.value.param == "model.adapters.0.repository"
    assert admit(tmp_path, big, settings={"llm": {"maxLoraRank": 64}}).spec.model.adapters[0].name == "big"


def test_a_link_out_of_the_allowed_folders_is_not_followed_and_one_that_is_elsewhere_is_left_for_its_node(tmp_path):
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (allowed / "link").symlink_to(write_adapter(tmp_path / "outside", rank=512))
    for name in ("link", "elsewhere"):
        admit(allowed, {"name": "style", "repository": str(allowed / name)})


def test_adapters_are_no_part_of_a_revision():
    with_one = specs.EndpointSpec.model_validate({"name": "some-name", "model": {"adapters": [STYLE]}})
    assert with_one.revision_fields() == specs.EndpointSpec(name="some-name").revision_fields()


def row(make, *listed, **extra):
    endpoint = make.endpoint(serving=1)
    return type(endpoint)(**{**vars(endpoint), "spec": {**endpoint.spec, "model": {"adapters": list(listed)}, **extra}})


def test_what_is_wanted_is_read_from_the_row(make):
    wanted = adapters.wanted(row(make, STYLE, {**TONE, "revision": "v2"}, **{adapters.RETIRED: ["old"]}))
    assert wanted.wanted == (messages.Adapter("style", "org/style"), messages.Adapter("tone", "s3://bucket/tone", "v2"))
    assert wanted.retired == ("old",)
    assert adapters.wanted(make.endpoint()) == messages.Adapters()


def test_a_name_is_retired_when_its_adapter_goes_and_back_when_it_returns():
    none, one = {"model": {"adapters": []}}, {"model": {"adapters": [STYLE]}}
    gone = adapters.with_retired(none, one)
    assert gone[adapters.RETIRED] == ["style"]
    assert adapters.with_retired(none, gone)[adapters.RETIRED] == ["style"]
    assert adapters.RETIRED not in adapters.with_retired(one, gone)


def told(state, adapter=STYLE, **more):
    return (messages.AdapterState(messages.Adapter(adapter["name"], adapter["repository"]), state, **more),)


@pytest.mark.parametrize(
    ("said", "state", "ready"),
    [
        ({}, "pending", 0),
        ({"a": told("ready"), "b": told("ready")}, "ready", 2),
        ({"a": told("ready"), "b": told("pending")}, "pending", 1),
        ({"a": told("ready"), "b": ()}, "pending", 1),
        ({"a": told("ready"), "b": told("failed", reason="DiskFull", message="full")}, "failed", 1),
        ({"a": told("ready"), "b": told("ready"), "gone": told("failed")}, "ready", 2),
        ({"a": told("ready", {**STYLE, "repository": "org/earlier"}), "b": told("ready")}, "pending", 1),
    ],
)
def test_an_adapter_is_ready_when_every_ready_replica_has_it(make, said, state, ready):
    (found,) = adapters.statuses(row(make, STYLE), said, {"a", "b"})
    assert (found.state, found.ready) == (state, ready)
    if state == "failed":
        assert (found.reason, found.message) == ("DiskFull", "full")


def test_without_a_replica_an_adapter_waits_for_one(make):
    (found,) = adapters.statuses(row(make, STYLE), {}, ())
    assert (found.state, found.message) == ("pending", adapters.UNTOLD)


# Over the API, on the store's twin


def stored(api):
    return api.store.endpoint("admin", "demo-chat")


def test_adding_and_removing_starts_nothing_once_lora_is_on(api):
    api.create(model={"image": {"echo": {}}, "adapters": [STYLE]})
    assert stored(api).parsed.model.settings.llm.enable_lora
    made = api.call("POST", "/demo-chat/adapters", TONE)
    assert (made.status_code, made.json()["state"], made.json()["warnings"]) == (200, "pending", [])
    assert [item["name"] for item in api.call("GET", "/demo-chat/adapters").json()["items"]] == ["style", "tone"]
    assert api.call("DELETE", "/demo-chat/adapters/style").json() == {}
    assert [item["name"] for item in api.call("GET", "/demo-chat").json()["status"]["adapters"]] == ["tone"]
    assert stored(api).target == 1
    assert adapters.wanted(stored(api)).retired == ("style",)
    assert len(api.store.revisions(stored(api).id)) == 1


def test_the_first_adapter_of_a_running_endpoint_makes_a_revision_and_says_so(api):
    api.create()
    plan = api.call("PUT", "/demo-chat?dryRun=true", {"model": {"adapters": [STYLE]}}).json()
    assert plan["newRevision"] and plan["warnings"] == [adapters.SWITCHED_ON]
    made = api.call("POST", "/demo-chat/adapters", STYLE).json()
    assert made["warnings"] == [adapters.SWITCHED_ON]
    assert stored(api).target == 2
    assert "warnings" not in api.call("PUT", "/demo-chat", {"model": {"adapters": []}}).json()
    assert stored(api).target == 2, "LoRA stays on"


def test_put_replaces_the_list_and_warns_the_same(api):
    api.create()
    assert api.call("PUT", "/demo-chat", {"model": {"adapters": [STYLE]}}).json()["warnings"] == [adapters.SWITCHED_ON]
    api.call("PUT", "/demo-chat", {"model": {"adapters": [TONE]}})
    assert [one.name for one in adapters.wanted(stored(api)).wanted] == ["tone"]
    api.call("PUT", "/demo-chat", {"description": "x"})
    assert adapters.wanted(stored(api)).retired == ("style",)


def test_the_same_adapter_again_changes_nothing_and_another_of_its_name_is_refused(api):
    api.create(model={"image": {"echo": {}}, "adapters": [STYLE]})
    before = stored(api).generation
    assert api.call("POST", "/demo-chat/adapters", STYLE).status_code == 200
    assert stored(api).generation == before
    assert "another adapter" in refused(api.call("POST", "/demo-chat/adapters", {**STYLE, "repository": "org/b"}), 409, "already_exists")


def test_an_adapter_that_there_is_not_is_404(api):
    api.create()
    assert "no adapter 'nothing'" in refused(api.call("GET", "/demo-chat/adapters/nothing"), 404, "not_found")
    refused(api.call("DELETE", "/demo-chat/adapters/nothing"), 404, "not_found")


def test_going_back_to_a_revision_without_lora_needs_the_adapters_gone(api):
    api.create()
    api.store.mark_revision(stored(api).id, 1, live_at=1.0)
    api.store.note_endpoint(stored(api).id, {"serving": 1})
    api.call("POST", "/demo-chat/adapters", STYLE)
    assert "remove the adapters first" in refused(api.call("POST", "/demo-chat/rollback", {"revision": 1}), 409, "conflict")
    api.call("DELETE", "/demo-chat/adapters/style")
    assert api.call("POST", "/demo-chat/rollback", {"revision": 1}).status_code == 200


def test_a_rollback_keeps_the_adapters(api):
    api.create(model={"image": {"echo": {}}, "adapters": [STYLE]})
    api.store.mark_revision(stored(api).id, 1, live_at=1.0)
    api.call("PUT", "/demo-chat", {"model": {"env": {"A": "b"}}})
    api.call("POST", "/demo-chat/rollback")
    assert [one.name for one in adapters.wanted(stored(api)).wanted] == ["style"]
