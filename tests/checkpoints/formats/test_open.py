import json
import os
import pickle
import re
import shutil
import struct
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.support.goldens import golden
from tests.support.layouts import write_gguf
from tests.support.sparse import write_sparse
from wan_core.checkpoints import inspect, load_dit, load_text_encoder, load_vae, open_tokenizer
from wan_core.checkpoints.formats import open_weights
from wan_core.config import PRESETS
from wan_core.dit import WanDiT
from wan_core.errors import CheckpointError, CheckpointNotFound


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}, path, {"note": "hello"})
    return path


def test_header_alone_tells_names_shapes_and_dtypes(file):
    weights = open_weights(file)
    assert {name: (t.dtype, t.shape) for name, t in weights.info.items()} == {
        "a": (torch.float32, (2, 3)),
        "b": (torch.bfloat16, (4,)),
    }
    assert weights.metadata == {"note": "hello"} and weights.format == "safetensors"


@pytest.mark.parametrize("suffix", ["safetensors", "gguf", "pth"])
def test_a_file_is_opened_once(tmp_path, monkeypatch, suffix):
    path, state = tmp_path / f"model.{suffix}", {"a": torch.ones(2, 3)}
    if suffix == "gguf":
        write_gguf(path, state, lambda name, t: "F32", more=lambda w: w.add_array("comfy.gguf.orig_shape.a", [3, 2]))
    else:
        (save_file if suffix == "safetensors" else torch.save)(state, path)
    opened, open_path = [], Path.open

    def counted(self, *args, **kwargs):
        opened.append(self)
        return open_path(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", counted)
    weights = open_weights(path)
    assert opened == [path] and weights.format == suffix
    assert weights.info["a"].shape == ((3, 2) if suffix == "gguf" else (2, 3))


def test_tensors(file):
    weights = open_weights(file)
    assert torch.equal(weights.tensor("a"), torch.arange(6.0).view(2, 3))
    assert torch.equal(weights.tensor("b", transient=True), torch.ones(4, dtype=torch.bfloat16))
    assert weights.size == file.stat().st_size


def test_a_file_cut_at_every_byte_is_recognised(file):
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"damaged|empty"):
            open_weights(file)
    file.write_bytes(whole + b"x")
    with pytest.raises(CheckpointError, match=rf"\({len(whole) + 1} bytes\) is damaged or incomplete"):
        open_weights(file)


def test_thirty_gigabytes_are_inspected_in_a_moment(tmp_path):
    """The VACE expert at its real size, in a file of holes."""
    with torch.device("meta"):
        state = WanDiT(PRESETS["vace-a14b"].dit).state_dict()
    path = write_sparse(tmp_path / "model.safetensors", state)
    seconds = []
    for _ in range(3):  # one of them undisturbed by whatever else the machine does
        start = time.perf_counter()
        info = inspect(path)
        seconds.append(time.perf_counter() - start)
    assert info.size > 30e9 and info.config == PRESETS["vace-a14b"].dit and min(seconds) < 1


def crafted(path, header, payload=b""):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + payload)
    return path


@pytest.mark.parametrize(
    "header, payload",
    [
        ({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 8]}}, b"x" * 8),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}, b""),
        ({"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}, b"x" * 8),
        ({"a": {"dtype": "F33", "shape": [2], "data_offsets": [0, 8]}}, b"x" * 8),
        ({"a": {"dtype": "F32", "shape": [2]}}, b"x" * 8),
        ({"a": {"dtype": "F32", "shape": "ab", "data_offsets": [0, 8]}}, b"x" * 8),
        (
            {
                "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                "b": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
            },
            b"x" * 8,
        ),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"x" * 8),
        (b"[1, 2]", b""),
        (b"{", b""),
        (b"\xff\xfe", b""),
        (b"[" * 100_000, b""),
        (b'{"__metadata__": 3}', b""),
    ],
)
def test_headers_that_contradict_their_file(tmp_path, header, payload):
    with pytest.raises(CheckpointError, match="damaged"):
        open_weights(crafted(tmp_path / "model.safetensors", header, payload))


def test_a_huge_header_is_not_read(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    with pytest.raises(CheckpointError, match="a header of 4,611,686,018,427,387,904 bytes"):
        open_weights(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize(
    "content, message",
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer.*git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "web page"),
        (b"", "is empty"),
    ],
)
def test_failed_downloads_are_recognised(tmp_path, suffix, content, message):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        open_weights(path)


class Gadget:
    def __reduce__(self):
        return os.mkdir, ("pwned",)


def test_a_pickle_runs_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Gadget()}, tmp_path / "zip.pth")
    (tmp_path / "old.pth").write_bytes(pickle.dumps({"a": Gadget()}))
    for name in ("zip.pth", "old.pth"):
        with pytest.raises(CheckpointError, match="plain weights"):
            open_weights(tmp_path / name)
    assert not (tmp_path / "pwned").exists()


def test_a_truncated_pickle(tmp_path):
    torch.save({"a": torch.ones(1000)}, tmp_path / "model.pth")
    data = (tmp_path / "model.pth").read_bytes()
    (tmp_path / "model.pth").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=r"model.pth.*Download it again"):
        open_weights(tmp_path / "model.pth")


def test_pickles_of_both_ages(tmp_path):
    torch.save({"a": torch.arange(4.0)}, tmp_path / "new.pth")
    torch.save({"a": torch.arange(4.0)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("new.pth", "old.pth"):
        assert torch.equal(open_weights(tmp_path / name).tensor("a"), torch.arange(4.0))


def test_missing_files(tmp_path):
    with pytest.raises(CheckpointNotFound, match="does not exist"):
        open_weights(tmp_path / "nothing.safetensors")
    with pytest.raises(CheckpointNotFound, match="no weight file"):
        open_weights(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(CheckpointError, match="not a known kind"):
        open_weights(tmp_path / "notes.txt")


def test_shards_need_their_index_and_all_files(official_folder, tmp_path):
    folder = shutil.copytree(official_folder() / "high_noise_model", tmp_path / "model")
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text("{")
    with pytest.raises(CheckpointError, match="not readable JSON"):
        load_dit(folder)
    index.unlink()
    with pytest.raises(CheckpointNotFound, match=r"index.json"):
        load_dit(folder)


def test_incomplete_and_foreign_state_dicts():
    g = golden("dit_t2v")
    state = g.weights()
    del state["blocks.1.ffn.0.weight"]
    with pytest.raises(CheckpointError, match=r"lacks 1 of \d+ tensors \(blocks.1.ffn.0.weight\)"):
        load_dit(state, g.config["model"])
    state = g.weights() | {"blocks.0.extra": torch.ones(1)}
    with pytest.raises(CheckpointError, match=r"does not know.*blocks.0.extra"):
        load_dit(state, g.config["model"])
    with pytest.raises(CheckpointError, match="another shape"):
        load_dit(g.weights(), g.config["model"] | {"ffn_dim": 100})
    with pytest.raises(CheckpointError, match=r"holds a VAE.*Needed: a diffusion transformer"):
        load_dit(golden("vae21").weights())
    with pytest.raises(CheckpointError, match="no Wan model part"):
        load_vae({"x": torch.ones(1)})


@pytest.mark.parametrize(
    "kept", [("num_heads",), ("num_heads", "text_len"), ("dim", "num_heads", "num_layers", "in_dim")]
)
def test_what_a_config_does_not_state_is_inferred(kept):
    g = golden("dit_t2v")
    model = load_dit(g.weights(), {key: g.config["model"][key] for key in kept})
    full = load_dit(g.weights(), g.config["model"])
    assert model.config == replace(full.config, text_len=full.config.text_len if "text_len" in kept else 512)
    t5 = golden("t5")
    assert load_text_encoder(t5.weights(), {"num_heads": 4}).config == load_text_encoder(t5.weights()).config
    with pytest.raises(CheckpointError, match=r"kind wan2.1.*says 'wan2.2'"):
        load_vae(golden("vae21").weights(), {"kind": "wan2.2"})
    for config in ({"kind": "wan2.2"}, golden("vae22").config["vae"], {}):
        assert load_vae(golden("vae22").weights(), config).config.version == "2.2"


@pytest.mark.slow
@pytest.mark.parametrize(
    "load, name", [(load_dit, "dit_t2v"), (load_vae, "vae21"), (load_vae, "vae22"), (load_text_encoder, "t5")]
)
def test_any_missing_tensor_is_named(load, name):
    g = golden(name)
    config = {"num_heads": g.config["model"]["num_heads"]} if load is load_dit else None
    for missing in g.weights():
        state = {key: t for key, t in g.weights().items() if key != missing}
        with pytest.raises(CheckpointError, match=re.escape(missing)):
            load(state, config)


@pytest.mark.parametrize(
    "change",
    [
        {"num_heads": 0},
        {"num_heads": "2"},
        {"num_heads": -2},
        {"num_heads": 3},
        {"dim": 64.0},
        {"dim": "64"},
        {"dim": 128},
        {"num_layers": 10**9},
        {"text_len": 0},
        {"eps": "x"},
        {"eps": -1.0},
        {"patch_size": 2},
        {"patch_size": [1, 4, 4]},
        {"vace_layers": [99]},
    ],
)
def test_configs_that_make_no_sense(change):
    g = golden("dit_t2v")
    with pytest.raises(CheckpointError):
        load_dit(g.weights(), g.config["model"] | change)


@pytest.mark.parametrize(
    "config",
    [5, "x", {"d_kv": 16}, {"d_model": 48, "num_heads": 4, "d_kv": None}, {"num_heads": "4"}, {"num_heads": 5}],
)
def test_text_configs_that_make_no_sense_or_say_little(config):
    weights = golden("t5").weights()
    if isinstance(config, dict) and config.get("num_heads", 4) == 4:
        assert load_text_encoder(weights, config).config.heads == 4
    else:
        with pytest.raises(CheckpointError):
            load_text_encoder(weights, config)


@pytest.mark.parametrize("source", [None, 7, {"a": "text"}])
def test_what_is_no_source(source):
    with pytest.raises(CheckpointError):
        load_dit(source)


def test_an_expanded_tensor_is_refused(tmp_path):
    torch.save({"a": torch.ones(1).expand(2**30)}, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="more than it holds"):
        open_weights(tmp_path / "model.pth")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[1]",
        '{"weight_map": [1]}',
        '{"weight_map": {"a": 1}}',
        "[" * 100_000,
        '{"weight_map": {"a": "../secret.safetensors"}}',
        '{"weight_map": {}}',
    ],
)
def test_damaged_indices(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError):
        open_weights(tmp_path)


def test_heads_must_be_given_where_128_does_not_divide_the_width():
    with pytest.raises(CheckpointError, match=r"width 64.*config="):
        load_dit(golden("dit_t2v").weights())


def test_plain_fp8_weights_compute_in_bfloat16():
    g = golden("dit_t2v")
    state = {k: t.to(torch.float8_e4m3fn) if t.ndim == 2 and "blocks" in k else t for k, t in g.weights().items()}
    model = load_dit(state, g.config["model"])
    assert model.blocks[0].ffn[0].weight.dtype == model.compute_dtype == torch.bfloat16
    assert model.head.head.weight.dtype == torch.float32


def test_dtypes():
    g = golden("dit_t2v")
    model = load_dit(g.weights(), g.config["model"], dtype=torch.bfloat16)
    assert model.blocks[0].self_attn.q.weight.dtype == torch.bfloat16
    for kept in (model.time_embedding[0], model.head.head, model.blocks[0].norm3):
        assert kept.weight.dtype == torch.float32, "float32 arithmetic keeps its precision"
    half = load_vae({k: t.bfloat16() for k, t in golden("vae21").weights().items()})
    assert half.dtype == torch.float32, "the VAE runs in float32 unless asked otherwise"
    text = load_text_encoder({k: t.bfloat16() for k, t in golden("t5").weights().items()})
    assert text.encoder.final_layer_norm.weight.dtype == torch.bfloat16


def test_loaded_models_are_for_inference():
    model = load_vae(golden("vae21").weights())
    assert not model.training and not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    "name, content, ending",
    [
        ("a.safetensors", b"GGUF" + bytes(40), ".gguf"),
        ("a.safetensors", b"PK\3\4" + bytes(40), ".pth"),
        ("a.pth", b"\x02" + bytes(7) + b"{}", ".safetensors"),
        ("a.gguf", b"\x02" + bytes(7) + b"{}", ".safetensors"),
    ],
)
def test_a_file_under_another_name(tmp_path, name, content, ending):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"is a {ending} file under another name.*Rename"):
        open_weights(tmp_path / name)


def test_endings_in_capitals(tmp_path):
    for name in ("A.SAFETENSORS", "b.sft"):
        save_file({"x": torch.ones(2)}, tmp_path / name)
        assert list(open_weights(tmp_path / name)) == ["x"]


@pytest.mark.skipif(sys.platform != "linux", reason="files of Linux's kernel")
@pytest.mark.parametrize("suffix", ["safetensors", "gguf", "pth"])
@pytest.mark.parametrize("target", ["/proc/self/auxv", "/proc/self/mem", "/sys/kernel/notes", "/dev/zero", "/dev/null"])
@pytest.mark.parametrize("use", [open_weights, inspect, load_dit, open_tokenizer])
def test_a_file_that_cannot_be_mapped(tmp_path, use, target, suffix):
    """These report no size, refuse to be mapped or to be read, or have no end."""
    if not Path(target).exists():
        pytest.skip(f"no {target} here")
    path = tmp_path / f"model.{suffix}"
    path.symlink_to(target)
    with pytest.raises(CheckpointError) as caught:
        use(path)
    assert "None" not in str(caught.value)
