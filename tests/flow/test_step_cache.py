import math

import pytest
import torch

from wan_core.errors import InputError
from wan_core.flow import SOLVERS, Experts, FlowSchedule, sample
from wan_core.flow.step_cache import StepCached

POSITIVE, NEGATIVE = torch.full((1, 3, 4), 2.0), torch.full((1, 3, 4), 0.5)
NOISE = torch.randn(1, 2, 1, 4, 4, generator=torch.Generator().manual_seed(0))


class Expert:
    """A smooth velocity, and the timesteps at which it was asked."""

    def __init__(self, factor=0.3):
        self.factor, self.asked = factor, []

    def __call__(self, x, t, text):
        self.asked.append(int(t.max()))
        return self.factor * x * (1 + text.mean() * t.max() / 1000)


def run(
    step_cache,
    high=None,
    low=None,
    steps=40,
    solver="unipc",
    positive=POSITIVE,
    negative=NEGATIVE,
    noise=NOISE,
    **scales,
):
    schedule = FlowSchedule.official(steps, 8.0, solver)
    experts = Experts(high or Expert(), low or Expert(0.2), 0.875, **scales)
    return sample(
        experts.velocity(positive, negative, step_cache=step_cache, schedule=schedule), noise, schedule, solver
    )


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_threshold_of_zero_changes_no_bit(solver):
    schedule = FlowSchedule.official(40, 8.0, solver)
    plain = sample(Experts(Expert(), Expert(0.2), 0.875).velocity(POSITIVE, NEGATIVE), NOISE, schedule, solver)
    assert torch.equal(plain, run(0, solver=solver))


@pytest.mark.parametrize("solver", SOLVERS)
def test_calls_are_saved_and_the_error_grows_with_the_threshold(solver):
    exact, errors, calls = run(0, solver=solver), [], []
    for threshold in (0.02, 0.05, 0.2):
        high, low = Expert(), Expert(0.2)
        errors.append(float((run(threshold, high, low, solver=solver) - exact).norm() / exact.norm()))
        calls.append(len(high.asked) + len(low.asked))
    assert 80 > calls[0] > calls[1] > calls[2] and 0 < errors[0] < errors[1] < errors[2] < 0.1


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8, 40])
def test_each_expert_computes_its_first_two_steps_and_its_last(steps):
    high, low = Expert(), Expert(0.2)
    run(1.0, high, low, steps)
    schedule = FlowSchedule.official(steps, 8.0)
    plan = Experts(high, low).plan(schedule)
    for expert, name in ((high, "high"), (low, "low")):
        own = [t for t, planned in zip(schedule.timesteps.tolist(), plan, strict=True) if planned == name]
        assert expert.asked[::2] == expert.asked[1::2], "both sides of the guidance, or neither"
        assert {*own[:2], *own[-1:]} <= set(expert.asked) <= set(own)
        assert len(own) < 10 or len(expert.asked) < len(own), "and leaves out most of the others"


def test_nothing_of_the_first_expert_reaches_the_second():
    """Whatever the high-noise expert answers, the low-noise expert computes at the same steps from the same latent."""

    class Wild(Expert):
        def __call__(self, x, t, text):
            return super().__call__(x, t, text) if t.max() < 875 else torch.zeros_like(x)

    asked = []
    for high in (Expert(0.0), Wild()):
        low = Expert(0.2)
        run(0.1, high, low)
        asked.append(low.asked)
    assert asked[0] == asked[1]


def test_runs_repeat_and_leave_nothing_behind():
    schedule = FlowSchedule.official(40, 8.0)
    velocity = Experts(Expert(), Expert(0.2), 0.875).velocity(POSITIVE, NEGATIVE, step_cache=0.1, schedule=schedule)
    first = sample(velocity, NOISE, schedule)
    assert torch.equal(first, run(0.1)) and torch.equal(first, run(0.1))


def test_samples_of_a_list_are_judged_by_themselves():
    noise = torch.cat((NOISE, 3 * NOISE.flip(-1)))
    texts = [POSITIVE, NEGATIVE]
    both = run(0.1, positive=texts, negative=[NEGATIVE, NEGATIVE], noise=noise)
    for k, text in enumerate(texts):
        assert torch.equal(both[k : k + 1], run(0.1, positive=text, noise=noise[k : k + 1]))


def test_without_guidance_the_negative_side_is_never_asked():
    high = Expert()
    run(0.1, high, negative=None, cfg_high=1.0, cfg_low=1.0)
    assert len(high.asked) == len(set(high.asked))


@pytest.mark.parametrize("threshold", [-0.1, 1.5, math.nan, "0.1", True])
def test_thresholds_that_make_no_sense_are_refused(threshold):
    with pytest.raises(InputError, match="step_cache"):
        run(threshold)


def test_a_step_cache_needs_the_schedule():
    with pytest.raises(InputError, match="schedule"):
        Experts(Expert(), None).velocity(POSITIVE, NEGATIVE, step_cache=0.1)


def test_a_velocity_of_zeros_is_no_trouble():
    high, low = Expert(0.0), Expert(0.0)
    assert torch.equal(run(0.1, high, low), run(0, Expert(0.0), Expert(0.0)))
    assert len(high.asked + low.asked) == 80, "nothing is known of its changes"


def test_it_wraps_any_velocity():
    """v grows by 1 for each unit that x moves: after two computed steps the third is left out, and 700 is not."""
    asked = []

    def velocity(x, t):
        asked.append(int(t))
        return 100 + x

    cached = StepCached(velocity, 0.05, lambda t: "high" if t >= 500 else "low", always={700})
    x = torch.zeros(1, 1)
    answers = {t: cached(x + k, torch.tensor([t])).item() for k, t in enumerate((1000, 900, 800, 700, 400, 300, 200))}
    assert asked == [1000, 900, 700, 400, 300]
    assert answers[800] == answers[900] == 101 and answers[200] == answers[300] == 105
