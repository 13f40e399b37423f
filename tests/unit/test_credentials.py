"""Named secrets and integrations over the API: what they hold goes in, is used, and never comes out."""

import json

import pytest
from support.api import refused

from cluster import credentials, model_facts, records

SECRETS, INTEGRATIONS = "/manage/v2/secrets/admin", "/manage/v2/integrations/admin"
TOKEN = "hf_a-token-that-nobody-may-see"
OF_KIND = {
    "huggingface": {"token": TOKEN, "endpoint": "https://hub.example"},
    "s3": {
        "accessKeyId": "AKIA-hidden",
        "secretAccessKey": "s3-secret-hidden",
        "sessionToken": "session-hidden",
        "region": "eu-west-1",
        "endpointUrl": "http://store.example:9000",
    },
    "registry": {"server": "ghcr.io", "username": "robot-hidden", "password": "password-hidden"},
}
VLLM = {"repository": "org/model", "image": {"vLLM": {}}}


def integration(api, name="hub", kind="huggingface", **values):
    answer = api.call("POST", INTEGRATIONS, {"name": name, "kind": kind, "values": values or OF_KIND[kind]})
    assert answer.status_code == 200, answer.text
    return answer.json()


def secret(api, name="token", value=TOKEN):
    answer = api.call("POST", SECRETS, {"name": name, "value": value})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_every_kind_has_its_fields_and_no_answer_has_a_value(api):
    assert set(OF_KIND) == set(credentials.KINDS)
    for kind, values in OF_KIND.items():
        made = integration(api, kind, kind)
        assert (made["kind"], made["fields"], made["usedBy"], made["owner"]) == (kind, sorted(values), [], "admin")
    secret(api)
    answers = [api.call("GET", url) for url in (INTEGRATIONS, SECRETS, f"{SECRETS}/token", *(f"{INTEGRATIONS}/{kind}" for kind in OF_KIND))]
    text = "".join(answer.text for answer in answers)
    assert all(answer.status_code == 200 for answer in answers)
    for value in (TOKEN, *(value for values in OF_KIND.values() for value in values.values())):
        assert value not in text


def test_values_are_unreadable_in_the_store(api):
    integration(api)
    secret(api)
    rows = api.store.credentials("admin")
    assert len(rows) == 2 and TOKEN not in str([dict(row.fields) for row in rows])
    assert {api.control.unseal(sealed) for row in rows for name, sealed in row.fields.items() if name != "endpoint"} == {TOKEN}


@pytest.mark.parametrize(
    "body",
    [
        {"name": "hub", "kind": "huggingface", "values": {}},
        {"name": "hub", "kind": "huggingface", "values": {"token": ""}},
        {"name": "hub", "kind": "huggingface", "values": {"token": TOKEN, "password": TOKEN}},
        {"name": "hub", "kind": "huggingface", "values": {"token": [TOKEN]}},
        {"name": "hub", "kind": "huggingface", "values": {"token": TOKEN, "endpoint": f"https://user:{TOKEN}@hub"}},
        {"name": "hub", "kind": "huggingface", "values": {"token": TOKEN, "endpoint": "file:///etc/passwd"}},
        {"name": "hub", "kind": "huggingface", "values": {"token": TOKEN, "endpoint": "hub.example"}},
        {"name": "s3", "kind": "s3", "values": {"accessKeyId": TOKEN}},
        {"name": "ghcr", "kind": "registry", "values": {"server": "ghcr.io", "username": TOKEN}},
        {"name": "ghcr", "kind": "registry", "values": {"server": "a b", "username": TOKEN, "password": TOKEN}},
        {"name": "hub", "kind": "gitlab", "values": {"token": TOKEN}},
        {"name": "Hub", "kind": "huggingface", "values": {"token": TOKEN}},
        {"name": "hub", "kind": "huggingface", "values": {"token": TOKEN}, "scope": "all"},
    ],
)
def test_an_integration_that_cannot_be_is_refused_without_repeating_what_it_holds(api, body):
    assert TOKEN not in refused(api.call("POST", INTEGRATIONS, body), 400, "invalid_request")
    assert api.call("GET", INTEGRATIONS).json()["items"] == []


@pytest.mark.parametrize(
    "body", [{"name": "t"}, {"name": "t", "value": ""}, {"name": "t", "value": {TOKEN: 1}}, {"name": "../t", "value": TOKEN}]
)
def test_a_secret_that_cannot_be_is_refused(api, body):
    assert TOKEN not in refused(api.call("POST", SECRETS, body), 400, "invalid_request")


def test_names_are_taken_once_and_secrets_and_integrations_have_names_of_their_own(api):
    integration(api, "shared")
    secret(api, "shared")
    refused(api.call("POST", SECRETS, {"name": "shared", "value": "x"}), 409, "already_exists")
    refused(api.call("POST", INTEGRATIONS, {"name": "shared", "kind": "huggingface", "values": {"token": "x"}}), 409, "already_exists")


@pytest.mark.parametrize("url", [SECRETS, INTEGRATIONS])
def test_what_is_not_there_is_not_found(api, url):
    for name in ("nothing", "%00", "%2e%2e", "A"):
        refused(api.call("GET", f"{url}/{name}"), 404, "not_found")
        refused(api.call("DELETE", f"{url}/{name}"), 404, "not_found")
        refused(api.call("PATCH", f"{url}/{name}", {"description": "x"}), 404, "not_found")
    refused(api.call("GET", url.replace("admin", "stranger")), 404, "not_found")


# References


def test_an_unknown_reference_is_refused_with_those_that_there_are(api):
    integration(api)
    told = refused(api.call("POST", "", {"name": "demo-chat", "model": {**VLLM, "integration": "hup"}}), 400, "invalid_request")
    assert told == "There is no integration 'hup' in the namespace 'admin': it has hub."
    adapter = {"name": "style", "repository": "org/style", "integration": "x"}
    for wrong, param in (
        ({"secretRefs": {"TOKEN": "x"}}, "model.secretRefs.TOKEN"),
        ({"integration": ["hub", "x"]}, "model.integration"),
        ({"adapters": [adapter]}, "model.adapters.0.integration"),
    ):
        answer = api.call("POST", "", {"name": "demo-chat", "model": {**VLLM, **wrong}})
        refused(answer, 400, "invalid_request")
        assert answer.json()["param"] == param


def test_members_name_their_own_integrations(api):
    integration(api)
    members = [{"name": name, "repository": "org/model", "image": {"echo": {}}, "integration": "hub"} for name in ("a", "b")]
    made = api.create(model={"members": members})
    assert [member["integration"] for member in made["model"]["members"]] == ["hub", "hub"]
    members[1]["integration"] = "other"
    answer = api.call("PUT", "/demo-chat", {"model": {"members": members}})
    refused(answer, 400, "invalid_request")
    assert answer.json()["param"] == "model.members.1.integration"


def test_one_integration_of_each_kind_and_registries_for_images_alone(api):
    integration(api)
    integration(api, "hub-2")
    integration(api, "ghcr", "registry")
    for names in (["hub", "hub-2"], "ghcr"):
        refused(api.call("POST", "", {"name": "demo-chat", "model": {**VLLM, "integration": names}}), 400, "invalid_request")
    image = {"image": {"custom": {"url": "ghcr.io/org/image:1"}}, "integration": ["ghcr", "hub"]}
    assert api.create(model=image)["model"]["integration"] == ["ghcr", "hub"]


def test_a_variable_comes_from_one_place(api):
    secret(api)
    model = {**VLLM, "secrets": {"HF_TOKEN": "x"}, "secretRefs": {"HF_TOKEN": "token"}}
    refused(api.call("POST", "", {"name": "demo-chat", "model": model}), 400, "invalid_request")
    refused(api.call("POST", "", {"name": "demo-chat", "model": {**VLLM, "secretRefs": {"LD_PRELOAD": "token"}}}), 400, "invalid_request")


def test_what_is_in_use_is_not_deleted_and_says_by_whom(api):
    integration(api)
    secret(api)
    api.create(model={**VLLM, "integration": "hub", "secretRefs": {"MY_TOKEN": "token"}})
    for url, name in ((INTEGRATIONS, "hub"), (SECRETS, "token")):
        assert "admin/demo-chat" in refused(api.call("DELETE", f"{url}/{name}"), 409, "conflict")
        assert api.call("GET", f"{url}/{name}").json()["usedBy"] == ["admin/demo-chat"]
        assert api.call("GET", url).json()["items"][0]["usedBy"] == ["admin/demo-chat"]
    api.call("DELETE", "/demo-chat")
    for url, name in ((INTEGRATIONS, "hub"), (SECRETS, "token")):
        assert api.call("DELETE", f"{url}/{name}").status_code == 200
        refused(api.call("GET", f"{url}/{name}"), 404, "not_found")


def test_what_the_serving_revision_runs_with_is_in_use_though_the_newest_names_another(api):
    integration(api)
    integration(api, "hub-2")
    row = api.create(model={**VLLM, "integration": "hub"})
    api.store.note_endpoint(row["id"], {"serving": 1})
    api.call("PUT", "/demo-chat", {"model": {"integration": "hub-2"}})
    refused(api.call("DELETE", f"{INTEGRATIONS}/hub"), 409, "conflict")


def test_a_revision_whose_integration_is_gone_is_not_gone_back_to(api):
    integration(api)
    row = api.create(model={**VLLM, "integration": "hub"})
    api.store.mark_revision(row["id"], 1, live_at=1.0)
    api.call("PUT", "/demo-chat", {"model": {"integration": None}})
    assert api.call("DELETE", f"{INTEGRATIONS}/hub").status_code == 200
    assert "no integration 'hub'" in refused(api.call("POST", "/demo-chat/rollback", {"revision": 1}), 409, "conflict")


# Rotation


def test_names_are_part_of_a_revision_and_values_are_not(api):
    integration(api)
    secret(api)
    made = api.create(model=VLLM)
    assert api.call("PUT", "/demo-chat", {"model": {"integration": "hub"}}).json()["status"]["targetRevision"] == 2
    assert api.call("PUT", "/demo-chat", {"model": {"secretRefs": {"X": "token"}}}).json()["status"]["targetRevision"] == 3
    before = api.store.endpoint("admin", "demo-chat")
    api.call("PATCH", f"{INTEGRATIONS}/hub", {"values": {"token": "hf_rotated-token", "endpoint": "https://other.example"}})
    api.call("PATCH", f"{SECRETS}/token", {"value": "rotated"})
    assert api.store.endpoint("admin", "demo-chat") == before
    assert len(api.store.revisions(made["id"])) == 3
    text = json.dumps([row.fields for row in api.store.revisions(made["id"])], default=str) + str(before.spec)
    assert TOKEN not in text and "hub.example" not in text


def test_an_endpoint_without_references_has_the_same_revision_as_before_there_were_any(api):
    row = api.create(model=VLLM)
    assert not {"integration", "secretRefs"} & set(api.store.revisions(row["id"])[0].fields["model"])


def test_a_changed_address_needs_the_credentials_that_would_be_sent_there(api):
    integration(api)
    integration(api, "store", "s3")
    for name, values in (
        ("hub", {"endpoint": "https://evil.example"}),
        ("hub", {"endpoint": None}),
        ("store", {"endpointUrl": "http://evil"}),
    ):
        told = refused(api.call("PATCH", f"{INTEGRATIONS}/{name}", {"values": values}), 400, "invalid_request")
        assert "gives the credentials with it" in told
    moved = {"token": "hf_new-one", "endpoint": "https://other.example"}
    assert api.call("PATCH", f"{INTEGRATIONS}/hub", {"values": moved}).status_code == 200
    kept = api.call("PATCH", f"{INTEGRATIONS}/store", {"values": {"sessionToken": None, "region": "us-east-1"}}).json()
    assert kept["fields"] == ["accessKeyId", "endpointUrl", "region", "secretAccessKey"]


@pytest.mark.parametrize("values", [{"token": None}, {"password": None}, {"token": ""}, {"token": 5}])
def test_an_edit_that_cannot_be_leaves_the_integration_as_it_was(api, values):
    integration(api)
    before = api.store.credential("admin", "integration", "hub")
    refused(api.call("PATCH", f"{INTEGRATIONS}/hub", {"values": values}), 400, "invalid_request")
    assert api.store.credential("admin", "integration", "hub") == before


def test_a_model_is_looked_at_with_what_its_endpoint_refers_to(api):
    integration(api)
    secret(api, "mine", "value-of-mine")
    api.models["org/model"] = model_facts.Facts("org/model")
    api.create(model={**VLLM, "integration": "hub", "secretRefs": {"MINE": "mine"}})
    assert api.looks[-1][2] == {"HF_TOKEN": TOKEN, "HF_ENDPOINT": "https://hub.example", "MINE": "value-of-mine"}
    api.call("PATCH", f"{INTEGRATIONS}/hub", {"values": {"token": "hf_rotated"}})
    api.call("PUT", "/demo-chat", {"model": {"revision": "v2"}})
    assert api.looks[-1][2]["HF_TOKEN"] == "hf_rotated"


def test_only_the_operator_reseals(api):
    integration(api)
    secret(api)
    api.create(model={**VLLM, "secrets": {"X": "y"}})
    assert api.call("POST", "/manage/v2/vault/reseal").json() == {"values": 4}


def test_no_event_tells_a_value(api):
    integration(api)
    row = api.create(model={**VLLM, "integration": "hub"})
    api.call("PATCH", f"{INTEGRATIONS}/hub", {"values": {"token": "hf_rotated-token"}})
    assert TOKEN not in str(api.store.events(row["id"])) and "hf_rotated" not in str(api.store.events(row["id"]))
    assert TOKEN not in repr(records.Credential("a", "integration", "b", "huggingface", {"token": TOKEN}))


def test_a_model_is_registered_with_an_integration_that_is_not_kept(api):
    integration(api)
    api.models["org/model"] = model_facts.Facts("org/model", version="c" * 40)
    body = {"name": "mine", "repository": "org/model", "integration": "hub"}
    assert api.call("POST", "/manage/v2/models/admin", body).json()["revision"] == "c" * 40
    assert api.looks[-1][2]["HF_TOKEN"] == TOKEN
    assert api.call("DELETE", f"{INTEGRATIONS}/hub").status_code == 200
    told = refused(api.call("POST", "/manage/v2/models/admin", {**body, "integration": "gone"}), 400, "invalid_request")
    assert "no integration 'gone'" in told
