"""Speech with the openai client, against a real Whisper behind the edge: what it writes is noise, what surrounds it is not."""

import openai
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from support.platforms import until
from support.sounds import wav


def sound(seconds):
    """A tone, as the openai client takes a file."""
    return "tone.wav", wav(seconds), "audio/wav"


@pytest.fixture(scope="module")
def speech(served):
    """No task is named: the repository tells it. The engine reads half a minute of sound, 1,500 tokens, at once or not at all."""
    with served("speech", None, llm={"maxModelLen": 64}, args=["--max-num-batched-tokens", "2048"]) as endpoint:
        yield endpoint


@pytest.fixture(params=["its own URL", "the shared URL"])
def client(request, speech):
    platform, name = speech
    below = f"/endpoints/admin/{name}" if request.param == "its own URL" else ""
    return openai.OpenAI(base_url=f"{platform.url}{below}/v1", api_key=platform.token, max_retries=0, timeout=120)


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # so the client calls translations
def test_speech_is_transcribed_and_translated_streaming_and_not(client, speech):
    _, name = speech
    options = {"model": name, "file": sound(1.0), "temperature": 0, "extra_body": {"max_completion_tokens": 12}}
    heard = client.audio.transcriptions.create(language="en", **options)
    assert heard.text and heard.usage.seconds == 1
    events = list(client.audio.transcriptions.create(language="en", stream=True, **options))
    assert "".join(event.choices[0]["delta"].get("content") or "" for event in events if event.choices) == heard.text
    assert client.audio.translations.create(**options).text


def test_what_is_no_sound_is_refused_in_the_engines_words(client, speech):
    with pytest.raises(openai.BadRequestError):
        client.audio.transcriptions.create(model=speech[1], file=("tone.wav", b"no sound", "audio/wav"), language="en")
    with pytest.raises(openai.NotFoundError, match="no route"):
        client.embeddings.create(model=speech[1], input="hello")


def test_a_sound_larger_than_the_edges_buffer_finds_its_endpoint(client, speech):
    heard = client.audio.transcriptions.create(model=speech[1], file=sound(20.0), language="en", extra_body={"max_completion_tokens": 2})
    assert heard.usage.seconds == 20


def test_a_request_is_in_the_log_with_its_tokens(client, speech):
    platform, name = speech
    options = {"language": "en", "temperature": 0, "extra_body": {"max_completion_tokens": 5}}
    answer = client.audio.transcriptions.with_raw_response.create(model=name, file=sound(1.0), **options)
    path = f"/{name}/requests/{answer.headers['x-request-id']}"

    def counted():
        found = platform.manage("GET", path)
        return found.json() if found.status_code == 200 and (found.json()["tokens"] or {}).get("completion") else None

    found = until(counted, 30, what="the request's tokens are told")
    assert (found["status"], found["outcome"], found["tokens"]["completion"]) == (200, "finished", 5)


def test_hugging_faces_client_sends_the_sound_itself(speech):
    platform, name = speech
    client = InferenceClient(model=f"{platform.url}/endpoints/admin/{name}", token=platform.token, timeout=120)
    assert client.automatic_speech_recognition(wav(20.0)).text
    heard = client.automatic_speech_recognition(wav(1.0), extra_body={"language": "en", "max_new_tokens": 4, "temperature": 0})
    assert heard.text and heard.chunks is None
    timed = client.automatic_speech_recognition(
        wav(1.0), extra_body={"return_timestamps": True, "generation_parameters": {"language": "en"}}
    )
    assert all(0 <= chunk.timestamp[0] <= chunk.timestamp[1] <= 30 for chunk in timed.chunks)
    with pytest.raises(HfHubHTTPError) as refused:
        client.automatic_speech_recognition(b"no sound")
    assert refused.value.response.status_code == 422
