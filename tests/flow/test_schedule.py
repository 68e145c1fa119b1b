import math

import pytest
import torch

from tests.support.goldens import golden
from wan_core.errors import InputError
from wan_core.flow import Experts, FlowSchedule

RUNS = [
    (steps, shift, ours, theirs)
    for steps, shift in golden("schedules").config["combos"]
    for ours, theirs in (("unipc", "unipc"), ("dpmpp_2m", "dpmpp"))
]


@pytest.mark.parametrize("steps, shift, ours, theirs", RUNS)
def test_grid_is_the_official_one(steps, shift, ours, theirs):
    g, key = golden("schedules"), f"out.{theirs}.s{steps}_shift{shift:g}"
    schedule = FlowSchedule.official(steps, shift, ours)
    assert schedule.sigmas.dtype == torch.float32 and schedule.timesteps.dtype == torch.int64
    assert torch.equal(schedule.timesteps, g[f"{key}.timesteps"])
    assert torch.equal(schedule.sigmas, g[f"{key}.sigmas"])


def test_euler_takes_the_unipc_grid():
    assert torch.equal(FlowSchedule.official(9, 5.0, "euler").sigmas, FlowSchedule.official(9, 5.0).sigmas)


@pytest.mark.parametrize(
    "steps, shift, boundary, high",
    [
        (40, 12.0, 0.875, 26),
        (40, 5.0, 0.9, 15),
        (20, 8.0, 0.875, 11),
        (4, 5.0, 0.9, 2),
        (2, 5.0, 0.9, 1),
    ],
)
def test_high_noise_steps_match_official(steps, shift, boundary, high):
    plan = Experts(None, object(), boundary).plan(FlowSchedule.official(steps, shift))
    assert plan == ["high"] * high + ["low"] * (steps - high)


def test_a_step_that_starts_on_the_boundary_is_high_noise():
    schedule = FlowSchedule.official(40, 12.0)
    for i, t in enumerate(schedule.timesteps.tolist()):
        assert Experts(None, object(), t / 1000).plan(schedule).count("high") == i + 1


def test_one_model_does_every_step():
    assert Experts(object(), None).plan(FlowSchedule.official(5, 5.0)) == ["high"] * 5


@pytest.mark.parametrize("steps", [0, -3, 1001, 2.5, math.nan, True, "4", None])
def test_steps_out_of_range_are_refused(steps):
    with pytest.raises(InputError, match="steps"):
        FlowSchedule.official(steps, 5.0)


@pytest.mark.parametrize("shift", [0, -1.0, math.nan, math.inf, "5"])
def test_shift_out_of_range_is_refused(shift):
    with pytest.raises(InputError, match="shift"):
        FlowSchedule.official(4, shift)


@pytest.mark.parametrize("boundary", [-0.1, 1.5, math.nan])
def test_boundary_out_of_range_is_refused(boundary):
    with pytest.raises(InputError, match="boundary"):
        Experts(None, None, boundary)
