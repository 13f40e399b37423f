"""Tokens that a user's program tells in its answers."""

import json

import pytest

from deployments import usage
from deployments.told_usage import LARGEST, Told, tokens


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"usage": {"prompt_tokens": 3, "completion_tokens": 5}}, (3, 5)),
        ({"usage": {"input_tokens": 3, "output_tokens": 5}}, (3, 5)),
        ({"usage": {"prompt_tokens": 3, "total_tokens": 3}}, (3, 0)),
        ({"usage": {"prompt_tokens": -3, "completion_tokens": 10**12}}, (0, 0)),
        ({"usage": {"prompt_tokens": True, "completion_tokens": "5"}}, (0, 0)),
        ({"usage": {"prompt_tokens": 1.5, "completion_tokens": None}}, (0, 0)),
        ({"usage": None}, (0, 0)),
        ([{"usage": {"prompt_tokens": 3}}], (0, 0)),
        ({"other": 1}, (0, 0)),
    ],
)
def test_tokens_are_believed_as_far_as_they_are_sane(answer, expected):
    assert tokens(json.dumps(answer).encode()) == expected


@pytest.mark.parametrize("body", [b"", b'{"usage": {', b'{"usage": ' + b"[" * 20_000])
def test_an_answer_that_is_no_json_tells_nothing(body):
    assert tokens(body) == (0, 0)


BODY = b'{"usage": {"prompt_tokens": 3, "completion_tokens": 5}}'
JSON = (b"content-type", b"application/json; charset=utf-8")


@pytest.mark.parametrize(
    ("headers", "read"),
    [
        ([JSON, (b"content-length", b"55")], True),
        ([(b"content-type", b"text/event-stream"), (b"content-length", b"55")], False),
        ([JSON], False),
        ([JSON, (b"content-length", str(LARGEST + 1).encode())], False),
        ([JSON, (b"content-length", b"55"), (b"content-encoding", b"gzip")], False),
    ],
)
def test_only_small_json_answers_are_read(headers, read):
    account = usage.Meter([]).open("/", [])
    token = usage.ACCOUNT.set(account)
    told = Told(headers)
    told.add(BODY[:9])
    told.add(BODY[9:])
    told.count()
    usage.ACCOUNT.reset(token)
    assert (account.prompt_tokens, account.completion_tokens) == ((3, 5) if read else (0, 0))
