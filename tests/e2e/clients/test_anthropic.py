"""The anthropic client against real vLLM behind the edge."""

import anthropic
import pytest

MESSAGES = [{"role": "user", "content": "Say something."}]


@pytest.fixture
def client(chat_endpoint):
    platform, name = chat_endpoint
    return anthropic.Anthropic(base_url=f"{platform.url}/endpoints/admin/{name}", api_key=platform.token, max_retries=0, timeout=120)


def test_messages_streaming_and_not(client):
    asked = {"model": "any", "max_tokens": 8, "messages": MESSAGES, "extra_body": {"temperature": 0}}
    answer = client.messages.create(**asked)
    assert answer.usage.output_tokens > 0
    with client.messages.stream(**asked) as stream:
        assert "".join(stream.text_stream) == answer.content[0].text
        assert stream.get_final_message().stop_reason == answer.stop_reason


def test_tokens_are_counted(client):
    assert client.messages.count_tokens(model="any", messages=MESSAGES).input_tokens > 0


def test_errors_are_anthropics(client, chat_endpoint):
    platform, _ = chat_endpoint
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(model="any", max_tokens=100_000, messages=MESSAGES)
    shared = anthropic.Anthropic(base_url=platform.url, api_key=platform.token, max_retries=0)
    with pytest.raises(anthropic.NotFoundError) as refused:
        shared.messages.create(model="none", max_tokens=1, messages=MESSAGES)
    assert refused.value.body["error"]["type"] == "not_found_error"
    with pytest.raises(anthropic.AuthenticationError) as refused:
        anthropic.Anthropic(base_url=platform.url, api_key="x", max_retries=0).messages.create(
            model="none", max_tokens=1, messages=MESSAGES
        )
    assert refused.value.body["type"] == "error"
