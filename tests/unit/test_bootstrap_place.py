"""The manager and the gateway stay on the node that has their state."""

import pytest

from cluster import bootstrap
from cluster.settings import Settings


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({}, ("node:__internal_head__",)),
        ({"database_url": "postgresql://db/moorage"}, ("node:__internal_head__",)),
        ({"address": "auto"}, ("node:10.0.0.7",)),
        ({"address": "auto", "database_url": "postgresql://db/moorage"}, ()),
    ],
)
def test_they_may_run_only_where_their_home_is(fields, place, tmp_path):
    assert bootstrap.home_node(Settings(home=tmp_path, **fields), "10.0.0.7") == place
