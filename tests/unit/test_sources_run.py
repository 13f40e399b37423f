"""Progress, patience and the node's copies, without a source."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.sources import SourceError
from deployments.sources.copies import Copies, Entry
from deployments.sources.errors import Cancelled
from deployments.sources.run import Patience, Run, retrying

NOW = Patience(attempts=3, first_delay=0, longest_delay=0)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_progress_comes_at_most_four_times_a_second_and_always_at_the_end() -> None:
    clock, told = Clock(), []
    run = Run(lambda done, total: told.append((done, total)), clock=clock)
    run.begin(1000)
    for _ in range(100):
        run.add(10)
        clock.now += 0.01
    assert told[-1] == (1000, 1000) and 4 <= len(told) <= 6


def test_progress_goes_back_when_bytes_are_thrown_away_and_never_over_the_total() -> None:
    clock, told = Clock(), []
    run = Run(lambda done, total: told.append(done), interval=0, clock=clock)
    run.begin(100)
    for step in (60, -60, 100):
        run.add(step)
    run.at(5000)
    assert told == [60, 0, 100, 100]


def test_nothing_is_told_after_stop() -> None:
    told: list[int] = []
    run = Run(lambda done, total: told.append(done))
    run.begin(10)
    run.stop()
    run.add(10)
    assert told == []
    with pytest.raises(Cancelled):
        run.check()


def test_errors_that_may_pass_are_tried_again_and_others_are_not() -> None:
    tries: list[int] = []

    def failing(permanent: bool) -> None:
        tries.append(1)
        raise SourceError("no", "SourceUnreachable", permanent)

    for permanent, expected in ((False, 3), (True, 1)):
        tries.clear()
        with pytest.raises(SourceError):
            retrying(lambda p=permanent: failing(p), Run(lambda *_: None, NOW))
        assert len(tries) == expected


def test_delays_double_up_to_a_limit() -> None:
    assert [Patience(9, 0.5, 3).delay(n) for n in (1, 2, 3, 4, 5)] == [0.5, 1, 2, 3, 3]


def publish(copies: Copies, version: str) -> Path:
    (copies.partial(version) / "files" / "a").write_bytes(b"abc")
    return copies.publish(version, [Entry("a", 3, "sha", "identity")])


def test_copy_appears_whole_and_is_found_by_its_content(tmp_path: Path) -> None:
    copies = Copies(tmp_path)
    (copies.partial("v") / "files" / "a").write_bytes(b"abc")
    assert copies.complete("v") is None and copies.received("v") == 3
    folder = publish(copies, "v")
    assert copies.complete("v") == folder and copies.received("v") == 0
    assert copies.known()["identity", 3][0] == folder / "a"


@pytest.mark.parametrize("damage", [b"", b"ab", None])
def test_cut_or_missing_file_makes_a_copy_incomplete_and_useless(tmp_path: Path, damage: bytes | None) -> None:
    copies = Copies(tmp_path)
    folder = publish(copies, "v")
    (folder / "a").unlink() if damage is None else (folder / "a").write_bytes(damage)
    assert copies.complete("v") is None and copies.known() == {}
    assert copies.complete("v") is None
    assert publish(copies, "v") == folder and (folder / "a").read_bytes() == b"abc"


def test_answer_is_recalled_for_the_same_question_only_and_only_while_it_is_whole(tmp_path: Path) -> None:
    copies = Copies(tmp_path)
    folder = publish(copies, "v")
    copies.remember(("main", "token-digest"), "v")
    assert copies.recall(("main", "token-digest")) == folder
    assert copies.recall(("main", "")) is None
    (folder / "a").unlink()
    assert copies.recall(("main", "token-digest")) is None


def test_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    copies = Copies(tmp_path)
    waits: list[int] = []

    def give_up_at_the_third() -> None:
        waits.append(1)
        if len(waits) == 3:
            raise Cancelled

    with copies.lock("v", waiting=lambda: None), pytest.raises(Cancelled), copies.lock("v", waiting=give_up_at_the_third):
        pass
    with copies.lock("v", waiting=give_up_at_the_third):
        assert len(waits) == 3
