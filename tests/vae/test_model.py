import math

import pytest
import torch

from tests.support.goldens import difference, golden
from tests.support.ledger import Ledger
from wan_core.checkpoints import load_vae
from wan_core.config import VAEConfig
from wan_core.errors import InputError, NumericalError
from wan_core.testing import tiny_preset
from wan_core.vae import WanVAE
from wan_core.vae.tiling import decode_tiled

VAES = ("vae21", "vae22")
ENCODED = {"vae21": 3e-5, "vae22": 5e-5}
DECODED = {"vae21": 5e-5, "vae22": 1e-4}


def load(name):
    g = golden(name)
    return load_vae(g.weights()), g


@pytest.mark.parametrize("name", VAES)
def test_encoding_is_official(name):
    vae, g = load(name)
    assert difference(vae.encode(g["in.video"][None])[0], g["out.enc"]) < ENCODED[name]
    assert difference(vae.encode(g["in.image"][None])[0], g["out.enc_image"]) < ENCODED[name]


@pytest.mark.parametrize("name", VAES)
def test_decoding_is_official(name):
    vae, g = load(name)
    z = g["in.z"][None]
    assert difference(vae.decode(z)[0], g["out.dec_unclamped"].clamp(-1, 1)) < DECODED[name]
    assert difference(vae.decode(z[:, :, :1])[0], g["out.dec_first_frame"]) < DECODED[name]
    unclamped = torch.cat(list(vae.raw_chunks(z)), dim=2)
    assert difference(unclamped[0], g["out.dec_unclamped"]) < DECODED[name]


@pytest.mark.parametrize("name", VAES)
def test_official_statistics(name):
    vae, g = load(name)
    assert torch.equal(torch.tensor(vae.config.mean), g["out.latents_mean"])
    assert torch.equal(1 / (1 / torch.tensor(vae.config.std)), g["out.latents_std"])  # recorded through its inverse


@pytest.mark.parametrize("name", VAES)
def test_decoded_chunks_are_the_frames_of_decode(name):
    vae, g = load(name)
    z = g["in.z"][None]
    chunks = list(vae.decode_chunks(z))
    assert [chunk.shape[2] for chunk in chunks] == [1] + [4] * (z.shape[2] - 1)
    assert torch.equal(torch.cat(chunks, dim=2), vae.decode(z))


@pytest.mark.parametrize("name", VAES)
@pytest.mark.parametrize("sizes", [[9], [1] * 9, [2, 5, 2], [1, 4, 4], [8, 1]])
def test_encoded_chunks_of_any_length_are_the_latents_of_encode(name, sizes):
    vae, g = load(name)
    video = g["in.video"][None]
    streamed = torch.cat(list(vae.encode_chunks(video.split(sizes, dim=2))), dim=2)
    assert torch.equal(streamed, vae.encode(video))


@pytest.mark.parametrize("name", VAES)
def test_two_streams_do_not_disturb_each_other(name):
    vae, g = load(name)
    z = g["in.z"][None]
    pairs = list(zip(vae.decode_chunks(z), vae.decode_chunks(z.flip(-1)), strict=True))
    assert torch.equal(torch.cat([a for a, _ in pairs], dim=2), vae.decode(z))
    assert torch.equal(torch.cat([b for _, b in pairs], dim=2), vae.decode(z.flip(-1)))


@pytest.mark.parametrize("name", VAES)
def test_frames_beyond_the_last_group_are_not_encoded(name):
    vae, g = load(name)
    video = g["in.video"][None]
    assert torch.equal(vae.encode(video[:, :, :8]), vae.encode(video[:, :, :5]))


@pytest.mark.parametrize("name", VAES)
def test_later_frames_do_not_change_earlier_ones(name):
    vae, g = load(name)
    z = g["in.z"][None]
    changed = torch.cat((z[:, :, :2], torch.randn_like(z[:, :, 2:])), dim=2)
    assert torch.equal(vae.decode(changed)[:, :, :5], vae.decode(z)[:, :, :5])


@pytest.mark.parametrize("name", VAES)
def test_batches(name):
    vae, g = load(name)
    z = torch.cat((g["in.z"][None], g["in.z"][None].flip(3)))
    assert difference(vae.decode(z)[:1], vae.decode(z[:1])) < 1e-5
    video = torch.cat((g["in.video"][None], g["in.video"][None].flip(3)))
    assert difference(vae.encode(video)[1:], vae.encode(video[1:])) < 1e-5


@pytest.mark.parametrize("name", VAES)
def test_memory_does_not_grow_with_the_clip(name):
    vae, g = load(name)

    def peak(latents, run):
        with Ledger() as ledger:
            for _ in run(latents):
                pass
        return ledger.peak

    short, long = (g["in.z"][None].repeat(1, 1, n, 1, 1) for n in (1, 4))
    assert peak(long, vae.decode_chunks) == peak(short, vae.decode_chunks)

    def encode(frames):
        return vae.encode_chunks(torch.zeros(1, 3, 1, 32, 32) for _ in range(frames))

    assert peak(49, encode) <= peak(9, encode) * 1.02


@pytest.mark.parametrize(
    "config, parameters, tensors",
    [
        (VAEConfig(), 126_892_531, 194),
        (VAEConfig.wan22(), 704_688_668, 196),
    ],
)
def test_real_sizes(config, parameters, tensors):
    with torch.device("meta"):
        state = WanVAE(config).state_dict()
    assert (sum(t.numel() for t in state.values()), len(state)) == (parameters, tensors)


def test_latents_of_the_other_vae_are_refused():
    vae, _ = load("vae21")
    with pytest.raises(InputError, match=r"16.*2.1 VAE.*TI2V-5B"):
        vae.decode_chunks(torch.zeros(1, 48, 1, 4, 4))  # at the call, not at the first chunk


@pytest.mark.parametrize("shape", [(1, 3, 1, 20, 32), (1, 4, 1, 32, 32), (3, 1, 32, 32), (1, 3, 0, 32, 32)])
def test_videos_that_cannot_be_encoded_are_refused(shape):
    vae, _ = load("vae21")
    with pytest.raises(InputError):
        vae.encode(torch.zeros(shape))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_said_before_it_is_clamped(value):
    vae = WanVAE(tiny_preset("t2v-a14b").vae)
    z = torch.zeros(1, 16, 2, 2, 2)
    last = [weight for name, weight in vae.decoder.named_parameters() if name.endswith("bias")][-1]
    last.data[0] = value
    for decode in (vae.decode, lambda z: list(vae.decode_chunks(z)), lambda z: decode_tiled(vae, z, 16, 8)):
        with pytest.raises(NumericalError, match="not finite"), torch.no_grad():
            decode(z)
