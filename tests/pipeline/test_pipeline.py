import json
import shutil

import numpy as np
import pytest
import torch
from layouts import write_layout
from ledger import Ledger
from PIL import Image

from wan_core import WanPipeline, export_to_video
from wan_core.errors import CheckpointError, CheckpointNotFound, InputError, NumericalError, OutOfMemory, VideoError
from wan_core.pipeline.request import Request
from wan_core.video import read_metadata, read_video

SMALL = dict(height=32, width=48, num_frames=5, num_inference_steps=4, seed=1)
SMALL_5B = SMALL | dict(height=64, width=64)
PROMPTS = ["A red circle moves to the right", "一只猫在雪地里行走，电影光线"]


def picture(width=48, height=32):
    rows = np.linspace(0, 255, height, dtype=np.uint8)[:, None, None]
    return Image.fromarray(np.broadcast_to(rows, (height, width, 3)).copy())


@pytest.fixture(scope="module")
def pipe(official_folder):
    return WanPipeline.from_pretrained(official_folder())


@pytest.fixture(scope="module")
def open_pipe(official_folder):
    opened = {}

    def get(name):
        if name not in opened:
            opened[name] = WanPipeline.from_pretrained(official_folder(name))
        return opened[name]

    return get


@pytest.mark.parametrize("layout", ["official", "diffusers", "comfyui"])
@pytest.mark.parametrize("name, inputs", [
    ("t2v-a14b", {}),
    ("i2v-a14b", {"image": picture()}),
    ("ti2v-5b", {"image": picture(64, 64)}),
    ("vace-a14b", {"reference_images": [picture()]}),
])  # fmt: skip
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
@pytest.mark.parametrize("name, inputs", [
    ("t2v-a14b", {}), ("i2v-a14b", {"image": picture()}), ("i2v-a14b", {"image": picture(), "last_image": picture()}),
    ("ti2v-5b", {}), ("wan21-t2v-1.3b", {}), ("wan21-vace-1.3b", {"video": np.zeros((5, 32, 48, 3), np.uint8)}),
])  # fmt: skip
def test_offload_changes_no_bit(prompt, name, inputs, official_folder, open_pipe):
    numbers = SMALL_5B if name == "ti2v-5b" else SMALL
    lean = WanPipeline.from_pretrained(official_folder(name))
    lean.enable_model_cpu_offload()
    assert torch.equal(lean(prompt, **inputs, **numbers).latents, open_pipe(name)(prompt, **inputs, **numbers).latents)


def test_the_usual_diffusers_example_runs(official_folder, tmp_path, monkeypatch):
    """Only the import line differs, and the numbers that a tiny model can make in a test."""
    monkeypatch.chdir(tmp_path)
    pipe = WanPipeline.from_pretrained(official_folder(), torch_dtype=torch.bfloat16)
    pipe.enable_model_cpu_offload()
    output = pipe(prompt="A cat walks", height=64, width=80, num_frames=9, num_inference_steps=5, guidance_scale=5.0).frames[0]
    export_to_video(output, "x.mp4", fps=16)
    assert output.shape == (9, 64, 80, 3) and output.dtype == np.float32 and 0 <= output.min() <= output.max() <= 1
    assert read_video("x.mp4").shape == (9, 64, 80, 3)


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


def test_one_side_of_the_size_follows_the_image(open_pipe):
    out = open_pipe("i2v-a14b")("a cat", image=picture(100, 50), height=32, num_frames=1, num_inference_steps=1)
    assert (out.request.shape.height, out.request.shape.width) == (32, 64)


def test_no_sampling_without_an_ffmpeg(pipe, tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "nothing"))
    steps = []
    with pytest.raises(VideoError, match="no ffmpeg"):
        pipe("a cat", callback=lambda *step: steps.append(step), **SMALL)
    assert not steps


def test_numpy_numbers_are_numbers(pipe):
    numbers = {name: np.int64(value) for name, value in SMALL.items()}
    assert torch.equal(pipe("a cat", guidance_scale=np.float32(3), **numbers).latents, pipe("a cat", guidance_scale=3, **SMALL).latents)


@pytest.mark.parametrize("dtype", ["bfloat16", "auto", None])
def test_dtypes_by_name(official_folder, dtype):
    pipe = WanPipeline.from_pretrained(official_folder(), torch_dtype=dtype)
    assert pipe.high.compute_dtype == (torch.bfloat16 if dtype == "bfloat16" else torch.float32)


@pytest.mark.parametrize("arguments", [{"torch_dtype": "int4"}, {"torch_dtype": torch.int8}, {"device": "quantum"}, {"device": "cuda:99"}])
def test_dtypes_and_devices_that_cannot_be_used(official_folder, arguments):
    with pytest.raises(InputError):
        WanPipeline.from_pretrained(official_folder(), **arguments)


def test_defaults_are_the_official_ones_of_the_model(open_pipe):
    request = open_pipe("t2v-a14b")("a cat", **SMALL | {"num_inference_steps": None}).request
    assert (request.steps, request.shift, request.guidance, request.guidance_low) == (40, 12.0, 4.0, 3.0)
    assert (request.boundary, request.solver, request.fps) == (0.875, "unipc", 16)
    assert request.negative_prompts[0].startswith("色调艳丽") and request.plan().count("high") == 26


def test_a_lone_guidance_scale_applies_to_both_experts(pipe):
    assert pipe("a cat", guidance_scale=2.0, **SMALL).request.guidance_low == 2.0
    request = pipe("a cat", guidance_scale=2.0, guidance_scale_2=1.5, **SMALL).request
    assert (request.guidance, request.guidance_low) == (2.0, 1.5)


def test_boundary_decides_who_works(pipe):
    def latents(boundary):
        return pipe("a cat", boundary_ratio=boundary, guidance_scale=3.0, **SMALL).latents

    low_only, high_only, both = latents(1.0), latents(0.0), latents(0.875)
    swapped = WanPipeline(pipe.low, pipe.high, pipe.vae, pipe.text_encoder, pipe.tokenizer, pipe.preset)
    assert torch.equal(swapped("a cat", boundary_ratio=0.0, guidance_scale=3.0, **SMALL).latents, low_only)
    assert not torch.equal(both, low_only) and not torch.equal(both, high_only)


def test_a_sample_of_a_batch_is_that_sample_alone(pipe):
    batch = pipe(PROMPTS, **SMALL | {"seed": [5, 9]})
    assert len(batch.frames) == 2
    for k, (prompt, seed) in enumerate(zip(PROMPTS, (5, 9))):
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
    alone = pipe.vae.encode(torch.from_numpy(np.array(picture(64, 64))).permute(2, 0, 1)[None, :, None].float() / 127.5 - 1)
    assert torch.allclose(out.latents[:, :, :1], alone, atol=1e-4)


def test_image_decides_the_size_where_none_is_given(open_pipe):
    out = open_pipe("i2v-a14b")("a cat", image=picture(130, 70), num_frames=1, num_inference_steps=1)
    height, width = out.request.shape.height, out.request.shape.width
    assert height % 16 == width % 16 == 0 and abs(width / height - 130 / 70) < 0.15
    assert 0.8 < height * width / (720 * 1280) <= 1


def test_vace_keeps_video_frames_and_drops_references(open_pipe):
    out = open_pipe("vace-a14b")(
        "a cat", video=np.zeros((9, 40, 60, 3), np.uint8), mask=picture(60, 40), reference_images=[picture(30, 90)],
        **{k: v for k, v in SMALL.items() if k != "num_frames"},
    )  # fmt: skip
    assert out.request.shape.frames == 9 and out.latents.shape[2] == 3


def test_latents_are_float32_whatever_the_weights(official_folder):
    pipe = WanPipeline.from_pretrained(official_folder(), torch_dtype=torch.bfloat16)
    assert pipe("a cat", **SMALL).latents.dtype == torch.float32


def test_callback_is_called_once_a_step(pipe):
    seen = []
    pipe("a cat", callback=lambda i, t, x, x0: seen.append((i, t, x.shape == x0.shape)), **SMALL)
    assert [i for i, *_ in seen] == [0, 1, 2, 3] and all(same for *_, same in seen)


def test_metadata_tells_how_the_clip_was_made(pipe, tmp_path):
    out = pipe('猫 = "cat"; #1\nline two', **SMALL)
    stored = read_metadata(out.save(tmp_path / "clip.mp4"))
    assert stored["prompt"] == '猫 = "cat"; #1\nline two'
    settings = json.loads(stored["settings"])
    assert (settings["steps"], settings["shift"], settings["boundary"]) == (4, 12.0, 0.875)
    assert (settings["width"], settings["height"], settings["frames"]) == (48, 32, 5)
    assert json.loads(stored["comment"])["seed"] == "1"


def test_saving_holds_a_few_frames_at_a_time(pipe, tmp_path):
    def peak(latent_frames):
        out = pipe("a cat", **SMALL)
        out.latents = out.latents[:, :, :1].repeat(1, 1, latent_frames, 1, 1)
        with Ledger() as ledger:
            out.save(tmp_path / "clip.mp4")
        return ledger.peak

    assert peak(20) <= peak(4) * 1.02


# What is wrong is said before anything is allocated.


@pytest.mark.parametrize("arguments, message", [
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
    (dict(solver="heun"), "heun.*unipc"),
    (dict(seed=2**64), "seed"),
    (dict(seed=[1, 2]), "2 seeds for 1 prompts"),
    (dict(prompt=7), "prompt is 7"),
    (dict(prompt=[]), "prompt"),
    (dict(negative_prompt=["a", "b"]), "2 negative prompts"),
    (dict(image=picture()), "image was given.*text-to-video model .16 input channels.*image-to-video"),
    (dict(video=np.zeros((5, 32, 48, 3), np.uint8)), "video was given.*VACE"),
])  # fmt: skip
def test_wrong_arguments_are_refused_before_any_work(pipe, arguments, message):
    with Ledger() as ledger, pytest.raises(InputError, match=message):
        pipe(**{"prompt": "a cat", **SMALL} | arguments)
    assert ledger.peak == 0


@pytest.mark.parametrize("arguments, message", [
    ({}, "no image.*36 input channels"),
    ({"image": "missing.png"}, "missing.png does not exist"),
    ({"image": __file__}, "is not an image"),
    ({"image": 7}, "image is a int"),
    ({"image": torch.full((3, 32, 48), 255.0)}, r"\[-1, 1\]"),
    ({"image": picture(), "last_image": __file__}, "last_image.*is not an image"),
])  # fmt: skip
def test_wrong_images_are_refused(open_pipe, arguments, message):
    with pytest.raises(InputError, match=message):
        open_pipe("i2v-a14b")("a cat", **arguments, **SMALL)


def test_mask_without_a_video_and_video_of_another_length(open_pipe):
    pipe = open_pipe("vace-a14b")
    assert pipe("a cat", mask=picture(), **SMALL).latents.shape[2] == 2
    with pytest.raises(InputError, match="3 frames.*5, as many as num_frames"):
        pipe("a cat", video=np.zeros((3, 32, 48, 3), np.uint8), **SMALL)
    with pytest.raises(InputError, match="mask has 4 frames.*1 or 5"):
        pipe("a cat", video=np.zeros((5, 32, 48, 3), np.uint8), mask=torch.ones(1, 4, 32, 48), **SMALL)


def test_numbers_for_a_pair_are_refused_for_a_single_model(open_pipe):
    with pytest.raises(InputError, match="single model"):
        open_pipe("ti2v-5b")("a cat", boundary_ratio=0.5, **SMALL_5B)


def copy_of(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


@pytest.mark.parametrize("remove, message", [
    ("low_noise_model", "high_noise_model but no low_noise_model.*both experts"),
    ("high_noise_model", "low_noise_model but no high_noise_model"),
    ("Wan2.1_VAE.pth", "no VAE file"),
    ("models_t5_umt5-xxl-enc-bf16.pth", "no text encoder"),
    ("google", "the tokenizer"),
    ("high_noise_model/diffusion_pytorch_model-00002-of-00002.safetensors", "lacks diffusion_pytorch_model-00002"),
])  # fmt: skip
def test_a_folder_that_lacks_a_part(official_folder, tmp_path, remove, message):
    folder = copy_of(official_folder(), tmp_path)
    path = folder / remove
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(CheckpointNotFound, match=message):
        WanPipeline.from_pretrained(folder)


@pytest.mark.parametrize("path", ["", " ", None])
def test_a_path_that_nobody_named(path):
    with pytest.raises(CheckpointNotFound, match="the path of a model"):
        WanPipeline.from_pretrained(path)


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(CheckpointNotFound, match="nowhere is not a folder.*hf download"):
        WanPipeline.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(CheckpointNotFound, match="is empty"):
        WanPipeline.from_pretrained(tmp_path)


def test_the_other_vae_is_refused_with_both_parts_named(official_folder, tmp_path):
    folder = copy_of(official_folder(), tmp_path)
    (folder / "Wan2.1_VAE.pth").unlink()
    shutil.copy(official_folder("ti2v-5b") / "Wan2.2_VAE.pth", folder)
    with pytest.raises(CheckpointError, match="16-channel latents and Wan2.2_VAE.pth is the 2.2 VAE, with 48 channels"):
        WanPipeline.from_pretrained(folder)


def test_experts_of_different_models_are_refused(official_folder, tmp_path):
    folder = copy_of(official_folder(), tmp_path)
    shutil.rmtree(folder / "low_noise_model")
    shutil.copytree(official_folder("i2v-a14b") / "low_noise_model", folder / "low_noise_model")
    with pytest.raises(CheckpointError, match="two experts of one model"):
        WanPipeline.from_pretrained(folder)


# What goes wrong in the middle leaves nothing behind.


@pytest.mark.parametrize("name, inputs", [
    ("t2v-a14b", {}), ("i2v-a14b", {"image": picture(), "last_image": picture()}),
    ("vace-a14b", {"video": np.zeros((5, 32, 48, 3), np.uint8), "mask": picture()}),
])  # fmt: skip
def test_out_of_memory_is_said_and_nothing_is_kept(official_folder, name, inputs):
    pipe = WanPipeline.from_pretrained(official_folder(name))
    pipe.enable_model_cpu_offload()
    block, calls = pipe.low.blocks[1], []

    def fail(module, args):
        calls.append(1)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    handle = block.register_forward_pre_hook(fail)
    with Ledger() as ledger:
        with pytest.raises(OutOfMemory, match="Tried to allocate 20 GiB.*enable_model_cpu_offload") as caught:
            pipe("a cat", **inputs, **SMALL)
        assert calls and ledger.live == 0, "tensors of the failed run are still alive"
    assert caught.value is not None and pipe.slot.resident == ()
    handle.remove()
    assert torch.isfinite(pipe("a cat", **inputs, **SMALL).latents).all()


def test_out_of_memory_while_decoding_keeps_the_latents(pipe, tmp_path):
    out = pipe("a cat", **SMALL)

    def fail(module, args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    handle = pipe.vae.decoder.register_forward_pre_hook(fail)
    for use in (lambda: out.save(tmp_path / "clip.mp4"), lambda: out.frames[0], lambda: list(out.chunks())):
        with pytest.raises(OutOfMemory, match="20 GiB"):
            use()
    handle.remove()
    assert not list(tmp_path.iterdir())
    assert out.frames[0].shape == (5, 32, 48, 3)


def test_an_output_follows_its_pipeline(official_folder, tmp_path):
    pipe = WanPipeline.from_pretrained(official_folder())
    out = pipe("a cat", **SMALL)
    pipe.enable_model_cpu_offload()
    out.save(tmp_path / "clip.mp4")
    assert pipe.slot.resident == ()
    with pytest.raises(IndexError):
        out.save(tmp_path / "other.mp4", sample=1)


def test_an_output_goes_with_its_last_reference(pipe):
    import gc
    import weakref

    out = pipe("a cat", **SMALL)
    latents = weakref.ref(out.latents)
    assert out.frames[0].shape[0] == 5
    gc.disable()
    try:
        del out
        assert latents() is None
    finally:
        gc.enable()


def test_interrupt_in_either_expert_leaves_nothing(official_folder):
    pipe = WanPipeline.from_pretrained(official_folder())
    pipe.enable_model_cpu_offload()
    for stop in (0, 3):

        def callback(i, t, x, x0, stop=stop):
            if i == stop:
                raise KeyboardInterrupt

        with Ledger() as ledger:
            try:
                pipe("a cat", callback=callback, **SMALL)
            except KeyboardInterrupt:
                pass
        assert ledger.live == 0 and pipe.slot.resident == ()


def test_nan_names_the_step(official_folder):
    pipe = WanPipeline.from_pretrained(official_folder())
    pipe.low.head.head.bias.data = torch.full_like(pipe.low.head.head.bias, float("nan"))
    numbers = SMALL | {"num_inference_steps": 10}
    first_low = Request.resolve(pipe.preset, "a cat", **numbers).plan().index("low") + 1
    assert first_low > 1
    with pytest.raises(NumericalError, match=f"step {first_low} of 10"):
        pipe("a cat", **numbers)


def test_nan_from_the_vae_is_no_black_clip(official_folder, tmp_path):
    pipe = WanPipeline.from_pretrained(official_folder())
    pipe.vae.conv2.bias.data = torch.full_like(pipe.vae.conv2.bias, float("nan"))
    out = pipe("a cat", **SMALL)
    with pytest.raises(NumericalError, match="VAE"):
        out.frames[0]
    with pytest.raises(NumericalError, match="VAE"):
        out.save(tmp_path / "clip.mp4")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", [5, "a\0b.mp4", None])
def test_a_path_that_is_none(pipe, path):
    with pytest.raises(InputError, match="the path of an mp4"):
        pipe("a cat", **SMALL | {"num_inference_steps": 1}).save(path)


def test_no_negative_prompt_is_encoded_where_no_step_is_guided(pipe):
    passes = []
    handle = pipe.text_encoder.register_forward_hook(lambda *_: passes.append(1))
    pipe("a cat", guidance_scale=1.0, **SMALL)
    pipe("a cat", guidance_scale=1.0, guidance_scale_2=2.0, **SMALL)
    handle.remove()
    assert len(passes) == 1 + 2
