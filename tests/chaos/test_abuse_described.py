"""What the management API's own description allows, and what it does not, made up by schemathesis and sent in this process."""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks
from support.api import Api
from support.management import UnderManage
from support.strangers import stranger

from cluster import log_store
from cluster.api import event_stream

CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.missing_required_header,
    checks.unsupported_method,
    checks.use_after_free,
    checks.ignored_auth,
]
"""Not `positive_data_acceptance`: that a cluster lacks an instance type is no matter of form. Not `ensure_resource_availability`:
it takes an endpoint's `name` for one of its own."""
EXAMPLES, FULL_EXAMPLES = 3, 200
DRAWN: dict[str, Any] = {
    "deadline": None,
    "database": None,
    "phases": [hypothesis.Phase.generate],  # the first example that fails says enough: making it smaller takes minutes
    "suppress_health_check": list(hypothesis.HealthCheck),
}
REAL = {"namespace": "admin", "name": "demo-chat", "number": 1}


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    """What goes on until its client leaves ends here at once, since this client stays to the end."""
    made = Api(tmp_path_factory.mktemp("home"))
    made.logs.follow = one_line
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_stream, "lines", until_read)
        yield made


async def one_line(*_, **__):
    yield log_store.LogEntry(1.0, "info", "r1", "hello")


def until_read(read, wanted, first, follow=event_stream.lines):
    """The events that there are, as the real one gives them."""
    reads = iter((read, lambda *_: None))
    return follow(lambda *asked: next(reads)(*asked), wanted, first, 0.0)


def broken_promises(api, examples: int) -> tuple[int, list[str]]:
    """Calls every operation with rightly and wrongly formed requests; (calls, what was not as described)."""
    schema = schemathesis.openapi.from_asgi("/manage/openapi.json", UnderManage(api.app))
    key = {"Authorization": f"Bearer {api.token}"}
    calls, found = 0, []
    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @hypothesis.settings(max_examples=examples, **DRAWN)
            @hypothesis.given(case=operation.as_strategy(generation_mode=mode), real=st.booleans())
            def call(case, real):
                nonlocal calls
                if real:
                    case.path_parameters = {name: REAL.get(name, value) for name, value in (case.path_parameters or {}).items()}
                api.call("POST", "", {"name": "demo-chat", "model": {"image": {"echo": {}}}})
                response = case.call(headers=key)
                calls += 1
                case.validate_response(response, checks=CHECKS, headers=key)

            try:
                call()
            except hypothesis.errors.Unsatisfiable:
                assert mode is GenerationMode.NEGATIVE  # nothing of it can be wrong
            except FailureGroup as group:
                found += [f"{operation.method} {operation.path}: {type(each).__name__} {each}" for each in group.exceptions]
    return calls, found


def test_a_few_made_up_requests_of_every_operation_are_answered_as_described(api, record):
    """H9, in short."""
    calls, found = broken_promises(api, EXAMPLES)
    record("H9 operations that broke their description (short)", len(found), 0, unit="operations", note=f"{calls} calls; {found}")


@pytest.mark.full
@pytest.mark.timeout(3000)
def test_ten_thousand_made_up_requests_are_answered_as_described(api, record):
    """H9."""
    calls, found = broken_promises(api, FULL_EXAMPLES)
    record("H9 made-up requests", calls, 10_000, at_most=False, unit="calls")
    record("H9 operations that broke their description", len(found), 0, unit="operations", note=f"{calls} calls; {found}")


def trespasses(api, examples: int) -> tuple[int, list[str]]:
    """Asks every operation on things of a namespace with the key of another one; (calls, those answered otherwise than refused)."""
    schema = schemathesis.openapi.from_asgi("/manage/openapi.json", UnderManage(api.app))
    key = {"Authorization": f"Bearer {stranger(api)}"}
    api.call("POST", "", {"name": "demo-chat", "model": {"image": {"echo": {}}}})
    mine = {"namespace": "admin", "name": "demo-chat", "number": 1, "key": api.call("GET", "/demo-chat/keys").json()["items"][0]["id"]}
    before = api.store.endpoints(), api.store.keys()
    calls, found = 0, []
    for result in schema.get_all_operations():
        operation = result.ok()
        if "{namespace}" in operation.path:
            more, let_in = trespass(operation, key, mine, examples)
            calls, found = calls + more, found + let_in
    assert (api.store.endpoints(), api.store.keys()) == before
    return calls, found


def trespass(operation, key, mine, examples: int) -> tuple[int, list[str]]:
    """Asks one operation; (calls, those answered otherwise than refused)."""
    calls, found = 0, []

    @hypothesis.settings(max_examples=examples, **DRAWN)
    @hypothesis.given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    def call(case):
        nonlocal calls
        case.path_parameters = {name: mine.get(name, value) for name, value in (case.path_parameters or {}).items()}
        response = case.call(headers=key)
        calls += 1
        if response.status_code not in (400, 403, 404) or "demo-chat" in response.text.replace("'demo-chat'", ""):
            found.append(f"{operation.method} {operation.path}: {response.status_code} {response.text[:200]}")

    call()
    return calls, found


def test_nobody_gets_at_another_tenants_things_by_made_up_requests(api, record):
    """K6, in short."""
    calls, found = trespasses(api, EXAMPLES)
    record("K6 made-up requests for another tenant's things that were let in (short)", len(found), 0, note=f"{calls} calls; {found[:3]}")


@pytest.mark.full
@pytest.mark.timeout(3000)
def test_nobody_gets_at_another_tenants_things_by_thousands_of_made_up_requests(api, record):
    """K6."""
    calls, found = trespasses(api, FULL_EXAMPLES)
    record("K6 made-up requests for another tenant's things that were let in", len(found), 0, note=f"{calls} calls; {found[:3]}")
