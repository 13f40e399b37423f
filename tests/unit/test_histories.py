"""The checker of concurrent histories: it explains what can be, and nothing else."""

import pytest
from support.histories import Operation, State, explained


def op(kind, began, ended, outcome="ok", generation=None, paused=False, text="", expected=None):
    seen = None if generation is None else State(generation, paused, text)
    return Operation(kind, began, ended, outcome, text, expected, seen)


CREATED = op("create", 0, 1, generation=1, text="a")
GOOD = {
    "overlapping changes in either order": [
        CREATED,
        op("update", 2, 5, generation=3, paused=True, text="b"),
        op("pause", 2, 4, generation=2, paused=True, text="a"),
    ],
    "a change without an answer that was made": [CREATED, op("update", 2, 3, "unknown", text="b"), op("get", 4, 5, generation=2, text="b")],
    "and one that was not": [CREATED, op("update", 2, 3, "unknown", text="b"), op("get", 4, 5, generation=1, text="a")],
    "two that create, one that deletes": [op("create", 0, 9, generation=1, text="b"), CREATED, op("delete", 2, 8)],
    "stale": [CREATED, op("update", 2, 3, "stale_generation", text="b", expected=7)],
}
BAD = {
    "two that created": [CREATED, op("create", 2, 3, generation=1, text="b")],
    "a lost change": [CREATED, op("update", 2, 3, generation=2, text="b"), op("get", 4, 5, generation=1, text="a")],
    "the same generation twice": [CREATED, op("update", 2, 3, generation=2, text="b"), op("update", 2, 3, generation=2, text="c")],
    "gone without a deletion": [CREATED, op("get", 2, 3, "not_found")],
    "there after a deletion": [CREATED, op("delete", 2, 3), op("get", 4, 5, generation=1, text="a")],
    "stale though it was not": [CREATED, op("update", 2, 3, "stale_generation", text="b", expected=1)],
    "a change that came after its answer was given up": [
        CREATED,
        op("update", 2, 3, "unknown", text="b"),
        op("get", 4, 5, generation=1, text="a"),
        op("get", 6, 7, generation=2, text="b"),
    ],
}


@pytest.mark.parametrize("name", GOOD)
def test_a_history_that_some_order_explains_is_explained(name):
    assert explained(GOOD[name])


@pytest.mark.parametrize("name", BAD)
def test_a_history_that_no_order_explains_is_not(name):
    assert not explained(BAD[name])
