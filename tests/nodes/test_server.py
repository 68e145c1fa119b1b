"""The pack as its users meet it: a ComfyUI server, its API, and files in its output folder."""

import json
import os
import re
import shutil
import subprocess
import time
import urllib.request

import pytest
from PIL import Image

from scripts.canvas import PACK, python_of
from tests.support.graphs import models, node, sampler, save, t2v
from wan_core.config import SOLVERS
from wan_core.video import find_ffmpeg, read_metadata, read_video

NODES = {
    "Wan22ExpertLoader",
    "Wan22TextEncoderLoader",
    "Wan22TextEncode",
    "Wan22VAELoader",
    "Wan22VAEEncode",
    "Wan22VAEDecode",
    "Wan22VAEDecodeToVideo",
    "Wan22EmptyLatent",
    "Wan22I2VConditioning",
    "Wan22TI2V",
    "Wan22VCU",
    "Wan22MoEGuider",
    "Wan22FlowSchedule",
    "Wan22Solver",
    "Wan22MoEKSampler",
    "Wan22Plan",
    "Wan22LoraPair",
}


@pytest.fixture(scope="module")
def image(server):
    """A picture in the server's input folder, and the node that loads it."""
    Image.linear_gradient("L").convert("RGB").resize((80, 60)).save(server.base / "input" / "picture.png")
    return node("LoadImage", image="picture.png")


def clip_of(server, entry, name="save"):
    (shown,) = entry["outputs"][name]["images"]
    assert entry["outputs"][name]["animated"] == [True]
    return server.base / "output" / shown["subfolder"] / shown["filename"]


def test_every_node_is_there_and_explains_itself(server):
    info = server.get("/object_info")
    assert set(info) >= NODES
    for name in NODES:
        schema = info[name]
        assert schema["category"] == "Wan 2.2" and schema["description"] and schema["search_aliases"]
        for kind in ("required", "optional"):
            for key, (_, *options) in schema["input"].get(kind, {}).items():
                assert options and options[0].get("tooltip"), f"{name}.{key}"
    solvers = info["Wan22MoEKSampler"]["input"]["required"]["solver"]
    options = solvers[1]["options"] if solvers[0] == "COMBO" else solvers[0]
    official = [f"official {solver}" for solver in SOLVERS]
    assert options[: len(official)] == official and "dpmpp_2m_sde" in options


def test_the_server_starts_with_the_pack_and_logs_no_error(server):
    log = server.startup_log
    assert "wan22-moe" in log and "IMPORT FAILED" not in log and "Traceback" not in log
    assert not [line for line in log.splitlines() if "error" in line.lower()]


def test_text_to_video(server):
    entry = server.run(t2v("clips/first"))
    path = clip_of(server, entry)
    assert path.parent.name == "clips" and read_video(path).shape == (9, 32, 48, 3)
    stored = read_metadata(path)
    assert json.loads(stored["prompt"])["sample"]["inputs"]["seed"] == 3
    shown = entry["outputs"]["save"]["images"][0]
    query = f"/view?filename={shown['filename']}&subfolder={shown['subfolder']}&type=output"
    with urllib.request.urlopen(server.url + query) as answer:
        assert answer.read() == path.read_bytes()


@pytest.mark.parametrize("duration", [0.1, 3.0])
def test_sharded_experts_and_sound(server, official_folder, duration):
    link = server.base / "models" / "diffusion_models" / "official"
    if not link.is_symlink():
        link.symlink_to(official_folder("t2v-a14b"))
    graph = t2v("sound") | {"audio": node("EmptyAudio", duration=duration, sample_rate=44100, channels=2)}
    graph["experts"]["inputs"] = {"high_noise": "official/high_noise_model", "low_noise": "official/low_noise_model"}
    graph["save"]["inputs"]["audio"] = ["audio", 0]
    path = clip_of(server, server.run(graph))
    listing = subprocess.run([find_ffmpeg(), "-hide_banner", "-i", str(path)], capture_output=True, text=True).stderr
    assert "Audio: aac" in listing and len(read_video(path)) == 9


def test_names_with_backslashes_mean_the_same_files(server):
    graph = t2v("slashes")
    for name in ("experts", "clip", "vae"):
        graph[name]["inputs"] = {key: value.replace("/", "\\") for key, value in graph[name]["inputs"].items()}
    server.run(graph)


def test_image_to_video_with_first_and_last_frame(server, image):
    graph = models("i2v-a14b") | {
        "image": image,
        "condition": node(
            "Wan22I2VConditioning",
            positive=["text", 0],
            negative=["text", 1],
            vae=["vae", 0],
            width=48,
            height=32,
            length=9,
            start_image=["image", 0],
            end_image=["image", 0],
        ),
        "sample": sampler(["condition", 2], ("condition", 0), ("condition", 1), boundary=0.9, shift=5.0),
        "save": save("i2v"),
    }
    assert read_video(clip_of(server, server.run(graph))).shape == (9, 32, 48, 3)


@pytest.mark.parametrize("with_image", [True, False])
def test_5b(server, image, with_image):
    given = {"start_image": ["image", 0]} if with_image else {}
    graph = models("ti2v-5b", pair=False) | {
        "latent": node("Wan22TI2V", vae=["vae", 0], width=64, height=64, length=9, **given),
        "sample": sampler(["latent", 0], pair=False, shift=5.0),
        "save": save("5b", fps=24),
    }
    if with_image:
        graph["image"] = image
    assert read_video(clip_of(server, server.run(graph))).shape == (9, 64, 64, 3)


def test_vace_with_references(server, image):
    graph = models("vace-a14b") | {
        "image": image,
        "condition": node(
            "Wan22VCU",
            positive=["text", 0],
            negative=["text", 1],
            vae=["vae", 0],
            width=48,
            height=32,
            length=9,
            strength=0.8,
            video=["image", 0],
            reference_images=["image", 0],
        ),
        "sample": sampler(["condition", 2], ("condition", 0), ("condition", 1), shift=16.0),
        "trim": node("TrimVideoLatent", samples=["sample", 0], trim_amount=["condition", 3]),
        "save": save("vace", ("trim", 0)),
    }
    assert read_video(clip_of(server, server.run(graph))).shape == (9, 32, 48, 3)


@pytest.mark.parametrize(
    "solver, schedule",
    [
        ("official dpmpp_2m", "official"),
        ("official euler", "simple"),
        ("euler", "simple"),
        ("uni_pc_bh2", "official"),
        ("dpmpp_2m_sde", "beta"),
        ("heun", "normal"),
    ],
)
def test_other_solvers_and_schedules(server, solver, schedule):
    server.run(t2v("solver", solver=solver, schedule=schedule))


def test_custom_sampling_with_the_native_nodes(server):
    graph = t2v("custom")
    graph |= {
        "guider": node(
            "Wan22MoEGuider",
            high_noise=["experts", 0],
            low_noise=["experts", 1],
            positive=["text", 0],
            negative=["text", 1],
            cfg_high=4.0,
            cfg_low=3.0,
            boundary=0.875,
        ),
        "sigmas": node("Wan22FlowSchedule", steps=4, shift=12.0, solver="unipc", denoise=1.0),
        "solver": node("Wan22Solver", solver="unipc"),
        "noise": node("RandomNoise", noise_seed=3),
        "sample": node(
            "SamplerCustomAdvanced",
            noise=["noise", 0],
            guider=["guider", 0],
            sampler=["solver", 0],
            sigmas=["sigmas", 0],
            latent_image=["latent", 0],
        ),
    }
    assert read_video(clip_of(server, server.run(graph))).shape == (9, 32, 48, 3)


def test_decoding_to_frames_tiled_and_not(server):
    graph = t2v("frames")
    del graph["save"]
    graph["decode"] = node("Wan22VAEDecode", samples=["sample", 0], vae=["vae", 0], tile_size=32, overlap=16)
    graph["again"] = node("Wan22VAEEncode", pixels=["decode", 0], vae=["vae", 0], tile_size=32, overlap=16)
    graph["native"] = node("VAEDecode", samples=["again", 0], vae=["vae", 0])
    graph["keep"] = node("SaveImage", images=["native", 0], filename_prefix="frames")
    assert len(server.run(graph)["outputs"]["keep"]["images"]) == 9


def test_native_prompt_nodes_take_our_text_encoder(server):
    graph = t2v("native-text")
    graph["text"] = node("CLIPTextEncode", clip=["clip", 0], text="a red circle")
    graph["sample"]["inputs"]["negative"] = ["text", 0]
    server.run(graph)


def test_plan_shows_a_table(server):
    graph = {
        "plan": node(
            "Wan22Plan",
            model="t2v-a14b",
            steps=40,
            boundary=0.0,
            shift=12.0,
            solver="unipc",
            width=832,
            height=480,
            length=81,
        )
    }
    (text,) = server.run(graph)["outputs"]["plan"]["text"]
    assert "low-noise expert gets no step" in text and "32,760 tokens" in text and "peak" in text


def test_a_repeated_prompt_runs_nothing_and_a_seed_reruns_the_sampler(server):
    server.run(t2v("cache"))
    again = server.run(t2v("cache"))
    assert not server.executed(again)
    changed = server.run(t2v("cache", seed=4))
    assert server.executed(changed) == {"sample", "save"}


def test_files_are_never_overwritten(server):
    first = clip_of(server, server.run(t2v("same", seed=11)))
    second = clip_of(server, server.run(t2v("same", seed=12)))
    assert first != second and first.is_file() and second.is_file()


def test_gguf_files_are_listed_and_run(server, stored):
    for kind, file in (("diffusion_models", "high.gguf"), ("text_encoders", "umt5.gguf")):
        (server.base / "models" / kind / "gguf").mkdir()
        shutil.copy(stored / file, server.base / "models" / kind / "gguf" / file)
    graph = t2v("gguf", seed=6)
    graph["experts"]["inputs"]["high_noise"] = "gguf/high.gguf"  # beside a low-noise expert in another format
    graph["clip"]["inputs"]["text_encoder"] = "gguf/umt5.gguf"
    assert clip_of(server, server.run(graph)).is_file()


def test_a_batch_gives_a_file_each(server):
    graph = t2v("batch")
    graph["latent"]["inputs"]["batch_size"] = 2
    files = server.run(graph)["outputs"]["save"]["images"]
    clips = [read_video(server.base / "output" / file["subfolder"] / file["filename"]) for file in files]
    assert len(clips) == 2 and clips[0].shape == clips[1].shape == (9, 32, 48, 3) and (clips[0] != clips[1]).any()


def test_frames_that_do_not_fit_are_cut_and_it_is_said(server, image):
    graph = {
        "image": image,
        "frames": node("RepeatImageBatch", image=["image", 0], amount=6),
        "vae": node("Wan22VAELoader", vae_name="wan_2.1_vae.safetensors"),
        "encode": node("Wan22VAEEncode", pixels=["frames", 0], vae=["vae", 0], tile_size=0, overlap=64),
        "decode": node("Wan22VAEDecode", samples=["encode", 0], vae=["vae", 0], tile_size=32, overlap=64),
        "keep": node("SaveImage", images=["decode", 0], filename_prefix="cut"),
    }
    assert len(server.run(graph)["outputs"]["keep"]["images"]) == 5
    assert "Encoded the first 5 of 6 frames at 80×56" in server.log


def test_cancel_in_either_expert_frees_the_way_for_the_next(server):
    for steps, wait in ((200, 0.5), (200, 3)):
        prompt = server.queue(
            t2v("cancel", steps=steps, seed=steps + int(wait))
            | {"latent": node("Wan22EmptyLatent", width=160, height=160, length=33, batch_size=1, family="A14B")}
        )
        time.sleep(wait)
        server.post("/interrupt", {})
        entry = server.wait(prompt)
        assert [kind for kind, _ in entry["status"]["messages"]][-1] == "execution_interrupted"
    server.run(t2v("after-cancel", seed=123))


def test_an_error_is_named_without_the_path_of_this_pack(server):
    """ComfyUI's page writes the name in front of the message."""
    entry = server.wait(
        server.queue(t2v("bad") | {"latent": node("EmptyLatentImage", width=64, height=64, batch_size=1)})
    )
    error = next(details for kind, details in entry["status"]["messages"] if kind == "execution_error")
    assert error["exception_type"] == "InputError"
    assert error["exception_message"].startswith("an image latent (1, 4, 8, 8) for a model with 16 latent channels.")


PREFIXES = {
    "video/%date:yyyy-MM-dd%/clip": r"video/\d{4}-\d\d-\d\d/clip",
    "%date%-%date:d.M.yy h-m-s%": r"\d{14}-\d+\.\d+\.\d\d \d+-\d+-\d+",
    "%Wan22MoEKSampler.seed%_%Size: v1.0.width%_%latent.length%": "41_48_9",
    "%text.positive%": "a red_circle_ ._ 100%",
    "%nothing.here%_100%_%Wan22MoEKSampler.positive%": r"%nothing\.here%_100%_%Wan22MoEKSampler\.positive%",
    "%width%x%height%": "48x32",
}


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_file_name_may_hold_the_date_and_values_of_nodes(server, prefix):
    graph = t2v(prefix, seed=41)
    graph["latent"]["_meta"] = {"title": "Size: v1.0"}
    graph["text"]["inputs"]["positive"] = "a red/circle: .\\ 100%"
    (file,) = server.run(graph)["outputs"]["save"]["images"]
    found = f"{file['subfolder']}/{file['filename']}".lstrip("/")
    assert re.fullmatch(PREFIXES[prefix] + r"_\d{5}_\.mp4", found), found


def test_tests_of_one_server_share_a_process(server, request):
    """pytest-xdist names a group behind an @; where it does not, every process would start what one has started."""
    assert "PYTEST_XDIST_WORKER" not in os.environ or request.node.nodeid.endswith("@server")


def test_the_pack_imports_quickly(comfyui):
    """Beyond ComfyUI's own modules: nothing that builds models is loaded before a node runs."""
    code = """
import asyncio, sys, time
sys.argv = ["main", "--cpu"]
import comfy.options
comfy.options.enable_args_parsing()
import nodes, comfy.samplers, comfy_api.latest, folder_paths, server, comfy.latent_formats, comfy.utils, node_helpers
start = time.perf_counter()
loaded = asyncio.run(nodes.load_custom_node(%r))
models = [f".wan_core.{package}" for package in ("dit", "vae", "checkpoints", "pipeline")]
print(loaded, time.perf_counter() - start, [m for m in sys.modules if any(part in m for part in models)])
"""
    run = subprocess.run([python_of(comfyui), "-c", code % str(PACK)], capture_output=True, text=True, cwd=comfyui)
    loaded, seconds, modules = run.stdout.strip().splitlines()[-1].split(" ", 2)
    assert loaded == "True" and float(seconds) < 0.5 and modules == "[]", run.stdout + run.stderr
