import torch

from wan_core.flow import (
    FlowSchedule,
    draw_noise,
    draw_sigmas,
    flow_loss,
    interpolate,
    shift_sigma,
    training_timesteps,
    velocity_target,
)


def test_path_is_straight_and_its_slope_is_the_target():
    x0, noise = torch.randn(2, 3, 2, 4, 4), torch.randn(2, 3, 2, 4, 4)
    start, end = torch.zeros(2), torch.ones(2)
    assert torch.equal(interpolate(x0, noise, start), x0)
    assert torch.equal(interpolate(x0, noise, end), noise)
    here, there = (interpolate(x0, noise, torch.tensor([s, s])) for s in (0.3, 0.7))
    assert torch.allclose((there - here) / 0.4, velocity_target(x0, noise), atol=1e-5)


def test_each_sample_has_its_own_noise_level():
    x0, noise = torch.zeros(2, 1, 1, 1, 1), torch.ones(2, 1, 1, 1, 1)
    assert interpolate(x0, noise, torch.tensor([0.25, 0.75])).flatten().tolist() == [0.25, 0.75]


def test_loss_is_zero_only_at_the_target():
    x0, noise = torch.randn(1, 2, 1, 2, 2), torch.randn(1, 2, 1, 2, 2)
    assert flow_loss(noise - x0, x0, noise) == 0
    assert torch.isclose(flow_loss(noise - x0 + 2, x0, noise), torch.tensor(4.0))
    given = torch.ones_like(x0)
    given[..., 0] = 0  # a given part does not count
    assert torch.isclose(flow_loss(noise - x0 + 2, x0, noise, given), torch.tensor(2.0))


def test_sigmas_stay_within_an_experts_range():
    generator = torch.Generator().manual_seed(0)
    high = draw_sigmas(4000, 5.0, low=0.875, generator=generator)
    low = draw_sigmas(4000, 5.0, high=0.875, generator=generator)
    assert 0.875 <= high.min() < 0.88 and 0.99 < high.max() <= 1
    assert 0 <= low.min() < 0.01 and 0.87 < low.max() <= 0.875
    uniform = torch.linspace(0, 1, 4000)
    both = draw_sigmas(4000, 5.0, generator=generator)
    assert torch.allclose(both.sort().values, shift_sigma(uniform, 5.0), atol=0.05)


def test_timesteps_of_training_are_those_of_sampling():
    assert torch.equal(training_timesteps(torch.tensor([0.0, 0.25, 0.875, 1.0])), torch.tensor([0.0, 250, 875, 1000]))
    schedule = FlowSchedule.official(40, 12.0)
    told = training_timesteps(schedule.sigmas[:-1])
    assert ((told - schedule.timesteps + 1e-3) // 1 == 0).all()  # which sampling truncates, as the official code does


def test_a_sample_of_a_batch_has_the_noise_of_that_sample_alone():
    batch = draw_noise((4, 2, 3, 3), [7, 8, 9])
    for k, seed in enumerate((7, 8, 9)):
        assert torch.equal(batch[k : k + 1], draw_noise((4, 2, 3, 3), [seed]))
    assert not torch.equal(batch[0], batch[1])
