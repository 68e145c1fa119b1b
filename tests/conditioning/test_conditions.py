import pytest
import torch

from tests.support.goldens import difference, golden
from tests.support.ledger import Ledger
from wan_core.checkpoints import load_dit, load_vae
from wan_core.conditioning import FirstFrameMask, first_frame, image_to_video, vcu
from wan_core.errors import InputError
from wan_core.flow import Experts, FlowSchedule, sample
from wan_core.media.images import load_image


def recorded_image(g):
    pixels = g["in.image_u8"].permute(1, 2, 0).numpy()
    image = load_image(pixels)
    assert torch.equal(image, g["out.image"])
    return image


def experts_of(g):
    c = g.config
    low, high = c["guide_scale_low_high"]
    return Experts(*(load_dit(g.weights(who), c["model"]) for who in ("high", "low")), c["boundary"], high, low)


@pytest.mark.parametrize("batch_cfg", [False, True])
def test_official_image_to_video_run(batch_cfg):
    g = golden("moe_i2v_e2e")
    vae = load_vae(g.weights("vae"))
    y = image_to_video(vae, recorded_image(g), g.config["frame_num"])
    assert difference(y[0], g["out.y"]) < 3e-5
    experts = experts_of(g)
    schedule = FlowSchedule.official(g.config["steps"], g.config["shift"])
    guided = experts.velocity(g["in.context"][None], g["in.context_null"][None], y=y, batch_cfg=batch_cfg)
    latents = []
    final = sample(lambda x, t: (latents.append(x[0]), guided(x, t))[1], g["in.noise"][None], schedule)
    assert [who == "high" for who in experts.plan(schedule)] == g["out.expert_is_high"].bool().tolist()
    assert difference(torch.stack([*latents, final[0]]), g["out.latents"]) < 3e-4
    assert difference(vae.decode(final)[0], g["out.video"]) < 5e-4


@pytest.mark.parametrize("batch_cfg", [False, True])
def test_official_text_and_image_to_video_run(batch_cfg):
    g = golden("ti2v_e2e")
    vae, model = load_vae(g.weights("vae")), load_dit(g.weights("dit"), g.config["model"])
    z = first_frame(vae, recorded_image(g))
    assert difference(z[0], g["out.cond_latent"]) < 5e-5
    keep, scale = FirstFrameMask(z), g.config["guide_scale"]
    experts = Experts(model, None, cfg_high=scale)
    guided = experts.velocity(g["in.context"][None], g["in.context_null"][None], batch_cfg=batch_cfg)
    latents, told, unpinned = [], [], []

    def velocity(x, t):
        latents.append(x[0])
        told.append(keep.timesteps(t, x)[0].float())
        return guided(x, keep.timesteps(t, x))

    def pin(x):
        unpinned.append(x[0, :, 0])
        return keep.constrain(x)

    schedule = FlowSchedule.official(g.config["steps"], g.config["shift"])
    final = sample(velocity, keep.constrain(g["in.noise"][None]), schedule, pin=pin)
    assert torch.equal(torch.stack(told), g["out.model_t"])
    assert difference(torch.stack([*latents, final[0]]), g["out.latents"]) < 3e-4
    assert difference(torch.stack(unpinned), g["out.solver_frame0"]) < 3e-4
    assert difference(vae.decode(final)[0], g["out.video"]) < 5e-4


def test_official_video_condition_unit():
    g = golden("vace_context")
    vae = load_vae(g.weights())
    size = {name: g.config[name] for name in ("frames", "height", "width")}
    references = [g[f"in.ref{i}"][:, 0] for i in range(g.config["refs"])]
    assert difference(vcu(vae, g["in.frames"], g["in.mask"], **size)[0], g["out.noref.context96"]) < 3e-5
    assert difference(vcu(vae, g["in.frames"], g["in.mask"], references, **size)[0], g["out.ref.context96"]) < 3e-5
    assert difference(vcu(vae, **size)[0], g["out.t2v.context96"]) < 3e-5
    without_references = g["in.final_latent"][None, :, len(references) :]
    assert difference(vae.decode(without_references)[0], g["out.ref.decoded"]) < 2e-4


@pytest.fixture(scope="module")
def vae21():
    return load_vae(golden("vae21").weights())


def test_several_references_keep_their_order(vae21):
    size = {"frames": 5, "height": 32, "width": 32}
    first, second = torch.rand(3, 32, 32) - 0.5, torch.rand(3, 32, 32) - 0.5
    context = vcu(vae21, references=[first, second], **size)
    assert context.shape == (1, 96, 2 + 2, 4, 4)
    assert torch.equal(context[:, :, :1], vcu(vae21, references=[first], **size)[:, :, :1])
    assert torch.equal(context[:, :, 1:2], vcu(vae21, references=[second], **size)[:, :, :1])


def test_last_frame_is_marked_in_the_last_latent_frame_alone(vae21):
    first, last = torch.rand(3, 32, 40) - 0.5, torch.rand(3, 32, 40) - 0.5
    y = image_to_video(vae21, first, 9, last)
    assert y.shape == (1, 20, 3, 4, 5)
    assert y[0, :4, :, 0, 0].T.tolist() == [[1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 1]]
    video = torch.zeros(1, 3, 9, 32, 40)
    video[0, :, 0], video[0, :, -1] = first, last
    assert torch.equal(y[:, 4:], vae21.encode(video))


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


def test_only_the_given_frame_is_put_back():
    keep = FirstFrameMask(torch.full((1, 48, 1, 4, 6), 7.0))
    x = torch.randn(2, 48, 3, 4, 6)
    pinned = keep.constrain(x)
    assert (pinned[:, :, 0] == 7).all() and torch.equal(pinned[:, :, 1:], x[:, :, 1:])
    tokens = keep.timesteps(torch.tensor([900, 400]), x)
    assert tokens.tolist() == [[0] * 6 + [900] * 12, [0] * 6 + [400] * 12]


def test_the_wrong_vae_is_refused(vae21):
    vae22 = load_vae(golden("vae22").weights())
    image = torch.zeros(3, 32, 32)
    with pytest.raises(InputError, match="2.2 VAE.*2.1 VAE"):
        image_to_video(vae22, image, 5)
    with pytest.raises(InputError, match="2.2 VAE.*2.1 VAE"):
        vcu(vae22, frames=5, height=32, width=32)
    with pytest.raises(InputError, match="2.1 VAE.*2.2 VAE"):
        first_frame(vae21, image)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"video": torch.zeros(3, 9, 32, 32)}, "video"),
        ({"video": torch.zeros(3, 5, 32, 32), "mask": torch.zeros(1, 5, 16, 32)}, "mask"),
        ({"references": [torch.zeros(3, 16, 16)]}, "reference 1"),
        ({"frames": 6}, "6 frames.*nearest count is 5 or 9"),
        ({"frames": -3}, "frames is -3"),
        ({"frames": 5.5}, "frames is 5.5"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(vae21, arguments, message):
    with pytest.raises(InputError, match=message):
        vcu(vae21, **{"frames": 5, "height": 32, "width": 32} | arguments)
