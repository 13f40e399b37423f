"""`moorage grafana ...`: the dashboard over all endpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cluster import errors, grafana, grafana_install
from cluster.cli import output
from cluster.settings import Settings

app = typer.Typer(no_args_is_help=True, help="The Grafana dashboard over all endpoints.")


@app.command()
def dashboard(as_json: output.Json = False) -> None:  # noqa: ARG001 - it is JSON in any case; scripts may say so
    """Print the dashboard as JSON, for Grafana's import or for files that it reads at its start."""
    output.show_json(grafana.dashboard())


@app.command()
def install(
    prometheus_url: Annotated[str, typer.Option(help="Prometheus, as Grafana reaches it.")] = "http://127.0.0.1:9090",
    url: Annotated[str | None, typer.Option(help="Grafana. (default: MOORAGE_GRAFANA_URL)", show_default=False)] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with a service account's token. (default: MOORAGE_GRAFANA_TOKEN_FILE)", show_default=False),
    ] = None,
    as_json: output.Json = False,
) -> None:
    """Put data source, folder and dashboard into Grafana; doing it again brings them up to date."""
    settings = Settings()
    where, file = url or settings.grafana_url, token_file or settings.grafana_token_file
    if where is None or file is None:
        raise errors.InvalidRequest(
            "Say where Grafana is (MOORAGE_GRAFANA_URL or --url) and with which token (MOORAGE_GRAFANA_TOKEN_FILE)."
        )
    done = grafana_install.install(where, _token(file), prometheus_url)
    if as_json:
        output.show_json({"url": done.dashboard_url, "created": list(done.created)})
        return
    output.show_text(f"{done.dashboard_url} is in place ({'new: ' + ', '.join(done.created) if done.created else 'brought up to date'}).")


def _token(file: Path) -> str:
    try:
        token = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise errors.InvalidRequest(f"The token file {file} cannot be read: {type(exc).__name__}.") from exc
    if not token or not token.isascii() or len(token.split()) != 1:
        raise errors.InvalidRequest(f"The token file {file} has to have one token in it, and nothing else.")
    return token
