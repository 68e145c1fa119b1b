"""Experts whose names say nothing are told apart by what they predict."""

import logging
from dataclasses import replace

import pytest
import torch

from tests.support.layouts import write_comfyui_folder
from wan_core import WanPipeline
from wan_core.checkpoints.identify import high_noise_margin
from wan_core.checkpoints.model_files import find_model
from wan_core.demo.release import demo_model
from wan_core.testing import tiny_preset


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
