"""What Ray's processes are started with. Starting them is tested in tests/integration."""

import dataclasses
import socket

import pytest

from cluster import home, processes, ray_node
from cluster.settings import Settings

HEAD = ray_node.Head(
    "192.0.2.1:7000",
    "/s",
    8000,
    8001,
    8265,
    "0.0.0.0",
    processes.Process(2**22 + 1, 1, "gcs_server"),
    processes.Process(2**22 + 2, 1, "raylet"),
)


def arguments(settings, tmp_path):
    return ray_node.head_arguments(settings, tmp_path)


def test_the_environment_has_every_setting_the_token_and_the_mark(tmp_path):
    settings = Settings(home=tmp_path, port=9000, num_cpus=4)
    found = ray_node.environment(settings, {"PATH": "/bin", "PYTHONPATH": "/mine", "HF_TOKEN": "t"})
    assert found["MOORAGE_PORT"] == "9000" and found["MOORAGE_NUM_CPUS"] == "4" and found["MOORAGE_HOME"] == str(tmp_path)
    assert found["RAY_AUTH_MODE"] == "token" and found["RAY_AUTH_TOKEN_PATH"] == str(tmp_path / "ray-token")
    assert found["PYTHONPATH"].endswith(":/mine") and found["PATH"] == "/bin" and found["HF_TOKEN"] == "t"
    assert found[ray_node.MARK] == home.of(settings).mark
    assert Settings(**{name[8:].lower(): value for name, value in found.items() if name.startswith("MOORAGE_")}) == settings


def test_a_persons_own_key_and_cluster_do_not_reach_the_platforms_processes(tmp_path):
    base = {"MOORAGE_TOKEN": "moor_p_x", "MOORAGE_URL": "http://x", "RAY_ADDRESS": "elsewhere:1", "RAY_AUTH_TOKEN": "y"}
    assert not base.keys() & ray_node.environment(Settings(home=tmp_path), base).keys()


def test_a_cluster_of_somebody_else_keeps_its_own_token(tmp_path):
    found = ray_node.environment(Settings(home=tmp_path, address="elsewhere:6379"), {"RAY_AUTH_TOKEN_PATH": "/theirs"})
    assert found["RAY_AUTH_TOKEN_PATH"] == "/theirs" and "RAY_AUTH_MODE" not in found


def test_the_dashboard_is_on_loopback_and_no_secret_is_among_the_arguments(tmp_path):
    settings = Settings(home=tmp_path, num_cpus=3, num_gpus=0)
    home.prepare(home.of(settings))
    words = arguments(settings, tmp_path)
    assert "--dashboard-host=127.0.0.1" in words and "--num-cpus=3" in words and "--num-gpus=0" in words
    secrets = [home.of(settings).secret.read_text(), home.of(settings).ray_token.read_text()]
    assert not any(secret in word for secret in secrets for word in words)


def test_what_the_machine_has_is_left_to_ray_unless_it_is_set(tmp_path):
    assert not any("--num-" in word for word in arguments(Settings(home=tmp_path), tmp_path))


def test_the_usual_home_has_the_usual_ports(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = Settings(home=tmp_path / ".moorage")
    assert ray_node.choose_ports(settings, None) == settings
    assert "--port=6379" in arguments(settings, tmp_path)


def test_another_home_takes_free_ports_where_none_were_set(tmp_path):
    chosen = ray_node.choose_ports(Settings(home=tmp_path, serve_port=12345), None)
    assert chosen.serve_port == 12345 and chosen.ray_port == 0
    assert chosen.dashboard_port != 8265 and ray_node.is_free(chosen.dashboard_port)


def test_another_home_keeps_its_ports_while_they_are_free(tmp_path):
    free = ray_node.free_port()
    last = dataclasses.replace(HEAD, dashboard_port=free)
    assert ray_node.choose_ports(Settings(home=tmp_path), last).dashboard_port == free
    with socket.socket() as taken:
        taken.bind(("", free))
        taken.listen(1)
        assert ray_node.choose_ports(Settings(home=tmp_path), last).dashboard_port != free


def test_a_taken_port_is_refused_before_anything_starts(tmp_path):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        settings = Settings(home=tmp_path, serve_port=port, ray_port=0, dashboard_port=ray_node.free_port())
        with pytest.raises(ray_node.PortTaken, match=f"Port {port} .* MOORAGE_SERVE_PORT"):
            ray_node.start_head(settings)
    assert not (tmp_path / "ray").exists()


def test_a_recorded_head_whose_processes_are_gone_is_not_running(tmp_path):
    place = home.Home(tmp_path)
    home.prepare(place)
    assert ray_node.recorded(place) is None
    (place.run / "ray.json").write_text(ray_node.json.dumps(dataclasses.asdict(HEAD)))
    assert ray_node.recorded(place) == HEAD and ray_node.running(place) is None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"gcs": {}, "raylet": {}}'])
def test_a_damaged_record_counts_as_none(tmp_path, text):
    place = home.Home(tmp_path)
    home.prepare(place)
    (place.run / "ray.json").write_text(text)
    assert ray_node.recorded(place) is None


def test_what_is_in_force_since_the_start_replaces_the_settings(tmp_path):
    applied = HEAD.applied(Settings(home=tmp_path, port=9999))
    assert (applied.port, applied.ray_port) == (8000, 7000)


def test_haproxy_is_known_by_the_first_word_of_its_command():
    assert ray_node.is_haproxy(processes.Process(1, 1, "/x/bin/haproxy -W -D"))
    assert not ray_node.is_haproxy(processes.Process(1, 1, "ray::ServeReplica:gateway --haproxy"))
