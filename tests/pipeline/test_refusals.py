"""What is wrong is said before anything is allocated."""

import shutil

import numpy as np
import pytest
import torch

from tests.support.ledger import Ledger
from tests.support.small_clips import SMALL, SMALL_5B, picture
from wan_core import WanPipeline
from wan_core.errors import CheckpointError, CheckpointNotFound, InputError, VideoError


def test_no_sampling_without_an_ffmpeg(pipe, tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "nothing"))
    steps = []
    with pytest.raises(VideoError, match="no ffmpeg"):
        pipe("a cat", callback=lambda *step: steps.append(step), **SMALL)
    assert not steps


@pytest.mark.parametrize(
    "arguments", [{"torch_dtype": "int4"}, {"torch_dtype": torch.int8}, {"device": "quantum"}, {"device": "cuda:99"}]
)
def test_dtypes_and_devices_that_cannot_be_used(official_folder, arguments):
    with pytest.raises(InputError):
        WanPipeline.from_pretrained(official_folder(), **arguments)
    with pytest.raises(InputError):
        WanPipeline.from_pretrained("missing", **arguments)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(height=33), r"48×33.*multiples of 16.*width is 48, height 32 or 48"),
        (dict(num_frames=6), "num_frames is 6.*nearest count is 5 or 9"),
        (dict(num_frames=10**9 + 1), "num_frames"),
        (dict(num_frames=-5), "num_frames"),
        (dict(width=float("nan")), "width"),
        (dict(num_inference_steps=0), "steps"),
        (dict(num_inference_steps=-1), "steps"),
        (dict(guidance_scale=float("nan")), "guidance_scale"),
        (dict(guidance_scale=-1.0), "guidance_scale"),
        (dict(guidance_scale=10**400), "guidance_scale"),
        (dict(height=16384, width=16384, num_frames=4093), "1,073,741,824 tokens.*smaller or shorter"),
        (dict(guidance_scale_2=float("inf")), "guidance_scale_2"),
        (dict(boundary_ratio=1.2), "boundary_ratio"),
        (dict(flow_shift=0), "flow_shift"),
        (dict(step_cache=-0.1), "step_cache"),
        (dict(step_cache=float("nan")), "step_cache"),
        (dict(solver="no such solver"), "no such solver.*unipc"),
        (dict(seed=2**64), "seed"),
        (dict(seed=[1, 2]), "2 seeds for 1 prompts"),
        (dict(prompt=7), "prompt is 7"),
        (dict(prompt=[]), "prompt"),
        (dict(negative_prompt=["a", "b"]), "2 negative prompts"),
        (dict(image=picture()), "image was given.*text-to-video model .16 input channels.*image-to-video"),
        (dict(video=np.zeros((5, 32, 48, 3), np.uint8)), "video was given.*VACE"),
    ],
)
def test_wrong_arguments_are_refused_before_any_work(pipe, arguments, message):
    with Ledger() as ledger, pytest.raises(InputError, match=message):
        pipe(**{"prompt": "a cat", **SMALL} | arguments)
    assert ledger.peak == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "no image.*36 input channels"),
        ({"image": "missing.png"}, "missing.png does not exist"),
        ({"image": __file__}, "is not an image"),
        ({"image": 7}, "image is a int"),
        ({"image": torch.full((3, 32, 48), 255.0)}, r"\[-1, 1\]"),
        ({"image": picture(), "last_image": __file__}, "last_image.*is not an image"),
    ],
)
def test_wrong_images_are_refused(open_pipe, arguments, message):
    with pytest.raises(InputError, match=message):
        open_pipe("i2v-a14b")("a cat", **arguments, **SMALL)


def test_mask_without_a_video_and_video_of_another_length(open_pipe):
    pipe = open_pipe("vace-a14b")
    assert pipe("a cat", mask=picture(), **SMALL).latents.shape[2] == 2
    with pytest.raises(InputError, match=r"3 frames.*5, as many as num_frames"):
        pipe("a cat", video=np.zeros((3, 32, 48, 3), np.uint8), **SMALL)
    with pytest.raises(InputError, match=r"mask has 4 frames.*1 or 5"):
        pipe("a cat", video=np.zeros((5, 32, 48, 3), np.uint8), mask=torch.ones(1, 4, 32, 48), **SMALL)


def test_numbers_for_a_pair_are_refused_for_a_single_model(open_pipe):
    with pytest.raises(InputError, match="single model"):
        open_pipe("ti2v-5b")("a cat", boundary_ratio=0.5, **SMALL_5B)


def copy_of(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


@pytest.mark.parametrize(
    "remove, message",
    [
        ("low_noise_model", "high_noise_model but no low_noise_model.*both experts"),
        ("high_noise_model", "low_noise_model but no high_noise_model"),
        ("Wan2.1_VAE.pth", "no VAE file"),
        ("models_t5_umt5-xxl-enc-bf16.pth", "no text encoder"),
        ("google", "the tokenizer"),
        ("high_noise_model/diffusion_pytorch_model-00002-of-00002.safetensors", "lacks diffusion_pytorch_model-00002"),
    ],
)
def test_a_folder_that_lacks_a_part(official_folder, tmp_path, remove, message):
    folder = copy_of(official_folder(), tmp_path)
    path = folder / remove
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(CheckpointNotFound, match=message):
        WanPipeline.from_pretrained(folder)


@pytest.mark.parametrize("path", ["", " ", None])
def test_an_empty_path(path):
    with pytest.raises(CheckpointNotFound, match="the path of a model"):
        WanPipeline.from_pretrained(path)


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(CheckpointNotFound, match=r"nowhere is not a folder.*hf download"):
        WanPipeline.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(CheckpointNotFound, match="is empty"):
        WanPipeline.from_pretrained(tmp_path)


def test_the_other_vae_is_refused_with_both_parts_named(official_folder, tmp_path):
    folder = copy_of(official_folder(), tmp_path)
    (folder / "Wan2.1_VAE.pth").unlink()
    shutil.copy(official_folder("ti2v-5b") / "Wan2.2_VAE.pth", folder)
    with pytest.raises(
        CheckpointError, match=r"16-channel latents and Wan2.2_VAE.pth is the 2.2 VAE, with 48 channels"
    ):
        WanPipeline.from_pretrained(folder)


def test_experts_of_different_models_are_refused(official_folder, tmp_path):
    folder = copy_of(official_folder(), tmp_path)
    shutil.rmtree(folder / "low_noise_model")
    shutil.copytree(official_folder("i2v-a14b") / "low_noise_model", folder / "low_noise_model")
    with pytest.raises(CheckpointError, match="two experts of one model"):
        WanPipeline.from_pretrained(folder)
