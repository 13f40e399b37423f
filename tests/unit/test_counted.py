"""The request log finds what the meter stored."""

from cluster import counted, messages, usage_records
from cluster.store import MemoryStore


def test_a_stored_request_is_found_as_its_engine_told_it():
    store = MemoryStore()
    told = messages.Usage("id-1", "k1", "acme", "/v1/completions", "m", "a", "aborted", 200, 1.0, 2.0, 3, 4, 1, 0, 0.1, 0.2, 1.0, 0.5)
    fields = {name: getattr(told, name) for name in counted.FIELDS}
    store.add_usage([usage_records.UsageRow(namespace="acme", endpoint="chat-one", revision=1, replica="r1", **fields)])
    assert counted.Counted(store).tokens_of(["id-1", "id-2"]) == {"id-1": told}
