"""`moorage hf ...`: Hugging Face's own command, talking to this platform. What it runs is `cluster.cli.hf_client`."""

from __future__ import annotations

import os
import sys

import typer

from cluster.cli import client
from cluster.errors import InvalidRequest

app = typer.Typer(add_completion=False)
SERVED = ("endpoints", "auth")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def hf(ctx: typer.Context) -> None:
    """Run `hf` with this platform in the place of Hugging Face, e.g. `moorage hf endpoints ls`."""
    if ctx.args[:1] and ctx.args[0] not in SERVED:
        raise InvalidRequest(
            f"`moorage hf` knows {' and '.join(SERVED)}; for `hf {ctx.args[0]}` run `hf` itself, which talks to Hugging Face."
        )
    with client.connect(ctx.obj) as api:
        environment = os.environ | {
            "HF_ENDPOINT": f"{api.url}/manage",  # read once, when huggingface_hub is imported: hence a process of its own
            "HF_TOKEN": api.token,
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        }
    os.execve(sys.executable, [sys.executable, "-m", "cluster.cli.hf_client", *ctx.args], environment)  # noqa: S606 - no shell is meant
