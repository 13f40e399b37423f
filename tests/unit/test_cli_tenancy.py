"""`moorage tenants`, `namespaces`, `users`, `platform-keys`, `whoami` and sharing against the real management API, in this process."""

import datetime

import pytest
from support import people
from support.cli import runner
from support.management import Management

NOW = datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC)


@pytest.fixture
def api(tmp_path):
    return Management(tmp_path)


@pytest.fixture
def moorage(api, monkeypatch, tmp_path):
    return runner(api, monkeypatch, tmp_path)


def test_a_tenant_with_namespace_user_and_key_is_made_and_taken_apart(moorage, monkeypatch):
    assert moorage("tenants", "create", "acme", "-d", "They pay.", "--json")["name"] == "acme"
    assert moorage("namespaces", "create", "lab", "--tenant", "acme", "--json")["tenant"] == "acme"
    ann = moorage("users", "create", "ann", "--tenant", "acme", "--role", "admin", "--json")
    assert (ann["namespace"], ann["role"]) == ("lab", "admin")
    made = moorage.all("platform-keys", "create", "--user", "ann", "--role", "member", "--expires", "30d")
    assert made.stdout.startswith("moor_p_") and "role member" in made.stderr
    monkeypatch.setenv("MOORAGE_TOKEN", made.stdout.strip())
    assert "tenant\tacme" in moorage("whoami")
    who = moorage("whoami", "--json")
    assert (who["fullname"], who["role"], who["name"]) == ("ann", "member", "lab")


def test_things_are_listed_described_updated_and_deleted(moorage):
    moorage("tenants", "create", "acme")
    moorage("namespaces", "create", "lab", "--tenant", "acme")
    moorage("users", "create", "bot", "--service", "--tenant", "acme", "--namespace", "lab", "--json")
    assert "description\tx" in moorage("tenants", "update", "acme", "-d", "x")
    assert "acme\tx" in moorage("tenants", "ls")
    assert moorage("namespaces", "update", "lab", "-d", "y", "--json")["description"] == "y"
    assert "lab\tacme\ty" in moorage("namespaces", "ls")
    assert "bot\tservice\tmember\tacme\tlab\tactive" in moorage("users", "ls")
    changed = moorage("users", "update", "bot", "--inactive", "--namespace", "", "--role", "viewer", "--json")
    assert (changed["active"], changed["namespaces"], changed["role"]) == (False, [], "viewer")
    assert "stopped" in moorage("users", "ls") and "role\tviewer" in moorage("users", "describe", "bot")
    assert "Say what to change" in moorage("users", "update", "bot", code=1)
    assert "users at home there bot" in moorage("namespaces", "delete", "lab", "--yes", code=1)
    assert moorage("users", "delete", "bot", "--yes", "--json") == {"deleted": "bot"}
    assert "is deleted" in moorage("namespaces", "delete", "lab", "--yes")
    assert "is deleted" in moorage("tenants", "delete", "acme", "--yes")
    assert [row["name"] for row in moorage("tenants", "ls", "--json")] == ["admin"]


def test_a_platform_key_is_listed_edited_rotated_and_revoked(moorage):
    key = moorage("platform-keys", "create", "-d", "build", "--tokens-per-day", "5", "--json")
    changed = moorage("platform-keys", "edit", key["id"], "--budget", "2.5", "--expires", "2999-01-31", "--json")
    assert (changed["tokensPerDay"], changed["budget"], changed["expiresAt"]) == (5, 2.5, "2999-02-01T00:00:00.000Z")
    assert moorage("platform-keys", "edit", key["id"], "--expires", "never", "--json")["expiresAt"] is None
    made = moorage("platform-keys", "rotate", key["id"], "--overlap", "30m", "--json")
    old = moorage("platform-keys", "describe", key["id"], "--json")
    assert (old["replacedBy"], old["status"], made["description"]) == (made["id"], "active", "build")
    assert "revoked" in moorage("platform-keys", "revoke", key["id"])
    assert f"{key['id']}\tadmin\toperator\trevoked\tbuild" in moorage("platform-keys", "ls", "--user", "admin")


def test_an_endpoint_is_shared_and_taken_back(moorage, api):
    people.user(api.store, "eve", tenant="rival")
    made = moorage("endpoints", "create", "demo-chat", "--engine", "echo", "--share-with", "rival", "--json")
    assert made["sharedWith"] == ["rival"]
    assert "shared with\trival" in moorage("endpoints", "describe", "demo-chat")
    assert moorage("endpoints", "update", "demo-chat", "--description", "x", "--json")["sharedWith"] == ["rival"]
    assert moorage("endpoints", "update", "demo-chat", "--share-with", "", "--json")["sharedWith"] == []
    assert moorage("endpoints", "update", "demo-chat", "--share-with", "*", "--share-with", "rival", "--json")["sharedWith"] == [
        "*",
        "rival",
    ]
