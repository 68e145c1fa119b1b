import numpy as np
import torch

from wan_core.media.images import load_image
from wan_core.media.resize import cover, fit_on_white, resize

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def test_images_of_the_right_size_are_left_alone():
    image = load_image(PIXELS)
    for scale in (resize, cover, fit_on_white):
        assert scale(image, 20, 30) is image


def test_cover_crops_the_centre_and_fit_shows_everything():
    image = torch.full((3, 20, 60), -1.0)
    image[:, :, 20:40] = 1
    assert cover(image, 20, 20).min() > 0.9
    fitted = fit_on_white(image, 60, 60)
    assert (fitted[:, 30] < 0).any() and (fitted[:, :19] == 1).all() and (fitted[:, 41:] == 1).all()
    assert fit_on_white(torch.zeros(3, 1, 4000), 16, 16).shape == (3, 16, 16)
