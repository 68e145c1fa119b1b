import pytest
import torch

from tests.support.goldens import golden
from wan_core.checkpoints import load_vae
from wan_core.errors import InputError
from wan_core.vae.tiling import _ramp, _spans, decode_tiled, encode_tiled


@pytest.fixture(params=["vae21", "vae22"])
def vae(request):
    return load_vae(golden(request.param).weights())


@pytest.mark.parametrize("size", [16, 48, 80, 256, 272, 720, 1280])
@pytest.mark.parametrize("tile, overlap", [(32, 0), (32, 16), (64, 16), (256, 64), (256, 240)])
def test_tiles_cover_everything_once_blended(size, tile, overlap):
    weight = torch.zeros(size)
    for start, end in _spans(size, tile, overlap):
        assert 0 <= start < end <= size and end - start <= tile
        weight[start:end] += _ramp(start, end, size, overlap)
    assert weight.min() > 0


@pytest.mark.parametrize("overlap", [1, 16, 32])
def test_ramps_rise_evenly_and_mirror_each_other(overlap):
    """Over an overlap one tile's weights fall as the next one's rise, in equal steps, so that their sum is 1."""
    first, second = _ramp(0, 64, 200, overlap), _ramp(64 - overlap, 128 - overlap, 200, overlap)
    last = _ramp(136, 200, 200, overlap)
    rise, fall = second[:overlap], first[-overlap:]
    assert torch.allclose(rise + fall, torch.ones(overlap))
    assert torch.allclose(rise, torch.arange(1, overlap + 1) / (overlap + 1))
    assert torch.equal(second[-overlap:], fall) and torch.equal(last[:overlap], rise)
    assert torch.equal(first[:-overlap], torch.ones(64 - overlap))  # nothing to blend at the frame's edges
    assert torch.equal(last[overlap:], torch.ones(64 - overlap))


def test_a_tile_that_is_all_overlap_rises_and_falls():
    weights = _ramp(8, 24, 200, 16)
    assert torch.allclose(weights, weights.flip(0)) and weights.argmax() in (7, 8)


class Constant:
    """A VAE whose tiles are of one value each: 0, 1, 2, … in the order in which they are decoded."""

    def __init__(self, config):
        self.config, self.device, self.tiles = config, "cpu", 0

    def raw_chunks(self, latents):
        b, _, n, h, w = latents.shape
        stride = self.config.space_stride
        yield torch.full((b, 3, 4 * n - 3, h * stride, w * stride), 0.1 * self.tiles)
        self.tiles += 1


def test_decoded_tiles_fade_into_each_other(vae):
    stride = vae.config.space_stride
    video = decode_tiled(Constant(vae.config), torch.zeros(1, vae.config.z_channels, 1, 4, 7), 4 * stride, stride)
    row = video[0, 0, 0, 0]
    assert torch.all(row[: 3 * stride] == 0) and torch.allclose(row[4 * stride :], torch.tensor(0.1))
    assert torch.allclose(row[3 * stride : 4 * stride], 0.1 * torch.arange(1, stride + 1) / (stride + 1))


def test_one_tile_is_the_untiled_result(vae):
    z = torch.randn(1, vae.config.z_channels, 3, 4, 6)
    assert torch.allclose(decode_tiled(vae, z, 512, 64), vae.decode(z), atol=1e-6)
    video = torch.rand(1, 3, 9, 32, 64) * 2 - 1
    assert torch.allclose(encode_tiled(vae, video, 512, 64), vae.encode(video), atol=1e-5)


def test_a_vae_that_looks_at_one_pixel_is_tiled_exactly(vae):
    """Without attention and neighbours, tiles lose nothing: what is left is cutting, time, and blending."""
    for half in (vae.encoder, vae.decoder):
        half.middle[1].proj.weight.data = torch.zeros_like(half.middle[1].proj.weight)
    for module in vae.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Conv3d)) and module.kernel_size[-1] == 3:
            centre = torch.zeros_like(module.weight)
            centre[..., 1, 1] = module.weight[..., 1, 1]
            module.weight.data = centre
    stride = vae.config.space_stride
    z = torch.randn(1, vae.config.z_channels, 3, 7, 9)
    assert torch.allclose(decode_tiled(vae, z, 4 * stride, 2 * stride), vae.decode(z), atol=1e-5)
    video = torch.rand(1, 3, 9, 7 * stride, 9 * stride) * 2 - 1
    assert torch.allclose(encode_tiled(vae, video, 4 * stride, 2 * stride), vae.encode(video), atol=1e-4)


def test_tiles_have_no_seams(vae):
    """Steps between neighbouring pixels are no larger where tiles meet than elsewhere."""
    stride = vae.config.space_stride
    z = torch.randn(1, vae.config.z_channels, 2, 4, 12)
    video = decode_tiled(vae, z, 6 * stride, 3 * stride)
    steps = video.diff(dim=-1).abs().mean(dim=(0, 1, 2, 3))
    edges = sorted({side for span in _spans(12 * stride, 6 * stride, 3 * stride) for side in span} - {0, 12 * stride})
    assert all(steps[edge - 1] < 2 * steps.mean() for edge in edges)


@pytest.mark.parametrize("tile, overlap", [(8, 0), (0, 0), (-64, 16), (64, 64), (64, 100), (64, -32)])
def test_tiles_that_cannot_be_used(vae, tile, overlap):
    with pytest.raises(InputError, match="tiles of"):
        decode_tiled(vae, torch.zeros(1, vae.config.z_channels, 1, 4, 4), tile, overlap)
