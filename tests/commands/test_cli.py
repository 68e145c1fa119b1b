import inspect
import subprocess
import sys

import pytest

from wan_core import WanPipeline
from wan_core.cli import BAD_INPUT, BAD_MODEL, COMMANDS, _parser, main
from wan_core.commands.arguments import pipeline_options


@pytest.mark.parametrize(
    "command, message",
    [
        (["generate", "nowhere", "a cat"], "nowhere is not a folder"),
        (["inspect", "nowhere"], "nowhere does not exist"),
        (["plan", "Wan-AI/Wan2.2-TI2V-5B"], "hf download Wan-AI/Wan2.2-TI2V-5B --local-dir"),
    ],
)
def test_a_missing_model_has_its_own_exit_code(capfd, command, message):
    assert main(command) == BAD_MODEL
    assert message in capfd.readouterr().err


def test_every_command_and_option_is_explained(capfd):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    shown = capfd.readouterr().out
    assert stop.value.code == 0 and "exit codes:" in shown and "examples:" in shown
    (commands,) = _parser()._subparsers._group_actions
    assert set(commands.choices) == {"generate", "inspect", "plan", "demo", "train"}
    assert {choice.dest for choice in commands._choices_actions if choice.help} == set(commands.choices)
    assert [command.NAME for command in COMMANDS] == list(commands.choices)
    for command in commands.choices.values():
        assert command.description and all(action.help for action in command._actions)


def test_unknown_commands_exit_with_the_code_for_bad_input():
    with pytest.raises(SystemExit) as stop:
        main(["paint"])
    assert stop.value.code == BAD_INPUT


@pytest.mark.parametrize("arguments", [["--help"], ["generate", "--help"], ["plan", "--steps", "many"], ["paint"]])
def test_help_and_wrong_arguments_are_answered_without_torch(arguments):
    code = f"""
import atexit, sys
atexit.register(lambda: print("loaded:", [name for name in ("torch", "numpy", "PIL") if name in sys.modules]))
from wan_core.cli import main
main({arguments!r})
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.endswith("loaded: []\n") and "usage:" in run.stdout + run.stderr


CALL = [
    ("--negative", "negative_prompt", "text"),
    ("--image", "image", "first.png"),
    ("--last-image", "last_image", "last.png"),
    ("--video", "video", "control.mp4"),
    ("--mask", "mask", "mask.png"),
    ("--reference", "reference_images", "cat.png"),
    ("--width", "width", 64),
    ("--height", "height", 32),
    ("--frames", "num_frames", 5),
    ("--steps", "num_inference_steps", 4),
    ("--guidance", "guidance_scale", 3.5),
    ("--guidance-low", "guidance_scale_2", 2.5),
    ("--boundary", "boundary_ratio", 0.9),
    ("--shift", "flow_shift", 5.0),
    ("--solver", "solver", "euler"),
    ("--seed", "seed", 9),
    ("--step-cache", "step_cache", 0.05),
]


def test_arguments_are_stored_under_the_names_of_the_pipelines_call():
    given = [str(word) for flag, _, value in CALL for word in (flag, value)]
    options = pipeline_options(_parser().parse_args(["generate", "model", "a cat", *given]))
    expected = {name: value for _, name, value in CALL} | {"prompt": "a cat", "reference_images": ["cat.png"]}
    assert {name: getattr(options, name) for name in expected} == expected
    assert set(expected) <= set(inspect.signature(WanPipeline.__call__).parameters)
