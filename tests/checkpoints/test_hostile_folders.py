"""Indices and folders made to harm: each is refused for what is wrong with it, within the limits of `confined`."""

import json
import os

import pytest
import torch
from safetensors.torch import save_file

from wan_core.checkpoints import inspect
from wan_core.checkpoints.formats import open_weights
from wan_core.checkpoints.formats.limits import LARGEST_HEADER
from wan_core.errors import CheckpointError

INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path):
    """Two shards, with tensors a and b."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in "ab":
        save_file({name: torch.ones(2)}, folder / f"{name}.safetensors")
    return folder


def mapped(weight_map) -> str:
    return json.dumps({"weight_map": weight_map})


GOOD = {"a": "a.safetensors", "b": "b.safetensors"}
INDICES = {
    "outside": (mapped(GOOD | {"b": "../b.safetensors"}), "no weight_map of file names"),
    "an absolute path": (mapped(GOOD | {"b": "/etc/passwd"}), "no weight_map of file names"),
    "the folder itself": (mapped(GOOD | {"b": "."}), "no weight_map of file names"),
    "the folder above": (mapped(GOOD | {"b": ".."}), "lacks"),
    "the index itself": (mapped(GOOD | {"b": INDEX}), "not a known kind"),
    "a NUL": (mapped(GOOD | {"b": "b.safetensors\0"}), "lacks"),
    "a name too long for any disk": (mapped(GOOD | {"b": "b" * 300}), "lacks"),
    "half a character": ('{"weight_map": {"a": "\\ud800"}}', "lacks"),
    "a shard that is missing": (mapped(GOOD | {"c": "c.safetensors"}), "lacks c.safetensors"),
    "a tensor that is missing": (mapped(GOOD | {"c": "b.safetensors"}), "b.safetensors lacks c"),
    "a tensor in the other shard": (mapped(GOOD | {"a": "b.safetensors"}), "lacks a"),
    "one tensor twice": ('{"weight_map": {"a": "a.safetensors", "a": "b.safetensors"}}', "same name twice"),
    "numbers": (mapped({"a": 1}), "no weight_map of file names"),
    "nothing": (mapped({}), "every shard"),
    "a deep list": ('{"weight_map": ' + "[" * 100_000, "nested too deeply"),
    "more than the limit": (mapped({"a" * LARGEST_HEADER: "a.safetensors"}), "more than 6,000,000 bytes"),
    "many shards": (
        mapped({str(k): f"{k}.safetensors" for k in range(100_000)}),
        "lacks 0.safetensors, 1.safetensors, 10.safetensors, …",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", INDICES)
def test_indices(name, reader, folder):
    text, message = INDICES[name]
    (folder / INDEX).write_text(text)
    answer = reader.open(folder)
    assert message in answer and len(answer) < 1000


def test_one_tensor_in_two_shards(reader, folder):
    save_file({"a": torch.ones(2), "b": torch.ones(2)}, folder / "b.safetensors")
    (folder / INDEX).write_text(mapped(GOOD))
    assert "has a in a.safetensors and in b.safetensors" in reader.open(folder)


def test_shards_that_agree_with_their_index(folder):
    (folder / INDEX).write_text(mapped(GOOD))
    assert set(open_weights(folder)) == {"a", "b"}


def test_links_in_a_circle(reader, folder):
    (folder / "c.safetensors").symlink_to("d.safetensors")
    (folder / "d.safetensors").symlink_to("c.safetensors")
    (folder / INDEX).write_text(mapped(GOOD | {"c": "c.safetensors"}))
    assert "lacks c.safetensors" in reader.open(folder)
    assert "does not exist" in reader.open(folder / "c.safetensors")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_named_pipes_are_not_waited_for(reader, folder):
    os.mkfifo(folder / "pipe.safetensors")
    assert "does not exist" in reader.open(folder / "pipe.safetensors")
    os.mkfifo(folder / INDEX)
    assert "not readable JSON" in reader.open(folder)


@pytest.mark.parametrize("path", ["a" * 5000, "a/" * 3000 + "b", "model\ud800.safetensors"])
@pytest.mark.parametrize("use", [open_weights, inspect])
def test_paths_that_are_none(use, path):
    with pytest.raises(CheckpointError):
        use(path)
