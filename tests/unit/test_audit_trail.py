"""Every change over the management API is one row of the audit log, and every refused attempt of somebody known is one too."""

import concurrent.futures
import dataclasses
import json
import threading
import time

import pytest
from starlette.responses import JSONResponse
from support import people
from support.api import ECHO, Api, refused
from support.changes import CHANGES, prepared
from support.cli import runner

from cluster import audit, errors, home, keys, messages, platform, records, roles
from cluster.actor import Actor
from cluster.api import naming, refusals, trail
from cluster.api.routes import Routes
from cluster.settings import Settings
from cluster.store import open_store
from cluster.store.audit_store import AuditFilter

FROM = {"x-forwarded-for": "192.0.2.7", "x-request-id": "request-1"}


def rows(api, **wanted):
    """Oldest first."""
    return api.store.audit(AuditFilter(**wanted), limit=1000)[::-1]


def detail(row):
    return json.loads(row.detail)


@pytest.fixture(params=["memory", "sqlite"])
def any_api(request, tmp_path):
    """On the twin and on a real database."""
    store = open_store("memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'moorage.db'}")
    store.migrate()
    yield Api(tmp_path, store=store)
    store.close()


def test_every_changing_route_is_recorded_by_construction(api):
    changing = [route for route in api.app_routes() if route.methods & trail.CHANGING]
    assert len(changing) > 15
    assert [route.path for route in changing if not isinstance(route.endpoint, trail.Recorded)] == []


def test_every_changing_route_makes_exactly_one_row_with_actor_address_and_request_id(any_api):
    """K8. A new route needs a line in tests/support/changes.py, which tells how to make a change with it."""
    changing = {f"{method} {path}" for method, path, _ in any_api.routes() if method in trail.CHANGING}
    assert changing - set(CHANGES) == set(), "routes without an example of a change"
    for number, name in enumerate(sorted(changing)):
        method, url, body = prepared(any_api, name)
        before = len(rows(any_api))
        answer = any_api.call(method, url, body, headers={**FROM, "x-request-id": f"request-{number}"})
        assert answer.status_code == 200, (name, answer.text)
        made = rows(any_api)[before:]
        assert len(made) == 1, (name, made)
        (row,) = made
        known = keys.key_id(any_api.token)
        assert (row.actor, row.key_id, row.source, row.request_id) == ("admin", known, "192.0.2.7", f"request-{number}"), name
        assert (row.outcome, row.status) == ("done", 200)
        assert row.action == CHANGES[name].action, name
        assert row.resource.startswith(row.namespace)
    assert any_api.audit.verify().intact


def test_a_route_that_knows_nothing_of_the_log_is_recorded_too(api):
    things = Routes("things")

    @things.post("/v2/things/{namespace}", summary="Add a thing")
    def create(namespace: str, actor: str = "ignored") -> JSONResponse:
        api.store.add_model_version(records.ModelVersion(namespace, "it", 0, "org/model"))
        return JSONResponse({"name": "it"})

    (route,) = trail.recorded(things, api.audit, api.store)
    route.handler(namespace="new", actor=Actor("ann", "admin", frozenset()))
    (row,) = rows(api)
    assert (row.actor, row.action, row.resource, row.namespace) == ("ann", "thing.create", "new/it", "new")


def test_a_handler_that_could_not_be_recorded_stops_the_application_from_being_built(api):
    things = Routes("things")

    @things.post("/v2/things", summary="Add a thing")
    async def create(actor: str = "") -> JSONResponse:
        return JSONResponse({})

    with pytest.raises(TypeError, match=r"thing\.create"):
        list(trail.recorded(things, api.audit, api.store))


def test_what_changes_nothing_makes_no_row(any_api):
    any_api.create()
    made = any_api.call("POST", "", {**ECHO, "name": "another"}, headers={"idempotency-key": "once"}).json()
    any_api.call("POST", "/demo-chat/pause")
    before = len(rows(any_api))
    assert any_api.call("POST", "", {**ECHO, "name": "another"}, headers={"idempotency-key": "once"}).json() == made
    for method, path, body in [
        ("POST", "?dryRun=true", {**ECHO, "name": "third"}),
        ("PUT", "/demo-chat?dryRun=true", {"description": "x"}),
        ("POST", "/demo-chat/pause", None),
        ("PUT", "/demo-chat", {"description": ""}),
        ("GET", "/demo-chat", None),
    ]:
        assert any_api.call(method, path, body).status_code == 200
    assert len(rows(any_api)) == before


@pytest.fixture
def kept(any_api):
    """A request of demo-chat whose prompt is kept."""
    any_api.create(requestLog={"prompts": True})
    told = messages.Prompt("req-1", time.time() + 1, "/v1/completions", '{"prompt": "hush"}', "hushed", False)
    any_api.history.keep_prompts(any_api.store.endpoint("admin", "demo-chat"), [told])
    return "/demo-chat/requests/req-1/prompt"


def test_reading_what_a_client_has_asked_makes_a_row_that_names_the_request_and_not_what_it_said(any_api, kept, monkeypatch, tmp_path):
    assert any_api.call("GET", kept, headers=FROM).json()["answer"] == "hushed"
    row = rows(any_api)[-1]
    assert (row.action, row.resource, row.namespace, row.outcome) == ("prompt.read", "admin/demo-chat/req-1", "admin", "done")
    assert (row.actor, row.key_id, row.source, row.request_id) == ("admin", keys.key_id(any_api.token), "192.0.2.7", "request-1")
    assert "hush" not in repr(rows(any_api)) and any_api.audit.verify().intact
    any_api.call("GET", kept)
    told = runner(any_api, monkeypatch, tmp_path)("audit", "ls", "--action", "prompt.read").splitlines()
    assert [line.split("\t")[5:7] for line in told[1:]] == [["prompt.read", "admin/demo-chat/req-1"]] * 2


def test_a_prompt_is_not_shown_when_its_row_cannot_be_written(any_api, kept):
    def fail(row, seal):
        raise errors.Unavailable

    any_api.store.append_audit = fail
    assert "hush" not in refused(any_api.call("GET", kept), 503, "unavailable")


def test_who_may_not_read_a_prompt_has_a_row_of_that_too_and_what_is_not_kept_has_none(any_api, kept):
    other = people.user(any_api.store, "eve", roles.MEMBER, "admin")
    refused(any_api.call("GET", kept, key=other), 403, "forbidden")
    assert [(row.actor, row.action, row.outcome) for row in rows(any_api)[1:]] == [("eve", "prompt.read", "refused")]
    refused(any_api.call("GET", "/demo-chat/requests/req-2/prompt"), 404, "not_found")
    assert len(rows(any_api)) == 2


def test_every_path_that_is_read_on_record_is_a_route(api):
    read = {route.path: route for route in api.app_routes() if "GET" in route.methods}
    assert {path for path in trail.READ_ON_RECORD if isinstance(read[path].endpoint, trail.Read)} == trail.READ_ON_RECORD
    assert [path for path in read if "prompt" in path.rpartition("/")[2]] == [*trail.READ_ON_RECORD]


def test_a_row_says_what_was_changed_with_secrets_by_name_only(any_api):
    made = any_api.create(description="first", model={"image": {"echo": {}}, "secrets": {"HF_TOKEN": "hush-1"}})
    (row,) = rows(any_api)
    assert (row.action, row.resource, row.namespace) == ("endpoint.create", "admin/demo-chat", "admin")
    assert detail(row)["changed"]["description"] == [None, "first"]
    any_api.call("PUT", "/demo-chat", {"description": "second", "model": {"secrets": {"HF_TOKEN": "hush-2"}}})
    row = rows(any_api)[-1]
    assert detail(row)["changed"]["description"] == ["first", "second"]
    assert "model.secrets.HF_TOKEN" in detail(row)["asked"]
    any_api.call("DELETE", f"/demo-chat/keys/{any_api.call('POST', '/demo-chat/keys').json()['key']}")
    revoked = rows(any_api)[-1]
    assert (revoked.action, detail(revoked)["changed"]) == ("key.revoke", {"status": ["active", "revoked"]})
    text = "".join(map(repr, rows(any_api)))
    assert made["apiKey"]["id"] in text
    assert "hush" not in text and not keys.PATTERN.search(text)


def test_a_change_that_fails_half_way_leaves_neither_itself_nor_a_row(any_api):
    any_api.create()
    before = len(rows(any_api))

    def fail(events):
        raise errors.Unavailable

    any_api.store.add_events = fail  # the key's row is written before its event
    refused(any_api.call("POST", "/demo-chat/keys"), 503, "unavailable")
    del any_api.store.add_events
    assert len(any_api.call("GET", "/demo-chat/keys").json()["items"]) == 1
    assert [row.outcome for row in rows(any_api)[before:]] == ["refused"]


def test_a_change_whose_row_cannot_be_written_is_not_made(any_api):
    def fail(row, seal):
        raise errors.Unavailable

    any_api.store.append_audit = fail
    refused(any_api.call("POST", "", ECHO), 503, "unavailable")
    assert any_api.call("GET", "").json()["items"] == []


def test_no_transaction_is_open_while_a_model_is_looked_at(tmp_path):
    store = open_store(f"sqlite:///{tmp_path / 'moorage.db'}")
    store.migrate()
    api = Api(tmp_path, store=store)
    look, other = api.look, open_store(f"sqlite:///{tmp_path / 'moorage.db'}")

    def looked(*given):
        other.add_model_version(
            records.ModelVersion("admin", "meanwhile", 0, "org/model")
        )  # from another process: it would be told that the database is locked
        return look(*given)

    api.model_control._surveyor._look = looked
    answer = api.call("POST", "", {"name": "demo-chat", "model": {"repository": "org/chat", "image": {"vLLM": {}}}})
    assert answer.status_code == 200, answer.text
    assert [row.name for row in store.models("admin")] == ["meanwhile"]
    other.close()
    store.close()


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "action"),
    [
        ("POST", "", ECHO, 409, "already_exists", "endpoint.create"),
        ("POST", "", {"name": "X"}, 400, "invalid_request", "endpoint.create"),
        ("PUT", "/demo-chat", {"unknown": 1}, 400, "invalid_request", "endpoint.update"),
        ("DELETE", "/none-such", None, 404, "not_found", "endpoint.delete"),
        ("POST", "/demo-chat/resume", None, 400, "already_running", "endpoint.resume"),
        ("GET", "/manage/v2/endpoint/foreign", None, 404, "not_found", "endpoint.read"),
    ],
)
def test_what_is_refused_makes_a_row_with_the_reason(api, method, path, body, status, code, action):
    api.create()
    refused(api.call(method, path, body, headers=FROM), status, code)
    (row,) = rows(api, outcome="refused")
    assert (row.actor, row.source, row.request_id, row.status) == ("admin", "192.0.2.7", "request-1", status)
    assert detail(row) == {"code": code}
    assert row.action == action


def test_a_revoked_key_and_an_endpoints_key_are_recorded_with_their_ids(api):
    made, first = keys.mint(keys.PLATFORM), api.create()["apiKey"]
    api.store.add_key(records.Key(made.id, made.digest, keys.PLATFORM, "admin", owner="eve", status="revoked"))
    refused(api.call("GET", "", key=made.key), 401, "invalid_api_key")
    refused(api.call("DELETE", "/demo-chat", key=first["key"]), 403, "forbidden")
    found = [(row.actor, row.key_id, row.action, row.status) for row in rows(api, outcome="refused")]
    assert found == [("eve", made.id, "endpoint.read", 401), ("admin", first["id"], "endpoint.delete", 403)]


def test_who_cannot_be_identified_makes_no_row(api):
    for key in ("", "nonsense", keys.mint(keys.PLATFORM).key):
        api.call("DELETE", "/demo-chat", key=key)
    api.call("GET", "/none-such")  # nothing refused: there is nothing
    assert rows(api) == []


def test_a_flood_of_refused_attempts_is_two_rows_a_minute(api):
    now = 100.0
    counter = refusals.Counter(api.audit, lambda: now)
    attempt = refusals.Attempt(Actor("eve", "team", frozenset(), "k1"), "endpoint.delete", "admin/demo-chat", "admin", 404, "not_found")
    assert [counter.add(attempt) for _ in range(1000)] == [True, *[False] * 999]
    now += refusals.WINDOW_S
    counter.flush()
    counter.flush()
    assert [(row.action, row.status, detail(row)) for row in rows(api)] == [
        ("endpoint.delete", 404, {"code": "not_found"}),
        ("endpoint.delete", 404, {"code": "not_found", "times": 999}),
    ]


def test_rows_are_filtered_and_paged_newest_first_and_exported(api):
    for name in ("aaaa", "bbbb"):
        api.create(name)
    api.call("POST", "/aaaa/pause")
    api.call("DELETE", "/none-such")

    def seen(query=""):
        answer = api.call("GET", f"/manage/v2/audit{query}")
        assert answer.status_code == 200, answer.text
        return [(row["action"], row["resource"]) for row in answer.json()["items"]]

    everything = [("endpoint.delete", "admin/none-such"), ("endpoint.pause", "admin/aaaa"), ("endpoint.create", "admin/bbbb")]
    assert seen() == [*everything, ("endpoint.create", "admin/aaaa")]
    assert seen("?outcome=refused") == everything[:1]
    assert seen("?action=endpoint.pause") == everything[1:2] and seen("?action=endpoint.p") == []
    assert len(seen("?action=endpoint.")) == 4 and seen("?action=key.") == []
    assert seen("?resource=admin/bbbb") == everything[2:] and len(seen("?resource=admin")) == 4
    assert len(seen(f"?actor=admin&key={keys.key_id(api.token)}")) == 4 and seen("?actor=eve") == []
    assert seen("?until=1") == [] and len(seen("?since=1")) == 4
    first = api.call("GET", "/manage/v2/audit?limit=3").json()
    assert seen(f"?limit=3&cursor={first['cursor']}") == [("endpoint.create", "admin/aaaa")]
    lines = api.call("GET", "/manage/v2/audit?format=ndjson").text.splitlines()
    assert [json.loads(line)["seq"] for line in lines] == [4, 3, 2, 1]
    refused(api.call("GET", "/manage/v2/audit?since=yesterday"), 400, "invalid_request")
    assert api.call("GET", "/manage/v2/audit/verify").json()["rows"] == 4


def test_a_tenants_administrator_sees_the_rows_of_its_tenant_alone(api):
    for tenant in ("acme", "zeta"):
        api.audit.append(Actor(f"ann of {tenant}", tenant, frozenset(), tenant=tenant), "user.create", "ben", {})
    assert [row.actor for row in rows(api, tenant="acme")] == ["ann of acme"]


def test_nothing_can_be_done_to_rows_over_the_api(api):
    assert {method for method, path, _ in api.routes() if path.startswith("/v2/audit")} == {"GET"}
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert api.call(method, "/manage/v2/audit").status_code == 405


@pytest.mark.parametrize(
    ("method", "path", "action"),
    [
        ("PUT", "/v2/endpoint/{namespace}/{name}", "endpoint.update"),
        ("POST", "/v2/endpoint/{namespace}/{name}/scale-to-zero", "endpoint.scale-to-zero"),
        ("DELETE", "/v2/endpoint/{namespace}/{name}/keys/{key}", "key.revoke"),
        ("POST", "/v2/endpoint/{namespace}/{name}/keys/{key}/rotate", "key.rotate"),
        ("DELETE", "/v2/keys/{key}", "platform-key.revoke"),
        ("PUT", "/v2/secrets/{namespace}/{name}", "secret.update"),
        ("PUT", "/v2/endpoint/{namespace}/{name}/budget", "budget.update"),
        ("DELETE", "/v2/endpoint/{namespace}/{name}/queues/{queue}", "queue.delete"),
        ("POST", "/v2/tenants", "tenant.create"),
    ],
)
def test_actions_are_named_by_method_and_path(method, path, action):
    assert naming.of(method, path, {"/v2/tenants"}).action == action


def test_commands_list_the_rows_and_have_the_platform_check_them(api, monkeypatch, tmp_path):
    run = runner(api, monkeypatch, tmp_path)
    api.create(description="first")
    api.call("DELETE", "/none-such")
    lines = run("audit", "ls").splitlines()
    assert [line.split("\t")[5:8] for line in lines[1:]] == [
        ["endpoint.delete", "admin/none-such", "404"],
        ["endpoint.create", "admin/demo-chat", "200"],
    ]
    assert lines[1].endswith("not_found")
    assert [row["action"] for row in run("audit", "ls", "--outcome", "done", "--json")] == ["endpoint.create"]
    assert run("audit", "verify", "--api", "--json") == api.audit.verify().wire()
    api.store._audit[0] = dataclasses.replace(api.store._audit[0], actor="eve")
    assert "NOT whole. Row 1 was edited" in run.all("audit", "verify", "--api").stdout
    assert "is missing: run this where" in run("audit", "verify", code=1)


def test_the_first_key_of_a_platform_has_a_row(tmp_path):
    settings = Settings(home=tmp_path)
    home.prepare(home.of(settings))
    made = platform.ensure_admin(settings, home.of(settings))
    assert platform.ensure_admin(settings, home.of(settings)) == made
    store = open_store(settings.database)
    (row,) = store.audit(AuditFilter())
    assert (row.actor, row.source, row.action, row.resource) == ("moorage up", "local", "platform-key.create", keys.key_id(made.token))
    assert audit.AuditLog(store, (tmp_path / "secret").read_bytes().strip(), tmp_path).verify().intact
    store.close()


def test_a_retry_that_comes_before_the_first_tries_transaction_has_ended_does_nothing(tmp_path):
    store = open_store(f"sqlite:///{tmp_path / 'moorage.db'}")
    store.migrate()
    api, retried = Api(tmp_path, store=store), threading.Event()
    api.create()
    asked, append = [], api.audit.append
    remembered = store.remembered

    def asked_for(scope, key):
        asked.append(key)
        if len(asked) > 3:  # the retry looks: the first try, which has looked three times, has not been kept yet
            retried.set()
        return remembered(scope, key)

    def slow(*given, **named):
        assert retried.wait(10)
        append(*given, **named)

    store.remembered, api.audit.append = asked_for, slow
    with concurrent.futures.ThreadPoolExecutor() as pool:
        call = lambda: api.call("POST", "/demo-chat/keys", {"description": "x"}, headers={"idempotency-key": "once"})  # noqa: E731
        one, other = (future.result() for future in [pool.submit(call), pool.submit(call)])
    assert one.json() == other.json() and one.status_code == 200
    assert len(api.call("GET", "/demo-chat/keys").json()["items"]) == 2
    assert [row.action for row in rows(api)] == ["endpoint.create", "key.create"]
    store.close()
