"""Our VAE as a real ComfyUI VAE."""

import copy
from collections.abc import Iterator
from dataclasses import replace

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.utils
import torch

from ...wan_core.checkpoints.build import check_part
from ...wan_core.checkpoints.formats import open_weights
from ...wan_core.checkpoints.key_maps import to_official
from ...wan_core.config import VAEConfig
from ...wan_core.cpu.vae import CPU_LAYERS, CpuCausalConv3d, CpuConv2d
from ...wan_core.errors import InputError
from ...wan_core.memory.estimate import decoding_bytes
from ...wan_core.vae import WanVAE
from ...wan_core.vae.tiling import decode_tiled, encode_tiled
from ...wan_core.validate import finite
from .checks import check_vae_latents, check_video_vae
from .loading import load_file

UNTILED = 9999  # tile_t of the native tiled nodes: the whole clip at a time


class PlainWeights:
    """Before `suits` of `wan_core.cpu`: not where ComfyUI casts, moves or patches a layer's weights at each use."""

    def suits(self, x: torch.Tensor) -> bool:
        return not (self.comfy_cast_weights or self.weight_function or self.bias_function) and super().suits(x)


class HostConv2d(PlainWeights, CpuConv2d, comfy.ops.disable_weight_init.Conv2d):
    """ComfyUI's convolution, or a faster one on a CPU."""


class HostCausalConv3d(PlainWeights, CpuCausalConv3d, comfy.ops.disable_weight_init.Conv3d):
    """The same over time."""

    def first_frame(self, x):
        return comfy.ops.disable_weight_init.Conv3d.forward(self, x, autopad="causal_zero")


HOST_LAYERS = replace(
    CPU_LAYERS, conv2d=HostConv2d, conv3d=comfy.ops.disable_weight_init.Conv3d, causal_conv=HostCausalConv3d
)


class HostVAE(WanVAE):
    """WanVAE in ComfyUI's latent space: raw latents, which the MODEL normalises."""

    device = dtype = None  # kept by ComfyUI, not read off the weights

    def __init__(self, config: VAEConfig):
        super().__init__(config, HOST_LAYERS)

    def _statistics(self, device):
        return torch.zeros(1, dtype=torch.float32, device=device), torch.ones(1, dtype=torch.float32, device=device)


class ComfyVAE(comfy.sd.VAE):
    """What the native VAE nodes expect, around HostVAE.

    The base class finds its architecture by the keys of a state dict and knows none of ours, so its constructor is not
    called, and every attribute that it sets is set here.
    """

    def __init__(self, state: dict[str, torch.Tensor], config: VAEConfig):
        mm, stride = comfy.model_management, config.space_stride
        self.config = config
        self.first_stage_model = HostVAE(config).eval().requires_grad_(False)
        self.latent_channels, self.latent_dim, self.output_channels = config.z_channels, 3, 3
        self.upscale_ratio = (lambda latents: max(0, 4 * latents - 3), stride, stride)
        self.downscale_ratio = (lambda frames: max(0, (frames + 3) // 4), stride, stride)
        self.upscale_index_formula = self.downscale_index_formula = (4, stride, stride)
        self.process_input = lambda image: image * 2 - 1
        self.process_output = lambda image: image.add_(1).div_(2).clamp_(0, 1)  # nothing else holds it
        self.memory_used_decode = lambda shape, dtype: decoding_bytes(
            config, shape[-2] * stride, shape[-1] * stride, mm.dtype_size(dtype)
        )
        self.memory_used_encode = lambda shape, dtype: decoding_bytes(
            config, shape[-2], shape[-1], mm.dtype_size(dtype)
        )
        self.disable_offload = self.not_video = self.handles_tiling = False
        self.size = self.pad_channel_value = self.extra_1d_channel = self.format_encoded = None
        self.crop_input = True
        self.audio_sample_rate = 44100
        self.working_dtypes = [torch.bfloat16, torch.float16, torch.float32]
        self.device, self.output_device = mm.vae_device(), mm.intermediate_device()
        self.vae_dtype = mm.vae_dtype(self.device, self.working_dtypes)
        self.first_stage_model.to(self.vae_dtype)
        self.first_stage_model.device, self.first_stage_model.dtype = self.device, self.vae_dtype
        mm.archive_model_dtypes(self.first_stage_model)
        self.patcher = comfy.model_patcher.CoreModelPatcher(
            self.first_stage_model, load_device=self.device, offload_device=mm.vae_offload_device()
        )
        self.first_stage_model.load_state_dict(state, assign=self.patcher.is_dynamic())
        self.model_size()

    def load(self, memory: int) -> HostVAE:
        """The model on its device, with `memory` bytes free for the work."""
        comfy.model_management.load_models_gpu([self.patcher], memory_required=memory)
        return self.first_stage_model


class RawVAE:
    """A ComfyUI VAE, ours or native, where `wan_core` wants to encode: (B, 3, T, H, W) in [-1, 1] to raw latents."""

    config = VAEConfig()

    def __init__(self, vae):
        self.vae = vae

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        return self.vae.encode((video[0].movedim(0, -1) + 1) / 2)

    def encode_chunks(self, chunks) -> Iterator[torch.Tensor]:
        yield self.encode(torch.cat(list(chunks), dim=2))


def load_vae(path: str) -> ComfyVAE:
    """A VAE from a file of any naming; CheckpointError where it is no Wan VAE."""
    weights = open_weights(path)
    config = check_part(weights, "vae", in_comfyui=True).config
    state, _ = load_file(weights)
    return ComfyVAE({ours: state[theirs] for ours, theirs in to_official("vae", state, path).items()}, config)


def stream_decode(vae, latents: torch.Tensor) -> Iterator[torch.Tensor]:
    """Frames (t, H, W, 3) in [0, 1] of the clip `latents` (1, C, T, h, w): a few at a time by ours, all by others."""
    if not isinstance(vae, ComfyVAE):
        yield _checked(vae).decode(latents)[0]
        return
    model = vae.load(vae.memory_used_decode(latents.shape, vae.vae_dtype))
    for frames in model.decode_chunks(latents):
        comfy.model_management.throw_exception_if_processing_interrupted()
        yield ((frames[0] + 1) / 2).permute(1, 2, 3, 0)


def _checked(vae):
    """A native VAE whose pixels are checked before it clamps them; ours checks its own."""
    clamp = getattr(vae, "process_output", None)
    if isinstance(vae, ComfyVAE) or clamp is None:
        return vae
    vae = copy.copy(vae)
    vae.process_output = lambda image: clamp(finite(image))
    return vae


def decode(vae, latents: torch.Tensor, tile: int = 0, overlap: int = 64) -> torch.Tensor:
    """Frames (T, H, W, 3) of every clip, one after the other, by any Wan VAE; ours tiles in space alone.

    Neighbouring tiles share at most half of a tile.
    """
    check_vae_latents(vae, latents)
    overlap = min(overlap, tile // 2)
    stride = vae.spacial_compression_decode()
    side = tile // stride
    if not tile:
        frames = _checked(vae).decode(latents)
    elif isinstance(vae, ComfyVAE):
        model = vae.load(vae.memory_used_decode((1, 1, 1, side, side), vae.vae_dtype))
        frames = (decode_tiled(model, latents.to(vae.device), tile, overlap).movedim(1, -1) + 1) / 2
    else:
        frames = _checked(vae).decode_tiled(
            latents, tile_x=side, tile_y=side, overlap=overlap // stride, tile_t=UNTILED
        )
    return frames.reshape(-1, *frames.shape[-3:]).to(vae.output_device)


def encode(vae, pixels: torch.Tensor, tile: int = 0, overlap: int = 64) -> torch.Tensor:
    """Raw latents (1, z, T', h, w) of frames (T, H, W, 3), by any Wan VAE; ours tiles in space alone."""
    pixels, overlap = pixels[..., :3], min(overlap, tile // 2)
    if not tile:
        return vae.encode(pixels)
    if not isinstance(vae, ComfyVAE):
        return vae.encode_tiled(pixels, tile_x=tile, tile_y=tile, overlap=overlap, tile_t=UNTILED)
    model = vae.load(vae.memory_used_encode((1, 3, 4, tile, tile), vae.vae_dtype))
    video = (vae.vae_encode_crop_pixels(pixels).movedim(-1, 0)[None] * 2 - 1).to(vae.device)
    return encode_tiled(model, video, tile, overlap).to(vae.output_device)


def whole_frames(vae, pixels: torch.Tensor) -> torch.Tensor:
    """The part of frames (T, H, W, C) that the VAE can encode: the first 4n + 1, their middle in whole patches, RGB."""
    check_video_vae(vae)
    stride = vae.spacial_compression_encode()
    frames = 4 * ((len(pixels) - 1) // 4) + 1
    height, width = (size // stride * stride for size in pixels.shape[1:3])
    if not (height and width):
        raise InputError(f"frames of {pixels.shape[2]}×{pixels.shape[1]}", f"at least {stride}×{stride} pixels")
    top, left = (pixels.shape[1] - height) // 2, (pixels.shape[2] - width) // 2
    return pixels[:frames, top : top + height, left : left + width, :3]
