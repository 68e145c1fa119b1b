"""LoRAs in ComfyUI: numbers of the pair node, what it says, and what it refuses."""

import re

import pytest
import torch
from safetensors.torch import save_file

from tests.support.graphs import node, t2v
from tests.support.layouts import state_of
from tests.support.lora_files import LAYOUTS, halves, written

OTHERS = (
    "whole tensors",
    "a file for each",
    "two of them",
    "both experts in a file",
    "one expert of a diffusers pair",
    "of the trainer",
)


@pytest.mark.parametrize("loader", ["ours", "native"])
@pytest.mark.parametrize("what", [*LAYOUTS, *OTHERS])
def test_the_pair_node_equals_weights_merged_by_hand(measured, what, loader):
    to_merged, to_plain, afterwards = measured["lora_pairs"][what][loader]
    assert to_merged < 1e-5 and to_plain > 1e-2 and afterwards == 0


def test_it_counts_for_each_expert(measured):
    found = measured["lora_pairs"]
    for layout in LAYOUTS:
        assert [re.sub(r"\d+", "n", line) for line in found[layout]["lines"]] == [
            f"lora.safetensors: n of n tensors applied to the {expert}-noise expert" for expert in ("high", "low")
        ]
    assert len(found["two of them"]["lines"]) == 4 and len(found["a file for each"]["lines"]) == 2
    assert found["one expert of a diffusers pair"]["lines"] == [
        "lora.safetensors: 8 of 8 tensors applied to the low-noise expert"
    ]


@pytest.mark.parametrize("loader", ["ours", "native"])
def test_what_no_row_is_for_is_left_alone(measured, loader):
    found = dict(measured["what_the_node_leaves_alone"][loader])
    assert found.pop("line") == ["x_high.safetensors: 12 of 12 tensors applied to the high-noise expert"]
    assert found == dict.fromkeys(
        ("low as it was", "high patched", "off", "no row", "patched as by ComfyUI", "single"), True
    )


@pytest.mark.parametrize("loader", ["ours", "native"])
def test_modulations_add_up_and_come_out_after_every_run(measured, loader):
    twice, change, afterwards, after_a_failure = measured["modulations_beside_other_runs"][loader]
    assert twice < 3e-5 and change > 1 and afterwards == after_a_failure == 0


def test_clones_of_our_models_apply_modulations_of_any_loader(measured):
    found = measured["modulations_by_the_native_loader"]
    assert found["to the node"] == found["afterwards"] == 0 < found["to no LoRA"]
    assert found["callbacks"] == 3 * [{"on_pre_run": 1, "on_cleanup": 1}]  # one pair, however often it is cloned


@pytest.mark.parametrize("loader", ["ours", "native"])
def test_they_apply_where_only_a_part_of_the_model_is_on_the_device(measured, loader):
    to_complete, patched_on_the_way = measured["partly_on_the_device"][loader]
    assert to_complete < 1e-5 and patched_on_the_way > 3


@pytest.fixture(scope="module")
def loras(server, official_folder):
    """Files in models/loras, by name; and the weights that they fit."""
    folder, state = server.base / "models" / "loras", state_of(official_folder("t2v-a14b") / "high_noise_model", "dit")
    lora = written("lightx2v", halves(state))[0]
    embedding = {
        "diffusion_model.patch_embedding.diff": torch.zeros(state["patch_embedding.weight"].shape[0], 36, 1, 2, 2)
    }
    k_img = {
        f"diffusion_model.blocks.0.cross_attn.k_img.lora_{half}.weight": torch.zeros(4, 128) for half in ("up", "down")
    }
    odd = {"diffusion_model.blocks.99.self_attn.q.lora_up.weight": torch.zeros(4, 4), "text_model.x": torch.zeros(2)}
    wide = {key: t.new_zeros(t.shape[0], 3072) if "lora_down" in key else t for key, t in lora.items()}
    for name, content, metadata in (
        ("style", lora, None),
        ("style_high_noise", lora, None),
        ("wan21_i2v", lora | embedding | k_img | odd, None),
        ("told", lora, {"ss_base_model_version": "wan2.1_14b"}),
        ("of_the_5b", wide, None),
        ("of_sdxl", {f"lora_te1_{key}": t for key, t in lora.items()}, None),
        ("lokr", {"diffusion_model.blocks.0.ffn.0.lokr_w1": torch.zeros(2, 2)}, None),
    ):
        save_file(content, folder / f"{name}.safetensors", metadata)
    (folder / "page.safetensors").write_bytes(b"<!DOCTYPE html><html></html>")
    (folder / "pointer.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    whole = (folder / "style.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    return folder


def with_loras(**rows):
    graph = t2v("lora", steps=2)
    graph["loras"] = node("Wan22LoraPair", high_noise=["experts", 0], low_noise=["experts", 1], **rows)
    graph["sample"]["inputs"] |= {"high_noise": ["loras", 0], "low_noise": ["loras", 1]}
    return graph


def said(server, **rows):
    return server.run(with_loras(**rows))["outputs"]["loras"]["text"][0].splitlines()


def test_rows_left_out_are_not_used_and_strengths_default_to_one(server, loras):
    assert said(server, lora_1="none", lora_3="style.safetensors", strength_high_3=0.5) == [
        "style.safetensors: 12 of 12 tensors applied to the high-noise expert",
        "style.safetensors: 12 of 12 tensors applied to the low-noise expert",
    ]
    assert "Wan 2.2: style.safetensors: 12 of 12 tensors applied to the low-noise expert" in server.log
    assert server.run(with_loras())["outputs"]["loras"]["text"] == [""]


def test_a_file_for_the_other_expert_is_named(server, loras):
    files = dict(lora_1="style_high_noise.safetensors")
    assert said(server, **files, strength_low_1=0.0) == [
        "style_high_noise.safetensors: 12 of 12 tensors applied to the high-noise expert"
    ]
    for high in (1.0, 0.0):
        warning = said(server, **files, strength_high_1=high)[0]
        assert warning.startswith(
            "Warning: style_high_noise.safetensors says that it is for the high-noise expert: set strength_low to 0"
        )


def test_what_is_for_another_base_is_counted_and_doubted(server, loras):
    lines = said(server, lora_1="wan21_i2v.safetensors", strength_low_1=0.0)
    assert re.fullmatch(
        r"wan21_i2v.safetensors: 12 of 17 tensors applied to the high-noise expert, 2 unknown: \S+, \S+, "
        r"1 for other input channels skipped: diffusion_model.patch_embedding.diff, "
        r"2 of the Wan2.1 image branch skipped",
        lines[0],
    ), lines
    assert (
        len(lines) == 3
        and "for image-to-video, and this is a model for text-to-video" in lines[1]
        and "for Wan 2.1" in lines[2]
    )
    assert "made for Wan 2.1" in said(server, lora_1="told.safetensors")[2]


@pytest.mark.parametrize(
    "name, message",
    [
        (
            "of_the_5b",
            r"of_the_5b.safetensors changes blocks\S+ as one of size \(\d+, 3072\) \(the 5B\)"
            r".*this model.*use the one for this model",
        ),
        ("of_sdxl", "none of the 12 tensors of of_sdxl.safetensors applies, such as lora_te1_"),
        ("lokr", "lokr.safetensors is a LoKr.*own LoRA loader"),
        ("page", "a web page"),
        ("pointer", "a Git LFS pointer"),
        ("cut", "is damaged"),
    ],
)
def test_files_that_are_refused(server, loras, name, message):
    assert re.search(message, server.error(with_loras(lora_2=f"{name}.safetensors")), re.S)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(lora_4="gone.safetensors"), "gone.safetensors is not in the folder models/loras"),
        (dict(lora_1="../../x.safetensors"), "not in the folder"),
        (dict(lora_1=7), "7 is not in the folder"),
        (dict(lora_1="style.safetensors", strength_low_1=101.0), "value_bigger_than_max"),
    ],
)
def test_rows_that_are_refused_before_anything_runs(server, loras, change, message):
    status, answer = server.post("/prompt", {"prompt": with_loras(**change)})
    assert status == 400 and message in str(answer)


def test_a_strength_that_is_no_number(server, loras):
    assert "strength_high is nan" in server.error(with_loras(lora_1="style.safetensors", strength_high_1="nan"))


def test_an_empty_slot(server, loras):
    graph = with_loras(lora_1="style.safetensors")
    graph["experts"]["inputs"] = {"high_noise": "wan2.2_ti2v_5B_fp16.safetensors", "low_noise": "none"}
    graph["loras"]["inputs"]["high_noise"] = ["experts", 1]
    del graph["loras"]["inputs"]["low_noise"], graph["sample"]["inputs"]["low_noise"]
    assert "high_noise is empty" in server.error(graph)


def test_a_single_model_takes_one_strength(server, loras):
    graph = with_loras(lora_1="style.safetensors", strength_high_1=0.5)
    del graph["loras"]["inputs"]["low_noise"], graph["sample"]["inputs"]["low_noise"]
    entry = server.run(graph)
    assert entry["outputs"]["loras"]["text"] == ["style.safetensors: 12 of 12 tensors applied"]
