"""Ray heads as real processes: started, found again by their mark, crashed, ended."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
import pytest

from cluster import home, processes, ray_node
from cluster.settings import Settings

ACTOR = """
import os
import ray
ray.init(address=os.environ["MOORAGE_RAY_ADDRESS"], namespace="test", log_to_driver=False)
@ray.remote(num_cpus=0, lifetime="detached", name="kept")
class Kept:
    def ping(self):
        return 1
ray.get(Kept.remote().ping.remote())
"""


@pytest.fixture(scope="module")
def settings():
    """A head of its own in a short folder, since sockets lie below it."""
    folder = Path(tempfile.mkdtemp(prefix="moor", dir="/tmp"))
    given = Settings(home=folder, num_cpus=4)
    place = home.of(given)
    home.prepare(place)
    head = ray_node.start_head(ray_node.choose_ports(given, None))
    yield head.applied(given)
    ray_node.end_all(place)
    shutil.rmtree(folder, ignore_errors=True)


def titles(place):
    return sorted(process.title for process in ray_node.members(place))


def test_the_head_is_found_again_with_its_ports(settings):
    head = ray_node.running(home.of(settings))
    assert head is not None
    assert head.address.endswith(f":{settings.ray_port}") and head.dashboard_port == settings.dashboard_port
    assert any("gcs_server" in title for title in titles(home.of(settings)))


def test_the_dashboard_wants_the_token(settings):
    url = f"http://127.0.0.1:{settings.dashboard_port}/api/version"
    token = home.of(settings).ray_token.read_text()
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, headers={"authorization": f"Bearer {token}"}).status_code == 200


def test_the_token_is_in_no_command_line_and_its_file_is_closed(settings):
    place = home.of(settings)
    assert not any(place.ray_token.read_text() in title for title in titles(place))
    assert stat.S_IMODE(place.ray_token.stat().st_mode) == 0o600


def test_workers_carry_the_mark_although_they_rename_themselves(settings):
    place = home.of(settings)
    head = ray_node.running(place)
    environment = ray_node.environment(settings) | {"MOORAGE_RAY_ADDRESS": head.address}
    subprocess.run([sys.executable, "-c", ACTOR], env=environment, check=True, timeout=120)
    assert any(title.startswith("ray::Kept") for title in titles(place)), titles(place)


def test_after_a_crash_the_leftovers_end_and_a_new_head_starts(settings):
    place = home.of(settings)
    head = ray_node.running(place)
    os.kill(head.gcs.pid, signal.SIGKILL)
    assert processes.end([head.gcs], grace_s=5) == []
    assert ray_node.running(place) is None
    assert ray_node.end_leftovers(place) > 0
    assert titles(place) == []
    again = ray_node.start_head(ray_node.choose_ports(Settings(home=settings.home, num_cpus=4), ray_node.recorded(place)))
    assert again.runs() and again.dashboard_port == head.dashboard_port


def test_a_second_platform_on_the_machine_is_left_alone(settings, tmp_path):
    other = home.Home(tmp_path)
    assert ray_node.members(other) == []
    ray_node.end_all(other)
    assert ray_node.running(home.of(settings)) is not None


def test_ending_leaves_no_process(settings):
    place = home.of(settings)
    ray_node.end_all(place)
    assert titles(place) == [] and ray_node.running(place) is None
