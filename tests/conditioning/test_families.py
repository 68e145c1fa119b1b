"""Contexts of Bernini-R, conditions of the Fun models, and CLIP tokens: which channel and which frame holds what."""

import pytest
import torch

from wan_core.conditioning import contexts, fun_control, fun_inp_5b, image_to_video, image_tokens
from wan_core.config import ImageEncoderConfig, VAEConfig
from wan_core.errors import InputError
from wan_core.shapes import VideoShape
from wan_core.vae import WanVAE
from wan_core.vision import ImageEncoder

SHAPE = VideoShape(9, 64, 96)


@pytest.fixture(scope="module", params=[VAEConfig(dim=8, decoder_dim=8), VAEConfig.wan22(8, 8)], ids=["2.1", "2.2"])
def vae(request):
    torch.manual_seed(0)
    return WanVAE(request.param).eval()


def image(seed=0, height=64, width=96):
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def clip(seed=0):
    return torch.rand(3, 9, 64, 96, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_contexts_are_the_source_and_then_each_reference_at_its_own_size():
    vae = WanVAE(VAEConfig(dim=8, decoder_dim=8)).eval()
    found = contexts(vae, clip(), [image(1, 32, 48), image(2, 80, 16)])
    assert [tuple(latent.shape) for latent in found] == [(1, 16, 3, 8, 12), (1, 16, 1, 4, 6), (1, 16, 1, 10, 2)]
    assert torch.equal(found[0], vae.encode(clip()[None]))
    assert torch.equal(found[2], vae.encode(image(2, 80, 16)[None, :, None]))
    assert contexts(vae) == ()
    with pytest.raises(InputError, match=r"2.1 VAE.*Bernini-R"):
        contexts(WanVAE(VAEConfig.wan22(8, 8)), clip())


def test_fun_control_is_control_mask_and_start(vae):
    z = vae.config.z_channels
    y = fun_control(vae, SHAPE, clip(), image())
    assert y.shape == (1, 2 * z + 4, *SHAPE.latent(vae.config)[1:])
    control, mask, start = y.split((z, 4, z), dim=1)
    assert torch.equal(control, vae.encode(clip()[None]))
    assert mask[:, :, 0].eq(1).all() and mask[:, :, 1:].eq(0).all()
    assert torch.equal(start[:, :, :1], vae.encode(image()[None, :, None])) and not start[:, :, 1:].any()


def test_what_fun_control_is_not_given_is_zero(vae):
    z = vae.config.z_channels
    assert not fun_control(vae, SHAPE).any()
    assert not fun_control(vae, SHAPE, video=clip())[:, z:].any()
    assert not fun_control(vae, SHAPE, image=image())[:, :z].any()


def test_fun_inp_5b_is_the_mask_and_the_clip_with_grey():
    vae = WanVAE(VAEConfig.wan22(8, 8)).eval()
    both = fun_inp_5b(vae, SHAPE, image(), image(1))
    masked = torch.zeros(1, 3, 9, 64, 96)
    masked[0, :, 0], masked[0, :, 8] = image(), image(1)
    assert torch.equal(both[:, 4:], vae.encode(masked))
    assert both[0, :4, :, 0, 0].T.tolist() == [[1] * 4, [0] * 4, [0, 0, 0, 1]]
    first, last = fun_inp_5b(vae, SHAPE, image()), fun_inp_5b(vae, SHAPE, last_image=image(1))
    assert first[0, :4, :, 0, 0].T.tolist() == [[1] * 4, [0] * 4, [0] * 4]
    assert last[0, :4, :, 0, 0].T.tolist() == [[0] * 4, [0] * 4, [0, 0, 0, 1]]
    assert fun_inp_5b(vae, SHAPE).shape == both.shape and not fun_inp_5b(vae, SHAPE).any()
    assert torch.equal(first[:, 4:, :1], vae.encode(image()[None, :, None])), "the frame that stays as it is given"


def test_fun_inp_a14b_is_image_to_video():
    vae = WanVAE(VAEConfig(dim=8, decoder_dim=8)).eval()
    assert image_to_video(vae, image(), 9, image(1)).shape == (1, 20, 3, 8, 12)


def test_image_tokens_of_two_frames_stand_behind_one_another():
    torch.manual_seed(0)
    encoder = ImageEncoder(ImageEncoderConfig(80, 96, 1, 2, 14, 28)).eval()
    torch.nn.init.normal_(encoder.embeddings.class_embedding)
    first, last = image(0, 28, 28), image(1, 28, 28)
    one, two = image_tokens(encoder, [first]), image_tokens(encoder, [first, last])
    assert one.shape == (1, 5, 80) and two.shape == (1, 10, 80)
    torch.testing.assert_close(two[:, :5], one)
    torch.testing.assert_close(two[:, 5:], image_tokens(encoder, [last]))
