import pytest
import torch

from tests.support.goldens import difference, golden
from tests.support.ledger import Ledger
from wan_core.checkpoints import load_dit, load_vae
from wan_core.conditioning import frame_mask, image_to_video
from wan_core.errors import InputError
from wan_core.flow import Experts, FlowSchedule, sample
from wan_core.media.images import load_image


@pytest.mark.parametrize("batch_cfg", [False, True])
def test_official_image_to_video_run(batch_cfg):
    g = golden("moe_i2v_e2e")
    image = load_image(g["in.image_u8"].permute(1, 2, 0).numpy())
    assert torch.equal(image, g["out.image"])
    vae = load_vae(g.weights("vae"))
    y = image_to_video(vae, image, g.config["frame_num"])
    assert difference(y[0], g["out.y"]) < 3e-5
    low, high = g.config["guide_scale_low_high"]
    models = (load_dit(g.weights(expert), g.config["model"]) for expert in ("high", "low"))
    experts = Experts(*models, g.config["boundary"], high, low)
    schedule = FlowSchedule.official(g.config["steps"], g.config["shift"])
    guided = experts.velocity(g["in.context"][None], g["in.context_null"][None], y=y, batch_cfg=batch_cfg)
    latents = []
    final = sample(lambda x, t: (latents.append(x[0]), guided(x, t))[1], g["in.noise"][None], schedule)
    assert [expert == "high" for expert in experts.plan(schedule)] == g["out.expert_is_high"].bool().tolist()
    assert difference(torch.stack([*latents, final[0]]), g["out.latents"]) < 3e-4
    assert difference(vae.decode(final)[0], g["out.video"]) < 5e-4


def test_last_frame_is_marked_in_the_last_latent_frame_alone(vae21):
    first, last = torch.rand(3, 32, 40) - 0.5, torch.rand(3, 32, 40) - 0.5
    y = image_to_video(vae21, first, 9, last)
    assert y.shape == (1, 20, 3, 4, 5)
    assert y[0, :4, :, 0, 0].T.tolist() == [[1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 1]]
    video = torch.zeros(1, 3, 9, 32, 40)
    video[0, :, 0], video[0, :, -1] = first, last
    assert torch.equal(y[:, 4:], vae21.encode(video))


@pytest.mark.parametrize(
    "frames, first, last, given",
    [
        (1, 1, 0, [[1, 1, 1, 1]]),
        (1, 0, 0, [[0, 0, 0, 0]]),
        (9, 1, 0, [[1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]),
        (9, 3, 2, [[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1]]),
        (9, 0, 5, [[0, 0, 0, 0], [0, 0, 0, 1], [1, 1, 1, 1]]),
        (5, 5, 5, [[1, 1, 1, 1], [1, 1, 1, 1]]),
    ],
)
def test_the_mask_of_any_number_of_given_frames(frames, first, last, given):
    mask = frame_mask(frames, first, last)
    assert mask.shape == (1, 4, len(given), 1, 1) and mask[0, :, :, 0, 0].T.tolist() == given


def test_one_frame_clip(vae21):
    image = torch.rand(3, 32, 32) - 0.5
    y = image_to_video(vae21, image, 1)
    assert y.shape == (1, 20, 1, 4, 4) and y[:, :4].min() == 1


def test_memory_does_not_grow_with_the_clip(vae21):
    def peak(frames):
        with Ledger() as ledger:
            image_to_video(vae21, torch.zeros(3, 64, 64), frames)
        return ledger.peak

    assert peak(65) <= peak(9) * 1.05


def test_the_wrong_vae_is_refused(vae22):
    with pytest.raises(InputError, match=r"2\.2 VAE.*2\.1 VAE"):
        image_to_video(vae22, torch.zeros(3, 32, 32), 5)
