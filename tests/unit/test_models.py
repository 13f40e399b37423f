"""The model registry: versions, what endpoints make of them, updates, and the commands."""

import pytest
from support.api import Api, refused
from support.cli import runner
from support.model_configs import BERT_BASE, LLAMA_3_8B

from cluster import admission, errors, registry
from cluster.api import schemas
from cluster.model_facts import Facts

HERE = "/manage/v2/models/admin"
COMMIT = "c" * 40


@pytest.fixture
def api(tmp_path):
    api = Api(tmp_path)
    api.models["org/chat"] = Facts("org/chat", config=LLAMA_3_8B, version=COMMIT)
    api.models["s3://store/embedder"] = Facts("s3://store/embedder", config=BERT_BASE, version="digest of the listing")
    return api


def register(api, name="chat", **fields):
    answer = api.call("POST", HERE, {"name": name, "repository": "org/chat", **fields})
    assert answer.status_code == 200, answer.text
    schemas.ModelVersion.model_validate(answer.json())
    return answer.json()


def endpoint(api, name="demo-chat", repository="model://chat"):
    return api.create(name, model={"repository": repository})


def test_a_version_of_the_hub_is_pinned_to_the_commit_and_told_by_the_repository(api):
    made = register(api, revision="main", description="the first")
    assert (made["version"], made["revision"], made["task"], made["architecture"]) == (1, COMMIT, "text-generation", "LlamaForCausalLM")
    assert made["address"] == "model://chat@1"
    assert register(api, repository="s3://store/embedder")["revision"] is None
    found = api.call("GET", f"{HERE}/chat").json()
    schemas.Model.model_validate(found)
    assert (found["versions"], found["latestVersion"], found["task"], found["owner"]) == ([1, 2], 2, "feature-extraction", "admin")
    assert [row["version"] for row in api.call("GET", f"{HERE}/chat/versions").json()["items"]] == [1, 2]
    assert api.call("GET", f"{HERE}/chat/versions/1").json() == made


def test_a_repository_that_cannot_be_read_needs_its_commit(api):
    told = refused(api.call("POST", HERE, {"name": "chat", "repository": "org/away", "revision": "main"}), 400, "invalid_request")
    assert "Give the commit" in told
    made = register(api, repository="org/away", revision="a" * 40, task="text-generation")
    assert (made["revision"], made["architecture"]) == ("a" * 40, None)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "Chat"}, "lower-case"),
        ({"repository": "model://other"}, "not in the registry"),
        ({"repository": "/etc/passwd"}, "outside the folders"),
        ({"repository": "no such form!"}, "no repository id"),
        ({"version": 0}, "greater than or equal to 1"),
        ({"env": {"LD_PRELOAD": "x"}}, "LD_PRELOAD"),
        ({"secrets": {"not a name": "x"}}, "name of an environment variable"),
        ({"colour": "red"}, "not a known field"),
    ],
)
def test_what_cannot_be_registered_is_refused(api, fields, words):
    assert words in refused(api.call("POST", HERE, {"name": "chat", "repository": "org/chat", **fields}), 400, "invalid_request")


def test_a_number_may_be_given_once(api):
    assert register(api, version=5)["version"] == 5
    refused(api.call("POST", HERE, {"name": "chat", "repository": "org/chat", "version": 5}), 409, "already_exists")
    assert register(api)["version"] == 6


def test_models_are_filtered_and_edited(api):
    register(api)
    register(api, "embedder", repository="s3://store/embedder", description="finds things")
    names = {
        "task=feature-extraction": ["embedder"],
        "architecture=LlamaForCausalLM": ["chat"],
        "owner=admin": ["chat", "embedder"],
        "owner=ann": [],
        "search=THINGS": ["embedder"],
        "limit=1": ["chat"],
        "cursor=chat": ["embedder"],
    }
    for query, expected in names.items():
        assert [row["name"] for row in api.call("GET", f"{HERE}?{query}").json()["items"]] == expected, query
    assert api.call("PATCH", f"{HERE}/chat", {"description": "talks", "owner": "ann"}).json()["description"] == "talks"
    assert [row["name"] for row in api.call("GET", f"{HERE}?owner=ann").json()["items"]] == ["chat"]
    refused(api.call("PATCH", f"{HERE}/none", {"description": "x"}), 404, "not_found")
    refused(api.call("GET", "/manage/v2/models/elsewhere"), 404, "not_found")


def test_an_endpoint_gets_the_newest_version_for_good_and_its_replicas_the_repository(api):
    register(api)
    register(api, repository="s3://store/embedder")
    assert endpoint(api)["model"]["repository"] == "model://chat@2"
    made = endpoint(api, "other-chat", "model://admin/chat@1")
    assert (made["model"]["repository"], made["model"]["task"]) == ("model://chat@1", "text-generation")
    row = api.control.store.endpoint("admin", "other-chat")
    revision = api.control.store.revisions(row.id)[0]
    spec = admission.replica_spec(row, revision, api.control.instances(), api.control.settings)
    assert (spec.model["repository"], spec.model["revision"]) == ("org/chat", COMMIT)
    changed = api.call("PUT", "/other-chat", {"description": "x"}).json()
    assert changed["status"]["targetRevision"] == 1


@pytest.mark.parametrize(
    "repository", ["model://none", "model://chat@9", "model://elsewhere/chat", "model://chat@0", "model://Chat", "model://"]
)
def test_a_name_that_is_not_registered_is_refused(api, repository):
    register(api)
    refused(api.call("POST", "", {"name": "demo-chat", "model": {"repository": repository}}), 400, "invalid_request")


def test_a_registered_model_takes_no_revision(api):
    register(api)
    body = {"name": "demo-chat", "model": {"repository": "model://chat", "revision": "main"}}
    assert "name@version" in refused(api.call("POST", "", body), 400, "invalid_request")


def test_an_endpoint_tells_that_there_is_a_newer_version_and_is_brought_to_it(api):
    register(api)
    assert endpoint(api)["status"]["updateAvailable"] is False
    register(api)
    status = api.call("GET", "/demo-chat").json()["status"]
    assert (status["updateAvailable"], status["update"]) == (True, {"model": "model://chat@2", "version": 2})
    assert api.call("GET", "").json()["items"][0]["status"]["updateAvailable"] is True
    changed = api.call("PUT", "/demo-chat", {"model": {"repository": status["update"]["model"]}}).json()
    assert (changed["status"]["updateAvailable"], changed["status"]["targetRevision"]) == (False, 2)
    api.control.store.note_endpoint(changed["id"], {"serving": 2})
    back = api.call("POST", "/demo-chat/rollback", {"revision": 1}).json()
    assert (back["model"]["repository"], back["status"]["updateAvailable"]) == ("model://chat@1", True)


def test_what_is_in_use_is_not_deleted(api):
    register(api)
    register(api)
    endpoint(api, repository="model://chat@1")
    assert "admin/demo-chat" in refused(api.call("DELETE", f"{HERE}/chat/versions/1"), 409, "conflict")
    assert "admin/demo-chat" in refused(api.call("DELETE", f"{HERE}/chat"), 409, "conflict")
    assert api.call("DELETE", f"{HERE}/chat/versions/2").status_code == 200
    assert api.call("GET", f"{HERE}/chat").json()["usedBy"] == ["admin/demo-chat"]
    api.call("DELETE", "/demo-chat")
    assert api.call("DELETE", f"{HERE}/chat").status_code == 200
    refused(api.call("GET", f"{HERE}/chat"), 404, "not_found")


def test_a_version_that_still_serves_is_in_use_though_the_endpoint_wants_another(api):
    register(api)
    register(api)
    made = endpoint(api, repository="model://chat@1")
    api.control.store.note_endpoint(made["id"], {"serving": 1})
    api.call("PUT", "/demo-chat", {"model": {"repository": "model://chat@2"}})
    refused(api.call("DELETE", f"{HERE}/chat/versions/1"), 409, "conflict")


def test_registering_again_with_the_same_idempotency_key_adds_nothing(api):
    for _ in range(2):
        answer = api.call("POST", HERE, {"name": "chat", "repository": "org/chat"}, headers={"idempotency-key": "k"})
        assert answer.json()["version"] == 1
    assert len(api.looks) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model://chat", registry.Address("home", "chat")),
        ("model://chat@latest", registry.Address("home", "chat")),
        ("model://team/chat.v2@3", registry.Address("team", "chat.v2", 3)),
    ],
)
def test_addresses(text, expected):
    assert registry.parse(text, "home") == expected
    assert registry.parse(expected.text("home"), "home") == expected


@pytest.mark.parametrize("text", ["model://", "model://a/b/c", "model://chat@", "model://chat@x", "model://-chat", "chat", "model://../x"])
def test_what_is_no_address(text):
    with pytest.raises(errors.InvalidRequest):
        registry.parse(text, "home")


def test_the_commands(api, monkeypatch, tmp_path):
    moorage = runner(api, monkeypatch, tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    assert "model://chat@1" in moorage("models", "register", "chat", "org/chat", "--secret", "HF_TOKEN")
    assert api.looks[-1] == ("org/chat", None, {"HF_TOKEN": "hf_x"})
    for name in ("one-chat", "two-chat"):
        moorage("endpoints", "create", name, "--model", "model://chat")
    assert moorage("models", "register", "chat", "org/chat", "--json")["version"] == 2
    assert moorage("models", "ls").splitlines()[1].split("\t")[:3] == ["chat", "2", "text-generation"]
    described = moorage("models", "describe", "chat")
    assert "used by\tadmin/one-chat, admin/two-chat" in described and COMMIT in described
    assert "update available\tmodel://chat@2" in moorage("endpoints", "describe", "one-chat")
    moorage("endpoints", "update", "one-chat", "--model-version", "latest")
    assert moorage("endpoints", "describe", "one-chat", "--json")["model"]["repository"] == "model://chat@2"
    assert [row["name"] for row in moorage("models", "update-endpoints", "chat", "--dry-run", "--json")] == ["two-chat"]
    moorage("models", "update-endpoints", "chat")
    assert moorage("endpoints", "describe", "two-chat", "--json")["model"]["repository"] == "model://chat@2"
    moorage("models", "rm", "chat", "--version", "1", "--yes")
    assert "in use by" in moorage("models", "rm", "chat", "--yes", code=1)
    moorage("endpoints", "create", "echo-chat", "--engine", "echo")
    assert "no model of the registry" in moorage("endpoints", "update", "echo-chat", "--model-version", "2", code=1)


def test_pushing_to_a_folder_registers_a_version_and_brings_nothing_twice(api, monkeypatch, tmp_path):
    moorage = runner(api, monkeypatch, tmp_path)
    monkeypatch.setenv("MOORAGE_MODEL_STORE", str(tmp_path / "models"))
    source = tmp_path / "made"
    (source / "sub").mkdir(parents=True)
    (source / "config.json").write_text("{}")
    (source / "sub" / "weights.safetensors").write_bytes(b"x" * 100)
    (source / ".git").mkdir()
    (source / ".git" / "config").write_text("hidden")
    made = moorage("models", "push", source, "chat", "--task", "text-generation", "--json")
    place = tmp_path / "models" / "admin" / "chat"
    assert made["repository"].startswith(str(place)) and (made["version"], made["task"]) == (1, "text-generation")
    assert sorted(path.name for path in place.rglob("*") if path.is_file()) == ["config.json", "weights.safetensors"]
    again = moorage.all("models", "push", source, "chat")
    assert again.stderr.count("there already") == 2
    (source / "config.json").write_text('{"a": 1}')
    assert moorage("models", "push", source, "chat", "--json")["repository"] != made["repository"]


def test_a_folder_that_is_no_model_and_a_missing_store_are_refused(api, monkeypatch, tmp_path):
    moorage = runner(api, monkeypatch, tmp_path)
    assert "MOORAGE_MODEL_STORE" in moorage("models", "push", tmp_path, "chat", code=1)
    monkeypatch.setenv("MOORAGE_MODEL_STORE", str(tmp_path / "models"))
    (tmp_path / "empty").mkdir()
    assert "is no model" in moorage("models", "push", tmp_path / "empty", "chat", code=1)
