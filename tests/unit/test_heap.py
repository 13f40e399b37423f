"""When free memory is given back."""

from cluster import heap


def test_it_is_tidied_once_when_changes_have_come_to_rest():
    one = heap.Heap()
    assert [one.look(version) for version in (1, 2, 2, 2, 3, 4, 4, 4)] == [False, False, True, False, False, False, True, False]


def test_without_glibc_nothing_is_done(monkeypatch):
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda name: object())
    one = heap.Heap()
    assert [one.look(1) for _ in range(3)] == [False, False, False]
