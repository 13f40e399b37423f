"""Speech in Hugging Face's form: translation, and the ASGI application without sockets."""

import base64
import io
import json

import pytest
from python_multipart.multipart import parse_form
from support import asgi
from support.asgi import Engine, whole

from deployments.dialects import generation, huggingface, speech
from deployments.engine_stats import EngineStats

SOUND = b"RIFF\r\n--\x00\xff sound"
HEARD = {"text": " hello", "segments": [{"text": " hello", "start": 0.0, "end": 1.5, "id": 0}], "usage": {"seconds": 2}}


def asked_with(**parameters):
    return speech.translate(json.dumps({"inputs": base64.b64encode(SOUND).decode(), "parameters": parameters}).encode())


def fields_and_sound(body, kind):
    """What a server reads in a form."""
    fields, files = {}, []

    def on_field(field):
        fields[field.field_name.decode()] = field.value.decode()

    def on_file(file):
        file.file_object.seek(0)
        files.append((file.field_name, file.file_object.read()))

    parse_form({"Content-Type": kind, "Content-Length": str(len(body)).encode()}, io.BytesIO(body), on_field, on_file)
    return fields, files


def test_a_sound_is_asked_about_without_anything_else():
    asked = speech.translate(SOUND)
    assert (asked.route, asked.fields, asked.sound) == ("/v1/audio/transcriptions", {}, SOUND)
    assert asked.read(HEARD) == {"text": " hello"}


@pytest.mark.parametrize(
    ("parameters", "fields"),
    [
        ({}, {}),
        ({"language": "en", "max_new_tokens": 7}, {"language": "en", "max_completion_tokens": "7"}),
        ({"generation_parameters": {"temperature": 0.5, "top_k": None}}, {"temperature": "0.5"}),
        ({"generate_kwargs": {"do_sample": False}}, {"temperature": "0"}),
    ],
)
def test_parameters_become_fields(parameters, fields):
    asked = asked_with(**parameters)
    assert (asked.fields, asked.sound) == (fields, SOUND)


def test_a_translation_is_another_route():
    assert asked_with(generate_kwargs={"task": "translate"}).route == "/v1/audio/translations"


def test_times_are_told_where_they_are_asked_for():
    asked = asked_with(return_timestamps=True)
    assert asked.fields == {"response_format": "verbose_json"}
    assert asked.read(HEARD) == {"text": " hello", "chunks": [{"text": " hello", "timestamp": [0.0, 1.5]}]}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"inputs": 1}',
        b'{"inputs": ""}',
        b'{"inputs": "n?"}',
        b'{"inputs": "\xc3\xa9"}',
        b'{"inputs": "AAAA", "parameters": []}',
        b'{"inputs": "AAAA", "parameters": {"nonsense": 1}}',
        b'{"inputs": "AAAA", "parameters": {"task": "sing"}}',
        b'{"inputs": "AAAA", "parameters": {"return_timestamps": "word"}}',
        b'{"inputs": "AAAA", "parameters": {"generate_kwargs": 1}}',
        b'{"a":' * 200_000,
    ],
)
def test_what_is_no_request_is_refused(body):
    with pytest.raises(generation.Invalid):
        speech.translate(body)


async def post(engine, body):
    dialect = huggingface.Dialect(engine, huggingface.Served("m", None, "automatic-speech-recognition"), EngineStats())
    return await asgi.post(dialect, "/", body)


async def test_a_sound_reaches_the_engine_as_a_form():
    engine = Engine(body=json.dumps(HEARD).encode())
    sent = await post(engine, SOUND)
    scope, body = engine.asked[0]
    headers = dict(scope["headers"])
    assert (scope["path"], headers[b"x-request-id"], headers[b"content-length"]) == (
        "/v1/audio/transcriptions",
        b"r",
        str(len(body)).encode(),
    )
    assert fields_and_sound(body, headers[b"content-type"]) == ({}, [(b"file", SOUND)])
    assert json.loads(whole(sent)) == {"text": " hello"}


async def test_fields_reach_the_engine_beside_the_sound():
    engine = Engine(body=json.dumps(HEARD).encode())
    await post(engine, {"inputs": base64.b64encode(SOUND).decode(), "parameters": {"language": "én"}})
    scope, body = engine.asked[0]
    assert fields_and_sound(body, dict(scope["headers"])[b"content-type"]) == ({"language": "én"}, [(b"file", SOUND)])


async def test_an_error_of_the_engine_is_told_in_the_dialects_shape():
    sent = await post(Engine(400, b'{"error": {"message": "no sound"}}'), SOUND)
    assert (sent[0]["status"], json.loads(whole(sent))) == (422, {"error": "no sound", "error_type": "validation"})


async def test_what_is_no_request_is_422():
    sent = await post(Engine(), b"{")
    assert (sent[0]["status"], json.loads(whole(sent))["error_type"]) == (422, "validation")
