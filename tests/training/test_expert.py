from dataclasses import replace

import pytest
import torch

from tests.support.latents import CONFIG, random_dataset
from wan_core.dit import WanDiT
from wan_core.errors import CheckpointError, InputError
from wan_core.flow import draw_sigmas, interpolate, training_timesteps
from wan_core.training.data import pad
from wan_core.training.expert import NoiseRange, expert_loss, new_expert, start_from, train_expert
from wan_core.training.run import RunConfig, TrainingRun


@pytest.fixture
def data():
    return random_dataset()


def test_noise_is_restricted_to_the_experts_range(data, monkeypatch):
    seen = []

    def model(x, t, text, y=None):
        seen.extend(t.tolist())
        return torch.zeros_like(x)

    for expert, low, high in (("high", 875, 1000), ("low", 0, 875), ("all", 0, 1000)):
        seen.clear()
        for seed in range(30):
            expert_loss(
                model,
                data.latents,
                data.texts[0],
                None,
                NoiseRange.of(expert, 0.875, 5.0),
                torch.Generator().manual_seed(seed),
            )
        assert low <= min(seen) and max(seen) <= high and max(seen) - min(seen) > 0.9 * (high - low)
    with pytest.raises(InputError, match="high, low or all"):
        NoiseRange.of("middle", 0.9, 5.0)


def test_the_model_is_told_a_thousand_times_sigma(data):
    """Everything that the loss is made of, written out: x, t and the mean squared error of the velocity."""
    seen = []

    def model(x, t, text, y=None):
        seen.append((x, t))
        return torch.ones_like(x)

    loss = expert_loss(model, data.latents, None, None, NoiseRange(0.2, 0.9, 5.0), torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(7)
    sigma = draw_sigmas(4, 5.0, 0.2, 0.9, generator)
    noise = torch.randn(data.latents.shape, generator=generator)
    ((x, t),) = seen
    assert torch.equal(t, 1000 * sigma) and len(set(t.tolist())) == 4
    for k in range(4):
        torch.testing.assert_close(x[k], (1 - sigma[k]) * data.latents[k] + sigma[k] * noise[k])
    torch.testing.assert_close(loss, (1 - (noise - data.latents)).square().mean())


def test_the_exact_velocity_has_no_loss(data):
    generator = torch.Generator().manual_seed(5)

    class Exact:
        def __call__(self, x, t, text, y=None):
            sigma = (t / 1000).view(-1, 1, 1, 1, 1)
            return (x - data.latents) / sigma  # noise − x0, from x = (1 − σ)·x0 + σ·noise

    assert expert_loss(Exact(), data.latents, None, None, NoiseRange(0.2, 1.0), generator) < 1e-8


@pytest.mark.slow
def test_an_expert_overfits_one_clip(tmp_path, data):
    flat = data.latents[:1, :, :1, :1, :1].expand(1, 16, 2, 4, 4)
    one = replace(data, latents=flat, text_of=data.text_of[:1])
    model = new_expert(CONFIG, 0)
    run = TrainingRun(tmp_path, {"dit": model}, RunConfig(steps=200, lr=3e-3, warmup=10, ema=0.95))
    train_expert(model, one, NoiseRange(0.0, 1.0), run, 8)
    noise, sigma = torch.randn(1, 16, 2, 4, 4), torch.tensor([0.9])
    velocity = model(interpolate(one.latents, noise, sigma), training_timesteps(sigma), one.texts[2][None])
    clean = interpolate(one.latents, noise, sigma) - 0.9 * velocity
    assert (clean - one.latents).square().mean() < 0.1 * flat.var()


def test_padding_a_batch_of_texts_changes_nothing(data):
    model = new_expert(CONFIG, 0)
    torch.nn.init.normal_(model.head.head.weight, std=0.02)
    x, t = data.latents[:2], torch.tensor([500.0, 500.0])
    together = model(x, t, pad([data.texts[1], data.texts[5]]))
    torch.testing.assert_close(together[:1], model(x[:1], t[:1], data.texts[1][None]), atol=1e-5, rtol=1e-4)


def test_image_to_video_starts_as_text_to_video(data):
    source = new_expert(CONFIG, 0)
    torch.nn.init.normal_(source.head.head.weight, std=0.02)
    wider = start_from(WanDiT(replace(CONFIG, in_channels=36)), source.state_dict())
    x, t, text = data.latents, torch.full((4,), 900.0), data.texts[1][None].expand(4, -1, -1)
    torch.testing.assert_close(wider(x, t, text, y=torch.randn(4, 20, 2, 4, 4)), source(x, t, text))
    with pytest.raises(CheckpointError, match="does not fit"):
        start_from(WanDiT(replace(CONFIG, layers=3)), source.state_dict())


def test_some_texts_stand_for_no_prompt(data):
    generator = torch.Generator().manual_seed(0)
    drawn = data.draw_texts([0] * 2000, generator)
    assert set(drawn) == {0, 1, 2} and 0.06 < sum(k < 2 for k in drawn) / 2000 < 0.14
