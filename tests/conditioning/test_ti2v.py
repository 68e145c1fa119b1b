import pytest
import torch

from tests.support.goldens import difference, golden
from wan_core.checkpoints import load_dit, load_vae
from wan_core.conditioning import FirstFrameMask, first_frame
from wan_core.errors import InputError
from wan_core.flow import Experts, FlowSchedule, sample
from wan_core.media.images import load_image


@pytest.mark.parametrize("batch_cfg", [False, True])
def test_official_text_and_image_to_video_run(batch_cfg):
    g = golden("ti2v_e2e")
    image = load_image(g["in.image_u8"].permute(1, 2, 0).numpy())
    assert torch.equal(image, g["out.image"])
    vae, model = load_vae(g.weights("vae")), load_dit(g.weights("dit"), g.config["model"])
    z = first_frame(vae, image)
    assert difference(z[0], g["out.cond_latent"]) < 5e-5
    mask, scale = FirstFrameMask(z), g.config["guide_scale"]
    experts = Experts(model, None, cfg_high=scale)
    guided = experts.velocity(g["in.context"][None], g["in.context_null"][None], batch_cfg=batch_cfg)
    latents, told, unpinned = [], [], []

    def velocity(x, t):
        latents.append(x[0])
        told.append(mask.timesteps(t, x)[0].float())
        return guided(x, mask.timesteps(t, x))

    def pin(x):
        unpinned.append(x[0, :, 0])
        return mask.constrain(x)

    schedule = FlowSchedule.official(g.config["steps"], g.config["shift"])
    final = sample(velocity, mask.constrain(g["in.noise"][None]), schedule, pin=pin)
    assert torch.equal(torch.stack(told), g["out.model_t"])
    assert difference(torch.stack([*latents, final[0]]), g["out.latents"]) < 3e-4
    assert difference(torch.stack(unpinned), g["out.solver_frame0"]) < 3e-4
    assert difference(vae.decode(final)[0], g["out.video"]) < 5e-4


def test_only_the_given_frame_is_constrained():
    mask = FirstFrameMask(torch.full((1, 48, 1, 4, 6), 7.0))
    x = torch.randn(2, 48, 3, 4, 6)
    constrained = mask.constrain(x)
    assert (constrained[:, :, 0] == 7).all() and torch.equal(constrained[:, :, 1:], x[:, :, 1:])
    tokens = mask.timesteps(torch.tensor([900, 400]), x)
    assert tokens.tolist() == [[0] * 6 + [900] * 12, [0] * 6 + [400] * 12]


def test_the_wrong_vae_is_refused(vae21):
    with pytest.raises(InputError, match=r"2\.1 VAE.*2\.2 VAE"):
        first_frame(vae21, torch.zeros(3, 32, 32))
