"""The gateway's copy of the snapshot on disk: the whole, and each change as it comes."""

import stat

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster import snapshot
from gateway import last_snapshot
from gateway.last_snapshot import LastSnapshot, load


def endpoint(name, **fields):
    replicas = (snapshot.Replica("r1", 1, "h", 1, 2, member="big"),)
    members = (snapshot.Member("big"), snapshot.Member("small", "embed", "/v1/embeddings"))
    return snapshot.Endpoint("id", "acme", name, "running", networks=("10.0.0.0/8",), replicas=replicas, members=members, **fields)


def world(version=7, names=("one",), digests=("d",)):
    rows = [endpoint(name) for name in names]
    return snapshot.Snapshot(version, {row.path: row for row in rows}, {digest: snapshot.Key("abc", "p", "acme") for digest in digests})


def step(now, endpoints=None, keys=None):
    """(what comes after `now`, the delta that leads there)."""
    delta = snapshot.Delta(now.version, now.version + 1, endpoints or {}, keys or {})
    return snapshot.apply(now, delta), delta


@pytest.fixture
def path(tmp_path):
    return tmp_path / "snapshot.json"


def test_nothing_saved_is_none(path):
    assert load(path) is None


def test_what_was_saved_is_read_and_nobody_else_may(path):
    LastSnapshot(path).save(world(), None)
    assert load(path) == world()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_empty_snapshot_is_one_too(path):
    LastSnapshot(path).save(snapshot.Snapshot(3), None)
    assert load(path) == snapshot.Snapshot(3)


def test_a_change_is_one_line_more(path):
    file, now = LastSnapshot(path), world()
    file.save(now, None)
    whole = path.read_text()
    after, delta = step(now, {"acme/two": endpoint("two"), "acme/one": None}, {"d": None, "e": snapshot.Key("x", "p", "acme", "", 5, 2)})
    file.save(after, [delta])
    assert load(path) == after
    assert path.read_text().startswith(whole)
    assert len(path.read_text().splitlines()) == len(whole.splitlines()) + 1


def test_the_first_save_of_a_process_is_whole_and_many_changes_are_written_anew(path, monkeypatch):
    monkeypatch.setattr(last_snapshot, "REWRITE_AFTER", 3)
    now = world()
    LastSnapshot(path).save(now, None)
    file, sizes = LastSnapshot(path), []
    for number in range(6):
        now, delta = step(now, keys={f"k{number}": snapshot.Key(f"k{number}", "p", "acme")})
        file.save(now, [delta])
        sizes.append(len(path.read_text().splitlines()))
        assert load(path) == now
    assert sizes == [2, 3, 4, 5, 2, 3]


def test_a_change_that_was_cut_off_is_left_out(path):
    file, now = LastSnapshot(path), world()
    file.save(now, None)
    after, delta = step(now, keys={"new": snapshot.Key("new", "p", "acme")})
    file.save(after, [delta])
    text = path.read_text()
    for end in range(len(text) - 1, len(text) - 40, -7):
        path.write_text(text[:end])
        assert load(path) == now


def test_after_a_failed_write_the_next_one_is_whole(path, monkeypatch):
    file, now = LastSnapshot(path), world()
    file.save(now, None)
    after, delta = step(now, keys={"new": snapshot.Key("new", "p", "acme")})
    kept = path.read_bytes()
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError):
        file.save(after, [delta])
    path.rmdir()
    path.write_bytes(kept + b'{"base":')
    file.save(after, [delta])
    assert load(path) == after


@pytest.mark.parametrize("text", ["", "{}\n", "[1]\n", "nonsense\n", '{"version": 1, "endpoints": {"a": {"replicas": []}}}\n', "null\n"])
def test_what_this_version_does_not_understand_is_not_used(path, text):
    path.write_text(text)
    assert load(path) is None


def test_a_large_snapshot_is_written_in_parts(path):
    now = world(names=[f"e{number}" for number in range(1200)], digests=[f"d{number}" for number in range(2600)])
    LastSnapshot(path).save(now, None)
    assert load(path) == now
    assert len(path.read_text().splitlines()) == 3 + 6


CHANGES = st.tuples(
    st.dictionaries(st.sampled_from(["acme/a", "acme/b"]), st.booleans()),
    st.dictionaries(st.sampled_from(["d1", "d2", "d3"]), st.booleans()),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(CHANGES, max_size=3), max_size=4))
def test_any_changes_are_read_back(path, batches):
    path.unlink(missing_ok=True)
    file, now = LastSnapshot(path), world()
    file.save(now, None)
    for batch in batches:
        deltas = []
        for endpoints, keys in batch:
            made = {name: endpoint(name.removeprefix("acme/")) if there else None for name, there in endpoints.items()}
            now, delta = step(now, made, {digest: snapshot.Key(digest, "p", "acme") if there else None for digest, there in keys.items()})
            deltas.append(delta)
        file.save(now, deltas)
    assert load(path) == now


def test_tenants_grants_blocks_and_gateways_are_kept_whole_and_as_changes(path):
    file, now = LastSnapshot(path), world()
    first = snapshot.Snapshot(
        8,
        {"acme/one": endpoint("one", tenant="acme", shared_with=("globex", "*"), requests_per_minute=5, concurrency=2)},
        {"d": snapshot.Key("abc", "p", "acme", tenant="acme", role="viewer", scope="u:ann", expires_at=12.5)},
        {"u:ann": ("lab", "shop"), "t:acme": ("acme",)},
        {"k:abc": snapshot.Block("token_limit", "tokensPerDay", 1000.0, 99.5)},
        ("here", "there"),
    )
    file.save(first, None)
    assert load(path) == first
    after = snapshot.Snapshot(
        9, now.endpoints, now.keys, {"u:ann": ("lab",)}, {"e:acme/one": snapshot.Block("budget_exceeded", "budget", 3.0)}
    )
    delta = snapshot.diff(first, after)
    file.save(snapshot.apply(first, delta), [delta])
    assert load(path) == after == snapshot.apply(first, delta)
