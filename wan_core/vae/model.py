"""The Wan video VAE: whole clips and streams, with the same numbers."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from ..config import VAEConfig
from ..errors import InputError
from ..shapes import video_frames
from ..validate import finite
from .layers import PLAIN, FeatureCache, VAELayers
from .wan21 import Decoder21, Encoder21
from .wan22 import Decoder22, Encoder22

# Pixels of a latent frame, and width of a decoder: smaller frames in wider stages take more time to read the weights
# than to use them.
SMALL_LATENT, WIDE_DECODER = 32 * 32, 64


class WanVAE(nn.Module):
    """Causal video autoencoder, version 2.1 (z16, 4×8×8) or 2.2 (z48, 4×16×16).

    Latents are normalised with the official mean and standard deviation. Encoding is deterministic: the mean of the
    posterior. Time runs in chunks, 1 frame and then 4 at a time (1 latent frame each), so memory does not grow with
    the clip.

    Args:
        layers: the classes that it is built from.
    Source: Wan2.2 wan/modules/vae2_1.py Wan2_1_VAE, vae2_2.py Wan2_2_VAE.
    """

    def __init__(self, config: VAEConfig, layers: VAELayers = PLAIN):
        super().__init__()
        self.config = config
        encoder, decoder = (Encoder21, Decoder21) if config.version == "2.1" else (Encoder22, Decoder22)
        self.encoder = encoder(config, layers)
        self.conv1 = layers.conv3d(2 * config.z_channels, 2 * config.z_channels, 1)
        self.conv2 = layers.conv3d(config.z_channels, config.z_channels, 1)
        self.decoder = decoder(config, layers)

    @property
    def dtype(self) -> torch.dtype:
        return self.conv1.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.conv1.weight.device

    def encode(self, video: Tensor) -> Tensor:
        """(B, 3, T, H, W) in [-1, 1] → normalised latents (B, z, 1 + (T−1)//4, H/f, W/f) float32.

        Frames beyond the last full group of four are not encoded, as in the official code.
        Raises:
            InputError: height or width is not a multiple of f (8 or 16).
        """
        self._check_pixels(video)
        return torch.cat(list(self.encode_chunks([video])), dim=2)

    def encode_chunks(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Latents (B, z, 1, H/f, W/f) of a video that comes in chunks (B, 3, any t, H, W); same numbers as `encode`."""
        cache: FeatureCache = {}
        for chunk in regroup(chunks):
            self._check_pixels(chunk)
            yield self.encode_chunk(chunk, cache)

    def encode_chunk(self, chunk: Tensor, cache: FeatureCache) -> Tensor:
        """The next 1 (first call) or 4 frames of a video → one normalised latent frame."""
        moments = self.conv1(self.encoder(chunk.to(self.device, self.dtype), cache))
        mean, std = self._statistics(moments.device)
        return (moments.chunk(2, dim=1)[0].float() - mean) * (1 / std)

    def decode(self, latents: Tensor) -> Tensor:
        """Normalised latents (B, z, n, h, w) → video (B, 3, 4n−3, H, W) float32, clamped to [-1, 1].

        Raises:
            InputError: the latents do not have this VAE's channels.
            NumericalError: NaN or infinity, before they are clamped.
        """
        self._check_latents(latents)
        b, _, n, h, w = latents.shape
        stride = self.config.space_stride
        video = torch.empty(b, 3, video_frames(n), h * stride, w * stride, dtype=torch.float32, device=self.device)
        start = 0
        for chunk in self.raw_chunks(latents):
            torch.clamp(finite(chunk), -1, 1, out=video[:, :, start : start + chunk.shape[2]])
            start += chunk.shape[2]
        return video

    def decode_chunks(self, latents: Tensor) -> Iterator[Tensor]:
        """The frames of `decode` as they come: (B, 3, 1, H, W), then (B, 3, 4, H, W) for each further latent frame."""
        self._check_latents(latents)
        return map(_clamped, regroup(self.raw_chunks(latents)))

    def raw_chunks(self, latents: Tensor) -> Iterator[Tensor]:
        """The same frames in float32, not clamped, in the decoder's own chunks. Small latent frames enter in pairs."""
        cache: FeatureCache = {}
        mean, std = self._statistics(self.device)
        small = latents.shape[3] * latents.shape[4] < SMALL_LATENT and self.config.decoder_dim >= WIDE_DECODER
        step = 2 if small else 1
        ends = (1, *range(1 + step, latents.shape[2] + step, step))
        for start, end in zip((0, *ends), ends, strict=False):
            z = latents[:, :, start:end].to(self.device, torch.float32) / (1 / std) + mean
            yield from map(Tensor.float, self.decoder(self.conv2(z.to(self.dtype)), cache))

    def _statistics(self, device) -> tuple[Tensor, Tensor]:
        mean, std = (
            torch.tensor(values, dtype=torch.float32, device=device) for values in (self.config.mean, self.config.std)
        )
        return mean.view(1, -1, 1, 1, 1), std.view(1, -1, 1, 1, 1)

    def _check_pixels(self, video: Tensor) -> None:
        stride = self.config.space_stride
        if (
            video.ndim != 5
            or video.shape[1] != 3
            or not video.shape[2]
            or any(size % stride for size in video.shape[3:])
        ):
            raise InputError(
                f"a video of shape {tuple(video.shape)}",
                f"(B, 3, T, H, W) with at least one frame, H and W multiples of {stride} "
                f"for the {self.config.version} VAE",
            )

    def _check_latents(self, latents: Tensor) -> None:
        if latents.ndim != 5 or latents.shape[1] != self.config.z_channels or not latents.shape[2]:
            raise InputError(
                f"latents of shape {tuple(latents.shape)}",
                f"(B, {self.config.z_channels}, T, h, w) for the {self.config.version} VAE",
                "The 2.1 VAE (16 channels) goes with the 14B and 1.3B models, the 2.2 VAE (48) with TI2V-5B",
            )


def regroup(chunks: Iterable[Tensor]) -> Iterator[Tensor]:
    """Chunks (B, C, any t, H, W) → one frame, then groups of four; an incomplete last group is dropped.

    At most one incoming chunk and three frames are held at a time.
    Raises:
        InputError: a chunk that is not 5-D.
    """
    held: list[Tensor] = []
    size = 1
    for chunk in chunks:
        if chunk.ndim != 5 or (held and chunk.shape[3:] != held[0].shape[3:]):
            raise InputError(f"a video chunk of shape {tuple(chunk.shape)}", "(B, 3, T, H, W), all of one size")
        start = 0
        while start < chunk.shape[2]:
            missing = size - sum(frames.shape[2] for frames in held)
            held.append(chunk[:, :, start : start + missing])
            start += held[-1].shape[2]
            if held[-1].shape[2] == missing:
                yield _join(held)
                size = 4
        del chunk  # not kept while the next one is made


def _clamped(chunk: Tensor) -> Tensor:
    return finite(chunk).clamp(-1, 1)


def _join(chunks: list[Tensor]) -> Tensor:
    """The chunks as one; they are let go of."""
    whole = torch.cat(chunks, dim=2) if len(chunks) > 1 else chunks[0]
    chunks.clear()
    return whole
