"""What the documents name exists: settings, errors, states, commands, options, make targets, routes, fields, files, links."""

import ast
import json
import re
import typing

import pytest
import yaml
from support.platforms import ROOT

from cluster import engine_settings, errors, http_errors, images, roles, roles_docs, routes, settings, spec, state
from cluster.cli import main as cli
from deployments import diagnosis
from deployments.sources import errors as source_errors

FILES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
SETTINGS = {f"MOORAGE_{name.upper()}" for name in settings.Settings.model_fields}
RESOURCES = (
    *(spec.EndpointSpec, spec.Model, spec.Adapter, spec.Compute, spec.Scaling, spec.Route, spec.Provider, spec.RequestLog),
    *(images.VllmImage, images.EchoImage, images.CommandImage, images.CustomImage, images.DiffusersImage),
    *(engine_settings.LlmSettings, engine_settings.TokenizerSettings, engine_settings.SystemSettings),
)
COMMANDS_OWN_VARIABLES = {"MOORAGE_URL", "MOORAGE_TOKEN"}
TESTS_OWN_VARIABLES = {"MOORAGE_SOAK_MINUTES", "MOORAGE_CHAOS_KILLS"}

per_file = pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))


def page(name):
    return (ROOT / "docs" / name).read_text()


def blocks(text, language):
    return [body for kind, body in FENCE.findall(text) if kind == language]


def spans(text):
    return SPAN.findall(FENCE.sub("", text))


def shell(text):
    """What a person may type: the bash blocks with their lines joined, and every inline code."""
    return [block.replace("\\\n", " ") for block in blocks(text, "bash")] + spans(text)


def rows(text):
    """Cells of every row of every table."""
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def table(text, first):
    """Rows of the table whose first heading is `first`, up to its end."""
    lines = text[text.index(f"| {first} |") :].split("\n\n")[0]
    return rows(lines)[2:]


def names(cell):
    return set(SPAN.findall(cell))


def all_errors(base=errors.MoorageError):
    return [base, *(found for child in base.__subclasses__() if child.__module__ == errors.__name__ for found in all_errors(child))]


def test_every_setting_has_a_row_with_its_default():
    documented = {name: default for row in table(page("operations.md"), "Variable") for name, default in [(row[0].strip("`"), row[1])]}
    assert set(documented) == SETTINGS
    for name, field in settings.Settings.model_fields.items():
        if isinstance(field.default, int | float) or (isinstance(field.default, str) and name not in ("model_paths", "private_networks")):
            text = f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
            assert documented[f"MOORAGE_{name.upper()}"].strip("`") == text


@per_file
def test_every_variable_of_ours_that_is_named_exists(file):
    assert set(re.findall(r"\bMOORAGE_[A-Z_]+\b", file.read_text())) <= SETTINGS | COMMANDS_OWN_VARIABLES | TESTS_OWN_VARIABLES


def test_every_error_has_a_row_with_its_status():
    text = page("endpoints.md")
    documented = {code.strip("`"): int(status) for status, code, *_ in table(text, "Status")}
    assert documented == {cls.code: http_errors.status_of(cls()) for cls in all_errors()}


def test_every_state_has_a_row():
    assert {row[0].strip("`") for row in table(page("endpoints.md"), "State")} == state.STATES


def test_every_command_of_an_endpoint_has_a_row_with_the_states_that_allow_it():
    documented = {}
    for command, allowed, _ in table(page("endpoints.md"), "Command"):
        listed = names(allowed)
        everywhere = allowed == "every state" or allowed.startswith("all but")
        documented[command.strip("`")] = state.STATES - listed if everywhere else listed
    assert documented == state.ALLOWED


def test_every_reason_of_a_source_and_of_an_engines_start_is_listed():
    listed = {reason for row in table(page("endpoints.md"), "Where") for reason in names(row[1])}
    assert set(typing.get_args(source_errors.Reason)) <= listed
    assert {pattern.reason for pattern in diagnosis.PATTERNS} <= listed


def test_who_may_use_which_route_is_written_as_the_table_has_it():
    text = page("tenancy.md")
    assert roles_docs.TABLE.replaced(text) == text, "run python -m cluster.roles_docs"
    listed = {row[0].strip("`"): row[1:] for row in table(text, "Route under `/manage`")}
    assert set(listed) == set(roles.RULES)
    assert listed["DELETE /v2/endpoint/{namespace}/{name}"] == ["", "its owner", "yes", "yes"]


def test_every_route_of_an_endpoint_is_listed():
    listed = names(page("clients.md"))
    for allowed in routes.ALLOWED:
        path = allowed.split(":", 1)[1]
        assert path in listed or path.removeprefix("/v1/") in listed, allowed
    assert set(routes.PREDICT) <= listed


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.__name__)
def test_every_field_is_described(resource):
    listed = " ".join(names(page("endpoints.md")) | names(page("models.md")) | names(page("engines.md")))
    for field in resource.model_fields.values():
        assert re.search(rf"(^|[ .]){field.alias}($|[ .:=])", listed), field.alias


@per_file
def test_every_make_target_that_is_named_exists(file):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        word for text in shell(file.read_text()) for words in re.findall(r"(?:^|\s)make((?: +[a-z]+)+)", text) for word in words.split()
    }
    assert named <= targets


@per_file
def test_every_moorage_command_and_option_that_is_named_exists(file):
    for text in shell(file.read_text()):
        for line in re.findall(r"(?:^|[\s|])(?:\.venv/bin/)?moorage((?: +[^\s|;&#]+)*)", text, re.MULTILINE):
            check_command(line.split())


def check_command(words):
    if not words:
        return
    assert words[0] in cli.COMMANDS, words
    if words[0] == "hf":
        return
    command = cli.load(words[0])
    if cli.COMMANDS[words[0]].group and len(words) > 1:
        assert words[1] in command.commands, words
        command = command.commands[words[1]]
    options = {name for parameter in getattr(command, "params", ()) for name in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        if word.startswith("-"):
            assert word.split("=", 1)[0] in options | {"--help", "-h"}, words


def test_every_command_is_named_somewhere():
    text = " ".join(part for file in FILES for part in shell(file.read_text()))
    for name, entry in cli.COMMANDS.items():
        assert entry.hidden or f"moorage {name}" in text, name


@per_file
def test_every_file_that_is_named_exists(file):
    for name in spans(file.read_text()):
        path = re.fullmatch(r"(?:cluster|deployments|gateway|serve_configs|tests|scripts|docs|\.ci)/[\w./-]*", name)
        assert path is None or (ROOT / name).exists(), name


@per_file
def test_every_link_leads_somewhere(file):
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", file.read_text())):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        there = (file.parent / path).resolve() if path else file
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


def anchors(file):
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", file.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@per_file
def test_snippets_can_be_read_by_what_they_are_for(file):
    text = file.read_text()
    for block in blocks(text, "python"):
        ast.parse(block)
    for block in blocks(text, "yaml"):
        assert list(yaml.safe_load_all(block))
    for block in blocks(text, "bash"):
        for body in re.findall(r"-d '([^']*)'", block):
            json.loads(body)


@per_file
def test_every_python_module_that_is_run_exists(file):
    for module in re.findall(r"python -m ((?:cluster|deployments|gateway)[\w.]*)", file.read_text()):
        assert (ROOT / (module.replace(".", "/") + ".py")).exists(), module
