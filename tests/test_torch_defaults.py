"""A caller's defaults of torch change no number of the library."""

import ast
from pathlib import Path

import pytest
import torch

from tests.support.small_clips import picture
from wan_core import WanPipeline
from wan_core.demo.release import demo_model
from wan_core.testing import tiny_preset
from wan_core.training.expert import new_expert

ROOT = Path(__file__).parent.parent
MAKES_FLOATS = {"empty", "eye", "full", "linspace", "ones", "rand", "randn", "tensor", "zeros"}
# New modules have torch's default dtype; what loads or trains them sets it.
MODULES = {"wan_core/dit/layers.py", "wan_core/vae/layers.py", "wan_core/vision/encoder.py"}


def generate(folder, **numbers):
    pipe = WanPipeline.from_pretrained(folder)
    out = pipe("A red circle moves", image=picture(64, 64), seed=3, num_inference_steps=2, **numbers)
    return out.latents, torch.from_numpy(out.frames[0])


@pytest.fixture
def defaults():
    yield
    torch.set_default_dtype(torch.float32)


def test_the_demo_is_the_same_under_float64(tmp_path, defaults):
    folder, numbers = demo_model("i2v-a14b", tmp_path), dict(width=64, height=64, num_frames=9)
    expected = generate(folder, **numbers)
    torch.set_default_dtype(torch.float64)
    for a, b in zip(generate(folder, **numbers), expected, strict=True):
        assert a.dtype == b.dtype == torch.float32 and torch.equal(a, b)


@pytest.mark.parametrize("name", ["i2v-a14b", "ti2v-5b"])
def test_a_narrow_default_changes_nothing(official_folder, defaults, name):
    folder, numbers = official_folder(name), dict(width=64, height=64, num_frames=5)
    expected = generate(folder, **numbers)
    torch.set_default_dtype(torch.bfloat16)
    assert all(torch.equal(a, b) for a, b in zip(generate(folder, **numbers), expected, strict=True))


def test_new_weights_are_the_same_under_any_default(defaults):
    config = tiny_preset("t2v-a14b").dit
    expected = new_expert(config, 0).state_dict()
    torch.set_default_dtype(torch.float64)
    found = new_expert(config, 0).state_dict()
    assert all(found[name].dtype == torch.float32 and torch.equal(found[name], expected[name]) for name in expected)


def untyped(source: str) -> list[str]:
    """Calls such as torch.zeros(…) that leave the dtype to torch's default."""
    return [
        f"line {node.lineno}: torch.{node.func.attr}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "torch"
        and node.func.attr in MAKES_FLOATS
        and not any(word.arg in ("dtype", None) for word in node.keywords)
    ]


def test_every_tensor_that_is_made_says_its_dtype():
    files = [path for part in ("wan_core", "nodes") for path in sorted((ROOT / part).rglob("*.py"))]
    names = {path.relative_to(ROOT).as_posix(): path for path in files}
    allowed = {
        "wan_core/devices.py": 1,  # an empty one, which shows that there is such a device
        "wan_core/text/tokenizer.py": 1,  # token ids
    }
    found = {name: untyped(path.read_text("utf-8")) for name, path in names.items() if name not in MODULES}
    assert {name: calls for name, calls in found.items() if len(calls) > allowed.get(name, 0)} == {}


def test_the_rule_sees_what_it_forbids():
    assert untyped("torch.zeros(3)") == ["line 1: torch.zeros"]
    assert untyped("torch.zeros(3, dtype=x)\nx.new_zeros(3)\ntorch.zeros_like(x)") == []
