"""curl against real vLLM behind the edge."""

import json
import subprocess


def test_curl_as_in_the_readme(chat_endpoint):
    platform, name = chat_endpoint
    line = ["curl", "-sS", f"{platform.url}/v1/chat/completions", "-H", f"Authorization: Bearer {platform.token}"]
    line += ["-H", "Content-Type: application/json"]
    line += ["-d", f'{{"model": "{name}", "max_tokens": 3, "messages": [{{"role": "user", "content": "hello"}}]}}']
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=True)
    assert '"chat.completion"' in done.stdout


def test_a_base_model_that_is_asked_to_chat_says_how_to_set_a_template(served):
    with served("base", "text-generation") as (platform, name):
        assert platform.fetch(f"/endpoints/admin/{name}/predict", "POST", {"prompt": "Once upon", "max_tokens": 2}).json()["choices"]
        refused = platform.chat(name)
        assert refused.status_code == 400
        assert "model.settings.tokenizer.chatTemplate" in refused.json()["error"]["message"]


def test_rerank_and_score(served):
    with served("reranker", "text-ranking") as (platform, name):
        texts = {"query": "a thing", "documents": ["import os", "a thing"]}
        for route in ("/predict", "/v1/rerank"):
            found = platform.fetch(f"/endpoints/admin/{name}{route}", "POST", texts).json()
            assert {row["index"] for row in found["results"]} == {0, 1}
        scored = platform.fetch(f"/endpoints/admin/{name}/v1/score", "POST", {"queries": "a thing", "documents": ["import os"]})
        assert scored.status_code == 200, scored.text
        refused = platform.fetch(f"/endpoints/admin/{name}/v1/completions", "POST", {"prompt": "x"})
        assert refused.status_code == 404
        assert "POST /v1/score" in json.dumps(refused.json()) or "POST /score" in json.dumps(refused.json())
