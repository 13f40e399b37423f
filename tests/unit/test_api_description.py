"""The management API does what its OpenAPI description says."""

import itertools
import json
import re
import time
import typing

from pydantic import TypeAdapter
from support import access_lines, people
from support.api import ECHO

from cluster import keys, messages, roles, spec, state
from cluster.api import credential_schemas, endpoints, key_schemas, schemas, tenancy_schemas


def test_every_route_is_described(api):
    described = {(method, path) for method, path, _ in api.routes()}
    real = {(method, route.path) for route in api.app_routes() for method in route.methods}
    assert real == described


def test_every_command_has_a_route(api):
    posted = {path.rsplit("/", 1)[-1] for method, path, _ in api.routes() if method == "POST"}
    one = {method for method, path, _ in api.routes() if path == "/v2/endpoint/{namespace}/{name}"}
    assert set(state.ALLOWED) - {"update", "delete"} <= posted
    assert one == {"GET", "PUT", "DELETE"}


def test_the_page_lists_every_route_and_loads_nothing_from_elsewhere(api):
    page = api.call("GET", "/manage/docs", key="").text
    for _, path, _ in api.routes():
        assert path in page
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page


def test_every_reference_in_the_description_leads_somewhere(api):
    document = api.call("GET", "/manage/openapi.json", key="").json()
    found = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert found - set(document["components"]["schemas"]) == set()
    assert "EndpointChange" in found


def tell_of_a_request(api):
    """A request with all there may be: an engine's count, a kept prompt, a line of its replica."""
    now = time.time()
    data = access_lines.line("req-1", now + 1, endpoint="admin/demo-chat")
    api.history.lines(messages.RequestLines("edge", "s1", 0, data))
    api.history.tokens.known["req-1"] = messages.Usage("req-1", model="m", adapter="style")
    api.history.prompts.add("admin", "demo-chat", [messages.Prompt("req-1", now, "/v1/completions", "{}", "well")])
    api.logs.append("admin", "demo-chat", "r1", [messages.LogLine(now, "debug", "request req-1")])


def test_answers_are_as_described(api):
    """Every answer of every GET, and of the calls that make something, fits the schema of its route to the last field."""
    api.create()
    api.call("POST", "/demo-chat/adapters", {"name": "style", "repository": "org/style"})
    api.call("POST", "/demo-chat/keys")
    model = api.call("POST", "/manage/v2/models/admin", {"name": "demo-chat", "repository": "org/model", "revision": "c" * 40})
    api.call("POST", "/manage/v2/secrets/admin", {"name": "demo-chat", "value": "v"})
    api.call("POST", "/manage/v2/integrations/admin", {"name": "demo-chat", "kind": "huggingface", "values": {"token": "v"}})
    api.logs.append("admin", "demo-chat", "r1", [messages.LogLine(1.0, "info", "hello")])
    first = api.call("GET", "/demo-chat/keys").json()["items"][0]["id"]
    api.store.add_namespace("team")
    tell_of_a_request(api)
    people.user(api.store, "tom")
    api.call("PUT", "/demo-chat", {"sharedWith": ["team"]})
    assert api.call("POST", "/manage/v2/endpoint/team", {**ECHO, "name": "theirs", "sharedWith": ["admin"]}).status_code == 200
    checked = set()
    for route in api.app_routes():
        if "GET" not in route.methods or route.path.endswith("/open-metrics"):  # that is no JSON: tests/unit/test_api_metrics.py
            continue
        values = {"key": keys.key_id(api.token) if "/v2/keys" in route.path else first, "tenant": "admin", "user": "admin"}
        url = "/manage" + route.path.format(namespace="admin", name="demo-chat", number=1, adapter="style", request="req-1", **values)
        TypeAdapter(route.response_model).validate_python(api.call("GET", url).json())
        checked.add(route.path)
    assert len(checked) > 12
    made = [
        (schemas.ModelVersion, model),
        (schemas.NewEndpoint, api.call("POST", "", {**ECHO, "name": "another"})),
        (schemas.Plan, api.call("POST", "?dryRun=true", {**ECHO, "name": "third"})),
        (schemas.Endpoint, api.call("PUT", "/demo-chat", {"description": "x"})),
        (key_schemas.NewEndpointKey, api.call("POST", "/demo-chat/keys")),
        (credential_schemas.Resealed, api.call("POST", "/manage/v2/vault/reseal")),
        (tenancy_schemas.Tenant, api.call("POST", "/manage/v2/tenants", {"name": "acme"})),
        (tenancy_schemas.Namespace, api.call("POST", "/manage/v2/namespaces", {"name": "acme-lab", "tenant": "acme"})),
        (tenancy_schemas.User, api.call("POST", "/manage/v2/users", {"name": "ann", "tenant": "acme", "namespace": "acme-lab"})),
        (tenancy_schemas.NewPlatformKey, api.call("POST", "/manage/v2/keys", {"user": "ann"})),
        (tenancy_schemas.NewPlatformKey, api.call("POST", f"/manage/v2/keys/{keys.key_id(api.token)}/rotate")),
        (schemas.Endpoint, api.call("POST", "/demo-chat/pause")),
        (schemas.Nothing, api.call("DELETE", "/demo-chat")),
    ]
    for model, answer in made:
        model.model_validate(answer.json())


def test_the_states_of_the_description_are_the_states_there_are():
    assert set(typing.get_args(endpoints.State)) == set(typing.get_args(schemas.Status.model_fields["state"].annotation)) == state.STATES


def test_ids_of_operations_are_unique(api):
    document = api.call("GET", "/manage/openapi.json").json()
    ids = list(itertools.chain(*([operation["operationId"] for operation in methods.values()] for methods in document["paths"].values())))
    assert len(ids) == len(set(ids))


def test_an_endpoint_shows_every_field_that_its_spec_has():
    assert set(spec.EndpointSpec.model_fields) - set(schemas.Endpoint.model_fields) - {"private_service"} == set()


def test_every_route_has_a_rule_and_every_rule_a_route(api):
    open_to_all = {"GET /health"}
    assert {f"{method} {path}" for method, path, _ in api.routes()} - open_to_all == set(roles.RULES)
