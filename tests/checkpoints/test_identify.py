"""Experts are told apart by their names, by metadata, and else by what they predict."""

import logging
from dataclasses import replace

import pytest
import torch

from tests.support.layouts import write_comfyui_folder
from wan_core import WanPipeline
from wan_core.checkpoints import find_model
from wan_core.checkpoints.identify import expert_from_name, high_noise_margin
from wan_core.demo.release import demo_model
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
