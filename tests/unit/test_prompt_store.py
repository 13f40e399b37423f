"""Prompts are kept for as long as their endpoint says, and are gone then."""

import stat

import pytest

from cluster import messages, prompt_store

DAY = 86400.0


class Clock:
    now = 1_800_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(tmp_path, clock):
    return prompt_store.PromptStore(tmp_path / "prompts", clock)


def prompt(clock, identity="id-1", text="hello"):
    return messages.Prompt(identity, clock.now, "/v1/completions", text, "well", False)


def files(store, tmp_path):
    return sorted(path for path in (tmp_path / "prompts").rglob("*") if path.is_file())


def test_a_prompt_is_found_by_its_request(store, clock):
    store.add("acme", "chat", [prompt(clock), prompt(clock, "id-2", 'it says "id-3"')])
    assert store.find("acme", "chat", "id-2", 7).prompt == 'it says "id-3"'
    assert store.find("acme", "chat", "id-3", 7) is None
    assert store.find("acme", "other", "id-2", 7) is None


def test_after_its_time_it_is_not_shown_and_soon_deleted(store, clock, tmp_path):
    store.add("acme", "chat", [prompt(clock)])
    clock.now += DAY - 1
    assert store.find("acme", "chat", "id-1", 1.0) is not None
    clock.now += 2
    assert store.find("acme", "chat", "id-1", 1.0) is None
    clock.now += prompt_store.HOUR_S
    store.sweep({("acme", "chat"): 1.0})
    assert files(store, tmp_path) == []


def test_what_is_not_over_stays(store, clock, tmp_path):
    store.add("acme", "chat", [prompt(clock)])
    clock.now += DAY
    store.add("acme", "chat", [prompt(clock, "id-2")])
    clock.now += DAY
    store.sweep({("acme", "chat"): 1.5})
    assert store.find("acme", "chat", "id-2", 1.5) is not None
    assert len(files(store, tmp_path)) == 1


def test_a_shorter_time_holds_for_what_was_kept_before(store, clock, tmp_path):
    store.add("acme", "chat", [prompt(clock)])
    clock.now += 3 * DAY
    store.sweep({("acme", "chat"): 1.0})
    assert files(store, tmp_path) == []


def test_prompts_of_endpoints_that_are_gone_are_deleted(store, clock, tmp_path):
    store.add("acme", "chat", [prompt(clock)])
    store.sweep({("acme", "other"): 1.0})
    assert files(store, tmp_path) == []


def test_what_lies_among_them_keeps_no_others_prompts(store, clock, tmp_path):
    for name in ("chat", "more"):
        store.add("acme", name, [prompt(clock)])
        (tmp_path / "prompts" / "acme" / name / "notes").write_text("not ours")
    store.sweep({})
    assert {path.name for path in files(store, tmp_path)} == {"notes"}


def test_forgetting_deletes_one_endpoints_and_no_others(store, clock):
    store.add("acme", "chat", [prompt(clock)])
    store.add("acme", "other", [prompt(clock)])
    store.forget("acme", "chat")
    store.forget("acme", "never there")
    assert store.find("acme", "chat", "id-1", 7) is None
    assert store.find("acme", "other", "id-1", 7) is not None


def test_an_endpoint_has_so_much_and_no_more(store, clock, tmp_path, monkeypatch):
    monkeypatch.setattr(prompt_store, "ENDPOINT_BYTES", 3000)
    for number in range(10):
        store.add("acme", "chat", [prompt(clock, f"id-{number}", "x" * 900)])
        clock.now += prompt_store.HOUR_S
    assert sum(path.stat().st_size for path in files(store, tmp_path)) <= 3000
    assert store.find("acme", "chat", "id-9", 7) is not None


def test_nobody_else_can_read_them(store, clock, tmp_path):
    store.add("acme", "chat", [prompt(clock)])
    [file] = files(store, tmp_path)
    assert (stat.S_IMODE(file.stat().st_mode), stat.S_IMODE(file.parent.stat().st_mode)) == (0o600, 0o700)


def test_a_line_that_was_cut_off_hides_no_other(store, clock, tmp_path):
    store.add("acme", "chat", [prompt(clock)])
    [file] = files(store, tmp_path)
    with file.open("a") as out:
        out.write('{"id": "id-2", "pro')
    assert store.find("acme", "chat", "id-1", 7) is not None
    assert store.find("acme", "chat", "id-2", 7) is None


def test_a_prompt_is_not_in_what_is_printed_of_it(clock):
    assert "hello" not in repr(prompt(clock))
