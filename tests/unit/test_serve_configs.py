"""Every Serve file that ships can be read by Serve and names code that exists."""

import importlib.util

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema
from support.platforms import ROOT

FILES = sorted((ROOT / "serve_configs").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_serve_config_is_valid_and_names_existing_code(file):
    config = ServeDeploySchema.model_validate(yaml.safe_load(file.read_text()))
    assert config.applications
    for application in config.applications:
        module, _, name = application.import_path.partition(":")
        assert importlib.util.find_spec(module) is not None
        assert name


def test_the_platform_and_hand_written_endpoints_are_among_them():
    assert {file.name for file in FILES} >= {"platform.yaml", "echo.yaml", "llm.yaml"}
