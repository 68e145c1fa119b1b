import pytest
import torch

from tests.support.goldens import difference, golden
from wan_core.errors import InputError, NumericalError
from wan_core.flow import SOLVERS, FlowSchedule, sample

RUNS = [
    (steps, shift, ours, theirs)
    for steps, shift in golden("schedules").config["combos"]
    for ours, theirs in (("unipc", "unipc"), ("dpmpp_2m", "dpmpp"))
]
ORDERS = {"unipc": 2, "dpmpp_2m": 2, "euler": 1}


def official_field(x, t):
    g = golden("schedules")
    return g["in.a"] * x + g["in.b"] * torch.sin(g["in.w"] * t[0].float() / 1000)


@pytest.mark.parametrize("steps, shift, ours, theirs", RUNS)
def test_every_point_of_the_trajectory_is_official(steps, shift, ours, theirs):
    g, points = golden("schedules"), []

    def velocity(x, t):
        points.append(x)
        return official_field(x, t)

    points.append(sample(velocity, g["in.x"], FlowSchedule.official(steps, shift, ours), ours))
    assert difference(torch.stack(points), g[f"out.{theirs}.s{steps}_shift{shift:g}.traj"]) < 3e-5


@pytest.mark.parametrize("solver", SOLVERS)
def test_halving_the_step_divides_the_error_by_two_to_the_order(solver):
    """On a smooth field with an exact solution: v = x − c·σ pulls x along a known curve."""

    def error(steps):
        sigmas = torch.linspace(0.9, 0.1, steps + 1, dtype=torch.float64)
        schedule = FlowSchedule(sigmas, (sigmas[:-1] * 1e6).long())  # timesteps fine enough to recover sigma
        x = torch.ones(1, 1, dtype=torch.float64)
        out = sample(lambda x, t: x.double() * (t[0].double() / 1e6), x, schedule, solver)
        exact = torch.exp((sigmas[-1] ** 2 - sigmas[0] ** 2) / 2)  # dx/dσ = σ·x
        return abs(out.item() - exact.item())

    assert error(20) / error(40) > 2 ** ORDERS[solver] * 0.8


def test_callback_sees_each_step_once():
    seen = []
    x = torch.randn(2, 3, 1, 2, 2)
    schedule = FlowSchedule.official(6, 5.0)
    out = sample(lambda x, t: 0.1 * x, x, schedule, callback=lambda *step: seen.append(step))
    assert [i for i, *_ in seen] == list(range(6))
    assert [t for _, t, *_ in seen] == schedule.timesteps.tolist()
    assert torch.equal(seen[0][2], x)
    for i, _, x_i, x0 in seen:
        assert difference(x0, x_i - schedule.sigmas[i] * 0.1 * x_i) < 1e-6
    assert torch.allclose(seen[-1][3], out)  # the last step goes all the way to the estimate


def test_model_is_told_the_truncated_timestep_of_every_sample():
    schedule, told = FlowSchedule.official(5, 5.0), []
    sample(lambda x, t: (told.append(t), x * 0)[1], torch.randn(3, 2), schedule)
    assert [t.tolist() for t in told] == [[t] * 3 for t in schedule.timesteps.tolist()]
    assert all(t.dtype == torch.int64 for t in told)


def test_callback_can_stop_the_run():
    class Stop(BaseException):
        pass

    def stop(i, t, x, x0):
        if i == 2:
            raise Stop

    with pytest.raises(Stop):
        sample(lambda x, t: x, torch.randn(1, 2), FlowSchedule.official(5, 5.0), callback=stop)


def test_input_is_not_changed():
    x = torch.randn(1, 4)
    before = x.clone()
    for solver in SOLVERS:
        sample(lambda x, t: x * 0.3, x, FlowSchedule.official(4, 5.0), solver)
    assert torch.equal(x, before)


def test_nan_names_the_step():
    schedule = FlowSchedule.official(5, 5.0)
    with pytest.raises(NumericalError, match=f"step 3 of 5.*timestep {int(schedule.timesteps[2])}"):
        sample(lambda x, t: x * (float("nan") if t[0] == schedule.timesteps[2] else 0), torch.ones(1, 2), schedule)


def test_unknown_solver_is_refused():
    with pytest.raises(InputError, match=r"no such solver.*unipc"):
        sample(lambda x, t: x, torch.ones(1, 2), FlowSchedule.official(2, 5.0), "no such solver")
