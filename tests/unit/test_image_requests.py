"""What requests for images may say, in both dialects."""

import json

import pytest

from deployments import image_requests
from deployments.image_requests import Bounds, Invalid, Shape

BOUNDS = Bounds(max_side=1024, max_steps=50, max_images=4)


def hugging_face(accept="", **parameters):
    return image_requests.hugging_face(json.dumps({"inputs": "a cat", "parameters": parameters}).encode(), accept, BOUNDS)


def openai(**body):
    return image_requests.openai(json.dumps({"prompt": "a cat", **body}).encode(), BOUNDS)


def test_the_two_dialects_say_the_same():
    said = {"negative_prompt": "dogs", "num_inference_steps": 7, "guidance_scale": 3, "seed": 5, "scheduler": "DDIMScheduler"}
    one, other = hugging_face(width=64, height=128, **said), openai(size="64x128", **said)
    assert one == other
    assert one.shape == Shape(64, 128, 7, 3.0, "DDIMScheduler") and (one.negative, one.seed, one.count) == ("dogs", 5, 1)


def test_what_is_not_said_is_the_pipelines_choice():
    assert openai() == hugging_face()
    assert openai(size="auto", n=3, user="me", quality="hd").count == 3
    assert openai().shape == Shape() and openai().seed is None
    assert hugging_face(target_size={"width": 64, "height": 128}).shape == Shape(64, 128)


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"prompt": ""}, "prompt", "what to paint"),
        ({"prompt": "x" * 20_001}, "prompt", "over 20000"),
        ({"n": 5}, "n", "from 1 to 4"),
        ({"n": True}, "n", "from 1 to 4"),
        ({"size": "2048x64"}, "size", "1024"),
        ({"size": "65x64"}, "size", "multiple of 8"),
        ({"size": 512}, "size", "WIDTHxHEIGHT"),
        ({"num_inference_steps": 51}, "num_inference_steps", "50"),
        ({"guidance_scale": 1e9}, "guidance_scale", "100"),
        ({"guidance_scale": "high"}, "guidance_scale", "number"),
        ({"seed": -1}, "seed", "from 0"),
        ({"response_format": "url"}, "response_format", "b64_json"),
        ({"output_format": "gif"}, "output_format", "png, jpeg, webp"),
        ({"stream": True}, "stream", "not streamed"),
        ({"strenght": 1}, "strenght", "known are"),
    ],
)
def test_what_cannot_be_names_its_field(body, param, words):
    with pytest.raises(Invalid, match=words) as refusal:
        openai(**body)
    assert refusal.value.param == param


@pytest.mark.parametrize("parameters", [{"width": 63}, {"height": 2048}, {"width": 70}, {"n": 2}, {"num_inference_steps": 0}])
def test_hugging_faces_parameters_have_the_same_bounds(parameters):
    with pytest.raises(Invalid) as refusal:
        hugging_face(**parameters)
    assert refusal.value.param in parameters


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"inputs": 7}', b'{"inputs": "x", "parameters": []}', b"[" * 100_000])
def test_a_body_that_is_none_is_refused(content):
    with pytest.raises(Invalid):
        image_requests.hugging_face(content, "", BOUNDS)
    with pytest.raises(Invalid):
        image_requests.openai(content, BOUNDS)


@pytest.mark.parametrize(
    ("accept", "format"),
    [("", "png"), ("*/*", "png"), ("image/jpeg", "jpeg"), ("text/html, image/webp;q=0.9, image/png", "webp"), ("image/*", "png")],
)
def test_accept_chooses_the_encoding(accept, format):
    assert hugging_face(accept).format == format
