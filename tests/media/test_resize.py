import numpy as np
import torch

from wan_core.media.images import load_image
from wan_core.media.resize import cover, crop_and_scale, fit_on_white, resize, within_long_edge

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def test_images_of_the_right_size_are_left_alone():
    image = load_image(PIXELS)
    for scale in (resize, cover, fit_on_white, crop_and_scale):
        assert scale(image, 20, 30) is image


def test_cover_crops_the_centre_and_fit_shows_everything():
    image = torch.full((3, 20, 60), -1.0)
    image[:, :, 20:40] = 1
    assert cover(image, 20, 20).min() > 0.9
    fitted = fit_on_white(image, 60, 60)
    assert (fitted[:, 30] < 0).any() and (fitted[:, :19] == 1).all() and (fitted[:, 41:] == 1).all()
    assert fit_on_white(torch.zeros(3, 1, 4000), 16, 16).shape == (3, 16, 16)


def test_crop_and_scale_crops_before_it_scales():
    image = torch.full((3, 20, 60), -1.0)
    image[:, :, 20:40] = 1
    assert torch.equal(crop_and_scale(image, 10, 10, "area"), torch.ones(3, 10, 10))
    assert torch.equal(crop_and_scale(image.transpose(1, 2), 40, 40), torch.ones(3, 40, 40))
    halves = torch.tensor([0.0, 1.0, 0.0, 1.0]).expand(3, 4, 4)
    assert torch.equal(crop_and_scale(halves, 2, 2, "area"), torch.full((3, 2, 2), 0.5))


def test_references_keep_their_proportions_within_a_long_edge():
    sizes = {(900, 500): (848, 464), (500, 300): (496, 304), (16, 48): (16, 48), (5, 2000): (16, 848)}
    for (height, width), expected in sizes.items():
        assert within_long_edge(torch.zeros(3, height, width)).shape == (3, *expected)


def test_a_crop_of_half_a_pixel_is_rounded_as_comfyui_rounds_it():
    """(200 − 200·0.675) / 2 is 32.5, and rounded to the even 32."""
    row = crop_and_scale(torch.arange(200.0).expand(1, 90, 200), 64, 96)[0, 0]
    assert abs(row[0] - (32 + (136 / 96 - 1) / 2)) < 1e-3, "136 of its 200 columns, from 32 on"
