"""What a call returns: frames, files and what is written in them."""

import gc
import json
import weakref

import numpy as np
import pytest

from tests.support.ledger import Ledger
from tests.support.small_clips import PROMPTS, SMALL
from wan_core import WanPipeline, export_to_video
from wan_core.errors import InputError
from wan_core.video import read_metadata, read_video


@pytest.mark.slow
def test_saved_frames_are_the_exported_ones(pipe, tmp_path):
    out = pipe("a cat", **SMALL)
    out.save(tmp_path / "streamed.mp4")
    export_to_video(out.frames[0], tmp_path / "whole.mp4", fps=16)
    assert np.array_equal(read_video(tmp_path / "streamed.mp4"), read_video(tmp_path / "whole.mp4"))


def test_frames_index_like_a_list(pipe):
    out = pipe(PROMPTS, **SMALL)
    assert len(out.frames) == 2 and np.array_equal(out.frames[-1], out.frames[1])
    assert len(out.frames[0:1]) == 1 and len(list(out.frames)) == 2
    with pytest.raises(IndexError):
        out.frames[2]


def test_metadata_tells_how_the_clip_was_made(pipe, tmp_path):
    out = pipe('猫 = "cat"; #1\nline two', **SMALL)
    stored = read_metadata(out.save(tmp_path / "clip.mp4"))
    assert stored["prompt"] == '猫 = "cat"; #1\nline two'
    settings = json.loads(stored["settings"])
    assert (settings["steps"], settings["shift"], settings["boundary"]) == (4, 12.0, 0.875)
    assert (settings["width"], settings["height"], settings["frames"]) == (48, 32, 5)
    assert json.loads(stored["comment"])["seed"] == "1"


@pytest.mark.slow
def test_saving_holds_a_few_frames_at_a_time(pipe, tmp_path):
    def peak(latent_frames):
        out = pipe("a cat", **SMALL)
        out.latents = out.latents[:, :, :1].repeat(1, 1, latent_frames, 1, 1)
        with Ledger() as ledger:
            out.save(tmp_path / "clip.mp4")
        return ledger.peak

    assert peak(20) <= peak(4) * 1.02


def test_an_output_follows_its_pipeline(official_folder, tmp_path):
    pipe = WanPipeline.from_pretrained(official_folder())
    out = pipe("a cat", **SMALL)
    pipe.enable_model_cpu_offload()
    out.save(tmp_path / "clip.mp4")
    assert pipe.offloader.resident == ()
    with pytest.raises(IndexError):
        out.save(tmp_path / "other.mp4", sample=1)


def test_an_output_goes_with_its_last_reference(pipe):
    out = pipe("a cat", **SMALL)
    latents = weakref.ref(out.latents)
    assert out.frames[0].shape[0] == 5
    gc.disable()
    try:
        del out
        assert latents() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("path", [5, "a\0b.mp4", None])
def test_a_path_that_is_none(pipe, path):
    with pytest.raises(InputError, match="the path of an mp4"):
        pipe("a cat", **SMALL | {"num_inference_steps": 1}).save(path)
