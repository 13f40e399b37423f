"""Which files of a source are chosen, and which sources are refused by their names alone."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.sources import SourceError, listing
from deployments.sources.listing import File, Rules


def files(*paths: str) -> list[File]:
    return [File(path, 10) for path in paths]


def chosen(*paths: str, **rules: object) -> set[str]:
    return {file.path for file in listing.choose(files(*paths), Rules(**rules))}  # type: ignore[arg-type]


def refused(*paths: str, **rules: object) -> str:
    with pytest.raises(SourceError) as caught:
        chosen(*paths, **rules)
    assert caught.value.permanent
    return caught.value.reason


def test_configuration_tokenizer_templates_and_safetensors_are_chosen() -> None:
    wanted = {"config.json", "tokenizer.model.v3", "merges.txt", "chat_template.jinja", "model.safetensors", "1_Pooling/config.json"}
    others = {"README.md", "model.gguf", "tf_model.h5", "flax_model.msgpack", ".gitattributes", "a.py", "onnx/model.onnx", "lib.so"}
    assert chosen(*wanted, *others) == wanted


def test_pickles_beside_safetensors_stay_where_they_are() -> None:
    paths = ("config.json", "model.safetensors", "pytorch_model.bin", "training_args.bin", "original/consolidated.00.pth")
    assert chosen(*paths) == {"config.json", "model.safetensors"}
    assert chosen(*paths, allow_pickle=True) == {"config.json", "model.safetensors"}


def test_pickles_alone_need_to_be_allowed() -> None:
    assert refused("config.json", "pytorch_model.bin") == "PickleRefused"
    assert chosen("config.json", "pytorch_model.bin", "optimizer.pt", allow_pickle=True) == {"config.json", "pytorch_model.bin"}


@pytest.mark.parametrize("format_", ["pt", "npcache"])
def test_load_format_that_reads_pickles_needs_them_allowed_though_there_are_safetensors(format_: str) -> None:
    assert refused("config.json", "model.safetensors", "a.pt", load_format=format_) == "PickleRefused"
    assert chosen("config.json", "model.safetensors", "a.pt", load_format=format_, allow_pickle=True) == {"config.json", "a.pt"}


def test_pickles_of_a_module_or_component_count_as_weights() -> None:
    assert refused("config.json", "model.safetensors", "2_Dense/pytorch_model.bin") == "PickleRefused"
    assert refused("model_index.json", "unet/a.safetensors", "vae/diffusion_pytorch_model.bin") == "PickleRefused"


def test_training_remains_are_not_weights() -> None:
    assert refused("config.json", "training_args.bin", "checkpoint-10/model.safetensors") == "NoWeights"


@pytest.mark.parametrize("paths", [("config.json",), ("model.safetensors",), ("config.json", "model.gguf"), ()])
def test_source_without_weights_or_configuration_is_no_model(paths: tuple[str, ...]) -> None:
    assert refused(*paths) == "NoWeights"


def test_dummy_weights_need_no_files() -> None:
    assert chosen("config.json", "pytorch_model.bin", "model.safetensors", load_format="dummy") == {"config.json"}


def test_python_files_come_only_when_trusted() -> None:
    paths = ("config.json", "model.safetensors", "modeling.py")
    assert "modeling.py" not in chosen(*paths)
    assert "modeling.py" in chosen(*paths, trust_remote_code=True)


@pytest.mark.parametrize("args", [("--load-format", "pt"), ("--load-format=pt",), ("--load_format", "auto", "--load_format", "pt")])
def test_load_format_given_as_a_flag_counts(args: tuple[str, ...]) -> None:
    assert Rules.of({"args": args}).load_format == "pt"


def test_only_true_allows() -> None:
    assert Rules.of({"settings": {"llm": {"allowPickle": "yes", "trustRemoteCode": 1}}}) == Rules()
    assert Rules.of({"settings": {"llm": {"allowPickle": True, "trustRemoteCode": True}}}) == Rules(True, True)
    assert Rules.of({}) == Rules()


@pytest.mark.parametrize(
    "name",
    ["", "/etc/passwd", "../a", "a/../b", "a/./b", "a//b", "a/", "a\0b", "a\nb", "a\\b", "x" * 300, "a/" * 600 + "b", listing.MANIFEST],
)
def test_unsafe_names_are_refused(name: str) -> None:
    assert refused("config.json", "model.safetensors", name) == "UnsafeName"


@given(st.text())
def test_a_name_is_refused_or_stays_below_its_folder(name: str) -> None:
    try:
        safe = listing.safe_path(name)
    except SourceError:
        return
    assert safe == name and not name.startswith("/") and "\0" not in name and ".." not in name.split("/")


def test_file_that_is_a_folder_too_is_refused() -> None:
    assert refused("config.json", "a", "a/model.safetensors") == "UnsafeName"


def test_too_many_files_are_no_model() -> None:
    assert refused("config.json", "model.safetensors", *(f"{i}.txt" for i in range(listing.MAX_FILES))) == "NoWeights"


def test_copies_of_different_choices_have_different_names() -> None:
    assert listing.variant("c" * 40, files("a")) != listing.variant("c" * 40, files("a", "b"))


def test_error_keeps_its_reason_between_processes() -> None:
    error = pickle.loads(pickle.dumps(SourceError("no", "SourceUnreachable", permanent=False)))
    assert (str(error), error.reason, error.permanent) == ("no", "SourceUnreachable", False)


def test_of_an_adapter_its_configuration_and_its_safetensors_are_chosen() -> None:
    wanted = {"adapter_config.json", "adapter_model.safetensors"}
    others = {"README.md", "tokenizer.json", "training_args.bin", "checkpoint-10/adapter_model.safetensors", "adapter_model.bin"}
    found = listing.choose(files(*wanted, *others), listing.AdapterRules())
    assert {file.path for file in found} == wanted


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        (("config.json", "model.safetensors"), "NotAnAdapter"),
        (("adapter_config.json",), "NoWeights"),
        (("adapter_config.json", "adapter_model.bin"), "PickleRefused"),
    ],
)
def test_a_source_that_is_no_adapter_is_refused(paths: tuple[str, ...], reason: str) -> None:
    with pytest.raises(SourceError) as caught:
        listing.choose(files(*paths), listing.AdapterRules(allow_pickle=True))
    assert caught.value.reason == reason
