"""`make demo`: the main job from nothing: platform, model, endpoint, an answer through the stock `openai` client."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TextIO

import openai
import typer

from cluster import doctor, errors, home, platform
from cluster.cli import client, follow, hardware, output
from cluster.settings import Settings

app = typer.Typer(add_completion=False)

NAME = "demo-chat"
SMALL_MODEL = "Qwen/Qwen3-0.6B"
QUESTION = "Say hello in five words."
START_LIMIT_S = 3600.0
ANSWER_LIMIT_S = 600.0


class DemoFailed(errors.MoorageError):
    """The demo did not get an answer."""

    code = "demo_failed"


@app.command()
def demo(
    ctx: typer.Context,
    model: Annotated[str | None, typer.Option(help="Hub id, s3://bucket/prefix, or an allowed path.", show_default=False)] = None,
    as_json: output.Json = False,
) -> None:
    """Start the platform, create the endpoint demo-chat, and ask it one question."""
    outcome = platform.up(Settings(), output.say)
    output.say(f"The platform {'runs already' if outcome.already else 'is running'} at {outcome.credentials.url}")
    repository = model or choose_model(outcome.settings)
    with client.connect(ctx.obj) as api:
        endpoint = ensure_endpoint(api, repository)
    url = f"{endpoint['status']['url']}/v1"
    answer = ask(url, outcome.credentials.token, sys.stderr if as_json else sys.stdout)
    if as_json:
        output.show_json({"url": url, "model": repository, "question": QUESTION, "answer": answer})
        return
    tell_what_next(outcome, url)


def choose_model(settings: Settings) -> str:
    """A small model of the Hub, or where the Hub is out of reach one made here on the spot."""
    if doctor.look_at_hub(settings) is not None:
        return SMALL_MODEL
    folder = settings.model_cache / "demo-tiny"
    output.say("The Hugging Face Hub is not reachable: a tiny model with random weights stands in, so its answers are noise.")
    if not (folder / "config.json").exists():
        output.say(f"Making it in {folder}")
        command = [sys.executable, "-m", "deployments.tiny_models", "llama", str(folder)]
        done = subprocess.run(command, cwd=Path(__file__).resolve().parents[2], capture_output=True, text=True, check=False)
        if done.returncode:
            raise DemoFailed(f"The tiny model could not be made: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return str(folder)


def ensure_endpoint(api: client.Client, repository: str) -> dict[str, Any]:
    """`demo-chat` with this model, running: created, given the model, resumed or just found."""
    try:
        known = api.call("GET", api.path(NAME))
    except client.ApiError as exc:
        if exc.status != 404:
            raise
        known = None
    if known is None:
        output.say(f"Creating the endpoint {NAME} with {repository}")
        api.call("POST", api.path(), {"name": NAME, "model": model_of(repository), "compute": compute_of(hardware.computes(api))})
    elif known["model"]["repository"] != repository:
        output.say(f"Giving the endpoint {NAME} the model {repository}")
        api.call("PUT", api.path(NAME), {"model": {"repository": repository}})
    elif known["status"]["state"] in {"paused", "failed", "updateFailed", "scaledToZero"}:
        output.say(f"Resuming the endpoint {NAME}")
        api.call("POST", api.path(NAME, "/resume"))
    return follow.until_settled(api, NAME, START_LIMIT_S, wanted="running")


def model_of(repository: str) -> dict[str, Any]:
    """The model's part of the endpoint: a short context keeps it small."""
    return {"repository": repository, "task": "text-generation", "args": ["--max-model-len", "2048"]}


def compute_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One GPU where one is free, else the CPU."""
    gpu = next(
        (row for row in rows if row["accelerator"] == "gpu" and row["numAccelerators"] == 1 and row["status"] != "not_available"), None
    )
    if gpu is None:
        return {"scaling": {"minReplica": 1, "maxReplica": 1}}
    chosen = {"accelerator": "gpu", "instanceType": gpu["instanceType"], "instanceSize": gpu["instanceSize"]}
    return {**chosen, "scaling": {"minReplica": 1, "maxReplica": 1}}


def ask(url: str, token: str, out: TextIO) -> str:
    """The answer to QUESTION, whole and again as a stream, shown on `out`. Raises DemoFailed unless both are real."""
    print(f"\nAsking through the openai client: {QUESTION}", file=out)
    options: dict[str, Any] = {
        "model": NAME,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": 48,
        "extra_body": {"chat_template_kwargs": {"enable_thinking": False}},
    }
    try:
        with openai.OpenAI(base_url=url, api_key=token, timeout=ANSWER_LIMIT_S) as stock:
            whole = stock.chat.completions.create(**options)
            answer = whole.choices[0].message.content or ""
            print(f"  answer:    {' '.join(answer.split())}", file=out)
            streamed = _show_stream(stock.chat.completions.create(**options, stream=True), out)
    except openai.OpenAIError as exc:
        raise DemoFailed(f"The endpoint did not answer: {exc}") from exc
    if not (whole.usage and whole.usage.completion_tokens and answer and streamed):
        raise DemoFailed("The endpoint answered without a word.")
    return answer


def _show_stream(chunks: Iterable[Any], out: TextIO) -> str:
    parts = []
    print("  streaming: ", end="", file=out)
    for chunk in chunks:
        text = (chunk.choices[0].delta.content or "") if chunk.choices else ""
        parts.append(text)
        print(text.replace("\n", " "), end="", file=out, flush=True)
    print(file=out)
    return "".join(parts)


def tell_what_next(outcome: platform.Outcome, url: str) -> None:
    """Addresses, the key, how to stop, what to try."""
    given = outcome.credentials
    place = home.of(outcome.settings)
    output.show_text(f"""
Endpoint   {url}
API key    {given.token}   (kept in {place.credentials})
Console    {given.url}/console/

Try next
  curl {url}/chat/completions -H "Authorization: Bearer {given.token}" \\
    -H "Content-Type: application/json" -d '{{"model": "{NAME}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
  .venv/bin/moorage chat {NAME}
  .venv/bin/moorage endpoints describe {NAME}
  .venv/bin/moorage endpoints create my-model --model Qwen/Qwen3-0.6B --wait
Stop       .venv/bin/moorage down""")
