"""Following an endpoint, against a scripted answer and on fake time."""

import httpx
import pytest

from cluster.cli import client, follow


class FakeTime:
    def __init__(self):
        self.now = 0.0

    def sleep(self, seconds):
        self.now += seconds


def script(*statuses):
    """A client whose endpoint has these statuses one after the other; the last one stays."""
    left = list(statuses)

    def answer(request):
        assert request.url.path == "/manage/v2/endpoint/admin/demo"
        status = left.pop(0) if len(left) > 1 else left[0]
        return httpx.Response(200, json={"name": "demo", "status": status})

    return client.Client("http://x", "key", "admin", httpx.MockTransport(answer))


def follow_it(api, said, **options):
    fake = FakeTime()
    teller = follow.Teller(said.append, clock=lambda: fake.now)
    return follow.until_settled(api, "demo", 60, teller=teller, clock=lambda: fake.now, sleep=fake.sleep, **options)


def downloading(count):
    message = f"{count} of 100"
    return {"state": "initializing", "phase": "downloading", "message": message, "progress": {"bytes": count, "total": 100}}


def test_each_phase_is_told_once_until_it_runs():
    said = []
    loading = {"state": "initializing", "phase": "loading", "message": "weights"}
    api = script({"state": "pending", "message": "queued"}, loading, loading, {"state": "running"})
    assert follow_it(api, said)["status"]["state"] == "running"
    assert said == ["pending: queued", "initializing loading: weights", "running"]


def test_bytes_are_told_now_and_then_and_not_at_every_look():
    said = []
    api = script(*[downloading(count) for count in range(0, 100, 2)], {"state": "running"})
    follow_it(api, said)
    lines = [line for line in said if "100 B" in line]
    assert 4 <= len(lines) <= 6, said
    assert lines[0].endswith("20 B of 100 B")


@pytest.mark.parametrize("state", ["failed", "updateFailed"])
def test_a_failure_is_an_error_with_its_reason(state):
    api = script({"state": state, "reason": "GatedRepository", "message": "Ask for access."})
    with pytest.raises(follow.EndpointFailed, match=rf"demo is {state} \(GatedRepository\): Ask for access"):
        follow_it(api, [])


def test_a_failure_that_is_waited_for_is_what_was_wanted():
    api = script({"state": "failed", "message": "as planned"})
    assert follow_it(api, [], wanted="failed")["status"]["state"] == "failed"


def test_a_wanted_state_is_waited_for_through_other_lasting_ones():
    api = script({"state": "scaledToZero"}, {"state": "running"})
    assert follow_it(api, [], wanted="running")["status"]["state"] == "running"


def test_without_a_wanted_state_zero_is_where_it_settles():
    api = script({"state": "scaledToZero"}, {"state": "running"})
    assert follow_it(api, [])["status"]["state"] == "scaledToZero"


def test_the_time_limit_is_kept_and_says_where_it_hangs():
    api = script({"state": "pending", "message": "needs 4 GPUs on one node"})
    with pytest.raises(follow.NotSettled, match="still pending after 60 s: needs 4 GPUs"):
        follow_it(api, [])
