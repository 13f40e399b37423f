"""Puts data source, folder and dashboard into a Grafana, through its HTTP API. Doing it again changes what is there.

The one module that imports `grafana_api`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import requests
from grafana_api.grafana_api import GrafanaClientError, GrafanaException
from grafana_api.grafana_face import GrafanaFace

from cluster import errors, grafana

FOLDER_UID, FOLDER_TITLE = "moorage", "Moorage"
SOURCE_UID, SOURCE_NAME = "moorage-prometheus", "Moorage Prometheus"
TIMEOUT_S = 10.0


class GrafanaFailed(errors.MoorageError):
    """Grafana did not do what it was asked."""

    code = "grafana_failed"


@dataclasses.dataclass(frozen=True)
class Installed:
    """What is in Grafana now. `created`: names of what was not there before."""

    dashboard_url: str
    created: tuple[str, ...]


def install(url: str, token: str, prometheus_url: str) -> Installed:
    """`url` is Grafana's, `prometheus_url` that of Prometheus as Grafana reaches it. Raises GrafanaFailed, InvalidRequest."""
    _checked(prometheus_url, "prometheus-url")
    api = _client(url, token)
    created: list[str] = []
    try:
        _source(api, prometheus_url, created)
        _folder(api, created)
        known = _there(lambda: api.dashboard.get_dashboard(grafana.UID))
        created += [] if known else ["dashboard"]
        api.dashboard.update_dashboard({"dashboard": {**grafana.dashboard(), "id": None}, "folderUid": FOLDER_UID, "overwrite": True})
    except GrafanaException as exc:
        raise GrafanaFailed(_sentence(exc)) from exc
    except (requests.RequestException, ValueError, LookupError, TypeError) as exc:
        raise GrafanaFailed(f"What answers at {url[:100]} is no Grafana ({type(exc).__name__}): is the URL right?") from exc
    return Installed(f"{url.rstrip('/')}/d/{grafana.UID}/moorage", tuple(created))


def _client(url: str, token: str) -> Any:
    parts = _checked(url, "grafana-url")
    prefix = parts.path.strip("/")
    return GrafanaFace(
        auth=token,
        protocol=parts.scheme,
        host=parts.netloc.rpartition("@")[2],
        url_path_prefix=f"{prefix}/" if prefix else "",
        timeout=TIMEOUT_S,
    )


def _checked(url: str, param: str) -> Any:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise errors.InvalidRequest(f"{param} is a URL like http://grafana.example:3000, not {url[:100]!r}.", param=param)
    return parts


def _source(api: Any, prometheus_url: str, created: list[str]) -> None:
    """Found by name: Grafana keeps that unique."""
    wanted = {
        "uid": SOURCE_UID,
        "name": SOURCE_NAME,
        "type": "prometheus",
        "access": "proxy",
        "url": prometheus_url,
        "jsonData": {"httpMethod": "POST"},
    }
    known = _there(lambda: api.datasource.get_datasource_by_name(SOURCE_NAME))
    if known is None:
        created.append("data source")
        api.datasource.create_datasource(wanted)
    else:
        api.datasource.update_datasource(known["id"], {**known, **wanted})


def _folder(api: Any, created: list[str]) -> None:
    if _there(lambda: api.folder.get_folder(FOLDER_UID)) is None:
        created.append("folder")
        api.folder.create_folder(FOLDER_TITLE, FOLDER_UID)


def _there(ask: Callable[[], Any]) -> Any | None:
    """What was asked for; None where Grafana has no such thing."""
    try:
        return ask()
    except GrafanaClientError as exc:
        if exc.status_code == requests.codes.not_found:
            return None
        raise


def _sentence(exc: GrafanaException) -> str:
    if exc.status_code in (401, 403):
        return "Grafana does not let this token in: it takes one of a service account with the role Admin."
    said = exc.response.get("message", "") if isinstance(exc.response, dict) else ""
    return f"Grafana answered {exc.status_code}" + (f": {str(said)[:300]}" if said else ".")
