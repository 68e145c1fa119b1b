"""Weights, whatever file they come from."""

import gguf
import pytest
import torch
from safetensors.torch import save_file

from tests.support.layouts import write_gguf
from wan_core.checkpoints import load_dit, load_text_encoder, load_vae
from wan_core.checkpoints.formats import Weights, from_state_dict, open_weights
from wan_core.errors import CheckpointError
from wan_core.lora import read_lora

STATE = {"a": torch.arange(64.0).view(2, 32), "b": torch.ones(3, dtype=torch.bfloat16)}


@pytest.fixture(params=["safetensors", "gguf", "pth", "memory"])
def weights(request, tmp_path) -> Weights:
    path = tmp_path / f"model.{request.param}"
    match request.param:
        case "safetensors":
            save_file(STATE, path)
        case "gguf":
            write_gguf(path, STATE, lambda name, t: "F32" if name == "a" else "BF16")
        case "pth":
            torch.save(STATE, path)
        case "memory":
            return from_state_dict(STATE)
    return open_weights(path)


def test_every_format_gives_the_same_tensors(weights, request):
    assert weights.format == request.node.callspec.params["weights"]
    assert {name: (info.dtype, info.shape) for name, info in weights.info.items()} == {
        name: (t.dtype, tuple(t.shape)) for name, t in STATE.items()
    }
    for name, tensor in STATE.items():
        assert torch.equal(weights.tensor(name), tensor)
        assert torch.equal(weights.tensor(name, transient=True), tensor)


def test_renaming_keeps_format_and_tensors(weights):
    renamed = weights.renamed({"x": "a"})
    assert list(renamed) == ["x"] and renamed.format == weights.format
    assert torch.equal(renamed.tensor("x"), STATE["a"])
    assert renamed.tensor("x").data_ptr() == weights.tensor("a").data_ptr(), "one mapping"


def test_a_change_in_place_never_reaches_the_file(weights):
    if weights.format == "memory":
        pytest.skip("no file")
    weights.tensor("a").zero_()
    assert torch.equal(open_weights(weights.source).tensor("a"), STATE["a"])


@pytest.mark.parametrize("transient", [True, False])
def test_a_file_that_is_cut_after_it_was_opened(tmp_path, transient):
    save_file(STATE, tmp_path / "model.safetensors")
    weights = open_weights(tmp_path / "model.safetensors")
    data = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(data[:-200])
    with pytest.raises(CheckpointError, match="as it was a moment ago"):
        weights.tensor("a", transient=transient)


def test_arrays_of_the_header(tmp_path):
    def more(writer: gguf.GGUFWriter):
        writer.add_array("words", ["one", "two"])
        writer.add_array("numbers", [1.5, 2.5])

    write_gguf(tmp_path / "model.gguf", STATE, lambda name, t: "F32", more=more)
    weights = open_weights(tmp_path / "model.gguf")
    assert weights.metadata_array("words", str) == ["one", "two"]
    assert weights.metadata_array("numbers", float) == [1.5, 2.5]
    assert weights.metadata_array("absent", str) == from_state_dict(STATE).metadata_array("words", str) == []
    with pytest.raises(CheckpointError, match="'one'.*under words.*a list of float"):
        weights.metadata_array("words", float)


@pytest.mark.parametrize(
    "key", [1, None, b"head.modulation", ("a",), 10**5000, object()], ids=lambda key: type(key).__name__
)
@pytest.mark.parametrize("load", [load_dit, load_vae, load_text_encoder, from_state_dict])
def test_names_are_text(load, key):
    with pytest.raises(CheckpointError, match="names that are text"):
        load({"head.modulation": torch.ones(1), key: torch.ones(1)})


@pytest.mark.parametrize("value", [None, 1, "x" * 10_000, [torch.ones(1)], torch.ones(2).to_sparse()], ids=ascii)
def test_values_are_tensors(value):
    with pytest.raises(CheckpointError, match="plain tensors alone") as caught:
        from_state_dict({"a" * 10_000: value})
    assert len(str(caught.value)) < 400


def test_a_lora_has_names(tmp_path):
    with pytest.raises(CheckpointError, match="names that are text"):
        read_lora({1: torch.ones(1)}, {"a.weight": (1,)})


@pytest.mark.parametrize(
    "state", [{1: torch.ones(1)}, {"a": 1, 2: "b"}, {"a": [torch.ones(1)]}, [torch.ones(1)]], ids=str
)
def test_a_pickle_without_names(state, tmp_path):
    torch.save(state, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="holds no named tensors"):
        open_weights(tmp_path / "model.pth")
