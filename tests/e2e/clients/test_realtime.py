"""Speech while it is spoken, with the openai client over a websocket: a real Qwen3-ASR behind the edge that writes noise.

The events are those of vLLM, which takes the client's transport and keeps its own words within it.
"""

import base64
import importlib.util
import json
import socket
from pathlib import Path

import httpx
import openai
import pytest
import websockets
from support.platforms import running_platform, until
from support.sounds import tone
from support.vllm import create
from websockets.sync.client import connect as plain_connect

# The client opens its socket in a way that websockets gives up.
pytestmark = pytest.mark.filterwarnings("ignore:connect:DeprecationWarning")
STAND_INS = Path(__file__).parent.parent.parent / "stand_ins"
"""For what the model imports and does not use."""
SECOND, SEGMENT = 1.0, 5.0
"""The model hears five seconds at a time."""


@pytest.fixture(scope="module")
def listener(models):
    """It hears one client at a time, so that one who leaves without freeing the engine leaves it deaf."""
    variables = {} if importlib.util.find_spec("torchvision") else {"PYTHONPATH": str(STAND_INS)}
    with running_platform(variables, model_paths=str(models("realtime").parent)) as platform:
        create(platform, "tiny-realtime", repository=str(models("realtime")), llm={"maxModelLen": 1024, "maxNumSeqs": 1})
        yield platform, "tiny-realtime"


@pytest.fixture
def key(listener):
    """A key of the endpoint's own that works: its JSON."""
    platform, name = listener
    made = platform.manage("POST", f"/{name}/keys", {"description": "a test"}).json()
    headers = {"authorization": f"Bearer {made['key']}"}
    models = f"{platform.url}/endpoints/admin/{name}/v1/models"
    until(lambda: httpx.get(models, headers=headers).status_code == 200, 5, what="the key works")
    return made


def connect(listener, below=None, key=None):
    """A connection of the openai client's."""
    platform, name = listener
    below = f"/endpoints/admin/{name}" if below is None else below
    client = openai.OpenAI(base_url=f"{platform.url}{below}/v1", api_key=key or platform.token, max_retries=0, timeout=120)
    return client.realtime.connect(model=name)


def begin(connection, name):
    """A session that listens."""
    assert json.loads(connection.recv_bytes())["type"] == "session.created"
    connection.send({"type": "session.update", "model": name})
    connection.send({"type": "input_audio_buffer.commit"})


def say(connection, seconds):
    connection.send({"type": "input_audio_buffer.append", "audio": base64.b64encode(tone(seconds)).decode()})


def rest(connection):
    """The deltas until all is said, and the last event."""
    connection.send({"type": "input_audio_buffer.commit", "final": True})
    deltas = []
    while (event := json.loads(connection.recv_bytes()))["type"] == "transcription.delta":
        deltas.append(event["delta"])
    return deltas, event


def request_id(connection):
    return connection._connection.response.headers["x-request-id"]


def closed(connection):
    """Whether the server has closed it; what it says until then is dropped."""
    try:
        connection._connection.recv(timeout=0)
    except TimeoutError:
        return False
    except websockets.ConnectionClosed:
        return True


def in_log(listener, identity):
    """The session's row in the log of requests, once its tokens are told."""
    platform, name = listener

    def counted():
        found = platform.manage("GET", f"/{name}/requests/{identity}")
        return found.json() if found.status_code == 200 and (found.json()["tokens"] or {}).get("completion") else None

    return until(counted, 30, what="the session's tokens are told")


def ended(listener, identity):
    """How the session ended for the edge, and for the engine."""
    found = in_log(listener, identity)
    return found["outcome"], found["engine"]["outcome"]


@pytest.mark.parametrize("below", [None, ""], ids=["its own URL", "the shared URL"])
def test_what_is_said_is_written_and_the_session_is_in_the_log_with_its_tokens(listener, below):
    with connect(listener, below) as connection:
        begin(connection, listener[1])
        say(connection, SECOND)
        deltas, done = rest(connection)
        identity = request_id(connection)
    assert done["type"] == "transcription.done", done
    assert "".join(deltas) == done["text"] != ""
    found, told = in_log(listener, identity), done["usage"]
    assert (found["status"], found["outcome"]) == (101, "finished")
    assert (found["tokens"]["prompt"], found["tokens"]["completion"]) == (told["prompt_tokens"], told["completion_tokens"])


def test_every_segment_of_every_utterance_of_a_session_counts(listener):
    with connect(listener) as connection:
        begin(connection, listener[1])
        for _ in range(2):
            say(connection, SEGMENT)
        _, first = rest(connection)
        connection.send({"type": "input_audio_buffer.commit"})
        say(connection, SECOND)
        _, second = rest(connection)
        identity = request_id(connection)
    found = in_log(listener, identity)["tokens"]
    assert found["completion"] == first["usage"]["completion_tokens"] + second["usage"]["completion_tokens"]
    assert found["prompt"] > first["usage"]["prompt_tokens"] + second["usage"]["prompt_tokens"], "vLLM tells of the first segment alone"


def test_a_client_that_leaves_is_counted_and_frees_the_engine(listener):
    with connect(listener) as connection:
        begin(connection, listener[1])
        say(connection, SEGMENT)
        assert json.loads(connection.recv_bytes())["type"] == "transcription.delta"
        identity = request_id(connection)
        connection._connection.socket.shutdown(socket.SHUT_RDWR)  # without a good-bye
    with connect(listener) as connection:
        begin(connection, listener[1])
        say(connection, SECOND)
        assert rest(connection)[1]["type"] == "transcription.done"
    assert ended(listener, identity) == ("client_left", "aborted")


def test_without_a_key_there_is_no_session(listener):
    platform, name = listener
    for path in (f"/endpoints/admin/{name}/v1/realtime", f"/v1/realtime?model={name}"):
        for key in ({}, {"Authorization": "Bearer moor_e_wrong"}):
            with pytest.raises(websockets.InvalidStatus) as refused:
                plain_connect(platform.url.replace("http", "ws") + path, additional_headers=key)
            assert refused.value.response.status_code == 401


def test_a_revoked_key_ends_its_session(listener, key):
    platform, name = listener
    with connect(listener, key=key["key"]) as connection:
        begin(connection, name)
        say(connection, SEGMENT)
        assert json.loads(connection.recv_bytes())["type"] == "transcription.delta"
        assert platform.manage("DELETE", f"/{name}/keys/{key['id']}").status_code == 200
        until(lambda: closed(connection), 5, what="the session is cut")
        identity = request_id(connection)
    assert ended(listener, identity) == ("cut", "aborted")
