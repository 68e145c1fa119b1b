import pytest
import torch

from wan_core.config import PRESETS, VAEConfig
from wan_core.dit import WanDiT
from wan_core.memory.estimate import decoding_bytes, sampling_bytes
from wan_core.pipeline.estimate import estimate_memory
from wan_core.shapes import VideoShape
from wan_core.text import UMT5

# Parameters of one expert, as the official checkpoints hold them.
EXPERTS = {
    "t2v-a14b": 14_288_491_584,
    "i2v-a14b": 14_288_901_184,
    "ti2v-5b": 4_999_787_712,
    "vace-a14b": 17_337_592_896,
    "wan21-t2v-14b": 14_288_491_584,
    "wan21-t2v-1.3b": 1_418_996_800,
    "wan21-vace-14b": 17_337_592_896,
    "wan21-vace-1.3b": 2_153_972_032,
    "bernini-r-a14b": 14_288_491_584,
    "bernini-r-1.3b": 1_418_996_800,
    "fun-control-a14b": 14_288_491_584 + 5120 * (36 * 4 + 16 * 4 + 1),  # wider patches, and the reference's
    "fun-control-5b": 4_999_787_712 + 3072 * (100 * 4 + 48 * 4 + 1),
    "fun-inp-5b": 4_999_787_712 + 3072 * 52 * 4,
    "wan21-i2v-14b-720p": 16_394_878_784,
    "wan21-i2v-14b-480p": 16_394_878_784,
    "wan21-flf2v-14b": 16_394_878_784 + 514 * 1280,
}
VAES = {"2.1": 126_892_531, "2.2": 704_688_668}


@pytest.mark.parametrize("name", PRESETS)
def test_weights_are_counted_exactly(name):
    preset = PRESETS[name]
    with torch.device("meta"):
        dit, text = (sum(p.numel() for p in m.parameters()) for m in (WanDiT(preset.dit), UMT5(preset.text)))
    memory = estimate_memory(preset, VideoShape(5, 64, 64), torch.bfloat16)
    assert dit == EXPERTS[name]
    assert (memory.expert, memory.text_encoder, memory.vae) == (2 * dit, 2 * text, 4 * VAES[preset.vae.version])


def test_clips_of_few_tokens_are_sampled_with_both_passes_in_one_batch():
    preset = PRESETS["t2v-a14b"]
    few, many = VideoShape(5, 256, 256), VideoShape(5, 272, 256)  # 512 and 544 tokens
    for shape, passes in ((few, 2), (many, 1)):
        tokens = passes * shape.tokens(preset.vae, preset.dit)
        expected = sampling_bytes(preset.dit, tokens, torch.bfloat16)
        assert estimate_memory(preset, shape, torch.bfloat16).sampling == expected


def test_the_peak_is_that_of_the_largest_part():
    preset = PRESETS["t2v-a14b"]
    memory = estimate_memory(preset, VideoShape(81, 720, 1280), torch.bfloat16)
    assert memory.decoding == decoding_bytes(VAEConfig(), 720, 1280)
    assert memory.peak == memory.expert + memory.sampling > memory.vae + memory.decoding > memory.text_encoder
