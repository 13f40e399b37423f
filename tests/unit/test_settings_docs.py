"""The typed engine settings are documented in the engine's own words: in the API, in the documents, and nowhere else."""

import pytest
from support.platforms import ROOT

from cluster import settings_docs, vllm_flags


def test_every_field_is_a_flag_with_the_engines_text_or_our_own():
    for row in settings_docs.rows():
        assert row["help"] and (row["flag"] is None or row["flag"].startswith("--"))
    assert set(settings_docs.OWN) >= vllm_flags.NO_FLAGS
    assert {row["name"] for row in settings_docs.rows() if not row["supported"]} <= {"swapSpace"}


def test_the_page_has_the_table_as_it_is_now():
    page = (ROOT / "docs" / "models.md").read_text()
    assert settings_docs.TABLE.replaced(page) == page, "run `python -m cluster.settings_docs`"


def test_the_description_of_the_api_has_the_texts(api):
    schemas = api.call("GET", "/manage/openapi.json").json()["components"]["schemas"]
    dtype = schemas["LlmSettings"]["properties"]["dtype"]
    assert "Data type for model weights" in dtype["description"] and "Flag: --dtype." in dtype["description"]
    assert "float16" in dtype["examples"]
    for name in ("LlmSettings", "TokenizerSettings", "SystemSettings", "VllmImage"):
        assert all(field["description"] for field in schemas[name]["properties"].values())


@pytest.mark.parametrize("name", ["loadFormat", "kvCacheDtype", "quantization", "tokenizerRevision", "blockSize", "tensorParallelSize"])
def test_a_console_can_show_them(api, name):
    rows = {row["name"]: row for row in api.call("GET", "/manage/v2/settings").json()["items"]}
    assert rows[name]["help"] and rows[name]["supported"]
