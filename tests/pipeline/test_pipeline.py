"""What a call makes: the same clip from every layout, the official defaults, and exact bits."""

import numpy as np
import pytest
import torch

from tests.support.layouts import write_layout
from tests.support.small_clips import PROMPTS, SMALL, SMALL_5B, picture
from wan_core import WanPipeline, export_to_video
from wan_core.video import read_metadata, read_video


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["official", "diffusers", "comfyui"])
@pytest.mark.parametrize(
    "name, inputs",
    [
        ("t2v-a14b", {}),
        ("i2v-a14b", {"image": picture()}),
        ("ti2v-5b", {"image": picture(64, 64)}),
        ("vace-a14b", {"reference_images": [picture()]}),
    ],
)
def test_every_layout_gives_the_same_clip(layout, name, inputs, official_folder, open_pipe, tmp_path):
    source = official_folder(name)
    opened = WanPipeline.from_pretrained(write_layout(layout, tmp_path / layout, source, name))
    numbers = SMALL_5B if name == "ti2v-5b" else SMALL
    out, reference = opened(PROMPTS[0], **inputs, **numbers), open_pipe(name)(PROMPTS[0], **inputs, **numbers)
    assert torch.allclose(out.latents, reference.latents, atol=1e-4)  # bits depend on where a file aligns its tensors
    path = out.save(tmp_path / "clip.mp4")
    frames = read_video(path)
    assert frames.shape == (5, numbers["height"], numbers["width"], 3)
    assert read_metadata(path)["seed"] == "1"


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize(
    "name, inputs",
    [
        ("t2v-a14b", {}),
        ("i2v-a14b", {"image": picture()}),
        ("i2v-a14b", {"image": picture(), "last_image": picture()}),
        ("ti2v-5b", {}),
        ("wan21-t2v-1.3b", {}),
        ("wan21-vace-1.3b", {"video": np.zeros((5, 32, 48, 3), np.uint8)}),
    ],
)
def test_offload_changes_no_bit(prompt, name, inputs, official_folder, open_pipe):
    numbers = SMALL_5B if name == "ti2v-5b" else SMALL
    offloaded = WanPipeline.from_pretrained(official_folder(name))
    offloaded.enable_model_cpu_offload()
    assert torch.equal(
        offloaded(prompt, **inputs, **numbers).latents, open_pipe(name)(prompt, **inputs, **numbers).latents
    )


def test_the_usual_diffusers_example_runs(official_folder, tmp_path, monkeypatch):
    """Only the import line differs, and the numbers that a tiny model can make in a test."""
    monkeypatch.chdir(tmp_path)
    pipe = WanPipeline.from_pretrained(official_folder(), torch_dtype=torch.bfloat16)
    pipe.enable_model_cpu_offload()
    output = pipe(
        prompt="A cat walks", height=64, width=80, num_frames=9, num_inference_steps=5, guidance_scale=5.0
    ).frames[0]
    export_to_video(output, "x.mp4", fps=16)
    assert output.shape == (9, 64, 80, 3) and output.dtype == np.float32 and 0 <= output.min() <= output.max() <= 1
    assert read_video("x.mp4").shape == (9, 64, 80, 3)


def test_one_side_of_the_size_follows_the_image(open_pipe):
    out = open_pipe("i2v-a14b")("a cat", image=picture(100, 50), height=32, num_frames=1, num_inference_steps=1)
    assert (out.request.shape.height, out.request.shape.width) == (32, 64)


def test_numpy_numbers_are_numbers(pipe):
    numbers = {name: np.int64(value) for name, value in SMALL.items()}
    assert torch.equal(
        pipe("a cat", guidance_scale=np.float32(3), **numbers).latents, pipe("a cat", guidance_scale=3, **SMALL).latents
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "auto", None])
def test_dtypes_by_name(official_folder, dtype):
    pipe = WanPipeline.from_pretrained(official_folder(), torch_dtype=dtype)
    assert pipe.high.compute_dtype == (torch.bfloat16 if dtype == "bfloat16" else torch.float32)


def test_defaults_are_the_official_ones_of_the_model(open_pipe):
    request = open_pipe("t2v-a14b")("a cat", **SMALL | {"num_inference_steps": None}).request
    assert (request.steps, request.shift, request.guidance, request.guidance_low) == (40, 12.0, 4.0, 3.0)
    assert (request.boundary, request.solver, request.fps) == (0.875, "unipc", 16)
    assert request.negative_prompts[0].startswith("色调艳丽") and request.plan().count("high") == 26


def test_a_lone_guidance_scale_applies_to_both_experts(pipe):
    assert pipe("a cat", guidance_scale=2.0, **SMALL).request.guidance_low == 2.0
    request = pipe("a cat", guidance_scale=2.0, guidance_scale_2=1.5, **SMALL).request
    assert (request.guidance, request.guidance_low) == (2.0, 1.5)


def test_boundary_decides_which_expert_works(pipe):
    def latents(boundary):
        return pipe("a cat", boundary_ratio=boundary, guidance_scale=3.0, **SMALL).latents

    low_only, high_only, both = latents(1.0), latents(0.0), latents(0.875)
    swapped = WanPipeline(pipe.low, pipe.high, pipe.vae, pipe.text_encoder, pipe.tokenizer, pipe.preset)
    assert torch.equal(swapped("a cat", boundary_ratio=0.0, guidance_scale=3.0, **SMALL).latents, low_only)
    assert not torch.equal(both, low_only) and not torch.equal(both, high_only)


def test_a_sample_of_a_batch_is_that_sample_alone(pipe):
    batch = pipe(PROMPTS, **SMALL | {"seed": [5, 9]})
    assert len(batch.frames) == 2
    for k, (prompt, seed) in enumerate(zip(PROMPTS, (5, 9), strict=True)):
        alone = pipe(prompt, **SMALL | {"seed": seed})
        assert torch.equal(batch.latents[k : k + 1], alone.latents)
        assert np.array_equal(batch.frames[k], alone.frames[0])


def test_one_seed_for_a_batch_counts_up_and_none_is_drawn(pipe):
    assert pipe(PROMPTS, **SMALL).request.seeds == (1, 2)
    drawn = pipe("a cat", **SMALL | {"seed": None})
    again = pipe("a cat", **SMALL | {"seed": drawn.request.seeds[0]})
    assert torch.equal(drawn.latents, again.latents)


def test_the_given_first_frame_of_a_5b_clip_stays(open_pipe):
    pipe = open_pipe("ti2v-5b")
    out = pipe("a cat", image=picture(64, 64), **SMALL_5B)
    alone = pipe.vae.encode(
        torch.from_numpy(np.array(picture(64, 64))).permute(2, 0, 1)[None, :, None].float() / 127.5 - 1
    )
    assert torch.allclose(out.latents[:, :, :1], alone, atol=1e-4)


@pytest.mark.slow
def test_image_decides_the_size_where_none_is_given(open_pipe):
    out = open_pipe("i2v-a14b")("a cat", image=picture(130, 70), num_frames=1, num_inference_steps=1)
    height, width = out.request.shape.height, out.request.shape.width
    assert height % 16 == width % 16 == 0 and abs(width / height - 130 / 70) < 0.15
    assert 0.8 < height * width / (720 * 1280) <= 1


def test_vace_keeps_video_frames_and_drops_references(open_pipe):
    out = open_pipe("vace-a14b")(
        "a cat",
        video=np.zeros((9, 40, 60, 3), np.uint8),
        mask=picture(60, 40),
        reference_images=[picture(30, 90)],
        **{k: v for k, v in SMALL.items() if k != "num_frames"},
    )
    assert out.request.shape.frames == 9 and out.latents.shape[2] == 3


def test_latents_are_float32_whatever_the_weights(official_folder):
    pipe = WanPipeline.from_pretrained(official_folder(), torch_dtype=torch.bfloat16)
    assert pipe("a cat", **SMALL).latents.dtype == torch.float32


def test_callback_is_called_once_a_step(pipe):
    seen = []
    pipe("a cat", callback=lambda i, t, x, x0: seen.append((i, t, x.shape == x0.shape)), **SMALL)
    assert [i for i, *_ in seen] == [0, 1, 2, 3] and all(same for *_, same in seen)


def test_the_size_decides_whether_both_passes_go_in_one_batch(pipe, monkeypatch):
    sizes, latents = [], []
    handle = pipe.high.register_forward_hook(lambda module, given, out: sizes.append(len(out)))
    tokens = pipe("a cat", **SMALL).request.shape.tokens(pipe.preset.vae, pipe.preset.dit)
    for few in (tokens, tokens - 1):
        sizes.clear()
        monkeypatch.setattr("wan_core.pipeline.pipeline.BATCHED_CFG_MAX_TOKENS", few)
        latents.append(pipe("a cat", **SMALL).latents)
        assert set(sizes) == ({2} if few == tokens else {1})
    handle.remove()
    assert torch.allclose(*latents, atol=1e-4)


def test_no_negative_prompt_is_encoded_where_no_step_is_guided(pipe):
    passes = []
    handle = pipe.text_encoder.register_forward_hook(lambda *_: passes.append(1))
    pipe("a cat", guidance_scale=1.0, **SMALL)
    pipe("a cat", guidance_scale=1.0, guidance_scale_2=2.0, **SMALL)
    handle.remove()
    assert len(passes) == 1 + 2


def test_a_step_cache_saves_calls_of_both_experts_and_is_recorded(pipe):
    calls = []
    handles = [e.register_forward_hook(lambda module, *_: calls.append(module)) for e in (pipe.high, pipe.low)]
    steps, numbers = [], SMALL | {"num_inference_steps": 12}
    plain = pipe("a cat", **numbers)
    before = [calls.count(pipe.high), calls.count(pipe.low)]
    calls.clear()
    cached = pipe(PROMPTS, callback=lambda *step: steps.append(step), step_cache=0.3, **numbers)
    assert all(calls.count(e) < 2 * n for e, n in zip((pipe.high, pipe.low), before, strict=True)) and len(steps) == 12
    alone = pipe(PROMPTS[1], step_cache=0.3, **numbers | {"seed": 2})
    assert torch.equal(cached.latents[1:], alone.latents)
    assert torch.equal(pipe("a cat", step_cache=0, **numbers).latents, plain.latents)
    assert '"step_cache": 0.3' in cached.request.metadata()["settings"]
    for handle in handles:
        handle.remove()
