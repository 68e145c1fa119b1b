"""What has the wrong type is refused by a typed error at the library's doors."""

import numpy as np
import pytest

from tests.support.small_clips import SMALL
from wan_core import WanPipeline, export_to_video
from wan_core.checkpoints import inspect, load_dit, load_text_encoder, load_vae, open_model, open_tokenizer
from wan_core.errors import WanError

WRONG = (None, 5, 2.5, b"x", [], {}, object(), "\0", float("nan"))
FRAMES = np.zeros((1, 16, 16, 3), np.uint8)
LOADING = {
    "a model": WanPipeline.from_pretrained,
    "a model's files": open_model,
    "inspect": inspect,
    "a transformer": load_dit,
    "a VAE": load_vae,
    "a text encoder": load_text_encoder,
    "a tokenizer": open_tokenizer,
    "frames": lambda wrong: export_to_video(wrong, "clip.mp4"),
    "a clip's path": lambda wrong: export_to_video(FRAMES, wrong),
}
NUMBERS = ("height", "width", "num_frames", "num_inference_steps", "guidance_scale", "flow_shift", "step_cache")


@pytest.fixture(scope="module")
def out(official_folder):
    return WanPipeline.from_pretrained(official_folder())("a cat", **SMALL | {"num_inference_steps": 1})


def refused(door, value) -> bool:
    """Whether a door refuses a value by a typed error; whatever else it raises is raised."""
    try:
        door(value)
    except WanError:
        return True
    return False


@pytest.mark.parametrize("name", LOADING)
def test_what_is_loaded_and_written(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert all(refused(LOADING[name], wrong) for wrong in WRONG)


@pytest.mark.parametrize("name", ["torch_dtype", "device", "attention"])
@pytest.mark.parametrize("wrong", [b"x", [], {}, object, "\0", 10**40, -(10**40)], ids=repr)
def test_how_a_model_is_loaded(name, wrong):
    with pytest.raises(WanError, match="device|dtype|attention"):
        WanPipeline.from_pretrained("missing", **{name: wrong})


def test_an_output(out, tmp_path):
    doors = {
        "path": out.save,
        "fps": lambda wrong: out.save(tmp_path / "clip.mp4", fps=wrong),
        "sample": lambda wrong: out.save(tmp_path / "clip.mp4", sample=wrong),
        "decoded sample": out.decode,
        "device": out.pipeline.to,
        "strength": lambda wrong: out.pipeline.load_lora("x.safetensors", strength=wrong),
    }
    for name, door in doors.items():
        for wrong in (b"x", [], {}, object(), "\0", float("nan")):
            assert refused(door, wrong), (name, wrong)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", NUMBERS)
def test_the_numbers_of_a_call(out, name):
    for wrong in (b"x", [], {}, object(), "5", float("nan"), 10**5000):
        assert refused(lambda wrong: out.pipeline("a cat", **SMALL | {name: wrong}), wrong), wrong


ENDLESS = (10**5000, "x" * 10**5, b"x" * 10**5, ["x" * 10**5])  # the first is a number that Python does not write


@pytest.mark.parametrize("wrong", ENDLESS, ids=("number", "text", "bytes", "list"))
def test_no_message_repeats_an_endless_value(official_folder, out, wrong):
    pipe = out.pipeline
    doors = {
        "solver": lambda: pipe("a cat", **SMALL | {"solver": wrong}),
        "callback": lambda: pipe("a cat", **SMALL | {"callback": wrong}),
        "attention": lambda: WanPipeline.from_pretrained(official_folder(), attention=wrong),
        "device": lambda: pipe.to(wrong),
        "expert": lambda: pipe.load_lora("style.safetensors", expert=wrong),
        "clip": lambda: out.save(wrong),
        "model": lambda: open_model(wrong),
        "file": lambda: inspect(wrong),
    }
    if isinstance(wrong, (int, bytes)):
        doors["prompt"] = lambda: pipe(wrong, **SMALL)
    for name, door in doors.items():
        with pytest.raises(WanError) as caught:
            door()
        assert len(str(caught.value)) < 500, name
