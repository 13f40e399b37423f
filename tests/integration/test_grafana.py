"""`moorage grafana install` against a server that speaks Grafana's routes."""

import json

import pytest
from servers.grafana import TOKEN, Grafana, serving
from starlette.responses import JSONResponse, PlainTextResponse
from typer.testing import CliRunner

from cluster import grafana
from cluster.cli import main


@pytest.fixture
def server():
    app = Grafana()
    with serving(app) as url:
        app.url = url
        yield app


@pytest.fixture
def install(server, tmp_path, monkeypatch):
    """Runs the command; returns what it says."""
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    monkeypatch.setenv("MOORAGE_HOME", str(tmp_path))
    monkeypatch.setenv("MOORAGE_GRAFANA_URL", server.url)
    monkeypatch.setenv("MOORAGE_GRAFANA_TOKEN_FILE", str(token))

    def run(*words, code=0):
        done = CliRunner().invoke(main.app, ["grafana", "install", *words])
        assert done.exit_code == code, (done.output, done.exception)
        assert TOKEN not in done.output + str(done.exception)
        return done.stdout if code == 0 else str(done.exception)

    run.token = token
    return run


def test_install_puts_data_source_folder_and_dashboard_in_place(server, install):
    said = json.loads(install("--prometheus-url", "http://prometheus:9090", "--json"))
    assert said == {"url": f"{server.url}/d/{grafana.UID}/moorage", "created": ["data source", "folder", "dashboard"]}
    (source,) = server.sources.values()
    assert (source["type"], source["url"], source["access"]) == ("prometheus", "http://prometheus:9090", "proxy")
    kept = server.dashboards[grafana.UID]
    assert kept["dashboard"] == {**grafana.dashboard(), "id": None} and kept["folderUid"] in server.folders
    (variable,) = [one for one in kept["dashboard"]["templating"]["list"] if one["name"] == "datasource"]
    assert variable["current"]["value"] == source["uid"]


def test_installing_again_brings_up_to_date_and_makes_nothing_twice(server, install):
    install()
    server.dashboards[grafana.UID]["dashboard"]["title"] = "changed by hand"
    assert "brought up to date" in install("--prometheus-url", "http://elsewhere:9090")
    assert len(server.sources) == len(server.folders) == len(server.dashboards) == 1
    assert server.sources[1]["url"] == "http://elsewhere:9090" and server.sources[1]["id"] == 1
    assert server.dashboards[grafana.UID]["dashboard"]["title"] == "Moorage"


def test_a_wrong_token_says_which_one_it_takes_and_writes_nothing(server, install):
    install.token.write_text("wrong")
    assert "role Admin" in install(code=1) and server.writes == []


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (JSONResponse({"message": "database is locked"}, 500), "answered 500: Server Error 500: database is locked"),
        (PlainTextResponse("hello"), "no Grafana"),
        (JSONResponse({"id": 1}, 200), ""),
    ],
)
def test_what_is_no_grafana_or_broken_is_a_sentence(server, install, answer, words):
    server.broken = answer
    if words:
        assert words.replace("Server Error 500: ", "") in install(code=1)
    else:
        install()  # a proxy that says yes to everything is told everything


def test_what_is_missing_or_wrong_is_said_before_anything_is_sent(server, install, monkeypatch):
    assert "is a URL like" in install("--prometheus-url", "prometheus:9090", code=1)
    assert "is a URL like" in install("--url", "grafana", code=1)
    assert "cannot be read" in install("--token-file", "/no/such/file", code=1)
    install.token.write_text("two words")
    assert "one token" in install(code=1)
    monkeypatch.delenv("MOORAGE_GRAFANA_URL")
    assert "MOORAGE_GRAFANA_URL" in install(code=1)
    assert server.writes == []


def test_a_grafana_that_is_not_there_is_a_sentence(server, install):
    assert "no Grafana" in install("--url", "http://127.0.0.1:9", code=1)
