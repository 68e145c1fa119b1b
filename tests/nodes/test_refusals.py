"""Wrong files and parts on the canvas: the error names what was found, what is needed and what to do."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.graphs import node, save, t2v
from tests.support.layouts import state_of


@pytest.mark.parametrize("name", ["missing.safetensors", "../../secret.safetensors", "/etc/passwd", "", 7, "none"])
def test_names_of_files_that_are_not_there(server, name):
    graph = t2v("missing")
    graph["experts"]["inputs"]["high_noise"] = name
    status, answer = server.post("/prompt", {"prompt": graph})
    assert status == 400
    assert f"{name} is not in the folder models/diffusion_models" in json.dumps(answer)


def test_what_macos_leaves_beside_every_file_is_no_choice(server):
    models = server.base / "models"
    for folder, kind, key in (
        ("diffusion_models", "Wan22ExpertLoader", "high_noise"),
        ("vae", "Wan22VAELoader", "vae_name"),
        ("text_encoders", "Wan22TextEncoderLoader", "text_encoder"),
    ):
        for name in ("._mac.safetensors", "._mac.gguf", "mac.safetensors"):
            (models / folder / name).write_bytes(b"\0")
        choices = json.dumps(server.get(f"/object_info/{kind}")[kind]["input"]["required"][key])
        assert "mac.safetensors" in choices and "._mac" not in choices
        for name in ("._mac.safetensors", "._mac.gguf", "mac.safetensors"):
            (models / folder / name).unlink()


def test_slots_that_one_name_or_the_metadata_say_are_wrong(server, official_folder):
    folder = server.base / "models" / "diffusion_models" / "slots"
    folder.mkdir()
    for expert, title in (("high", "Wan2.2 T2V A14B high noise"), ("low", "Wan2.2 T2V A14B low noise")):
        state = state_of(official_folder("t2v-a14b") / f"{expert}_noise_model", "dit")
        save_file(state, folder / f"first_{expert}.safetensors")
        save_file(state, folder / f"{'ab'[expert == 'low']}.safetensors", {"modelspec.title": title})
        save_file(state, folder / f"{'cd'[expert == 'low']}.safetensors")

    def said(high, low):
        graph = t2v("slots", seed=5)
        graph["experts"]["inputs"] = {
            "high_noise": f"slots/{high}.safetensors",
            "low_noise": f"slots/{low}.safetensors",
        }
        return server.error(graph)

    assert (
        "Swap the two" in said("b", "a")
        and "Swap the two" in said("first_low", "c")
        and "Swap the two" in said("d", "first_high")
    )
    assert "both low-noise experts" in said("first_low", "b")
    graph = t2v("slots", seed=5)
    graph["experts"]["inputs"] = {"high_noise": "slots/a.safetensors", "low_noise": "slots/d.safetensors"}
    server.run(graph)


def test_one_expert_under_two_names_and_a_title_that_contradicts_its_name(server, official_folder):
    folder = server.base / "models" / "diffusion_models" / "twice"
    folder.mkdir()
    state = state_of(official_folder("t2v-a14b") / "high_noise_model", "dit")
    for name in ("high", "low"):
        save_file(state, folder / f"{name}.safetensors", {"modelspec.title": "Wan2.2 T2V A14B low noise"})
    graph = t2v("twice", seed=6)
    graph["experts"]["inputs"] = {"high_noise": "twice/high.safetensors", "low_noise": "twice/low.safetensors"}
    assert "high.safetensors and low.safetensors hold the same weights" in server.error(graph)
    assert "high.safetensors is taken for the high-noise expert" in server.log


@pytest.mark.parametrize(
    "kind, change, said",
    [
        ("experts", lambda s: s | {"blocks.0.new.weight": torch.zeros(1)}, "does not know (blocks.0.new.weight)"),
        ("experts", lambda s: s | {"head.head.bias": torch.zeros(3)}, "head.head.bias is (3,) instead of"),
        ("vae", lambda s: {name: t for name, t in s.items() if name != "conv1.bias"}, "lacks 1 of"),
        ("clip", lambda s: {name: t for name, t in s.items() if "layer_norm" not in name}, "lacks 5 of"),
    ],
    ids=["a tensor more", "another shape", "a VAE with one less", "umT5 without norms"],
)
def test_what_the_library_refuses(server, kind, change, said):
    """ComfyUI itself loads each of these, and only the console says what it leaves out."""
    models = server.base / "models"
    folder, key = {
        "experts": ("diffusion_models", "high_noise"),
        "vae": ("vae", "vae_name"),
        "clip": ("text_encoders", "text_encoder"),
    }[kind]
    graph = t2v("verdict", seed=7)
    state = load_file(models / folder / graph[kind]["inputs"][key])
    save_file({name: t.contiguous() for name, t in change(state).items()}, models / folder / "changed.safetensors")
    graph[kind]["inputs"][key] = "changed.safetensors"
    assert said in server.error(graph)


@pytest.mark.parametrize("notes", ["{}", '{"layers": 3}', '{"layers": {"head.head": {}}}', "[" * 10_000])
def test_damaged_notes_about_quantization(server, notes):
    state = load_file(server.base / "models" / "diffusion_models" / t2v()["experts"]["inputs"]["high_noise"])
    notes = {"_quantization_metadata": notes}
    save_file(state, server.base / "models" / "diffusion_models" / "notes.safetensors", notes)
    graph = t2v("notes", seed=8)
    graph["experts"]["inputs"] = {"high_noise": "notes.safetensors", "low_noise": "none"}
    assert "has notes about its quantization that cannot be read" in server.error(graph)


DAMAGE = {
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "a web page": b"<!DOCTYPE html><html></html>",
    "is empty": b"",
    "is damaged": b"\xff" * 64,
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_files_are_recognised_by_every_loader(server, what):
    name = what.replace(" ", "_") + ".safetensors"
    for folder, part, key in (
        ("diffusion_models", "experts", "high_noise"),
        ("vae", "vae", "vae_name"),
        ("text_encoders", "clip", "text_encoder"),
    ):
        (server.base / "models" / folder / name).write_bytes(DAMAGE[what])
        graph = t2v("damaged")
        graph[part]["inputs"][key] = name
        assert what in server.error(graph)


def test_families_that_are_not_built_are_refused_by_name(server):
    models = server.base / "models" / "diffusion_models"
    state = load_file(models / "t2v-a14b" / "wan2.2_high_noise_14B_fp16.safetensors")
    save_file(state | {"control_adapter.conv.weight": torch.zeros(1)}, models / "fun_camera.safetensors")
    graph = t2v("family")
    graph["experts"]["inputs"]["high_noise"] = "fun_camera.safetensors"
    assert "fun_camera.safetensors is Fun-Camera" in server.error(graph)


def test_images_are_no_clip_and_leave_no_file(server):
    graph = {
        "latent": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "vae": node("Wan22VAELoader", vae_name="wan_2.1_vae.safetensors"),
        "save": save("images/none", ("latent", 0)),
    }
    assert "video latents" in server.error(graph)
    graph = t2v("é" * 130)
    assert "a short name" in server.error(graph)
    assert not list((server.base / "output").rglob("none*")) and not list((server.base / "output").rglob("é*"))


def test_a_folder_that_cannot_be_made_says_what_to_do(server):
    (server.base / "output" / "taken").write_text("")
    graph = t2v("taken/clip", seed=8)
    said = server.error(graph)
    assert "as taken/clip (" in said and "Choose another filename_prefix" in said


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda g: g["experts"]["inputs"].update(low_noise=g["experts"]["inputs"]["high_noise"]), "in both slots"),
        (
            lambda g: g["experts"]["inputs"].update(
                high_noise=g["experts"]["inputs"]["low_noise"], low_noise=g["experts"]["inputs"]["high_noise"]
            ),
            "Swap the two",
        ),
        (
            lambda g: g["experts"]["inputs"].update(low_noise="i2v-a14b/wan2.2_low_noise_14B_fp16.safetensors"),
            "two experts of one model",
        ),
        (lambda g: g["vae"]["inputs"].update(vae_name="ti2v-5b/wan_2.2_vae.safetensors"), "the VAE's 48 channels"),
        (lambda g: g["latent"]["inputs"].update(family="5B", width=64, height=64), "48 channels.*16 latent channels"),
        (
            lambda g: g["experts"]["inputs"].update(
                high_noise="i2v-a14b/wan2.2_high_noise_14B_fp16.safetensors", low_noise="none"
            ),
            "36.*without an image|two experts",
        ),
        (lambda g: g["save"]["inputs"].update(filename_prefix="../../outside"), "inside the output folder"),
        (lambda g: g["latent"]["inputs"].update(width=50), "multiples of 16|value"),
        (
            lambda g: g["experts"]["inputs"].update(low_noise="vace-a14b/wan2.2_low_noise_14B_fp16.safetensors"),
            "t2v-a14b.*vace-a14b",
        ),
        (
            lambda g: (
                g["sample"]["inputs"].update(high_noise=["experts", 1])
                or g["experts"]["inputs"].update(high_noise="wan2.2_ti2v_5B_fp16.safetensors", low_noise="none")
            ),
            "low_noise.*high_noise output",
        ),
        (lambda g: g["latent"]["inputs"].update(width=4096, height=4096, length=401), "tokens"),
        (lambda g: g["latent"]["inputs"].update(width=4096, height=4096, length=81, batch_size=64), "fewer clips"),
    ],
)
def test_wrong_parts_are_refused_with_both_named(server, change, message):
    graph = t2v("wrong", seed=99)
    change(graph)
    if "low_noise" in graph["sample"]["inputs"] and graph["experts"]["inputs"]["low_noise"] == "none":
        del graph["sample"]["inputs"]["low_noise"]
    said = server.error(graph)
    assert re.search(message, said, re.S), said
    assert not list(server.base.parent.glob("outside*"))
