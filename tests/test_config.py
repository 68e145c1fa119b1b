"""Presets, and which of them a model of any width takes its defaults from."""

from dataclasses import fields, replace

import pytest

from wan_core.config import PRESETS, DiTConfig, VAEConfig, preset_for
from wan_core.errors import CheckpointError


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("dim", [None, 128])
def test_every_preset_is_recognised_from_its_sizes(name, dim):
    preset = PRESETS[name]
    dit = preset.dit if dim is None else replace(preset.dit, dim=dim, heads=1)
    found = preset_for(dit, preset.vae, preset.two_experts, preset.mark)
    assert (found.dit, found.vae) == (dit, preset.vae)
    larger = name.replace("1.3b", "14b")
    assert found.name == (larger if dim and larger in PRESETS else name), "only the width tells 1.3B from 14B"
    assert found.shift == preset.shift and found.boundary == preset.boundary


def test_one_expert_of_the_image_to_video_pair_has_no_boundary():
    preset = preset_for(PRESETS["i2v-a14b"].dit, VAEConfig(), two_experts=False)
    assert (preset.name, preset.boundary, preset.guidance_low) == ("i2v-a14b", None, None)


@pytest.mark.parametrize(
    "channels, two, message",
    [
        ((20, 16), False, "20 input and 16 output channels. Needed"),
        ((48, 48), True, "48 input and 48 output channels, twice"),
        ((99, 48), False, "99 input and 48 output"),
        ((48, 16), False, r"48 input and 16 output channels \(Fun-Control of Wan2.1\)\. .*Load Diffusion Model"),
    ],
)
def test_channels_that_no_model_has(channels, two, message):
    with pytest.raises(CheckpointError, match=message):
        preset_for(DiTConfig(in_channels=channels[0], out_channels=channels[1]), VAEConfig(), two)


def test_latent_statistics_have_a_number_for_each_channel():
    for config in (VAEConfig(), VAEConfig.wan22()):
        assert len(config.mean) == len(config.std) == config.z_channels
    assert "multipliers" not in {field.name for field in fields(VAEConfig)}
