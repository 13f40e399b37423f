"""Usage counted at vLLM's real output processor, which is fed by hand what an engine core says: no model, no server."""

import json
import time
import warnings

import pytest

from cluster.messages import Usage
from deployments import usage, vllm_usage

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # vLLM's own
    from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams
    from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest, FinishReason
    from vllm.v1.engine.output_processor import OutputProcessor, RequestOutputCollector
    from vllm.v1.engine.parallel_sampling import ParentRequest
    from vllm.v1.metrics.stats import IterationStats, PrefillStats

PROMPT = list(range(10))


class Records(list):
    def add(self, record, key):
        self.append(Usage(**json.loads(record)))


class Engine:
    """The output processor with usage attached, and an account that is open."""

    def __init__(self):
        self.processor = OutputProcessor(None, log_stats=True)
        self.salted = []
        vllm_usage.Requests(self.processor, lambda account: f"salt of {account.tenant if account else 'nobody'}")
        self.records = Records()
        self.account = usage.Meter(self.records).open("/v1/completions", [(b"x-moorage-tenant", b"team")])
        self.account.status, self.account.whole = 200, True

    def add(self, identity, external=None, parent=None, index=0, params=None, account="own", resumable=False):
        params = params or SamplingParams(detokenize=False, output_kind=RequestOutputKind.DELTA)
        request = EngineCoreRequest(identity, list(PROMPT), None, params, None, time.time(), None, "a client's", None)
        request.external_req_id, request.resumable = external or identity, resumable
        token = usage.ACCOUNT.set(self.account if account == "own" else account)
        self.processor.add_request(request, None, parent, index, RequestOutputCollector(params.output_kind, identity))
        usage.ACCOUNT.reset(token)
        self.salted.append(request.cache_salt)

    def step(self, identity, tokens=1, reason=None, cached=None):
        prefill = None if cached is None else PrefillStats(num_prompt_tokens=len(PROMPT), num_cached_tokens=cached)
        output = EngineCoreOutput(identity, [5] * tokens, finish_reason=reason, prefill_stats=prefill)
        self.processor.process_outputs([output], time.monotonic(), IterationStats())

    def told(self):
        (record,) = self.records
        return record.prompt_tokens, record.completion_tokens, record.cached_tokens, record.outcome


@pytest.fixture
def engine():
    return Engine()


def test_tokens_are_counted_by_the_time_the_answer_ends(engine):
    engine.add("a")
    engine.step("a", cached=8)
    engine.step("a", tokens=3)
    engine.step("a", reason=FinishReason.STOP)
    engine.account.release()
    assert engine.told() == (10, 5, 8, "finished")
    assert engine.records[0].first_token_s >= 0


def test_several_answers_to_one_prompt_count_it_once(engine):
    params = SamplingParams(n=2, detokenize=False, output_kind=RequestOutputKind.DELTA)
    request = EngineCoreRequest("p", PROMPT, None, params, None, time.time(), None, None, None, external_req_id="p")
    parent = ParentRequest(request)
    for index in range(2):
        identity, child = parent.get_child_info(index)
        engine.add(identity, "p", parent, index, child)
    for index, cached in enumerate((0, 8)):
        engine.step(f"{index}_p", cached=cached)
        engine.step(f"{index}_p", reason=FinishReason.LENGTH)
    engine.account.release()
    assert engine.told() == (10, 4, 0, "finished")


def test_each_prompt_of_a_list_counts(engine):
    for name in ("cmpl-r-0", "cmpl-r-1"):
        engine.add(f"{name}-random", name)
        engine.step(f"{name}-random", reason=FinishReason.LENGTH, cached=0)
    engine.account.release()
    assert engine.told() == (20, 2, 0, "finished")


def test_the_steps_of_a_beam_search_count_their_prompt_once(engine):
    for step in ("0f" * 16, "1e" * 16):
        for beam in range(2):
            engine.add(f"{step}{beam}", f"cmpl-r-0-{step}-beam-{beam}")
            engine.step(f"{step}{beam}", reason=FinishReason.LENGTH, cached=0)
    engine.account.release()
    assert engine.told() == (10, 4, 0, "finished")


async def test_a_request_that_is_fed_bit_by_bit_counts_all_of_it_once_and_has_no_first_token(engine):
    def bit():
        engine.add("a-random", "a", resumable=True)

    def written(cached=None):
        engine.step("a-random", tokens=3, cached=cached)
        engine.step("a-random", reason=FinishReason.LENGTH)

    bit()
    bit()  # while the engine works on the first
    written(cached=8)
    written()
    bit()  # while it waits
    written()
    engine.account.release()
    assert engine.records == [], "there may be more to come"
    engine.add("a-random", "a")
    assert engine.told() == (30, 12, 8, "finished")
    assert engine.records[0].first_token_s == 0


async def test_an_abort_of_what_is_fed_bit_by_bit_counts_the_bits_that_were_begun(engine):
    engine.account.left = True
    for _ in range(2):
        engine.add("a-random", "a", resumable=True)
    engine.step("a-random", tokens=4, cached=0)
    engine.account.release()
    engine.processor.abort_requests(["a"], False)
    assert engine.told() == (10, 4, 0, "aborted")


@pytest.mark.parametrize("internal", [True, False])
async def test_an_abort_counts_what_was_made_until_then(engine, internal):
    engine.account.left = True
    engine.add("a-random", "a")
    engine.step("a-random", tokens=4, cached=0)
    engine.account.release()
    assert engine.records == [], "the engine has not ended it yet"
    engine.processor.abort_requests(["a-random" if internal else "a"], internal)
    assert engine.told() == (10, 4, 0, "aborted")


def test_an_abort_of_a_parent_counts_its_children(engine):
    params = SamplingParams(n=2, detokenize=False, output_kind=RequestOutputKind.DELTA)
    parent = ParentRequest(EngineCoreRequest("p", PROMPT, None, params, None, time.time(), None, None, None, external_req_id="p"))
    for index in range(2):
        identity, child = parent.get_child_info(index)
        engine.add(identity, "p", parent, index, child)
        engine.step(identity, tokens=3, cached=0)
    engine.processor.abort_requests(["p"], internal=True)
    engine.account.release()
    assert engine.told() == (10, 6, 0, "aborted")


def test_a_client_that_leaves_before_the_first_token_has_used_the_prompt(engine):
    engine.account.left = True
    engine.add("a")
    engine.processor.abort_requests(["a"], internal=True)
    engine.account.release()
    assert engine.told() == (10, 0, 0, "aborted")


def test_the_death_of_the_engine_is_a_failure_that_costs_no_prompt_it_has_not_read(engine):
    engine.add("a")
    engine.add("b")
    engine.step("a", tokens=2, cached=0)
    engine.processor.propagate_error(RuntimeError())
    engine.account.release()
    assert engine.told() == (10, 2, 0, "failed")


def test_a_request_that_the_engine_gives_up_is_failed_though_its_stream_was_200(engine):
    engine.add("a")
    engine.step("a", cached=0)
    engine.step("a", tokens=0, reason=FinishReason.ERROR)
    engine.account.release()
    assert engine.told() == (10, 1, 0, "failed")


@pytest.mark.parametrize("structured", [None, StructuredOutputsParams(regex="[ab]+")], ids=["free", "structured"])
@pytest.mark.parametrize("forbids", [{}, {"allowed_token_ids": [5]}, {"min_tokens": 2}], ids=lambda given: "".join(given) or "nothing")
def test_what_is_given_up_since_nothing_may_be_written_is_the_requests_fault(engine, structured, forbids):
    params = SamplingParams(detokenize=False, output_kind=RequestOutputKind.DELTA, structured_outputs=structured, **forbids)
    engine.add("a", params=params)
    engine.step("a", reason=FinishReason.ERROR, cached=0)
    engine.account.release()
    assert engine.told() == (10, 1, 0, "failed")
    assert engine.account.contradictory == (structured is not None and bool(forbids))


def test_settling_counts_what_runs(engine):
    engine.add("a")
    engine.step("a", tokens=6, cached=0)
    engine.account.end()
    assert engine.told()[:2] == (10, 6)
    engine.step("a", reason=FinishReason.STOP)
    engine.account.release()
    assert len(engine.records) == 1


def test_tokens_are_counted_while_the_request_runs_for_a_server_that_is_killed(engine):
    engine.add("a")
    assert (engine.account.prompt_tokens, engine.account.completion_tokens) == (0, 0), "the prompt has not been read"
    engine.step("a", tokens=2, cached=8)
    engine.step("a", tokens=3)
    assert (engine.account.prompt_tokens, engine.account.completion_tokens, engine.account.cached_tokens) == (10, 5, 8)


def test_salt_is_ours_whatever_came_with_the_request(engine):
    engine.add("a")
    engine.add("b", account=None)
    assert engine.salted == ["salt of team", "salt of nobody"]


def test_a_vllm_that_is_made_otherwise_is_not_served_without_being_counted():
    with pytest.raises(RuntimeError, match="statistics are switched off"):
        vllm_usage.Requests(OutputProcessor(None, log_stats=False), lambda _: "")
    with pytest.raises(RuntimeError, match="propagate_error"):
        vllm_usage.Requests(object(), lambda _: "")
