import pytest
import torch

from tests.support.goldens import difference, golden
from wan_core.checkpoints import load_vae
from wan_core.conditioning import vcu
from wan_core.errors import InputError


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


def test_several_references_keep_their_order(vae21):
    size = {"frames": 5, "height": 32, "width": 32}
    first, second = torch.rand(3, 32, 32) - 0.5, torch.rand(3, 32, 32) - 0.5
    context = vcu(vae21, references=[first, second], **size)
    assert context.shape == (1, 96, 2 + 2, 4, 4)
    assert torch.equal(context[:, :, :1], vcu(vae21, references=[first], **size)[:, :, :1])
    assert torch.equal(context[:, :, 1:2], vcu(vae21, references=[second], **size)[:, :, :1])


def test_the_wrong_vae_is_refused(vae22):
    with pytest.raises(InputError, match=r"2\.2 VAE.*2\.1 VAE"):
        vcu(vae22, frames=5, height=32, width=32)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"video": torch.zeros(3, 9, 32, 32)}, "video"),
        ({"video": torch.zeros(3, 5, 32, 32), "mask": torch.zeros(1, 5, 16, 32)}, "mask"),
        ({"references": [torch.zeros(3, 16, 16)]}, "reference 1"),
        ({"frames": 6}, r"6 frames.*nearest count is 5 or 9"),
        ({"frames": -3}, "frames is -3"),
        ({"frames": 5.5}, r"frames is 5\.5"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(vae21, arguments, message):
    with pytest.raises(InputError, match=message):
        vcu(vae21, **{"frames": 5, "height": 32, "width": 32} | arguments)
