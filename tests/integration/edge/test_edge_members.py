"""Endpoints with several models: which member a request reaches, by what it says and by whatever way it comes."""

from __future__ import annotations

import dataclasses
import json

import aiohttp
import pytest
from support.edges import until

from cluster import keys, snapshot

CHAT = "/v1/chat/completions"
OWN = f"/endpoints/acme/team{CHAT}"
LARGE = "x" * 40_000


@pytest.fixture
def team(world, engines, endpoint):
    """Publishes an endpoint with a member for each name, the first one primary; returns the engines by name."""

    async def make(*names, ready=None, **changes):
        made = {name: await engines(name) for name in names if ready is None or name in ready}
        replicas = tuple(engine.replica(member=name) for name, engine in made.items())
        members = tuple(snapshot.Member(name) for name in names)
        state = "running" if made else "scaledToZero"
        await world.publish(dataclasses.replace(endpoint("team", state=state, **changes), replicas=replicas, members=members))
        return made

    return make


async def asked(world, key, path, body, **options):
    """(status, which engine answered or the error's code)."""
    async with world.post(path, key, body, **options) as answer:
        found = await answer.json()
        return answer.status, found.get("engine") or found["error"]["code"], found


@pytest.mark.parametrize("filler", ["", LARGE], ids=["small", "large"])
async def test_a_request_reaches_the_member_that_it_names(world, team, filler):
    made = await team("big", "small", "code.v2")
    key = await world.key()
    expected = [
        (OWN, {"model": "small"}, "small"),
        (OWN, {"model": "big"}, "big"),
        (OWN, {"model": "code.v2"}, "code.v2"),
        (OWN, {"model": "team:small"}, "small"),
        (OWN, {"model": "acme/team:small"}, "small"),
        (OWN, {"model": "team"}, "big"),
        (OWN, {"model": "gpt-4o"}, "big"),
        (OWN, {"model": "llama3:8b"}, "big"),
        (OWN, {"model": "A model with blanks"}, "big"),
        (OWN, {"model": None}, "big"),
        (OWN, {}, "big"),
        (OWN, {"select_expert": "small"}, "small"),
        (OWN, {"select_expert": "small", "model": "big"}, "small"),
        (OWN, {"select_expert": "team:small"}, "small"),
        (OWN, {"select_expert": ""}, "big"),
        ("/api/v2/predict/generic/acme/team", {"params": {"select_expert": "small"}}, "small"),
        ("/api/v2/predict/generic/acme/team", {"params": {"top_k": 1}}, "big"),
        ("/api/predict/generic/stream/acme/team", {"params": {"select_expert": {"type": "str", "value": "small"}}}, "small"),
        (f"/endpoints/acme/team:small{CHAT}", {"model": "big"}, "small"),
        ("/api/v2/predict/generic/acme/team", {"params": {"select_expert": "small", "top_k": 1}}, "small"),
        ("/api/predict/generic/acme/team", {"params": {"select_expert": {"type": "str", "value": "small"}}}, "small"),
        ("/api/predict/generic/stream/acme/team", {"params": {"do_sample": {"type": "bool", "value": "true"}}}, "big"),
        (CHAT, {"model": "team"}, "big"),
        (CHAT, {"model": "team:small"}, "small"),
        (CHAT, {"model": "acme/team:small"}, "small"),
        (CHAT, {"model": "team", "select_expert": "small"}, "small"),
        (CHAT, {"model": "team:big", "select_expert": "small"}, "big"),
        (CHAT, {"model": "acme/team:big", "select_expert": "small"}, "big"),
    ]
    for path, said, engine in expected:
        body = {"messages": filler, **said}
        code, found, answer = await asked(world, key, path, body)
        assert (code, found) == (200, engine), (path, said)
        assert json.loads(made[engine].bodies[-1]) == body
        assert answer["model"] == said.get("model"), "the engine gets the body as it was sent"


@pytest.mark.parametrize("filler", ["", LARGE], ids=["small", "large"])
async def test_an_unknown_member_is_404_and_says_which_there_are(world, team, filler):
    made = await team("big", "small")
    key = await world.key()
    for path, said in [
        (OWN, {"model": "team:none"}),
        (OWN, {"model": "acme/team:none"}),
        (OWN, {"select_expert": "none"}),
        ("/api/v2/predict/generic/acme/team", {"params": {"select_expert": "none"}}),
        ("/api/predict/generic/acme/team", {"params": {"select_expert": {"type": "str", "value": "none"}}}),
        (CHAT, {"model": "team:none"}),
        (CHAT, {"model": "acme/team:none"}),
        (CHAT, {"model": "team", "select_expert": "none"}),
        ("/api/v2/predict/generic/acme/team", {"params": {"select_expert": "none"}}),
        ("/api/predict/generic/acme/team", {"params": {"select_expert": {"type": "str", "value": "none"}}}),
    ]:
        code, found, answer = await asked(world, key, path, {"messages": filler, **said})
        assert (code, found) == (404, "model_not_found"), (path, said)
        assert "big, small" in answer["error"]["message"]
    code, _, _ = await asked(world, key, f"/endpoints/acme/team:none{CHAT}", {})
    assert code == 404
    assert not any(engine.seen for engine in made.values())


async def test_names_that_only_a_reader_of_json_finds_choose_too(world, team):
    await team("big", "small")
    key = await world.key()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    for body in (b'{"mod\\u0065l": "small"}', b'{"model": "acme\\/team:small"}', b'{"a": {"model": "big"}, "model": "small"}'):
        async with world.client.post(world.url + OWN, data=body, headers=headers) as answer:
            assert (answer.status, (await answer.json())["engine"]) == (200, "small"), body
    form = aiohttp.FormData()
    form.add_field("file", b"\x00\xff\r\n", filename="speech.wav", content_type="audio/wav")
    form.add_field("model", "small")
    path = "/endpoints/acme/team/v1/audio/transcriptions"
    async with world.client.post(world.url + path, data=form, headers={"Authorization": f"Bearer {key}"}) as answer:
        assert (answer.status, (await answer.json())["engine"]) == (200, "small")


async def test_what_has_no_body_is_the_primary_members_and_both_lists_name_all(world, team):
    await team("big", "small")
    key = await world.key()
    async with world.get("/endpoints/acme/team/info", key) as answer:
        assert (answer.status, (await answer.json())["engine"]) == (200, "big")
    async with world.get("/endpoints/acme/team:small/info", key) as answer:
        assert (answer.status, (await answer.json())["engine"]) == (200, "small")
    for path in ("/v1/models", "/endpoints/acme/team/v1/models"):
        async with world.get(path, key) as answer:
            assert [row["id"] for row in (await answer.json())["data"]] == ["team", "team:big", "team:small"]
    for name, code in (("team:small", 200), ("team:none", 404)):
        async with world.get(f"/v1/models/{name}", key) as answer:
            assert answer.status == code


async def test_who_may_not_call_the_endpoint_may_call_no_member(world, team):
    made = await team("big", "small", type=snapshot.AUTHENTICATED)
    own, other = await world.key(keys.ENDPOINT, endpoint="acme/team"), await world.key(keys.ENDPOINT, endpoint="acme/else")
    stranger = await world.key(namespace="corp")
    for path, body in ((OWN, {"model": "small"}), (f"/endpoints/acme/team:small{CHAT}", {}), (CHAT, {"model": "acme/team:small"})):
        assert (await asked(world, own, path, body))[:2] == (200, "small")
        for key in (other, stranger):
            assert (await asked(world, key, path, body))[0] == 404
        assert (await asked(world, None, path, body))[0] == 401
    assert not made["big"].seen


async def test_a_private_endpoints_networks_hold_for_its_members(world, team):
    await team("big", "small", type=snapshot.PRIVATE, networks=("10.1.0.0/16",))
    key = await world.key()
    calls = ((OWN, {"model": "small"}), (f"/endpoints/acme/team:small{CHAT}", {}), (CHAT, {"model": "team:small"}), (OWN, {"model": LARGE}))
    assert [(await asked(world, key, path, body))[0] for path, body in calls] == [403] * 4
    await team("big", "small", type=snapshot.PRIVATE, networks=("127.0.0.0/8",))
    assert [(await asked(world, key, path, body))[0] for path, body in calls] == [200] * 4


async def test_members_wait_and_wake_on_their_own(world, team, engines, endpoint):
    await team("big", "small", ready=["big"])
    key = await world.key()
    assert (await asked(world, key, OWN, {"model": "big"}))[0] == 200
    code, found, _ = await asked(world, key, OWN, {"model": "small"}, headers={"X-Scale-Up-Timeout": "0"})
    assert (code, found) == (503, "starting")
    await team("big", "small", ready=[])
    code, found, _ = await asked(world, key, OWN, {"model": "small"}, headers={"X-Scale-Up-Timeout": "0.2"})
    assert (code, found) == (503, "starting")
    assert set(world.manager.wakes) == {"acme/team"}


async def test_members_come_and_go_and_a_plain_model_takes_over(world, team, engines, endpoint):
    made = await team("big", "small")
    key = await world.key()
    row = world.manager.now.endpoints["acme/team"]
    fewer = tuple(member for member in row.members if member.name == "big")
    await world.publish(dataclasses.replace(row, members=(*fewer, snapshot.Member("late")), replicas=(made["big"].replica(member="big"),)))
    assert (await asked(world, key, OWN, {"model": "small"}))[:2] == (200, "big")
    assert (await asked(world, key, OWN, {"model": "team:small"}))[0] == 404
    plain = await engines("plain")
    await world.publish(endpoint("team", plain))
    assert (await asked(world, key, OWN, {"model": "big"}))[:2] == (200, "plain")
    assert (await asked(world, key, CHAT, {"model": "team"}))[:2] == (200, "plain")
    await team("big", "small")
    assert (await asked(world, key, OWN, {"model": "small"}))[:2] == (200, "small")
    await world.publish(gone=("acme/team",))
    assert (await asked(world, key, OWN, {"model": "small"}))[0] == 404


async def test_a_member_is_told_in_the_log_and_its_use_is_the_endpoints(world, team):
    await team("big", "small")
    key = await world.key()
    for body in ({"model": "small"}, {"model": "small", "messages": LARGE}, {"model": "x"}):
        assert (await asked(world, key, OWN, body))[0] == 200
    file = world.settings.files.access_log
    await until(lambda: file.exists() and file.read_text().count("completions") == 3)
    seen = [json.loads(line)["endpoint"] for line in file.read_text().splitlines()]
    assert sorted(seen) == ["acme/team:big", "acme/team:small", "acme/team:small"]
    await until(lambda: sum(report.requests.get("acme/team", (0, 0))[0] for report in world.manager.reports) == 3)
    assert all(set(report.requests) <= {"acme/team"} for report in world.manager.reports)


async def test_an_endpoint_of_one_model_does_not_pay_for_the_choice(world):
    """The choice is made behind the usual way, which endpoints with members do not take; others only skip its rules."""
    configuration = world.settings.files.configuration.read_text()
    usual, _, rest = configuration[configuration.index("frontend edge") :].partition("http-request unset-var(txn.to)")
    assert "select_expert" not in usual and "members" not in usual
    choosing = [line for line in rest.splitlines() if "select_expert" in line or "members.map" in line]
    assert choosing and all(" if several " in line for line in choosing)
