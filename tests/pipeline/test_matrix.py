"""Every model with every VAE, input and LoRA: what fits runs, and everything else is refused before the first step."""

import shutil

import numpy as np
import pytest
import torch

from tests.support.small_clips import picture
from wan_core import WanPipeline
from wan_core.errors import CheckpointError, InputError

VAES = {
    "t2v-a14b": "2.1",
    "i2v-a14b": "2.1",
    "ti2v-5b": "2.2",
    "vace-a14b": "2.1",
    "wan21-t2v-14b": "2.1",
    "bernini-r-a14b": "2.1",
    "fun-control-a14b": "2.1",
    "fun-control-5b": "2.2",
    "fun-inp-5b": "2.2",
    "wan21-i2v-14b-720p": "2.1",
    "wan21-flf2v-14b": "2.1",
}
INPUTS = {
    "text": {},
    "image": {"image": picture()},
    "last image": {"image": picture(), "last_image": picture()},
    "video": {"video": np.zeros((5, 64, 96, 3), np.uint8)},
    "mask": {"mask": picture()},
    "reference": {"reference_images": [picture()]},
    "video and reference": {"video": np.zeros((5, 64, 96, 3), np.uint8), "reference_images": [picture()]},
    "video and image": {"video": np.zeros((5, 64, 96, 3), np.uint8), "image": picture()},
}
FITS = {
    "t2v-a14b": {"text"},
    "wan21-t2v-14b": {"text"},
    "i2v-a14b": {"image", "last image"},
    "ti2v-5b": {"text", "image"},
    "vace-a14b": {"text", "video", "mask", "reference", "video and reference"},
    "bernini-r-a14b": {"text", "video", "reference", "video and reference"},
    "fun-control-a14b": {"text", "image", "video", "reference", "video and reference", "video and image"},
    "fun-control-5b": {"text", "image", "video", "reference", "video and reference", "video and image"},
    "fun-inp-5b": {"text", "image", "last image"},
    "wan21-i2v-14b-720p": {"image"},
    "wan21-flf2v-14b": {"last image"},
}
# What a LoRA changes, and the models that have it in this size.
LORAS = {
    "blocks of this width": ({"blocks.0.self_attn.q": (128, 128)}, set(VAES)),
    "blocks of another width": ({"blocks.0.self_attn.q": (160, 160)}, set()),
    "36 input channels": (
        {"patch_embedding": (128, 36 * 4)},
        {"i2v-a14b", "wan21-i2v-14b-720p", "wan21-flf2v-14b"},
    ),
    "48 output channels": ({"head.head": (48 * 4, 128)}, {"ti2v-5b", "fun-control-5b", "fun-inp-5b"}),
    "a VACE branch": ({"vace_blocks.0.after_proj": (128, 128)}, {"vace-a14b"}),
}


@pytest.mark.parametrize("vae", ["2.1", "2.2"])
@pytest.mark.parametrize("name", VAES)
def test_models_and_vaes(official_folder, tmp_path, name, vae):
    folder = tmp_path / "model"
    shutil.copytree(official_folder(name), folder)
    if VAES[name] == vae:
        assert WanPipeline.from_pretrained(folder).preset.vae.version == vae
        return
    (folder / f"Wan{VAES[name]}_VAE.pth").unlink()
    donor = next(other for other in VAES if VAES[other] == vae)
    shutil.copy(official_folder(donor) / f"Wan{vae}_VAE.pth", folder)
    with pytest.raises(
        CheckpointError, match=f"-channel latents and Wan{vae}_VAE.pth is the {vae} VAE.*Put the other VAE"
    ):
        WanPipeline.from_pretrained(folder)


class FirstStepError(Exception):
    """The first step was reached."""


def reach_the_first_step(pipe, inputs):
    def stop(*step):
        raise FirstStepError

    pipe("a cat", num_frames=5, num_inference_steps=2, height=64, width=96, seed=1, callback=stop, **inputs)


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("name", VAES)
def test_models_and_inputs(open_pipe, name, inputs):
    if inputs in FITS[name]:
        with pytest.raises(FirstStepError):
            reach_the_first_step(open_pipe(name), INPUTS[inputs])
    else:
        with pytest.raises(InputError, match=r"was given, but this is|no (last_)?image for") as caught:
            reach_the_first_step(open_pipe(name), INPUTS[inputs])
        assert caught.value.needed and caught.value.fix


@pytest.mark.parametrize("lora", LORAS)
@pytest.mark.parametrize("name", VAES)
def test_models_and_loras(open_pipe, tmp_path, name, lora):
    changes, fits = LORAS[lora]
    state = {}
    for module, (out, width) in changes.items():
        state[f"diffusion_model.{module}.lora_down.weight"] = torch.ones(2, width)
        state[f"diffusion_model.{module}.lora_up.weight"] = torch.ones(out, 2)
    path = tmp_path / "change.pt"
    torch.save(state, path)
    pipe = open_pipe(name)
    if name in fits:
        assert all("2 of 2 tensors applied" in str(report) for report in pipe.load_lora(path))
        pipe.unload_loras()
    else:
        with pytest.raises(CheckpointError, match=r"change\.pt") as caught:
            pipe.load_lora(path)
        assert caught.value.needed and caught.value.fix
