"""Retries of the management API's calls with an idempotency key."""

import pytest
from support.api import ECHO, refused


def test_a_retry_with_the_same_idempotency_key_gets_the_same_answer_and_does_nothing(api):
    key = {"idempotency-key": "once"}
    first = api.call("POST", "", ECHO, headers=key)
    again = api.call("POST", "", ECHO, headers=key)
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    refused(api.call("POST", "", {**ECHO, "description": "other"}, headers=key), 409, "idempotency_mismatch")
    refused(api.call("POST", "", ECHO), 409, "already_exists")
    refused(api.call("POST", "", ECHO, headers={"idempotency-key": "x" * 256}), 400, "invalid_request")


@pytest.mark.parametrize("path", ["/demo-chat/keys", "/manage/v2/keys"])
def test_a_retried_key_is_made_once_and_its_text_is_not_readable_in_the_store(api, path):
    api.create()
    made = [api.call("POST", path, {"description": "x"}, headers={"idempotency-key": "once"}).json() for _ in range(2)]
    assert made[0] == made[1]
    assert [item["description"] for item in api.call("GET", path).json()["items"]].count("x") == 1
    assert made[0]["key"] not in repr(vars(api.store))


def test_a_refused_creation_is_not_remembered(api):
    key = {"idempotency-key": "once"}
    refused(api.call("POST", "", {**ECHO, "name": "X"}, headers=key), 400, "invalid_request")
    assert api.call("POST", "", ECHO, headers=key).status_code == 200
