"""The parameters of a generation stand in one list."""

import inspect
from dataclasses import fields, replace

import pytest

from wan_core import WanPipeline
from wan_core.config import PRESETS
from wan_core.pipeline import Options, Request

PARAMETERS = {name: p for name, p in inspect.signature(WanPipeline.__call__).parameters.items() if name != "self"}


def test_options_are_the_parameters_of_a_call():
    assert [field.name for field in fields(Options)] == list(PARAMETERS)
    optional = {name: p.default for name, p in PARAMETERS.items() if name != "prompt"}
    assert optional == {field.name: field.default for field in fields(Options) if field.name != "prompt"}
    assert PARAMETERS["prompt"].default is inspect.Parameter.empty, "a plan needs no prompt, a call does"


def test_a_call_puts_each_argument_into_its_option(pipe, monkeypatch):
    given = {name: object() for name in PARAMETERS}
    monkeypatch.setattr(pipe, "generate", lambda options: options)
    assert pipe(**given) == pipe(*given.values()) == Options(**given)
    assert pipe("a cat") == Options("a cat")


@pytest.mark.parametrize(
    "option, value",
    [
        ("prompt", "a dog"),
        ("negative_prompt", "blue"),
        ("height", 480),
        ("width", 832),
        ("num_frames", 5),
        ("num_inference_steps", 7),
        ("guidance_scale", 2.0),
        ("guidance_scale_2", 2.0),
        ("boundary_ratio", 0.5),
        ("flow_shift", 3.0),
        ("solver", "euler"),
        ("seed", 8),
        ("step_cache", 0.25),
    ],
)
def test_every_option_that_decides_a_clip_is_in_its_files_metadata(option, value):
    plain = Options("a cat", seed=7)
    before, after = (
        Request.resolve(PRESETS["t2v-a14b"], options).metadata()
        for options in (plain, replace(plain, **{option: value}))
    )
    assert before != after
