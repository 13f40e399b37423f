"""Parsers of what strangers send, given anything: an answer or a refusal of their own, in bounded time."""

from __future__ import annotations

import asyncio
import itertools
import json
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster import errors, keys
from deployments.dialects import generation, huggingface
from deployments.echo_server import Server, Settings
from deployments.sources import s3
from deployments.sources.errors import SourceError
from gateway import scanning, slow_path

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6) | st.just("model"), inner, max_size=4),
    max_leaves=12,
)
TEXTS = st.text(alphabet='{}[]",:\\u0model tfn1e\n', max_size=60).map(str.encode) | st.binary(max_size=60)
MODES = [pytest.param(200, id="short"), pytest.param(20_000, marks=[pytest.mark.full, pytest.mark.timeout(1200)], id="long")]


def hold(record, row: str, examples: int, *strategies, seconds: float = 0.5):
    """Runs the decorated check on so many examples, each within `seconds`, and records how many it broke on (hypothesis stops at one).

    A slow example is tried again: what is slow because of what it says is slow twice, unlike what met a collection of garbage.
    """

    def run(check) -> None:
        slowest = 0.0

        @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(values=st.tuples(*strategies))
        def timed(values) -> None:
            nonlocal slowest
            took = _time(check, values)
            slowest = max(slowest, min(took, _time(check, values)) if took > seconds else took)

        broken = ""
        try:
            timed()
        except Exception as exc:  # noqa: BLE001 - whatever it raises is the finding
            broken = f"{type(exc).__name__}: {exc}"[:1000]
        record(f"H11 {row} ({examples:,} examples)", bool(broken), 0, unit="crashes", note=broken)
        record(f"H11 slowest example: {row}", slowest, seconds, unit="s")

    return run


def _time(check, values) -> float:
    began = time.perf_counter()
    check(*values)
    return time.perf_counter() - began


@pytest.mark.parametrize("examples", MODES)
def test_the_model_is_found_where_a_real_parser_finds_it(record, examples):
    """H11."""

    @hold(record, "scanner beside json", examples, st.dictionaries(st.text(max_size=6) | st.just("model"), JSON, max_size=5), st.booleans())
    def check(document, ascii_only):
        text = json.dumps(document, ensure_ascii=ascii_only, indent=1 if ascii_only else None).encode(errors="replace")
        expected = json.loads(text).get("model")
        found = scanning.member(text, "model")
        assert found == expected or len(json.dumps(expected)) > scanning.LONGEST_NAME / 6


@pytest.mark.parametrize("examples", MODES)
def test_no_body_breaks_the_scanner(record, examples):
    """H11."""

    @hold(
        record, "scanner", examples, TEXTS, st.sampled_from(["multipart/form-data; boundary=x", 'multipart/form-data; boundary="', "é", ""])
    )
    def check(text, kind):
        for body in (text, b'{"a": ' + text, b'{"model": ' + text + b"}"):
            try:
                scanning.member(body, "model")
            except scanning.Unreadable:
                pass
        form = b'--x\r\ncontent-disposition: form-data; name="model"\r\n\r\n' + text + b"\r\n--x--"
        for body in (text, form):
            scanning.form_field(body, kind, "model")


@pytest.mark.parametrize("examples", MODES)
def test_no_text_breaks_the_key_parser(record, examples):
    """H11: what is no minted key has no id."""
    minted = keys.mint(keys.PLATFORM)
    near = st.tuples(st.integers(0, len(minted.key) - 1), st.characters()).map(
        lambda pair: minted.key[: pair[0]] + pair[1] + minted.key[pair[0] + 1 :]
    )

    @hold(record, "key parser", examples, st.text(max_size=70) | near | near.map(lambda text: text + "\n"))
    def check(text):
        assert (keys.key_id(text) is None) == (text != minted.key)


@pytest.mark.parametrize("examples", MODES)
def test_no_address_breaks_the_s3_parser(record, examples):
    """H11: a bucket and a prefix that stays where it is, or a refusal."""
    address = st.lists(st.sampled_from(["..", ".", "/", "//", "a", "\\", "\0", "%2e", "é", "s3://", "?", "#"]), max_size=8).map("".join)

    @hold(record, "S3 address parser", examples, address | st.text(max_size=30))
    def check(text):
        try:
            bucket, prefix = s3.parse("s3://" + text)
        except SourceError:
            return
        assert bucket and "/" not in bucket
        assert not {".", ".."} & set(prefix.split("/")) and prefix.isprintable()


@pytest.mark.parametrize("examples", MODES)
def test_no_header_breaks_the_patience_of_the_slow_path(record, examples):
    """H11."""

    @hold(record, "X-Scale-Up-Timeout", examples, st.text(max_size=12) | st.floats().map(str))
    def check(text):
        try:
            seconds, _ = slow_path.patience("POST", "/v1/completions", {slow_path.SCALE_UP_TIMEOUT: text})
        except errors.InvalidRequest:
            return
        assert 0 <= seconds < float("inf")


PARAMETERS = sorted(generation.ACCEPTED | {"nonsense"})


async def ask(app, path: str, body: bytes) -> int:
    """The status that the application answers with."""
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": [(b"content-type", b"application/json")]}
    waiting, sent = [{"type": "http.request", "body": body, "more_body": False}], []

    async def receive():
        if not waiting:
            await asyncio.get_running_loop().create_future()
        return waiting.pop()

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"]


@pytest.mark.parametrize("examples", MODES)
def test_no_parameters_break_the_hugging_face_dialect(record, examples):
    """H10, H11: over the echo engine, in memory."""
    app = huggingface.Dialect(Server("echo", Settings()), huggingface.Served("echo"))
    parameters = st.dictionaries(st.sampled_from(PARAMETERS), JSON, max_size=4) | JSON
    body = st.fixed_dictionaries({"inputs": st.just("hello") | JSON}, optional={"parameters": parameters, "stream": JSON})

    @hold(record, "Hugging Face dialect", examples, st.sampled_from(["/", "/generate", "/generate_stream"]), body, seconds=5)
    def check(path, document):
        document = _bounded(document)
        assert asyncio.run(ask(app, path, json.dumps(document).encode())) in (200, 400, 422)


def _bounded(document):
    """Not more tokens than a moment takes: how long an engine may work is no matter of its parser."""
    parameters = document.get("parameters")
    if isinstance(parameters, dict) and isinstance(parameters.get("max_new_tokens"), int | float):
        return {**document, "parameters": {**parameters, "max_new_tokens": min(parameters["max_new_tokens"], 20)}}
    return document


@pytest.mark.parametrize("examples", MODES)
def test_events_are_the_same_however_the_engines_bytes_are_cut(record, examples):
    """H11: the reader of server-sent events."""
    chunk = {"choices": [{"index": 0, "text": "é \u2028 data: [DONE]", "token_ids": [1]}]}
    last = {"choices": [{"index": 0, "text": "x", "finish_reason": "stop", "token_ids": [2]}]}
    lines = [chunk, chunk, last, {"choices": [], "usage": {"completion_tokens": 3, "prompt_tokens": 1}}]
    stream = b"".join(b"data: " + json.dumps(line, ensure_ascii=False).encode() + b"\r\n\r\n" for line in lines) + b"data: [DONE]\n\n"

    async def relayed(cuts) -> bytes:
        sent = []

        async def send(message):
            sent.append(message)

        relay = huggingface._EventRelay(send, generation.Stream(generation.to_completions("hi", None, stream=True)[1]))
        await relay({"type": "http.response.start", "status": 200, "headers": []})
        places = [0, *sorted(cuts), len(stream)]
        for start, end in itertools.pairwise(places):
            await relay({"type": "http.response.body", "body": stream[start:end], "more_body": True})
        await relay({"type": "http.response.body", "body": b"", "more_body": False})
        return b"".join(message.get("body", b"") for message in sent)

    whole = asyncio.run(relayed([]))
    assert whole.count(b"data:{") == 3, whole

    @hold(record, "event reader", examples, st.lists(st.integers(0, len(stream)), max_size=12))
    def check(cuts):
        assert asyncio.run(relayed(cuts)) == whole
