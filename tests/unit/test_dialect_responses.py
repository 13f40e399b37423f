"""Stored responses: ids that say who keeps them, and an end to keeping."""

import json
import re

import pytest
from support.asgi import Engine, post, whole

from cluster import routes
from deployments.dialects import responses


async def asked(body, replica="abc123"):
    engine = Engine(body=b"x")
    sent = await post(responses.Dialect(engine, replica, lambda: "0" * 32), "/v1/responses", body)
    assert whole(sent) == b"x"
    return engine.asked[0][1]


async def test_the_id_names_the_replica_and_no_client_chooses_another():
    for body in ({"input": "hi"}, {"input": "hi", "request_id": "resp_of_another"}):
        assert json.loads(await asked(body)) == {"input": "hi", "request_id": f"resp_abc123_{'0' * 32}"}


async def test_the_id_is_one_that_the_edge_reads():
    engine = Engine()
    await post(responses.Dialect(engine, "abc123"), "/v1/responses", {"input": "hi"})
    identity = json.loads(engine.asked[0][1])["request_id"]
    assert re.match(routes.KEPT, identity)
    assert re.match(routes.RESPONSES, f"GET:/v1/responses/{identity}")


@pytest.mark.parametrize("body", [b"{", b"[]", b"[" * 100_000])
async def test_what_is_no_request_is_left_to_the_engine(body):
    assert await asked(body) == body


async def test_without_a_name_nothing_is_changed():
    assert json.loads(await asked({"input": "hi"}, replica="")) == {"input": "hi"}


def test_the_oldest_goes_with_all_that_is_kept_of_it():
    messages = {str(number): number for number in range(5)}
    kept = responses.Kept(3, beside=(messages,))
    for number in range(5):
        kept[str(number)] = number
    assert list(kept) == list(messages) == ["2", "3", "4"]
