"""Power cut on a platform with PostgreSQL: everything is killed at once, and `moorage up` brings it all back."""

from support.platforms import until


def test_after_a_power_cut_up_brings_back_endpoints_keys_and_states(new_platform, postgresql):
    with new_platform(database_url=postgresql) as platform:
        platform.create("keeper", echo={"tag": "kept"})
        key = platform.manage("POST", "/keeper/keys", {"description": "kept"}).json()["key"]
        revoked = platform.manage("POST", "/keeper/keys", {"description": "revoked"}).json()
        platform.manage("DELETE", f"/keeper/keys/{revoked['id']}")
        platform.create("sleeper", scaling={"minReplica": 0, "maxReplica": 1})
        platform.manage("POST", "/sleeper/scale-to-zero")
        platform.create("stopped")
        platform.manage("POST", "/stopped/pause")
        token = platform.token
        before = {item["name"]: item["generation"] for item in platform.manage("GET", "").json()["items"]}

        assert not (platform.home / "moorage.db").exists()
        platform.kill_everything()
        platform.up()

        assert platform.token == token
        assert {item["name"]: item["generation"] for item in platform.manage("GET", "").json()["items"]} == before
        platform.wait("keeper")
        until(lambda: platform.chat("keeper", key=key).status_code == 200, 20, what="the old key works")
        assert platform.chat("keeper", key=key).json()["system_fingerprint"] == "kept"
        assert platform.chat("keeper", key=revoked["key"]).status_code == 401
        assert platform.status("stopped")["state"] == "paused"
        assert platform.status("sleeper")["state"] == "scaledToZero"
        assert platform.chat("sleeper").status_code == 200
