"""Same random weights in diffusers and here. Tolerances: diffusers computes the time features in float32."""

import pytest
import torch

from tests.support.branches import tiny_dit
from tests.support.goldens import difference
from tests.support.layouts import diffusers_transformer, diffusers_vae, fill, huggingface_text_encoder
from wan_core.dit import WanDiT
from wan_core.flow import FlowSchedule, sample
from wan_core.testing import tiny_preset
from wan_core.text import UMT5
from wan_core.vae import WanVAE


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("name", ["t2v-a14b", "i2v-a14b", "ti2v-5b", "vace-a14b"])
def test_transformer(name):
    config = tiny_preset(name).dit
    torch.manual_seed(0)
    ours = WanDiT(config)
    theirs = fill(diffusers_transformer(config), "dit", ours.state_dict())
    x = torch.randn(2, config.in_channels, 3, 6, 8)
    t, text = torch.tensor([997.0, 312.0]), torch.randn(2, 9, config.text_dim)
    padded = torch.cat((text, torch.zeros(2, config.text_len - 9, config.text_dim)), dim=1)
    kwargs, ours_kwargs = {}, {}
    if config.vace_layers:
        control = torch.randn(2, 96, 3, 6, 8)
        kwargs = dict(
            control_hidden_states=control, control_hidden_states_scale=torch.full((len(config.vace_layers),), 0.8)
        )
        ours_kwargs = dict(vace=control, vace_scale=0.8)
    reference = theirs(x, timestep=t, encoder_hidden_states=padded, return_dict=False, **kwargs)[0]
    assert relative(ours(x, t, text, **ours_kwargs), reference) < 1e-5


@pytest.mark.parametrize("family", ["wan21-i2v", "wan21-flf2v"])
def test_transformer_with_an_image_branch(family):
    ours = tiny_dit(family)
    config = ours.config
    theirs = fill(diffusers_transformer(config), "dit", ours.state_dict())
    if config.image_positions:
        assert theirs.condition_embedder.image_embedder.pos_embed.any()
    x, y = torch.randn(2, 16, 3, 6, 8), torch.randn(2, 20, 3, 6, 8)
    t, text = torch.tensor([997.0, 312.0]), torch.randn(2, config.text_len, config.text_dim)
    images = torch.randn(2, config.image_positions or 257, config.image_dim)
    theirs_images = images.view(4, 257, -1) if config.image_positions else images  # they take a row for each frame
    reference = theirs(
        torch.cat((x, y), dim=1),
        timestep=t,
        encoder_hidden_states=text,
        encoder_hidden_states_image=theirs_images,
        return_dict=False,
    )[0]
    assert relative(ours(x, t, text, y=y, image_embeds=images), reference) < 1e-5


def test_transformer_with_a_timestep_per_token():
    config = tiny_preset("ti2v-5b").dit
    torch.manual_seed(0)
    ours = WanDiT(config)
    theirs = fill(diffusers_transformer(config), "dit", ours.state_dict())
    x, text = torch.randn(1, 48, 3, 4, 6), torch.randn(1, config.text_len, config.text_dim)
    t = torch.cat((torch.zeros(1, 6), torch.full((1, 12), 843.0)), dim=1)
    reference = theirs(x, timestep=t, encoder_hidden_states=text, return_dict=False)[0]
    assert relative(ours(x, t, text), reference) < 1e-5


@pytest.mark.parametrize("name", ["t2v-a14b", "ti2v-5b"])
def test_vae(name):
    config = tiny_preset(name).vae
    torch.manual_seed(0)
    ours = WanVAE(config)
    theirs = fill(diffusers_vae(config), "vae", ours.state_dict())
    video = torch.rand(1, 3, 9, 64, 96) * 2 - 1
    mean, std = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in (config.mean, config.std))
    latents = (theirs.encode(video).latent_dist.mode() - mean) / std
    assert difference(ours.encode(video), latents) < 1e-5
    assert difference(ours.decode(latents), theirs.decode(latents * std + mean).sample) < 1e-5


def test_text_encoder():
    config = tiny_preset("t2v-a14b").text
    torch.manual_seed(0)
    ours = UMT5(config)
    theirs = fill(huggingface_text_encoder(config), "text_encoder", ours.state_dict())
    ids = torch.randint(3, config.vocab, (2, 40))
    mask = torch.ones_like(ids)
    mask[0, 25:] = 0
    reference = theirs(ids, mask).last_hidden_state
    hidden = ours(ids, mask)
    assert difference(hidden[0, :25], reference[0, :25]) < 1e-5
    assert difference(hidden[1], reference[1]) < 1e-5


@pytest.mark.parametrize("solver", ["unipc", "dpmpp_2m", "euler"])
@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_solver_steps(solver, steps):
    """Their solver on their grid, ours on the same grid."""
    import diffusers

    if solver == "euler":
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0)
    elif solver == "unipc":
        scheduler = diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0
        )
    else:
        scheduler = diffusers.DPMSolverMultistepScheduler(
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            flow_shift=5.0,
            algorithm_type="dpmsolver++",
            final_sigmas_type="zero",
            euler_at_final=True,
        )
    scheduler.set_timesteps(steps)
    schedule = FlowSchedule(scheduler.sigmas.float().cpu(), scheduler.timesteps.long().cpu())
    torch.manual_seed(0)
    start, field = torch.randn(1, 4, 2, 3, 2), torch.randn(1, 4, 2, 3, 2)

    def velocity(x, t):
        return 0.7 * x + field * torch.sin(t.float() / 200).view(-1, 1, 1, 1, 1)

    theirs = start
    for timestep, told in zip(scheduler.timesteps, schedule.timesteps, strict=True):
        theirs = scheduler.step(velocity(theirs, told[None]), timestep, theirs, return_dict=False)[0]
    assert difference(sample(velocity, start, schedule, solver), theirs) < 1e-5
