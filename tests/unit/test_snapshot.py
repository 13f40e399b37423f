"""Snapshots and the deltas between them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import snapshot

NAMES = st.sampled_from(["a/one", "a/two", "b/one"])
ENDPOINTS = st.dictionaries(
    NAMES,
    st.builds(
        snapshot.Endpoint, id=st.text(max_size=2), namespace=st.just("a"), name=st.just("one"), state=st.sampled_from(["running", "paused"])
    ),
)
KEYS = st.dictionaries(
    st.sampled_from(["d1", "d2", "d3"]), st.builds(snapshot.Key, id=st.text(max_size=2), kind=st.just("p"), namespace=st.just("a"))
)


@given(ENDPOINTS, KEYS, ENDPOINTS, KEYS)
def test_a_delta_turns_the_old_snapshot_into_the_new_one(old_endpoints, old_keys, new_endpoints, new_keys):
    old = snapshot.Snapshot(3, old_endpoints, old_keys)
    new = snapshot.Snapshot(4, new_endpoints, new_keys)
    assert snapshot.apply(old, snapshot.diff(old, new)) == new


def test_a_delta_holds_only_what_changed():
    same = snapshot.Endpoint("1", "a", "one", "running")
    gone = snapshot.Endpoint("2", "a", "two", "running")
    delta = snapshot.diff(snapshot.Snapshot(1, {"a/one": same, "a/two": gone}), snapshot.Snapshot(2, {"a/one": same}))
    assert delta.endpoints == {"a/two": None}
    assert delta.keys == {}


def test_a_delta_of_another_version_is_refused():
    delta = snapshot.diff(snapshot.Snapshot(5), snapshot.Snapshot(6))
    with pytest.raises(ValueError, match="version 5"):
        snapshot.apply(snapshot.Snapshot(4), delta)


def test_engine_secrets_are_not_printed():
    assert "s3cret" not in repr(snapshot.Endpoint("1", "a", "one", "running", engine_secret="s3cret"))
