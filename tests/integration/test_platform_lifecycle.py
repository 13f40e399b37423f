"""`moorage up`, `status` and `down`, as a person types them, on a platform of its own. The order of the tests is the story."""

import json
import socket
import stat
import time

import httpx
import pytest

NAME = "kept"


@pytest.fixture(scope="module")
def mine(new_platform):
    with new_platform() as platform:
        yield platform


def status(platform):
    done = platform.command("status", "--json", check=False)
    return done.returncode, json.loads(done.stdout)


def whoami(platform):
    with platform.client() as client:
        return client.get("/manage/api/whoami-v2")


def test_up_makes_closed_credentials_that_work(mine):
    for name in ("credentials", "secret", "ray-token"):
        assert stat.S_IMODE((mine.home / name).stat().st_mode) == 0o600, name
    assert mine.credentials["url"] == mine.url and mine.credentials["namespace"] == "admin"
    assert whoami(mine).json()["name"] == "admin"


def test_up_again_says_that_it_runs_and_touches_nothing(mine):
    before = set(mine.processes())
    began = time.monotonic()
    said = mine.command("up").stdout
    assert "running already" in said and mine.url in said
    assert time.monotonic() - began < 15
    assert before <= set(mine.processes())


def test_status_shows_every_part_running(mine):
    code, seen = status(mine)
    assert code == 0 and seen["running"]
    assert {part["name"]: part["state"] for part in seen["parts"]} == dict.fromkeys(("head", "manager", "gateway", "edge"), "running")
    assert seen["versions"]["ray"].startswith("2.60.")


def test_doctor_knows_its_own_platform(mine):
    found = {finding["check"]: finding for finding in json.loads(mine.command("doctor", "--json", check=False).stdout)}
    assert found[f"port {mine.port}"]["result"] == "ok"
    assert found["secrets"]["result"] == "ok"


def test_the_secrets_are_in_no_command_line(mine):
    secrets = [(mine.home / name).read_text().strip() for name in ("secret", "ray-token")] + [mine.token]
    assert not [line for line in mine.processes().values() if any(secret in line for secret in secrets)]


def test_everything_killed_comes_back_with_one_command(mine):
    mine.create(NAME)
    keys = mine.manage("GET", f"/{NAME}/keys").json()["items"]
    token = mine.token
    mine.kill_everything()
    code, seen = status(mine)
    assert code == 1 and {part["state"] for part in seen["parts"]} == {"stopped"}
    mine.up()
    assert mine.token == token
    mine.wait(NAME)
    assert mine.chat(NAME).status_code == 200
    assert [key["id"] for key in mine.manage("GET", f"/{NAME}/keys").json()["items"]] == [key["id"] for key in keys]


def test_down_leaves_no_process_and_a_second_one_says_so(mine):
    said = mine.command("down")
    assert "has stopped" in said.stdout
    assert mine.processes() == {}
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{mine.url}/health")
    assert "was not running" in mine.command("down").stdout


def test_a_taken_port_is_said_with_the_way_out(mine):
    with socket.socket() as taken:
        taken.bind(("", mine.port))
        taken.listen(1)
        done = mine.command("up", check=False)
    assert done.returncode == 1
    assert f"Port {mine.port} is taken" in done.stderr and "--port" in done.stderr
    assert mine.processes() == {}


def test_lost_credentials_are_replaced_by_a_new_key(mine):
    old = mine.token
    (mine.home / "credentials").unlink()
    mine.up()
    assert mine.token != old
    assert whoami(mine).status_code == 200
    mine.wait(NAME)
    assert mine.chat(NAME).status_code == 200
