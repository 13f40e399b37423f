"""What the management API tells of the platform: who calls, namespaces, hardware, the catalogue and health."""

from support.api import refused


def test_whoami_namespaces_hardware_and_the_catalogue_answer_as_huggingface_hub_asks(api):
    api.store.add_namespace("team")
    who = api.call("GET", "/manage/api/whoami-v2").json()
    assert (who["type"], who["name"], who["orgs"]) == ("user", "admin", [{"type": "org", "name": "team"}])
    assert [item["name"] for item in api.call("GET", "/manage/v2/namespaces").json()["items"]] == ["admin", "team"]
    computes = api.call("GET", "/manage/v2/provider/team").json()["vendors"][0]["regions"][0]["computes"]
    assert {"local-cpu-x1", "nvidia-h200-x2"} <= {row["id"] for row in computes}
    refused(api.call("GET", "/manage/v2/provider/elsewhere"), 404, "not_found")
    assert api.call("GET", "/manage/api/v1/catalog/list").json() == {"items": []}


def test_health_is_503_until_the_cluster_has_been_seen(api):
    api.ready = False
    answer = api.call("GET", "/manage/health", key="")
    assert (answer.status_code, answer.json()) == (503, {"status": "starting"})
    api.ready = True
    answer = api.call("GET", "/manage/health", key="")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
