"""Prompts are kept where they are wanted, redacted, bounded, and without holding up a byte; where they are not, nothing is copied."""

import asyncio
import json

import pytest

from cluster import messages
from deployments import guard, prompt_log

ON = messages.PromptPolicy(True, True, ("email",), 1000)
ID = (b"x-request-id", b"id-1")


class Engine:
    """Answers with its parts; `receives` and `sends` are the channels that it was given."""

    def __init__(self, *parts):
        self.parts = parts
        self.body = b""
        self.channels = ()
        self.failure = None

    async def __call__(self, scope, receive, send):
        self.channels = (receive, send)
        more = True
        while more:
            message = await receive()
            self.body += message.get("body", b"")
            more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in self.parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        if self.failure:
            raise self.failure
        await send({"type": "http.response.body", "body": b""})


class Client:
    """Sends a body in parts, and remembers what it got and its own channels."""

    def __init__(self, *parts):
        self.parts = list(parts)
        self.sent = []

    async def receive(self):
        part = self.parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(self.parts)}

    async def send(self, message):
        self.sent.append(message)


async def call(application, *parts, headers=(ID,), method="POST", path="/v1/chat/completions", kind="http"):
    client = Client(*(parts or (b"",)))
    scope = {"type": kind, "path": path, "headers": list(headers)} | ({"method": method} if kind == "http" else {})
    await application(scope, client.receive, client.send)
    return client


def asked(text):
    return json.dumps({"model": "m", "temperature": 1, "messages": [{"role": "user", "content": text}]}).encode()


def said(text):
    return json.dumps({"choices": [{"message": {"content": text}}]}).encode()


@pytest.fixture
def engine():
    return Engine(said("write to bob@example.com"))


@pytest.fixture
def log(engine):
    return prompt_log.PromptLog(engine, clock=lambda: 5.0)


async def test_off_the_channels_are_the_clients_own_and_nothing_is_kept(engine, log):
    client = await call(log, asked("hello"))
    assert engine.channels == (client.receive, client.send)
    assert await log.take() == []


async def test_on_the_texts_of_request_and_answer_are_kept_redacted(log):
    log.tell(ON)
    await call(log, asked("I am al"), path="/v1/chat/completions")
    await call(log, asked("mail me: ann@example.com"), headers=[(b"x-request-id", b"id-2")])
    first, second = await log.take()
    assert (first.id, first.at, first.route, first.truncated) == ("id-1", 5.0, "/v1/chat/completions", False)
    assert json.loads(first.prompt) == {"messages": [{"role": "user", "content": "I am al"}]}
    assert first.answer == "write to [email]"
    assert "mail me: [email]" in second.prompt
    assert await log.take() == []


async def test_answers_are_kept_only_where_they_are_asked_for(log):
    log.tell(messages.PromptPolicy(True, False, (), 1000))
    await call(log, asked("hello"))
    assert (await log.take())[0].answer is None


async def test_a_body_in_parts_is_kept_whole(engine, log):
    log.tell(ON)
    body = asked("hello")
    await call(log, body[:10], body[10:20], body[20:])
    assert engine.body == body
    assert "hello" in (await log.take())[0].prompt


async def test_a_stream_is_joined_before_it_is_redacted():
    parts = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in ("mail bo", "b@exa", "mple.com", " now")]
    engine = Engine(*(b"data: " + json.dumps(part).encode() + b"\n\n" for part in parts), b"data: [DONE]\n\n")
    log = prompt_log.PromptLog(engine)
    log.tell(ON)
    await call(log, asked("hello"))
    assert (await log.take())[0].answer == "mail [email] now"


async def test_every_part_of_a_stream_goes_on_before_it_is_copied():
    passed = []

    async def engine(_, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(3):
            await send({"type": "http.response.body", "body": b"%d" % number, "more_body": True})
            assert passed[-1] == b"%d" % number

    async def send(message):
        passed.append(message.get("body"))

    log = prompt_log.PromptLog(engine)
    log.tell(ON)
    await log({"type": "http", "method": "POST", "path": "/x", "headers": [ID]}, Client(asked("x")).receive, send)


async def test_a_request_that_broke_is_kept_too(engine, log):
    log.tell(ON)
    engine.failure = ConnectionError()
    with pytest.raises(ConnectionError):
        await call(log, asked("hello"))
    assert "hello" in (await log.take())[0].prompt


async def test_long_texts_are_cut(log):
    log.tell(messages.PromptPolicy(True, True, (), 300))
    await call(log, asked("x" * 5000))
    [kept] = await log.take()
    assert (len(kept.prompt), kept.truncated) == (300, True)


async def test_of_a_body_over_the_limit_nothing_is_held(log, monkeypatch, engine):
    monkeypatch.setattr(prompt_log, "REQUEST_BYTES", 100)
    log.tell(messages.PromptPolicy(True, False, (), 300))
    await call(log, asked("x" * 5000))
    assert engine.body == asked("x" * 5000)
    assert await log.take() == []


async def test_the_oldest_go_when_nobody_fetches_them(log, monkeypatch):
    monkeypatch.setattr(prompt_log, "HELD_BYTES", 500)
    log.tell(messages.PromptPolicy(True, False, (), 300))
    for number in range(10):
        await call(log, asked(f"text {number}"), headers=[(b"x-request-id", b"id-%d" % number)])
    kept = await log.take()
    assert 0 < len(kept) < 10
    assert kept[-1].id == "id-9"


async def test_switched_off_it_drops_what_it_held(log):
    log.tell(ON)
    await call(log, asked("hello"))
    log.tell(messages.PromptPolicy())
    log.tell(ON)
    assert await log.take() == []


async def test_a_request_that_was_running_when_it_was_switched_off_is_not_kept():
    async def engine(_, receive, send):
        await receive()
        log.tell(messages.PromptPolicy())
        await send({"type": "http.response.start", "status": 200, "headers": []})

    log = prompt_log.PromptLog(engine)
    log.tell(ON)
    await call(log, asked("hello"))
    log.tell(ON)
    assert await log.take() == []


@pytest.mark.parametrize(
    "options", [{"method": "GET"}, {"kind": "websocket"}, {"headers": ()}], ids=["reading", "websocket", "the supervisor's own"]
)
async def test_what_has_no_prompt_passes_untouched(options):
    channels = []

    async def engine(_, receive, send):
        channels.extend((receive, send))

    log = prompt_log.PromptLog(engine)
    log.tell(ON)
    client = await call(log, **options)
    assert channels == [client.receive, client.send]


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'{"model": "m"}', b"\xff\xfe", b'{"a":' * 2000])
async def test_a_body_without_texts_is_no_prompt(body):
    log = prompt_log.PromptLog(Engine(b"plain"))
    log.tell(ON)
    await call(log, body)
    assert await log.take() == []


@pytest.mark.parametrize(
    ("body", "prompt"),
    [
        ({"prompt": "p", "n": 1}, {"prompt": "p"}),
        ({"input": ["a", "b"]}, {"input": ["a", "b"]}),
        ({"inputs": "i", "parameters": {"seed": 12345}}, {"inputs": "i"}),
        ({"system": "s", "messages": []}, {"messages": [], "system": "s"}),
        ({"query": "q", "documents": ["d"]}, {"query": "q", "documents": ["d"]}),
        (
            {"messages": [{"content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 2000}}]}]},
            {"messages": [{"content": [{"type": "image_url", "image_url": {"url": "[2022 characters of data]"}}]}]},
        ),
    ],
)
async def test_prompts_of_every_dialect(body, prompt):
    log = prompt_log.PromptLog(Engine())
    log.tell(ON)
    await call(log, json.dumps(body).encode())
    assert json.loads((await log.take())[0].prompt) == prompt


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (b'{"choices":[{"text":"one"},{"text":"two","index":1}]}', "one\ntwo"),
        (b'{"content":[{"type":"text","text":"hi"}]}', "hi"),
        (b'event: x\ndata: {"type":"content_block_delta","delta":{"type":"text_delta","text":"hi"}}\n\n', "hi"),
        (b'data: {"type":"response.output_text.delta","delta":"hi"}\n\ndata: {"type":"other","delta":"no"}\n\n', "hi"),
        (b'{"output":[{"content":[{"text":"hi"}]}]}', "hi"),
        (b'[{"generated_text":"hi"}]', "hi"),
        (b'data:{"token":{"text":"h"}}\n\ndata:{"token":{"text":"i"},"generated_text":"hi"}\n\n', "hi"),
        (b'{"choices":[{"message":{"content":null,"reasoning_content":"why"}}]}', "why"),
        (b"some text with bob@example.com", None),
        (b'{"data":[{"embedding":[0.1]}]}', None),
    ],
)
async def test_answers_of_every_dialect_and_nothing_of_an_unknown_shape(body, answer):
    log = prompt_log.PromptLog(Engine(body))
    log.tell(ON)
    await call(log, asked("x"))
    assert (await log.take())[0].answer == answer


async def test_only_the_supervisor_comes_through_the_control_route(log, engine):
    secrets = guard.Secrets(b"edge", b"control")
    guarded = guard.Guard(engine, secrets)
    edge, control = (b"x-engine-secret", b"edge"), (b"x-moorage-control", b"control")
    policy = json.dumps({"prompts": True, "answers": True, "redact": ["email"], "max_bytes": 1000}).encode()
    refused = await call(guarded, policy, headers=[edge], path="/_moorage/prompts")
    assert refused.sent[0]["status"] == 403
    assert (await call(guarded, policy, headers=[control], path="/_moorage/prompts")).sent[0]["status"] == 200
    await call(guarded, asked("to ann@example.com"), headers=[edge, ID], path="/v1/chat/completions")
    fetched = await call(guarded, headers=[control], path="/_moorage/prompts", method="GET")
    [prompt] = json.loads(fetched.sent[1]["body"])["prompts"]
    assert (prompt["id"], json.loads(prompt["prompt"])["messages"][0]["content"]) == ("id-1", "to [email]")


async def test_redacting_does_not_hold_up_the_loop(log):
    log.tell(messages.PromptPolicy(True, False, ("email", "number"), 100_000))
    for _ in range(20):
        await call(log, asked("word " * 10_000))
    taking = asyncio.create_task(log.take())
    turns = 0
    while not taking.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 2
    assert len(taking.result()) == 20
