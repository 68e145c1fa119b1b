"""The base that a file states, and files that are for something else."""

import pytest
import torch
from safetensors.torch import save_file

from tests.support import lora_files
from tests.support.lora_files import MODULES, written
from wan_core.checkpoints import load_dit
from wan_core.errors import CheckpointError
from wan_core.lora import read_lora


def halves(folder, rank=4, seed=0):
    return lora_files.halves(load_dit(folder).state_dict(), rank, seed)


@pytest.mark.parametrize("part, kind", [("lokr_w1", "LoKr"), ("hada_w1_a", "LoHa"), ("oft_blocks", "OFT")])
def test_files_that_are_no_lora_are_called_what_they_are(folder, part, kind):
    with pytest.raises(CheckpointError, match=f"is a {kind}.*own LoRA loader"):
        read_lora({f"diffusion_model.{m}.{part}": torch.zeros(4, 4) for m in MODULES}, load_dit(folder))
    state = written("lightx2v", halves(folder))[0]
    dora = {f"diffusion_model.{m}.dora_scale": torch.ones(4) for m in MODULES[:1]}
    report = read_lora(state | dora, load_dit(folder)).report  # without its scale that module would be changed wrongly
    assert report.applied == 9 and len(report.unknown) == 4


@pytest.mark.parametrize(
    "name, metadata, expert, doubt",
    [
        ("wan2.2_t2v_lightx2v_4steps_lora_v1.1_high_noise", {}, "high", ""),
        ("style", {}, "high", ""),
        ("ti2v", {}, "high", ""),
        (
            "wan2.2_i2v_lightx2v_4steps_lora_v1_low_noise",
            {},
            "low",
            "made for image-to-video, and this is a model for text-to-video",
        ),
        ("Wan21_T2V_14B_lightx2v_rank64", {}, "high", "made for Wan 2.1, and this is a model for Wan 2.2"),
        ("Wan21_T2V_14B_lightx2v_rank64", {}, None, ""),
        ("style", {"ss_base_model_version": "wan2.1"}, "low", "made for Wan 2.1"),
        ("style", {"modelspec.architecture": "wan2.1/lora"}, "low", ""),
        ("style", {"modelspec.architecture": "wan2.1-i2v-14b/lora"}, "low", "made for image-to-video"),
        ("t2v_and_i2v", {}, "high", ""),
    ],
)
def test_what_a_file_says_of_its_base_is_compared(folder, tmp_path, name, metadata, expert, doubt):
    save_file(written("lightx2v", halves(folder))[0], tmp_path / f"{name}.safetensors", metadata)
    base_warnings = read_lora(tmp_path / f"{name}.safetensors", load_dit(folder), expert).report.base_warnings
    assert len(base_warnings) == bool(doubt) and all(
        doubt in sentence and name in sentence for sentence in base_warnings
    )


def test_the_base_is_named_where_its_width_is_known(folder):
    state = {
        "blocks.0.self_attn.q.lora_A.weight": torch.zeros(2, 3072),
        "blocks.0.self_attn.q.lora_B.weight": torch.zeros(3072, 2),
    }
    with pytest.raises(
        CheckpointError,
        match=r"\(3072, 3072\) \(the 5B\).*\(5120, 5120\), as in this model \(a 14B model\).*another base",
    ):
        read_lora(state, {"blocks.0.self_attn.q.weight": (5120, 5120)})
