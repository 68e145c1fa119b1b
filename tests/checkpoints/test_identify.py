"""Experts are told apart by their names, by metadata, and else by what they predict."""

import logging
import shutil
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.layouts import write_comfyui_folder
from tests.support.sparse import write_sparse
from wan_core import WanPipeline
from wan_core.checkpoints import find_model, inspect, open_model
from wan_core.checkpoints.build import check_part
from wan_core.checkpoints.expected import expected_dit
from wan_core.checkpoints.identify import expert_from_name, high_noise_margin
from wan_core.checkpoints.model_files import check_pair
from wan_core.config import PRESETS
from wan_core.demo.release import demo_model
from wan_core.errors import CheckpointError
from wan_core.testing import tiny_preset

TITLE = {"modelspec.title": "Wan2.2 T2V high noise", "comment": "low"}


@pytest.mark.parametrize(
    "name, metadata, expert",
    [
        ("wan2.2_t2v_high_noise_14B_fp16.safetensors", {}, "high"),
        ("Wan2_2-T2V-A14B-LOW_bf16.safetensors", {}, "low"),
        ("low_noise/model.safetensors", TITLE, "low"),  # names come first
        ("model.safetensors", TITLE, "high"),
        ("high_and_low.safetensors", TITLE, "high"),
        ("slow_highway.safetensors", {}, None),
        ("model.safetensors", {"comment": "low"}, None),
    ],
)
def test_names_come_before_metadata(name, metadata, expert):
    assert expert_from_name(name, metadata) == expert


@pytest.mark.parametrize("task", ["t2v-a14b", "i2v-a14b"])
def test_trained_experts_are_told_apart(task, tmp_path):
    pipe = WanPipeline.from_pretrained(demo_model(task, tmp_path), torch_dtype=torch.float32)
    margin = high_noise_margin(pipe.high, pipe.low, pipe.vae)
    assert margin > 0.005
    assert high_noise_margin(pipe.low, pipe.high, pipe.vae) == pytest.approx(-margin, abs=1e-5)
    assert high_noise_margin(pipe.low, pipe.low, pipe.vae) == 0


def test_a_folder_without_names_is_put_in_order_with_a_warning(tmp_path, caplog):
    source, folder = demo_model("t2v-a14b"), tmp_path / "comfy"
    named = WanPipeline.from_pretrained(source, torch_dtype=torch.float32)
    sizes = dict(dit=named.high.config, vae=named.vae.config, text=named.text_encoder.config)
    write_comfyui_folder(folder, source, replace(tiny_preset("t2v-a14b"), **sizes))
    experts = folder / "diffusion_models"
    (experts / "wan2.2_high_noise_14B_fp16.safetensors").rename(experts / "b.safetensors")
    (experts / "wan2.2_low_noise_14B_fp16.safetensors").rename(experts / "a.safetensors")
    assert not find_model(folder).named
    with caplog.at_level(logging.WARNING):
        pipe = WanPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    assert torch.equal(pipe.high.head.head.weight, named.high.head.head.weight)
    assert "b.safetensors is the high-noise one" in caplog.text and "a guess" in caplog.text


@pytest.fixture
def titled(official_folder, tmp_path):
    """A ComfyUI folder whose experts have these titles in their headers."""

    def write(**titles):
        folder = write_comfyui_folder(tmp_path / "model", official_folder(), tiny_preset("t2v-a14b"))
        for word, title in titles.items():
            file = folder / "diffusion_models" / f"wan2.2_{word}_noise_14B_fp16.safetensors"
            save_file(load_file(file), file, {"modelspec.title": title})
        return folder

    return write


def test_a_title_that_contradicts_the_name_is_said(titled, caplog):
    folder = titled(high="Wan2.2 T2V low noise", low="Wan2.2 T2V low noise")
    with caplog.at_level(logging.WARNING):
        files = open_model(folder)
    assert "high_noise" in files.high.source and "low_noise" in files.low.source
    (said,) = [record.message for record in caplog.records]
    assert said.startswith("wan2.2_high_noise_14B_fp16.safetensors is taken for the high-noise expert")
    assert "its header says low noise ('Wan2.2 T2V low noise')" in said


def test_titles_that_agree_or_say_nothing_are_not_spoken_of(titled, caplog):
    with caplog.at_level(logging.WARNING):
        open_model(titled(high="Wan2.2 T2V high noise", low="Wan2.2 T2V, slow and highly detailed"))
    assert not caplog.records


@pytest.mark.parametrize("use", [open_model, inspect, WanPipeline.from_pretrained])
def test_one_expert_under_both_names(use, titled):
    folder = titled() / "diffusion_models"
    high, low = (folder / f"wan2.2_{word}_noise_14B_fp16.safetensors" for word in ("high", "low"))
    shutil.copy(high, low)
    with pytest.raises(CheckpointError, match=rf"{high.name} and {low.name} hold the same weights .*4,096 bytes"):
        use(folder.parent)


def test_an_expert_beside_itself_in_an_official_folder(official_folder, tmp_path):
    folder = shutil.copytree(official_folder(), tmp_path / "model")
    shutil.rmtree(folder / "low_noise_model")
    shutil.copytree(folder / "high_noise_model", folder / "low_noise_model")
    with pytest.raises(CheckpointError, match="high_noise_model and low_noise_model hold the same weights"):
        open_model(folder)


def test_experts_that_differ_in_one_number_are_two(titled):
    folder = titled() / "diffusion_models"
    high, low = (folder / f"wan2.2_{word}_noise_14B_fp16.safetensors" for word in ("high", "low"))
    state = load_file(high)
    state["blocks.1.norm3.bias"][3] += 1
    save_file(state, low)
    assert open_model(folder.parent).named


def test_a_pair_of_real_size_is_compared_in_a_moment(tmp_path):
    """Twice 28 GB, of holes: the slowest case, in which nothing differs."""
    shapes = {name: torch.empty(shape, device="meta") for name, shape in expected_dit(PRESETS["t2v-a14b"].dit).items()}
    parts = [check_part(write_sparse(tmp_path / f"{word}.safetensors", shapes), "dit") for word in ("high", "low")]
    start = time.perf_counter()
    with pytest.raises(CheckpointError, match="hold the same weights"):
        check_pair(*parts)
    assert time.perf_counter() - start < 5
