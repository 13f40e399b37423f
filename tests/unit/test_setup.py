"""scripts/setup.py and scripts/lock.py: which flavour, when to install again, and what the commands are."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load(name: str) -> ModuleType:
    found = importlib.util.spec_from_file_location(f"scripts_{name}", ROOT / "scripts" / f"{name}.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    __import__("sys").modules[found.name] = module
    found.loader.exec_module(module)
    return module


setup, lock = load("setup"), load("lock")

TWO_GPUS = "GPU 0: NVIDIA H200 (UUID: GPU-1)\nGPU 1: NVIDIA H200 (UUID: GPU-2)\n"


def project(root: Path) -> Path:
    (root / "scripts").mkdir(parents=True)
    for name in ("pyproject.toml", "constraints.txt", "scripts/setup.py"):
        (root / name).write_text(name)
    return root


def test_a_listed_gpu_chooses_the_gpu_flavour_and_says_why():
    assert setup.choose_flavour({}, lambda: TWO_GPUS) == setup.Flavour("gpu", "nvidia-smi lists 2 GPUs")


@pytest.mark.parametrize("printed", ["", "No devices found.\n", "NVIDIA-SMI has failed.\n"])
def test_no_listed_gpu_chooses_the_cpu_flavour(printed):
    assert setup.choose_flavour({}, lambda: printed).name == "cpu"


def test_flavour_variable_overrides_what_the_machine_has():
    assert setup.choose_flavour({"FLAVOUR": "CPU"}, lambda: TWO_GPUS).name == "cpu"
    assert setup.choose_flavour({"FLAVOUR": "gpu"}, lambda: "").name == "gpu"
    assert setup.choose_flavour({"FLAVOUR": ""}, lambda: "").name == "cpu"


def test_an_unknown_flavour_is_refused_with_what_would_be_right():
    with pytest.raises(setup.SetupError, match="say cpu or gpu"):
        setup.choose_flavour({"FLAVOUR": "tpu"}, lambda: "")


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt", "scripts/setup.py"])
def test_the_stamp_changes_with_each_file_that_an_installation_depends_on(tmp_path, name):
    root = project(tmp_path)
    before = setup.stamp(root, "cpu")
    assert setup.stamp(root, "cpu") == before
    (root / name).write_text("changed")
    assert setup.stamp(root, "cpu") != before


def test_the_stamp_changes_with_the_flavour(tmp_path):
    root = project(tmp_path)
    assert setup.stamp(root, "cpu") != setup.stamp(root, "gpu")


def test_a_cpu_wheel_for_this_python_is_found_in_the_folder_of_wheels(tmp_path):
    wheel = tmp_path / "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl"
    wheel.touch()
    (tmp_path / "torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl").touch()
    assert setup.cpu_torch_wheel(f"/nowhere {tmp_path}", "cp311", "x86_64") == wheel


@pytest.mark.parametrize(("tag", "machine"), [("cp312", "x86_64"), ("cp311", "aarch64")])
def test_a_wheel_for_another_python_or_machine_is_not_taken(tmp_path, tag, machine):
    (tmp_path / "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl").touch()
    assert setup.cpu_torch_wheel(str(tmp_path), tag, machine) is None


def test_without_a_folder_of_wheels_uv_takes_torch_for_cpus_from_where_it_knows():
    command = setup.install_command(Path(".venv/bin/python"), "cpu", None, Path("over.txt"))
    assert command[command.index("--torch-backend") + 1] == "cpu"
    assert "--overrides" not in command and ".[cpu]" in command


def test_a_local_wheel_is_used_with_its_companions_left_out(tmp_path):
    command = setup.install_command(Path(".venv/bin/python"), "cpu", tmp_path / "torch.whl", Path("over.txt"))
    assert command[command.index("--find-links") + 1] == str(tmp_path)
    assert command[command.index("--overrides") + 1] == "over.txt"
    assert "--torch-backend" not in command
    assert 'torchvision ; sys_platform == "never"' in setup.overrides().splitlines()


def test_the_gpu_flavour_takes_torch_as_the_index_has_it():
    command = setup.install_command(Path(".venv/bin/python"), "gpu", None, Path("over.txt"))
    assert ".[gpu]" in command and "--torch-backend" not in command and "--find-links" not in command
    assert command[-2:] == ["--group", "dev"]


def test_a_finished_environment_is_left_alone(tmp_path, monkeypatch):
    root = project(tmp_path)
    (root / ".venv" / "bin").mkdir(parents=True)
    (root / ".venv" / "bin" / "python").touch()
    (root / ".venv" / "moorage-stamp").write_text(setup.stamp(root, "cpu"))
    monkeypatch.setattr(setup, "install", lambda *_: pytest.fail("installed again"))
    assert setup.main(root, {"FLAVOUR": "cpu"}) == 0


def test_a_failed_installation_leaves_no_stamp_and_says_what_happened(tmp_path, monkeypatch, capsys):
    root = project(tmp_path)
    monkeypatch.setattr(setup, "ensure_venv", lambda venv: venv / "bin" / "python")
    monkeypatch.setattr(setup, "ensure_uv", lambda python: None)

    def fail(*_):
        raise setup.SetupError("the index is down")

    monkeypatch.setattr(setup, "install", fail)
    assert setup.main(root, {"FLAVOUR": "cpu"}) == 1
    assert not (root / ".venv" / "moorage-stamp").exists()
    assert "Set-up stopped: the index is down." in capsys.readouterr().err


def test_constraints_hold_names_and_versions_only_and_nothing_of_one_flavour():
    frozen = (
        "Ray==2.60.0\ntorch==2.13.0+cpu\nvllm-cpu==0.32.0\n-e file:///somewhere\nnvidia-cublas==13.0\nlocal @ file:///x\nrich==15.0.0\n"
    )
    assert lock.constraints(frozen) == lock.HEADER + "ray==2.60.0\nrich==15.0.0\n"


def test_the_constraints_in_the_tree_have_no_address_and_no_flavour():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines == lock.constraints("\n".join(lines)).splitlines()[1:]
    assert any(line.startswith("ray==2.60.") for line in lines)


@pytest.mark.parametrize(
    ("there", "asked"), [(None, []), ("", ["--force-reinstall"]), ("#!/bin/sh\n", None)], ids=["none", "cut off", "whole"]
)
def test_uv_is_installed_where_it_is_not_there_whole(tmp_path, monkeypatch, there, asked):
    if there is not None:
        (tmp_path / "uv").write_text(there)
        (tmp_path / "uv").chmod(0o755 if there else 0o644)
    (tmp_path / "python").symlink_to(sys.executable)
    commands = []
    monkeypatch.setattr(setup, "run", lambda command, message: commands.append(command))
    setup.ensure_uv(tmp_path / "python")
    assert [[word for word in command if word == "--force-reinstall"] for command in commands] == ([] if asked is None else [asked])
