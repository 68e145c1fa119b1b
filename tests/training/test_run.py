import json

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from wan_core.errors import CheckpointError, InputError, NumericalError
from wan_core.training.run import RunConfig, TrainingRun


def rate(run):
    return run.optimiser.param_groups[0]["lr"]


def fit(folder, config, until=None, scale=1.0, after=lambda run: None):
    torch.manual_seed(0)
    layer = nn.Linear(4, 4)
    run = TrainingRun(folder, {"layer": layer}, config)

    def losses(step, generator):
        x = torch.randn(8, 4, generator=generator)
        return {"loss": scale * (layer(x) - x.flip(1)).square().mean()}

    run.train(losses, until, [lambda step: after(run)])
    return run, layer


def test_a_run_that_was_stopped_ends_like_one_that_was_not(tmp_path):
    config = RunConfig(steps=40, lr=1e-2, warmup=5, save_every=10, seed=3)
    whole = fit(tmp_path / "whole", config)
    fit(tmp_path / "parts", config, until=20)
    resumed = fit(tmp_path / "parts", config)
    assert resumed[0].step == 40
    torch.testing.assert_close(resumed[1].weight, whole[1].weight, rtol=0, atol=0)
    torch.testing.assert_close(resumed[0].average, whole[0].average, rtol=0, atol=0)


def test_the_state_of_a_run_is_tensors_by_name(tmp_path):
    """Runs that were started before this file was last changed go on."""
    run, _ = fit(tmp_path, RunConfig(steps=5))
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert set(state) == {"parameters", "average", "optimiser", "step"}
    assert state["parameters"].keys() == state["average"].keys() == run.parameters.keys()
    torch.testing.assert_close(state["average"], run.average, rtol=0, atol=0)


def test_the_loss_falls_and_is_logged(tmp_path):
    fit(tmp_path, RunConfig(steps=100, lr=3e-2, warmup=5))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(10, 101, 10))
    assert lines[-1]["loss"] < 0.2 * lines[0]["loss"]


def test_the_average_ends_near_the_weights(tmp_path):
    run, layer = fit(tmp_path, RunConfig(steps=100, lr=1e-2, warmup=5, ema=0.9))
    trained = layer.weight.clone()
    run.apply_ema()
    assert 0 < (layer.weight - trained).abs().max() < 0.1


@pytest.mark.parametrize("steps, warmup", [(100, 10), (30, 1), (20, 0)])
def test_the_rate_is_a_linear_warm_up_and_then_a_cosine(tmp_path, steps, warmup):
    """At every step what LinearLR and CosineAnnealingLR one after the other say."""
    seen = []
    run, _ = fit(tmp_path, RunConfig(steps=steps, lr=2e-3, warmup=warmup), after=lambda run: seen.append(rate(run)))
    rates, config = [2e-3 * run.config.lr_factor(0), *seen[:-1]], run.config
    parameter = nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([parameter], lr=config.lr)
    cosine = CosineAnnealingLR(optimiser, steps - warmup, eta_min=config.lr / 20)
    if warmup:
        linear = LinearLR(optimiser, 1 / warmup, total_iters=warmup - 1)
        schedule = SequentialLR(optimiser, [linear, cosine], [warmup])
    expected = []
    for _ in range(steps):
        expected.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        (schedule if warmup else cosine).step()
    assert rates == pytest.approx(expected, rel=1e-9) and len(rates) == steps
    if (steps, warmup) == (100, 10):
        assert rates[0] == pytest.approx(2e-4) and rates[9] == rates[10] == max(rates) == 2e-3
        assert rates[55] == pytest.approx(2e-3 * (0.05 + 0.95 / 2)) and rates[99] == pytest.approx(1e-4, rel=0.01)


def test_a_resumed_run_follows_the_schedule_of_its_own_numbers(tmp_path):
    fit(tmp_path, RunConfig(steps=10, lr=1e-3, warmup=2))
    longer, _ = fit(tmp_path, RunConfig(steps=40, lr=4e-3, warmup=2), until=11)
    assert rate(longer) == pytest.approx(4e-3 * longer.config.lr_factor(11)) and longer.step == 11


def test_the_average_is_exponential_with_a_short_memory_at_first(tmp_path):
    """a ← a + (1 − d)·(w − a) from the initial weights on, with d = min(decay, (1 + k) / (10 + k)) after step k."""
    weights = []
    run, layer = fit(
        tmp_path,
        RunConfig(steps=60, lr=1e-2, warmup=5, ema=0.8),
        after=lambda run: weights.append(run.parameters["layer.weight"].detach().clone()),
    )
    torch.manual_seed(0)
    average = nn.Linear(4, 4).weight.detach().clone()
    for k, weight in enumerate(weights, start=1):
        average.lerp_(weight, 1 - min(0.8, (1 + k) / (10 + k)))
    assert (1 + 60) / (10 + 60) > 0.8  # the decay reaches its full length
    torch.testing.assert_close(run.average["layer.weight"], average, rtol=0, atol=0)
    assert not torch.equal(average, layer.weight)


def test_what_cannot_be_trained_is_said(tmp_path):
    with pytest.raises(InputError, match="0 steps"):
        fit(tmp_path, RunConfig(steps=0))
    with pytest.raises(InputError, match="without anything to train"):
        TrainingRun(tmp_path, {"layer": nn.Linear(2, 2).requires_grad_(False)}, RunConfig())
    with pytest.raises(NumericalError, match="not finite"):
        fit(tmp_path / "nan", RunConfig(steps=5), scale=float("nan"))
    fit(tmp_path / "other", RunConfig(steps=5))
    with pytest.raises(CheckpointError, match="another model"):
        TrainingRun(tmp_path / "other", {"wider": nn.Linear(5, 5)}, RunConfig())
