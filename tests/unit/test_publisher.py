"""Snapshots are streamed whole first, then as deltas, and only when something has changed."""

import asyncio
import dataclasses

import pytest

from cluster import granting, publisher, records, routes, snapshot, state
from cluster.settings import Settings


def row(name, **changes):
    return {f"a/{name}": snapshot.Endpoint(name, "a", name, "running", **changes)}


async def next_of(watch):
    return await asyncio.wait_for(anext(watch), 5)


async def test_a_watcher_gets_the_whole_first_and_then_what_changes():
    news = publisher.Publisher(100)
    assert news.publish(row("one"), {})
    watch = news.watch()
    first = await next_of(watch)
    assert (first.version, set(first.endpoints)) == (101, {"a/one"})
    await asyncio.to_thread(news.publish, row("two"), {})
    delta = await next_of(watch)
    assert set(delta.endpoints) == {"a/two"}
    assert snapshot.apply(first, delta).endpoints.keys() == {"a/one", "a/two"}
    assert (await next_of(news.watch())).endpoints.keys() == {"a/one", "a/two"}


async def test_nothing_changed_is_no_news():
    news = publisher.Publisher(0)
    news.publish(row("one"), {})
    assert not news.publish({}, {})


async def test_a_watcher_that_comes_before_the_first_snapshot_waits_for_it():
    news = publisher.Publisher(0)
    watch = news.watch()
    waiting = asyncio.ensure_future(next_of(watch))
    await asyncio.sleep(0)
    assert not waiting.done()
    await asyncio.to_thread(news.publish, {}, {})
    assert isinstance(await waiting, snapshot.Snapshot)


async def test_each_endpoint_has_an_engine_secret_of_its_own():
    one, two = publisher.engine_secret(b"cluster", "one"), publisher.engine_secret(b"cluster", "two")
    assert one != two
    assert publisher.engine_secret(b"other", "one") != one


def test_keys_that_are_revoked_or_of_endpoints_and_users_that_are_gone_or_not_active_are_left_out():
    users = {name: records.User(name, "a", "a", active=name == "ann") for name in ("ann", "bob")}
    people = granting.Membership({"a": records.Namespace("a", "acme")}, users)
    keys = [
        records.Key("k1", "d1", "e", "a", endpoint_id="e1"),
        records.Key("k2", "d2", "e", "a", endpoint_id="e1", status="revoked"),
        records.Key("k3", "d3", "e", "a", endpoint_id="gone"),
        records.Key("k4", "d4", "p", "a", owner="ann", role="viewer", expires_at=7.0),
        records.Key("k5", "d5", "p", "a", owner="bob"),
        records.Key("k6", "d6", "p", "a", owner="gone"),
    ]
    compiled = publisher.compile_keys(keys, {"e1": "a/one"}, people)
    assert {digest: (key.endpoint, key.tenant) for digest, key in compiled.items()} == {"d1": ("a/one", "acme"), "d4": ("", "a")}
    assert (compiled["d4"].role, compiled["d4"].scope, compiled["d4"].expires_at) == ("viewer", "t:a", 7.0)


@pytest.mark.parametrize(
    ("columns", "draining"),
    [({"serving": 1}, [False, True]), ({"serving": 2, "target": 2}, [True, False]), ({"serving": 1, "awake": False}, [True, True])],
)
def test_only_replicas_of_the_serving_revision_get_traffic(make, columns, draining, tmp_path):
    replicas = [records.Replica(f"r{number}", "app", "e1", number, "127.0.0.1", number, 8) for number in (1, 2)]
    compiled = publisher.compile_endpoint(make.endpoint(**columns), state.Status("running"), replicas, Settings(home=tmp_path), b"x")
    assert [replica.draining for replica in compiled.replicas] == draining


@pytest.mark.parametrize(("sizes", "limit"), [([], 0), ([8], 8 + 5), ([8, 8], 16 + 5), ([8, 0], 0)])
def test_an_endpoint_admits_what_its_replicas_take_and_its_queue(make, sizes, limit, tmp_path):
    endpoint = make.endpoint(serving=1)
    endpoint = dataclasses.replace(endpoint, spec={**endpoint.spec, "compute": {"scaling": {"maxQueue": 5}}})
    replicas = [records.Replica(f"r{number}", "app", "e1", 1, "127.0.0.1", number, size) for number, size in enumerate(sizes)]
    leaving = records.Replica("other", "app", "e1", 2, "127.0.0.1", 99, 4)
    compiled = publisher.compile_endpoint(endpoint, state.Status("running"), [*replicas, leaving], Settings(home=tmp_path), b"x")
    assert compiled.max_concurrency == limit


def test_predict_defaults_to_the_route_of_the_task():
    assert publisher.default_route(None) == "/v1/completions"
    assert publisher.default_route("feature-extraction") == "/v1/embeddings"
    for task in (
        "feature-extraction",
        "sentence-similarity",
        "sentence-embeddings",
        "text-ranking",
        "text-classification",
        "text-generation",
    ):
        assert routes.is_default_route(publisher.default_route(task)), task


def test_predict_goes_where_the_endpoint_says_or_where_ocis_variable_says(make, tmp_path):
    def route(**fields):
        endpoint = make.endpoint(serving=1)
        endpoint = dataclasses.replace(endpoint, spec={**endpoint.spec, **fields})
        return publisher.compile_endpoint(endpoint, state.Status("running"), [], Settings(home=tmp_path), b"x").default_route

    oci = {"env": {"MODEL_DEPLOY_PREDICT_ENDPOINT": "/v1/chat/completions"}, "repository": "a/b"}
    assert route() == "/v1/completions"
    assert route(model=oci) == "/v1/chat/completions"
    assert route(model=oci, route={"default": "/v1/embeddings"}) == "/v1/embeddings"


async def test_gateways_are_told_when_others_live_and_kept_while_nothing_is_known():
    news = publisher.Publisher(0)
    assert news.publish({}, {}, gateways=("a",))
    watch = news.watch()
    assert (await next_of(watch)).gateways == ("a",)
    assert not news.publish({}, {}, gateways=("a",))
    assert not news.publish({}, {})
    assert news.publish({}, {}, gateways=("a", "b"))
    assert (await next_of(watch)).gateways == ("a", "b")
    assert (await next_of(news.watch())).gateways == ("a", "b")
