"""Bernini-R, the Fun models and the CLIP models of Wan2.1: told apart, run from their folders, and counted."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.support.layouts import write_comfyui_folder, write_diffusers_folder
from tests.support.small_clips import picture
from wan_core import WanPipeline
from wan_core.checkpoints import inspect, open_model
from wan_core.config import NEGATIVE_PROMPT, PRESETS, ImageEncoderConfig
from wan_core.errors import CheckpointError, CheckpointNotFound, InputError
from wan_core.memory import ModelOffloader
from wan_core.memory.estimate import sampling_bytes
from wan_core.pipeline import Options, Request
from wan_core.pipeline.estimate import estimate_memory
from wan_core.pipeline.inputs import Inputs
from wan_core.pipeline.plan import plan_text
from wan_core.testing import official_clip, tiny_preset
from wan_core.vision import ImageEncoder

VIDEO = np.random.default_rng(0).integers(0, 256, (9, 64, 96, 3), np.uint8)
SMALL = dict(height=64, width=96, num_frames=5, num_inference_steps=3, seed=1)
FIRST, LAST, OTHER = picture(96, 64), picture(60, 40), picture(120, 50)
FULL = {  # every input that a model of the family takes
    "bernini-r-a14b": {"video": VIDEO, "reference_images": [FIRST, OTHER]},
    "bernini-r-1.3b": {"video": VIDEO},
    "fun-control-a14b": {"video": VIDEO, "image": FIRST, "reference_images": OTHER},
    "fun-control-5b": {"video": VIDEO, "image": FIRST, "reference_images": [OTHER]},
    "fun-inp-5b": {"image": FIRST, "last_image": LAST},
    "wan21-i2v-14b-480p": {"image": OTHER},
    "wan21-i2v-14b-720p": {"image": OTHER},
    "wan21-flf2v-14b": {"image": FIRST, "last_image": LAST},
}


@pytest.mark.parametrize("name", FULL)
def test_a_folder_of_each_family_runs(open_pipe, name):
    pipe = open_pipe(name)
    assert pipe.preset.name == name
    latents = pipe("a cat", **FULL[name], **SMALL).latents
    z, frames, height, width = Request.resolve(pipe.preset, Options(**SMALL)).shape.latent(pipe.preset.vae)
    assert latents.shape == (1, z, frames, height, width) and torch.isfinite(latents).all()


@pytest.mark.parametrize("name", FULL)
def test_every_input_changes_the_clip(open_pipe, name):
    """Each is left out where the model can do without it, and else replaced."""
    pipe, given = open_pipe(name), FULL[name]
    full = pipe("a cat", **given, **SMALL).latents
    for lacking in given:
        other = {key: value for key, value in given.items() if key != lacking}
        if lacking in ("image", "last_image") and name.startswith("wan21"):
            other[lacking] = picture(30, 90).rotate(90)
        assert not torch.equal(pipe("a cat", **other, **SMALL).latents, full), lacking


@pytest.mark.parametrize("name", ["bernini-r-a14b", "fun-control-5b", "wan21-flf2v-14b"])
def test_a_sample_of_several_is_that_sample_alone(open_pipe, name):
    pipe, prompts, seeds = open_pipe(name), ["a cat", "a dog in the snow"], [1, 2]
    together = pipe(prompts, **FULL[name], **SMALL | {"seed": seeds}).latents
    for k, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
        alone = pipe(prompt, **FULL[name], **SMALL | {"seed": seed}).latents
        assert torch.equal(together[k : k + 1], alone)


def test_numbers_of_the_families():
    numbers = {
        name: (p.steps, p.shift, p.guidance, p.guidance_low, p.boundary, p.width, p.height, p.frames, p.fps)
        for name, p in PRESETS.items()
    }
    assert numbers["bernini-r-a14b"] == (40, 3.0, 4.0, 3.0, 0.875, 1280, 720, 81, 16)
    assert numbers["bernini-r-1.3b"] == (50, 3.0, 5.0, None, None, 832, 480, 81, 16)
    assert numbers["fun-control-a14b"] == (50, 5.0, 6.0, 6.0, 0.9, 1280, 720, 81, 16)
    assert numbers["fun-control-5b"] == (40, 5.0, 6.0, None, None, 1280, 704, 121, 24)
    assert numbers["fun-inp-5b"] == (50, 5.0, 6.0, None, None, 1280, 704, 121, 24)
    assert numbers["wan21-i2v-14b-720p"] == (40, 5.0, 5.0, None, None, 1280, 720, 81, 16)
    assert numbers["wan21-i2v-14b-480p"] == (40, 3.0, 5.0, None, None, 832, 480, 81, 16)
    assert numbers["wan21-flf2v-14b"] == (50, 16.0, 5.0, None, None, 1280, 720, 81, 16)
    assert (numbers["vace-a14b"][1], numbers["wan21-vace-14b"][1], numbers["wan21-vace-1.3b"][1]) == (12.0, 16.0, 16.0)
    prompts = {name: preset.negative_prompt.removesuffix(NEGATIVE_PROMPT) for name, preset in PRESETS.items()}
    assert {name: own for name, own in prompts.items() if own} == {
        "wan21-i2v-14b-720p": "镜头晃动，",
        "wan21-i2v-14b-480p": "镜头晃动，",
        "wan21-flf2v-14b": "镜头切换，镜头晃动，",
    }


# How a folder of T2V tensors says that it is Bernini-R: (what is done to the folder, its name)
MARKS = {
    "the folder's name": (lambda folder: None, "Bernini-R-A14B"),
    "the folder's release in the hub's cache": (lambda folder: None, "models--someone--Bernini-R/snapshots/0123abcd"),
    "a header": (lambda folder: in_header(folder / "high_noise_model", {"modelspec.title": "Bernini-R high"}), "model"),
}


def in_header(folder, metadata):
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            tensors = {name: weights.get_tensor(name) for name in list(weights.keys())}
        save_file(tensors, file, metadata)


@pytest.mark.parametrize("mark", MARKS)
def test_a_word_makes_a_text_to_video_pair_bernini(official_folder, tmp_path, mark):
    change, name = MARKS[mark]
    folder = shutil.copytree(official_folder(), tmp_path / name)
    change(folder)
    assert open_model(folder).preset.name == inspect(folder).family == "bernini-r-a14b"
    assert open_model(official_folder()).preset.name == "t2v-a14b"


def test_the_word_may_stand_in_an_index_or_in_the_name_of_a_file(official_folder, tmp_path):
    diffusers = write_diffusers_folder(tmp_path / "diffusers", official_folder(), tiny_preset("t2v-a14b"))
    index = json.loads((diffusers / "model_index.json").read_text())
    (diffusers / "model_index.json").write_text(json.dumps(index | {"_name_or_path": "someone/BERNINI-R"}))
    assert open_model(diffusers).preset.name == "bernini-r-a14b"
    comfyui = write_comfyui_folder(tmp_path / "comfyui", official_folder(), tiny_preset("t2v-a14b"))
    assert open_model(comfyui).preset.name == "t2v-a14b"
    for file in (comfyui / "diffusion_models").iterdir():
        file.rename(file.with_name(file.name.replace("wan2.2", "wan2.2_bernini_r")))
    assert open_model(comfyui).preset.name == "bernini-r-a14b"


@pytest.mark.parametrize("inputs", [{"video": VIDEO}, {"reference_images": [FIRST]}])
def test_a_plain_pair_says_how_to_mark_a_bernini_folder(pipe, inputs):
    with pytest.raises(InputError, match="bernini-r-a14b, put the word 'bernini' into the name of its folder or file"):
        pipe("a cat", **inputs, **SMALL)


def test_480p_is_told_by_name_alone(official_folder, tmp_path):
    source = official_folder("wan21-i2v-14b-720p")
    for name, expected in (("Wan2.1-I2V-14B-480P", "480p"), ("Wan2.1-I2V-14B-720P", "720p"), ("model", "720p")):
        assert open_model(shutil.copytree(source, tmp_path / name)).preset.name == f"wan21-i2v-14b-{expected}"


@pytest.mark.parametrize(
    "name, inputs, message",
    [
        ("wan21-i2v-14b-720p", {}, r"no image for a Wan2.1 image-to-video model \(36 input channels\)"),
        ("wan21-i2v-14b-720p", {"image": FIRST, "last_image": LAST}, "last_image was given.*Wan2.1 first-and-last"),
        ("wan21-flf2v-14b", {"image": FIRST}, "no last_image.*last_image, the last frame"),
        ("fun-control-a14b", {"reference_images": [FIRST, LAST]}, "2 reference_images.*1 of them"),
        ("fun-control-a14b", {"mask": FIRST}, "mask was given.*VACE"),
        ("fun-inp-5b", {"video": VIDEO}, "video was given.*Fun-Control"),
        ("bernini-r-a14b", {"image": FIRST}, "image was given.*video-editing"),
    ],
)
def test_inputs_that_do_not_fit(open_pipe, name, inputs, message):
    with pytest.raises(InputError, match=message):
        open_pipe(name)("a cat", **inputs, **SMALL)


def test_a_folder_without_a_vision_encoder(official_folder, tmp_path):
    folder = shutil.copytree(official_folder("wan21-i2v-14b-720p"), tmp_path / "model")
    clip = next(folder.glob("models_clip*"))
    clip.unlink()
    with pytest.raises(CheckpointNotFound, match=r"no CLIP vision encoder.*models_clip_open-clip.*clip_vision_h"):
        WanPipeline.from_pretrained(folder)


def test_a_vision_encoder_of_another_width(official_folder, tmp_path):
    folder = shutil.copytree(official_folder("wan21-i2v-14b-720p"), tmp_path / "model")
    clip = next(folder.glob("models_clip*"))
    torch.save(official_clip(ImageEncoder(ImageEncoderConfig(160, 96, 2, 2, 14, 28))), clip)
    with pytest.raises(CheckpointError, match="image tokens of width 80, and models_clip.*of width 160"):
        open_model(folder)


def test_a_text_to_video_folder_may_hold_a_vision_encoder(official_folder, tmp_path):
    folder = shutil.copytree(official_folder(), tmp_path / "model")
    shutil.copy(next(official_folder("wan21-i2v-14b-720p").glob("models_clip*")), folder)
    assert open_model(folder).image_encoder is None


def test_sources_and_references_count_as_tokens():
    preset = PRESETS["bernini-r-a14b"]
    numbers = dict(height=480, width=832, num_frames=81)
    video = np.zeros((81, 480, 832, 3), np.uint8)
    inputs = Inputs.resolve(preset, Options(video=video, reference_images=[picture(1696, 848)], **numbers))
    assert inputs.references[0].shape == (3, 424 // 16 * 16, 848), "424 is no multiple of 16"
    clip, reference = 21 * 30 * 52, 26 * 53
    assert inputs.request.context_tokens == clip + reference
    assert inputs.request.tokens(preset) == 2 * clip + reference
    assert f"{clip:,} tokens and {clip + reference:,} of what it is made from" in plan_text(preset, inputs.request)
    alone, with_all = (
        estimate_memory(preset, inputs.request.shape, torch.bfloat16, tokens) for tokens in (0, clip + reference)
    )
    assert alone.sampling == sampling_bytes(preset.dit, clip, torch.bfloat16)
    assert with_all.sampling == sampling_bytes(preset.dit, 2 * clip + reference, torch.bfloat16)


def test_a_reference_of_fun_control_and_vace_is_a_frame_of_tokens():
    numbers = dict(height=64, width=96, num_frames=5)
    for name, frame in (("fun-control-a14b", 24), ("fun-control-5b", 6), ("vace-a14b", 24)):
        inputs = Inputs.resolve(PRESETS[name], Options(reference_images=[OTHER], **numbers))
        assert inputs.request.context_tokens == frame


def test_too_long_a_sequence_with_its_context_is_refused():
    preset = PRESETS["bernini-r-a14b"]
    request = Request.resolve(preset, Options(num_frames=81))
    with pytest.raises(InputError, match=r"are 4,275,600 tokens.*at most 4,194,304.*fewer reference_images"):
        request.with_context(preset, 4_200_000)


def test_tokens_of_the_context_are_no_setting_of_the_file():
    request = Request.resolve(PRESETS["bernini-r-a14b"], Options("a cat", seed=1))
    assert request.with_context(PRESETS["bernini-r-a14b"], 9).metadata() == request.metadata()


def test_the_plan_counts_the_vision_encoder():
    preset = PRESETS["wan21-i2v-14b-720p"]
    request = Request.resolve(preset, Options())
    memory = estimate_memory(preset, request.shape, torch.bfloat16)
    assert "CLIP             2.2" in plan_text(preset, request) and 2.2 < memory.image_encoder / 2**30 < 2.36
    assert "CLIP" not in plan_text(PRESETS["i2v-a14b"], Request.resolve(PRESETS["i2v-a14b"], Options()))
    assert estimate_memory(PRESETS["i2v-a14b"], request.shape, torch.bfloat16).image_encoder == 0


class Watched(ModelOffloader):
    """Writes down what is on the device after each part has been loaded."""

    def __init__(self, device, exclusive=False):
        super().__init__(device, exclusive)
        self.seen = []

    def load(self, module):
        loaded = super().load(module)
        self.seen.append(self.resident)
        return loaded


def test_the_vision_encoder_is_on_the_device_for_its_call_alone(open_pipe):
    pipe = open_pipe("wan21-flf2v-14b")
    kept, pipe.offloader = pipe.offloader, Watched("cpu", exclusive=True)
    try:
        pipe("a cat", **FULL["wan21-flf2v-14b"], **SMALL)
        order = [resident for i, resident in enumerate(pipe.offloader.seen) if resident != pipe.offloader.seen[i - 1]]
        assert order == [(pipe.text_encoder,), (pipe.image_encoder,), (pipe.vae,), (pipe.high,)]
        assert pipe.offloader.resident == ()
    finally:
        pipe.offloader = kept


def test_images_are_shown_to_clip_as_the_official_code_does_it(open_pipe):
    """From the image as it was given, not from the clip's size; bicubic without antialiasing, no crop, no clamp."""
    preset = open_pipe("wan21-flf2v-14b").preset
    first, last = (torch.rand(3, *size) * 2 - 1 for size in ((90, 50), (64, 96)))
    views = Inputs.resolve(preset, Options(image=first, last_image=last, **SMALL)).views
    for view, image in zip(views, (first, last), strict=True):
        expected = torch.nn.functional.interpolate(image[None], (28, 28), mode="bicubic", align_corners=False)[0]
        assert torch.equal(view, expected)


@pytest.mark.parametrize("name", ["fun-control-a14b", "bernini-r-a14b"])
def test_a_control_video_gives_the_size_and_the_length(name):
    request = Inputs.resolve(PRESETS[name], Options(video=np.zeros((9, 90, 160, 3), np.uint8))).request
    assert (request.shape.frames, request.shape.height, request.shape.width) == (9, 720, 1280)


def test_wrong_pairs_are_told_by_their_predictions(official_folder, tmp_path, caplog):
    """Fun-Control experts without names: the test of both runs with nothing given."""
    folder = write_comfyui_folder(
        tmp_path / "model", official_folder("fun-control-a14b"), tiny_preset("fun-control-a14b")
    )
    for n, file in enumerate(sorted((folder / "diffusion_models").iterdir())):
        file.rename(file.with_name(f"fun_control_{n}.safetensors"))
    assert WanPipeline.from_pretrained(folder).preset.name == "fun-control-a14b"
    assert "which expert is which" in caplog.text
