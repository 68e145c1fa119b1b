import json

import pytest
import torch
from torch import nn

from wan_core.errors import CheckpointError, InputError, NumericalError
from wan_core.training.run import RunConfig, TrainingRun


def fit(folder, config, until=None, scale=1.0):
    torch.manual_seed(0)
    layer = nn.Linear(4, 4)
    run = TrainingRun(folder, {"layer": layer}, config)

    def losses(step, generator):
        x = torch.randn(8, 4, generator=generator)
        return {"loss": scale * (layer(x) - x.flip(1)).square().mean()}

    run.train(losses, until)
    return run, layer


def test_a_run_that_was_stopped_ends_like_one_that_was_not(tmp_path):
    config = RunConfig(steps=40, rate=1e-2, warmup=5, save_every=10, seed=3)
    whole = fit(tmp_path / "whole", config)
    fit(tmp_path / "parts", config, until=20)
    resumed = fit(tmp_path / "parts", config)
    assert resumed[0].step == 40
    torch.testing.assert_close(resumed[1].weight, whole[1].weight, rtol=0, atol=0)
    torch.testing.assert_close(resumed[0].average.values, whole[0].average.values, rtol=0, atol=0)


def test_the_loss_falls_and_is_logged(tmp_path):
    fit(tmp_path, RunConfig(steps=100, rate=3e-2, warmup=5))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(10, 101, 10))
    assert lines[-1]["loss"] < 0.2 * lines[0]["loss"]


def test_the_average_ends_near_the_weights(tmp_path):
    run, layer = fit(tmp_path, RunConfig(steps=100, rate=1e-2, warmup=5, ema=0.9))
    trained = layer.weight.clone()
    run.apply_ema()
    assert 0 < (layer.weight - trained).abs().max() < 0.1


def test_the_rate_warms_up_and_decays():
    config = RunConfig(steps=100, rate=1.0, warmup=10)
    rates = [config.rate_at(step) for step in range(100)]
    assert rates[0] == 0.1 and max(rates) == rates[9] == rates[10] and rates[-1] < 0.06


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
