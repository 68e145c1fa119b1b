import numpy as np
import pytest
import torch

from wan_core.errors import NumericalError
from wan_core.media.pixels import from_uint8, is_unit, to_uint8, unit_to_uint8


def test_uint8_conversion_truncates_as_officially():
    values = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0, -7.0, 7.0])
    video = values.view(1, 1, 1, -1).expand(3, 1, 1, -1)
    assert to_uint8(video)[0, 0, :, 0].tolist() == [0, 63, 127, 191, 255, 0, 255]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_not_written(value):
    video = torch.zeros(3, 1, 2, 2)
    video[0, 0, 0, 0] = value
    with pytest.raises(NumericalError):
        to_uint8(video)
    with pytest.raises(NumericalError):
        unit_to_uint8(video.numpy())


def test_eight_bits_and_back():
    pixels = torch.arange(256, dtype=torch.uint8)
    values = from_uint8(pixels)
    assert values[0] == -1 and values[-1] == 1
    assert torch.equal(((values + 1) * 127.5).round().byte(), pixels)


def test_what_counts_as_unit_range():
    assert is_unit(np.array([-0.0005, 1.0005])) and is_unit(np.empty(0))
    assert not is_unit(np.array([0, 1.01])) and not is_unit(np.array([0, np.nan])) and not is_unit(np.array([-0.1]))
