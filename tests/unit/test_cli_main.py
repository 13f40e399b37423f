"""The map of commands: every one of them loads, takes --json, and costs the others nothing."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from cluster.cli import main

HEAVY = ("ray", "torch", "vllm", "sqlalchemy", "httpx", "openai", "pydantic", "huggingface_hub")


def leaves(command, path):
    """(path, command) of every command that does something."""
    nested = getattr(command, "commands", None)
    if nested is None:
        return [(path, command)]
    return [leaf for name, child in nested.items() for leaf in leaves(child, f"{path} {name}")]


ALL = [leaf for name in main.COMMANDS for leaf in leaves(main.load(name), name)]


@pytest.mark.parametrize(("path", "command"), ALL, ids=[path for path, _ in ALL])
def test_every_command_takes_json_and_is_explained(path, command):
    options = {option for parameter in command.params for option in parameter.opts}
    assert "--json" in options or path == "hf"  # the stock command has options of its own
    assert command.help and len(command.help.splitlines()[0]) < 140


def test_the_help_lists_every_command_that_is_not_hidden():
    shown = CliRunner().invoke(main.app, ["--help"])
    assert shown.exit_code == 0
    for name, entry in main.COMMANDS.items():
        assert (f" {name} " in shown.stdout) != entry.hidden


def test_the_help_of_a_command_is_its_own_and_not_that_of_the_entry():
    shown = CliRunner().invoke(main.app, ["endpoints", "create", "--help"])
    assert shown.exit_code == 0 and "--min-replica" in shown.stdout


def test_a_mistyped_command_is_refused_with_a_suggestion():
    refused = CliRunner().invoke(main.app, ["statsu"])
    assert refused.exit_code == 2 and "status" in refused.output


def test_the_help_imports_nothing_heavy():
    code = f"""
import sys
from cluster.cli import main
try:
    main.app(["--help"])
except SystemExit:
    print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_looking_at_endpoints_imports_neither_ray_nor_the_database():
    names = ("ray", "torch", "sqlalchemy")
    code = f"import sys; from cluster.cli import main; main.load('endpoints'); print([n for n in {names!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_error_is_one_sentence_on_standard_error(tmp_path):
    environment = {"MOORAGE_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    line = [sys.executable, "-m", "cluster.cli.main", "endpoints", "ls", "--json"]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("moorage: There is no platform to talk to") and len(done.stderr.splitlines()) == 1
