"""LoRA adapters on real vLLM behind the edge, called by the openai client."""

import openai
import pytest
from support.adapters import lora_shapes, write_adapter
from support.platforms import until

MESSAGES = [{"role": "user", "content": "Say something."}]


@pytest.fixture
def client(chat_endpoint):
    platform, name = chat_endpoint
    return openai.OpenAI(base_url=f"{platform.url}/endpoints/admin/{name}/v1", api_key=platform.token, max_retries=0, timeout=120)


def adapters(platform, name):
    return {one["name"]: one for one in platform.status(name)["adapters"]}


def say(client, model, **options):
    """The greedy answer, whole or as a stream."""
    asked = {"model": model, "messages": MESSAGES, "temperature": 0, "max_tokens": 24, "extra_body": {"ignore_eos": True}, **options}
    return client.chat.completions.create(**asked)


def test_adapters_come_and_go_on_a_running_vllm_and_each_answers_in_its_own_voice(client, chat_endpoint, models):
    platform, name = chat_endpoint
    base = say(client, "x").choices[0].message.content
    running = say(client, "x", stream=True, max_tokens=400)
    heard = [next(running)]
    for adapter in ({"name": "style", "repository": "tiny/lora"}, {"name": "tone", "repository": str(models("other-lora"))}):
        assert platform.manage("POST", f"/{name}/adapters", adapter).status_code == 200
    until(lambda: {one["state"] for one in adapters(platform, name).values()} == {"ready"}, 60, what="both adapters are ready")
    heard += list(running)
    assert heard[-1].choices[0].finish_reason == "length"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in heard).startswith(base)
    style, tone = (say(client, model) for model in ("style", f"{name}:tone"))
    assert (style.model, tone.model) == ("style", f"{name}:tone")
    assert len({base, style.choices[0].message.content, tone.choices[0].message.content}) == 3
    assert say(client, "x").choices[0].message.content == base
    shared = openai.OpenAI(base_url=f"{platform.url}/v1", api_key=platform.token, max_retries=0)
    assert say(shared, f"{name}:style").choices[0].message.content == style.choices[0].message.content
    own = {model.id: getattr(model, "parent", None) for model in client.models.list()}
    assert own[f"{name}:style"] == name
    assert all("/" not in model.root for model in client.models.list())

    running = say(client, "style", stream=True, max_tokens=400)
    heard = [next(running)]
    assert platform.manage("DELETE", f"/{name}/adapters/style").status_code == 200
    for someone, model in ((client, "style"), (client, f"{name}:style"), (shared, f"{name}:style")):
        with pytest.raises(openai.NotFoundError) as refusal:
            say(someone, model)
        assert refusal.value.code == "model_not_found"
    heard += list(running)
    assert heard[-1].choices[0].finish_reason == "length"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in heard).startswith(style.choices[0].message.content)
    assert say(client, "tone").choices[0].message.content == tone.choices[0].message.content
    platform.manage("DELETE", f"/{name}/adapters/tone")


def test_adapters_of_a_wrong_rank_and_of_another_model_are_refused_with_the_reason(chat_endpoint, models):
    platform, name = chat_endpoint
    folder = models("other-lora").parent
    big = {"name": "big", "repository": str(write_adapter(folder / "big", rank=32))}
    refused = platform.manage("POST", f"/{name}/adapters", big)
    assert refused.status_code == 400 and "maxLoraRank to 32" in refused.json()["error"]
    other = {"name": "other", "repository": str(write_adapter(folder / "other", shapes=lora_shapes(hidden=64)))}
    assert platform.manage("POST", f"/{name}/adapters", other).status_code == 200
    failed = until(lambda: [one for one in adapters(platform, name).values() if one["state"] == "failed"], 60, what="it is refused")
    assert failed[0]["reason"] == "WrongBase" and "wide in the model and 64 in the adapter" in failed[0]["message"]
    platform.manage("DELETE", f"/{name}/adapters/other")
