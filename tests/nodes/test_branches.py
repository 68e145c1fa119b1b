"""Contexts, a reference and an image branch in ComfyUI: as the native models of the same weights."""

import pytest

CASES = {  # → the least that the tokens beside the video change
    "Bernini-R with two contexts": 1e-3,
    "Bernini-R without one": 0,
    "Fun-Control with a reference": 1e-3,
    "Fun-Control without one": 0,
    "Fun-Control with nothing": 0,
    "Fun-Control 5B with a reference": 1e-3,
    "Fun-Control 5B without one": 0,
    "Fun-InP 5B": 0,
    "I2V 2.1": 1e-3,
    "I2V 2.1 without CLIP": 0,
    "I2V 2.1 with two images": 1e-3,
    "FLF2V 2.1": 1e-3,
    "FLF2V 2.1 with one image": 1e-3,
    "Fun-Control 2.1": 1e-3,
    "Fun-Control 2.1 with a reference": 1e-3,
}
IMAGES = ["clip_vision_output", "concat_latent_image"]


@pytest.mark.parametrize("case", CASES)
def test_our_models_are_the_native_ones(measured, case):
    """One step, six, six for a batch of two, and six of a pair in our sampler."""
    found = dict(measured["branches"][case])
    change = found.pop("change")
    assert set(found) == {"step", "run", "batch", "pair"} and max(found.values()) < 1e-5
    assert change > CASES[case] if CASES[case] else change == 0


def test_every_case_is_compared(measured):
    assert set(measured["branches"]) == set(CASES)


@pytest.mark.parametrize("layout", ["prefixed", "scaled e4m3", "metadata in the header"])
@pytest.mark.parametrize("model", ["FLF2V 2.1", "Fun-Control"])
def test_branches_as_files_store_them(measured, model, layout):
    assert measured["branches_as_stored"][f"{model} {layout}"] < 1e-5


def test_a_branch_in_gguf(measured):
    assert measured["branches_as_stored"]["FLF2V 2.1 gguf"] < 1e-5


@pytest.mark.parametrize(
    "model, taken",
    [
        ("Bernini-R", ["context_latents", "time_dim_concat"]),
        ("TI2V-5B", ["context_latents"]),
        ("VACE", ["vace_frames"]),
        ("I2V-A14B", IMAGES),
        ("Fun-InP 5B", IMAGES),
        ("I2V 2.1", IMAGES),
        ("FLF2V 2.1", IMAGES),
        ("Fun-Control", [*IMAGES, "reference_latents"]),
        ("Fun-Control 5B", [*IMAGES, "reference_latents"]),
        ("Fun-Control 2.1", IMAGES),
        ("Fun-Control 2.1 with a reference", [*IMAGES, "reference_latents"]),
    ],
)
def test_what_our_models_take_of_the_conditioning(measured, model, taken):
    assert measured["refused_conditions"]["taken"][model] == taken


@pytest.mark.parametrize(
    "door, words",
    [
        ("a sampler", ("a camera path (camera_conditions)", "16 input channels", "Fun-Camera", "Load Diffusion Model")),
        ("the transformer", ("camera_conditions for a MODEL of Load Wan 2.2 Experts", "Load Diffusion Model")),
        ("a ControlNet", ("a ControlNet (control)", "would ignore it")),
        ("a reference", ("a reference latent for a model that takes none", "Fun-Control")),
    ],
)
def test_nothing_is_ignored_in_silence(measured, door, words):
    said = measured["refused_conditions"]["said"][door]
    assert all(word in said for word in words), said


def test_memory_is_estimated_as_for_native_models_and_contexts_count(measured):
    native, ours, with_contexts = measured["refused_conditions"]["memory"]
    factors = measured["refused_conditions"]["VACE"]
    assert factors[0] == factors[1]
    assert ours == native and with_contexts == pytest.approx(ours * (2 * 3 * 40 + 3 * 40 + 80) / (2 * 3 * 40))


@pytest.mark.parametrize("case", ["Bernini-R with two contexts", "Fun-Control with a reference"])
def test_uni3c_steers_our_models_as_native_ones(measured, case):
    difference, change = measured["uni3c"][case]
    assert difference < 1e-5 < 1e-2 < change
