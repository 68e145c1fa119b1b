"""The table of families in the docs, every row of it in the real ComfyUI."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
TESTED_ALONE = {"Animate", "FlowRVS", "Causal Forcing"}  # no pair of them is run


def rows(page: Path) -> dict[str, tuple]:
    """Family → (files, nodes, whether Load Wan 2.2 Experts takes it, experts)."""
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.read_text("utf-8").splitlines()]
    table = [row for row in cells if len(row) == 5 and row[3] in ("✓", "–")]
    return {
        name: (re.findall(r"`(.+?)`", files), re.findall(r"`(.+?)`", nodes), ours == "✓", int(experts))
        for name, files, nodes, ours, experts in table
    }


TABLE = rows(DOCS / "families.md")


def test_both_languages_have_the_same_table():
    assert rows(DOCS / "zh" / "families.md") == TABLE and len(TABLE) >= 29


def test_the_table_is_complete(measured_families, server):
    """No Wan class of ComfyUI, and no node that makes a condition for one, is left out."""
    found = measured_families["families"]
    assert {row["native"] for row in found.values()} == set(measured_families["native_classes"])
    native = {
        kind
        for kind, schema in server.get("/object_info").items()
        if re.match(r"model/(conditioning|latent)/(wan|bernini|autoregressive)", schema["category"])
        and {"CONDITIONING", "LATENT"} & set(schema["output"])
    }
    named = {node for _, nodes, _, _ in TABLE.values() for node in nodes}
    assert len(native) > 18 and named >= native


@pytest.mark.parametrize("name", TABLE)
def test_a_family_runs_in_our_sampler_as_in_the_native_one(measured_families, name):
    """Bit for bit: one MODEL, the same MODEL in both slots, two MODELs handed over by native samplers."""
    _, nodes, _, experts = TABLE[name]
    row = measured_families["families"][name]
    assert "failed" not in row, row["failed"]
    assert row["nodes"] == sorted(nodes)
    for run in row["runs"]:
        kinds = {"single"} if name in TESTED_ALONE else {"single", "twice", "pair"}
        assert {kind: run.get(kind) for kind in kinds} == dict.fromkeys(kinds, 0.0), run
    assert experts == 1 or name not in TESTED_ALONE


@pytest.mark.parametrize("name", TABLE)
def test_our_loader_takes_a_family_whole_or_refuses_it_by_name(measured_families, name):
    _, _, loads, _ = TABLE[name]
    ours = measured_families["families"][name]["ours"]
    if loads:
        assert isinstance(ours, float) and ours < 1e-5, ours
    else:
        assert isinstance(ours, str) and "Load Diffusion Model" in ours, ours


TAKEN = {
    "t2v-a14b": {"time_dim_concat", "context_latents"},
    "i2v-a14b": {"concat_latent_image", "clip_vision_output"},
    "vace-a14b": {"vace_frames"},
}


def test_a_condition_that_our_model_would_ignore_is_refused(measured_families):
    found = measured_families["conditions_that_our_models_ignore"]
    for family, said in found.items():
        assert {key for key, words in said.items() if words == "nothing"} == TAKEN[family]
        for key in said.keys() - TAKEN[family]:
            assert re.search("would ignore it|text-to-video model|no VACE branch", said[key]), (family, key, said[key])


@pytest.mark.parametrize(
    "what, message",
    [
        ("Flux MODEL", "high_noise is a Flux MODEL. Needed: a Wan MODEL"),
        ("Flux MODEL, low", "low_noise is a Flux MODEL"),
        ("Flux MODEL, LoRA", "high_noise is a Flux MODEL"),
        ("experts of two families", "low_noise a HuMo model with 36 input channels. Needed: two experts of one model"),
        ("official grid for FlowRVS", "for FlowRVS, which has noise levels of its own"),
        ("official solver for FlowRVS", "for FlowRVS, which has noise levels of its own"),
        ("audio latent", "an audio latent"),
        ("image latent", "an image latent"),
        ("image VAE encodes", "an image VAE. Needed: a Wan VAE"),
        ("image VAE decodes", "an image VAE. Needed: a Wan VAE"),
        ("image VAE in a condition", "an image VAE. Needed: a Wan VAE"),
    ],
)
def test_parts_of_other_models_are_refused_by_name(measured_families, what, message):
    assert message in measured_families["parts_of_other_models"][what]


@pytest.mark.parametrize(
    "what, message",
    [
        ("image of the other VAE, ours", "an image condition of 48 channels for a model with 36 input channels"),
        ("image of the other VAE, native", "an image condition of 48 channels for a model with 36 input channels"),
        ("ours in the native sampler", "an image condition of 48 channels for a model with 36 input channels"),
        ("Bernini-R of the other VAE, ours", "(context_latents) with 48 latent channels for a model with 16"),
        ("Bernini-R of the other VAE, native", "(context_latents) with 48 latent channels for a model with 16"),
        ("Phantom of the other VAE", "(time_dim_concat) with 48 latent channels for a model with 16"),
        ("VACE of the other VAE", "(vace_frames) with 48 latent channels for a model with 16"),
        ("control for image-to-video", "32 channels for a model with 36 input channels. Needed: one of 16"),
        ("image for Fun-Control", "16 channels for a model with 52 input channels. Needed: one of 32"),
        ("reference of the other VAE", "(reference_latents) with 48 latent channels for a model with 16"),
    ],
)
def test_a_condition_of_another_vae_or_model_is_refused(measured_families, what, message):
    """The image of the 5B's VAE made a wrong clip without a word; the others ended in raw errors."""
    assert message in measured_families["conditions_of_another_size"][what]


def test_a_shift_of_the_model_out_of_range_is_called_that(measured_families):
    assert measured_families["a_shift_of_nothing"].startswith("shift of the MODEL is 0.0. Needed: a finite number")


def test_a_missing_ftfy_is_one_sentence(measured_families):
    assert measured_families["without_ftfy"].startswith("the Python package ftfy is not installed.")
