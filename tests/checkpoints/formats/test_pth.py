"""What torch saves is read as torch reads it, in the format of today and in the one before torch 1.6."""

import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from wan_core.checkpoints.formats import open_weights

WEIGHT = torch.arange(24.0).view(4, 6)
STATES = {
    "a state dict": nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).state_dict(),
    "parameters": {"a": nn.Parameter(WEIGHT), "b": nn.Parameter(WEIGHT.half(), requires_grad=False)},
    "dtypes": {
        str(dtype): torch.ones(2, 3).to(dtype)
        for dtype in (
            torch.float64,
            torch.float32,
            torch.float16,
            torch.bfloat16,
            torch.int64,
            torch.int32,
            torch.int16,
            torch.int8,
            torch.uint8,
            torch.bool,
        )
    },
    "eight bits": {str(dtype): torch.ones(2, 3).to(dtype) for dtype in (torch.float8_e4m3fn, torch.float8_e5m2)},
    "views": {
        "transposed": WEIGHT.t(),
        "rows": WEIGHT[1:3],
        "columns": WEIGHT[:, 2:5],
        "every other": WEIGHT[::2, ::3],
        "flat": WEIGHT.flatten(),
    },
    "tied": {"a": WEIGHT, "b": WEIGHT, "c": WEIGHT},
    "odd shapes": {
        "one number": torch.tensor(3.0),
        "nothing": torch.zeros(0, 5),
        "ones": torch.ones(1, 1, 3, 1),
        "broadcast": torch.ones(1, 1).expand(1, 1),
    },
    "channels last": {"a": torch.ones(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)},
    "company": {
        "a": WEIGHT,
        "epoch": 3,
        "loss": 0.5,
        "name": "Wan",
        "done": True,
        "none": None,
        "list": [1, [2]],
        "more": {"b": WEIGHT, 7: (1, 2)},
    },
}


# The old format is from before numbers of eight bits: torch writes them and cannot read them.
@pytest.mark.parametrize(
    "name, new", [(name, new) for name in STATES for new in (True, False) if new or name != "eight bits"]
)
def test_it_is_read_as_torch_reads_it(name, new, tmp_path):
    path = tmp_path / "model.pth"
    torch.save(STATES[name], path, _use_new_zipfile_serialization=new)
    expected = {key: t for key, t in torch.load(path, weights_only=True).items() if isinstance(t, torch.Tensor)}
    weights = open_weights(path)
    assert list(weights) == list(expected)
    for key, tensor in expected.items():
        assert (weights.info[key].dtype, weights.info[key].shape) == (tensor.dtype, tensor.shape)
        for found in (weights.tensor(key), weights.tensor(key, transient=True), weights.tensor(key, transient=True)):
            assert found.dtype == tensor.dtype and torch.equal(found.float(), tensor.detach().float())


@pytest.mark.parametrize("new", [True, False])
def test_torch_never_reads_the_file(new, tmp_path, monkeypatch):
    """So nothing in it can run, in any version of torch."""
    path = tmp_path / "model.pth"
    torch.save({"a": WEIGHT.t()}, path, _use_new_zipfile_serialization=new)
    monkeypatch.setattr(torch, "load", None)
    monkeypatch.setattr(pickle, "Unpickler", None)
    weights = open_weights(path)
    assert weights.format == "pth" and weights.info["a"].shape == (6, 4)
    assert torch.equal(weights.tensor("a"), WEIGHT.t())


def test_tied_tensors_share_their_memory(tmp_path):
    torch.save({"a": WEIGHT, "b": WEIGHT}, tmp_path / "model.pth")
    weights = open_weights(tmp_path / "model.pth")
    assert weights.tensor("a").data_ptr() == weights.tensor("b").data_ptr()


def test_a_pickle_and_a_safetensors_file_hold_the_same(tmp_path):
    state = {"a": WEIGHT, "b": WEIGHT.bfloat16()}
    torch.save(state, tmp_path / "model.pth")
    save_file(state, tmp_path / "model.safetensors")
    ours, theirs = (open_weights(tmp_path / f"model.{suffix}") for suffix in ("pth", "safetensors"))
    assert all(torch.equal(ours.tensor(name, transient=True), theirs.tensor(name, transient=True)) for name in state)
